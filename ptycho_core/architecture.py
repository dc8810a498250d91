"""The architecture table: a network as a list of layers with canonical parameter names (specs/model.md).

An engine interprets the table, so a network written here exists in every engine. Register another one with
`@register_architecture("name")`: a function that takes a `ModelConfig` and returns a `Table`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.config import ModelConfig
from ptycho_core.errors import ConfigurationError, explain

Weights = Mapping[str, NDArray[np.floating]]
"""Canonical name → array, such as "encoder/block0/conv0/kernel" (kh, kw, in, out)."""

INPUT = "input"


@attrs.frozen
class Layer:
    """One step. Its output goes by `name`; `inputs` name earlier outputs.

    op: conv (3×3, zero "same" padding, stride 1, bias, then `activation`) · max_pool (2×2) · upsample (2×, nearest) ·
    channels (start ≤ channel < stop) · pad (zeros, `width` pixels on each side) · outside_centre (zero inside the
    central N/2 square) · add · scale (times `factor`).
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    in_channels: int
    out_channels: int
    activation: str = "linear"
    kernel_size: int = 3
    start: int = 0
    stop: int = 0
    width: int = 0
    factor: float = 1.0

    @property
    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Canonical parameter names and shapes."""
        if self.op != "conv":
            return {}
        kernel = (self.kernel_size, self.kernel_size, self.in_channels, self.out_channels)
        return {f"{self.name}/kernel": kernel, f"{self.name}/bias": (self.out_channels,)}


@attrs.frozen
class Table:
    """A network (B, N, N, in) → amplitude and phase, (B, N, N, out) each: the outputs of the layers so named."""

    layers: tuple[Layer, ...]
    amplitude: str
    phase: str

    @property
    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Canonical names and shapes of all trainable arrays of the network, in the order of the table."""
        return {name: shape for layer in self.layers for name, shape in layer.parameters.items()}


class TableBuilder:
    """Writes a table layer by layer and keeps count of channels; every method returns the name of its output."""

    def __init__(self, in_channels: int) -> None:
        self._layers: list[Layer] = []
        self._channels = {INPUT: in_channels}

    def _append(self, name: str, op: str, *inputs: str, out_channels: int | None = None, **settings: object) -> str:
        in_channels = self._channels[inputs[0]]
        out = in_channels if out_channels is None else out_channels
        layer = Layer(name, op, inputs, in_channels, out, **settings)  # type: ignore[arg-type]
        self._layers.append(layer)
        self._channels[name] = layer.out_channels
        return name

    def conv(self, name: str, x: str, out_channels: int, activation: str = "relu") -> str:
        return self._append(name, "conv", x, out_channels=out_channels, activation=activation)

    def max_pool(self, name: str, x: str) -> str:
        return self._append(name, "max_pool", x)

    def upsample(self, name: str, x: str) -> str:
        return self._append(name, "upsample", x)

    def channels(self, name: str, x: str, start: int, stop: int) -> str:
        start, stop, _ = slice(start, stop or None).indices(self._channels[x])
        return self._append(name, "channels", x, out_channels=stop - start, start=start, stop=stop)

    def pad(self, name: str, x: str, width: int) -> str:
        return self._append(name, "pad", x, width=width)

    def outside_centre(self, name: str, x: str) -> str:
        return self._append(name, "outside_centre", x)

    def add(self, name: str, x: str, y: str) -> str:
        return self._append(name, "add", x, y)

    def scale(self, name: str, x: str, factor: float) -> str:
        return self._append(name, "scale", x, factor=factor)

    def up_block(self, name: str, x: str, out_channels: int) -> str:
        """[conv relu, conv relu, upsample 2]."""
        x = self.conv(f"{name}/conv0", x, out_channels)
        x = self.conv(f"{name}/conv1", x, out_channels)
        return self.upsample(f"{name}/upsample", x)

    def finish(self, *, amplitude: str, phase: str) -> Table:
        return Table(tuple(self._layers), amplitude, phase)


Architecture = Callable[[ModelConfig], Table]
_ARCHITECTURES: dict[str, Architecture] = {}


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
    if model.architecture not in _ARCHITECTURES:
        known = ", ".join(sorted(_ARCHITECTURES))
        received = repr(model.architecture)
        remedy = f"Registered architectures: {known}."
        message = explain("ModelConfig.architecture", None, expected="a known name", received=received, remedy=remedy)
        raise ConfigurationError(message)
    return _ARCHITECTURES[model.architecture](model)


