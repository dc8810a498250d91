"""Architectures by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from ptycho_core.errors import ConfigurationError
from ptycho_core.networks.table import Table
from ptycho_core.settings.model import ModelConfig

Architecture = Callable[[ModelConfig], Table]
_ARCHITECTURES: dict[str, Architecture] = {}
OURS = "ptycho_core.networks.cnn"
"""The module that registers our own."""


def register_architecture(name: str) -> Callable[[Architecture], Architecture]:
    """Decorator: makes a network available as `ModelConfig(architecture=name)` in every engine."""

    def register(function: Architecture) -> Architecture:
        if name in _ARCHITECTURES:
            raise ValueError(f"architecture {name!r} is registered already")
        _ARCHITECTURES[name] = function
        return function

    return register


def build_table(model: ModelConfig) -> Table:
    """The layers of `model.architecture` for this configuration; ConfigurationError for an unknown name or N."""
    importlib.import_module(OURS)
    if model.architecture not in _ARCHITECTURES:
        known = ", ".join(sorted(_ARCHITECTURES))
        received = repr(model.architecture)
        remedy = f"Registered architectures: {known}."
        raise ConfigurationError("ModelConfig.architecture", expected="a known name", received=received, remedy=remedy)
    return _ARCHITECTURES[model.architecture](model)
