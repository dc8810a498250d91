"""The architecture table, run in this framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho_core.networks import spectral
from ptycho_core.networks.ops import check_output, op_function
from ptycho_core.networks.table import INPUT, Table
from ptycho_core_tensorflow.steps import Scene, correct, data_step, in_gauge, warm_sweeps

ENGINE = "tensorflow"
ACTIVATIONS = {
    "linear": lambda x: x,
    "relu": tf.nn.relu,
    "sigmoid": tf.sigmoid,
    "swish": tf.nn.silu,
    "softplus": tf.nn.softplus,
    "tanh": tf.tanh,
    # tf.nn.gelu rounds √2 to float32
    "gelu": lambda x: x * (tf.math.erf(x * tf.constant(0.5**0.5, x.dtype)) + 1) * tf.constant(0.5, x.dtype),
}


def run_table(
    table: Table,
    parameters: Mapping[str, tf.Tensor],
    x: tf.Tensor,
    scene: Scene | None = None,
    dtype: tf.DType | None = None,
) -> tuple[tf.Tensor, ...]:
    """The table's outputs, maps (B, N, N, C), of the network input x (B, N, N, C).

    scene: what ops of the physics see of the batch; they compute in the precision of x, whatever that of the layers.
    dtype: of the layers, that of x unless given.
    """
    outputs, dtype = {INPUT: x}, x.dtype if dtype is None else dtype
    for layer in table.layers:
        function = op_function(layer, ENGINE, OPS)
        kind = x.dtype if layer.sees_batch else dtype
        inputs = (tf.cast(outputs[name], kind) for name in layer.inputs)
        own = {parameter: tf.cast(parameters[name], kind) for parameter, name in layer.uses.items()}
        seen = {"scene": scene} if layer.sees_batch else {}
        outputs[layer.name] = function(*inputs, **own, **layer.settings, **seen)
        if layer.op not in OPS:
            check_output(layer, tuple(outputs[layer.inputs[0]].shape), outputs[layer.name], channels_at=3)
    return tuple(outputs[name] for name in table.outputs)


# -- maps are (B, H, W, C), kernels (kh, kw, in, out) --------------------------------------------------------------


def conv(
    x: tf.Tensor,
    *,
    kernel: tf.Tensor,
    bias: tf.Tensor,
    activation: str,
    kernel_size: int,
    stride: int,
    padding: str,
) -> tf.Tensor:
    mode = "SAME"
    if stride > 1 or padding == "reflect":  # "same" pads a stride of 2 at the end alone
        border = [kernel_size // 2] * 2
        x = tf.pad(x, [[0, 0], border, border, [0, 0]], "REFLECT" if padding == "reflect" else "CONSTANT")
        mode = "VALID"
    return ACTIVATIONS[activation](tf.nn.bias_add(tf.nn.conv2d(x, kernel, stride, mode), bias))


def transposed_conv(
    x: tf.Tensor, *, kernel: tf.Tensor, bias: tf.Tensor, activation: str, kernel_size: int
) -> tf.Tensor:
    border, (_, height, width, _) = kernel_size // 2, x.shape
    kernel = tf.transpose(kernel, [0, 1, 3, 2])  # (kh, kw, out, in), as this framework has it here
    shape = [tf.shape(x)[0], 2 * (height + border), 2 * (width + border), kernel.shape[2]]
    wider = tf.nn.conv2d_transpose(x, kernel, shape, 2, "VALID")
    y = wider[:, border : border + 2 * height, border : border + 2 * width]
    return ACTIVATIONS[activation](tf.nn.bias_add(y, bias))


def max_pool(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.max_pool2d(x, 2, 2, "VALID")


def upsample(x: tf.Tensor) -> tf.Tensor:
    sides = tf.shape(x) if None in x.shape[1:3] else x.shape  # an exported program takes any
    copies = tf.tile(x[:, :, None, :, None, :], [1, 1, 2, 1, 2, 1])
    return tf.reshape(copies, [-1, 2 * sides[1], 2 * sides[2], x.shape[3]])


def channels(x: tf.Tensor, *, start: int, stop: int) -> tf.Tensor:
    return x[..., start:stop]


def pad(x: tf.Tensor, *, width: int) -> tf.Tensor:
    return tf.pad(x, [[0, 0], [width] * 2, [width] * 2, [0, 0]])


def outside_centre(x: tf.Tensor) -> tf.Tensor:
    size = x.shape[1]
    border = [size // 4, size - size // 4 - size // 2]
    mask = 1 - tf.pad(tf.ones([1, size // 2, size // 2, 1], x.dtype), [[0, 0], border, border, [0, 0]])
    return x * mask


def add(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    return x + y


def concat(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    return tf.concat([x, y], 3)


def scale(x: tf.Tensor, *, factor: float) -> tf.Tensor:
    return x * tf.constant(factor, x.dtype)  # tf.cast would round a Python number to float32 first


def activate(x: tf.Tensor, *, activation: str) -> tf.Tensor:
    return ACTIVATIONS[activation](x)


def global_mean(x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(x, axis=(1, 2), keepdims=True)


def global_max(x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_max(x, axis=(1, 2), keepdims=True)


def channel_max_mean(x: tf.Tensor) -> tf.Tensor:
    return tf.concat([tf.reduce_max(x, axis=3, keepdims=True), tf.reduce_mean(x, axis=3, keepdims=True)], 3)


def channel_conv(x: tf.Tensor, *, kernel: tf.Tensor, kernel_size: int) -> tf.Tensor:
    rows = tf.transpose(x, [0, 3, 2, 1])  # the channels as the rows of a map of one channel, (B, C, 1, 1)
    return tf.transpose(tf.nn.conv2d(rows, kernel, 1, "SAME"), [0, 3, 2, 1])


def multiply(x: tf.Tensor, gate: tf.Tensor) -> tf.Tensor:
    return x * gate


def spectral_conv(x: tf.Tensor, *, real: tf.Tensor, imaginary: tf.Tensor, modes: int, scale: float) -> tf.Tensor:
    (height, width), like = x.shape[1:3], x
    x = tf.einsum("bhwc,pwk->bhpkc", x, constant(spectral.to_modes(width, modes), like))
    x = tf.einsum("bhpkc,pqhj->bqjkc", x, constant(spectral.to_signed_modes(height, modes), like))
    x = tf.einsum("bqjkc,qrjkcd->brjkd", x, as_product(real, imaginary))
    height, width = int(height * scale), int(width * scale)
    x = tf.einsum("brjkd,rshj->bshkd", x, constant(spectral.from_signed_modes(height, modes), like))
    return tf.einsum("bshkd,swk->bhwd", x, constant(spectral.from_modes(width, modes), like))


def factorised_spectral_conv(x: tf.Tensor, *, real: tf.Tensor, imaginary: tf.Tensor, modes: int) -> tf.Tensor:
    matrices, (height, width) = as_product(real, imaginary), x.shape[1:3]
    along_y = tf.einsum("bhwc,phk->bpkwc", x, constant(spectral.to_modes(height, modes), x))
    along_y = tf.einsum("bpkwc,prkcd->brkwd", along_y, matrices[:, :, 0])
    along_y = tf.einsum("brkwd,rhk->bhwd", along_y, constant(spectral.from_modes(height, modes), x))
    along_x = tf.einsum("bhwc,pwk->bhpkc", x, constant(spectral.to_modes(width, modes), x))
    along_x = tf.einsum("bhpkc,prkcd->bhrkd", along_x, matrices[:, :, 1])
    along_x = tf.einsum("bhrkd,rwk->bhwd", along_x, constant(spectral.from_modes(width, modes), x))
    return along_y + along_x


def instance_norm(x: tf.Tensor, *, epsilon: float) -> tf.Tensor:
    mean, variance = tf.nn.moments(x, axes=(1, 2), keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + tf.constant(epsilon, x.dtype))


def gain(x: tf.Tensor, *, gain: tf.Tensor, start: float) -> tf.Tensor:
    return x * gain


def coordinates(x: tf.Tensor) -> tf.Tensor:
    size = x.shape[1]
    places = constant(np.moveaxis(np.mgrid[:size, :size] / size, 0, -1), x)
    return tf.concat([x, tf.broadcast_to(places, [tf.shape(x)[0], size, size, 2])], 3)


OPS: dict[str, Callable[..., tf.Tensor]] = {
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


def constant(array: NDArray[np.float64], like: tf.Tensor) -> tf.Tensor:
    return tf.constant(array, like.dtype)


def as_product(real: tf.Tensor, imaginary: tf.Tensor) -> tf.Tensor:
    """A product with real + i · imaginary, (part before, part after, …)."""
    return tf.stack([tf.stack([real, imaginary]), tf.stack([-imaginary, real])])
