"""Loss terms of specs/physics.md, Losses, each with its gradient."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptycho_core.physics.constants import INTENSITY_FLOOR, MODULUS_FLOOR

Array = NDArray[np.float64]
Field = NDArray[np.complex128]


def masked_mean(x: Array, g: Array, good: NDArray[np.bool_]) -> tuple[float, Array]:
    """Mean over the good pixels of x (B, C, N, N), g its derivative per pixel; good (N, N)."""
    weight = good / (good.sum() * x.shape[0] * x.shape[1])
    return float((x * weight).sum()), g * weight


def half_deviance(predicted: Array, measured: Array) -> tuple[Array, Array]:
    """Poisson negative log likelihood without its constant, per pixel: I - n + n ln(n / I); and its derivative by I."""
    floored = np.maximum(predicted, INTENSITY_FLOOR)
    ratio = np.where(measured > 0, measured, floored) / floored
    value = floored - measured + measured * np.log(ratio)
    return value, (1 - measured / floored) * (predicted >= INTENSITY_FLOOR)


def amplitude_error(predicted: Array, measured: Array) -> tuple[Array, Array]:
    """| sqrt(I) - sqrt(n) |, per pixel, and its derivative by I."""
    amplitude = np.sqrt(np.maximum(predicted, INTENSITY_FLOOR))
    difference = amplitude - np.sqrt(measured)
    return np.abs(difference), np.sign(difference) / (2 * amplitude) * (predicted >= INTENSITY_FLOOR)


def mean_modulus(field: Field) -> tuple[float, Field]:
    """Mean |z|, and its gradient, which exists at 0."""
    modulus = np.sqrt(field.real**2 + field.imag**2 + MODULUS_FLOOR**2)
    return float(np.mean(modulus - MODULUS_FLOOR)), field / modulus / field.size


def total_variation(patches: Field) -> tuple[float, Field]:
    """Mean |difference| of neighbouring pixels along x plus along y; patches (B, C, N, N)."""
    along_x, by_x = mean_modulus(patches[..., :, 1:] - patches[..., :, :-1])
    along_y, by_y = mean_modulus(patches[..., 1:, :] - patches[..., :-1, :])
    gradient = np.zeros_like(patches)
    gradient[..., :, 1:] += by_x
    gradient[..., :, :-1] -= by_x
    gradient[..., 1:, :] += by_y
    gradient[..., :-1, :] -= by_y
    return along_x + along_y, gradient


def complex_error(patches: Field, truth: Field) -> tuple[float, Field]:
    """Mean |O - truth|; both (B, C, N, N)."""
    return mean_modulus(patches - truth)
