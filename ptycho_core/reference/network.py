"""The architecture table in float64, forward and backward: maps (B, H, W, C), kernels (kh, kw, in, out)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.special import expit

from ptycho_core.architecture import INPUT, Layer, Table
from ptycho_core.physics import outside_centre_mask

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
            linear = convolve(inputs[0], weights[f"{layer.name}/kernel"]) + weights[f"{layer.name}/bias"]
            outputs[before_activation(layer)] = linear
            outputs[layer.name] = ACTIVATIONS[layer.activation][0](linear)
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
            return pad(x, layer.width)
        case "outside_centre":
            return x * outside_centre_mask(x.shape[1])[..., None]
        case "add":
            return x + others[0]
        case "scale":
            return x * layer.factor
    raise ValueError(f"layer {layer.name!r}: this engine has no op {layer.op!r}")


def pull_back(
    table: Table, weights: Mapping[str, Array], outputs: Mapping[str, Array], cotangents: Mapping[str, Array]
) -> dict[str, Array]:
    """Gradient by every parameter, from the gradients by some layers' outputs; `outputs` as `run_table` gave them."""
    pending = dict(cotangents)
    gradients = {}
    for layer in reversed(table.layers):
        g = pending.pop(layer.name, np.zeros_like(outputs[layer.name]))
        x = outputs[layer.inputs[0]]
        if layer.op == "conv":
            kernel = weights[f"{layer.name}/kernel"]
            g = g * ACTIVATIONS[layer.activation][1](outputs[before_activation(layer)])
            gradients[f"{layer.name}/kernel"] = kernel_gradient(x, g, layer.kernel_size)
            gradients[f"{layer.name}/bias"] = g.sum(axis=(0, 1, 2))
            # The adjoint of a convolution: in and out exchanged, the window mirrored.
            g = convolve(g, kernel[::-1, ::-1].swapaxes(2, 3))
        else:
            g = layer_adjoint(layer, g, x)
        for name in layer.inputs:  # an "add" hands the same gradient to both
            pending[name] = pending[name] + g if name in pending else g
    return gradients


def layer_adjoint(layer: Layer, g: Array, x: Array) -> Array:
    """Gradient by the input x of a layer without parameters, from the gradient g by its output."""
    match layer.op:
        case "max_pool":
            windows = windows_of_2(x)
            routed = np.zeros_like(windows)
            np.put_along_axis(routed, windows.argmax(axis=-1)[..., None], g[..., None], axis=-1)
            b, h, w, c = g.shape
            return routed.reshape(b, h, w, c, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(x.shape)
        case "upsample":
            summed: Array = windows_of_2(g).sum(axis=-1)
            return summed
        case "channels":
            widened = np.zeros_like(x)
            widened[..., layer.start : layer.stop] = g
            return widened
        case "pad":
            return g[:, layer.width : -layer.width, layer.width : -layer.width]
        case "add":
            return g
    return run_layer(layer, g)  # outside_centre and scale are diagonal, their own adjoints


def before_activation(layer: Layer) -> str:
    """The name under which a conv's output before its activation is kept."""
    return f"{layer.name}/linear"


def convolve(x: Array, kernel: Array) -> Array:
    """Cross-correlation with zero "same" padding and stride 1: (B, H, W, in), (k, k, in, out) → (B, H, W, out)."""
    result: Array = np.tensordot(neighbourhoods(x, kernel.shape[0]), kernel, axes=([4, 5, 3], [0, 1, 2]))
    return result


def kernel_gradient(x: Array, g: Array, size: int) -> Array:
    """(k, k, in, out): Σ over batch and pixels of x in each pixel's neighbourhood times g there."""
    return np.moveaxis(np.tensordot(neighbourhoods(x, size), g, axes=([0, 1, 2], [0, 1, 2])), 0, 2)


def neighbourhoods(x: Array, size: int) -> Array:
    """(B, H, W, C, size, size): each pixel's surroundings, zero outside."""
    return sliding_window_view(pad(x, size // 2), (size, size), axis=(1, 2))


def pad(x: Array, width: int) -> Array:
    return np.pad(x, ((0, 0), (width, width), (width, width), (0, 0)))


def windows_of_2(x: Array) -> Array:
    """(B, H, W, C) → (B, H/2, W/2, C, 4): the pixels of each 2 × 2 square, row by row."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 5, 2, 4).reshape(b, h // 2, w // 2, c, 4)
