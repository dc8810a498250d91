"""Short runs to compare: the same frames, the same held-out pixels, the same number of sweeps."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.engine.processes import ALONE, Processes, never
from ptycho_core.engine.protocol import Engine
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.solving.choices import Candidate
from ptycho_core.solving.contrast import kept_contrast
from ptycho_core.solving.prior import Prior
from ptycho_core.solving.problem import Task, in_the_middle, part
from ptycho_core.solving.run import Freedoms, Plan, Run, State

FRAMES = 256  # specs/solving.md, Choices: at most, those nearest to the middle of the scan


@attrs.frozen(eq=False, kw_only=True)
class Bench:
    """What every trial shares."""

    task: Task
    engine: Engine
    execution: ExecutionConfig
    plan: Plan
    should_stop: Callable[[], bool] = never
    processes: Processes = ALONE

    def tried(self, name: str, state: State, freedoms: Freedoms, **facts: float | str) -> tuple[Candidate, State]:
        """A run from `state`, how it fits the held-out pixels, and what it came to."""
        run = Run(self.task, self.engine, self.execution, state, freedoms, self.plan, self.should_stop, self.processes)
        for _ in range(self.plan.sweeps):
            run.sweep()
        measured = run.measure()
        facts["H"] = float(measured.held_error.sum() / measured.held_power.sum())
        if run.unsuited is not None:
            facts["not used"] = run.unsuited  # specs/prior.md, Range
        return Candidate(name, measured.held_deviance, int(measured.held_pixels.sum()), facts), run.state

    def contrast_kept(self, state: State, prior: Prior, weight: float) -> float:
        """The part of what is faint that a prior leaves of an object that was solved without it."""
        return kept_contrast(self.task, self.engine, self.execution, state, prior, weight)

    def longer(self, sweeps: int) -> Bench:
        return attrs.evolve(self, plan=attrs.evolve(self.plan, sweeps=sweeps))


def cut(state: State, whole: Task, fewer: Task, index: NDArray[np.int64]) -> State:
    """The state of a whole task as one of some of its frames, on their canvas."""
    left, top = (round(there - here) for there, here in zip(fewer.origin_px, whole.origin_px, strict=True))
    height, width = fewer.shape
    return State(
        canvas=state.canvas[top : top + height, left : left + width].copy(),
        probe=state.probe,
        positions_px=state.positions_px[index],
        intensity=state.intensity[index],
    )


def middle_of(task: Task, frames: int = FRAMES) -> tuple[Task, NDArray[np.int64]]:
    """The task of the frames in the middle, at most so many, and which they are."""
    index = in_the_middle(task.scan.positions_px, frames)
    return (task if len(index) == len(task) else part(task, index)), index
