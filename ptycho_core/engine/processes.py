"""Several processes that compute what one would (specs/engine.md, Several processes).

One value says which of them this is and adds up what they have. An engine gives it, over its framework's own means.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ptycho_core.batches.parts import Part
from ptycho_core.engine.launched import check_shares
from ptycho_core.engine.problem import FrameFacts
from ptycho_core.errors import ConfigurationError, DataError, ProcessError
from ptycho_core.settings.execution import ExecutionConfig

N = TypeVar("N", bound=np.number[Any])
LEAST_TEXT = 2**10
"""Bytes that plain values are told in, or a power of two of them: few sizes, for engines that trace each."""

ASKED_S = 0.1
"""Between two messages about a wish to stop, where the points at which it is looked at come faster."""


class Processes:
    """The processes of a run as one of them sees them; this class itself is a process alone.

    An engine's own overrides `_sum`. What is summed has the same shape and type in all of them, and all of them call
    the same methods in the same order: one that does not lets the others wait.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        """rank: from 0; the first one prints and writes."""
        self.rank, self.size = rank, size

    def __repr__(self) -> str:
        return f"process {self.rank + 1} of {self.size}"

    @property
    def part(self) -> Part:
        """Its share of whatever is shared out."""
        return Part(self.rank, self.size)

    @property
    def first(self) -> bool:
        return self.rank == 0

    def sum(self, array: NDArray[N]) -> NDArray[N]:
        """The sum over the processes, the same bits in all of them. float32, float64, int32 or int64.

        Raises ProcessError where another process has ended.
        """
        return (
            array if self.size == 1 or not array.size else self._sum(np.ascontiguousarray(array)).reshape(array.shape)
        )

    def mean(self, array: NDArray[N], weight: float) -> NDArray[N]:
        """Σ weight · array / Σ weight; a process with nothing gives any finite array and the weight 0."""
        if self.size == 1:
            return array
        total = self.sum(np.append(np.asarray(array * weight).ravel(), weight))
        return np.asarray(total[:-1] / total[-1], array.dtype).reshape(array.shape)

    def broadcast(self, array: NDArray[N]) -> NDArray[N]:
        """The array of the first process; those of the others say but shape and type."""
        return self.sum(array if self.first else np.zeros_like(array))

    def tell(self, value: Any) -> Any:
        """The plain value of the first process, which JSON can hold, in all of them."""
        if self.size == 1:
            return value
        text = np.frombuffer(json.dumps(value if self.first else None).encode(), np.uint8).astype(np.int32)
        longest = int(self.broadcast(np.array([len(text)]))[0])
        room = np.full(max(LEAST_TEXT, 1 << (longest - 1).bit_length()), ord(" "), np.int32)
        room[: len(text)] = text[: len(room)]
        return json.loads(self.broadcast(room).astype(np.uint8).tobytes())

    def told_by_all(self, value: Any) -> list[Any]:
        """The plain values of all, by rank."""
        return [Told(self, rank).tell(value) for rank in range(self.size)] if self.size > 1 else [value]

    def any(self, wish: bool) -> bool:
        """Whether any of them wishes it."""
        return wish if self.size == 1 else bool(self.sum(np.array([int(wish)]))[0])

    def barrier(self) -> None:
        """Wait for all of them."""
        self.sum(np.zeros(1))

    def joined(self, parts: Sequence[tuple[NDArray[np.int64], NDArray[N]]], whole: NDArray[N]) -> NDArray[N]:
        """Rows that each process knows some of, put together: (which rows, their values) in parts, each row known once.

        whole: an array of the result's shape and type, which is filled.
        """
        whole[...] = 0
        for rows, values in parts:
            whole[rows] = values
        return self.sum(whole)

    def _sum(self, array: NDArray[N]) -> NDArray[N]:
        raise NotImplementedError


class Told(Processes):
    """The same processes, of which another one is the first."""

    def __init__(self, processes: Processes, first: int) -> None:
        super().__init__((processes.rank - first) % processes.size, processes.size)
        self._sum = processes._sum  # type: ignore[method-assign]


ALONE = Processes()


def never() -> bool:
    """The wish to stop of whoever has none."""
    return False


