"""Data steps on the canvas of a group, differentiable (specs/physics.md, Data steps).

Maps are (B, C, Q, Q), real and imaginary part as two of them. Amplitudes have DC at pixel [0, 0], so that no step
shifts a frame.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ptycho_core.physics.constants import DATA_STEP_FLOOR, NOISE_LEVEL
from ptycho_core_torch.placement import Placement


class Scene(NamedTuple):
    """What data steps see of a batch.

    amplitude: (B, C, N, N), and good: (N, N), 1 or 0, DC at [0, 0]. probe: complex
    (modes, N, N). light: S (B, 1, Q, Q). brightest: p₀. floor: added to the predicted intensity. noise: of a
    canvas, log₁₀, where the brightest pixel of the probe fell once.
    """

    placement: Placement
    amplitude: Tensor
    good: Tensor
    probe: Tensor
    light: Tensor
    brightest: Tensor
    floor: Tensor
    noise: Tensor

    @classmethod
    def of(
        cls,
        placement: Placement,
        *,
        amplitude: Tensor,
        good: Tensor,
        probe: Tensor,
        lit: Tensor,
        mean_intensity: Tensor,
        counts_per_intensity: Tensor,
    ) -> Scene:
        """amplitude, good: DC at [N/2, N/2]. probe: (modes, N, N, 2). lit: (N, N), Σ|P|² as data steps weigh it."""
        brightest = lit.max()
        return cls(
            placement=placement,
            amplitude=torch.fft.ifftshift(amplitude, dim=(-2, -1)),
            good=torch.fft.ifftshift(good),
            probe=torch.complex(*probe.unbind(-1)),
            light=placement.place_alike(lit)[:, None],
            brightest=brightest,
            floor=DATA_STEP_FLOOR * mean_intensity,
            noise=NOISE_LEVEL - torch.log10(2 * counts_per_intensity * brightest) / 2,
        )

    def empty(self) -> Tensor:
        """The canvas that is 1 everywhere, (B, 2, Q, Q)."""
        return torch.cat([torch.ones_like(self.light), torch.zeros_like(self.light)], dim=1)

    def correction(self, canvas: Tensor) -> Tensor:
        """Σ_c W_y q_c W_xᵀ, (B, 2, Q, Q)."""
        patches = torch.complex(*self.placement.extract(canvas.movedim(1, 0)))
        far_field = torch.fft.fft2(patches[:, :, None] * self.probe, norm="ortho")
        intensity = (far_field.real.square() + far_field.imag.square()).sum(dim=2) + self.floor
        ratio = self.good * (self.amplitude * torch.rsqrt(intensity) - 1)
        residual = torch.fft.ifft2(far_field * ratio[:, :, None], norm="ortho")
        change = (self.probe.conj() * residual).sum(dim=2)
        return self.placement.place(torch.stack([change.real, change.imag])).movedim(0, 1)

    def damped(self, epsilon: float) -> Tensor:
        """S + ε p₀."""
        return self.light + epsilon * self.brightest


def data_step(x: Tensor, *, scene: Scene, epsilon: float) -> Tensor:
    damped = scene.damped(epsilon)
    change = scene.correction(x) / damped
    return torch.cat([x + change, change, scene.light / damped], dim=1)


@torch.no_grad()
def warm_sweeps(x: Tensor, *, scene: Scene, sweeps: int, epsilon: float, momentum: float) -> Tensor:
    damped, velocity = scene.damped(epsilon), torch.zeros_like(x)
    for _ in range(sweeps):
        change = scene.correction(x) / damped
        velocity = momentum * velocity + change
        x = x + change + momentum * velocity
    return x


def in_gauge(x: Tensor, *, scene: Scene) -> Tensor:
    mean = gauge(x)
    inverse = torch.stack([mean[:, 0], -mean[:, 1]], dim=1) / mean.square().sum(dim=1, keepdim=True)
    canvas, change = times(x[:, :2], inverse), times(x[:, 2:4], inverse)
    noise = scene.noise.expand_as(x[:, 4:])
    view = torch.cat([canvas[:, :1] - 1, canvas[:, 1:], change, x[:, 4:], noise], dim=1)
    return view.contiguous(memory_format=torch.channels_last)  # in which convolutions are fastest


def correct(x: Tensor, y: Tensor, *, scene: Scene) -> Tensor:
    return x[:, :2] + times(y, gauge(x))


def gauge(x: Tensor) -> Tensor:
    """m, (B, 2, 1, 1): the mean of the canvas where it is lit, a constant."""
    canvas, cover = x[:, :2].detach(), x[:, 4:].detach()
    return (cover * canvas).sum(dim=(2, 3), keepdim=True) / cover.sum(dim=(2, 3), keepdim=True)


def times(x: Tensor, y: Tensor) -> Tensor:
    """The product of two fields (B, 2, …)."""
    (a, b), (c, d) = x.unbind(1), y.unbind(1)
    return torch.stack([a * c - b * d, a * d + b * c], dim=1)
