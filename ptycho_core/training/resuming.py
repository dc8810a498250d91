"""What of a run's configuration may be changed when it goes on, and what may not (specs/archive.md, Checkpoints)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from ptycho_core.errors import ConfigurationError
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.fields import fields_of
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.training.schedules import learning_rate, physics_weight

if TYPE_CHECKING:
    from ptycho_core.models.checkpoint import Checkpoint

FREE = (
    "backend",
    "output_dir",
    "train_data_file",
    "test_data_file",
    "early_stop_patience",
    "nepochs",
    "schedule_epochs",
)
"""Fields of TrainingConfig; the last two where the epochs that are done would have been the same."""
FIXED = ("precision", "checkpoint_save_top_k", "checkpoint_monitor_metric", "checkpoint_mode")
"""Fields of ExecutionConfig: the others do not change what is computed."""


def check_continues(checkpoint: Checkpoint, config: TrainingConfig, execution: ExecutionConfig) -> None:
    """Refuse what would make another run of it: ConfigurationError naming the field."""
    for section, asked in {"model": config.model, "training": config, "execution": execution}.items():
        check_section_continues(checkpoint, section, asked)


def check_section_continues(checkpoint: Checkpoint, section: str, asked: Any) -> None:
    """The same for the configuration of one section."""
    match section:
        case "model":
            _check_equal(checkpoint.config.model, asked, tuple(fields_of(type(asked))))
        case "training":
            _check_equal(checkpoint.config, asked, tuple(name for name in fields_of(type(asked)) if name not in FREE))
            _check_epochs(checkpoint, asked)
        case "execution":
            _check_equal(checkpoint.execution, asked, FIXED)
        case "reading":
            pass  # of the scans the fingerprints tell
        case _:
            raise AssertionError(section)


def with_its_schedule(begun: TrainingConfig, config: TrainingConfig) -> TrainingConfig:
    """The configuration with the schedule that the run began with, where another number of epochs would change it."""
    if config.nepochs == begun.nepochs or config.schedule_epochs is not None or not config.is_scheduled:
        return config
    return attrs.evolve(config, schedule_epochs=begun.schedule_span)


def with_its_groups(begun: TrainingConfig, config: TrainingConfig) -> TrainingConfig:
    """The configuration with groups of the size that the run began with, where none is stated."""
    if config.model.group_size is not None or config.model.gridsize != 1:
        return config
    return attrs.evolve(config, model=attrs.evolve(config.model, group_size=begun.model.group_size))


def after_its_schedule(config: TrainingConfig) -> str | None:
    """What the epochs after the end of a schedule have, as a sentence; None where there are none."""
    last = config.schedule_epochs
    if last is None or last >= config.nepochs:
        return None
    what = ["the losses of stage 3"] if config.staged_epochs else []
    if config.scheduler in ("WarmupCosine", "MultiStage"):
        what.insert(0, f"the learning rate {learning_rate(config, last + 1):.3g}")
    return f"the schedule spans {last} epochs: those after it have {' and '.join(what)}"


def _check_equal(begun: Any, asked: Any, names: tuple[str, ...]) -> None:
    for name in names:
        before, now = getattr(begun, name), getattr(asked, name)
        if now != before:
            expected = f"{'nothing' if before is None else before}, as the run began"
            remedy = "Leave it as it was, or start a new run."
            raise ConfigurationError(type(begun).__name__, name, expected=expected, received=now, remedy=remedy)


def _check_epochs(checkpoint: Checkpoint, config: TrainingConfig) -> None:
    """The run must be the one that it would have been with this number of epochs."""
    begun, done = checkpoint.config, checkpoint.epoch
    if (config.nepochs, config.schedule_epochs) == (begun.nepochs, begun.schedule_epochs):
        return
    if config.nepochs < done:
        expected, remedy = f"at least {done}, the epochs that are done", "Raise it, or start a new run."
        raise ConfigurationError("TrainingConfig", "nepochs", expected=expected, received=config.nepochs, remedy=remedy)
    for epoch in range(1, done + 1):
        scores = checkpoint.scores[: epoch - 1]
        what = None
        if physics_weight(config, epoch) != physics_weight(begun, epoch):
            what = "the stages"
        elif learning_rate(config, epoch, scores) != learning_rate(begun, epoch, scores):
            what = f"scheduler = {begun.scheduler}"
        if what is not None:
            expected = f"{begun.schedule_span}, as the run began: with {what}, epoch {epoch} would have been another"
            remedy = "Leave it, or start a new run."
            raise ConfigurationError(
                "TrainingConfig", "schedule_epochs", expected=expected, received=config.schedule_span, remedy=remedy
            )
