"""A canvas that grows with the scan: patches are added once, wherever they lie."""

from __future__ import annotations

import copy

import numpy as np
from numpy.typing import NDArray

from ptycho_core.physics.canvas import ObjectCanvas, canvas_extent

ROOM = 0.25
"""Of the extent so far, and a patch at least: the room where the canvas grows, so that it grows seldom."""


class Mosaic:
    """The weighted mean of the patches that have come. weight: (N, N), of every pixel of a patch.

    The patches in any order give the same object to the rounding of float64 sums.
    """

    def __init__(self, weight: NDArray[np.floating], *, lit: bool = False) -> None:
        """lit: whether the weight is the light of a frame."""
        self._weight, self.N, self.lit = weight, len(weight), lit
        self._canvas: ObjectCanvas | None = None
        self._low = self._high = np.zeros(2)

    def add(self, patches: NDArray[np.complex64], positions_px: NDArray[np.float64]) -> None:
        """Add patches (B, N, N) centred at positions (B, 2). Raises DataError where the canvas would be too large."""
        low, high = positions_px.min(axis=0), positions_px.max(axis=0)
        if self._canvas is None or (low < self._low).any() or (high > self._high).any():
            self._grow(low, high)
        assert self._canvas is not None
        self._canvas.add(patches, positions_px)

    def _grow(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> None:
        extent = np.maximum(self._high, high) - np.minimum(self._low, low)
        room, before = np.maximum(self.N, ROOM * extent), self._canvas
        if before is None:
            room = np.full(2, self.N)
            self._low, self._high = low - room, high + room
        else:
            self._low = np.where(low < self._low, low - room, self._low)
            self._high = np.where(high > self._high, high + room, self._high)
        corners = np.array([self._low, self._high])
        self._canvas = ObjectCanvas(corners, self._weight)
        if before is not None:
            self._canvas.merge(before)

    @property
    def origin_px(self) -> tuple[float, float]:
        return canvas_extent(np.array([self._low, self._high]), self.N)[0]

    def snapshot(self) -> ObjectCanvas | None:
        """The canvas as it is now, on its own, without the counts of patches; None where nothing was added."""
        if self._canvas is None:
            return None
        taken = copy.copy(self._canvas)
        taken._sum, taken._points = taken._sum.astype(np.complex64), taken._points.copy()
        taken._corners = np.zeros((0, 0), np.int32)
        return taken
