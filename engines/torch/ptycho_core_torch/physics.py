"""The differentiable forward model: patches → one object for each group → exit waves → far-field intensity.

Fields are pairs of real arrays, real and imaginary part on a leading axis of 2, up to the Fourier transform.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from ptycho_core.layouts import OFFSETS_TO_XY


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


def placement_matrices(relative_offsets_px: Tensor, N: int, padding: int) -> Tensor:
    """(2, B, C, N + 2 padding, N) for x and y: bilinear weight of patch pixel j in canvas pixel i.

    A patch pixel j lies at canvas coordinate j + padding - relative offset (specs/physics.md, Groups).
    """
    offsets = rearrange(relative_offsets_px, OFFSETS_TO_XY)[..., None, None]
    canvas = torch.arange(N + 2 * padding, dtype=offsets.dtype, device=offsets.device)[:, None]
    pixel = torch.arange(N, dtype=offsets.dtype, device=offsets.device)
    return torch.relu(1 - torch.abs(canvas - padding - pixel + offsets))


def merge_group(patches: Tensor, weight: Tensor, placement: Tensor, epsilon: float) -> Tensor:
    """Weighted mean of the patches (2, B, C, N, N) of each group on one canvas (2, B, M, M); weight (N, N)."""
    placed = place_patches(patches * weight, placement)
    return placed / (place_alike(weight, placement) + epsilon)


def place_patches(patches: Tensor, placement: Tensor) -> Tensor:
    """The sum of the patches (2, B, C, N, N) of each group on its canvas (2, B, M, M).

    Two large products, of both parts side by side and summed over C in the second: half the time of small ones.
    """
    x, y = placement
    parts, B, C, N, _ = patches.shape
    M = x.shape[2]
    rows = patches.permute(1, 2, 3, 0, 4).reshape(B * C, N * parts, N)
    wide = torch.bmm(rows, x.mT.reshape(B * C, N, M)).view(B, C * N, parts * M)
    placed = torch.bmm(y.transpose(2, 3).reshape(B, C * N, M).mT, wide)
    return placed.view(B, M, parts, M).permute(2, 0, 1, 3)


def place_alike(image: Tensor, placement: Tensor) -> Tensor:
    """The same image (N, N) at every position of each group, summed: (B, M, M)."""
    x, y = placement
    return torch.matmul(torch.matmul(y, image), x.mT).sum(dim=1)


def extract_patches(canvas: Tensor, placement: Tensor) -> Tensor:
    """The canvas (2, B, M, M) seen from each position: (2, B, C, N, N). The adjoint of the placement in a merge."""
    x, y = placement
    parts, B, M, _ = canvas.shape
    C, N = x.shape[1], x.shape[3]
    wide = torch.cat(canvas.unbind(), dim=2)  # both parts side by side, as in `place_patches`
    seen = torch.bmm(y.mT.reshape(B, C * N, M), wide).view(B * C, N * parts, M)
    return torch.bmm(seen, x.reshape(B * C, M, N)).view(B, C, N, parts, N).permute(3, 0, 1, 2, 4)


def far_field_intensity(patches: Tensor, probe: Tensor, smoothing: Tensor | None) -> Tensor:
    """Σ over modes of |F(P · O)|², DC at [N/2, N/2]. patches (2, B, C, N, N), probe (modes, N, N, 2) → (B, C, N, N)."""
    exit_wave = torch.complex(*patches)[:, :, None] * torch.complex(*probe.unbind(-1))
    if smoothing is not None:
        smoothing = smoothing.to(exit_wave.dtype)
        exit_wave = torch.matmul(torch.matmul(smoothing, exit_wave), smoothing.mT)
    wave = torch.fft.fft2(exit_wave, norm="ortho")
    intensity = (wave.real.square() + wave.imag.square()).sum(dim=2)
    return torch.fft.fftshift(intensity, dim=(-2, -1))
