"""Several processes that solve one object, each a band of it (specs/solving.md, Several processes).

Frames are shared out by place along the longer side of the canvas, so that a process needs the rows alone that its
frames touch. Everything else of a run sees a solver of the whole canvas.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.engine.checks import check_optimizer_state, check_solver_weights
from ptycho_core.engine.launched import check_shares
from ptycho_core.engine.problem import FrameFacts, Frames, Problem, Rates
from ptycho_core.engine.processes import Processes
from ptycho_core.engine.protocol import Engine, Solver
from ptycho_core.engine.shared_rows import SharedRows
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.solving.problem import Task, bounds
from ptycho_core.vocabulary import OBJECT, PROBE, Weights

N = TypeVar("N", bound=np.number[Any])
SPARE = 1.0  # specs/solving.md, Several processes: standard deviations of the frames of a batch before a cut


@attrs.frozen
class Band:
    """What one process holds, rows counted along the longer side of the canvas.

    first, last: of the frames by place, those that lie in it are from `first` to before `last`. low, high: its rows.
    start, stop: the rows that are its own, from which the whole is put together.
    """

    first: int
    last: int
    low: int
    high: int
    start: int
    stop: int


def bands_of(task: Task, batch: float, size: int) -> tuple[int, NDArray[np.int64], list[Band]]:
    """The axis along which the canvas is cut, the frames by place along it, and the band of each process.

    batch: frames of a batch, on average. The bands cover the canvas, and each patch of a frame of a band lies in it
    after its largest move.
    """
    axis = 0 if task.shape[0] >= task.shape[1] else 1
    length, positions = task.shape[axis], task.scan.positions_px
    order = np.argsort(positions[:, 1 - axis], kind="stable")
    spare = math.ceil(SPARE * len(task) / (2 * math.sqrt(batch)))
    cuts = [len(task) * rank // size for rank in range(size + 1)]
    frames = [
        (min(max(cut - spare, 0), len(task) - 1), min(max(after + spare, cut + 1), len(task)))
        for cut, after in itertools.pairwise(cuts)
    ]
    rows = []
    for first, last in frames:
        origin, shape = bounds(positions[order[first:last]], task.N, task.room_px)
        low = int(origin[1 - axis] - task.origin_px[1 - axis])
        rows.append((low, low + shape[axis]))
    lows, highs = [0, *(low for low, _ in rows[1:])], [*(high for _, high in rows[:-1]), length]
    highs[:-1] = map(max, highs, lows[1:])  # no patch touches a row between them
    owned = [0, *((low + high) // 2 for low, high in zip(lows[1:], highs, strict=False)), length]
    held = zip(frames, lows, highs, owned, owned[1:], strict=False)
    return axis, order, [Band(*taken, low, high, start, stop) for taken, low, high, start, stop in held]


class Bands:
    """The bands of the processes of a run, as one of them sees them; of a process alone, the canvas."""

    def __init__(self, task: Task, batch: float, processes: Processes) -> None:
        """batch: frames of a batch, on average."""
        self.task, self.processes = task, processes
        self.axis, order, self.bands = bands_of(task, batch, processes.size)
        self.own = self.bands[processes.rank]
        self.frames: NDArray[np.int64] = np.sort(order[processes.part.of(len(task))])
        """Those that this process measures."""
        self._place = np.argsort(order)
        self.shared = shared_rows(self.bands, processes.rank, self.axis, task.shape[self.axis])
        self._rows = self._along(self.own.low, self.own.high)

    def share(self, batch: NDArray[np.int64]) -> NDArray[np.int64]:
        """The frames of a batch that this process takes a step with, in the order of the scan.

        Equal shares by place, as far as they lie in the bands.
        """
        place = np.sort(self._place[batch])
        cuts = []
        for rank in (self.processes.rank, self.processes.rank + 1):
            if rank in (0, self.processes.size):
                cuts.append(len(batch) * (rank > 0))
                continue
            least, most = np.searchsorted(place, (self.bands[rank].first, self.bands[rank - 1].last))
            cuts.append(min(max(len(batch) * rank // self.processes.size, int(least)), int(most)))
        return batch[np.isin(self._place[batch], place[cuts[0] : cuts[1]], assume_unique=True)]

    @property
    def offset_px(self) -> NDArray[np.float64]:
        """Where pixel [0, 0] of the band lies on the canvas, [x, y]."""
        return np.array([0, self.own.low] if self.axis == 0 else [self.own.low, 0], np.float64)

    def cut(self, array: NDArray[N]) -> NDArray[N]:
        """This process's band of an array of the canvas (H, W, …)."""
        return array[self._rows]

    def whole(self, array: NDArray[N]) -> NDArray[N]:
        """The array of the canvas, of the rows that are each process's own; the same bits in all of them."""
        if self.processes.size == 1:
            return array
        total = np.zeros((*self.task.shape, *array.shape[2:]), array.dtype)
        for band in self.bands:  # one after the other: a device holds no more than a band
            rows = self._along(band.start, band.stop)
            if band is self.own:
                total[rows] = array[self._along(band.start - band.low, band.stop - band.low)]
            total[rows] = self.processes.sum(total[rows])
        return total

    def light(self, probe: NDArray[np.complex64], positions_px: NDArray[np.float64]) -> NDArray[np.float64]:
        """`Task.light` on the band: each process adds up its own frames, and what lies in two bands is summed."""
        if self.processes.size == 1:
            return self.task.light(probe, positions_px)
        x, y = (self.task.origin_px + self.offset_px).tolist()
        shape = self.cut(np.broadcast_to(0, self.task.shape)).shape
        own = attrs.evolve(self.task, origin_px=(x, y), shape=shape).light(probe, positions_px[self.frames])
        return self.shared.summed(own, self.processes.sum)

    def largest(self, array: NDArray[np.float64]) -> float:
        """The largest number of any process's."""
        known = [(np.array([self.processes.rank]), np.array([array.max()]))]
        return float(self.processes.joined(known, np.empty(self.processes.size)).max())

    def facts(self, own: list[FrameFacts]) -> FrameFacts:
        """Of all frames in their order, of what each process measured: `frames`, some at a time."""
        if self.processes.size == 1:
            return FrameFacts.join(own)
        table = FrameFacts.join(own).table() if own else np.zeros((0, FrameFacts.columns()))
        whole = np.empty((len(self.task), FrameFacts.columns()))
        return FrameFacts.of_table(self.processes.joined([(self.frames, table)], whole))

    def _along(self, start: int, stop: int) -> tuple[slice, ...]:
        return (slice(None),) * self.axis + (slice(start, stop),)


