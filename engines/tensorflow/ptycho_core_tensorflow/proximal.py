"""Proximal steps on the object canvas, by name (specs/solving.md)."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def total_variation(canvas: tf.Tensor, *, weight: float, iterations: int) -> tf.Tensor:
    """argmin over u of ‖u - canvas‖²/2 + weight · TV(u), by Chambolle's dual iteration (J. Math. Imaging Vis. 20, 89).

    TV(u) is the sum over pixels of the length of (∂x Re, ∂y Re, ∂x Im, ∂y Im), forward differences, 0 at the far edge.
    """
    if weight == 0:
        return canvas
    return _dual_iteration(canvas, tf.constant(weight, canvas.dtype), tf.constant(iterations))


@tf.function(reduce_retracing=True)
def _dual_iteration(canvas: tf.Tensor, weight: tf.Tensor, iterations: tf.Tensor) -> tf.Tensor:
    dual_y, dual_x, smooth = tf.zeros_like(canvas), tf.zeros_like(canvas), canvas
    for _ in tf.range(iterations):
        slope_y = tf.pad(smooth[1:] - smooth[:-1], [[0, 1], [0, 0], [0, 0]])
        slope_x = tf.pad(smooth[:, 1:] - smooth[:, :-1], [[0, 0], [0, 1], [0, 0]])
        length = tf.sqrt(tf.reduce_sum(tf.square(slope_y) + tf.square(slope_x), axis=2, keepdims=True))
        shorter = 1 + length / (4 * weight)
        dual_y, dual_x = (dual_y - slope_y / 4) / shorter, (dual_x - slope_x / 4) / shorter
        before = tf.pad(dual_y[:-1], [[1, 0], [0, 0], [0, 0]]) + tf.pad(dual_x[:, :-1], [[0, 0], [1, 0], [0, 0]])
        smooth = canvas - (dual_y + dual_x - before)
    return smooth


PROXIMAL_STEPS: dict[str, Callable[..., tf.Tensor]] = {"tv": total_variation}
"""canvas (H, W, 2) and settings → canvas, on the device; one more is one more entry."""
