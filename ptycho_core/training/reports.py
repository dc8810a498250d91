"""What a training run tells of itself: after an epoch, and before a batch."""

from __future__ import annotations

import attrs

from ptycho_core.vocabulary import LossTerms


@attrs.frozen
class EpochReport:
    """What one epoch did. `epoch` counts from 1; loss terms are means over the epoch's groups.

    physics_weight: the part of the configured diffraction losses in the training total. is_best: no epoch before was
    better; is_kept: it is among the `checkpoint_save_top_k` best.
    """

    epoch: int
    nepochs: int
    learning_rate: float
    physics_weight: float
    train: LossTerms
    validation: LossTerms | None
    is_best: bool
    is_kept: bool
    seconds: float
    patterns_per_second: float

    def as_row(self) -> dict[str, float]:
        """One flat row of the history: training terms by name, validation terms with the prefix `validation_`."""
        row = {"epoch": float(self.epoch), "learning_rate": self.learning_rate, **self.train}
        row["physics_weight"] = self.physics_weight
        row |= {f"validation_{name}": value for name, value in (self.validation or {}).items()}
        return row | {"seconds": self.seconds}


@attrs.frozen
class Progress:
    """Within an epoch, before a batch is handed to the engine: `patterns` of the epoch are done."""

    epoch: int
    nepochs: int
    batch: int
    batches: int
    patterns: int
