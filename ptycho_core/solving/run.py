"""One annealed run of sweeps over the frames, with fixed freedoms: the main one, or a short one to compare.

An engine takes the steps; here it is decided in which order, at which rate, and what becomes of positions and
intensities. Everything follows from the state, the seed and the number of the sweep, so that a run that goes on later
takes the same steps (specs/solving.md, Sweeps).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.engine.problem import FrameFacts, Rates
from ptycho_core.engine.processes import ALONE, Processes, agreed, never
from ptycho_core.engine.protocol import Engine, Solver
from ptycho_core.errors import Cancelled
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.solving import positions as rules
from ptycho_core.solving.bands import Bands, started
from ptycho_core.solving.features import smoothed
from ptycho_core.solving.prior import Prior
from ptycho_core.solving.problem import Task, batch_count, cover_of
from ptycho_core.vocabulary import OBJECT, PROBE, Weights

BETWEEN_SWEEPS, BETWEEN_RATE = 3, 0.01  # specs/solving.md, Prior: between two rounds; the first step size of them
LEAST_PRIOR = 0.1  # specs/solving.md, Prior: of its weight, at the end of a run
MEASURED_FRAMES = 256


@attrs.frozen(kw_only=True)
class Freedoms:
    """What is refined beside the object, and the prior that it is drawn to."""

    probe: bool = False
    positions: bool = False
    intensity: bool = False
    prior: Prior | None = None
    prior_name: str = "none"
    prior_weight: float = 0.0


@attrs.frozen(kw_only=True)
class Plan:
    """How a run is annealed. unknown_probe: positions wait until the probe has come nearer."""

    sweeps: int
    batches: int
    object_rate: float
    probe_rate: float
    loss: str
    seed: int
    position_error_px: float
    unknown_probe: bool = False


@attrs.frozen(eq=False, kw_only=True)
class State:
    """All that is solved for.

    canvas: complex64 (H, W). probe: complex64 (K, N, N). positions_px: float64 (M, 2). intensity: float64 (M,).
    """

    canvas: NDArray[np.complex64]
    probe: NDArray[np.complex64]
    positions_px: NDArray[np.float64]
    intensity: NDArray[np.float64]


class Run:
    """Steps of an engine over the frames of a task, a sweep at a time."""

    def __init__(
        self,
        task: Task,
        engine: Engine,
        execution: ExecutionConfig,
        state: State,
        freedoms: Freedoms,
        plan: Plan,
        should_stop: Callable[[], bool] = never,
        processes: Processes = ALONE,
    ) -> None:
        """processes: those that take the steps together, each on its share of every batch."""
        self.task, self.freedoms, self.plan, self.execution, self.processes = task, freedoms, plan, execution, processes
        self.positions_px, self.intensity = state.positions_px.copy(), state.intensity.copy()
        self.batches = batch_count(task.scan, plan.batches)
        self.bands = Bands(task, len(task) / self.batches, processes)
        problem = task.problem(state.canvas, state.probe, plan.loss)
        self.solver, self._own = started(engine, problem, execution, self.bands)
        self.modes = len(state.probe)
        self.counts = float(np.square(np.abs(state.probe), dtype=np.float64).sum())
        self.done, self.in_sweep = 0, False
        self.before_prior: NDArray[np.complex64] | None = None
        self.unsuited: str | None = None
        self._apply = _nothing if freedoms.prior is None else freedoms.prior.on(engine, execution)
        self._should_stop = agreed(processes, should_stop)
        self._searches = rules.searches(plan.sweeps, plan.position_error_px) if freedoms.positions else {}

    @property
    def state(self) -> State:
        """A copy of what the run has come to."""
        weights = self.solver.weights()
        return State(
            canvas=complex_of(weights[OBJECT]),
            probe=complex_of(weights[PROBE]),
            positions_px=self.positions_px.copy(),
            intensity=self.intensity.copy(),
        )

    def load(self, weights: Weights, optimizer: Weights, done: int, counts: float) -> None:
        """Go on after `done` sweeps from what the solver of any engine returned. counts: Σ|P|² of the first probe."""
        self.solver.load_weights(weights)
        self.solver.load_optimizer_state(optimizer)
        self.done, self.counts = done, counts

    def share(self, sweeps: float) -> float:
        """The part of the first step size that is left after so many sweeps: half a cosine, from 1 to 0."""
        return 0.5 * (1 + math.cos(math.pi * min(sweeps / self.plan.sweeps, 1.0)))

    def sweep(self) -> FrameFacts:
        """One pass over the frames; the facts of each are those before its step, in the order of the frames."""
        sweep, freedoms, plan = self.done + 1, self.freedoms, self.plan
        self.in_sweep = True
        probe = complex_of(self._own.weights()[PROBE])
        light = self.bands.light(probe, self.positions_px)
        self._own.set_cover(cover_of(light, self.bands.largest(light)))
        first = rules.FIRST_SWEEP_UNKNOWN_PROBE if plan.unknown_probe else rules.FIRST_SWEEP
        moving = freedoms.positions and sweep >= first
        batches = self._drawn(sweep)
        parts = []
        gathered = self.task.gathered(batches, self.execution.num_workers)
        with contextlib.closing(gathered):
            for number, (index, amplitude) in enumerate(gathered, 1):
                if self._should_stop():
                    raise Cancelled(f"stopped in sweep {sweep}, before batch {number} of {len(batches)}")
                share = self.share(sweep - 1 + (number - 0.5) / len(batches))
                rates = Rates(plan.object_rate * share, plan.probe_rate * share if freedoms.probe else 0.0)
                frames = self.task.frames(index, amplitude, self.positions_px[index], self.intensity[index])
                facts = self.solver.step(frames, rates, shifts=moving)
                if moving:
                    self.positions_px[index] = rules.stepped(self.positions_px[index], facts.shift_px)
                if freedoms.intensity:
                    self.intensity[index] = rules.averaged(self.intensity[index], facts.intensity_ratio)
                parts.append(facts)
        facts = self._put_together(np.concatenate(batches), parts)
        if moving:
            self._confine()
            if sweep in self._searches:
                self._search(self._searches[sweep])
        if freedoms.intensity:
            self.intensity /= self.intensity.mean()
        if freedoms.probe:
            self.solver.rescale(self.counts)
        if freedoms.prior is not None:
            self._draw_to(freedoms.prior, light)
        self.done, self.in_sweep = sweep, False
        return facts

    def _drawn(self, sweep: int) -> list[NDArray[np.int64]]:
        """This process's frames of each batch of a sweep."""
        order = np.random.default_rng([self.plan.seed, sweep]).permutation(len(self.task))
        batches = (np.sort(batch) for batch in np.array_split(order, self.batches))
        return [self.bands.share(batch) for batch in batches]

    def _put_together(self, index: NDArray[np.int64], parts: list[FrameFacts]) -> FrameFacts:
        """The facts of all frames in their order; positions and intensities that other processes have changed."""
        if self.processes.size == 1:
            return in_order(FrameFacts.join(parts), index)
        facts = FrameFacts.join(parts).table()
        table = np.column_stack([facts, self.positions_px[index], self.intensity[index]])
        table = self.processes.joined([(index, table)], np.empty((len(self.task), table.shape[1])))
        self.positions_px, self.intensity = table[:, -3:-1].copy(), table[:, -1].copy()
        return FrameFacts.of_table(table[:, :-3])

    def _draw_to(self, prior: Prior, light: NDArray[np.float64]) -> None:
        """Bring the object nearer to the prior, after every sweep or after the last one alone. light: on the band."""
        sweep, last = self.done + 1, self.done + 1 == self.plan.sweeps
        if not (last or prior.each_sweep):
            return
        counts = self.bands.whole(light) * self.task.counts_per_intensity
        if last:
            self.before_prior = complex_of(self.solver.weights()[OBJECT])
            self.unsuited = prior.suits(self.before_prior, counts)
        if self.unsuited is not None:
            return
        weight = self.freedoms.prior_weight
        if prior.each_sweep:
            weight *= max(self.share(sweep), LEAST_PRIOR)
        self._apply(self.solver, weight, counts)
        if last:
            for number in range(prior.rounds):
                self.meet_patterns(number)
                self._apply(self.solver, weight, counts)
            if prior.rounds:
                self._settle(prior.rounds, counts)
            self._relight()

    def _settle(self, number: int, counts: NDArray[np.float64]) -> None:
        """Let the patterns correct what changes slowly over the object, which they tell best."""
        drawn = complex_of(self.solver.weights()[OBJECT])
        self.meet_patterns(number)
        weights = dict(self.solver.weights())
        settled = drawn + smoothed(complex_of(weights[OBJECT]) - drawn, counts)
        weights[OBJECT] = np.stack([settled.real, settled.imag], axis=-1)
        self.solver.load_weights(weights)

    def meet_patterns(self, number: int = 0) -> None:
        """A few short sweeps of the object alone: what a prior has changed meets the patterns again."""
        steps, first = BETWEEN_SWEEPS * self.batches, self.plan.sweeps + 1 + number * BETWEEN_SWEEPS
        for sweep in range(BETWEEN_SWEEPS):
            with contextlib.closing(
                self.task.gathered(self._drawn(first + sweep), self.execution.num_workers)
            ) as gathered:
                for step, (index, amplitude) in enumerate(gathered, 1 + sweep * self.batches):
                    if self._should_stop():
                        raise Cancelled("stopped after the last sweep, before the prior was applied again")
                    rate = BETWEEN_RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
                    frames = self.task.frames(index, amplitude, self.positions_px[index], self.intensity[index])
                    self.solver.step(frames, Rates(rate))

    def measure(self, *, deviance: bool = True) -> FrameFacts:
        """The facts of every frame with everything as it is, in their order."""
        return self.bands.facts(list(self._measured(self.positions_px, deviance=deviance)))

    def _measured(self, positions_px: NDArray[np.float64], *, deviance: bool) -> Iterator[FrameFacts]:
        """Those of this process's share of the frames."""
        own = self.bands.frames
        pieces = [own[start : start + MEASURED_FRAMES] for start in range(0, len(own), MEASURED_FRAMES)]
        if self.processes.size > 1 and self._should_stop():  # once: shares may differ in their number of pieces
            raise Cancelled(f"stopped after sweep {self.done}")
        with contextlib.closing(self.task.gathered(pieces, self.execution.num_workers)) as gathered:
            for index, amplitude in gathered:
                if self.processes.size == 1 and self._should_stop():
                    raise Cancelled(f"stopped after sweep {self.done}")
                frames = self.task.frames(index, amplitude, positions_px[index], self.intensity[index])
                yield self.solver.measure(frames, deviance=deviance)

    def _relight(self) -> None:
        """Scale the object to the light that was measured: a prior takes noise out of it, and with the noise light."""
        facts = self.measure(deviance=False)
        # error = ΣI - 2 ΣA√I + ΣA², and ΣA√I = ΣI · √ratio
        predicted = float(((facts.error - facts.power) / (1 - 2 * np.sqrt(facts.intensity_ratio))).sum())
        weights = dict(self.solver.weights())
        weights[OBJECT] = weights[OBJECT] * math.sqrt(float(facts.power.sum()) / predicted)
        self.solver.load_weights(weights)

    def _confine(self) -> None:
        self.positions_px = rules.confined(self.positions_px, self.task.scan.positions_px, self._limit_px)

    @property
    def _limit_px(self) -> float:
        return rules.LARGEST_MOVE * self.plan.position_error_px

    def _search(self, radius_px: float) -> None:
        """Move every frame to the best of its place and those on a circle: what frees a frame from a wrong place."""
        begun = self.task.scan.positions_px
        least, places = np.full(len(begun), np.inf), self.positions_px.copy()
        for move in rules.circle(radius_px):
            tried = rules.confined(self.positions_px + move, begun, self._limit_px, centred=False)
            error = self.bands.facts(list(self._measured(tried, deviance=False))).error
            better = error < least
            least[better], places[better] = error[better], tried[better]
        self.positions_px = places
        self._confine()


def _nothing(solver: Solver, weight: float, counts: NDArray[np.float64]) -> None:
    """No prior."""


def in_order(facts: FrameFacts, index: NDArray[np.int64]) -> FrameFacts:
    """The facts of frames at `index`, sorted by it."""
    return facts.part(np.argsort(index))


def complex_of(pairs: NDArray[np.floating]) -> NDArray[np.complex64]:
    """(..., 2), real and imaginary part, → complex64 (...)."""
    return np.ascontiguousarray(pairs, np.float32).view(np.complex64)[..., 0]
