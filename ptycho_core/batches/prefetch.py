"""Gathers batches ahead of their use, in threads."""

from __future__ import annotations

import collections
import contextlib
import functools
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ptycho_core.batches.batch import Batch
from ptycho_core.batches.groups import Groups
from ptycho_core.physics.illumination import Illumination
from ptycho_core.scans.scan import Scan

T = TypeVar("T")
AHEAD = 2
"""Results of each thread that may wait to be asked for."""


def gathered(
    groups: Groups,
    scan: Scan,
    batch_size: int,
    *,
    illumination: Illumination,
    canvas_padding_px: int,
    order: NDArray[np.int64] | None = None,
    with_truth: bool = False,
    workers: int = 1,
) -> Generator[Batch]:
    """The batches of `groups`, as `Groups.batches` gives them, gathered ahead by `workers` threads."""
    order = np.arange(len(groups)) if order is None else order
    calls = (
        functools.partial(groups.gather, scan, chosen, illumination, canvas_padding_px, with_truth)
        for chosen in groups.pieces(scan, order, batch_size)
    )
    with contextlib.closing(prefetch(calls, workers)) as pieces:
        for piece in pieces:
            yield from piece.parts(batch_size)


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
