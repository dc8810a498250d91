"""Processes of a test: threads that add up what they have, which costs no process and no import."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ptycho_core.engine.processes import Processes

T = TypeVar("T")


class Threads(Processes):
    """One of several that meet at a barrier."""

    def __init__(self, rank: int, given: list[Any], barrier: threading.Barrier) -> None:
        super().__init__(rank, len(given))
        self.given, self.met = given, barrier
        self.sums = 0

    def _sum(self, array: NDArray[Any]) -> NDArray[Any]:
        self.sums += 1
        self.given[self.rank] = array
        self.met.wait(60)
        kinds = {(each.shape, each.dtype) for each in self.given}
        total = np.sum(np.stack(self.given), axis=0) if len(kinds) == 1 else None
        self.met.wait(60)
        assert total is not None, f"processes that sum different arrays: {kinds}"
        return np.asarray(total, array.dtype)


def together(size: int, work: Callable[[Processes], T]) -> list[T]:
    """What `work` returns in each of `size` processes; the first error of any of them is raised."""
    given: list[Any] = [None] * size
    barrier = threading.Barrier(size)

    def one(rank: int) -> T:
        try:
            return work(Threads(rank, given, barrier))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(one, rank) for rank in range(size)]
    errors = [future.exception() for future in futures]
    told = [error for error in errors if error is not None]
    if told:
        raise next((error for error in told if not isinstance(error, threading.BrokenBarrierError)), told[0])
    return [future.result() for future in futures]
