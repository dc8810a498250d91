"""Architectures by name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

from ptycho_core.errors import ConfigurationError
from ptycho_core.networks.table import Table
from ptycho_core.registry import Registry, faults_of
from ptycho_core.settings.model import GENERATORS, ModelConfig

Architecture = Callable[[ModelConfig], Table]
A = TypeVar("A", bound=Architecture)

ARCHITECTURES: Registry[Architecture] = Registry(
    "architecture",
    ("ModelConfig", "architecture"),
    group="ptycho_core.architectures",
    ours={name: f"ptycho_core.networks.cnn:{name}" for name in ("cnn", "published_torch")}
    | {"canvas": "ptycho_core.networks.canvas:canvas"}
    | {name: f"ptycho_core.networks.generators:{name}" for name in GENERATORS},
)


def register_architecture(name: str, *, replace: bool = False) -> Callable[[A], A]:
    """Decorator: makes a network available as `ModelConfig(architecture=name)` in every engine.

    In a package of its own it may be an entry point of the group `ptycho_core.architectures` instead. Defined again,
    as in a notebook, it takes the place of itself. ConfigurationError for a name that is taken, unless `replace`.
    """
    return ARCHITECTURES.register(name, replace=replace)


def reads(*fields: str) -> Callable[[A], A]:
    """Decorator: the fields of `ModelConfig` that an architecture reads; one that is set and not read is warned of.

    Left out, nothing is known of that, and nothing is warned of.
    """

    def declare(architecture: A) -> A:
        architecture.reads = fields  # type: ignore[attr-defined]
        return architecture

    return declare


def fields_read(model: ModelConfig) -> tuple[str, ...] | None:
    """What the architecture declares that it reads of the configuration; None where it does not say."""
    declared: tuple[str, ...] | None = getattr(architecture_of(model), "reads", None)
    return declared


def network_channels(model: ModelConfig) -> int:
    """Patterns the network sees together: the whole group when merged, otherwise one frame at a time."""
    return model.channels if model.object_big else 1


def architecture_of(model: ModelConfig) -> Architecture:
    """The architecture that a configuration names. ConfigurationError for an unknown name, or one that is broken."""
    if ":" in model.architecture:
        from ptycho_core.networks.own import own_table  # which registers its ops

        return functools.partial(own_table, model.architecture)
    return ARCHITECTURES.load(model.architecture)


def module_of(model: ModelConfig) -> str | None:
    """The module that registers an architecture; None for ours and for an import path, which says it."""
    if ARCHITECTURES.is_ours(model.architecture) or ":" in model.architecture:
        return None
    module: str | None = getattr(architecture_of(model), "__module__", None)
    return module


def check_known(model: ModelConfig, module: object) -> None:
    """ConfigurationError, which names the module to import, where nobody has registered the architecture of an archive.

    module: what the archive says that it was of.
    """
    if isinstance(module, str) and ":" not in model.architecture and ARCHITECTURES.find(model.architecture) is None:
        received = f"{model.architecture!r}, which the module {module} registers"
        remedy = f"Import {module} first, or pass --import {module}, or the .py file of that name."
        expected = f"one of {', '.join(ARCHITECTURES.names())}"
        raise ConfigurationError("ModelConfig", "architecture", expected=expected, received=received, remedy=remedy)


def build_table(model: ModelConfig) -> Table:
    """The layers of `model.architecture` for this configuration.

    Raises ConfigurationError for an unknown name or N, and where the table gives other maps than N × N, one a pattern,
    or a canvas that is not of two.
    """
    table = _table_of(model)
    if table.canvas:
        _check_canvas(table, model)
        return table
    channels = {layer.name: layer.out_channels for layer in table.layers}
    for output, name in zip(
        ("real", "imaginary") if table.real else ("amplitude", "phase"), table.outputs, strict=True
    ):
        given = (channels.get(name), table.sizes(model.N).get(name))
        if given != (network_channels(model), model.N):
            owner, remedy = f"architecture {model.architecture!r}", "Correct the function that makes its table."
            expected = f"{network_channels(model)} map(s) of {model.N} × {model.N}"
            received = f"{given[0]} of {given[1]} × {given[1]}" if name in channels else f"no layer {name!r}"
            raise ConfigurationError(owner, output, expected=expected, received=received, remedy=remedy)
    return table


def _table_of(model: ModelConfig) -> Table:
    if ARCHITECTURES.is_ours(model.architecture):
        return architecture_of(model)(model)
    what, expected = f"architecture {model.architecture!r}", "a function that returns a table of layers"
    with faults_of(what, expected, "architecture"):
        table: object = architecture_of(model)(model)
    if not isinstance(table, Table):
        remedy, received = "Return what TableBuilder.finish gives.", type(table).__name__
        raise ConfigurationError(what, expected=expected, received=received, remedy=remedy, setting="architecture")
    return table


def _check_canvas(table: Table, model: ModelConfig) -> None:
    if model.N % 2:
        remedy = f"Crop the patterns to {model.N - 1} or pad them to {model.N + 1} pixels (--crop, --pad)."
        raise ConfigurationError("ModelConfig", "N", expected="an even number", received=model.N, remedy=remedy)
    channels = {layer.name: layer.out_channels for layer in table.layers}
    given = (table.in_channels, channels.get(table.canvas))
    if given != (2, 2):
        owner, remedy = f"architecture {model.architecture!r}", "Correct the function that makes its table."
        expected = "an input and an output of two maps, real and imaginary part"
        raise ConfigurationError(owner, "canvas", expected=expected, received=given, remedy=remedy)
