"""The architecture table, run in this framework."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ptycho_core.networks.table import INPUT, Layer, Table

ACTIVATIONS = {
    "linear": lambda x: x,
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "swish": F.silu,
    "softplus": lambda x: F.softplus(x, threshold=40),  # the default, 20, is already wrong in float64
    "tanh": torch.tanh,
}


def run_table(table: Table, parameters: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Amplitude and phase maps (B, C, N, N) of the network input x (B, C, N, N)."""
    outputs = {INPUT: x.contiguous(memory_format=torch.channels_last)}
    for layer in table.layers:
        outputs[layer.name] = run_layer(layer, parameters, *(outputs[name] for name in layer.inputs))
    return outputs[table.amplitude], outputs[table.phase]


def run_layer(layer: Layer, parameters: Mapping[str, Tensor], x: Tensor, *others: Tensor) -> Tensor:
    match layer.op:
        case "conv":
            kernel, bias = parameters[layer.kernel], parameters[layer.bias]
            return ACTIVATIONS[layer.activation](F.conv2d(x, kernel, bias, padding=layer.kernel_size // 2))
        case "max_pool":
            return F.max_pool2d(x, 2)
        case "upsample":
            return F.interpolate(x, scale_factor=2, mode="nearest")
        case "channels":
            return x[:, layer.start : layer.stop]
        case "pad":
            return F.pad(x, [layer.width] * 4)
        case "outside_centre":
            border = x.shape[-1] // 4
            centre = slice(border, x.shape[-1] - border)
            mask = torch.ones_like(x[:1, :1])
            mask[:, :, centre, centre] = 0
            return x * mask
        case "add":
            return x + others[0]
        case "scale":
            return x * layer.factor
        case "activate":
            return ACTIVATIONS[layer.activation](x)
        case "global_mean":
            return x.mean(dim=(2, 3), keepdim=True)
        case "global_max":
            return x.amax(dim=(2, 3), keepdim=True)
        case "channel_max_mean":
            return torch.cat([x.amax(dim=1, keepdim=True), x.mean(dim=1, keepdim=True)], dim=1)
        case "channel_conv":  # the channels as the rows of a map of one channel, (B, 1, C, 1)
            rows = F.conv2d(x.transpose(1, 2), parameters[layer.kernel], padding=(layer.kernel_size // 2, 0))
            return rows.transpose(1, 2)
        case "multiply":
            return x * others[0]
    raise ValueError(f"layer {layer.name!r}: this engine has no op {layer.op!r}")
