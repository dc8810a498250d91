"""Patches cut from the object canvas at sub-pixel corners, and put back: the cut, its slopes and its adjoint.

Fields are real and imaginary part on a last axis of 2.
"""

from __future__ import annotations

import tensorflow as tf


def whole_and_fraction(corners_px: tf.Tensor, dtype: tf.DType) -> tuple[tf.Tensor, tf.Tensor]:
    """Corners (B, 2), [x, y], float64 → whole pixels (B, 2) int64, and the fractions x and y, (2, B, 1, 1, 1)."""
    whole = tf.floor(corners_px)
    fraction = tf.cast(corners_px - whole, dtype)
    return tf.cast(whole, tf.int64), tf.transpose(fraction)[..., None, None, None]


def window_index(whole: tf.Tensor, width: int, N: int) -> tf.Tensor:
    """(B, N + 1, N + 1) int64: the pixels of a flat canvas from each whole corner on, one more than a patch."""
    pixel = tf.range(N + 1, dtype=tf.int64)
    corner = whole[:, 1] * width + whole[:, 0]
    return corner[:, None, None] + pixel[:, None] * width + pixel


def windows(canvas: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """(B, N + 1, N + 1, 2) of the canvas (H, W, 2)."""
    return tf.gather(tf.reshape(canvas, [-1, 2]), index)


def cut(window: tf.Tensor, fraction: tf.Tensor) -> tf.Tensor:
    """Patches (B, N, N, 2) between the pixels of the windows (B, N + 1, N + 1, 2), bilinear."""
    x, y = fraction[0], fraction[1]
    rows = lerp(window[:, :, :-1], window[:, :, 1:], x)
    return lerp(rows[:, :-1], rows[:, 1:], y)


def slopes(window: tf.Tensor, fraction: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Derivatives of the patches by the corner's x and y, (B, N, N, 2) each."""
    x, y = fraction[0], fraction[1]
    along_x, along_y = window[:, :, 1:] - window[:, :, :-1], window[:, 1:] - window[:, :-1]
    return lerp(along_x[:, :-1], along_x[:, 1:], y), lerp(along_y[:, :, :-1], along_y[:, :, 1:], x)


def place(patches: tf.Tensor, index: tf.Tensor, fraction: tf.Tensor, shape: tuple[int, int]) -> tf.Tensor:
    """The adjoint of `windows` and `cut`: the sum (H, W, 2) of the patches (B, N, N, 2) on a canvas of zeros."""
    x, y = fraction[0], fraction[1]
    height, width = shape
    padded = tf.pad(patches, [[0, 0], [1, 1], [1, 1], [0, 0]])
    rows = lerp(padded[:, :, 1:], padded[:, :, :-1], x)
    shared = lerp(rows[:, 1:], rows[:, :-1], y)
    flat = tf.math.unsorted_segment_sum(tf.reshape(shared, [-1, 2]), tf.reshape(index, [-1]), height * width)
    return tf.reshape(flat, [height, width, 2])


def lerp(start: tf.Tensor, end: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    return start + share * (end - start)
