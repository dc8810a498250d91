"""Ops: what a layer of a table can do, said once for all engines and writers of programs (specs/model.md, Layers).

An op is described here and computed elsewhere: by the function of its name in `OPS` of an engine's `ops.py`. One of
your own brings its functions along, in whatever file you like:

    register_op(
        "leaky",
        "x where it is positive, else `slope` · x",
        settings={"slope": 0.1},
        torch=lambda x, *, slope: torch.where(x > 0, x, slope * x),
        tensorflow="my_package.keras_ops:leaky",  # imported when it is first used
    )

and is then a layer of any table: `table.op("trunk/leaky", "leaky", x, slope=0.2)`.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import attrs

from ptycho_core.errors import BackendError, ConfigurationError
from ptycho_core.registry import faults_of, is_same

Shape = tuple[int, ...]
Initial = Callable[["Layer", Shape, Any], Any]
"""A layer, the shape of its parameter and a numpy Generator → what the parameter begins with, or one number for all."""
Function = Callable[..., Any]


@attrs.frozen
class Layer:
    """One step of a table: an op, its inputs and settings. Its output goes by `name`.

    inputs: names of earlier outputs. in_channels: of each of them. settings: every setting of the op, by name.
    shares: the layer whose parameters it uses in place of its own.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    in_channels: tuple[int, ...]
    out_channels: int
    settings: Mapping[str, Any] = attrs.field(factory=dict)
    shares: str = ""

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shape of every parameter that its function is given, by the op's own name for it, such as "kernel"."""
        return dict(op_named(self.op).parameters(self))

    @property
    def uses(self) -> dict[str, str]:
        """The op's name of a parameter → its canonical name, such as "encoder/conv0/kernel"."""
        return {parameter: f"{self.shares or self.name}/{parameter}" for parameter in self.shapes}

    @property
    def sees_batch(self) -> bool:
        """Whether it is of the physics, and its function given the batch."""
        return op_named(self.op).sees_batch

    @property
    def parameters(self) -> dict[str, Shape]:
        """Canonical names and shapes of the parameters that it brings; none where it shares those of another layer."""
        return {} if self.shares else {f"{self.name}/{parameter}": shape for parameter, shape in self.shapes.items()}

    def size(self, size: int) -> int:
        """Pixels along a side of its output, from those of its first input."""
        return op_named(self.op).size(size, self)


@attrs.frozen
class Op:
    """What an op is.

    meaning: one line, as in specs/model.md. inputs: how many. settings: name → default, or a type where it must be
    given. parameters: layer → name and shape of each; one called "kernel" is (kh, kw, in, out), begins as Glorot has it
    and decays, and an engine may hold it in a layout of its own. initial: what any other begins with, a number or how
    it is drawn, unless with 0.
    out_channels: of the output; None where each layer says so. size: pixels along a side of the input, and the layer →
    those of the output. sees_batch: whether it is an op of the physics, whose function is given the batch as `scene`
    (specs/model.md, Tables of a canvas). functions: engine → what computes it, or "module:function", which is imported
    when it is first used; those of our own ops are in each engine's `ops.py` instead.
    """

    name: str
    meaning: str
    inputs: int
    settings: Mapping[str, Any]
    parameters: Callable[[Layer], Mapping[str, Shape]]
    initial: Mapping[str, float | Initial]
    out_channels: Callable[[Layer], int] | None
    size: Callable[[int, Layer], int]
    sees_batch: bool
    functions: Mapping[str, Function | str]


_OPS: dict[str, Op] = {}
_OURS: set[str] = set()


