"""`cnn`, the encoder with two decoders of PtychoPINN, and its published variant (specs/model.md)."""

from __future__ import annotations

import math

from ptycho_core.errors import ConfigurationError
from ptycho_core.networks.registry import network_channels, reads
from ptycho_core.networks.table import INPUT, Table, TableBuilder
from ptycho_core.settings.effects import OF_THE_NETWORK
from ptycho_core.settings.model import ModelConfig


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
    raise ConfigurationError("ModelConfig", "N", expected=expected, received=N, remedy=remedy)


@reads(*OF_THE_NETWORK)
def cnn(model: ModelConfig) -> Table:
    """One encoder and two decoders, as in PtychoPINN (Hoidn et al., Sci. Rep. 13, 22789, 2023)."""
    return _autoencoder(model, outer_channels=4, outer_width=model.n_filters_scale * 2048 // model.N)


@reads(*OF_THE_NETWORK)
def published_torch(model: ModelConfig) -> Table:
    """`cnn` as in the published PyTorch implementation: the outer part has one channel per map, and another width.

    Its networks have those weights; a new one has no reason to.
    """
    return _autoencoder(model, outer_channels=network_channels(model), outer_width=model.n_filters_scale * 32)


def _autoencoder(model: ModelConfig, *, outer_channels: int, outer_width: int) -> Table:
    """outer_channels: those of the decoders' last that predict outside the central square, in a block outer_width wide.

    Both matter with `pad_object` alone.
    """
    depth, scale = _depth(model.N), model.n_filters_scale
    channels = network_channels(model)
    table = TableBuilder(channels)

    x = INPUT
    for block in range(depth):
        filters = scale * 128 // 2 ** (depth - 1 - block)
        name = f"encoder/block{block}"
        x = table.conv_block(name, x, filters, eca=model.eca_encoder, cbam=model.cbam_encoder)
        x = table.max_pool(f"{name}/pool", x)
    bottleneck = table.attention("bottleneck", x, cbam=model.cbam_bottleneck)

    outputs = {}
    for branch, activation in (("amplitude", model.amp_activation), ("phase", "tanh")):
        x = bottleneck
        for block in range(depth - 1):
            x = table.up_block(
                f"{branch}/block{block}",
                x,
                scale * 32 * 2 ** (depth - 2 - block),
                eca=model.eca_decoder,
                cbam=model.cbam_decoder,
                spatial=model.spatial_decoder,
            )
        outputs[branch] = _head(table, branch, x, activation, model, outer_channels, outer_width)
    ceiling = model.amplitude_ceiling if model.amp_activation == "sigmoid" else 1.0
    return table.finish(amplitude=table.scale("amplitude", outputs["amplitude"], ceiling), phase=outputs["phase"])


def _head(
    table: TableBuilder, branch: str, x: str, activation: str, model: ModelConfig, outer_channels: int, outer_width: int
) -> str:
    channels, last = network_channels(model), model.pad_object and model.probe_big

    def bounded(y: str) -> str:
        return table.scale(f"{branch}/head/pi", y, math.pi) if branch == "phase" else y

    if not model.pad_object:
        x = table.up_block(f"{branch}/head", x, model.n_filters_scale * 32)
        return bounded(table.conv(f"{branch}/head/conv", x, channels, activation))
    inner = table.channels(f"{branch}/head/inner", x, 0, -outer_channels)
    inner = bounded(table.conv(f"{branch}/head/conv", inner, channels, activation))
    centre = table.pad(f"{branch}/head/pad", inner, model.N // 4)
    if not last:
        return centre
    outer = table.channels(f"{branch}/outer/channels", x, -outer_channels, 0)
    outer = table.up_block(f"{branch}/outer", outer, outer_width)
    outer = table.conv(f"{branch}/outer/conv", outer, channels, "swish")
    return table.add(f"{branch}/head/sum", centre, table.outside_centre(f"{branch}/outer/mask", outer))