def shared_rows(bands: list[Band], rank: int, axis: int, length: int) -> SharedRows:
    """Those that lie in more than one band, as the process of that rank sees them."""
    held = np.zeros(length, np.int64)
    for band in bands:
        held[band.low : band.high] += 1
    there = held > 1
    number = np.cumsum(there) - 1  # of a row in the message
    own = bands[rank]
    edges = np.flatnonzero(np.diff(np.concatenate([[False], there[own.low : own.high], [False]])))
    pieces = tuple((start, stop, int(number[own.low + start])) for start, stop in edges.reshape(-1, 2).tolist())
    return SharedRows(axis, int(there.sum()), pieces)


def started(engine: Engine, problem: Problem, execution: ExecutionConfig, bands: Bands) -> tuple[Solver, Solver]:
    """A solver of the whole canvas, and that of this process's band of it; of a process alone twice the same.

    problem: on the whole canvas. BackendError for an engine that works alone, where there are several processes.
    """
    if bands.processes.size == 1:
        solver = engine.start_solver(problem, execution)
        return solver, solver
    banded = BandedSolver(engine, problem, execution, bands)
    return banded, banded.own


class BandedSolver:
    """A solver of the whole canvas, of which each process holds a band; frames are those of this process.

    `weights`, `load_weights`, `optimizer_state`, `load_optimizer_state` and `apply` are called by all of them.
    """

    def __init__(self, engine: Engine, problem: Problem, execution: ExecutionConfig, bands: Bands) -> None:
        """problem: on the whole canvas. BackendError for an engine that works alone."""
        takes = {"processes", "shared"} <= set(inspect.signature(engine.start_solver).parameters)
        check_shares(engine.name, bands.processes.size, takes)
        self.bands = bands
        several: dict[str, Any] = {"processes": bands.processes, "shared": bands.shared}
        band = attrs.evolve(problem, canvas=bands.cut(problem.canvas))
        self.own: Solver = engine.start_solver(band, execution, **several)
        self._alone: Callable[[], Solver] = lambda: engine.start_solver(problem, execution)

    def step(self, frames: Frames, rates: Rates, *, shifts: bool = False) -> FrameFacts:
        return self.own.step(self._placed(frames), rates, shifts=shifts)

    def measure(self, frames: Frames, *, deviance: bool = True) -> FrameFacts:
        return self.own.measure(self._placed(frames), deviance=deviance)

    def gradients(self, frames: Frames, *, object_only: bool = False) -> Weights:
        """Of the frames of all processes by object and probe, of its own by the positions."""
        found = self.own.gradients(self._placed(frames), object_only=object_only)
        total = self.bands.processes.sum
        by_object = self.bands.whole(self.bands.shared.summed(found[OBJECT], total))
        return {**found, OBJECT: by_object} | ({} if object_only else {PROBE: total(found[PROBE])})

    def set_cover(self, cover: NDArray[np.floating]) -> None:
        self.own.set_cover(self.bands.cut(cover))

    def rescale(self, counts: float) -> None:
        self.own.rescale(counts)

    def denoise(self, weight: float, iterations: int = 30) -> None:
        self.apply("tv", weight=weight, iterations=iterations)

    def apply(self, name: str, **settings: object) -> None:
        """By each process alike on the whole object, of which it keeps its band; moments stay."""
        alone, moments = self._alone(), self.own.optimizer_state()
        alone.load_weights(self.weights())
        alone.apply(name, **settings)
        self.load_weights(alone.weights())
        self.own.load_optimizer_state(moments)

    def weights(self) -> Weights:
        return self._whole(self.own.weights())

    def load_weights(self, weights: Weights) -> None:
        check_solver_weights(weights, self._like(self.own.weights()))
        self.own.load_weights(self._cut(weights))

    def optimizer_state(self) -> Weights:
        return self._whole(self.own.optimizer_state())

    def load_optimizer_state(self, state: Weights) -> None:
        check_optimizer_state(state, self._like(self.own.optimizer_state()))
        self.own.load_optimizer_state(self._cut(state))

    def _placed(self, frames: Frames) -> Frames:
        return attrs.evolve(frames, corners_px=frames.corners_px - self.bands.offset_px)

    def _whole(self, arrays: Weights) -> Weights:
        """The same bits in all processes: in the last of the probe's they may differ."""
        found = {}
        for name, array in arrays.items():
            tell = self.bands.whole if _of_object(name, array) else self.bands.processes.broadcast
            found[name] = tell(array) if array.ndim else array  # steps are counted alike
        return found

    def _like(self, arrays: Weights) -> Weights:
        """Arrays of the shapes of `_whole`."""
        shape = self.bands.task.shape
        return {
            name: np.broadcast_to(0.0, (*shape, *array.shape[2:])) if _of_object(name, array) else array
            for name, array in arrays.items()
        }

    def _cut(self, arrays: Weights) -> Weights:
        return {name: self.bands.cut(array) if _of_object(name, array) else array for name, array in arrays.items()}


def _of_object(name: str, array: NDArray[np.floating]) -> bool:
    return name.endswith(OBJECT) and array.ndim > 0
