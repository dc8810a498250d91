"""Nearest neighbours among positions, in an order that every machine agrees on."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

DECIMALS = 6  # specs/data.md, Groups: distances are compared in whole units of 1e-6 px
UNITS_PER_PX = 10.0**DECIMALS
CHUNK, MOST_THREADS = 2**15, 8  # neighbours found at a time, and in how many threads; no result depends on them
EXTRA = 2  # candidates beyond K, so that most ties at the K-th are seen whole at once; no result depends on it
ROUNDING = 1e-12  # more than the relative difference of a distance computed in two ways


def largest_reach_px(positions_px: NDArray[np.float64], *, channels: int, neighbor_count: int) -> int:
    """A canvas border, whole pixels, that fits every group of `channels` that can be drawn from these positions."""
    if channels == 1:
        return 0
    search = Search.of(positions_px, min(max(neighbor_count, channels - 1), len(positions_px) - 1))
    seeds = search.kept[search.tree.indices]
    found: list[float] = []
    in_chunks(lambda chunk: found.append(search.furthest(seeds[chunk])), len(seeds), search.k)
    furthest = max(found)
    # Every member lies within d of the seed, so its offset from the mean of C members is below 2 d (C - 1) / C: by at
    # least d / C, as the seed is one of them; the rounding of d takes away less.
    return max(1, math.ceil(2 * round(furthest, DECIMALS) * (channels - 1) / channels)) if furthest else 0


def neighbours_within(positions_px: NDArray[np.float64], of: NDArray[np.int64], radius_px: float) -> int:
    """How many other positions lie within a radius of a position: the median over those whose indices are given."""
    tree = cKDTree(positions_px)
    found = tree.query_ball_point(positions_px[of], radius_px, return_length=True)
    return int(np.median(found)) - 1


@attrs.frozen(eq=False)
class Search:
    """The K nearest of some positions, in the order of specs/data.md, Groups.

    A tree finds candidates. Where their distances are nearly equal, distance and order are computed here, from
    differences, products and square roots, which every machine rounds alike.

    kept: rising indices of the positions in the tree. Of coincident ones these are the first K + 1: the others are as
    far from anywhere and come later, so that they are nobody's neighbours.
    place: int64 (M,), for each position its place along the tree; a search is quick where the last one was.
    """

    positions_px: NDArray[np.float64]
    k: int
    tree: Any
    kept: NDArray[np.int64]
    place: NDArray[np.int64]

    @classmethod
    def of(cls, positions_px: NDArray[np.float64], k: int) -> Search:
        positions = np.ascontiguousarray(positions_px, np.float64)
        order = np.argsort(positions.view(np.complex128)[:, 0], kind="stable")  # by x, then y, then index
        is_new = np.ones(len(order), bool)
        np.any(np.diff(positions[order], axis=0) != 0, axis=1, out=is_new[1:])
        first = np.flatnonzero(is_new)  # of each group of coincident positions, as a place in `order`
        size = np.diff(first, append=len(order))
        kept = np.sort(order[np.arange(len(order)) - np.repeat(first, size) <= k])
        tree = cKDTree(positions[kept], balanced_tree=False, compact_nodes=False)
        place = np.empty(len(order), np.int64)
        place[kept[tree.indices]] = np.arange(len(kept))
        if len(kept) < len(order):
            place[order] = np.repeat(place[order[first]], size)
        return cls(positions, k, tree, kept, place)

    def neighbours(self, seeds: NDArray[np.int64]) -> NDArray[np.int64]:
        """(S, K): the nearest of each seed, itself left out, nearest first."""
        neighbours = np.empty((len(seeds), self.k), np.int64)
        rows = np.arange(len(seeds))
        for count in (self.k + 1 + EXTRA, 2 * (self.k + 1 + EXTRA)):
            count = min(count, len(self.kept))
            distances, found = self.tree.query(self.positions_px[seeds[rows]], k=count)
            found = self.kept[found]
            neighbours[rows] = found[:, 1 : self.k + 1]
            tied = (np.diff(distances[:, : self.k + 2]) < 3 / UNITS_PER_PX + ROUNDING * distances[:, -1:]).any(axis=1)
            rows = rows[tied]
            neighbours[rows], last, furthest = self._first(seeds[rows], found[tied])
            # What was not found is at least as far as the furthest that was, but for the rounding of either.
            partial = (furthest < last * (1 + ROUNDING) + 2) & (count < len(self.kept))
            rows, last = rows[partial], last[partial]
        for row, distance in zip(rows, last, strict=True):  # few, but for positions that coincide within 1e-6 px
            reach = (distance * (1 + ROUNDING) + 1) / UNITS_PER_PX
            found = self.kept[self.tree.query_ball_point(self.positions_px[seeds[row]], reach)]
            neighbours[row] = self._first(seeds[[row]], found[None])[0][0]
        return neighbours

    def _first(
        self, seeds: NDArray[np.int64], candidates: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """The first K of the candidates (S, n); the distances of the last of them and of the furthest candidate."""
        candidates = np.sort(candidates, axis=1)
        x, y = (self.positions_px[candidates, axis] - self.positions_px[seeds, axis, None] for axis in (0, 1))
        distances = np.rint(np.sqrt(x * x + y * y) * UNITS_PER_PX)
        furthest = distances.max(axis=1)
        distances[candidates == seeds[:, None]] = np.inf
        order = np.argsort(distances, axis=1, kind="stable")[:, : self.k]
        last = np.take_along_axis(distances, order[:, -1:], axis=1)[:, 0]
        return np.take_along_axis(candidates, order, axis=1), last, furthest

    def furthest(self, seeds: NDArray[np.int64]) -> float:
        """The largest distance from one of the seeds to its K-th neighbour, px."""
        distances = self.tree.query(self.positions_px[seeds], k=[self.k + 1])[0]
        return float(distances.max())


def in_chunks(function: Callable[[slice], None], count: int, k: int) -> None:
    """`function` for slices of 0 … count - 1, CHUNK elements of a (count, k) array each, on several threads."""
    step = max(1, CHUNK // max(1, k))
    chunks = [slice(start, start + step) for start in range(0, count, step)]
    threads = min(len(chunks), os.cpu_count() or 1, MOST_THREADS)
    if threads < 2:
        for chunk in chunks:
            function(chunk)
    else:
        with ThreadPoolExecutor(threads) as executor:
            for _ in executor.map(function, chunks):
                pass
