"""The one API of an application that embeds this package (specs/embedding.md).

    for progress in embedding.train(embedding.ScanFile(path="train.npz"), "model.zip", embedding.make_config(
        "training", {"nepochs": 20, "backend": "torch"})):
        print(progress.epoch, progress.goal, progress.train["total"])

    for progress in embedding.reconstruct(arrays, "model.zip"):
        draw(progress.object_field)  # on the grid of the arrays

Both are iterators; `close()`, or leaving the loop and dropping the iterator, stops the work. It is done in a child
process that is spawned for the call and ends with it: this process imports no deep-learning framework. As with every
spawned process, the script that calls must be importable: its top level under `if __name__ == "__main__":`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import attrs

from ptycho_core.embedding.child import in_child, in_process
from ptycho_core.embedding.data import ObjectGrid, ScanArrays, ScanFile
from ptycho_core.embedding.jobs import (
    ReconstructionJob,
    ReconstructionProgress,
    SolvingJob,
    SolvingProgress,
    Source,
    TrainingJob,
    TrainingProgress,
)
from ptycho_core.embedding.settings import Setting, describe_settings, make_config
from ptycho_core.engine.registry import FRAMEWORKS, is_installed, registered_engines
from ptycho_core.formats.convert import save_scan
from ptycho_core.models.model import ARCHIVE_NAME, Model, load_model
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.inference import InferenceConfig
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.storage.files import PARTIAL, make_folder

__all__ = [
    "MODEL_FILE_EXTENSION",
    "MODEL_FILE_FILTER",
    "NETWORKS",
    "TRAINING_DATA_FILE_EXTENSION",
    "TRAINING_DATA_FILE_FILTER",
    "Backend",
    "ExecutionConfig",
    "InferenceConfig",
    "Model",
    "ObjectGrid",
    "ReconstructionProgress",
    "ScanArrays",
    "ScanFile",
    "Setting",
    "SolveConfig",
    "SolvingProgress",
    "TrainingConfig",
    "TrainingProgress",
    "backends",
    "describe_settings",
    "export_training_data",
    "load_model",
    "make_config",
    "reconstruct",
    "solve",
    "train",
]

MODEL_FILE_EXTENSION = ".zip"
MODEL_FILE_FILTER = "PtychoPINN models (*.zip)"
TRAINING_DATA_FILE_EXTENSION = ".npz"
TRAINING_DATA_FILE_FILTER = "PtychoPINN training data (*.npz)"
SOLVER = "solve"
"""What to call the solver in a list of algorithms."""
NETWORKS = {"pinn": "PINN", "supervised": "Supervised"}
"""`model_type` → what to call it in a list of algorithms."""
IDLE_SECONDS = 0.5
"""A reconstruction yields, and a training asks for a stop, at least that often: whoever wants one is heard soon."""


@attrs.frozen
class Backend:
    """An engine: its name as a setting, its framework, and whether that is installed; nothing was imported to tell."""

    name: str
    framework: str
    available: bool


def backends() -> tuple[Backend, ...]:
    """Every registered engine."""
    return tuple(
        Backend(name, FRAMEWORKS[name][0] if name in FRAMEWORKS else name, is_installed(name))
        for name in registered_engines()
    )


def _never() -> bool:
    return False


def train(
    data: Source | str | os.PathLike[str],
    model_path: str | os.PathLike[str],
    config: TrainingConfig | None = None,
    *,
    test: Source | str | os.PathLike[str] | None = None,
    execution: ExecutionConfig | None = None,
    should_stop: Callable[[], bool] = _never,
    child: bool = True,
) -> Generator[TrainingProgress]:
    """Train a network: one item after every epoch; the best model so far is then at `model_path`.

    data: arrays, a file, or a scan; a path is a file that says everything of itself. test: a second scan, whose loss
    chooses the best model. model_path: a file, or a folder for `wts.h5.zip`; made, or replaced after the first epoch.
    config: its `model.N` is taken from the data. should_stop: asked at least twice a second, also in the midst of an
    epoch; True ends the work as closing does. child: False works in this process.
    Closing the iterator ends the child at once, in the midst of an epoch, and leaves the best model of those that
    ended. Raises ConfigurationError, DataError, BackendError or TrainingError with the message of the work, and
    WorkerError where the child dies; a model that was saved before stays.
    """
    config = attrs.evolve(config) if config is not None else TrainingConfig()
    config.validate()
    target = _model_file(model_path)
    job = TrainingJob(
        data=_source(data),
        test=None if test is None else _source(test),
        config=config,
        execution=execution or ExecutionConfig(),
        model_path=target,
    )
    return _trained(job, should_stop, child)


def _trained(job: TrainingJob, should_stop: Callable[[], bool], child: bool) -> Generator[TrainingProgress]:
    make_folder(job.model_path.parent)
    if not child:
        yield from in_process(job, should_stop)
        return
    try:
        with contextlib.closing(in_child(job, idle_seconds=IDLE_SECONDS)) as steps:
            for progress in steps:
                if progress is not None:
                    yield progress
                if should_stop():
                    return
    finally:
        for part in job.model_path.parent.glob(f".{job.model_path.name}.*{PARTIAL}"):
            part.unlink(missing_ok=True)  # of a child that was ended while it wrote


def reconstruct(
    data: ScanArrays,
    model_path: str | os.PathLike[str],
    config: InferenceConfig | None = None,
    *,
    execution: ExecutionConfig | None = None,
    child: bool = True,
) -> Generator[ReconstructionProgress]:
    """Reconstruct an object: an item after every batch or so, each with the object so far on the grid of the data.

    The first item comes at once, with nothing done; while the child starts or is long at a batch, the last item comes
    again twice a second, and partial objects are made no more often than is cheap. The last item, `done == goal`,
    has a summary. Closing the iterator ends the child at once. model_path: the file, or the folder of `wts.h5.zip`.
    Raises ArchiveError, ConfigurationError, DataError or BackendError with the message of the work, and WorkerError
    where the child dies.
    """
    config = attrs.evolve(config) if config is not None else InferenceConfig()
    config.validate()
    path = Path(model_path)
    job = ReconstructionJob(
        data=data,
        model_path=path / ARCHIVE_NAME if path.is_dir() else path,
        config=config,
        execution=execution or ExecutionConfig(),
    )
    return _reconstructed(job, child)


def _reconstructed(job: Any, child: bool) -> Generator[Any]:
    """The items of a ReconstructionJob or SolvingJob, the last one again where the work is long at the next."""
    last = job.blank()
    yield last
    with contextlib.closing(in_child(job, idle_seconds=IDLE_SECONDS) if child else in_process(job)) as steps:
        for progress in steps:
            last = last if progress is None else progress
            yield last


def solve(
    data: ScanArrays,
    config: SolveConfig | None = None,
    *,
    execution: ExecutionConfig | None = None,
    child: bool = True,
) -> Generator[SolvingProgress]:
    """Solve a scan without a network: an item after every sweep, each with the object so far on the grid of the data.

    As `reconstruct` otherwise; the last item has the probe and the positions as they were refined, and a summary.
    config: its data_file, output_dir and start belong to the command line. Raises ConfigurationError, DataError,
    BackendError or TrainingError with the message of the work, and WorkerError where the child dies.
    """
    config = attrs.evolve(config) if config is not None else SolveConfig()
    config.validate()
    return _reconstructed(SolvingJob(data=data, config=config, execution=execution or ExecutionConfig()), child)


def export_training_data(path: str | os.PathLike[str], data: Source) -> None:
    """Write an NPZ file that `train` takes, here or elsewhere: the NPZ contract, its measurement stated.

    Amplitudes, positions in pixels, probe, bad pixels, object and metadata (specs/data.md, NPZ). Raises DataError.
    """
    save_scan(path, data if isinstance(data, Scan) else data.scan(), format="npz")


def _source(data: Source | str | os.PathLike[str]) -> Source:
    return ScanFile(path=Path(data)) if isinstance(data, (str, os.PathLike)) else data


def _model_file(path: str | os.PathLike[str]) -> Path:
    """As `Model.save` takes a path: without an ending, or where there is one, a folder."""
    target = Path(path)
    return target / ARCHIVE_NAME if target.is_dir() or target.suffix == "" else target
