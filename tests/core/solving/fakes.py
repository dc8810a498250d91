"""A bench whose trials are over at once: what each candidate comes to is given by its name."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, TypeVar

import attrs
import numpy as np

from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.solving.choices import Candidate, Trial
from ptycho_core.solving.prior import Prior
from ptycho_core.solving.problem import Task
from ptycho_core.solving.run import Freedoms, Plan, State
from ptycho_core.solving.trials import Bench

FRAMES, PIXELS = 100, 1000
SPREAD = 0.1
"""Between the frames' deviances, when two candidates are compared: its standard error is 1."""
PLAN = Plan(sweeps=5, batches=4, object_rate=0.05, probe_rate=0.05, loss="poisson", seed=0, position_error_px=2.0)
Answer = TypeVar("Answer")


def candidate(name: str, deviance: float, **facts: float | str) -> Candidate:
    """`deviance`: summed over all frames. Two of different names differ by a standard error of about 1."""
    wiggle = np.random.default_rng([ord(letter) for letter in name]).normal(size=FRAMES)
    wiggle = (wiggle - wiggle.mean()) / wiggle.std(ddof=1) * SPREAD / np.sqrt(2)
    return Candidate(name, deviance / FRAMES + wiggle, PIXELS, facts)


@attrs.frozen(eq=False, kw_only=True)
class FakeBench(Bench):
    """deviances: by name of candidate, and in a longer run by `name, longer`. `asked` fills with what was tried.

    kept: the contrast that the priors leave, in the order in which they are asked for; not_used: names of those that
    the object does not suit.
    """

    deviances: Mapping[str, float]
    kept: list[float] = attrs.field(factory=list)
    not_used: tuple[str, ...] = ()
    asked: list[tuple[str, State, Freedoms, int]] = attrs.field(factory=list)

    def tried(self, name: str, state: State, freedoms: Freedoms, **facts: float | str) -> tuple[Candidate, State]:
        self.asked.append((name, state, freedoms, self.plan.sweeps))
        if name in self.not_used:
            facts["not used"] = "too much noise"
        return candidate(name, self.deviances[name], **facts), state

    def contrast_kept(self, state: State, prior: Prior, weight: float) -> float:
        return self.kept.pop(0) if self.kept else 1.0

    @property
    def names(self) -> list[str]:
        return [name for name, *_ in self.asked]


def fake_bench(task: Task, deviances: Mapping[str, float]) -> FakeBench:
    engine: Any = None
    return FakeBench(task=task, engine=engine, execution=ExecutionConfig(), plan=PLAN, deviances=deviances)


def answered(asking: Generator[Trial, None, Answer]) -> tuple[Answer, Sequence[Trial]]:
    """The answer of a question, and the rows of its table."""
    trials: list[Trial] = []
    while True:
        try:
            trials.append(next(asking))
        except StopIteration as end:
            return end.value, trials


def kept(trials: Sequence[Trial]) -> list[str]:
    return [trial.candidate for trial in trials if trial.kept]


Likeness = Callable[[Any, Any], float]
