"""The architecture table in float64, forward and backward: maps (B, H, W, C), kernels (kh, kw, in, out).

An op returns its output and the way back: a function from the gradient by the output to those by the inputs and then
the parameters, in their order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.special import expit, ndtr

from ptycho_core.networks.ops import check_output, op_function
from ptycho_core.networks.table import INPUT, Table
from ptycho_core.physics.weights import outside_centre_mask
from ptycho_core_reference.steps import correct, data_step, in_gauge, warm_sweeps

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Back = Callable[[Array], tuple[Array, ...]]

ENGINE = "reference"
ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "linear": (lambda x: x, np.ones_like),
    "relu": (lambda x: np.maximum(x, 0), lambda x: (x > 0).astype(np.float64)),
    "sigmoid": (expit, lambda x: expit(x) * expit(-x)),
    "swish": (lambda x: x * expit(x), lambda x: expit(x) * (1 + x * expit(-x))),
    "softplus": (lambda x: np.logaddexp(0, x), expit),
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "gelu": (lambda x: x * ndtr(x), lambda x: ndtr(x) + x * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)),
}
"""Each activation and its derivative."""


def run_table(
    table: Table, weights: Mapping[str, Array], x: Array, scene: Any = None
) -> tuple[dict[str, Array], dict[str, Back]]:
    """Every layer's output by name for the network input x (B, N, N, C), and every layer's way back.

    scene: what ops of the physics see of the batch.
    """
    outputs: dict[str, Array] = {INPUT: x}
    ways_back: dict[str, Back] = {}
    for layer in table.layers:
        function = op_function(layer, ENGINE, OPS)
        inputs = (outputs[name] for name in layer.inputs)
        own = {parameter: weights[name] for parameter, name in layer.uses.items()}
        seen = {"scene": scene} if layer.sees_batch else {}
        outputs[layer.name], ways_back[layer.name] = function(*inputs, **own, **layer.settings, **seen)
        if layer.op not in OPS:
            check_output(layer, outputs[layer.inputs[0]].shape, outputs[layer.name], channels_at=3)
    return outputs, ways_back


def pull_back(table: Table, ways_back: Mapping[str, Back], cotangents: Mapping[str, Array]) -> dict[str, Array]:
    """Gradient by every parameter, from the gradients by some layers' outputs; `ways_back` as `run_table` gave them.

    Ops of the physics add theirs by the probe to their scene.
    """
    found = dict(cotangents)
    gradients = {name: np.zeros(shape) for name, shape in table.parameters.items()}
    for layer in reversed(table.layers):
        if layer.name not in found:  # it leads nowhere
            continue
        by_inputs_and_parameters = ways_back[layer.name](found.pop(layer.name))
        names = (*layer.inputs, *layer.uses.values())
        for name, gradient in zip(names, by_inputs_and_parameters, strict=True):
            known = gradients if name in gradients else found
            known[name] = known[name] + gradient if name in known else gradient
    return gradients


# -- ops -----------------------------------------------------------------------------------------------------------


def conv(
    x: Array, *, kernel: Array, bias: Array, activation: str, kernel_size: int, stride: int, padding: str
) -> tuple[Array, Back]:
    border = kernel_size // 2 if padding == "reflect" else 0
    wider = reflected(x, border)
    every = convolve(wider, kernel)
    kept = np.s_[:, border : x.shape[1] + border : stride, border : x.shape[2] + border : stride]
    linear = every[kept] + bias
    function, derivative = ACTIVATIONS[activation]

    def back(g: Array) -> tuple[Array, ...]:
        g = g * derivative(linear)
        by_every = np.zeros_like(every)
        by_every[kept] = g
        by_kernel, by_wider = convolution_gradients(wider, kernel, by_every)
        return reflected_adjoint(by_wider, border), by_kernel, g.sum(axis=(0, 1, 2))

    return function(linear), back


def transposed_conv(x: Array, *, kernel: Array, bias: Array, activation: str, kernel_size: int) -> tuple[Array, Back]:
    spread = np.zeros((len(x), 2 * x.shape[1], 2 * x.shape[2], x.shape[3]))
    spread[:, ::2, ::2] = x
    mirrored = kernel[::-1, ::-1]
    linear = convolve(spread, mirrored) + bias
    function, derivative = ACTIVATIONS[activation]

    def back(g: Array) -> tuple[Array, ...]:
        g = g * derivative(linear)
        by_mirrored, by_spread = convolution_gradients(spread, mirrored, g)
        return by_spread[:, ::2, ::2], by_mirrored[::-1, ::-1], g.sum(axis=(0, 1, 2))

    return function(linear), back


def spectral_conv(x: Array, *, real: Array, imaginary: Array, modes: int, scale: float) -> tuple[Array, Back]:
    sides = x.shape[1:3]
    larger = tuple(int(side * scale) for side in sides)
    kept = np.ix_(np.r_[0:modes, -modes:0], np.r_[0:modes])
    return mixed(x, real + 1j * imaginary, (1, 2), kept, sides, larger)


def factorised_spectral_conv(x: Array, *, real: Array, imaginary: Array, modes: int) -> tuple[Array, Back]:
    matrices, kept = real + 1j * imaginary, (np.r_[0:modes],)
    x_by_rows = x.swapaxes(1, 2)
    along_y, back_y = mixed(x_by_rows, matrices[0], (2,), kept, x.shape[1:2], x.shape[1:2])
    along_x, back_x = mixed(x, matrices[1], (2,), kept, x.shape[2:3], x.shape[2:3])

    def back(g: Array) -> tuple[Array, ...]:
        (by_rows, *first), (by_x, *second) = back_y(g.swapaxes(1, 2)), back_x(g)
        return by_rows.swapaxes(1, 2) + by_x, *(np.stack(both) for both in zip(first, second, strict=True))

    return along_y.swapaxes(1, 2) + along_x, back


def instance_norm(x: Array, *, epsilon: float) -> tuple[Array, Back]:
    deviation = np.sqrt(x.var(axis=(1, 2), keepdims=True) + epsilon)
    normal = (x - x.mean(axis=(1, 2), keepdims=True)) / deviation

    def back(g: Array) -> tuple[Array, ...]:
        along = (g * normal).mean(axis=(1, 2), keepdims=True)
        return ((g - g.mean(axis=(1, 2), keepdims=True) - normal * along) / deviation,)

    return normal, back


def gain(x: Array, *, gain: Array, start: float) -> tuple[Array, Back]:
    return x * gain, lambda g: (g * gain, (g * x).sum(axis=(0, 1, 2)))


def coordinates(x: Array) -> tuple[Array, Back]:
    size, channels = x.shape[1], x.shape[3]
    places = np.broadcast_to(np.moveaxis(np.mgrid[:size, :size] / size, 0, -1), (*x.shape[:3], 2))
    return np.concatenate([x, places], axis=3), lambda g: (g[..., :channels],)


def max_pool(x: Array) -> tuple[Array, Back]:
    windows = windows_of_2(x)

    def back(g: Array) -> tuple[Array, ...]:
        routed = np.zeros_like(windows)
        np.put_along_axis(routed, windows.argmax(axis=-1)[..., None], g[..., None], axis=-1)
        b, h, w, c = g.shape
        return (routed.reshape(b, h, w, c, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(x.shape),)

    return windows.max(axis=-1), back


def upsample(x: Array) -> tuple[Array, Back]:
    return x.repeat(2, axis=1).repeat(2, axis=2), lambda g: (windows_of_2(g).sum(axis=-1),)


def channels(x: Array, *, start: int, stop: int) -> tuple[Array, Back]:
    def back(g: Array) -> tuple[Array, ...]:
        widened = np.zeros_like(x)
        widened[..., start:stop] = g
        return (widened,)

    return x[..., start:stop], back


def pad(x: Array, *, width: int) -> tuple[Array, Back]:
    return bordered(x, width, width), lambda g: (g[:, width : x.shape[1] + width, width : x.shape[2] + width],)


def outside_centre(x: Array) -> tuple[Array, Back]:
    mask = outside_centre_mask(x.shape[1])[..., None]
    return x * mask, lambda g: (g * mask,)


def add(x: Array, y: Array) -> tuple[Array, Back]:
    return x + y, lambda g: (g, g)


def concat(x: Array, y: Array) -> tuple[Array, Back]:
    first = x.shape[3]
    return np.concatenate([x, y], axis=3), lambda g: (g[..., :first], g[..., first:])


def scale(x: Array, *, factor: float) -> tuple[Array, Back]:
    return x * factor, lambda g: (g * factor,)


def activate(x: Array, *, activation: str) -> tuple[Array, Back]:
    function, derivative = ACTIVATIONS[activation]
    return function(x), lambda g: (g * derivative(x),)


def global_mean(x: Array) -> tuple[Array, Back]:
    pixels = x.shape[1] * x.shape[2]
    return x.mean(axis=(1, 2), keepdims=True), lambda g: (np.broadcast_to(g / pixels, x.shape),)


def global_max(x: Array) -> tuple[Array, Back]:
    return x.max(axis=(1, 2), keepdims=True), lambda g: (g * share_of_largest(x, axis=(1, 2)),)


def channel_max_mean(x: Array) -> tuple[Array, Back]:
    largest, mean = x.max(axis=3, keepdims=True), x.mean(axis=3, keepdims=True)
    return (
        np.concatenate([largest, mean], axis=3),
        lambda g: (g[..., :1] * share_of_largest(x, axis=3) + g[..., 1:] / x.shape[3],),
    )


def channel_conv(x: Array, *, kernel: Array, kernel_size: int) -> tuple[Array, Back]:
    rows = along_channels(x)

    def back(g: Array) -> tuple[Array, ...]:
        by_kernel, by_rows = convolution_gradients(rows, kernel, along_channels(g))
        return along_channels(by_rows), by_kernel

    return along_channels(convolve(rows, kernel)), back


def multiply(x: Array, gate: Array) -> tuple[Array, Back]:
    shared = tuple(axis for axis in range(4) if gate.shape[axis] != x.shape[axis])
    return x * gate, lambda g: (g * gate, (g * x).sum(axis=shared, keepdims=True))


OPS: dict[str, Callable[..., tuple[Array, Back]]] = {
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


def mixed(
    x: Array,
    matrices: Complex,
    axes: tuple[int, ...],
    kept: tuple[NDArray[np.int64], ...],
    sides: tuple[int, ...],
    larger: tuple[int, ...],
) -> tuple[Array, Back]:
    """Coefficients of x (B, H, W, in) along `axes`, those `kept` times their matrices (…, in, out), and back.

    The axes are (1, 2) or the last before the channels. sides, larger: pixels along them, before and after.
    """
    places: tuple[slice | NDArray[np.int64], ...] = (*(slice(None) for _ in range(axes[0])), *kept)
    columns = np.where(kept[-1] == 0, 1, 2)[..., None]  # of a real map, column k stands for column −k too
    coefficients = (np.fft.fftn(x, axes=axes) / math.prod(sides))[places]
    changed = np.einsum("...i,...io->...o", coefficients, matrices)

    def spread(of_kept: Complex, sides: tuple[int, ...]) -> Complex:
        shape = [*of_kept.shape]
        for axis, side in zip(axes, sides, strict=True):
            shape[axis] = side
        every = np.zeros(shape, complex)
        every[places] = of_kept
        return every

    def back(g: Array) -> tuple[Array, ...]:
        by_changed = columns * np.fft.fftn(g, axes=axes)[places]
        by_matrices = np.einsum("...i,...o->...io", coefficients.conj(), by_changed)
        by_matrices = by_matrices.sum(axis=tuple(range(axes[0])))
        by_coefficients = np.einsum("...o,...io->...i", by_changed, matrices.conj())
        by_x = np.fft.ifftn(spread(by_coefficients, sides), axes=axes).real
        return by_x, by_matrices.real, by_matrices.imag

    given = np.fft.ifftn(spread(columns * changed, larger), axes=axes) * math.prod(larger)
    return given.real, back


def reflected(x: Array, border: int) -> Array:
    return np.pad(x, ((0, 0), (border, border), (border, border), (0, 0)), mode="reflect")


def reflected_adjoint(g: Array, border: int) -> Array:
    """Every pixel of the border is added to the one that it mirrors."""
    for axis in (1, 2) if border else ():
        g = np.moveaxis(g, axis, 0)
        inner = g[border:-border].copy()
        inner[1 : border + 1] += g[:border][::-1]
        inner[-border - 1 : -1] += g[-border:][::-1]
        g = np.moveaxis(inner, 0, axis)
    return g


def share_of_largest(x: Array, axis: int | tuple[int, ...]) -> Array:
    """1 at the largest number along `axis`, 0 elsewhere; several that are equal share it."""
    largest = x == x.max(axis=axis, keepdims=True)
    share: Array = largest / largest.sum(axis=axis, keepdims=True)
    return share


def along_channels(x: Array) -> Array:
    """(B, 1, 1, C) as a map (B, C, 1, 1) of one channel, and back."""
    return x.swapaxes(1, 3)


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
    return sliding_window_view(bordered(x, window[0] // 2, window[1] // 2), window, axis=(1, 2))


def bordered(x: Array, along_y: int, along_x: int) -> Array:
    return np.pad(x, ((0, 0), (along_y, along_y), (along_x, along_x), (0, 0)))


def windows_of_2(x: Array) -> Array:
    """(B, H, W, C) → (B, H/2, W/2, C, 4): the pixels of each 2 × 2 square, row by row."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 5, 2, 4).reshape(b, h // 2, w // 2, c, 4)
