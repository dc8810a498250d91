"""The loss terms of a configuration (specs/physics.md, Losses)."""

from __future__ import annotations

from ptycho_core.errors import ConfigurationError
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.training import TrainingConfig


def check_monitor(execution: ExecutionConfig, config: TrainingConfig) -> None:
    """Refuse a loss term to go by that the losses of this configuration do not have: ConfigurationError."""
    metric = execution.checkpoint_monitor_metric
    terms = reported_terms(config)
    if metric not in terms:
        name, remedy = "ExecutionConfig.checkpoint_monitor_metric", "Choose one of them, or give it a weight."
        raise ConfigurationError(name, expected=f"one of {', '.join(terms)}", received=repr(metric), remedy=remedy)


def reported_terms(config: TrainingConfig) -> tuple[str, ...]:
    """The loss terms that an epoch reports under this configuration (specs/physics.md, Losses)."""
    if config.model.model_type == "supervised":
        return ("total", "realspace_mae")
    variation = ("total_variation",) if config.realspace_weight > 0 else ()
    error = ("realspace_mae",) if config.realspace_mae_weight > 0 else ()
    return ("total", "nll", "reduced_deviance", "amplitude_mae", *variation, *error)
