"""The architecture table: a network as a list of layers with canonical parameter names (specs/model.md).

An engine interprets the table, so a network written here exists in every engine. Register another one with
`@register_architecture("name")`: a function that takes a `ModelConfig` and returns a `Table`.
"""

from __future__ import annotations

import math

import attrs

INPUT = "input"


@attrs.frozen
class Layer:
    """One step. Its output goes by `name`; `inputs` name earlier outputs.

    op: conv (kernel_size × kernel_size, zero "same" padding, stride 1, bias, then `activation`; with the parameters of
    the conv that `shares` names, if it does) · max_pool (2×2) · upsample (2×, nearest) · channels (start ≤ channel <
    stop) · pad (zeros, `width` pixels on each side) · outside_centre (zero inside the central N/2 square) · add ·
    scale (times `factor`) · activate (`activation` alone) · global_mean and global_max (over all pixels: 1 × 1 maps) ·
    channel_max_mean (maximum and mean over the channels: two channels) · channel_conv (1 × 1 maps, along their
    channels, kernel_size long, zero "same" padding, no bias) · multiply (by a second input of one pixel or of one
    channel).
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
    shares: str = ""

    @property
    def kernel(self) -> str:
        """The canonical name of its kernel."""
        return f"{self.shares or self.name}/kernel"

    @property
    def bias(self) -> str:
        """The canonical name of its bias."""
        return f"{self.shares or self.name}/bias"

    @property
    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Canonical names and shapes of the parameters that it brings; none where it shares those of another layer."""
        if self.op == "channel_conv":
            return {self.kernel: (self.kernel_size, 1, 1, 1)}
        if self.op != "conv" or self.shares:
            return {}
        kernel = (self.kernel_size, self.kernel_size, self.in_channels, self.out_channels)
        return {self.kernel: kernel, self.bias: (self.out_channels,)}


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
        if layer.kernel_size % 2 == 0:
            raise ValueError(f"layer {name!r}: expected an odd kernel_size; received {layer.kernel_size}")
        self._layers.append(layer)
        self._channels[name] = layer.out_channels
        return name

    def conv(
        self,
        name: str,
        x: str,
        out_channels: int,
        activation: str = "relu",
        *,
        kernel_size: int = 3,
        shares: str = "",
    ) -> str:
        """kernel_size: odd. shares: an earlier conv of the same shape whose kernel and bias this one uses."""
        name = self._append(
            name, "conv", x, out_channels=out_channels, activation=activation, kernel_size=kernel_size, shares=shares
        )
        if shares:
            own = attrs.evolve(self._layers[-1], name=shares, shares="")
            if not any(own.parameters == layer.parameters for layer in self._layers):
                raise ValueError(f"layer {name!r}: expected shares = an earlier conv of its shape; received {shares!r}")
        return name

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

    def activate(self, name: str, x: str, activation: str) -> str:
        return self._append(name, "activate", x, activation=activation)

    def global_mean(self, name: str, x: str) -> str:
        return self._append(name, "global_mean", x)

    def global_max(self, name: str, x: str) -> str:
        return self._append(name, "global_max", x)

    def channel_max_mean(self, name: str, x: str) -> str:
        return self._append(name, "channel_max_mean", x, out_channels=2)

    def channel_conv(self, name: str, x: str, kernel_size: int) -> str:
        """x: of one pixel, as `global_mean` gives it. kernel_size: odd."""
        return self._append(name, "channel_conv", x, kernel_size=kernel_size)

    def multiply(self, name: str, x: str, gate: str) -> str:
        """gate: of one pixel and x's channels, or of x's pixels and one channel."""
        return self._append(name, "multiply", x, gate)

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

    def finish(self, *, amplitude: str, phase: str) -> Table:
        return Table(tuple(self._layers), amplitude, phase)


def eca_size(channels: int) -> int:
    """Length of ECA's kernel: |log2(channels) / 2 + 1/2|, cut and made odd (Wang et al., CVPR 2020)."""
    size = int(abs(math.log2(channels) / 2 + 0.5))
    return size if size % 2 else size + 1
