"""Loss terms of specs/physics.md, Losses: the same numbers as every other engine's for the same batch."""

from __future__ import annotations

import torch
from torch import Tensor

from ptycho_core.physics.constants import INTENSITY_FLOOR, MODULUS_FLOOR


def masked_mean(x: Tensor, good: Tensor) -> Tensor:
    """Mean over the good pixels of x (B, C, N, N); good (N, N), 1 or 0."""
    return (x * good).mean(dim=(0, 1)).sum() / good.sum()


def half_deviance(predicted: Tensor, measured: Tensor) -> Tensor:
    """Poisson negative log likelihood without its constant, per pixel: I - n + n ln(n / I); 0 for a perfect fit."""
    predicted = predicted.clamp_min(INTENSITY_FLOOR)
    ratio = torch.where(measured > 0, measured, predicted) / predicted
    return predicted - measured + measured * torch.log(ratio)


def amplitude_error(predicted: Tensor, measured: Tensor) -> Tensor:
    """| sqrt(I) - sqrt(n) |, per pixel; predicted and measured counts."""
    return torch.abs(torch.sqrt(predicted.clamp_min(INTENSITY_FLOOR)) - torch.sqrt(measured))


def modulus(field: Tensor) -> Tensor:
    """|z| of a field (2, …), with a gradient at 0."""
    return torch.sqrt(field.square().sum(dim=0) + MODULUS_FLOOR**2) - MODULUS_FLOOR


def total_variation(patches: Tensor) -> Tensor:
    """Mean |difference| of neighbouring pixels along x plus along y; patches (2, B, C, N, N)."""
    along_x = patches[..., :, 1:] - patches[..., :, :-1]
    along_y = patches[..., 1:, :] - patches[..., :-1, :]
    return modulus(along_x).mean() + modulus(along_y).mean()


def complex_error(patches: Tensor, truth: Tensor) -> Tensor:
    """Mean |O - truth|; both (2, B, C, N, N)."""
    return modulus(patches - truth).mean()
