"""Data steps on the canvas of a group, differentiable (specs/physics.md, Data steps).

Maps are (B, Q, Q, C), real and imaginary part as two of them. Amplitudes have DC at pixel [0, 0], so that no step
shifts a frame.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from ptycho_core.physics.constants import DATA_STEP_FLOOR, NOISE_LEVEL
from ptycho_core_tensorflow import physics


class Scene(NamedTuple):
    """What data steps see of a batch.

    placement: (2, B, C, Q, N). amplitude: (B, C, N, N), and good: (N, N), 1 or 0, DC at [0, 0]. probe: complex
    (modes, N, N). light: S (B, Q, Q, 1). brightest: p₀. floor: added to the predicted intensity. noise: of a
    canvas, log₁₀, where the brightest pixel of the probe fell once.
    """

    placement: tf.Tensor
    amplitude: tf.Tensor
    good: tf.Tensor
    probe: tf.Tensor
    light: tf.Tensor
    brightest: tf.Tensor
    floor: tf.Tensor
    noise: tf.Tensor

    @classmethod
    def of(
        cls,
        placement: tf.Tensor,
        *,
        amplitude: tf.Tensor,
        good: tf.Tensor,
        probe: tf.Tensor,
        lit: tf.Tensor,
        mean_intensity: tf.Tensor,
        counts_per_intensity: tf.Tensor,
    ) -> Scene:
        """amplitude, good: DC at [N/2, N/2]. probe: (modes, N, N, 2). lit: (N, N), Σ|P|² as data steps weigh it."""
        brightest = tf.reduce_max(lit)
        return cls(
            placement=placement,
            amplitude=tf.signal.ifftshift(amplitude, axes=(-2, -1)),
            good=tf.signal.ifftshift(good),
            probe=tf.complex(*tf.unstack(probe, axis=-1)),
            light=physics.place_alike(lit, placement)[..., None],
            brightest=brightest,
            floor=tf.constant(DATA_STEP_FLOOR, lit.dtype) * mean_intensity,
            noise=NOISE_LEVEL - tf.math.log(2 * counts_per_intensity * brightest) / (2 * math.log(10)),
        )

    def empty(self) -> tf.Tensor:
        """The canvas that is 1 everywhere, (B, Q, Q, 2)."""
        return tf.concat([tf.ones_like(self.light), tf.zeros_like(self.light)], 3)

    def correction(self, canvas: tf.Tensor) -> tf.Tensor:
        """Σ_c W_y q_c W_xᵀ, (B, Q, Q, 2)."""
        patches = physics.extract_patches(tf.stack(tf.unstack(canvas, axis=3)), self.placement)
        exit_wave = tf.complex(*tf.unstack(patches))[:, :, None] * self.probe
        # This framework's transform is not scaled: orthonormal is 1/N for N × N, and N for its inverse.
        far_field, N = tf.signal.fft2d(exit_wave), exit_wave.shape[-1]
        squares = tf.square(tf.math.real(far_field)) + tf.square(tf.math.imag(far_field))
        intensity = tf.reduce_sum(squares, axis=2) / N**2 + self.floor
        ratio = self.good * (self.amplitude * tf.math.rsqrt(intensity) - 1)
        residual = tf.signal.ifft2d(far_field * tf.complex(ratio, tf.zeros_like(ratio))[:, :, None])
        change = tf.reduce_sum(tf.math.conj(self.probe) * residual, axis=2)
        placed = physics.place_patches(tf.stack([tf.math.real(change), tf.math.imag(change)]), self.placement)
        return tf.stack(tf.unstack(placed), axis=3)

    def damped(self, epsilon: float) -> tf.Tensor:
        """S + ε p₀."""
        return self.light + tf.constant(epsilon, self.light.dtype) * self.brightest


def data_step(x: tf.Tensor, *, scene: Scene, epsilon: float) -> tf.Tensor:
    damped = scene.damped(epsilon)
    change = scene.correction(x) / damped
    return tf.concat([x + change, change, scene.light / damped], 3)


def warm_sweeps(x: tf.Tensor, *, scene: Scene, sweeps: int, epsilon: float, momentum: float) -> tf.Tensor:
    damped, velocity = scene.damped(epsilon), tf.zeros_like(x)
    share = tf.constant(momentum, x.dtype)
    for _ in range(sweeps):
        change = tf.stop_gradient(scene.correction(x) / damped)
        velocity = share * velocity + change
        x = x + change + share * velocity
    return tf.stop_gradient(x)


def in_gauge(x: tf.Tensor, *, scene: Scene) -> tf.Tensor:
    mean = gauge(x)
    inverse = tf.stack([mean[..., 0], -mean[..., 1]], axis=3) / tf.reduce_sum(tf.square(mean), axis=3, keepdims=True)
    canvas, change = times(x[..., :2], inverse), times(x[..., 2:4], inverse)
    noise = tf.fill(tf.shape(x[..., 4:]), scene.noise)
    return tf.concat([canvas[..., :1] - 1, canvas[..., 1:], change, x[..., 4:], noise], 3)


def correct(x: tf.Tensor, y: tf.Tensor, *, scene: Scene) -> tf.Tensor:
    return x[..., :2] + times(y, gauge(x))


def gauge(x: tf.Tensor) -> tf.Tensor:
    """m, (B, 1, 1, 2): the mean of the canvas where it is lit, a constant."""
    canvas, cover = tf.stop_gradient(x[..., :2]), tf.stop_gradient(x[..., 4:])
    return tf.reduce_sum(cover * canvas, axis=(1, 2), keepdims=True) / tf.reduce_sum(cover, axis=(1, 2), keepdims=True)


def times(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """The product of two fields (…, 2)."""
    (a, b), (c, d) = tf.unstack(x, axis=3), tf.unstack(y, axis=3)
    return tf.stack([a * c - b * d, a * d + b * c], axis=3)
