"""The three configurations that Ptychodus makes, and what it writes them into.

They are those of `ptycho_core`. Fields that Ptychodus does not offer are taken from the environment, as the command
line takes them: PTYCHO_BACKEND, PTYCHO_N_GROUPS, PTYCHO_LEARNING_RATE, PTYCHO_SEED, … (docs/configuration.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ptycho_core as config
from ptycho import window
from ptycho_core.cli.options import environment_values
from ptycho_core.legacy import update_legacy_dict as update_legacy_dict
from ptycho_core.settings.fields import from_mapping


@window.refusals()
def ModelConfig(**stated: Any) -> config.ModelConfig:
    """The published network, cnn, unless PTYCHO_ARCHITECTURE names another one. Raises ConfigurationError.

    N = 0 stands for a size that is not known yet, and is to be assigned.
    """
    values = {"architecture": "cnn", **environment_values("model"), **stated}
    if values.get("N") == 0:
        del values["N"]
    return from_mapping(config.ModelConfig, values)


@window.refusals()
def TrainingConfig(*, model: config.ModelConfig, **stated: Any) -> config.TrainingConfig:
    """neighbor_count is large enough for the groups unless the environment sets it. Raises ConfigurationError."""
    neighbor_count = max(config.TrainingConfig().neighbor_count, model.channels - 1)
    values = {"neighbor_count": neighbor_count, **environment_values("training"), **stated}
    return from_mapping(config.TrainingConfig, _without_empty_paths(values), model=model)


@window.refusals()
def InferenceConfig(*, model: config.ModelConfig, **stated: Any) -> config.InferenceConfig:
    """Raises ConfigurationError."""
    values = {**environment_values("inference"), **stated}
    return from_mapping(config.InferenceConfig, _without_empty_paths(values), model=model)


def _without_empty_paths(values: dict[str, Any]) -> dict[str, Any]:
    """Ptychodus states `Path()` for files that it gives in another way."""
    return {name: value for name, value in values.items() if value != Path()}
