"""Where the patches of a group lie on its canvas, bilinear and differentiable (specs/physics.md, Groups).

Fields are pairs of real arrays, real and imaginary part on a leading axis of 2. A patch pixel j lies at the canvas
coordinate j + padding - relative offset.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor
from torch.autograd.function import once_differentiable

from ptycho_core.layouts import OFFSETS_TO_XY
from ptycho_core_torch import cuts


class Matrices(NamedTuple):
    """As products of matrices (B, C, M, N), the weight of patch pixel j in canvas pixel i: what a GPU is best at."""

    x: Tensor
    y: Tensor

    @classmethod
    def of(cls, relative_offsets_px: Tensor, N: int, padding: int) -> Matrices:
        offsets = rearrange(relative_offsets_px, OFFSETS_TO_XY)[..., None, None]
        canvas = torch.arange(N + 2 * padding, dtype=offsets.dtype, device=offsets.device)[:, None]
        pixel = torch.arange(N, dtype=offsets.dtype, device=offsets.device)
        return cls(*torch.relu(1 - torch.abs(canvas - padding - pixel + offsets)))

    def place(self, patches: Tensor) -> Tensor:
        """The sum of the patches (2, B, C, N, N) of each group on its canvas (2, B, M, M).

        Two large products, of both parts side by side and summed over C in the second: half the time of small ones.
        """
        parts, B, C, N, _ = patches.shape
        M = self.x.shape[2]
        rows = patches.permute(1, 2, 3, 0, 4).reshape(B * C, N * parts, N)
        wide = torch.bmm(rows, self.x.mT.reshape(B * C, N, M)).view(B, C * N, parts * M)
        placed = torch.bmm(self.y.transpose(2, 3).reshape(B, C * N, M).mT, wide)
        return placed.view(B, M, parts, M).permute(2, 0, 1, 3)

    def place_alike(self, image: Tensor) -> Tensor:
        """The same image (N, N) at every position of each group, summed: (B, M, M)."""
        return torch.matmul(torch.matmul(self.y, image), self.x.mT).sum(dim=1)

    def extract(self, canvas: Tensor) -> Tensor:
        """The canvas (2, B, M, M) seen from each position: (2, B, C, N, N). The adjoint of `place`."""
        parts, B, M, _ = canvas.shape
        C, N = self.x.shape[1], self.x.shape[3]
        wide = torch.cat(canvas.unbind(), dim=2)  # both parts side by side, as in `place`
        seen = torch.bmm(self.y.mT.reshape(B, C * N, M), wide).view(B * C, N * parts, M)
        return torch.bmm(seen, self.x.reshape(B * C, M, N)).view(B, C, N, parts, N).permute(3, 0, 1, 2, 4)


class Corners:
    """As windows of the canvas, between whose pixels patches lie: a tenth of the time of `Matrices` on a processor.

    The canvases of a batch lie one below the other, each with a row and a column more, which a window may reach into.
    """

    def __init__(self, relative_offsets_px: Tensor, N: int, padding: int) -> None:
        offsets = rearrange(relative_offsets_px, OFFSETS_TO_XY)
        _, self.B, self.C = offsets.shape
        self.N, self.M = N, N + 2 * padding
        corner = -offsets  # in the middle of the canvas: a sum with the padding would be rounded
        whole = corner.floor()
        self.fraction = (corner - whole).reshape(2, -1, 1, 1, 1)
        self.whole = (whole.long() + padding).reshape(2, -1).T.contiguous()
        self.whole[:, 1] += torch.arange(self.B, device=offsets.device).repeat_interleave(self.C) * (self.M + 1)

    def place(self, patches: Tensor) -> Tensor:
        """As that of `Matrices`."""
        placed: Tensor = _Place.apply(patches, self)
        return placed

    def place_alike(self, image: Tensor) -> Tensor:
        """As that of `Matrices`."""
        both = torch.stack([image, torch.zeros_like(image)])[:, None, None]
        return self.place(both.expand(2, self.B, self.C, self.N, self.N))[0]

    def extract(self, canvas: Tensor) -> Tensor:
        """As that of `Matrices`."""
        seen: Tensor = _Extract.apply(canvas, self)
        return seen

    def placed(self, patches: Tensor) -> Tensor:
        bordered = patches.new_zeros(self.B * self.C, self.N + 2, self.N + 2, 2)
        bordered[:, 1:-1, 1:-1].view(self.B, self.C, self.N, self.N, 2).copy_(patches.permute(1, 2, 3, 4, 0))
        wide = patches.new_zeros(self.B, self.M + 1, self.M + 1, 2)
        canvas = torch.view_as_complex(wide).view(-1, self.M + 1)
        cuts.place(canvas, torch.view_as_complex(bordered), self.whole, self.fraction)
        return wide[:, :-1, :-1].permute(3, 0, 1, 2)

    def seen(self, canvas: Tensor) -> Tensor:
        wide = canvas.new_zeros(self.B, self.M + 1, self.M + 1, 2)
        wide[:, :-1, :-1] = canvas.permute(1, 2, 3, 0)
        window = cuts.windows(torch.view_as_complex(wide).view(-1, self.M + 1), self.whole, self.N)
        patches = torch.view_as_real(cuts.cut(window, self.fraction))
        return patches.view(self.B, self.C, self.N, self.N, 2).permute(4, 0, 1, 2, 3)


class _Place(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, patches: Tensor, corners: Corners) -> Tensor:
        ctx.corners = corners
        return corners.placed(patches)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.corners.seen(gradient), None


class _Extract(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, canvas: Tensor, corners: Corners) -> Tensor:
        ctx.corners = corners
        return corners.seen(canvas)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.corners.placed(gradient), None


Placement = Matrices | Corners


def placement_at(relative_offsets_px: Tensor, N: int, padding: int) -> Placement:
    """Of patches of N × N at offsets (B, 1, 2, C) on canvases with `padding` on all sides, which hold them."""
    kind = Corners if relative_offsets_px.device.type == "cpu" else Matrices.of
    return kind(relative_offsets_px, N, padding)