def network_channels(model: ModelConfig) -> int:
    """Patterns the network sees together: the whole group when merged, otherwise one frame at a time."""
    return model.channels if model.object_big else 1


def _depth(N: int) -> int:
    """Encoder blocks for N, down to a bottleneck of 8 to 15 pixels; ConfigurationError for another N."""
    depth = math.floor(math.log2(N / 8)) if N >= 32 else 0
    if 32 <= N <= 512 and N % 2**depth == 0:
        return depth
    valid = [n for n in range(32, 513) if n % 2 ** math.floor(math.log2(n / 8)) == 0]
    below, above = max((n for n in valid if n < N), default=None), min((n for n in valid if n > N), default=None)
    expected = "a size from 32 to 512 that halves evenly to 8-15 pixels"
    remedy = f"Crop the patterns to {below} or pad them to {above} pixels."
    if below is None or above is None:
        remedy = f"Pad the patterns to {above} pixels." if below is None else f"Crop the patterns to {below} pixels."
    raise ConfigurationError(explain("ModelConfig.N", None, expected=expected, received=N, remedy=remedy))


@register_architecture("cnn")
def cnn(model: ModelConfig) -> Table:
    """One encoder and two decoders, as in PtychoPINN (Hoidn et al., Sci. Rep. 13, 22789, 2023)."""
    depth, scale = _depth(model.N), model.n_filters_scale
    channels = network_channels(model)
    table = TableBuilder(channels)

    x = INPUT
    for block in range(depth):
        filters = scale * 128 // 2 ** (depth - 1 - block)
        name = f"encoder/block{block}"
        x = table.conv(f"{name}/conv0", x, filters)
        x = table.conv(f"{name}/conv1", x, filters)
        x = table.max_pool(f"{name}/pool", x)
    bottleneck = x

    outputs = {}
    for branch, activation in (("amplitude", model.amp_activation), ("phase", "tanh")):
        x = bottleneck
        for block in range(depth - 1):
            x = table.up_block(f"{branch}/block{block}", x, scale * 32 * 2 ** (depth - 2 - block))
        outputs[branch] = _head(table, branch, x, activation, model)
    ceiling = model.amplitude_ceiling if model.amp_activation == "sigmoid" else 1.0
    return table.finish(amplitude=table.scale("amplitude", outputs["amplitude"], ceiling), phase=outputs["phase"])


def _head(table: TableBuilder, branch: str, x: str, activation: str, model: ModelConfig) -> str:
    channels, last = network_channels(model), model.pad_object and model.probe_big

    def bounded(y: str) -> str:
        return table.scale(f"{branch}/head/pi", y, math.pi) if branch == "phase" else y

    if not model.pad_object:
        x = table.up_block(f"{branch}/head", x, model.n_filters_scale * 32)
        return bounded(table.conv(f"{branch}/head/conv", x, channels, activation))
    inner = table.channels(f"{branch}/head/inner", x, 0, -4)
    inner = bounded(table.conv(f"{branch}/head/conv", inner, channels, activation))
    centre = table.pad(f"{branch}/head/pad", inner, model.N // 4)
    if not last:
        return centre
    outer = table.channels(f"{branch}/outer/channels", x, -4, 0)
    outer = table.up_block(f"{branch}/outer", outer, model.n_filters_scale * 2048 // model.N)
    outer = table.conv(f"{branch}/outer/conv", outer, channels, "swish")
    return table.add(f"{branch}/head/sum", centre, table.outside_centre(f"{branch}/outer/mask", outer))


def initial_weights(table: Table, rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    """Glorot-uniform kernels and zero biases, drawn in the order of the table (Glorot & Bengio, AISTATS 2010)."""
    weights: dict[str, NDArray[np.float32]] = {}
    for name, shape in table.parameters.items():
        if name.endswith("/kernel"):
            *window, fan_in, fan_out = shape
            limit = math.sqrt(6 / (math.prod(window) * (fan_in + fan_out)))
            weights[name] = rng.uniform(-limit, limit, shape).astype(np.float32)
        else:
            weights[name] = np.zeros(shape, np.float32)
    return weights
