"""What a command refuses before it opens a scan: all that `prepare` checks, and the places that it would write to.

It imports no reader and no framework: a misspelt setting is refused at once, whatever the size of the scan.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ptycho_core.engine.registry import find_engine
from ptycho_core.errors import MissingExtraError
from ptycho_core.reconstruction import prepare as reconstruction
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.inference import InferenceConfig
from ptycho_core.settings.prior import PriorConfig
from ptycho_core.settings.sections import existing_file
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.storage.files import check_folder
from ptycho_core.storage.keeping import check_folder_is_free
from ptycho_core.training import prepare as training

TRAINED = ("wts.h5.zip", "checkpoint.h5.zip")
RECONSTRUCTED = ("reconstruction.npz",)
LEARNED = ("prior.h5.zip", "teaching.h5.zip")
SOLVED = ("reconstruction.npz", "solving.h5.zip")
"""What a run leaves that another one would replace."""

if TYPE_CHECKING:
    from ptycho_core.engine.protocol import Engine
    from ptycho_core.models.checkpoint import Checkpoint
    from ptycho_core.models.model import Model


def prepare_training(
    config: TrainingConfig,
    execution: ExecutionConfig,
    *,
    resume: Checkpoint | None = None,
    sized: bool = True,
    overwrite: bool = True,
) -> training.Prepared:
    """For a training into `config.output_dir`; arguments and errors are those of `prepare`.

    overwrite: whether another run's results in the folder may be replaced.

    Also raises MissingExtraError for a logger that is not installed and DataError for a folder that cannot be written.
    """
    prepared = training.prepare(config, execution=execution, resume=resume, sized=sized)
    training.check_logger(execution.logger)
    existing_file(config, "test_data_file")
    check_folder(config.output_dir)
    check_folder_is_free(config.output_dir, TRAINED, overwrite=overwrite or resume is not None)
    return prepared


def prepare_solving(
    config: SolveConfig, execution: ExecutionConfig, formats: Sequence[str] = (), *, overwrite: bool = True
) -> Callable[[], Engine]:
    """For a solve into `config.output_dir`. Raises ConfigurationError, BackendError, MissingExtraError or DataError."""
    config.validate()
    load_engine = find_engine(config.backend)
    if config.prior not in ("auto", "none"):
        from ptycho_core.solving.priors import check_prior  # with numpy

        check_prior(config.prior)
    training.check_logger(execution.logger)
    check_image_formats(formats)
    check_folder(config.output_dir)
    check_folder_is_free(config.output_dir, SOLVED, overwrite=overwrite)
    return load_engine


def prepare_prior(config: PriorConfig, *, overwrite: bool = True) -> None:
    """For a prior in `config.output_dir`. Raises ConfigurationError, BackendError or DataError."""
    config.validate()
    find_engine(config.backend)
    check_folder(config.output_dir)
    check_folder_is_free(config.output_dir, LEARNED, overwrite=overwrite)


def check_image_formats(formats: Sequence[str]) -> None:
    """MissingExtraError where a format needs a package that cannot be found; nothing is imported."""
    if "tiff" in formats and importlib.util.find_spec("tifffile") is None:
        raise MissingExtraError.of("TIFF", "tifffile", "tiff", setting="write")


def prepare_reconstruction(model: Model, config: InferenceConfig, *, overwrite: bool = True) -> Callable[[], Engine]:
    """For a reconstruction into `config.output_dir`. Raises ConfigurationError, BackendError or DataError."""
    load_engine = reconstruction.prepare(model, config)
    check_folder(config.output_dir)
    check_folder_is_free(config.output_dir, RECONSTRUCTED, overwrite=overwrite)
    return load_engine
