"""The architecture table, run in this framework."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from ptycho_core.networks.table import INPUT, Layer, Table

ACTIVATIONS = {
    "linear": lambda x: x,
    "relu": tf.nn.relu,
    "sigmoid": tf.sigmoid,
    "swish": tf.nn.silu,
    "softplus": tf.nn.softplus,
    "tanh": tf.tanh,
}


def run_table(table: Table, parameters: Mapping[str, tf.Tensor], x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Amplitude and phase maps (B, N, N, C) of the network input x (B, N, N, C)."""
    outputs = {INPUT: x}
    for layer in table.layers:
        outputs[layer.name] = run_layer(layer, parameters, *(outputs[name] for name in layer.inputs))
    return outputs[table.amplitude], outputs[table.phase]


def run_layer(layer: Layer, parameters: Mapping[str, tf.Tensor], x: tf.Tensor, *others: tf.Tensor) -> tf.Tensor:
    match layer.op:
        case "conv":
            kernel, bias = (tf.cast(parameters[name], x.dtype) for name in (layer.kernel, layer.bias))
            return ACTIVATIONS[layer.activation](tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME"), bias))
        case "max_pool":
            return tf.nn.max_pool2d(x, 2, 2, "VALID")
        case "upsample":
            _, height, width, channels = x.shape
            copies = tf.tile(x[:, :, None, :, None, :], [1, 1, 2, 1, 2, 1])
            return tf.reshape(copies, [-1, 2 * height, 2 * width, channels])
        case "channels":
            return x[..., layer.start : layer.stop]
        case "pad":
            return tf.pad(x, [[0, 0], [layer.width] * 2, [layer.width] * 2, [0, 0]])
        case "outside_centre":
            size = x.shape[1]
            border = [size // 4, size - size // 4 - size // 2]
            mask = 1 - tf.pad(tf.ones([1, size // 2, size // 2, 1], x.dtype), [[0, 0], border, border, [0, 0]])
            return x * mask
        case "add":
            return x + others[0]
        case "scale":
            return x * tf.constant(layer.factor, x.dtype)  # tf.cast would round a Python number to float32 first
        case "activate":
            return ACTIVATIONS[layer.activation](x)
        case "global_mean":
            return tf.reduce_mean(x, axis=(1, 2), keepdims=True)
        case "global_max":
            return tf.reduce_max(x, axis=(1, 2), keepdims=True)
        case "channel_max_mean":
            return tf.concat([tf.reduce_max(x, axis=3, keepdims=True), tf.reduce_mean(x, axis=3, keepdims=True)], 3)
        case "channel_conv":  # the channels as the rows of a map of one channel, (B, C, 1, 1)
            kernel = tf.cast(parameters[layer.kernel], x.dtype)
            return tf.transpose(tf.nn.conv2d(tf.transpose(x, [0, 3, 2, 1]), kernel, 1, "SAME"), [0, 3, 2, 1])
        case "multiply":
            return x * others[0]
    raise ValueError(f"layer {layer.name!r}: this engine has no op {layer.op!r}")