class Agreed:
    """A wish to stop that all processes have where one has it; all ask it at the same points.

    Points may follow in milliseconds, and a message takes one: it is sent at every so many of them that come in
    `ASKED_S`, by the mean time of all, which all know. Before the first point it is, too.
    """

    def __init__(self, processes: Processes, should_stop: Callable[[], bool]) -> None:
        self._processes, self._should_stop, self._wish = processes, should_stop, False
        self._points, self._until, self._asked = 0, 1, time.perf_counter()

    def __call__(self) -> bool:
        self._wish = self._should_stop() or self._wish
        self._points += 1
        if self._points < self._until:
            return False
        now = time.perf_counter()
        wishes, seconds = self._processes.sum(np.array([self._wish, now - self._asked], np.float64))
        in_time = ASKED_S * self._points * self._processes.size / seconds
        self._until = max(1, min(int(in_time), 2 * self._until))
        self._points, self._asked = 0, now
        return bool(wishes)


def agreed(processes: Processes, should_stop: Callable[[], bool]) -> Callable[[], bool]:
    """A wish to stop of all processes, of that of each."""
    return should_stop if processes.size == 1 or should_stop is never else Agreed(processes, should_stop)


def check_alike(processes: Processes, source: str, facts: Mapping[str, str]) -> None:
    """DataError where a process has other facts than the first one, digests by what they are of."""
    for rank, theirs in enumerate(processes.told_by_all(dict(facts))):
        for name, digest in processes.tell(dict(facts)).items() if rank else ():
            if theirs.get(name) != digest:
                raise DataError(
                    source,
                    name,
                    expected=f"the same in all {processes.size} processes, SHA-256 {digest[:12]}…",
                    received=f"{str(theirs.get(name))[:12]}… in process {rank + 1}",
                    remedy="Give every process the same files, settings and version of ptycho-core.",
                )


def for_several(engine: Any, processes: Processes) -> dict[str, Processes]:
    """What an engine's makers are given beside the rest. BackendError for an engine whose makers do not take it."""
    if processes.size == 1:
        return {}
    takes = "processes" in inspect.signature(engine.build).parameters
    check_shares(engine.name, processes.size, takes)
    return {"processes": processes}


def check_asked(execution: ExecutionConfig, processes: Processes) -> None:
    """ConfigurationError where the settings ask for other processes than there are."""
    wanted = execution.devices * execution.num_nodes
    if wanted not in (1, processes.size):
        raise ConfigurationError(
            "ExecutionConfig",
            "devices",
            expected=f"1, or as many as there are processes: {processes.size}",
            received=f"{execution.devices} with num_nodes {execution.num_nodes}",
            remedy="Use the command line, which starts and joins them, or pass `processes`.",
        )


def gathered_facts(processes: Processes, own: Sequence[FrameFacts]) -> FrameFacts:
    """Those of frames in a row, of which each process measured its share (`Part.of`), some or none at a time."""
    if processes.size == 1:
        return FrameFacts.join(own)
    table = FrameFacts.join(own).table() if own else np.zeros((0, FrameFacts.columns()))
    counts = processes.told_by_all(len(table))
    start = sum(counts[: processes.rank])
    rows = np.arange(start, start + len(table))
    return FrameFacts.of_table(processes.joined([(rows, table)], np.empty((sum(counts), FrameFacts.columns()))))


@contextlib.contextmanager
def reaching_others(processes: Processes, *kinds: type[BaseException]) -> Iterator[None]:
    """A framework's error in a collective as ours: it says nothing but that another process is gone."""
    try:
        yield
    except kinds as error:
        told = re.sub(r"^\[[^]]*\] ", "", str(error).strip())  # a place in the framework's own source
        if told.partition("\n")[0].endswith(":"):  # a heading, then where it was defined, then what it is
            told = " ".join(told.rpartition("\n\n")[2].split())
        first_line = told.splitlines()[0].partition(". ")[0] if told else type(error).__name__
        raise ProcessError(
            repr(processes),
            expected="the other processes of the run",
            received=f"one that has ended or cannot be reached: {first_line[:200]}",
            remedy="See its own message. What was kept is whole: go on with --resume, with any number of processes.",
        ) from error
