"""The functions that losses and optimisers are written with once for all engines, of numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

Axis = int | tuple[int, ...] | None


class NumpyArrays:
    """`Arrays` of ptycho_core/engine/losses.py."""

    abs = staticmethod(np.abs)
    exp = staticmethod(np.exp)
    log = staticmethod(np.log)
    sqrt = staticmethod(np.sqrt)
    square = staticmethod(np.square)
    sign = staticmethod(np.sign)
    where = staticmethod(np.where)

    def maximum(self, x: Any, least: Any) -> Any:
        return np.maximum(x, least)

    def minimum(self, x: Any, most: Any) -> Any:
        return np.minimum(x, most)

    def sum(self, x: Any, axis: Axis = None) -> Any:
        return np.sum(x, axis=axis)

    def mean(self, x: Any, axis: Axis = None) -> Any:
        return np.mean(x, axis=axis)

    def constant(self, x: Any) -> Any:
        return x


XP = NumpyArrays()
