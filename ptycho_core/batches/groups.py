"""Groups of overlapping scan positions: indices and offsets; batches when asked for (specs/data.md, Groups)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import attrs
import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from ptycho_core.batches.batch import Batch
from ptycho_core.batches.neighbours import CHUNK, Search, in_chunks
from ptycho_core.errors import ConfigurationError, DataError
from ptycho_core.layouts import BCXY_TO_OFFSETS, FRAMES_TO_BHWC
from ptycho_core.physics.illumination import Illumination
from ptycho_core.physics.patches import extract_patches
from ptycho_core.scans.scan import Scan

GATHERED_BYTES = 2**21
"""Small batches are gathered several at a time, up to this size: a large gathering costs less than many small ones."""
OFFSET_SIGN = -1  # specs/data.md, Groups: relative offset = -(position - centre)


@attrs.frozen(eq=False)
class Groups:
    """Groups of C patterns of one scan; nothing of the patterns is copied before a batch is asked for.

    indices: int64 (G, C), row-major on the gridsize × gridsize layout: rows by y, within a row by x.
    centres_px: float64 (G, 1, 2, 1), mean position of each group, [x, y] on axis 2.
    relative_offsets_px: float32 (G, 1, 2, C), -(position - centre).
    held_out: int64 (G, H), which members a network of a canvas does not see; None is none of them.
    """

    indices: NDArray[np.int64]
    centres_px: NDArray[np.float64]
    relative_offsets_px: NDArray[np.float32]
    held_out: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def holding_out(self, count: int, rng: np.random.Generator) -> Groups:
        """The same groups, `count` members of each held out, drawn from those of its half that are nearest its centre.

        They are seen from all sides, as a frame is within a scan (specs/data.md, Groups).
        """
        if count == 0:
            return self
        near = np.argsort(np.square(self.relative_offsets_px[:, 0]).sum(axis=1), axis=1, kind="stable")
        near = near[:, : max(count, self.indices.shape[1] // 2)]
        chosen = np.argsort(rng.random(near.shape), axis=1, kind="stable")[:, :count]
        return attrs.evolve(self, held_out=np.sort(np.take_along_axis(near, chosen, axis=1), axis=1))

    @property
    def reach_px(self) -> int:
        """Canvas border that this set needs: the largest |relative offset|, rounded up."""
        return math.ceil(float(np.abs(self.relative_offsets_px).max(initial=0)))

    def in_scan_order(self) -> Groups:
        """The same groups by their first frame: frames that are read together lie together, and so do their patches."""
        order = np.argsort(self.indices.min(axis=1), kind="stable")
        held = None if self.held_out is None else self.held_out[order]
        return Groups(self.indices[order], self.centres_px[order], self.relative_offsets_px[order], held)

    def batches(
        self,
        scan: Scan,
        batch_size: int,
        *,
        illumination: Illumination,
        canvas_padding_px: int,
        order: NDArray[np.int64] | None = None,
        with_truth: bool = False,
    ) -> Iterator[Batch]:
        """Batches in `order` (indices of groups; as they are by default), the last one possibly smaller."""
        order = np.arange(len(self)) if order is None else order
        for chosen in self.pieces(scan, order, batch_size):
            yield from self.gather(scan, chosen, illumination, canvas_padding_px, with_truth).parts(batch_size)

    def pieces(self, scan: Scan, order: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.int64]]:
        """`order` cut into what is gathered at once: whole batches, several where they are small."""
        batch_bytes = 4 * batch_size * self.indices.shape[1] * scan.N**2
        step = batch_size * max(1, GATHERED_BYTES // batch_bytes)
        for start in range(0, len(order), step):
            yield order[start : start + step]

    def gather(
        self,
        scan: Scan,
        chosen: NDArray[np.int64],
        illumination: Illumination,
        canvas_padding_px: int,
        with_truth: bool = False,
    ) -> Batch:
        """One batch: the chosen groups' patterns, offsets and, if asked for, ground-truth patches."""
        assert scan.bad_pixels is not None
        frames = self.indices[chosen]
        count, channels = frames.shape
        amplitude = scan.diffraction_amplitude[frames.ravel()]
        if scan.bad_pixels.any():
            amplitude[:, scan.bad_pixels] = 0  # a fancy index has copied already
        truth = None
        if with_truth:
            if scan.object_field is None:
                remedy = "Give a scan with ground truth, or train without realspace_mae_weight."
                received = "no object"
                raise DataError(
                    scan.source, "objectGuess", expected="a complex object", received=received, remedy=remedy
                )
            truth = extract_patches(scan.object_field, scan.positions_px[frames.ravel()], scan.N)
            truth = rearrange(truth, FRAMES_TO_BHWC, b=count, c=channels)
        return Batch(
            diffraction_amplitude=rearrange(amplitude, FRAMES_TO_BHWC, b=count, c=channels),
            relative_offsets_px=self.relative_offsets_px[chosen],
            canvas_padding_px=canvas_padding_px,
            bad_pixels=scan.bad_pixels,
            illumination=illumination,
            object_patches=truth,
            held_out=None if self.held_out is None else self.held_out[chosen],
        )


