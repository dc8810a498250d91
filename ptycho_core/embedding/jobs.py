"""Training, reconstruction and solving as jobs that yield their progress (specs/embedding.md, Progress)."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.embedding.data import ScanArrays, ScanFile
from ptycho_core.errors import DataError
from ptycho_core.events import Event, EventKind, ObjectSoFar
from ptycho_core.models.model import load_model
from ptycho_core.quality.judging import checked
from ptycho_core.reconstruction.predict import reconstruction_steps
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.inference import InferenceConfig
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.solving.loop import Solving
from ptycho_core.training.fit import fit
from ptycho_core.training.reports import EpochReport

log = logging.getLogger(__name__)

Source = ScanArrays | ScanFile | Scan
"""What a job can train on."""
PARTIAL_SECONDS = 0.25
"""Least time between two partial objects."""
PARTIAL_SHARE = 10
"""And at least so many times what it took to make the last one."""


@attrs.frozen(kw_only=True, repr=False)
class TrainingProgress(EpochReport):
    """After an epoch: `epoch` of `goal` are done. The best model so far is at `model_path`.

    train, validation: loss terms by name, always "total" (specs/physics.md, Losses); validation is None without a test
    scan. is_best: the model at `model_path` is of this epoch. backend: the engine.
    """

    best_epoch: int
    model_path: Path
    backend: str

    @property
    def goal(self) -> int:
        return self.total


@attrs.frozen(eq=False, kw_only=True, repr=False)
class ReconstructionProgress(Event):
    """`done` of `goal` groups of patterns are in the object; with a network of a canvas, patterns, all in every step.

    object_field: complex64 (H, W), on the grid of the input. known: bool (H, W), where a pattern says what it is;
    elsewhere the field is that of the input, or 1. summary: of the last item alone, plain values for a report.
    """

    kind: EventKind = "partial"
    work: str = "reconstruct"
    unit: str = "group"
    total: int
    object_field: NDArray[np.complex64]
    known: NDArray[np.bool_]
    summary: Mapping[str, Any] | None = None

    @property
    def goal(self) -> int:
        return self.total


@attrs.frozen(eq=False, kw_only=True)
class TrainingJob:
    """Train on `data`, and after every epoch that was the best have the model in the file `model_path`."""

    data: Source
    test: Source | None
    config: TrainingConfig
    execution: ExecutionConfig
    model_path: Path

    def run(self, should_stop: Callable[[], bool]) -> Generator[TrainingProgress]:
        scan = _scan(self.data)
        test = None if self.test is None else _scan(self.test)
        config = attrs.evolve(self.config, model=attrs.evolve(self.config.model, N=scan.N))
        run = fit(scan, config, test=test, execution=self.execution, should_stop=should_stop)
        for report in run:
            assert run.model is not None  # an epoch has ended
            if report.is_best or run.ended:  # at the end once more, with the whole history
                run.model.save(self.model_path)
            best, backend = run.model.best_epoch, run.engine.name
            yield report.extended(TrainingProgress, best_epoch=best, model_path=self.model_path, backend=backend)


@attrs.frozen(eq=False, kw_only=True)
class ObjectJob:
    """What has an object of `data` as its result, on the application's grid."""

    data: ScanArrays
    execution: ExecutionConfig

    def _checked(self) -> Scan:
        """The scan. Patches that lie beside the grid altogether would give an object without a word of theirs."""
        scan = _scan(self.data)
        (height, width), half = self.data.grid.shape, scan.N / 2
        low, high = scan.positions_px.min(axis=0) - half, scan.positions_px.max(axis=0) + half
        if (high < 0).any() or (low > (width, height)).any():
            expected = f"positions on the object's grid of {height} x {width} pixels"
            received = f"patches from {low.tolist()} to {high.tolist()} px"
            remedy = "Check the unit of the positions and the centre of the grid."
            raise DataError(scan.source, "positions_m", expected=expected, received=received, remedy=remedy)
        return scan

    def _blank(self) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
        """The object where nothing is done, and that nothing of it is known."""
        nothing = np.zeros((1, 1), bool)
        return self.data.grid.place(np.ones((1, 1), np.complex64), nothing, (0, 0), self.data.object_field)

    def _placed(
        self, field: NDArray[np.complex64], known: NDArray[np.bool_], origin_px: tuple[float, float]
    ) -> dict[str, Any]:
        """An object on the application's grid, and where it is known."""
        placed, inside = self.data.grid.place(field, known, origin_px, self.data.object_field)
        return {"object_field": placed, "known": inside}

    def _so_far(self, so_far: ObjectSoFar) -> dict[str, Any]:
        return self._placed(*so_far.known_field(), so_far.origin_px)


