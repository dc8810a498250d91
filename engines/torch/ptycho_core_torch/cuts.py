"""Patches cut from the object canvas at sub-pixel corners, and put back: the cut, its slopes and its adjoint."""

from __future__ import annotations

import torch
from torch import Tensor


def windows(canvas: Tensor, whole: Tensor, N: int) -> Tensor:
    """(B, N + 1, N + 1): the canvas from each whole corner (B, 2), [x, y], on: one pixel more than a patch."""
    height, width = canvas.shape
    everywhere = canvas.as_strided((height * width - N * width - N, N + 1, N + 1), (1, width, 1))
    return everywhere[whole[:, 1] * width + whole[:, 0]]


def cut(window: Tensor, fraction: Tensor) -> Tensor:
    """Patches (B, N, N) between the pixels of the windows (B, N + 1, N + 1), bilinear; fraction (2, B, 1, 1, 1)."""
    x, y = fraction
    pairs = torch.view_as_real(window)
    rows = torch.lerp(pairs[:, :, :-1], pairs[:, :, 1:], x)
    return torch.view_as_complex(torch.lerp(rows[:, :-1], rows[:, 1:], y))


def slopes(window: Tensor, fraction: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of the patches by the corner's x and y, (B, N, N, 2) each, real and imaginary part."""
    x, y = fraction
    pairs = torch.view_as_real(window)
    along_x, along_y = pairs[:, :, 1:] - pairs[:, :, :-1], pairs[:, 1:] - pairs[:, :-1]
    return torch.lerp(along_x[:, :-1], along_x[:, 1:], y), torch.lerp(along_y[:, :, :-1], along_y[:, :, 1:], x)


def place(canvas: Tensor, bordered: Tensor, whole: Tensor, fraction: Tensor) -> None:
    """The adjoint of `windows` and `cut`: add patches, (B, N + 2, N + 2) with a border of 0, to the canvas."""
    x, y = fraction
    pairs = torch.view_as_real(bordered)
    rows = torch.lerp(pairs[:, :, 1:], pairs[:, :, :-1], x)
    shared = torch.view_as_complex(torch.lerp(rows[:, 1:], rows[:, :-1], y))
    width, side = canvas.shape[1], shared.shape[1]
    if canvas.device.type == "cpu":  # window by window, in a third of the time
        total = canvas.numpy()
        for (column, row), patch in zip(whole.tolist(), shared.numpy(), strict=True):
            total[row : row + side, column : column + side] += patch
    else:
        pixel = torch.arange(side, device=canvas.device)
        index = (whole[:, 1] * width + whole[:, 0])[:, None, None] + pixel[:, None] * width + pixel
        canvas.view(-1).index_add_(0, index.view(-1), shared.view(-1))
