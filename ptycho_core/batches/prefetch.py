"""Gathers batches ahead of their use, in threads."""

from __future__ import annotations

import collections
import contextlib
import functools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.batches.batch import Batch
from ptycho_core.batches.groups import Groups
from ptycho_core.batches.parts import WHOLE, Part
from ptycho_core.physics.illumination import Illumination
from ptycho_core.scans.scan import Scan

T = TypeVar("T")
AHEAD = 2
"""Results of each thread that may wait to be asked for."""


@attrs.frozen(eq=False, kw_only=True)
class Share:
    """Groups of one scan in an order, and what every batch of them has beside its patterns.

    order: indices of groups; as they are by default. number: `Batch.scan`. part: of every batch, that is gathered.
    """

    groups: Groups
    scan: Scan
    illumination: Illumination
    canvas_padding_px: int
    order: NDArray[np.int64] | None = None
    with_truth: bool = False
    number: int | None = None
    part: Part = WHOLE

    def batches(self, size: int) -> int:
        """How many batches of `size` groups there are, the last one possibly smaller."""
        return -(-len(self._order) // size)

    def reaches(self, size: int) -> Iterator[float]:
        """The largest |relative offset| of each batch of `size` groups, all parts of it."""
        offsets, order = self.groups.relative_offsets_px, self._order
        for start in range(0, len(order), size):
            yield float(np.abs(offsets[order[start : start + size]]).max())

    @property
    def _order(self) -> NDArray[np.int64]:
        return np.arange(len(self.groups)) if self.order is None else self.order

    def pieces(self, size: int) -> Iterator[tuple[int, Callable[[], Iterator[Batch]]]]:
        """What is gathered at once: how many batches it is, and the call that gathers them."""
        for chosen in self.groups.pieces(self.scan, self._order, size):
            yield -(-len(chosen) // size), functools.partial(self._batches, chosen, size)

    def _batches(self, chosen: NDArray[np.int64], size: int) -> Iterator[Batch]:
        if self.part == WHOLE:
            return self._gather(chosen).parts(size)
        batches = [chosen[start : start + size] for start in range(0, len(chosen), size)]
        own = np.concatenate([batch[self.part.of(len(batch))] for batch in batches])
        return self._gather(own).shares([len(batch) for batch in batches], self.part)

    def _gather(self, chosen: NDArray[np.int64]) -> Batch:
        batch = self.groups.gather(self.scan, chosen, self.illumination, self.canvas_padding_px, self.with_truth)
        return batch if self.number is None else attrs.evolve(batch, scan=self.number)


def gathered(
    shares: Sequence[Share], batch_size: int, *, turns: Sequence[int] | None = None, workers: int = 1
) -> Generator[Batch]:
    """The batches of the shares, gathered ahead by `workers` threads; each batch is of one share.

    turns: whose the next batch is, as often as it has batches; by default one share after the other.
    """
    if turns is None:
        turns = [number for number, share in enumerate(shares) for _ in range(share.batches(batch_size))]
    with contextlib.closing(prefetch(_calls(shares, batch_size, turns), workers)) as pieces:
        waiting: list[Iterator[Batch]] = [iter(()) for _ in shares]
        for turn in turns:
            batch = next(waiting[turn], None)
            if batch is None:
                waiting[turn] = next(pieces)
                batch = next(waiting[turn])
            yield batch


def _calls(shares: Sequence[Share], batch_size: int, turns: Sequence[int]) -> Iterator[Callable[[], Iterator[Batch]]]:
    """What gathers the pieces, in the order in which their first batches are due."""
    pieces, left = [share.pieces(batch_size) for share in shares], [0] * len(shares)
    for turn in turns:
        if left[turn] == 0:
            left[turn], call = next(pieces[turn])
            yield call
        left[turn] -= 1


def prefetch(calls: Iterable[Callable[[], T]], workers: int = 1) -> Generator[T]:
    """What the calls return, in their order, made ahead by `workers` threads; by none, each when it is asked for.

    An exception of a call is raised here, at the place of its result. Closing the iterator waits for the calls that
    have begun and drops the rest.
    """
    if workers == 0:
        for call in calls:
            yield call()
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="ptycho-prefetch") as pool:
        pending: collections.deque[Future[T]] = collections.deque()
        try:
            for call in calls:
                pending.append(pool.submit(call))
                if len(pending) > AHEAD * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
