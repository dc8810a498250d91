"""The architecture table, run in this framework."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ptycho_core.networks import spectral
from ptycho_core.networks.ops import check_output, op_function
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
    "gelu": F.gelu,
}


def run_table(
    table: Table, parameters: Mapping[str, Tensor], x: Tensor, scene: Scene | None = None
) -> tuple[Tensor, ...]:
    """The table's outputs, maps (B, C, N, N), of the network input x (B, C, N, N).

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
        if layer.op not in OPS:
            check_output(layer, tuple(outputs[layer.inputs[0]].shape), outputs[layer.name], channels_at=1)
    return tuple(outputs[name] for name in table.outputs)


# -- maps are (B, C, H, W), kernels (out, in, kh, kw) --------------------------------------------------------------


def conv(
    x: Tensor, *, kernel: Tensor, bias: Tensor, activation: str, kernel_size: int, stride: int, padding: str
) -> Tensor:
    border = kernel_size // 2
    if padding == "reflect":
        x, border = F.pad(x, [border] * 4, mode="reflect"), 0
    return ACTIVATIONS[activation](F.conv2d(x, kernel, bias, stride, border))


def transposed_conv(x: Tensor, *, kernel: Tensor, bias: Tensor, activation: str, kernel_size: int) -> Tensor:
    kernel = kernel.transpose(0, 1)  # (in, out, kh, kw), as this framework has it here
    return ACTIVATIONS[activation](
        F.conv_transpose2d(x, kernel, bias, stride=2, padding=kernel_size // 2, output_padding=1)
    )


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


def spectral_conv(x: Tensor, *, real: Tensor, imaginary: Tensor, modes: int, scale: float) -> Tensor:
    (height, width), like = x.shape[-2:], x
    x = torch.einsum("bchw,pwk->bchpk", x, constant(spectral.to_modes(width, modes), like))
    x = torch.einsum("bchpk,pqhj->bcqjk", x, constant(spectral.to_signed_modes(height, modes), like))
    x = torch.einsum("bcqjk,qrjkcd->bdrjk", x, as_product(real, imaginary))
    height, width = int(height * scale), int(width * scale)
    x = torch.einsum("bdrjk,rshj->bdshk", x, constant(spectral.from_signed_modes(height, modes), like))
    return torch.einsum("bdshk,swk->bdhw", x, constant(spectral.from_modes(width, modes), like))


def factorised_spectral_conv(x: Tensor, *, real: Tensor, imaginary: Tensor, modes: int) -> Tensor:
    matrices, (height, width) = as_product(real, imaginary), x.shape[-2:]
    along_y = torch.einsum("bchw,phk->bcpkw", x, constant(spectral.to_modes(height, modes), x))
    along_y = torch.einsum("bcpkw,prkcd->bdrkw", along_y, matrices[:, :, 0])
    along_y = torch.einsum("bdrkw,rhk->bdhw", along_y, constant(spectral.from_modes(height, modes), x))
    along_x = torch.einsum("bchw,pwk->bchpk", x, constant(spectral.to_modes(width, modes), x))
    along_x = torch.einsum("bchpk,prkcd->bdhrk", along_x, matrices[:, :, 1])
    along_x = torch.einsum("bdhrk,rwk->bdhw", along_x, constant(spectral.from_modes(width, modes), x))
    return along_y + along_x


def instance_norm(x: Tensor, *, epsilon: float) -> Tensor:
    return F.instance_norm(x, eps=epsilon)


def gain(x: Tensor, *, gain: Tensor, start: float) -> Tensor:
    return x * gain[:, None, None]


def coordinates(x: Tensor) -> Tensor:
    size = x.shape[-1]
    place = torch.arange(size, dtype=x.dtype, device=x.device) / size
    rows, columns = (each.expand(x.shape[0], 1, size, size) for each in (place[:, None], place))
    return torch.cat([x, rows, columns], dim=1)


OPS: dict[str, Callable[..., Tensor]] = {
    op.__name__: op
    for op in (
        *(conv, max_pool, upsample, channels, pad, outside_centre, add, concat, scale, activate),
        *(global_mean, global_max, channel_max_mean, channel_conv, multiply),
        *(transposed_conv, spectral_conv, factorised_spectral_conv, instance_norm, gain, coordinates),
        *(warm_sweeps, data_step, in_gauge, correct),
    )
}
"""Inputs, then parameters and settings by name (specs/model.md, Layers)."""


# -- what they are made of -----------------------------------------------------------------------------------------


def constant(array: NDArray[np.float64], like: Tensor) -> Tensor:
    return torch.from_numpy(array).to(like)


def as_product(real: Tensor, imaginary: Tensor) -> Tensor:
    """A product with real + i · imaginary, (part before, part after, …)."""
    return torch.stack([torch.stack([real, imaginary]), torch.stack([-imaginary, real])])
