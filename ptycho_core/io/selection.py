"""Which patterns of a file are used (specs/data.md, Readers)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.io.stored import Stored
from ptycho_core.scans.findings import ranges
from ptycho_core.scans.frames import Frames
from ptycho_core.scans.outlying import empty_frames, hot_frames, stray_frames
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.settings.words import frame_list, frame_slice

log = logging.getLogger(__name__)

MEASURED = ("empty", "outliers", "nan")
"""Kinds of patterns that show when all are read."""


def taken(stored: Stored, chosen: NDArray[np.int64]) -> Stored:
    """The patterns `chosen` of those that are used, with what belongs to them."""
    index = np.arange(stored.frames.shape[0]) if stored.index is None else stored.index
    parts: dict[str, Any] = {"index": index[chosen]}
    for name in ("positions", "nominal_positions", "scan_index"):
        values = getattr(stored, name)
        if values is not None and len(values) == len(index):
            parts[name] = np.asarray(values)[chosen]
    return attrs.evolve(stored, **parts)


def stated_frames(stored: Stored, options: ReadOptions) -> tuple[Stored, NDArray[np.int64]]:
    """Without what is left out by number, by place or because it was never written; and the numbers of what is left.

    Raises DataError for patterns without a position, or without data, that nobody leaves out.
    """
    listed, kinds = ((), frozenset()) if options.drop_frames is None else frame_list(options.drop_frames)
    stored = _paired(stored, "unplaced" in kinds)
    count = stored.count
    numbers = np.arange(count)
    if options.frames is not None:
        numbers = numbers[frame_slice(options.frames)]
    beyond = max((frames.stop - 1 for frames in listed), default=-1)
    if beyond >= count:
        expected, received = f"numbers of patterns from 0 to {count - 1}", str(beyond)
        remedy = "Name patterns of this scan."
        raise DataError(stored.path, "drop_frames", expected=expected, received=received, remedy=remedy)
    dropped = np.zeros(count, bool)
    for frames in listed:
        dropped[frames.start : frames.stop] = True
    numbers = numbers[~dropped[numbers]]
    numbers = _written(stored, numbers, leave_out="unwritten" in kinds)
    positions = np.asarray(stored.positions, np.float64)
    placed = np.ones(len(positions), bool)
    if positions.ndim == 2:
        placed &= np.isfinite(positions).all(axis=1)
    lost = numbers[~placed[numbers]] if len(placed) == count else numbers[:0]
    if len(lost):
        if "unplaced" not in kinds:
            received = f"NaN or infinity for {len(lost)} of {count} patterns: {ranges(lost)}"
            remedy, state = "Leave them out", ("drop_frames=unplaced",)
            raise DataError(
                stored.path, "positions", expected="finite numbers", received=received, remedy=remedy, state=state
            )
        numbers = numbers[placed[numbers]]
        log.info("%s: left out, without a position: %s (%d)", stored.path, ranges(lost), len(lost))
    if not len(numbers):
        expected, received, remedy = "at least one pattern", f"none left of {count}", "Leave out fewer."
        raise DataError(stored.path, "frames", expected=expected, received=received, remedy=remedy)
    if len(numbers) == count and np.array_equal(numbers, np.arange(count)):
        return stored, numbers
    return taken(stored, numbers), numbers


def _paired(stored: Stored, cut: bool) -> Stored:
    """As many positions as patterns: where `cut`, none for the last patterns, or without the last positions."""
    positions = np.asarray(stored.positions)
    count, places = stored.count, len(positions)
    if positions.ndim != 2 or places == count:
        return stored
    if not cut:
        expected, received = f"one position for each of {count} patterns", f"{places}"
        remedy, state = "Leave out the last ones, which have no partner", ("drop_frames=unplaced",)
        raise DataError(stored.path, "positions", expected=expected, received=received, remedy=remedy, state=state)
    what = f"the last {count - places} patterns" if places < count else f"the last {places - count} positions"
    log.info("%s: %s have no partner and are left out", stored.path, what)
    both: Mapping[str, Any] = {}
    if places < count:
        padding = ((0, count - places), (0, 0))
        both = {"positions": np.pad(positions.astype(np.float64), padding, constant_values=np.nan)}
    else:
        both = {"positions": positions[:count]}
    nominal = stored.nominal_positions
    if nominal is not None and len(nominal) != count:
        both = {**both, "nominal_positions": None}
    return attrs.evolve(stored, **both)


def _written(stored: Stored, numbers: NDArray[np.int64], *, leave_out: bool) -> NDArray[np.int64]:
    """Without patterns of which the file holds no data; DataError where they are not left out."""
    absent: Mapping[str, NDArray[np.int64]] = getattr(stored.frames, "absent", {})
    for reason, frames in absent.items():
        index = numbers if stored.index is None else stored.index[numbers]
        gone = np.isin(index, frames)
        if not gone.any():
            continue
        if not leave_out:
            received = f"{reason}: {int(gone.sum())} of {len(numbers)} patterns: {ranges(numbers[gone])}"
            remedy, state = "Leave them out", ("drop_frames=unwritten",)
            expected = "patterns that were written"
            raise DataError(stored.path, stored.key, expected=expected, received=received, remedy=remedy, state=state)
        numbers = numbers[~gone]
    return numbers


def measured_frames(
    stored: Stored, frames: Frames, positions_px: NDArray[np.float64], options: ReadOptions, *, counts: bool
) -> NDArray[np.int64] | None:
    """Which of the patterns are left when those of the kinds that have to be measured go; None: all of them."""
    kinds = frozenset() if options.drop_frames is None else frame_list(options.drop_frames)[1]
    gone = np.zeros(len(frames), bool)
    if "stray" in kinds:
        gone[stray_frames(positions_px, frames.shape[-1])] = True
    if kinds & set(MEASURED):
        intensity = frames.measure(frames.bad_pixels).frame_intensity
        finite = np.isfinite(intensity)
        if "nan" in kinds:
            gone |= ~finite
        known = np.where(finite, intensity, 0.0)
        if "empty" in kinds:
            gone[np.setdiff1d(empty_frames(known, counts=counts), np.flatnonzero(~finite))] = True
        if "outliers" in kinds:
            gone[hot_frames(known, counts=counts)] = True
    if not gone.any():
        return None
    if gone.all():
        expected, received, remedy = "at least one pattern", "none left", "Leave out fewer."
        raise DataError(stored.path, "drop_frames", expected=expected, received=received, remedy=remedy)
    log.info("%s: %d of %d patterns are left out (%s)", stored.path, gone.sum(), len(gone), options.drop_frames)
    return np.flatnonzero(~gone)
