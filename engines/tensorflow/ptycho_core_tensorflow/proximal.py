"""Proximal steps on the object canvas, by name (specs/solving.md)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf


def total_variation(canvas: tf.Tensor, *, weight: float, iterations: int) -> tf.Tensor:
    """argmin over u of ‖u - canvas‖²/2 + weight · TV(u), by Chambolle's dual iteration (J. Math. Imaging Vis. 20, 89).

    TV(u) is the sum over pixels of the length of (∂x Re, ∂y Re, ∂x Im, ∂y Im), forward differences, 0 at the far edge.
    """
    if weight == 0:
        return canvas
    real, compiled = canvas.dtype.real_dtype, "CPU" in canvas.device
    return iterated(compiled)(canvas, tf.constant(weight, real), tf.constant(iterations))


@functools.cache
def iterated(compiled: bool) -> Any:
    """`dual_iteration` as a graph; compiled (XLA) on a processor, where it takes a third of the time."""
    return tf.function(dual_iteration, autograph=False, jit_compile=compiled)


def dual_iteration(canvas: tf.Tensor, weight: tf.Tensor, iterations: tf.Tensor) -> tf.Tensor:
    """On real and imaginary part, (2, H, W), one after the other."""
    image = tf.stack([tf.math.real(canvas), tf.math.imag(canvas)])

    def once(dual_y: tf.Tensor, dual_x: tf.Tensor, smooth: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        slope_y = tf.pad(smooth[:, 1:] - smooth[:, :-1], [[0, 0], [0, 1], [0, 0]])
        slope_x = tf.pad(smooth[:, :, 1:] - smooth[:, :, :-1], [[0, 0], [0, 0], [0, 1]])
        length = tf.sqrt(tf.reduce_sum(tf.square(slope_y) + tf.square(slope_x), axis=0))
        shorter = 1 + length / (4 * weight)
        dual_y, dual_x = (dual_y - slope_y / 4) / shorter, (dual_x - slope_x / 4) / shorter
        above, left = (
            tf.pad(dual_y[:, :-1], [[0, 0], [1, 0], [0, 0]]),
            tf.pad(dual_x[:, :, :-1], [[0, 0], [0, 0], [1, 0]]),
        )
        return dual_y, dual_x, image - (dual_y + dual_x - above - left)

    zeros = tf.zeros_like(image)
    _, _, smooth = tf.while_loop(lambda *_: True, once, (zeros, zeros, image), maximum_iterations=iterations)
    return tf.complex(smooth[0], smooth[1])


PROXIMAL_STEPS: dict[str, Callable[..., tf.Tensor]] = {"tv": total_variation}
"""canvas (H, W) complex and settings → canvas, on the device; one more is one more entry."""
