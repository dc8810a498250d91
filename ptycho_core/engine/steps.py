"""What every engine does alike around its steps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import SupportsFloat

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.batches.batch import Batch
from ptycho_core.engine.problem import FrameFacts, Frames, Problem
from ptycho_core.vocabulary import TOTAL, LossTerms, of_scan


def windows(batches: Iterable[Batch], size: int) -> Iterator[Iterator[Batch]]:
    """The batches of each step of the optimiser: `size` in a row, fewer at the end; each is taken when it is needed."""
    remaining = iter(batches)
    for first in remaining:
        yield itertools.chain((first,), itertools.islice(remaining, size - 1))


class LossMeans:
    """Means of loss terms over batches, each weighted by its number of groups; of several scans, by scan as well.

    The sums are exact before they are rounded, so that batches added in any order, or in parts that are merged, give
    the same means to the last bit.
    """

    def __init__(self) -> None:
        self._unread: list[tuple[int, Mapping[str, SupportsFloat], int | None]] = []
        self._groups: dict[str, int] = {}
        self._parts: dict[str, list[float]] = {}

    def add(self, groups: int, terms: Mapping[str, SupportsFloat], scan: int | None = None) -> None:
        """A batch; scan: `Batch.scan`. Its terms may be on a device, which is not waited for before the means are asked
        for.
        """
        self._unread.append((groups, terms, scan))

    def merge(self, other: LossMeans) -> None:
        """The batches of another part."""
        self._unread += other._unread
        for name, parts in other._parts.items():
            self._groups[name] = self._groups.get(name, 0) + other._groups[name]
            self._parts.setdefault(name, []).extend(parts)

    def means(self) -> LossTerms:
        """By name, and the total of each of several scans by `of_scan`; {} without a batch.

        Each batch is waited for and read once, however often this is asked.
        """
        for groups, terms, scan in self._unread:
            values = {name: float(term) for name, term in terms.items()}
            if scan is not None:
                values[of_scan(scan, TOTAL)] = values[TOTAL]
            for name, value in values.items():
                self._groups[name] = self._groups.get(name, 0) + groups
                self._parts.setdefault(name, []).append(groups * value)
        self._unread.clear()
        return {name: math.fsum(parts) / self._groups[name] for name, parts in self._parts.items()}


SHIFTS = ("shift_x", "shift_y")
FACTS = tuple(field.name for field in attrs.fields(FrameFacts))


def held_pixels(problem: Problem) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Flat indices of the held-out pixels of each pattern that are not bad, (P, most of them), and which of them count.

    Shorter lists are filled up with pixel 0, which does not count.
    """
    held = (problem.held_out & ~problem.bad_pixels).reshape(len(problem.held_out), -1)
    counted = np.arange(held.sum(axis=1).max()) < held.sum(axis=1)[:, None]
    pixels = np.zeros(counted.shape, np.int64)
    pixels[counted] = np.nonzero(held)[1]
    return pixels, counted


def frame_facts(problem: Problem, frames: Frames, names: Sequence[str], table: NDArray[np.floating]) -> FrameFacts:
    """Facts from a device's table (columns, B) of sums, by name; NaN for those that were not asked for.

    Beside the facts' own, sums are "shift_x" and "shift_y".
    """
    known, unknown = dict(zip(names, np.asarray(table, np.float64), strict=True)), np.full((len(frames), 2), np.nan)
    known["pixels"], known["held_pixels"] = problem.pixels[:, frames.held_out]
    known["shift_px"] = np.stack([known.pop(name) for name in SHIFTS], axis=1) if SHIFTS[0] in known else unknown
    missing = unknown[:, 0]
    return FrameFacts(**{name: known.get(name, missing) for name in FACTS})