def draw_groups(
    positions_px: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    gridsize: int,
    n_groups: int | None,
    neighbor_count: int,
    enable_oversampling: bool = False,
    neighbor_pool_size: int | None = None,
    sequential: bool = False,
    group_size: int | None = None,
) -> Groups:
    """Sample seed positions, then group each with C - 1 of its nearest neighbours, C = gridsize².

    group_size: C, where it is no square; members are then in rising order of y.

    positions_px: float64 (M, 2). n_groups None is one group for every position. A seed belongs to its own group, so
    one group for every position covers every position. More groups than positions (gridsize > 1) draw further choices
    out of K neighbours and need `enable_oversampling` and neighbor_pool_size >= C; with gridsize 1 there is nothing
    more to draw, and every position is taken once. Raises ConfigurationError otherwise, DataError for fewer points
    than a group.
    """
    points, channels = len(positions_px), gridsize**2 if group_size is None else group_size
    n_groups = points if n_groups is None else n_groups
    pool = neighbor_count if neighbor_pool_size is None else neighbor_pool_size
    if points < channels:
        named = "gridsize²" if group_size is None else "group_size"
        remedy = f"Scan more positions, or lower {named.removesuffix('²')}."
        raise DataError("positions", expected=f">= {named} = {channels}", received=points, remedy=remedy)
    if channels == 1:
        n_groups = min(n_groups, points)
    if n_groups > points and not (enable_oversampling and pool >= channels):
        received = f"{n_groups} groups of {channels} from {points} positions, pool of {pool}"
        remedy = f"Set n_groups to {points} or fewer, or enable_oversampling with neighbor_pool_size >= {channels}."
        expected = (
            f"at most {points}, one for each position, unless oversampling draws from {channels} or more neighbours"
        )
        raise ConfigurationError("groups", "n_groups", expected=expected, received=received, remedy=remedy)

    seeds = _seed_points(points, n_groups, rng, sequential)
    others, k = channels - 1, min(max(pool, channels - 1), points - 1)
    indices = np.empty((n_groups, channels), np.int64)
    indices[:, 0] = seeds
    centres = np.empty((n_groups, 1, 2, 1))
    offsets = np.empty((n_groups, 1, 2, channels), np.float32)
    search, choice, order = None, None, None
    rows_of = gridsize if group_size is None else 1
    if others:
        search, choice = Search.of(positions_px, k), _choices(n_groups, others, k, rng)
        order = np.argsort(search.place[seeds], kind="stable")

    def fill(chunk: slice) -> None:
        """Rows of the result, each a function of its own seed and choice alone."""
        rows = chunk if order is None else order[chunk]
        if search is not None:
            neighbours = search.neighbours(seeds[rows])
            if choice is not None:
                neighbours = np.take_along_axis(neighbours, choice[rows].astype(np.intp), axis=1)
            indices[rows] = _row_major(positions_px, np.column_stack([seeds[rows], neighbours]), rows_of)
        centres[rows], offsets[rows] = centres_and_offsets(positions_px[indices[rows]])

    in_chunks(fill, n_groups, k)
    return Groups(indices=indices, centres_px=centres, relative_offsets_px=offsets)


def centres_and_offsets(grouped_px: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Centres (G, 1, 2, 1) and relative offsets (G, 1, 2, C) of groups whose members are at grouped_px (G, C, 2)."""
    centres = grouped_px.mean(axis=1, keepdims=True)
    offsets = (OFFSET_SIGN * (grouped_px - centres)).astype(np.float32)
    return rearrange(centres, BCXY_TO_OFFSETS), rearrange(offsets, BCXY_TO_OFFSETS)


def _seed_points(points: int, n_groups: int, rng: np.random.Generator, sequential: bool) -> NDArray[np.int64]:
    """n_groups positions, each position as often as any other to within one."""
    rounds = [np.arange(points) if sequential else rng.permutation(points) for _ in range(-(-n_groups // points))]
    return np.concatenate(rounds)[:n_groups].astype(np.int64, copy=False)


def _choices(n_groups: int, others: int, k: int, rng: np.random.Generator) -> NDArray[np.int32] | None:
    """(G, others): for each group a uniform choice of `others` of k neighbours, rising; None where it takes all."""
    if others == k:
        return None
    choice = np.empty((n_groups, others), np.int32)
    step = max(1, CHUNK // k)
    for start in range(0, n_groups, step):
        drawn = rng.random((min(step, n_groups - start), k))
        choice[start : start + step] = np.sort(np.argpartition(drawn, others - 1, axis=1)[:, :others], axis=1)
    return choice


def _row_major(positions_px: NDArray[np.float64], indices: NDArray[np.int64], gridsize: int) -> NDArray[np.int64]:
    """Each group's members as rows of rising y, each row by rising x: channel c is at row c // gridsize.

    A gridsize of 1 is for members in no layout: they come in one order, by y.
    """
    by_y = np.take_along_axis(indices, np.argsort(positions_px[indices, 1], axis=1, kind="stable"), axis=1)
    if gridsize == 1:
        return by_y
    rows = by_y.reshape(len(indices), gridsize, gridsize)
    rows = np.take_along_axis(rows, np.argsort(positions_px[rows, 0], axis=2, kind="stable"), axis=2)
    return rows.reshape(len(indices), gridsize**2)
