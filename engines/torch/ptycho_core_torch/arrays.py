"""The functions that losses and optimisers are written with once for all engines, of this framework's tensors."""

from __future__ import annotations

import torch
from torch import Tensor

Axis = int | tuple[int, ...] | None


class TorchArrays:
    """`Arrays` of ptycho_core/engine/losses.py."""

    abs = staticmethod(torch.abs)
    exp = staticmethod(torch.exp)
    log = staticmethod(torch.log)
    sqrt = staticmethod(torch.sqrt)
    square = staticmethod(torch.square)
    sign = staticmethod(torch.sign)
    where = staticmethod(torch.where)

    def maximum(self, x: Tensor, least: Tensor | float) -> Tensor:
        return torch.clamp_min(x, least)

    def minimum(self, x: Tensor, most: Tensor | float) -> Tensor:
        return torch.clamp_max(x, most)

    def sum(self, x: Tensor, axis: Axis = None) -> Tensor:
        return x.sum() if axis is None else x.sum(dim=axis)

    def mean(self, x: Tensor, axis: Axis = None) -> Tensor:
        return x.mean() if axis is None else x.mean(dim=axis)

    def constant(self, x: Tensor) -> Tensor:
        return x.detach()


XP = TorchArrays()