@attrs.frozen(eq=False, kw_only=True)
class ReconstructionJob(ObjectJob):
    """Reconstruct the object of `data` with the model in the file `model_path`."""

    model_path: Path
    config: InferenceConfig

    def run(self, should_stop: Callable[[], bool]) -> Generator[ReconstructionProgress]:
        scan = self._checked()
        model = load_model(self.model_path)
        steps = reconstruction_steps(scan, model, config=self.config, execution=self.execution, should_stop=should_stop)
        due = 0.0
        with contextlib.closing(steps):
            while True:
                try:
                    event = next(steps)
                except StopIteration as end:
                    yield self._progress(event, kind="finished", summary=end.value.summary())
                    return
                started = time.monotonic()
                if started >= due and event.done != event.total:
                    yield self._progress(event, kind="partial")
                    ended = time.monotonic()
                    due = ended + max(PARTIAL_SECONDS, PARTIAL_SHARE * (ended - started))

    def blank(self) -> ReconstructionProgress:
        """Where a reconstruction begins: nothing is done."""
        field, known = self._blank()
        goal = self.config.n_groups or self.config.n_subsample or len(self.data.patterns)
        return ReconstructionProgress(total=goal, object_field=field, known=known)

    def _progress(self, event: Event, **more: Any) -> ReconstructionProgress:
        """The event with the object so far on the application's grid, in place of the canvas."""
        return event.extended(ReconstructionProgress, **self._so_far(event.payload), payload=None, **more)


@attrs.frozen(eq=False, kw_only=True)
class SolvingProgress(ReconstructionProgress):
    """`done` of `goal` sweeps are in the object; `terms` holds R and H of the last one (specs/solving.md).

    probe, positions_m: of the last item alone, as they were refined: complex64 (modes, N, N), Σ|P|² the mean counts of
    a pattern; float64 (M, 2), [x, y], metres, of the middles of the patches.
    """

    work: str = "solve"
    unit: str = "sweep"
    probe: NDArray[np.complex64] | None = None
    positions_m: NDArray[np.float64] | None = None


@attrs.frozen(eq=False, kw_only=True)
class SolvingJob(ObjectJob):
    """Solve `data`: its object, and the probe, positions and intensities that earn it, without a network."""

    config: SolveConfig

    def run(self, should_stop: Callable[[], bool]) -> Generator[SolvingProgress]:
        scan = self._checked()
        solving = Solving(scan, self.config, execution=self.execution, should_stop=should_stop)
        due = 0.0
        for event in solving:
            started = time.monotonic()
            if event.kind == "sweep" and started >= due and event.done != event.total:
                yield SolvingProgress(
                    done=event.done, total=self.config.sweeps, terms=event.terms, **self._so_far(event.payload)
                )
                due = time.monotonic() + PARTIAL_SECONDS
        result = solving.result()
        assert result.known is not None  # a solve says where light fell
        yield SolvingProgress(
            kind="finished",
            done=self.config.sweeps,
            total=self.config.sweeps,
            terms={name: value for name, value in (("R", result.R), ("H", result.H)) if value is not None},
            summary=result.summary(),
            probe=result.probe,
            positions_m=self.data.grid.positions_m(result.positions_px, scan.N),
            **self._placed(result.object_field, result.known, result.origin_px),
        )

    def blank(self) -> SolvingProgress:
        """Where a solve begins: nothing is done."""
        field, known = self._blank()
        return SolvingProgress(total=self.config.sweeps, object_field=field, known=known)


def _scan(source: Source) -> Scan:
    """Judged as every command judges it (specs/data.md, Findings)."""
    return checked(source if isinstance(source, Scan) else source.scan())
