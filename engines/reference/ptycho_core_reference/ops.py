"""The architecture table in float64, forward and backward: maps (B, H, W, C), kernels (kh, kw, in, out)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.special import expit

from ptycho_core.networks.table import INPUT, Layer, Table
from ptycho_core.physics.weights import outside_centre_mask

Array = NDArray[np.float64]

ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "linear": (lambda x: x, np.ones_like),
    "relu": (lambda x: np.maximum(x, 0), lambda x: (x > 0).astype(np.float64)),
    "sigmoid": (expit, lambda x: expit(x) * expit(-x)),
    "swish": (lambda x: x * expit(x), lambda x: expit(x) * (1 + x * expit(-x))),
    "softplus": (lambda x: np.logaddexp(0, x), expit),
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
}
"""Each activation and its derivative."""


def run_table(table: Table, weights: Mapping[str, Array], x: Array) -> dict[str, Array]:
    """Every layer's output by name for the network input x (B, N, N, C); of a conv also its activation's input."""
    outputs = {INPUT: x}
    for layer in table.layers:
        inputs = [outputs[name] for name in layer.inputs]
        if layer.op == "conv":
            linear = convolve(inputs[0], weights[layer.kernel]) + weights[layer.bias]
            outputs[before_activation(layer)] = linear
            outputs[layer.name] = ACTIVATIONS[layer.activation][0](linear)
        elif layer.op == "channel_conv":
            outputs[layer.name] = along_channels(convolve(along_channels(inputs[0]), weights[layer.kernel]))
        else:
            outputs[layer.name] = run_layer(layer, *inputs)
    return outputs


def run_layer(layer: Layer, x: Array, *others: Array) -> Array:
    """A layer without parameters."""
    match layer.op:
        case "max_pool":
            largest: Array = windows_of_2(x).max(axis=-1)
            return largest
        case "upsample":
            return x.repeat(2, axis=1).repeat(2, axis=2)
        case "channels":
            return x[..., layer.start : layer.stop]
        case "pad":
            return pad(x, layer.width, layer.width)
        case "outside_centre":
            return x * outside_centre_mask(x.shape[1])[..., None]
        case "add":
            return x + others[0]
        case "scale":
            return x * layer.factor
        case "activate":
            return ACTIVATIONS[layer.activation][0](x)
        case "global_mean":
            mean: Array = x.mean(axis=(1, 2), keepdims=True)
            return mean
        case "global_max":
            peak: Array = x.max(axis=(1, 2), keepdims=True)
            return peak
        case "channel_max_mean":
            return np.concatenate([x.max(axis=3, keepdims=True), x.mean(axis=3, keepdims=True)], axis=3)
        case "multiply":
            return x * others[0]
    raise ValueError(f"layer {layer.name!r}: this engine has no op {layer.op!r}")


def pull_back(
    table: Table, weights: Mapping[str, Array], outputs: Mapping[str, Array], cotangents: Mapping[str, Array]
) -> dict[str, Array]:
    """Gradient by every parameter, from the gradients by some layers' outputs; `outputs` as `run_table` gave them."""
    pending = dict(cotangents)
    gradients = {name: np.zeros(shape) for name, shape in table.parameters.items()}
    for layer in reversed(table.layers):
        g = pending.pop(layer.name, np.zeros_like(outputs[layer.name]))
        inputs = [outputs[name] for name in layer.inputs]
        if layer.op == "conv":
            g = g * ACTIVATIONS[layer.activation][1](outputs[before_activation(layer)])
            gradients[layer.bias] += g.sum(axis=(0, 1, 2))
            by_kernel, by_x = convolution_gradients(inputs[0], weights[layer.kernel], g)
            gradients[layer.kernel] += by_kernel
            by_inputs: tuple[Array, ...] = (by_x,)
        elif layer.op == "channel_conv":
            x, g = along_channels(inputs[0]), along_channels(g)
            by_kernel, by_x = convolution_gradients(x, weights[layer.kernel], g)
            gradients[layer.kernel] += by_kernel
            by_inputs = (along_channels(by_x),)
        else:
            by_inputs = layer_gradients(layer, g, *inputs)
        for name, by_input in zip(layer.inputs, by_inputs, strict=True):
            pending[name] = pending[name] + by_input if name in pending else by_input
    return gradients


