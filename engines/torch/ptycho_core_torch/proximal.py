"""Proximal steps on the object canvas, by name (specs/solving.md)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def total_variation(canvas: Tensor, *, weight: float, iterations: int) -> Tensor:
    """argmin over u of ‖u - canvas‖²/2 + weight · TV(u), by Chambolle's dual iteration (J. Math. Imaging Vis. 20, 89).

    TV(u) is the sum over pixels of the length of (∂x Re, ∂y Re, ∂x Im, ∂y Im), forward differences, 0 at the far edge.
    """
    image = torch.stack([canvas.real, canvas.imag])
    dual = torch.zeros((2, *image.shape), dtype=image.dtype, device=image.device)
    slope, smooth = torch.zeros_like(dual), image
    for _ in range(iterations if weight > 0 else 0):
        torch.sub(smooth[:, 1:], smooth[:, :-1], out=slope[0, :, :-1])
        torch.sub(smooth[:, :, 1:], smooth[:, :, :-1], out=slope[1, :, :, :-1])
        length = slope.square().sum(dim=(0, 1)).sqrt_()
        dual.sub_(slope, alpha=0.25).div_(length.mul_(0.25 / weight).add_(1))
        smooth = image - dual[0] - dual[1]
        smooth[:, 1:] += dual[0, :, :-1]
        smooth[:, :, 1:] += dual[1, :, :, :-1]
    return torch.complex(smooth[0], smooth[1])


PROXIMAL_STEPS: dict[str, Callable[..., Tensor]] = {"tv": total_variation}
"""canvas (H, W) complex and settings → canvas, on the device; one more is one more entry."""
