"""Data steps on the canvas of a group, forward and backward (specs/physics.md, Data steps).

Maps are (B, Q, Q, C), real and imaginary parts side by side; an op returns its output and the way back. Gradients of a
complex array are ∂L/∂Re z + i ∂L/∂Im z.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.vocabulary import Field
from ptycho_core_reference.physics import ForwardModel, Placement

Array = NDArray[np.float64]
Back = Callable[[Array], tuple[Array, ...]]


@attrs.define(eq=False)
class Scene:
    """What data steps see of a batch.

    amplitude: (B, C, N, N). good: (N, N), 1 or 0. probe: (modes, N, N). light: S (B, Q, Q). brightest: p₀. floor: added
    to the predicted intensity. noise: of a canvas, log₁₀, where the brightest pixel of the probe fell once. by_probe:
    the gradient by the probe, which ways back add to.
    """

    physics: ForwardModel
    placement: Placement
    amplitude: Array
    good: Array
    probe: Field
    light: Array
    brightest: float
    floor: float
    noise: float
    by_probe: Field

    def correction(self, canvas: Field) -> tuple[Field, Callable[[Field], Field]]:
        """Σ_c W_y q_c W_xᵀ, and the way back to the canvas."""
        physics, placement = self.physics, self.placement
        patches, lit = physics.extract(canvas, placement), self.probe * physics.probe_mask
        far_field = physics.far_field(patches[:, :, None] * lit)
        intensity = physics.intensity(far_field) + self.floor
        ratio = self.good * (self.amplitude / np.sqrt(intensity) - 1)
        residual = physics.far_field_adjoint(far_field * ratio[:, :, None])

        def back(g: Field) -> Field:
            by_change = physics.extract(g, placement)[:, :, None]
            by_residual = physics.far_field(lit * by_change)
            by_ratio = (np.conj(far_field) * by_residual).real.sum(axis=2)
            by_intensity = -by_ratio * self.good * self.amplitude / (2 * intensity**1.5)
            by_far_field = by_residual * ratio[:, :, None] + physics.intensity_gradient(by_intensity, far_field)
            by_wave = physics.far_field_adjoint(by_far_field)
            by_lit = np.conj(by_change) * residual + np.conj(patches[:, :, None]) * by_wave
            self.by_probe = self.by_probe + by_lit.sum(axis=(0, 1)) * physics.probe_mask
            return physics.place((np.conj(lit) * by_wave).sum(axis=2), placement)

        return physics.place((np.conj(lit) * residual).sum(axis=2), placement), back

    def damped(self, epsilon: float) -> Array:
        """S + ε p₀."""
        return self.light + epsilon * self.brightest


def data_step(x: Array, *, scene: Scene, epsilon: float) -> tuple[Array, Back]:
    canvas, damped = to_field(x), scene.damped(epsilon)
    summed, correction_back = scene.correction(canvas)
    change = summed / damped

    def back(g: Array) -> tuple[Array, ...]:
        by_stepped, by_change = to_field(g[..., :2]), to_field(g[..., 2:4])
        return (to_maps(by_stepped + correction_back((by_stepped + by_change) / damped)),)

    cover = scene.light / damped
    return np.concatenate([to_maps(canvas + change), to_maps(change), cover[..., None]], axis=3), back


def warm_sweeps(x: Array, *, scene: Scene, sweeps: int, epsilon: float, momentum: float) -> tuple[Array, Back]:
    canvas, velocity = to_field(x), np.zeros(x.shape[:3], complex)
    for _ in range(sweeps):
        change = scene.correction(canvas)[0] / scene.damped(epsilon)
        velocity = momentum * velocity + change
        canvas = canvas + change + momentum * velocity
    return to_maps(canvas), lambda g: (np.zeros_like(g),)


def in_gauge(x: Array, *, scene: Scene) -> tuple[Array, Back]:
    mean = gauge(x)
    view = [to_maps(to_field(x[..., part]) / mean) for part in (slice(0, 2), slice(2, 4))]
    view[0][..., 0] -= 1

    def back(g: Array) -> tuple[Array, ...]:
        by_fields = [to_maps(to_field(g[..., part]) / np.conj(mean)) for part in (slice(0, 2), slice(2, 4))]
        return (np.concatenate([*by_fields, g[..., 4:5]], axis=3),)

    return np.concatenate([*view, x[..., 4:], np.full_like(x[..., 4:], scene.noise)], axis=3), back


def correct(x: Array, y: Array, *, scene: Scene) -> tuple[Array, Back]:
    mean = gauge(x)

    def back(g: Array) -> tuple[Array, ...]:
        by_x = np.concatenate([g, np.zeros((*g.shape[:3], 3))], axis=3)
        return by_x, to_maps(np.conj(mean) * to_field(g))

    return x[..., :2] + to_maps(mean * to_field(y)), back


def gauge(x: Array) -> Field:
    """m, (B, 1, 1): the mean of the canvas where it is lit."""
    cover = x[..., 4]
    mean: Field = (cover * to_field(x[..., :2])).sum(axis=(1, 2), keepdims=True) / cover.sum(axis=(1, 2), keepdims=True)
    return mean


def to_field(maps: Array) -> Field:
    field: Field = maps[..., 0] + 1j * maps[..., 1]
    return field


def to_maps(field: Field) -> Array:
    return np.stack([field.real, field.imag], axis=-1)
