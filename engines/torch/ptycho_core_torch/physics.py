"""The differentiable forward model: patches → one object for each group → exit waves → far-field intensity.

Fields are pairs of real arrays, real and imaginary part on a leading axis of 2, up to the Fourier transform.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ptycho_core_torch.placement import Placement


class Light(NamedTuple):
    """An illumination on the device.

    probe: (modes, N, N, 2), real and imaginary part. merge_weight, lit: (N, N), that follow from it, as merges and as
    data steps weigh a pixel. The others: ().
    """

    probe: Tensor
    merge_weight: Tensor
    lit: Tensor
    input_scale: Tensor
    mean_intensity: Tensor
    counts_per_intensity: Tensor


def polar_to_field(amplitude: Tensor, phase: Tensor) -> Tensor:
    """amplitude, phase (B, C, N, N) → field (2, B, C, N, N)."""
    return torch.stack([amplitude * torch.cos(phase), amplitude * torch.sin(phase)])


def merge_group(patches: Tensor, weight: Tensor, placement: Placement, epsilon: float) -> Tensor:
    """Weighted mean of the patches (2, B, C, N, N) of each group on one canvas (2, B, M, M); weight (N, N)."""
    return placement.place(patches * weight) / (placement.place_alike(weight) + epsilon)


def far_field_intensity(patches: Tensor, probe: Tensor, smoothing: Tensor | None) -> Tensor:
    """Σ over modes of |F(P · O)|², DC at [N/2, N/2]. patches (2, B, C, N, N), probe (modes, N, N, 2) → (B, C, N, N)."""
    exit_wave = torch.complex(*patches)[:, :, None] * torch.complex(*probe.unbind(-1))
    if smoothing is not None:
        smoothing = smoothing.to(exit_wave.dtype)
        exit_wave = torch.matmul(torch.matmul(smoothing, exit_wave), smoothing.mT)
    wave = torch.fft.fft2(exit_wave, norm="ortho")
    intensity = (wave.real.square() + wave.imag.square()).sum(dim=2)
    return torch.fft.fftshift(intensity, dim=(-2, -1))
