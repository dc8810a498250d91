"""Placing patches on the object canvas, sub-pixel and weighted, batch by batch (specs/data.md, Reassembly)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError, explain

SPARSEST, SMALL_CANVAS = 1e-3, 2**24  # specs/data.md, Reassembly: smallest coverage, canvas pixels always allowed
WEIGHT_FLOOR = 1e-6  # specs/data.md, Reassembly: of the largest summed weight; below it the object is not known


class ObjectCanvas:
    """A weighted mean of patches on the bounding box of the positions plus N. Memory: the canvas and one batch.

    `origin_px` is the (x, y) coordinate of canvas pixel [0, 0]; pixel [N/2, N/2] of a patch is at its position.
    """

    def __init__(self, positions_px: NDArray[np.float64], weight: NDArray[np.floating]) -> None:
        """positions_px: (M, 2), all that will be placed. weight: (N, N), of every pixel of a patch."""
        self.N = len(weight)
        low = np.floor(positions_px.min(axis=0)) - self.N // 2
        high = np.floor(positions_px.max(axis=0)) - self.N // 2 + self.N + 1  # one more: a sub-pixel shift spills over
        width, height = (high - low).astype(int)
        if width * height > max(SMALL_CANVAS, positions_px.size * self.N**2 / 2 / SPARSEST):
            remedy = "Give positions in pixels of the object grid, not in a finer unit, and drop stray ones."
            expected = "positions whose patches cover 1/1000 of their bounding box"
            received = f"{len(positions_px)} patches of {self.N} x {self.N} on {width} x {height} pixels"
            raise DataError(explain("positions", None, expected=expected, received=received, remedy=remedy))
        self.origin_px = (float(low[0]), float(low[1]))
        self._weight = np.asarray(weight, np.float32)
        self._sum = np.zeros((height, width), np.complex128)
        self._weights = np.zeros((height, width))
        self.overlap_count = np.zeros((height, width), np.int32)

    def add(self, patches: NDArray[np.complex64], positions_px: NDArray[np.float64]) -> None:
        """Add patches (B, N, N) centred at positions (B, 2), [x, y]; bilinear where these are not whole."""
        whole = np.floor(positions_px)  # as in the bounding box, before anything is added that could round it up
        fraction = (positions_px - whole).astype(np.float32)
        corners = (whole - self.N // 2 - np.asarray(self.origin_px)).astype(int)
        placed = _shift(patches * self._weight, fraction)
        weights = _shift(np.broadcast_to(self._weight, patches.shape), fraction)
        side = self.N + 1
        for (x, y), patch, weight in zip(corners, placed, weights, strict=True):
            window = np.s_[y : y + side, x : x + side]
            self._sum[window] += patch
            self._weights[window] += weight
            self.overlap_count[y : y + self.N, x : x + self.N] += 1

    def object_field(self) -> NDArray[np.complex64]:
        """(H, W): the mean; zero where no patch has weight."""
        known = self._weights > WEIGHT_FLOOR * self._weights.max(initial=math.ulp(0.0))
        return np.divide(self._sum, self._weights, out=np.zeros_like(self._sum), where=known).astype(np.complex64)


def _shift(patches: NDArray[Any], fraction: NDArray[np.float32]) -> NDArray[Any]:
    """(B, N, N) → (B, N + 1, N + 1): moved by a fraction [x, y] of a pixel in [0, 1), bilinear."""
    fx, fy = fraction[:, 0, None, None], fraction[:, 1, None, None]
    count, height, width = patches.shape
    wide = np.empty((count, height, width + 1), patches.dtype)
    wide[:, :, :-1] = patches * (1 - fx)
    wide[:, :, -1] = 0
    wide[:, :, 1:] += patches * fx
    tall = np.empty((count, height + 1, width + 1), patches.dtype)
    tall[:, :-1] = wide * (1 - fy)
    tall[:, -1] = 0
    tall[:, 1:] += wide * fy
    return tall