def register_op(
    name: str,
    meaning: str,
    *,
    inputs: int = 1,
    settings: Mapping[str, Any] = MappingProxyType({}),
    parameters: Callable[[Layer], Mapping[str, Shape]] = lambda layer: {},
    initial: Mapping[str, float | Initial] = MappingProxyType({}),
    out_channels: Callable[[Layer], int] | None = lambda layer: layer.in_channels[0],
    size: Callable[[int, Layer], int] = lambda size, layer: size,
    sees_batch: bool = False,
    replace: bool = False,
    **functions: Function | str,
) -> None:
    """Make an op available to every table: what it is, as the fields of `Op` say, and a function for each engine.

    A function takes the inputs, then parameters and settings by name, as the engine's own tensors in its own layout
    (batches of maps, channels last, but (B, C, H, W) in torch), and returns the output. Engines: "torch", "tensorflow"
    and any other by its name; "onnx", which is given the graph before the inputs, for `ptycho export`; "reference", in
    float64 and with its gradient (see `ptycho_core_reference.ops`), for the contract tests.

    The same functions, defined again as in a notebook, take their own place; ConfigurationError for any other name that
    is taken, unless `replace`. No op of ours is replaced.
    """
    if name in _OPS and (name in _OURS or not (replace or _same_functions(_OPS[name].functions, functions))):
        remedy = "Choose another name." if name in _OURS else "Choose another name, or pass replace=True."
        raise ConfigurationError(f"op {name!r}", received="registered already", remedy=remedy)
    for engine, function in functions.items():
        if not callable(function) and not (isinstance(function, str) and function.count(":") == 1):
            raise ValueError(f"op {name!r}: {engine}: expected a function or 'module:function'; received {function!r}")
    _OPS[name] = Op(name, meaning, inputs, settings, parameters, initial, out_channels, size, sees_batch, functions)


def _same_functions(one: Mapping[str, Function | str], other: Mapping[str, Function | str]) -> bool:
    """Whether the functions of two ops are the same definitions, run twice."""
    alike = one.keys() == other.keys() and all(
        one[each] == other[each] or is_same(one[each], other[each]) for each in one
    )
    return alike and bool(one)


def registered_ops() -> tuple[str, ...]:
    """Names of all ops, ours first."""
    return tuple(_OPS)


def op_named(name: str) -> Op:
    """The op; ValueError for a name that no op has."""
    if name not in _OPS:
        raise ValueError(f"unknown op {name!r}; registered ops: {', '.join(_OPS)}")
    return _OPS[name]


def op_function(layer: Layer, engine: str, own: Mapping[str, Function]) -> Function:
    """What computes a layer on an engine: one of its `own` functions, or the one that the op was registered with.

    Raises BackendError where there is neither.
    """
    if layer.op in own:
        return own[layer.op]
    functions = op_named(layer.op).functions
    own_network = getattr(layer.settings.get("own"), "place", None)
    if engine not in functions and own_network is not None:
        there, remedy = " or ".join(functions), "A network as a table exists in every engine."
        expected = f"{there}, as {own_network} is a network of that framework alone"
        raise BackendError(
            f"architecture {own_network!r}", "backend", expected=expected, received=repr(engine), remedy=remedy
        )
    if engine not in functions:
        raise BackendError(
            f"layer {layer.name!r}: op {layer.op!r}",
            expected=f"a function for {engine!r}",
            received=f"functions for {', '.join(functions) or 'none'}",
            remedy=f"Register it with one, register_op({layer.op!r}, …, {engine}=…), or choose another engine.",
            setting="backend",
        )
    return _Brought(layer.name, layer.op, functions[engine])


@attrs.frozen
class _Brought:
    """The function of an op that was registered with it, or where it is."""

    layer: str
    op: str
    function: Function | str

    def __call__(self, *inputs: Any, **rest: Any) -> Any:
        with faults_of(f"layer {self.layer!r}: op {self.op!r}", "a function that computes its maps"):
            if isinstance(self.function, str):
                module, _, attribute = self.function.partition(":")
                return getattr(importlib.import_module(module), attribute)(*inputs, **rest)
            return self.function(*inputs, **rest)


