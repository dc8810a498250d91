"""The architecture table, run in this framework."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ptycho_core.networks.ops import op_function
from ptycho_core.networks.table import INPUT, Table
from ptycho_core_torch.steps import Scene, correct, data_step, in_gauge, warm_sweeps

ENGINE = "torch"
ACTIVATIONS = {
    "linear": lambda x: x,
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "swish": F.silu,
    "softplus": lambda x: F.softplus(x, threshold=40),  # the default, 20, is already wrong in float64
    "tanh": torch.tanh,
}


def run_table(
    table: Table, parameters: Mapping[str, Tensor], x: Tensor, scene: Scene | None = None
) -> tuple[Tensor, ...]:
    """The table's outputs, as amplitude and phase maps (B, C, N, N), of the network input x (B, C, N, N).

    scene: what ops of the physics see of the batch.
    """
    outputs = {INPUT: x.contiguous(memory_format=torch.channels_last)}
    for layer in table.layers:
        function = op_function(layer, ENGINE, OPS)
        inputs = (outputs[name] for name in layer.inputs)
        own = {parameter: parameters[name] for parameter, name in layer.uses.items()}
        if layer.sees_batch:  # in the precision of the scene, whatever that of the layers
            mixed = torch.is_autocast_enabled(x.device.type)  # torch.export does not verify what turns it off unasked
            with torch.autocast(x.device.type, enabled=False) if mixed else contextlib.nullcontext():
                maps = (each.to(x.dtype) for each in inputs)
                outputs[layer.name] = function(*maps, **own, **layer.settings, scene=scene)
        else:
            outputs[layer.name] = function(*inputs, **own, **layer.settings)
    return tuple(outputs[name] for name in table.outputs)


# -- maps are (B, C, H, W), kernels (out, in, kh, kw) --------------------------------------------------------------


def conv(x: Tensor, *, kernel: Tensor, bias: Tensor, activation: str, kernel_size: int) -> Tensor:
    return ACTIVATIONS[activation](F.conv2d(x, kernel, bias, padding=kernel_size // 2))


def max_pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2)


def upsample(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def channels(x: Tensor, *, start: int, stop: int) -> Tensor:
    return x[:, start:stop]


def pad(x: Tensor, *, width: int) -> Tensor:
    return F.pad(x, [width] * 4)


def outside_centre(x: Tensor) -> Tensor:
    border = x.shape[-1] // 4
    centre = slice(border, x.shape[-1] - border)
    mask = torch.ones_like(x[:1, :1])
    mask[:, :, centre, centre] = 0
    return x * mask


def add(x: Tensor, y: Tensor) -> Tensor:
    return x + y


def concat(x: Tensor, y: Tensor) -> Tensor:
    return torch.cat([x, y], dim=1)


def scale(x: Tensor, *, factor: float) -> Tensor:
    return x * factor


def activate(x: Tensor, *, activation: str) -> Tensor:
    return ACTIVATIONS[activation](x)


def global_mean(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3), keepdim=True)


def global_max(x: Tensor) -> Tensor:
    return x.amax(dim=(2, 3), keepdim=True)


def channel_max_mean(x: Tensor) -> Tensor:
    return torch.cat([x.amax(dim=1, keepdim=True), x.mean(dim=1, keepdim=True)], dim=1)


def channel_conv(x: Tensor, *, kernel: Tensor, kernel_size: int) -> Tensor:
    rows = x.transpose(1, 2)  # the channels as the rows of a map of one channel, (B, 1, C, 1)
    return F.conv2d(rows, kernel, padding=(kernel_size // 2, 0)).transpose(1, 2)


def multiply(x: Tensor, gate: Tensor) -> Tensor:
    return x * gate


OPS: dict[str, Callable[..., Tensor]] = {
    op.__name__: op
    for op in (
        *(conv, max_pool, upsample, channels, pad, outside_centre, add, concat, scale, activate),
        *(global_mean, global_max, channel_max_mean, channel_conv, multiply),
        *(warm_sweeps, data_step, in_gauge, correct),
    )
}
"""Inputs, then parameters and settings by name (specs/model.md, Layers)."""
