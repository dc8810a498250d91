"""The configuration classes by the name of their table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ptycho_core.errors import ConfigurationError
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.inference import InferenceConfig
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.prior import PriorConfig
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.settings.training import TrainingConfig


def existing_file(config: Any, field: str) -> Path | None:
    """The path in a field, None where it is unset; ConfigurationError where there is no such file.

    Looked at when a run starts, not when a configuration is made: that of an archive names files of another machine.
    """
    path: Path | None = getattr(config, field)
    if path is not None and not path.exists():
        raise ConfigurationError(
            type(config).__name__, field, expected="an existing file", received=path, remedy="Check the path."
        )
    return path


SECTIONS: dict[str, type[Any]] = {
    "model": ModelConfig,
    "training": TrainingConfig,
    "inference": InferenceConfig,
    "solving": SolveConfig,
    "prior": PriorConfig,
    "execution": ExecutionConfig,
    "reading": ReadOptions,
}
"""The tables of a configuration file, and the class that each one fills."""
