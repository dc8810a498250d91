"""Where the losses of a run go while it trains or solves: `ExecutionConfig.logger`. A model loads without it."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ptycho_core.models.container import history_csv
from ptycho_core.models.flat import to_legacy_dict
from ptycho_core.settings.fields import to_mapping
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.storage.files import write_text
from ptycho_core.training.prepare import LOGGERS, PACKAGES, check_logger
from ptycho_core.training.reports import EpochReport, Log, LoggedRun, Report

EXPERIMENT = "ptycho-core"


@contextmanager
def logger(name: str, folder: Path, run: LoggedRun) -> Iterator[Log]:
    """A function to call after every epoch or sweep of `run`; closed with the block, whatever ends it.

    csv: `history.csv` in `folder`, of a solve `sweeps.csv`, whole after every one. tensorboard: an events file in
    `folder/tensorboard`.
    mlflow: a run of the experiment "ptycho-core" at MLFLOW_TRACKING_URI, or in `folder/mlflow.db` where that is unset.
    Raises MissingExtraError where the logger's package is not installed, ConfigurationError for an unknown one.
    """
    check_logger(name)
    with LOGGERS.load(name)(folder, run) as log:
        yield log


@contextmanager
def none(folder: Path, run: LoggedRun) -> Iterator[Log]:
    yield lambda report: None


@contextmanager
def csv(folder: Path, run: LoggedRun) -> Iterator[Log]:
    file = folder / ("sweeps.csv" if isinstance(run.config, SolveConfig) else "history.csv")
    if run.history:  # a run that goes on: the file may be of an epoch that is done again
        write_text(file, history_csv(run.history))
    yield lambda report: write_text(file, history_csv(run.history))


@contextmanager
def tensorboard(folder: Path, run: LoggedRun) -> Iterator[Log]:
    writer = _package("tensorboard").SummaryWriter(str(folder / "tensorboard"))

    def log(report: Report) -> None:
        for name, value in scalars(report).items():
            writer.add_scalar(name, value, report.done)
        writer.flush()

    try:
        writer.add_text("configuration", "\n".join(f"    {key} = {value}" for key, value in _parameters(run).items()))
        yield log
    finally:
        writer.close()


@contextmanager
def mlflow(folder: Path, run: LoggedRun) -> Iterator[Log]:
    package = _package("mlflow")
    # A client of its own: the package's module-level functions keep the current run in a global.
    place = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder.absolute() / 'mlflow.db'}")
    client = package.MlflowClient(tracking_uri=place)
    found = client.get_experiment_by_name(EXPERIMENT)
    experiment = client.create_experiment(EXPERIMENT) if found is None else found.experiment_id
    identity = client.create_run(experiment, run_name=folder.absolute().name).info.run_id
    for key, value in _parameters(run).items():
        client.log_param(identity, key, value)

    def log(report: Report) -> None:
        for name, value in scalars(report).items():
            client.log_metric(identity, name, value, step=report.done)

    try:
        yield log
    except BaseException:
        client.set_terminated(identity, "FAILED")
        raise
    client.set_terminated(identity, "FINISHED")


def scalars(report: Report) -> dict[str, float]:
    """What a tracker shows of an epoch: loss terms as `train/<name>` and `validation/<name>`, rate and speed.

    Of a sweep, its row of the history.
    """
    if not isinstance(report, EpochReport):
        return {name: value for name, value in report.as_row().items() if name != "sweep"}
    terms = {f"train/{name}": value for name, value in report.train.items()}
    terms |= {f"validation/{name}": value for name, value in (report.validation or {}).items()}
    return {
        **terms,
        "learning_rate": report.learning_rate,
        "physics_weight": report.physics_weight,
        "patterns_per_second": report.patterns_per_second,
    }


def _parameters(run: LoggedRun) -> dict[str, Any]:
    config = to_mapping(run.config) if isinstance(run.config, SolveConfig) else to_legacy_dict(run.config)
    return {**config, "engine": f"{run.engine.name} ({run.engine.version})"}


def _package(name: str) -> ModuleType:
    check_logger(name)
    return importlib.import_module(PACKAGES[name])
