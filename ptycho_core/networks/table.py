"""The architecture table: a network as a list of layers with canonical parameter names (specs/model.md).

An engine interprets the table, so a network written here exists in every engine. Register another one with
`@register_architecture("name")`: a function that takes a `ModelConfig` and returns a `Table`. What its layers can do:
`ptycho_core.networks.ops`.
"""

from __future__ import annotations

import math
from typing import Any

import attrs

from ptycho_core.networks.ops import Layer, op_named

INPUT = "input"
PADDINGS = ("zeros", "reflect")
KINDS = {int: "a whole number", float: "a number", str: "text"}


@attrs.frozen
class Table:
    """A network (B, N, N, in) → amplitude and phase, (B, N, N, out) each: the outputs of the layers so named.

    real, imaginary: where they are named, the parts of the patches instead.
    canvas: where it is named, a network (B, Q, Q, 2) → canvas instead (specs/model.md, Tables of a canvas).
    zeros: layers whose kernels begin as 0. faint: whose kernels begin as a quarter of what they would. ones: whose
    biases begin as 1.
    """

    layers: tuple[Layer, ...]
    amplitude: str = ""
    phase: str = ""
    canvas: str = ""
    zeros: tuple[str, ...] = ()
    real: str = ""
    imaginary: str = ""
    ones: tuple[str, ...] = ()
    faint: tuple[str, ...] = ()

    @property
    def outputs(self) -> tuple[str, ...]:
        """The layers whose outputs are the network's: its canvas, real and imaginary part, or amplitude and phase."""
        if self.canvas:
            return (self.canvas,)
        return (self.real, self.imaginary) if self.real else (self.amplitude, self.phase)

    @property
    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Canonical names and shapes of all trainable arrays of the network, in the order of the table."""
        return {name: shape for layer in self.layers for name, shape in layer.parameters.items()}

    @property
    def in_channels(self) -> int:
        """Of the input."""
        return next(
            count
            for layer in self.layers
            for name, count in zip(layer.inputs, layer.in_channels, strict=True)
            if name == INPUT
        )

    @property
    def block(self) -> int:
        """What the sides of the input must be multiples of, so that every pooling has whole squares: 2 a level."""
        return 1 << max(level for _, level in self._reaches().values())

    @property
    def reach_px(self) -> int:
        """How far away a pixel of the input can be that an output depends on; ValueError where there is no limit.

        Pixels along x or y. It holds for parts of an image that begin at multiples of `block`. Of a table of a canvas
        it is that of the layers after the last op of the physics, each of which sees the whole.
        """
        reaches = self._reaches()
        return max(reaches[name][0] for name in self.outputs)

    def _reaches(self) -> dict[str, tuple[int, int]]:
        """Each layer's reach in pixels of the input, and how often it was halved."""
        found = {INPUT: (0, 0)}
        for layer in self.layers:
            reach, level = max(found[name] for name in layer.inputs)
            match layer.op:
                case _ if layer.sees_batch:
                    reach, level = 0, 0
                case "conv" if layer.settings["stride"] == 1:
                    reach += layer.settings["kernel_size"] // 2 * 2**level
                case "max_pool":
                    reach, level = reach + 2**level, level + 1
                case "upsample":
                    level -= 1
                case "add" | "concat" | "channels" | "scale" | "activate" | "gain":
                    pass
                case other:
                    raise ValueError(f"layer {layer.name!r}: {other!r} has no reach that is known")
            found[layer.name] = (reach, level)
        return found

    def image_part(self, output: str) -> tuple[str, Table]:
        """The layers between the last op of the physics and an output of two maps, as a table of images; its source.

        The source is the output of that op, which is the part's input; its amplitude and phase are the two maps.
        ValueError where the output needs more than one op of the physics.
        """
        layers = {layer.name: layer for layer in self.layers}
        needed, sources, waiting = set[str](), set[str](), [output]
        while waiting:
            name = waiting.pop()
            if name == INPUT or layers[name].sees_batch:
                sources.add(name)
            elif name not in needed:
                needed.add(name)
                waiting += layers[name].inputs
        if len(sources) != 1 or not needed:
            raise ValueError(
                f"layer {output!r}: expected layers after one op of the physics; received {sorted(sources)}"
            )
        (source,) = sources
        part = [
            attrs.evolve(layer, inputs=tuple(INPUT if name == source else name for name in layer.inputs))
            for layer in self.layers
            if layer.name in needed
        ]
        maps = [f"{output}/{index}" for index in (0, 1)]
        for index, name in enumerate(maps):
            settings = {"start": index, "stop": index + 1}
            part.append(Layer(name, "channels", (output,), (layers[output].out_channels,), 1, settings))
        return source, Table(tuple(part), amplitude=maps[0], phase=maps[1])

    def sizes(self, N: int) -> dict[str, int]:
        """Pixels along a side of every layer's output, and of the input, for patterns of N × N."""
        sizes = {INPUT: N}
        for layer in self.layers:
            sizes[layer.name] = layer.size(sizes[layer.inputs[0]])
        return sizes

    def numbers(self, N: int) -> tuple[int, int]:
        """How many numbers the outputs of all layers have for one group, and the largest of them with its first input.

        The first a training keeps for its way back, the second is the least that a prediction needs at a time.
        """
        sizes, channels = self.sizes(N), {layer.name: layer.out_channels for layer in self.layers}
        counts = {name: count * sizes[name] ** 2 for name, count in channels.items()}
        largest = max(counts[layer.name] + layer.in_channels[0] * sizes[layer.inputs[0]] ** 2 for layer in self.layers)
        return sum(counts.values()), largest


