"""Patches cut from the object canvas at sub-pixel corners, and put back: the cut, its slopes and its adjoint."""

from __future__ import annotations

import tensorflow as tf


def window_index(whole: tf.Tensor, width: int, N: int) -> tf.Tensor:
    """(B, N + 1, N + 1) int64: pixels of the flat canvas from each whole corner (B, 2) on, one more than a patch."""
    pixel = tf.range(N + 1, dtype=tf.int64)
    corner = whole[:, 1] * width + whole[:, 0]
    return corner[:, None, None] + pixel[:, None] * width + pixel


def windows(canvas: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """(B, N + 1, N + 1) of the canvas (H, W)."""
    return tf.gather(tf.reshape(canvas, [-1]), index)


def cut(window: tf.Tensor, fraction: tf.Tensor) -> tf.Tensor:
    """Patches (B, N, N) between the pixels of the windows (B, N + 1, N + 1), bilinear; fraction (B, 2), of x and y."""
    x, y = shares(fraction, window.dtype)
    rows = lerp(window[:, :, :-1], window[:, :, 1:], x)
    return lerp(rows[:, :-1], rows[:, 1:], y)


def slopes(window: tf.Tensor, fraction: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Derivatives of the patches by the corner's x and y, (B, N, N) each."""
    x, y = shares(fraction, window.dtype)
    along_x, along_y = window[:, :, 1:] - window[:, :, :-1], window[:, 1:] - window[:, :-1]
    return lerp(along_x[:, :-1], along_x[:, 1:], y), lerp(along_y[:, :, :-1], along_y[:, :, 1:], x)


def place(canvas: tf.Tensor, patches: tf.Tensor, index: tf.Tensor, fraction: tf.Tensor) -> tf.Tensor:
    """The adjoint of `windows` and `cut`: the flat canvas with the patches (B, N, N) added."""
    x, y = shares(fraction, patches.dtype)
    bordered = tf.pad(patches, [[0, 0], [1, 1], [1, 1]])
    rows = lerp(bordered[:, :, 1:], bordered[:, :, :-1], x)
    shared = lerp(rows[:, 1:], rows[:, :-1], y)
    return tf.tensor_scatter_nd_add(canvas, tf.reshape(index, [-1, 1]), tf.reshape(shared, [-1]))


def shares(fraction: tf.Tensor, dtype: tf.DType) -> tuple[tf.Tensor, tf.Tensor]:
    """The fractions x and y as (B, 1, 1) of the fields' dtype."""
    shares = tf.cast(fraction, dtype)[:, :, None, None]
    return shares[:, 0], shares[:, 1]


def lerp(start: tf.Tensor, end: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    return start + share * (end - start)
