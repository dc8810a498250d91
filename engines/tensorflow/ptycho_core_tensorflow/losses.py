"""Loss terms of specs/physics.md, Losses: the same numbers as every other engine's for the same batch."""

from __future__ import annotations

import tensorflow as tf

from ptycho_core.physics.constants import INTENSITY_FLOOR, MODULUS_FLOOR


def masked_mean(x: tf.Tensor, good: tf.Tensor) -> tf.Tensor:
    """Mean over the good pixels of x (B, C, N, N); good (N, N), 1 or 0."""
    return tf.reduce_sum(tf.reduce_mean(x * good, axis=(0, 1))) / tf.reduce_sum(good)


def half_deviance(predicted: tf.Tensor, measured: tf.Tensor) -> tf.Tensor:
    """Poisson negative log likelihood without its constant, per pixel: I - n + n ln(n / I); 0 for a perfect fit."""
    predicted = tf.maximum(predicted, INTENSITY_FLOOR)
    ratio = tf.where(measured > 0, measured, predicted) / predicted
    return predicted - measured + measured * tf.math.log(ratio)


def amplitude_error(predicted: tf.Tensor, measured: tf.Tensor) -> tf.Tensor:
    """| sqrt(I) - sqrt(n) |, per pixel; predicted and measured counts."""
    return tf.abs(tf.sqrt(tf.maximum(predicted, INTENSITY_FLOOR)) - tf.sqrt(measured))


def modulus(field: tf.Tensor) -> tf.Tensor:
    """|z| of a field (2, …), with a gradient at 0."""
    return tf.sqrt(tf.reduce_sum(tf.square(field), axis=0) + MODULUS_FLOOR**2) - MODULUS_FLOOR


def total_variation(patches: tf.Tensor) -> tf.Tensor:
    """Mean |difference| of neighbouring pixels along x plus along y; patches (2, B, C, N, N)."""
    along_x = patches[..., :, 1:] - patches[..., :, :-1]
    along_y = patches[..., 1:, :] - patches[..., :-1, :]
    return tf.reduce_mean(modulus(along_x)) + tf.reduce_mean(modulus(along_y))


def complex_error(patches: tf.Tensor, truth: tf.Tensor) -> tf.Tensor:
    """Mean |O - truth|; both (2, B, C, N, N)."""
    return tf.reduce_mean(modulus(patches - truth))
