"""Placing patches on the object canvas, sub-pixel and weighted, batch by batch (specs/data.md, Reassembly)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, next_fast_len, rfft2

from ptycho_core.errors import DataError
from ptycho_core.storage.memory import check_memory

SPARSEST, SMALL_CANVAS = 1e-3, 2**24  # specs/data.md, Reassembly: smallest coverage, canvas pixels always allowed
BYTES_PER_PIXEL = 200  # specs/data.md, Reassembly: of the canvas, its result, and the evidence of it
CACHED_PATCHES = 16
"""Patches shifted at a time: few enough to stay in a processor's cache."""
STRIP_PIXELS = 2**20
WEIGHT_FLOOR = 1e-6  # specs/data.md, Reassembly: of the largest summed weight; below it the object is not known


class ObjectCanvas:
    """A weighted mean of patches on the bounding box of the positions plus N. Memory: the canvas and one batch.

    `origin_px` is the (x, y) coordinate of canvas pixel [0, 0]; pixel [N/2, N/2] of a patch is at its position.

    Every patch is added to the sum. Its weights are not: all patches have the same, so a canvas of points is enough,
    each shared between the pixels around it; convolved with the weights of one patch it is the summed weight.

    >>> positions = np.array([[8.0, 8.0], [12.5, 8.0]])
    >>> left, right = (ObjectCanvas(positions, np.ones((16, 16))) for _ in positions)
    >>> left.add(np.full((1, 16, 16), 1 + 1j, np.complex64), positions[:1])
    >>> right.add(np.full((1, 16, 16), 3 + 1j, np.complex64), positions[1:])
    >>> left.merge(right)
    >>> left.object_field()[8, [2, 10, 18]]
    array([1.+1.j, 2.+1.j, 3.+1.j], dtype=complex64)
    >>> int(left.overlap_count.max())
    2
    """

    def __init__(self, positions_px: NDArray[np.float64], weight: NDArray[np.floating]) -> None:
        """positions_px: (M, 2), all that will be placed. weight: (N, N), of every pixel of a patch."""
        self.N = len(weight)
        self.origin_px, (height, width) = canvas_extent(positions_px, self.N)
        if width * height > max(SMALL_CANVAS, positions_px.size * self.N**2 / 2 / SPARSEST):
            remedy = "Give positions in pixels of the object grid, not in a finer unit, and drop stray ones."
            expected = "positions whose patches cover 1/1000 of their bounding box"
            received = f"{len(positions_px)} patches of {self.N} x {self.N} on {width} x {height} pixels"
            raise DataError("positions", expected=expected, received=received, remedy=remedy)
        check_memory(
            width * height * BYTES_PER_PIXEL,
            "positions",
            None,
            what=f"{width} x {height} object pixels",
            remedy="Reconstruct a part of the scan (--frames).",
        )
        self._weight = np.asarray(weight, np.float32)
        self._sum = np.zeros((height, width), np.complex128)
        self._points = np.zeros((height, width))
        self._corners = np.zeros((height, width), np.int32)

    def add(self, patches: NDArray[np.complex64], positions_px: NDArray[np.float64]) -> None:
        """Add patches (B, N, N) centred at positions (B, 2), [x, y]; bilinear where these are not whole."""
        whole = np.floor(positions_px)  # as in the bounding box, before anything is added that could round it up
        fraction = (positions_px - whole).astype(np.float32)  # the same for the sum and for its weights
        corners = (whole - self.N // 2 - np.asarray(self.origin_px)).astype(int)
        np.add.at(self._corners, (corners[:, 1], corners[:, 0]), 1)
        _add_points(self._points, corners, fraction)
        total = self._sum.view(np.float64)  # real and imaginary parts side by side, two numbers per pixel
        for start in range(0, len(patches), CACHED_PATCHES):
            piece = slice(start, start + CACHED_PATCHES)
            placed = _shifted(patches[piece], self._weight, fraction[piece])
            for (x, y), patch in zip(corners[piece].tolist(), placed, strict=True):
                total[y : y + self.N + 1, 2 * x : 2 * (x + self.N + 1)] += patch

    def overlap_of(self, positions_px: NDArray[np.float64]) -> NDArray[np.int32]:
        """`overlap_count` once patches at these positions were added, of an empty canvas."""
        corners = (np.floor(positions_px) - self.N // 2 - np.asarray(self.origin_px)).astype(int)
        np.add.at(self._corners, (corners[:, 1], corners[:, 0]), 1)
        return self.overlap_count

    def merge(self, other: ObjectCanvas) -> None:
        """Add all that was added to another canvas, of the same weights, that lies within this one.

        Patches that are added in parts, in any order, give the object of the whole to the rounding of float64 sums.
        Raises ValueError where the two do not fit.
        """
        x, y = (int(theirs - ours) for theirs, ours in zip(other.origin_px, self.origin_px, strict=True))
        height, width = other._sum.shape
        inside = np.s_[y : y + height, x : x + width]
        if min(x, y) < 0 or self._sum[inside].shape != (height, width):
            raise ValueError(f"a canvas {other._sum.shape} at {other.origin_px} within {self._sum.shape}")
        if not np.array_equal(self._weight, other._weight):
            raise ValueError("canvases of different weights")
        self._sum[inside] += other._sum
        self._points[inside] += other._points
        self._corners[inside] += other._corners

    def sum_over(self, total: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        """`merge` the same canvases of other processes. total: sums an array over the processes."""
        self._sum = total(self._sum.view(np.float64)).view(np.complex128)
        self._points, self._corners = total(self._points), total(self._corners)

    def object_field(self) -> NDArray[np.complex64]:
        """(H, W): the mean; zero where no patch has weight."""
        return self.known_field()[0]

    def known_field(self) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
        """(H, W): the mean, and where a patch has weight; zero elsewhere."""
        weights = self.summed_weight()
        known = weights > WEIGHT_FLOOR * weights.max(initial=math.ulp(0.0))
        field = np.zeros(weights.shape, np.complex64)
        for total, weight, row, inside in zip(self._sum, weights, field, known, strict=True):  # a canvas may be large
            np.divide(total, weight, out=row, where=inside, casting="same_kind")
        return field, known

    @property
    def overlap_count(self) -> NDArray[np.int32]:
        """(H, W): patches over each pixel, each counted in the N × N window from the whole part of its corner on."""
        height, width = self._corners.shape
        count = np.empty_like(self._corners)
        begun = np.zeros(width, np.int64)  # patches that begin in each column, in the last N rows
        for row in range(height):
            begun += self._corners[row]
            if row >= self.N:
                begun -= self._corners[row - self.N]
            covered = np.cumsum(begun)
            covered[self.N :] -= covered[: -self.N].copy()
            count[row] = covered
        return count

    def summed_weight(self) -> NDArray[np.float64]:
        """(H, W): of the patches that were added."""
        return _convolved(self._points, self._weight)


def summed_weight(
    positions_px: NDArray[np.float64],
    weight: NDArray[np.floating],
    *,
    origin_px: tuple[float, float],
    shape: tuple[int, int],
    factors: NDArray[np.floating] | None = None,
) -> NDArray[np.float64]:
    """(H, W): `weight` (N, N) placed at every position and added up, bilinear, on a canvas that holds all of it.

    With |P|² summed over the modes as the weight it is the light that fell on each pixel. factors: (M,), on the weight
    at each position; default 1.
    """
    points = np.zeros(shape)
    corners = corners_on(positions_px, len(weight), origin_px)
    whole = np.floor(corners)
    _add_points(points, whole.astype(int), corners - whole, factors)
    return np.maximum(_convolved(points, weight), 0)


def canvas_extent(positions_px: NDArray[np.float64], N: int) -> tuple[tuple[float, float], tuple[int, int]]:
    """Of the canvas that holds the patches at these positions: the (x, y) coordinate of pixel [0, 0], and (H, W)."""
    low = np.floor(positions_px.min(axis=0)) - N // 2
    high = np.floor(positions_px.max(axis=0)) - N // 2 + N + 1  # one more: a sub-pixel shift spills over
    width, height = (high - low).astype(int).tolist()
    return (float(low[0]), float(low[1])), (height, width)


def corners_on(positions_px: NDArray[np.float64], N: int, origin_px: tuple[float, float]) -> NDArray[np.float64]:
    """Where on a canvas pixel [0, 0] of the patch at each position lies: position − N/2 − origin, (B, 2).

    A position that is just short of a whole pixel stays short of it, so that no corner leaves the bounding box.
    """
    whole = np.floor(positions_px)
    corner = whole - N // 2 - np.asarray(origin_px)
    return np.asarray(np.minimum(corner + (positions_px - whole), np.nextafter(corner + 1, 0)))


def _add_points(
    points: NDArray[np.float64],
    corners: NDArray[np.int_],
    fraction: NDArray[np.floating],
    factors: NDArray[np.floating] | None = None,
) -> None:
    """Share a point between the four pixels around each corner (B, 2), [x, y], and its fraction (B, 2).

    factors: (B,), of each point; default 1.
    """
    for row in (0, 1):
        for column in (0, 1):
            share = np.abs(1 - column - fraction[:, 0], dtype=float) * np.abs(1 - row - fraction[:, 1], dtype=float)
            share = share if factors is None else share * factors
            np.add.at(points, (corners[:, 1] + row, corners[:, 0] + column), share)


def _convolved(points: NDArray[np.float64], weight: NDArray[np.floating]) -> NDArray[np.float64]:
    """(H, W): a patch's weights (N, N) at every point, in strips that keep the Fourier transforms small."""
    (height, width), N = points.shape, len(weight)
    total = np.empty_like(points)
    rows = min(height, max(N, STRIP_PIXELS // width))
    shape = next_fast_len(rows + N, real=True), next_fast_len(width + N, real=True)
    patch = rfft2(np.asarray(weight, np.float64), shape)
    for first in range(0, height, rows):
        before = min(first, N - 1)  # rows above the strip whose patches reach into it
        strip = irfft2(rfft2(points[first - before : first + rows], shape) * patch, shape)
        total[first : first + rows] = strip[before : before + min(rows, height - first), :width]
    return total


def _shifted(
    patches: NDArray[np.complex64], weight: NDArray[np.float32], fraction: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(B, N, N) → (B, N + 1, 2 (N + 1)): times weight, moved by a fraction [x, y] of a pixel in [0, 1), bilinear.

    Real and imaginary parts lie side by side, and a row and a column of zeros at the end of a patch take up what leaves
    it: so a move by a pixel is a move within one row of numbers, which is what numpy is fast at.
    """
    count, N, _ = patches.shape
    row = 2 * (N + 1)
    fx, fy = fraction[:, :1], fraction[:, 1:]
    parts = np.ascontiguousarray(patches, np.complex64).view(np.float32)
    padded = np.zeros((count, N + 1, row), np.float32)
    np.multiply(parts, np.repeat(weight, 2, axis=1), out=padded[:, :N, : 2 * N])
    flat = padded.reshape(count, -1)
    for fraction, step in ((fx, 2), (fy, row)):
        moved = flat[:, :-step] * fraction
        flat *= 1 - fraction
        flat[:, step:] += moved
    return flat.reshape(count, N + 1, row)
