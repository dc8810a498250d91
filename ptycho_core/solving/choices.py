"""Whether one candidate is better than another: a difference of held-out deviance over its standard error.

Each candidate is judged by the same held-out pixels, which none of them has seen, frame by frame (specs/solving.md,
Choices). A ratio of two deviances says nothing of that: with many photons 1.060 can be many standard errors from 1.078.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

SIGNIFICANT = 5.0  # specs/solving.md, Choices: standard errors; below it nothing is chosen silently


@attrs.frozen(eq=False)
class Candidate:
    """What was tried, and how it fits the held-out pixels of the frames.

    name: in words. deviance: (frames,), summed over the held-out pixels of each. pixels: their number, of all frames.
    facts: more to show.
    """

    name: str
    deviance: NDArray[np.float64]
    pixels: int
    facts: Mapping[str, float | str] = attrs.field(factory=dict)

    @property
    def mean_deviance(self) -> float:
        """Per held-out pixel; infinite where a frame's is not finite."""
        total = float(self.deviance.sum())
        return total / self.pixels if math.isfinite(total) else math.inf


def margin(better: Candidate, worse: Candidate) -> float:
    """How many standard errors the first has less deviance than the second; negative where it has more.

    The frames are pairs: of each the difference is taken, and the standard error is that of the sum of the differences.
    """
    if not math.isfinite(worse.mean_deviance):
        return math.inf if math.isfinite(better.mean_deviance) else math.nan
    if not math.isfinite(better.mean_deviance):
        return -math.inf
    difference = worse.deviance - better.deviance
    error = float(np.std(difference, ddof=1)) * math.sqrt(len(difference)) if len(difference) > 1 else math.inf
    total = float(difference.sum())
    if error == 0:
        return math.copysign(math.inf, total) if total else 0.0
    return total / error


@attrs.frozen(kw_only=True)
class Trial:
    """One row of a table of what was tried.

    candidate: in words. deviance: per held-out pixel. margin: standard errors by which it is better than what it is
    compared with. kept: whether the run goes on with it. facts: more to show.
    """

    question: str
    candidate: str
    deviance: float
    margin: float
    kept: bool
    facts: Mapping[str, float | str] = attrs.field(factory=dict)

    @property
    def line(self) -> str:
        """In words, for a log."""
        by = f", {self.margin:+.1f} standard errors" if math.isfinite(self.margin) else ""
        kept = " (kept)" if self.kept else ""
        return f"{self.question}: {self.candidate}: held-out deviance {self.deviance:.5g}{by}{kept}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is not finite is None."""
        row = {**attrs.asdict(self), "facts": dict(self.facts)}
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in row.items()
        }

    @classmethod
    def from_mapping(cls, row: Mapping[str, Any]) -> Trial:
        """The inverse of `as_dict`."""
        plain: dict[str, Any] = {name: math.nan if value is None else value for name, value in row.items()}
        return cls(**plain)


def table(trials: Sequence[Trial]) -> str:
    """The trials as text, a line for each."""
    width = max((len(trial.candidate) for trial in trials), default=0)
    lines = [f"{'':{width}} {'deviance':>10} {'margin':>8}"]
    for trial in trials:
        shown = f"{trial.margin:8.1f}" if math.isfinite(trial.margin) else f"{'-':>8}"
        lines.append(f"{trial.candidate:{width}} {trial.deviance:10.5g} {shown}{' *' if trial.kept else ''}")
    return "\n".join(lines)
