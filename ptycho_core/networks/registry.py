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


def network_channels(model: ModelConfig) -> int:
    """Patterns the network sees together: the whole group when merged, otherwise one frame at a time."""
    return model.channels if model.object_big else 1


def architecture_of(model: ModelConfig) -> Architecture:
    """The architecture that a configuration names. ConfigurationError for an unknown name."""
    importlib.import_module(OURS)
    if model.architecture not in _ARCHITECTURES:
        known = ", ".join(sorted(_ARCHITECTURES))
        received = repr(model.architecture)
        remedy = f"Registered architectures: {known}."
        raise ConfigurationError(
            "ModelConfig", "architecture", expected="a known name", received=received, remedy=remedy
        )
    return _ARCHITECTURES[model.architecture]


def build_table(model: ModelConfig) -> Table:
    """The layers of `model.architecture` for this configuration.

    Raises ConfigurationError for an unknown name or N, and where the table gives other maps than N × N, one a pattern.
    """
    table = architecture_of(model)(model)
    channels = {layer.name: layer.out_channels for layer in table.layers}
    for output, name in (("amplitude", table.amplitude), ("phase", table.phase)):
        given = (channels.get(name), table.sizes(model.N).get(name))
        if given != (network_channels(model), model.N):
            owner, remedy = f"architecture {model.architecture!r}", "Correct the function that makes its table."
            expected = f"{network_channels(model)} map(s) of {model.N} × {model.N}"
            received = f"{given[0]} of {given[1]} × {given[1]}" if name in channels else f"no layer {name!r}"
            raise ConfigurationError(owner, output, expected=expected, received=received, remedy=remedy)
    return table
