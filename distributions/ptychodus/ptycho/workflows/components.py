"""The entry points of `ptycho_core.legacy`, with what Ptychodus leaves to the process: parameters and trained model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import attrs

from ptycho import model_manager, params, window
from ptycho.raw_data import RawData
from ptycho_core import legacy
from ptycho_core.cli.options import environment_values
from ptycho_core.engine.registry import backend_for
from ptycho_core.legacy import save_outputs as save_outputs
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.fields import from_mapping
from ptycho_core.settings.sources import warn_of_unknown_variables
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.training.reports import EpochReport

log = logging.getLogger("ptychopinn")


def load_inference_bundle(directory: str | Path) -> tuple[model_manager.Bundle, dict[str, Any]]:
    """The model in a folder and its flat parameters, which replace those in `params.cfg`. Raises ArchiveError."""
    warn_of_unknown_variables()
    with window.refusals():
        model, parameters = legacy.load_inference_bundle(directory)
    engine = environment_values("inference").get("backend", "auto")
    window.introduce(
        f"reconstructing with the model of epoch {model.best_epoch} in {directory}",
        backend_for(model.engine.name) if engine == "auto" else engine,
    )
    params.cfg.update(parameters)
    return model_manager.Bundle(model), parameters


def run_cdi_example(
    train_data: RawData, test_data: RawData | None, config: TrainingConfig
) -> tuple[Any, Any, dict[str, Any]]:
    """Train, and keep the model for `ptycho.model_manager.save`: (None, None, results). Raises what `train` raises.

    An epoch has n_groups groups, but unless the environment sets their number, at most one for every frame.
    """
    warn_of_unknown_variables()
    if "n_groups" not in environment_values("training"):
        frames = len(train_data) if config.n_subsample is None else config.n_subsample
        config = attrs.evolve(config, n_groups=min(config.n_groups, frames))
    with window.refusals():
        window.introduce(f"{config.nepochs} epochs", config.backend)
        amplitude, phase, results = legacy.run_cdi_example(
            train_data,
            test_data,
            config,
            execution=from_mapping(ExecutionConfig, environment_values("execution")),
            callbacks=[_log_epoch],
        )
    log.info("trained with %s; the best epoch is %d. Next: Infer.", results["backend"], results["best_epoch"])
    model_manager.keep(results["model"])
    return amplitude, phase, results


def _log_epoch(report: EpochReport) -> None:
    monitored = report.train if report.validation is None else report.validation
    log.info("epoch %d/%d: loss %.4g", report.epoch, report.nepochs, monitored["total"])
    window.answer_epoch(report.epoch)
