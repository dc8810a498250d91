"""Solving a scan: what has to be found out, one annealed run, and the evidence (specs/solving.md, Solving)."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.bars import bar_where_asked
from ptycho_core.engine.problem import FrameFacts
from ptycho_core.engine.processes import ALONE, Processes, check_alike, check_asked, never
from ptycho_core.engine.protocol import Engine
from ptycho_core.engine.registry import load_engine
from ptycho_core.errors import BackendError, Cancelled, ConfigurationError, TrainingError
from ptycho_core.events import Event
from ptycho_core.io import load_scan
from ptycho_core.physics.illumination import mean_frame_intensity
from ptycho_core.quality.frc import FRC
from ptycho_core.quality.trust import SplitHalf, lit_pixels, split_half
from ptycho_core.reconstruction.evidence import with_evidence
from ptycho_core.reconstruction.result import Reconstruction
from ptycho_core.scans.fingerprint import Fingerprint, check_same_scan, fingerprint
from ptycho_core.scans.scan import Scan
from ptycho_core.scans.steps import Orient
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.fields import to_mapping
from ptycho_core.settings.sections import existing_file
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.solving.asking import found_out, plan_of
from ptycho_core.solving.checkpoint import SolveCheckpoint, check_continues
from ptycho_core.solving.choices import Trial
from ptycho_core.solving.orientation import AS_READ, turned_task
from ptycho_core.solving.outcome import image
from ptycho_core.solving.priors import check_prior, prior_named
from ptycho_core.solving.problem import Task, begun, part, scaled
from ptycho_core.solving.run import Freedoms, Run, State
from ptycho_core.solving.start import Start, begun_with, flat, opened
from ptycho_core.vocabulary import PROBE

log = logging.getLogger(__name__)

DIVERGED = 1.5  # specs/solving.md, Divergence: times the least R so far
SMALL_R = 0.1  # specs/solving.md, Divergence: first steps bring any object so far from a better one, and are no fault
FEW_SWEEPS = "they were too few, or their steps too large. Raise sweeps, or lower object_rate."
WORK = "solve"
Answer = TypeVar("Answer")


@attrs.frozen(kw_only=True, repr=False)
class SweepReport(Event):
    """What one sweep did. R: of the used pixels, H: of the held-out ones, both of each frame just before its step.

    rate: the part of the first step sizes that is left. payload: the object so far.
    """

    kind: Any = "sweep"
    work: str = WORK
    unit: str = "sweep"
    R: float
    H: float
    rate: float
    seconds: float
    moved_px: float

    def as_row(self) -> dict[str, float]:
        """One flat row of the history."""
        return {
            "sweep": float(self.done),
            "R": self.R,
            "H": self.H,
            "rate": self.rate,
            "seconds": self.seconds,
            "moved_px": self.moved_px,
        }


@attrs.frozen(eq=False)
class SolvedSoFar:
    """The object of a run after the last whole sweep when it is asked for; see `ptycho_core.events.ObjectSoFar`.

    Each process may ask for itself.
    """

    task: Task
    kept: Callable[[], State]

    @property
    def origin_px(self) -> tuple[float, float]:
        return self.task.origin_px

    def known_field(self) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
        state = self.kept()
        known = lit_pixels(self.task.light(state.probe, state.positions_px))
        return np.where(known, state.canvas, np.complex64(0)), known

    def places(self) -> NDArray[np.float64]:
        """(M, 2): where the frames lie, for a page."""
        return self.kept().positions_px.copy()

    def photon_limit(self) -> NDArray[np.float32]:
        """(H, W): RMS error of the object that photons alone leave, by the light on a pixel."""
        state, task = self.kept(), self.task
        counts = 2 * task.counts_per_intensity * task.light(state.probe, state.positions_px)
        with np.errstate(divide="ignore"):
            return np.asarray(1 / np.sqrt(np.maximum(counts, 0)), np.float32)


class Solving:
    """A solve: iterate for an event after every trial and every sweep; leave the loop to stop; then `result()`.

    Settings, engine and scan are checked when it is made; no pattern is fitted before the first event.
    `history`: a row per sweep. `trials`: what was tried to decide what is refined. `checkpoint()`, between sweeps, is
    what the run needs to go on, here or on another engine.
    """

    def __init__(
        self,
        scan: Scan | None,
        config: SolveConfig | None = None,
        *,
        start: Start | None = None,
        execution: ExecutionConfig | None = None,
        should_stop: Callable[[], bool] = never,
        resume: SolveCheckpoint | None = None,
        processes: Processes = ALONE,
    ) -> None:
        """processes: those that solve together, each of which makes this with the same arguments and iterates."""
        config = attrs.evolve(config) if config is not None else SolveConfig() if resume is None else resume.config
        config.validate()
        if execution is None:
            execution = ExecutionConfig() if resume is None else resume.execution
        check_asked(execution, processes)
        check_prior(config.prior)
        scan = _given_or_loaded(scan, config)
        if not scan.probe_known and config.first_probe != "auto":
            config = attrs.evolve(config, first_probe="auto", probe_defocus="given")
        if config.first_probe == "auto":
            _check_probe_refined(scan, config)
        if resume is not None:
            check_continues(resume, config, execution)
        self.config, self.execution = config, attrs.evolve(execution)
        automatic = resume is not None and config.backend == "auto"  # another engine goes on to rounding alone
        self._engine = _with_solver(load_engine(resume.engine.name if resume and automatic else config.backend))
        self.engine = self._engine.describe()
        self.history: list[dict[str, float]] = []
        self.trials: list[Trial] = []
        self.warnings: list[str] = []
        self._should_stop, self._resume, self._processes = should_stop, resume, processes
        self._task = begun(scan, config)
        self._fingerprint: Fingerprint | None = None
        if processes.size > 1:
            check_alike(processes, self._task.scan.source, self._scan_fingerprint())
            settings = repr(sorted(to_mapping(attrs.evolve(config, output_dir=Path())).items()))
            check_alike(processes, "SolveConfig", {"settings": hashlib.sha256(settings.encode()).hexdigest()})
        if resume is not None:
            check_same_scan(self._task.scan, self._scan_fingerprint(), resume.scan)
        _report_dose(self._task, config)
        wanted = config.start if start is None else start
        self._start = None
        if resume is None and not (isinstance(wanted, str) and wanted == "flat"):
            self._start = opened(wanted, self._task.scan, config.backend, self.execution, processes)
            begun_with(self._start, self._task, scaled(self._task.scan, self._task.scan.probe))  # or it says why not
        self._begun = time.perf_counter()
        self._orientation = AS_READ
        self._run: Run | None = None
        self._kept: State | None = None  # after the last whole sweep, or the best one of a run that diverged
        self._best: State | None = None  # after the sweep with the least R
        self._begun_R = math.inf  # of what the run began with; of a run that goes on, its first sweeps are known
        self._diverged = False
        self._frc_with_prior: FRC | None = None

    def __repr__(self) -> str:
        return f"Solving(sweep {len(self.history)} of {self.config.sweeps}, {self.engine.name})"

    @property
    def ended(self) -> bool:
        """Whether no sweep is left."""
        return self._diverged or len(self.history) >= self.config.sweeps

    def __iter__(self) -> Iterator[Event]:
        config = self.config
        if self._run is None:
            yield Event(kind="started", work=WORK, message=f"backend {self.engine.name}, {len(self._task)} frames")
            if self._resume is not None:
                self._run = self._resumed(self._resume)
            else:
                if not self._task.scan.probe_known:
                    yield self._warning("the probe is not known: it is looked for (first_probe = auto)")
                asking = found_out(
                    self._task,
                    config,
                    self._engine,
                    self.execution,
                    start=self._start,
                    should_stop=self._should_stop,
                    processes=self._processes,
                )
                found = yield from self._told(asking)
                self._task, self._orientation = found.task, found.orientation
                self._run = self._like(found.task, found.state, found.freedoms)
                self._begun_R = _R(self._run.measure())
        run = self._run
        done = len(self.history)
        yield Event(kind="prepared", work=WORK, done=done, total=config.sweeps, unit="sweep", message=_described(run))
        while not self.ended:
            begun = time.perf_counter()
            try:
                facts = run.sweep()
            except Cancelled:
                self._should_stop = never  # it has been followed, and what is done can be had
                raise
            report = self._report(facts, time.perf_counter() - begun)
            if self._diverges(report):
                yield self._warning(
                    f"R rose from {self._least:.4g} to {report.R:.4g} in sweep {report.done}: the run has diverged and "
                    f"stops, its best sweep is kept. {self._remedy()}"
                )
                self._kept = self._best
                return
            best = self._least >= report.R
            self.history.append(report.as_row())
            self._kept = run.state
            self._best = self._kept if best or self._best is None else self._best
            yield report
            if run.unsuited is not None:
                yield self._warning(f"prior {run.freedoms.prior_name} was not used: the object has {run.unsuited}")

    def result(self) -> Reconstruction:
        """The reconstruction of the last whole sweep, of the best one where the run diverged.

        Every frame is looked at once more; with `split_half` each half is solved. TrainingError before the first sweep.
        """
        run, state = self._run, self._kept
        if run is None or state is None:
            remedy = "Let one sweep end."
            raise TrainingError("solving", expected="a whole sweep", received="none", remedy=remedy)
        if not self.ended or self._diverged:
            run = self._like(run.task, state, run.freedoms, done=len(self.history))
        seconds = {"total": time.perf_counter() - self._begun, "sweeps": sum(row["seconds"] for row in self.history)}
        facts = run.measure()
        if self.ended and _R(facts) > self._begun_R:
            words = f"R is {_R(facts):.4g} after the sweeps and was {self._begun_R:.4g} before them: {FEW_SWEEPS}"
            if words not in self.warnings:
                self._warning(words)
        whole = image(run.task, state, self.engine, seconds)
        without = run.before_prior if run.unsuited is None else None
        halves = self._halves(whole, run, state) if self.config.split_half else None
        result = with_evidence(
            whole,
            run.task.scan,
            np.arange(len(run.task)),
            facts,
            counts_per_intensity=run.task.counts_per_intensity,
            halves=halves,
        )
        assert result.known is not None
        choices = self.choices
        if self._frc_with_prior is not None:
            choices["resolution_with_prior"] = self._frc_with_prior.as_dict(result.pixel_m)
        told: dict[str, Any] = {"settings": to_mapping(self.config), "choices": choices, "history": self.history}
        told["object_field"] = np.where(result.known, result.object_field, np.complex64(0))
        if without is not None:
            told["object_without_prior"] = np.where(result.known, without, np.complex64(0))
        return attrs.evolve(result, **told)

    def checkpoint(self) -> SolveCheckpoint:
        """What the run needs to go on after its last whole sweep: `Solving(scan, resume=checkpoint)`.

        Of several processes each holds a part of it, and all of them take it after the same sweep. Raises TrainingError
        before the first sweep has ended, and in the middle of one.
        """
        run = self._run
        if run is None or not self.history or run.done != len(self.history) or run.in_sweep:
            remedy = "Take a checkpoint when a sweep has ended, in the loop over the run."
            received = "no whole sweep" if not self.history else f"a part of sweep {len(self.history) + 1}"
            raise TrainingError(
                "checkpoint", expected="the state after a whole sweep", received=received, remedy=remedy
            )
        return SolveCheckpoint(
            config=self.config,
            execution=self.execution.for_any_processes(),
            weights=run.solver.weights(),
            optimizer=run.solver.optimizer_state(),
            positions_px=run.positions_px.copy(),
            intensity=run.intensity.copy(),
            counts=run.counts,
            chosen=self._chosen(run),
            trials=[trial.as_dict() for trial in self.trials],
            history=[dict(row) for row in self.history],
            engine=self.engine,
            scan=self._scan_fingerprint(),
        )

    @property
    def choices(self) -> dict[str, Any]:
        """What the run refines and how that was decided, as plain values."""
        chosen = {} if self._run is None else self._chosen(self._run)
        return {**chosen, "tried": [trial.as_dict() for trial in self.trials], "warnings": list(self.warnings)}

    # -- before the run ------------------------------------------------------------------------------------------------

    def _told(self, asking: Generator[Trial, None, Answer]) -> Generator[Event, None, Answer]:
        """The answer of a question; an event for each trial on the way."""
        while True:
            try:
                trial = next(asking)
            except StopIteration as end:
                answer: Answer = end.value
                return answer
            self.trials.append(trial)
            log.info("%s", trial.line)
            terms = {"deviance": trial.deviance, "margin": trial.margin}
            number = len(self.trials)
            yield Event(
                kind="batch", work=WORK, done=number, unit="trial", terms=terms, message=trial.line, payload=trial
            )

    def _like(self, task: Task, state: State, freedoms: Freedoms, *, done: int = 0) -> Run:
        plan = plan_of(self.config)
        run = Run(task, self._engine, self.execution, state, freedoms, plan, self._should_stop, self._processes)
        run.done = done
        return run

    # -- going on ------------------------------------------------------------------------------------------------------

    def _chosen(self, run: Run) -> dict[str, Any]:
        free = run.freedoms
        return {
            "modes": run.modes,
            "refined": [name for name in ("probe", "positions", "intensity") if getattr(free, name)],
            "prior": free.prior_name,
            "prior_weight": free.prior_weight if free.prior is not None else None,
            "prior_not_used": run.unsuited,
            "orientation": attrs.asdict(self._orientation),
        }

    def _resumed(self, checkpoint: SolveCheckpoint) -> Run:
        chosen = checkpoint.chosen
        self._orientation = Orient(**chosen["orientation"])
        self.trials = [Trial.from_mapping(row) for row in checkpoint.trials]
        self.history = [dict(row) for row in checkpoint.history]
        task = self._task = turned_task(self._task, self._orientation)
        prior = None if chosen["prior"] == "none" else prior_named(chosen["prior"])
        free = Freedoms(
            **{name: name in chosen["refined"] for name in ("probe", "positions", "intensity")},
            prior=prior,
            prior_name=chosen["prior"],
            prior_weight=chosen["prior_weight"] or 0.0,
        )
        probe = np.ascontiguousarray(checkpoint.weights[PROBE], np.float32).view(np.complex64)[..., 0]
        state = attrs.evolve(flat(task, probe), positions_px=checkpoint.positions_px, intensity=checkpoint.intensity)
        run = self._like(task, state, free)
        run.load(checkpoint.weights, checkpoint.optimizer, len(self.history), checkpoint.counts)
        self._kept = self._best = run.state
        return run

    def _scan_fingerprint(self) -> Fingerprint:
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self._task.scan, with_truth=False)
        return self._fingerprint

    # -- in the run ----------------------------------------------------------------------------------------------------

    @property
    def _least(self) -> float:
        return min((row["R"] for row in self.history), default=self._begun_R)

    def _report(self, facts: FrameFacts, seconds: float) -> SweepReport:
        run = self._run
        assert run is not None
        R = _R(facts)
        H = float(facts.held_error.sum() / facts.held_power.sum())
        moves = run.positions_px - run.task.scan.positions_px
        return SweepReport(
            done=run.done,
            total=self.config.sweeps,
            R=R,
            H=H,
            rate=run.share(run.done),
            seconds=seconds,
            moved_px=float(np.sqrt(np.square(moves).sum(axis=1).mean())),
            terms={"R": R, "H": H},
            message=f"R {R:.4g}, H {H:.4g}",
            payload=SolvedSoFar(run.task, self._last_state),
        )

    def _last_state(self) -> State:
        assert self._kept is not None
        return self._kept

    def _diverges(self, report: SweepReport) -> bool:
        limit = DIVERGED * max(self._least, SMALL_R)
        self._diverged = not (math.isfinite(report.R) and limit >= report.R)
        if self._diverged and self._kept is None:
            raise TrainingError(
                "solving",
                expected=f"R of at most {limit:.4g} in the first sweep; it is {self._begun_R:.4g} before",
                received=f"{report.R:.4g}, the run has diverged",
                remedy=self._remedy(),
            )
        return self._diverged

    def _remedy(self) -> str:
        config, usual = self.config, SolveConfig()
        probe = self._run is not None and self._run.freedoms.probe
        name = "probe_rate" if probe and config.probe_rate > usual.probe_rate else "object_rate"
        if config.object_rate > usual.object_rate:
            name = "object_rate"
        return f"Lower {name}, now {getattr(config, name):g}."

    def _warning(self, message: str) -> Event:
        self.warnings.append(message)
        log.warning("%s: %s", self._task.scan.source, message)
        return Event(kind="warning", work=WORK, message=message)

    # -- evidence ------------------------------------------------------------------------------------------------------

    def _halves(self, whole: Reconstruction, run: Run, state: State) -> SplitHalf:
        """Each half of the frames solved from a flat object, with the probe, places and intensities of the whole.

        The error is that of an object with the prior, so the halves have it too. It also makes them alike beyond what
        their patterns say: their correlation is that of halves without.
        """
        alone = self._compared(whole, run, state, Freedoms())
        if run.freedoms.prior is None:
            return alone
        free = attrs.evolve(run.freedoms, probe=False, positions=False, intensity=False)
        drawn = self._compared(whole, run, state, free)
        self._frc_with_prior = drawn.frc
        return attrs.evolve(drawn, frc=alone.frc)

    def _compared(self, whole: Reconstruction, run: Run, state: State, freedoms: Freedoms) -> SplitHalf:
        def solved(index: NDArray[np.int64]) -> Reconstruction:
            task = part(run.task, index, same_canvas=True)
            begin = State(
                canvas=np.ones(task.shape, np.complex64),
                probe=state.probe,
                positions_px=state.positions_px[index],
                intensity=state.intensity[index],
            )
            plan = attrs.evolve(plan_of(self.config), batches=min(self.config.batches, len(index)))
            half = Run(task, self._engine, self.execution, begin, freedoms, plan, self._should_stop, self._processes)
            for _ in range(plan.sweeps):
                half.sweep()
            return image(task, half.state, self.engine, {"total": 0.0})

        return split_half(whole, state.positions_px, solved, seed=self.config.seed)


def solve(
    scan: Scan | None,
    config: SolveConfig | None = None,
    *,
    start: Start | None = None,
    execution: ExecutionConfig | None = None,
    on_event: Callable[[Event], bool | None] | None = None,
    should_stop: Callable[[], bool] = never,
    progress: bool | None = None,
    processes: Processes = ALONE,
) -> Reconstruction:
    """The object of a scan, fitted to its patterns; with the probe, positions and intensities that were refined.

    scan: None is the one in `config.data_file`. start: an object to begin with, instead of what `config.start` names:
    a reconstruction, a model, a file, or an array whose pixel [0, 0] is at the coordinate (0, 0). on_event: told of
    every trial and every sweep; where it returns True, the solve ends with that sweep, or the first one. should_stop:
    looked at before every step; when it says so, `Cancelled` is raised; to keep the last whole sweep, use `Solving`.
    progress: show a bar; None is on a terminal and in a notebook, unless `enable_progress_bar` is off. processes: those
    that solve together; the result is the same in all of them. Raises ConfigurationError, DataError, BackendError,
    ProcessError or TrainingError.
    """
    solving = Solving(scan, config, start=start, execution=execution, should_stop=should_stop, processes=processes)
    enough = False
    with bar_where_asked(progress, execution is None or execution.enable_progress_bar) as bar:
        for event in solving:
            bar(event)
            enough = processes.any(on_event is not None and on_event(event) is True) or enough
            if enough and solving.history:
                break
    return solving.result()


def solving_steps(
    scan: Scan | None,
    config: SolveConfig | None = None,
    *,
    start: Start | None = None,
    execution: ExecutionConfig | None = None,
    should_stop: Callable[[], bool] = never,
) -> Generator[Event, None, Reconstruction]:
    """`solve` as a generator: its events, and the result as its return value. Close it to stop.

    A `SweepReport` comes after each sweep; its payload is the object so far.
    """
    solving = Solving(scan, config, start=start, execution=execution, should_stop=should_stop)
    yield from solving
    return solving.result()


def _R(facts: FrameFacts) -> float:
    """Σ(√I − A)² / ΣA² over the used pixels of all frames."""
    return float(facts.error.sum() / facts.power.sum())


def _with_solver(engine: Engine) -> Engine:
    if not hasattr(engine, "start_solver"):
        raise BackendError(f"Backend {engine.name!r} has no solver. Choose another one (--backend).")
    return engine


def _given_or_loaded(scan: Scan | None, config: SolveConfig) -> Scan:
    if scan is not None:
        return scan
    path = existing_file(config, "data_file")
    if path is None:
        remedy = "Pass a scan, or set data_file."
        raise ConfigurationError("SolveConfig", "data_file", expected="a scan to solve", received="none", remedy=remedy)
    return load_scan(path)


def _check_probe_refined(scan: Scan, config: SolveConfig) -> None:
    if config.refined is not None and "probe" not in config.refined:
        expected = f"auto or a list with probe: that of {scan.source} is not known, and is found in outline alone"
        remedy = "Add probe to refine, or give a probe."
        raise ConfigurationError("SolveConfig", "refine", expected=expected, received=config.refine, remedy=remedy)


def _report_dose(task: Task, config: SolveConfig) -> None:
    scan = task.scan
    if scan.dose_known:
        log.info("%s: %.4g photons per frame on average", scan.source, mean_frame_intensity(scan))
    else:
        log.info("%s: dose unknown; nphotons = %g is taken as the mean photons per frame", scan.source, config.nphotons)


def _described(run: Run) -> str:
    free = run.freedoms
    refined = [name for name in ("probe", "positions", "intensity") if getattr(free, name)]
    modes = run.modes
    prior = "no prior" if free.prior is None else f"prior {free.prior_name} {free.prior_weight:g}"
    return f"{modes} mode{'s' * (modes > 1)}, refined: {', '.join(['object', *refined])}, {prior}"