def check_output(layer: Layer, first: Shape, output: Any, *, channels_at: int) -> None:
    """ConfigurationError where an op that a program brings along gives other maps than it says.

    first: the shape of its first input. channels_at: which axis has the channels, of the four.
    """
    expected = [layer.size(side) for axis, side in enumerate(first) if axis not in (0, channels_at)]
    expected.insert(channels_at - 1, layer.out_channels)
    received = list(getattr(output, "shape", ()))
    if expected != received[1:]:
        given = f"an array of {tuple(received)}" if hasattr(output, "shape") else type(output).__name__
        remedy = "Correct its function, or what register_op says of its channels and size."
        what, wanted = f"layer {layer.name!r}: op {layer.op!r}", f"an array of {(first[0], *expected)}"
        raise ConfigurationError(what, expected=wanted, received=given, remedy=remedy)


def check_ops(layers: Iterable[Layer], engine: str, own: Mapping[str, Function]) -> None:
    """BackendError, as `op_function`, unless the engine can compute every layer."""
    for layer in layers:
        op_function(layer, engine, own)


# -- our own -------------------------------------------------------------------------------------------------------


def _convolution(layer: Layer) -> dict[str, Shape]:
    side = layer.settings["kernel_size"]
    return {"kernel": (side, side, layer.in_channels[0], layer.out_channels), "bias": (layer.out_channels,)}


