"""A canvas that grows with the scan: patches are added once, wherever they lie."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptycho_core.physics.canvas import ObjectCanvas, canvas_extent

ROOM = 4
"""Patches of room on each side where the canvas grows: it grows seldom."""


class Mosaic:
    """The weighted mean of the patches that have come; an `ObjectSoFar`. weight: (N, N), of every pixel of a patch.

    The patches in any order give the same object to the rounding of float64 sums.
    """

    def __init__(self, weight: NDArray[np.floating]) -> None:
        self._weight, self.N = weight, len(weight)
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
        room, before = ROOM * self.N, self._canvas
        if before is None:
            self._low, self._high = low - room, high + room
        else:
            self._low = np.where(low < self._low, low - room, self._low)
            self._high = np.where(high > self._high, high + room, self._high)
        corners = np.array([self._low, self._high])
        self._canvas = ObjectCanvas(corners, self._weight)
        if before is not None:
            self._canvas.merge(before)

    @property
    def empty(self) -> bool:
        return self._canvas is None

    @property
    def origin_px(self) -> tuple[float, float]:
        return canvas_extent(np.array([self._low, self._high]), self.N)[0]

    def known_field(self) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
        if self._canvas is None:
            return np.zeros((1, 1), np.complex64), np.zeros((1, 1), bool)
        return self._canvas.known_field()
