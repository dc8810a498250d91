"""A network that a framework's own module is, by its import path (specs/model.md, Networks of one framework).

`architecture = "package.module:factory"`: the factory is called with a `ModelConfig` and gives a torch.nn.Module or a
keras.Model, which is then a table of one layer. Nothing of either framework is imported here: the module of the factory
does that.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import ConfigurationError, PtychoError
from ptycho_core.networks.ops import Layer, Shape, register_op
from ptycho_core.networks.table import INPUT, Table, TableBuilder
from ptycho_core.registry import faults_of
from ptycho_core.settings.model import ModelConfig

TORCH, KERAS = "torch_module", "keras_model"
NETWORK = "a torch.nn.Module or a keras.Model"
LAYER = "network"
"""Name of the layer: weights are `network/<own name>`."""


@attrs.frozen(eq=False, repr=False)
class OwnNetwork:
    """What a factory gave. initial: own name → values that a training begins with."""

    place: str
    module: Any
    initial: Mapping[str, NDArray[np.floating]]

    def __repr__(self) -> str:
        return f"OwnNetwork({self.place!r}, {id(self.module):#x})"


class _Initial(Mapping[str, Any]):
    """Every parameter begins with what its module has."""

    def __getitem__(self, parameter: str) -> Callable[[Layer, Shape, Any], Any]:
        return lambda layer, shape, rng: layer.settings["own"].initial[parameter]

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _shapes(layer: Layer) -> dict[str, Shape]:
    return {name: tuple(array.shape) for name, array in layer.settings["own"].initial.items()}


SHARED: dict[str, Any] = {"settings": {"own": OwnNetwork}, "parameters": _shapes, "initial": _Initial()}
register_op(
    TORCH,
    "a torch.nn.Module of your own, maps (B, C, H, W), with its own parameters",
    out_channels=None,
    torch="ptycho_core_torch.own:run_module",
    **SHARED,
)
register_op(
    KERAS,
    "a keras.Model of your own, maps (B, H, W, C), with its own parameters",
    out_channels=None,
    tensorflow="ptycho_core_tensorflow.own:run_model",
    **SHARED,
)


def own_table(place: str, model: ModelConfig) -> Table:
    """The table of what the factory at `place` gives. ConfigurationError where that is no network."""
    own, op = _made(_factory(place), place, attrs.astuple(model), _Configured(model))
    channels = model.channels if model.object_big else 1
    table = TableBuilder(channels)
    output = table.op(LAYER, op, INPUT, out_channels=2 * channels, own=own)
    amplitude = table.channels("amplitude", output, 0, channels)
    return table.finish(amplitude=amplitude, phase=table.channels("phase", output, channels, 0))


@attrs.frozen(eq=False)
class _Configured:
    """A configuration that a cache does not look at: its values stand beside it."""

    model: ModelConfig

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Configured)

    def __hash__(self) -> int:
        return 0


def _refused(place: str, expected: str, received: str, remedy: str) -> ConfigurationError:
    source = f"architecture {place!r}"
    return ConfigurationError(source, expected=expected, received=received, remedy=remedy, setting="architecture")


def _factory(place: str) -> Callable[[ModelConfig], Any]:
    module, _, attribute = place.partition(":")
    try:
        factory: Callable[[ModelConfig], Any] = getattr(importlib.import_module(module), attribute)
    except PtychoError:
        raise
    except (Exception, SystemExit) as error:
        remedy = f"Install what has the module {module}, or pass --import with its .py file."
        raise _refused(place, "a function that can be imported", f"{type(error).__name__}: {error}", remedy) from error
    return factory


@functools.lru_cache(maxsize=16)
def _made(
    factory: Callable[[ModelConfig], Any], place: str, settings: tuple[Any, ...], configured: _Configured
) -> tuple[OwnNetwork, str]:
    """The module, and the op that it is: once for each configuration, so that graphs are shared."""
    model = configured.model
    with faults_of(f"architecture {place!r}", NETWORK, "architecture"):
        module = factory(model)
    if hasattr(module, "named_parameters"):
        kept = [name for name, _ in module.named_buffers()]
        values = {name: value.detach().cpu().numpy().copy() for name, value in module.named_parameters()}
        module.eval()
        op = TORCH
    elif hasattr(module, "stateless_call"):
        channels = model.channels if model.object_big else 1
        if not module.built:
            with faults_of(f"architecture {place!r}", "a keras.Model that can be built", "architecture"):
                module.build((None, model.N, model.N, channels))
        kept = [variable.path for variable in module.non_trainable_variables]
        values = {each.path.replace("/", "."): np.asarray(each.numpy()) for each in module.trainable_variables}
        op = KERAS
    else:
        received = f"{type(module).__module__}.{type(module).__qualname__}"
        raise _refused(place, NETWORK, received, "Return one of them.")
    if kept:
        remedy = "Use layers without such state, such as group or layer normalisation."
        raise _refused(place, "parameters that are trained alone", f"also {', '.join(kept[:4])}", remedy)
    if "kernel" in values:
        raise _refused(place, "another name than 'kernel' for a parameter of the module itself", "it", "Rename it.")
    return OwnNetwork(place, module, values), op