register_op(
    "conv",
    "cross-correlation, kernel k × k (kh, kw, in, out), k odd and 3 unless said otherwise, zero padding of (k − 1)/2 "
    "on every side (`reflect`: mirrored about the outermost pixels instead), stride 1 (`stride`: every such pixel "
    "along y and x, from the first on), plus bias, then activation; kernel and bias are its own or those of the conv "
    "that it `shares`",
    settings={"activation": "linear", "kernel_size": 3, "stride": 1, "padding": "zeros"},
    parameters=_convolution,
    out_channels=None,
    size=lambda size, layer: -(-size // layer.settings["stride"]),
)
register_op("max_pool", "maximum of 2 × 2, stride 2", size=lambda size, layer: size // 2)
register_op("upsample", "every pixel becomes 2 × 2 equal ones (nearest neighbour)", size=lambda size, layer: 2 * size)
register_op(
    "channels",
    "channels `start` ≤ c < `stop`",
    settings={"start": int, "stop": int},
    out_channels=lambda layer: layer.settings["stop"] - layer.settings["start"],
)
register_op(
    "pad",
    "`width` zeros on every side",
    settings={"width": int},
    size=lambda size, layer: size + 2 * layer.settings["width"],
)
register_op("outside_centre", "0 in rows and columns N/4 … 3N/4 − 1, unchanged elsewhere")
register_op("add", "sum of two inputs", inputs=2)
register_op(
    "concat",
    "channels of the first input, then those of the second",
    inputs=2,
    out_channels=lambda layer: sum(layer.in_channels),
)
register_op("scale", "times the constant `factor`", settings={"factor": float})
register_op("activate", "an activation alone", settings={"activation": str})
register_op("global_mean", "mean over all pixels, `(B, 1, 1, channels)`", size=lambda size, layer: 1)
register_op("global_max", "maximum over all pixels, `(B, 1, 1, channels)`", size=lambda size, layer: 1)
register_op(
    "channel_max_mean",
    "two channels: the maximum over the channels, then their mean",
    out_channels=lambda layer: 2,
)
register_op(
    "channel_conv",
    "of `(B, 1, 1, channels)`: cross-correlation along the channels, kernel (k, 1, 1, 1), k odd, zero padding of "
    "(k − 1)/2 at both ends, no bias",
    settings={"kernel_size": int},
    parameters=lambda layer: {"kernel": (layer.settings["kernel_size"], 1, 1, 1)},
)
register_op(
    "multiply",
    "the first input times the second, a gate of one pixel `(B, 1, 1, channels)` or of one channel `(B, H, W, 1)`",
    inputs=2,
)


def _spectral_size(size: int, layer: Layer) -> int:
    """ValueError where the maps have fewer modes than are kept."""
    given = int(size * layer.settings.get("scale", 1))
    if 2 * layer.settings["modes"] > min(size, given):
        expected = f"modes of at most half of {min(size, given)} pixels"
        raise ValueError(f"layer {layer.name!r}: expected {expected}; received {layer.settings['modes']}")
    return given


def _complex_glorot(layer: Layer, shape: Shape, rng: Any) -> Any:
    limit = math.sqrt(3 / (layer.in_channels[0] + layer.out_channels))
    return rng.uniform(-limit, limit, shape)


register_op(
    "transposed_conv",
    "the adjoint of a conv of stride 2 with zeros around: twice the side, y[2i + t − (k − 1)/2] += x[i] · kernel[t] "
    "along both axes, kernel (kh, kw, in, out); plus bias, then activation",
    settings={"activation": "linear", "kernel_size": 3},
    parameters=_convolution,
    out_channels=None,
    size=lambda size, layer: 2 * size,
)
register_op(
    "spectral_conv",
    "of the Fourier coefficients of a map the m = `modes` lowest each way, rows 0 … m − 1, −m … −1 and columns "
    "0 … m − 1, each times a complex matrix (in, out) of its own, all others 0, and back to a real map, of `scale` "
    "times as many pixels a side; the matrices are `real` + i `imaginary`, (2m, m, in, out) (Spectral convolutions)",
    settings={"modes": int, "scale": 1.0},
    parameters=lambda layer: dict.fromkeys(
        ("real", "imaginary"),
        (2 * layer.settings["modes"], layer.settings["modes"], layer.in_channels[0], layer.out_channels),
    ),
    initial={"real": _complex_glorot, "imaginary": _complex_glorot},
    out_channels=None,
    size=_spectral_size,
)
register_op(
    "factorised_spectral_conv",
    "the sum of two such in one dimension, along y and along x: coefficients 0 … m − 1, each times a complex matrix; "
    "`real` and `imaginary` (2, m, in, out), y first",
    settings={"modes": int},
    parameters=lambda layer: dict.fromkeys(
        ("real", "imaginary"), (2, layer.settings["modes"], layer.in_channels[0], layer.out_channels)
    ),
    initial={"real": _complex_glorot, "imaginary": _complex_glorot},
    out_channels=None,
    size=_spectral_size,
)
register_op(
    "instance_norm",
    "each map of each example less its mean over the pixels, over √(its variance + `epsilon`)",
    settings={"epsilon": 1e-5},
)
register_op(
    "gain",
    "times a learned number for each channel, `gain` (channels,), `start` to begin with",
    settings={"start": 1.0},
    parameters=lambda layer: {"gain": (layer.out_channels,)},
    initial={"gain": lambda layer, shape, rng: layer.settings["start"]},
)
register_op(
    "coordinates",
    "the input, then two channels: row and column of the pixel over the pixels of a side, 0 ≤ … < 1",
    out_channels=lambda layer: layer.in_channels[0] + 2,
)

# -- of the physics: specs/physics.md, Data steps ------------------------------------------------------------------

register_op(
    "warm_sweeps",
    "of a canvas: `sweeps` data steps of `epsilon` with `momentum`; no gradient flows through them "
    "(`specs/physics.md`, Data steps)",
    settings={"sweeps": int, "epsilon": 0.01, "momentum": 0.7},
    sees_batch=True,
)
register_op(
    "data_step",
    "of a canvas: `(B, Q, Q, 5)`, [Re, Im of the canvas after one data step of `epsilon`, Re, Im of its change U, "
    "cover]",
    settings={"epsilon": 0.1},
    out_channels=lambda layer: 5,
    sees_batch=True,
)
register_op(
    "in_gauge",
    "of what `data_step` gives: canvas and change divided by the gauge m, then cover and noise: [Re(O/m) − 1, Im(O/m), "
    "Re(U/m), Im(U/m), cover, noise]",
    out_channels=lambda layer: 6,
    sees_batch=True,
)
register_op(
    "correct",
    "of what `data_step` gives and two maps y: the canvas O + m·(y₀ + i y₁)",
    inputs=2,
    out_channels=lambda layer: 2,
    sees_batch=True,
)

_OURS.update(_OPS)
