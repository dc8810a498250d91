"""What changes from epoch to epoch: learning rate and physics weight (specs/engine.md, Learning rate, Stages).

Both are functions of the configuration, the epoch and the losses so far, so that a run that goes on needs no more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ptycho_core.settings.training import TrainingConfig


def learning_rate(config: TrainingConfig, epoch: int, monitored: Sequence[float] = ()) -> float:
    """Learning rate of an epoch (from 1); monitored: the losses of the epochs before it, for ReduceLROnPlateau."""
    rate, done = config.learning_rate, epoch - 1
    match config.scheduler:
        case "Exponential":
            return rate * config.lr_decay**done
        case "WarmupCosine":
            if done < config.lr_warmup_epochs:
                return rate * epoch / (config.lr_warmup_epochs + 1)
            span = max(1, config.schedule_span - 1 - config.lr_warmup_epochs)
            risen = _cosine(min(1.0, (done - config.lr_warmup_epochs) / span))
            return rate * (1 - (1 - config.lr_min_ratio) * risen)
        case "MultiStage":
            return rate * (1 - (1 - config.stage_3_lr_factor) * _cosine(_stage_2_progress(config, epoch)))
        case "ReduceLROnPlateau":
            return _plateau_rate(config, monitored)
        case _:
            return rate


def physics_weight(config: TrainingConfig, epoch: int) -> float:
    """Weight of the configured diffraction losses in an epoch (from 1); 1 where there are no stages.

    It is 0 in stage 1, 1 in stage 3 and rises in between: the rest of the weight is the amplitude error's.
    """
    if not config.staged_epochs:
        return 1.0
    progress = _stage_2_progress(config, epoch)
    match config.physics_weight_schedule:
        case "linear":
            return progress
        case "exponential":
            return float(100**progress - 1) / 99  # specs/engine.md, Stages: two decades
        case _:
            return _cosine(progress)


def _stage_2_progress(config: TrainingConfig, epoch: int) -> float:
    """0 up to the end of stage 1, 1 from the begin of stage 3, rising in equal steps in the epochs between."""
    return min(1.0, max(0.0, (epoch - config.stage_1_epochs) / (config.stage_2_epochs + 1)))


def _cosine(progress: float) -> float:
    """From 0 to 1 along half a cosine."""
    return 0.5 * (1 - math.cos(math.pi * progress))


def _plateau_rate(config: TrainingConfig, monitored: Sequence[float]) -> float:
    """Times plateau_factor after more than plateau_patience epochs in a row whose loss is no better than the best."""
    rate, best, waited = config.learning_rate, None, 0
    for loss in monitored:
        better = best is None or loss < best - config.plateau_threshold * abs(best)
        best, waited = (loss, 0) if better else (best, waited + 1)
        if waited > config.plateau_patience:
            rate, waited = max(rate * config.plateau_factor, config.plateau_min_lr), 0
    return rate
