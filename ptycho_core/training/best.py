"""Which epochs were the best, and the models that are kept of them (specs/engine.md, Training)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np

from ptycho_core.engine.protocol import EngineInfo
from ptycho_core.errors import TrainingError
from ptycho_core.models.checkpoint import Checkpoint
from ptycho_core.models.model import Model
from ptycho_core.models.seen import Seen
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.training.schedules import physics_weight
from ptycho_core.vocabulary import AUTO, TOTAL, LossTerms, Weights


class Best:
    """The `checkpoint_save_top_k` best models so far, `models`, the best first.

    history: the run's own list, which every model shares. tested: whether a test scan chooses. judged_by: the term that
    does, where the network is judged as it will be used. seen: what is trained on, the first scan first. scores: the
    monitored value of every epoch so far, lower is better. untrained: that of the network before its first epoch, where
    it is judged.
    """

    def __init__(
        self,
        config: TrainingConfig,
        execution: ExecutionConfig,
        *,
        engine: EngineInfo,
        history: list[dict[str, float]],
        tested: bool,
        judged_by: str | None,
        seen: tuple[Seen, ...],
        resume: Checkpoint | None = None,
    ) -> None:
        self._config, self._execution = config, execution
        self._engine, self._history, self._tested, self._judged_by = engine, history, tested, judged_by
        self._trained_on: dict[str, Any] = {"object_pixel_m": seen[0].object_pixel_m, "others": seen[1:]}
        self.untrained = math.inf
        self.scores = [] if resume is None else list(resume.scores)
        self.models: tuple[Model, ...] = tuple(
            attrs.evolve(model, config=config, history=history, backend=model.engine.name, **self._trained_on)
            for model in (() if resume is None else resume.best)
        )

    def begin(self, value: float, weights: Weights) -> None:
        """Epoch 0: the untrained network, the best until an epoch is better."""
        self.untrained = value
        if not self.scores:
            self.models = (self._snapshot(0, weights),)

    def rank(
        self, epoch: int, train: LossTerms, monitored: LossTerms, weights: Callable[[], Weights]
    ) -> tuple[bool, bool]:
        """Keep the weights if they are among the best: (whether they are the best, whether they are kept).

        weights: gives a copy of those of a model; asked only where they are kept. Raises TrainingError where a loss, or
        a weight that would be kept, is not finite.
        """
        stated: str = self._execution.checkpoint_monitor_metric
        metric = self._judged_by or (TOTAL if stated == AUTO else stated)
        value = monitored[metric]
        if not math.isfinite(train["total"]) or not math.isfinite(value):
            raise diverged(f"loss of epoch {epoch}", f"train {train['total']}, monitored {metric} {value}")
        self.scores.append(value if self._execution.checkpoint_mode == "min" else -value)
        models = {model.best_epoch: model for model in self.models}
        best = sorted([*models, epoch], key=self._rank)[: self._execution.checkpoint_save_top_k]
        if epoch in best:
            models[epoch] = self._snapshot(epoch, weights())
        self.models = tuple(models[each] for each in best)
        return best[0] == epoch, epoch in best

    def _rank(self, epoch: int) -> tuple[float, float, int]:
        """By what an epoch is ranked, the lowest first."""
        # Under another physics weight the training loss means another thing: what came under the last one is best.
        weight = 1.0 if self._tested or self._judged_by is not None else physics_weight(self._config, epoch)
        return -weight, self.scores[epoch - 1] if epoch else self.untrained, epoch

    def _snapshot(self, epoch: int, weights: Weights) -> Model:
        if any(not np.isfinite(array).all() for array in weights.values()):
            raise diverged(f"weights after epoch {epoch}", "NaN or infinity")  # its last step is in no loss yet
        return Model(
            config=self._config,
            weights=weights,
            history=self._history,
            engine=self._engine,
            best_epoch=epoch,
            backend=self._engine.name,
            **self._trained_on,
        )


def diverged(what: str, received: str) -> TrainingError:
    remedy = "Lower learning_rate or set gradient_clip_val."
    return TrainingError("training", what, expected="finite numbers", received=received, remedy=remedy)