def layer_gradients(layer: Layer, g: Array, x: Array, *others: Array) -> tuple[Array, ...]:
    """Gradients by the inputs of a layer without parameters, from the gradient g by its output."""
    match layer.op:
        case "max_pool":
            windows = windows_of_2(x)
            routed = np.zeros_like(windows)
            np.put_along_axis(routed, windows.argmax(axis=-1)[..., None], g[..., None], axis=-1)
            b, h, w, c = g.shape
            return (routed.reshape(b, h, w, c, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(x.shape),)
        case "upsample":
            return (windows_of_2(g).sum(axis=-1),)
        case "channels":
            widened = np.zeros_like(x)
            widened[..., layer.start : layer.stop] = g
            return (widened,)
        case "pad":
            return (g[:, layer.width : -layer.width, layer.width : -layer.width],)
        case "add":
            return g, g
        case "activate":
            return (g * ACTIVATIONS[layer.activation][1](x),)
        case "global_mean":
            return (np.broadcast_to(g / (x.shape[1] * x.shape[2]), x.shape),)
        case "global_max":
            return (g * share_of_largest(x, axis=(1, 2)),)
        case "channel_max_mean":
            return (g[..., :1] * share_of_largest(x, axis=3) + g[..., 1:] / x.shape[3],)
        case "multiply":
            by_gate = g * x
            gate = others[0]
            shared = tuple(axis for axis in range(4) if gate.shape[axis] != x.shape[axis])
            return g * gate, by_gate.sum(axis=shared, keepdims=True)
    return (run_layer(layer, g),)  # outside_centre and scale are diagonal, their own adjoints


def share_of_largest(x: Array, axis: int | tuple[int, ...]) -> Array:
    """1 at the largest number along `axis`, 0 elsewhere; several that are equal share it."""
    largest = x == x.max(axis=axis, keepdims=True)
    share: Array = largest / largest.sum(axis=axis, keepdims=True)
    return share


def along_channels(x: Array) -> Array:
    """(B, 1, 1, C) as a map (B, C, 1, 1) of one channel, and back."""
    return x.swapaxes(1, 3)


def before_activation(layer: Layer) -> str:
    """The name under which a conv's output before its activation is kept."""
    return f"{layer.name}/linear"


def convolve(x: Array, kernel: Array) -> Array:
    """Cross-correlation with zero "same" padding and stride 1: (B, H, W, in), (kh, kw, in, out) → (B, H, W, out)."""
    window = kernel.shape[0], kernel.shape[1]
    result: Array = np.tensordot(neighbourhoods(x, window), kernel, axes=([4, 5, 3], [0, 1, 2]))
    return result


def convolution_gradients(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
    """Gradients by kernel and x from the gradient g by what `convolve` gives."""
    # Σ over batch and pixels of x in each pixel's neighbourhood times g there.
    window = kernel.shape[0], kernel.shape[1]
    by_kernel = np.moveaxis(np.tensordot(neighbourhoods(x, window), g, axes=([0, 1, 2], [0, 1, 2])), 0, 2)
    # The adjoint of a convolution: in and out exchanged, the window mirrored.
    return by_kernel, convolve(g, kernel[::-1, ::-1].swapaxes(2, 3))


def neighbourhoods(x: Array, window: tuple[int, int]) -> Array:
    """(B, H, W, C, kh, kw): each pixel's surroundings, zero outside."""
    return sliding_window_view(pad(x, window[0] // 2, window[1] // 2), window, axis=(1, 2))


def pad(x: Array, along_y: int, along_x: int) -> Array:
    return np.pad(x, ((0, 0), (along_y, along_y), (along_x, along_x), (0, 0)))


def windows_of_2(x: Array) -> Array:
    """(B, H, W, C) → (B, H/2, W/2, C, 4): the pixels of each 2 × 2 square, row by row."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 5, 2, 4).reshape(b, h // 2, w // 2, c, 4)