class TableBuilder:
    """Writes a table layer by layer and keeps count of channels; every method returns the name of its output.

    >>> build = TableBuilder(in_channels=1)
    >>> stem = build.conv("stem", INPUT, 8)
    >>> build.add("sum", stem, build.conv("body", stem, 8))
    'sum'
    >>> build.conv("head", "body", 1, kernel_size=4)
    Traceback (most recent call last):
    ValueError: layer 'head': expected an odd kernel_size; received 4
    """

    def __init__(self, in_channels: int) -> None:
        self._layers: list[Layer] = []
        self._channels = {INPUT: in_channels}

    def __repr__(self) -> str:
        return f"TableBuilder(in_channels={self._channels[INPUT]}, {len(self._layers)} layers)"

    def op(
        self, name: str, op: str, *inputs: str, out_channels: int | None = None, shares: str = "", **settings: Any
    ) -> str:
        """A layer of any registered op; ValueError where inputs or settings are not those of the op.

        out_channels: where the op leaves it to the layer. shares: an earlier layer with parameters of the same shapes,
        which this one uses in place of its own.
        """
        known = op_named(op)
        if unknown := [each for each in inputs if each not in self._channels]:
            self._refuse(name, "inputs that are earlier layers", unknown)
        if name in self._channels:
            self._refuse(name, "a name of its own", "that of an earlier layer")
        if len(inputs) != known.inputs:
            self._refuse(name, f"{known.inputs} input(s) of {op!r}", len(inputs))
        if (known.out_channels is None) == (out_channels is None):
            expected = "out_channels" if known.out_channels is None else "no out_channels"
            self._refuse(name, f"{expected} for {op!r}", "none" if out_channels is None else out_channels)
        layer = Layer(
            name=name,
            op=op,
            inputs=inputs,
            in_channels=tuple(self._channels[each] for each in inputs),
            out_channels=out_channels or 0,
            settings=self._settings(name, op, settings),
            shares=shares,
        )
        if known.out_channels is not None:
            layer = attrs.evolve(layer, out_channels=known.out_channels(layer))
        if shares and not any((each.name, each.shapes) == (shares, layer.shapes) for each in self._layers):
            self._refuse(name, f"shares = an earlier {op} of its shape", repr(shares))
        self._layers.append(layer)
        self._channels[name] = layer.out_channels
        return name

    def _settings(self, name: str, op: str, given: dict[str, Any]) -> dict[str, Any]:
        """All settings of the op, those that are given in place of its defaults."""
        known = op_named(op).settings
        if set(given) - set(known) or any(
            isinstance(default, type) and key not in given for key, default in known.items()
        ):
            self._refuse(name, f"the settings {', '.join(known) or 'none'} of {op!r}", ", ".join(given) or "none")
        for key, value in given.items():
            kind = known[key] if isinstance(known[key], type) else type(known[key])
            if not isinstance(value, (int, float) if kind is float else kind):
                self._refuse(name, f"{key} = {KINDS.get(kind, kind.__name__)}", repr(value))
        if given.get("kernel_size", 1) % 2 == 0:
            self._refuse(name, "an odd kernel_size", given["kernel_size"])
        if op == "conv" and given.get("padding", "zeros") not in PADDINGS:
            self._refuse(name, f"padding = {' or '.join(PADDINGS)}", given["padding"])
        return {key: given.get(key, default) for key, default in known.items()}

    def _refuse(self, name: str, expected: str, received: object) -> None:
        raise ValueError(f"layer {name!r}: expected {expected}; received {received}")

    # -- our own ops -----------------------------------------------------------------------------------------------

    def conv(
        self,
        name: str,
        x: str,
        out_channels: int,
        activation: str = "relu",
        *,
        kernel_size: int = 3,
        stride: int = 1,
        padding: str = "zeros",
        shares: str = "",
    ) -> str:
        """kernel_size: odd. shares: an earlier conv of the same shape whose kernel and bias this one uses."""
        settings = {"activation": activation, "kernel_size": kernel_size, "stride": stride, "padding": padding}
        return self.op(name, "conv", x, out_channels=out_channels, shares=shares, **settings)

    def transposed_conv(self, name: str, x: str, out_channels: int, activation: str = "relu") -> str:
        return self.op(name, "transposed_conv", x, out_channels=out_channels, activation=activation)

    def spectral_conv(self, name: str, x: str, out_channels: int, modes: int, *, scale: float = 1) -> str:
        """scale: of the side, so that the output has more pixels or fewer."""
        return self.op(name, "spectral_conv", x, out_channels=out_channels, modes=modes, scale=scale)

    def factorised_spectral_conv(self, name: str, x: str, out_channels: int, modes: int, *, shares: str = "") -> str:
        """shares: an earlier one of the same shape whose matrices this one uses."""
        return self.op(name, "factorised_spectral_conv", x, out_channels=out_channels, shares=shares, modes=modes)

    def instance_norm(self, name: str, x: str) -> str:
        return self.op(name, "instance_norm", x)

    def gain(self, name: str, x: str, start: float = 1) -> str:
        return self.op(name, "gain", x, start=start)

    def coordinates(self, name: str, x: str) -> str:
        return self.op(name, "coordinates", x)

    def max_pool(self, name: str, x: str) -> str:
        return self.op(name, "max_pool", x)

    def upsample(self, name: str, x: str) -> str:
        return self.op(name, "upsample", x)

    def channels(self, name: str, x: str, start: int, stop: int) -> str:
        """start, stop: as of a slice, but that a stop of 0 is the end."""
        start, stop, _ = slice(start, stop or None).indices(self._channels[x])
        return self.op(name, "channels", x, start=start, stop=stop)

    def pad(self, name: str, x: str, width: int) -> str:
        return self.op(name, "pad", x, width=width)

    def outside_centre(self, name: str, x: str) -> str:
        return self.op(name, "outside_centre", x)

    def add(self, name: str, x: str, y: str) -> str:
        return self.op(name, "add", x, y)

    def concat(self, name: str, x: str, y: str) -> str:
        return self.op(name, "concat", x, y)

    def scale(self, name: str, x: str, factor: float) -> str:
        return self.op(name, "scale", x, factor=factor)

    def activate(self, name: str, x: str, activation: str) -> str:
        return self.op(name, "activate", x, activation=activation)

    def global_mean(self, name: str, x: str) -> str:
        return self.op(name, "global_mean", x)

    def global_max(self, name: str, x: str) -> str:
        return self.op(name, "global_max", x)

    def channel_max_mean(self, name: str, x: str) -> str:
        return self.op(name, "channel_max_mean", x)

    def channel_conv(self, name: str, x: str, kernel_size: int) -> str:
        """x: of one pixel, as `global_mean` gives it. kernel_size: odd."""
        return self.op(name, "channel_conv", x, kernel_size=kernel_size)

    def multiply(self, name: str, x: str, gate: str) -> str:
        """gate: of one pixel and x's channels, or of x's pixels and one channel."""
        return self.op(name, "multiply", x, gate)

    # -- of the physics: tables of a canvas ------------------------------------------------------------------------

    def warm_sweeps(self, name: str, canvas: str, sweeps: int) -> str:
        return self.op(name, "warm_sweeps", canvas, sweeps=sweeps)

    def data_step(self, name: str, canvas: str) -> str:
        return self.op(name, "data_step", canvas)

    def in_gauge(self, name: str, stepped: str) -> str:
        return self.op(name, "in_gauge", stepped)

    def correct(self, name: str, stepped: str, maps: str) -> str:
        return self.op(name, "correct", stepped, maps)

    # -- compositions ----------------------------------------------------------------------------------------------

    def eca(self, name: str, x: str) -> str:
        """x times a gate for each channel, which sees its neighbours among the channels (Wang et al., CVPR 2020)."""
        gate = self.global_mean(f"{name}/mean", x)
        gate = self.channel_conv(f"{name}/conv", gate, eca_size(self._channels[x]))
        return self.multiply(f"{name}/multiply", x, self.activate(f"{name}/gate", gate, "sigmoid"))

    def cbam(self, name: str, x: str) -> str:
        """x times a gate for each channel, then times one for each pixel (Woo et al., ECCV 2018)."""
        channel, channels = f"{name}/channel", self._channels[x]
        hidden = max(1, channels // 16)
        mean = self.global_mean(f"{channel}/mean", x)
        mean = self.conv(f"{channel}/conv0", mean, hidden, kernel_size=1)
        mean = self.conv(f"{channel}/conv1", mean, channels, "linear", kernel_size=1)
        largest = self.global_max(f"{channel}/max", x)
        largest = self.conv(f"{channel}/max_conv0", largest, hidden, kernel_size=1, shares=f"{channel}/conv0")
        largest = self.conv(
            f"{channel}/max_conv1", largest, channels, "linear", kernel_size=1, shares=f"{channel}/conv1"
        )
        gate = self.activate(f"{channel}/gate", self.add(f"{channel}/sum", mean, largest), "sigmoid")
        return self.spatial(f"{name}/spatial", self.multiply(f"{channel}/multiply", x, gate))

    def spatial(self, name: str, x: str) -> str:
        """x times a gate for each pixel: the second half of CBAM alone."""
        gate = self.conv(f"{name}/conv", self.channel_max_mean(f"{name}/max_mean", x), 1, "sigmoid", kernel_size=7)
        return self.multiply(f"{name}/multiply", x, gate)

    def attention(self, name: str, x: str, *, eca: bool = False, cbam: bool = False, spatial: bool = False) -> str:
        """Those that are asked for, in this order; x itself where none is."""
        if eca:
            x = self.eca(f"{name}/eca", x)
        if cbam:
            x = self.cbam(f"{name}/cbam", x)
        if spatial:
            x = self.spatial(f"{name}/spatial", x)
        return x

    def conv_block(self, name: str, x: str, out_channels: int, **attention: bool) -> str:
        """[conv relu, conv relu, attention]; attention: which of those of `attention`."""
        x = self.conv(f"{name}/conv0", x, out_channels)
        x = self.conv(f"{name}/conv1", x, out_channels)
        return self.attention(name, x, **attention)

    def up_block(self, name: str, x: str, out_channels: int, **attention: bool) -> str:
        """[conv relu, conv relu, attention, upsample 2]."""
        return self.upsample(f"{name}/upsample", self.conv_block(name, x, out_channels, **attention))

    def finish(
        self,
        *,
        amplitude: str = "",
        phase: str = "",
        real: str = "",
        imaginary: str = "",
        canvas: str = "",
        zeros: tuple[str, ...] = (),
        ones: tuple[str, ...] = (),
        faint: tuple[str, ...] = (),
    ) -> Table:
        """Amplitude and phase, real and imaginary part, or a canvas. zeros, ones, faint: as of the table."""
        return Table(tuple(self._layers), amplitude, phase, canvas, zeros, real, imaginary, ones, faint)


def eca_size(channels: int) -> int:
    """Length of ECA's kernel: |log2(channels) / 2 + 1/2|, cut and made odd (Wang et al., CVPR 2020)."""
    size = int(abs(math.log2(channels) / 2 + 0.5))
    return size if size % 2 else size + 1
