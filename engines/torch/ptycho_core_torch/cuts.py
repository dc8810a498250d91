"""Patches cut from the object canvas at sub-pixel corners, and put back: the cut, its slopes and its adjoint."""

from __future__ import annotations

import torch
from torch import Tensor


def whole_and_fraction(corners_px: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Corners (B, 2), [x, y], float64 → whole pixels (B, 2) int64, and the fractions x and y, (2, B, 1, 1)."""
    whole = torch.floor(corners_px)
    return whole.long(), (corners_px - whole).to(dtype).T[..., None, None]


def windows(canvas: Tensor, whole: Tensor, N: int) -> Tensor:
    """(B, N + 1, N + 1): the canvas from each whole corner on, one pixel more than a patch."""
    height, width = canvas.shape
    everywhere = canvas.as_strided((height * width - N * width - N, N + 1, N + 1), (1, width, 1))
    return everywhere[whole[:, 1] * width + whole[:, 0]]


def cut(window: Tensor, fraction: Tensor) -> Tensor:
    """Patches (B, N, N) between the pixels of the windows (B, N + 1, N + 1), bilinear."""
    x, y = fraction[..., None]
    pairs = torch.view_as_real(window)
    rows = torch.lerp(pairs[:, :, :-1], pairs[:, :, 1:], x)
    return torch.view_as_complex(torch.lerp(rows[:, :-1], rows[:, 1:], y))


def slopes(window: Tensor, fraction: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of the patches by the corner's x and y, (B, N, N) each."""
    x, y = fraction[..., None]
    pairs = torch.view_as_real(window)
    along_x, along_y = pairs[:, :, 1:] - pairs[:, :, :-1], pairs[:, 1:] - pairs[:, :-1]
    by_x = torch.lerp(along_x[:, :-1], along_x[:, 1:], y)
    by_y = torch.lerp(along_y[:, :, :-1], along_y[:, :, 1:], x)
    return torch.view_as_complex(by_x), torch.view_as_complex(by_y)


def place(canvas: Tensor, patches: Tensor, whole: Tensor, fraction: Tensor) -> None:
    """The adjoint of `windows` and `cut`: add the patches (B, N, N) to the canvas."""
    x, y = fraction[..., None]
    N = patches.shape[-1]
    pairs = torch.nn.functional.pad(torch.view_as_real(patches), (0, 0, 1, 1, 1, 1))
    rows = torch.lerp(pairs[:, :, 1:], pairs[:, :, :-1], x)
    shared = torch.view_as_complex(torch.lerp(rows[:, 1:], rows[:, :-1], y))
    width = canvas.shape[1]
    pixel = torch.arange(N + 1, device=canvas.device)
    corner = whole[:, 1] * width + whole[:, 0]
    index = corner[:, None, None] + pixel[:, None] * width + pixel
    canvas.view(-1).index_add_(0, index.view(-1), shared.view(-1))
