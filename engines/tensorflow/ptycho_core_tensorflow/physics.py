"""The differentiable forward model: patches → one object for each group → exit waves → far-field intensity.

Fields are pairs of real arrays, real and imaginary part on a leading axis of 2, up to the Fourier transform.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf
from einops import rearrange

from ptycho_core.layouts import OFFSETS_TO_XY


class Light(NamedTuple):
    """An illumination on the device.

    probe: (modes, N, N, 2), real and imaginary part. merge_weight, lit: (N, N), that follow from it, as merges and as
    data steps weigh a pixel. The others: ().
    """

    probe: tf.Tensor
    merge_weight: tf.Tensor
    lit: tf.Tensor
    input_scale: tf.Tensor
    mean_intensity: tf.Tensor
    counts_per_intensity: tf.Tensor


def polar_to_field(amplitude: tf.Tensor, phase: tf.Tensor) -> tf.Tensor:
    """amplitude, phase (B, C, N, N) → field (2, B, C, N, N)."""
    return tf.stack([amplitude * tf.cos(phase), amplitude * tf.sin(phase)])


def placement_matrices(relative_offsets_px: tf.Tensor, N: int, padding: int) -> tf.Tensor:
    """(2, B, C, N + 2 padding, N) for x and y: bilinear weight of patch pixel j in canvas pixel i.

    A patch pixel j lies at canvas coordinate j + padding - relative offset (specs/physics.md, Groups).
    """
    offsets = rearrange(relative_offsets_px, OFFSETS_TO_XY)[..., None, None]
    canvas = tf.range(N + 2 * padding, dtype=offsets.dtype)[:, None]
    pixel = tf.range(N, dtype=offsets.dtype)
    return tf.nn.relu(1 - tf.abs(canvas - padding - pixel + offsets))


def merge_group(patches: tf.Tensor, weight: tf.Tensor, placement: tf.Tensor, epsilon: float) -> tf.Tensor:
    """Weighted mean of the patches (2, B, C, N, N) of each group on one canvas (2, B, M, M); weight (N, N)."""
    placed = place_patches(patches * weight, placement)
    return placed / (place_alike(weight, placement) + epsilon)


def place_patches(patches: tf.Tensor, placement: tf.Tensor) -> tf.Tensor:
    """The sum of the patches (2, B, C, N, N) of each group on its canvas (2, B, M, M)."""
    x, y = tf.unstack(placement)
    return tf.reduce_sum(tf.matmul(tf.matmul(y, patches), x, transpose_b=True), axis=2)


def place_alike(image: tf.Tensor, placement: tf.Tensor) -> tf.Tensor:
    """The same image (N, N) at every position of each group, summed: (B, M, M)."""
    x, y = tf.unstack(placement)
    return tf.reduce_sum(tf.matmul(tf.matmul(y, image), x, transpose_b=True), axis=1)


def extract_patches(canvas: tf.Tensor, placement: tf.Tensor) -> tf.Tensor:
    """The canvas (2, B, M, M) seen from each position: (2, B, C, N, N). The adjoint of the placement in a merge."""
    x, y = tf.unstack(placement)
    return tf.matmul(tf.matmul(y, canvas[:, :, None], transpose_a=True), x)


def far_field_intensity(patches: tf.Tensor, probe: tf.Tensor, smoothing: tf.Tensor | None) -> tf.Tensor:
    """Σ over modes of |F(P · O)|², DC at [N/2, N/2]. patches (2, B, C, N, N), probe (modes, N, N, 2) → (B, C, N, N)."""
    exit_wave = tf.complex(*tf.unstack(patches))[:, :, None] * tf.complex(*tf.unstack(probe, axis=-1))
    if smoothing is not None:
        smoothing = tf.cast(smoothing, exit_wave.dtype)
        exit_wave = tf.matmul(tf.matmul(smoothing, exit_wave), smoothing, transpose_b=True)
    # This framework's transform is not scaled: orthonormal is 1/N for N × N.
    wave = tf.signal.fft2d(exit_wave) / exit_wave.shape[-1]
    intensity = tf.reduce_sum(tf.square(tf.math.real(wave)) + tf.square(tf.math.imag(wave)), axis=2)
    return tf.signal.fftshift(intensity, axes=(-2, -1))
