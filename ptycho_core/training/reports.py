"""What a training run tells of itself: events after an epoch, and before a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from ptycho_core.events import Event, EventKind
from ptycho_core.vocabulary import LossTerms

if TYPE_CHECKING:
    from ptycho_core.engine.protocol import EngineInfo
    from ptycho_core.settings.solving import SolveConfig
    from ptycho_core.settings.training import TrainingConfig


class LoggedRun(Protocol):
    """What a logger looks at of a run: a `Fit` is one, and a `Solving`."""

    @property
    def config(self) -> TrainingConfig | SolveConfig: ...

    history: list[dict[str, float]]
    engine: EngineInfo


@attrs.frozen(kw_only=True, repr=False)
class EpochReport(Event):
    """What one epoch did. `epoch` counts from 1; loss terms are means over the epoch's groups.

    physics_weight: the part of the configured diffraction losses in the training total. is_best: no epoch before was
    better; is_kept: it is among the `checkpoint_save_top_k` best. terms: those of training by name, those of the test
    scan with the prefix `validation_`.
    """

    kind: EventKind = "epoch"
    work: str = "train"
    unit: str = "epoch"
    total: int
    learning_rate: float
    physics_weight: float
    train: LossTerms
    validation: LossTerms | None
    is_best: bool
    is_kept: bool
    seconds: float
    patterns_per_second: float
    terms: LossTerms = attrs.field(init=False)
    message: str = attrs.field(init=False)

    @terms.default
    def _terms(self) -> LossTerms:
        return {**self.train, **{f"validation_{name}": value for name, value in (self.validation or {}).items()}}

    @message.default
    def _message(self) -> str:
        return in_words(self.terms)

    @property
    def epoch(self) -> int:
        return self.done

    @property
    def nepochs(self) -> int:
        return self.total

    @property
    def line(self) -> str:
        return f"{super().line}, {self.patterns_per_second:.0f} patterns/s"

    def as_row(self) -> dict[str, float]:
        """One flat row of the history."""
        rates = {"learning_rate": self.learning_rate, "physics_weight": self.physics_weight}
        return {"epoch": float(self.epoch), **rates, **self.terms, "seconds": self.seconds}


@attrs.frozen(kw_only=True, repr=False)
class Progress(Event):
    """Before a batch is handed to the engine: `patterns` of the epoch are done, `done` of the run's `total`.

    terms: the latest that are known: means over the batches of this epoch that the engine has done, as they were up to
    `LOSSES_EVERY_S` ago; of the epoch before where this one has none yet, and those of the test scan.
    """

    kind: EventKind = "batch"
    work: str = "train"
    unit: str = "pattern"
    epoch: int
    nepochs: int
    batch: int
    batches: int
    patterns: int
    message: str = attrs.field(init=False)

    @message.default
    def _message(self) -> str:
        return ", ".join(part for part in (f"epoch {self.epoch}/{self.nepochs}", in_words(self.terms)) if part)


LOSSES_EVERY_S = 0.5
"""How often an engine is asked for the losses so far, for which it waits for its device."""


USED_AS = {"held_out": "held-out deviance", "R": "R of the object"}
"""How well the network is used, by the name of its term, and what that is called."""


def in_words(terms: LossTerms) -> str:
    """What is shown of the losses."""
    shown = {"loss": "total", "validation": "validation_total"}
    shown |= {words: name for word, words in USED_AS.items() for name in (word, f"validation_{word}") if name in terms}
    return ", ".join(f"{word} {terms[name]:.4g}" for word, name in shown.items() if name in terms)


class Report(Protocol):
    """What a logger is told after an epoch or a sweep, the `done`-th: its row of the history."""

    @property
    def done(self) -> int: ...

    def as_row(self) -> dict[str, float]: ...


Log = Callable[[Any], None]
"""What a logger, called with (folder, run), gives as a context; called with a `Report`."""
