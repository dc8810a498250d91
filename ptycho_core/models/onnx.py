"""The architecture table as an ONNX graph (specs/engine.md, Export). Needs the `onnx` package and no framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from ptycho_core.errors import MissingExtraError
from ptycho_core.layouts import HWIO_TO_OIHW
from ptycho_core.models.onnx_steps import Field, Scene, correct, data_step, in_gauge, warm_sweeps
from ptycho_core.models.signature import (
    AMPLITUDE,
    BAD_PIXELS,
    CHANNELS_LAST,
    COUNTS_PER_INTENSITY,
    MEAN_INTENSITY,
    OFFSETS,
    PROBE,
    Signature,
)
from ptycho_core.networks import spectral
from ptycho_core.networks.ops import op_function
from ptycho_core.networks.registry import build_table
from ptycho_core.networks.table import INPUT, Table
from ptycho_core.physics.illumination import Illumination
from ptycho_core.physics.weights import outside_centre_mask, probe_mask
from ptycho_core.settings.model import ModelConfig
from ptycho_core.vocabulary import INPUT_SCALE, Weights

OPSET, IR_VERSION = 18, 8  # specs/engine.md, Export
ACTIVATIONS = {"relu": "Relu", "sigmoid": "Sigmoid", "softplus": "Softplus", "tanh": "Tanh"}
"""Those that are one ONNX operator; swish and gelu are several, linear none."""


def onnx_bytes(
    model: ModelConfig, weights: Weights, illumination: Illumination, signature: Signature, facts: Mapping[str, str]
) -> bytes:
    """The graph of a network with these inputs and outputs; of the illumination, what is not an input is a constant.

    facts: for the file's metadata.
    """
    table, graph = build_table(model), Graph(_onnx(), weights)
    last = signature.layout == CHANNELS_LAST
    x = graph.node("Transpose", [AMPLITUDE], perm=[0, 3, 1, 2]) if last else AMPLITUDE
    if table.canvas:
        parts = _canvas_patches(graph, table, model, illumination, x, constant=not last)
    else:
        parts = _patches(graph, table, model, illumination, x)
    cartesian = bool(table.canvas or table.real)
    if last:
        fields = parts if cartesian else _cartesian(graph, *parts)
        for part, name in zip(fields, signature.output_names, strict=True):
            graph.node("Transpose", [part], perm=[0, 2, 3, 1], output=name)
    else:
        maps = _polar(graph, *parts) if cartesian else parts
        graph.node("Concat", [*maps], axis=1, output=signature.output_names[0])
    return graph.serialized(signature, facts)


def _patches(graph: Graph, table: Table, model: ModelConfig, illumination: Illumination, x: str) -> tuple[str, str]:
    """The table's two outputs, (B, C, N, N), of amplitudes (B, C, N, N)."""
    N = model.N
    x = graph.node("Mul", [x, graph.constant(INPUT_SCALE, np.float32(illumination.input_scale))])
    if not model.object_big:  # the frames of a group go through the network one by one
        x = graph.node("Reshape", [x, graph.constant("shape/alone", np.array([-1, 1, N, N], np.int64))])
    outputs = _run(graph, table, x, table.sizes(N))
    if not model.object_big:
        group = graph.constant("shape/group", np.array([-1, model.channels, N, N], np.int64))
        outputs = {name: graph.node("Reshape", [outputs[name], group]) for name in table.outputs}
    first, second = (outputs[name] for name in table.outputs)
    return first, second


def _canvas_patches(
    graph: Graph, table: Table, model: ModelConfig, illumination: Illumination, x: str, *, constant: bool
) -> Field:
    """The object at the frames (B, C, N, N); constant: of each frame alone, in the light of the training scan."""
    if constant:
        probe = graph.constant(PROBE, illumination.pairs.astype(np.float32))
        mean, counts = graph.single(illumination.mean_intensity), graph.single(illumination.counts_per_intensity)
        good = graph.node("Cast", [graph.node("Not", [graph.node("Less", [x, graph.single(0)])])], to=graph.FLOAT)
        sides = graph.constant("axes/2,3", np.array([2, 3], np.int64))
        nowhere = graph.constant("offset/0", np.zeros((1, 1, 2, 1), np.float32))
        offsets = graph.node("Mul", [graph.node("ReduceMax", [x, sides]), nowhere])
    else:
        probe, mean, counts, offsets = PROBE, MEAN_INTENSITY, COUNTS_PER_INTENSITY, OFFSETS
        good = graph.node("Cast", [graph.node("Not", [BAD_PIXELS])], to=graph.FLOAT)
    mask = graph.constant("probe_mask", probe_mask(model.N).astype(np.float32)) if model.probe_mask else None
    scene = Scene.of(
        graph,
        N=model.N,
        block=table.block,
        amplitude=x,
        offsets=offsets,
        probe=probe,
        good=good,
        mean_intensity=mean,
        counts_per_intensity=counts,
        mask=mask,
    )
    return scene.patches(_run(graph, table, scene.empty(), None, scene)[table.canvas])


def _run(
    graph: Graph, table: Table, x: str, sizes: Mapping[str, int] | None, scene: Scene | None = None
) -> dict[str, str]:
    """Every layer's output. sizes: pixels along a side of each, where they are known."""
    outputs = {INPUT: x}
    for layer in table.layers:
        function = op_function(layer, "onnx", OPS)
        graph.size = sizes[layer.inputs[0]] if sizes else 0
        settings = {**layer.settings, "scene": scene} if layer.sees_batch else layer.settings
        own = {parameter: graph.parameter(name) for parameter, name in layer.uses.items()}
        outputs[layer.name] = function(graph, *(outputs[name] for name in layer.inputs), **own, **settings)
    return outputs


def _cartesian(graph: Graph, amplitude: str, phase: str) -> Field:
    real, imaginary = (graph.node("Mul", [amplitude, graph.node(part, [phase])]) for part in ("Cos", "Sin"))
    return real, imaginary


def _polar(graph: Graph, real: str, imaginary: str) -> tuple[str, str]:
    """Modulus and angle; ONNX has no arctangent of two arguments."""
    node, zero = graph.node, graph.single(0)
    squares = [node("Mul", [part, part]) for part in (real, imaginary)]
    left, none = node("Less", [real, zero]), node("Equal", [real, zero])
    angle = node("Atan", [node("Div", [imaginary, node("Where", [none, graph.single(1e-30), real])])])
    turn = node("Where", [node("Less", [imaginary, zero]), graph.single(-np.pi), graph.single(np.pi)])
    return node("Sqrt", [node("Add", squares)]), node("Add", [angle, node("Where", [left, turn, zero])])


class Graph:
    """Nodes and constants as they are added; maps are (B, C, H, W), and go by the name of the node that gives them.

    size: pixels along a side of what the op at hand is given.
    """

    size: int

    def __init__(self, onnx: Any, weights: Weights) -> None:
        self._onnx, self._weights = onnx, weights
        self.FLOAT, self.INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def node(self, operator: str, inputs: list[str], *, output: str | None = None, **settings: Any) -> str:
        name = output or f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(operator, inputs, [name], name=name, **settings))
        return name

    def constant(self, name: str, array: NDArray[Any] | np.generic) -> str:
        if name not in self._constants:
            self._constants[name] = self._onnx.numpy_helper.from_array(np.asarray(array), name)
        return name

    def parameter(self, name: str) -> str:
        """A parameter of the network by its canonical name; kernels become (out, in, kh, kw)."""
        array = np.asarray(self._weights[name], np.float32)
        if name.endswith("/kernel"):
            array = np.ascontiguousarray(rearrange(array, HWIO_TO_OIHW))
        return self.constant(name, array)

    def number(self, value: int) -> str:
        """A whole number in a list of one, as operators take them that name an axis or the end of a slice."""
        return self.constant(f"whole/{value}", np.array([value], np.int64))

    def whole(self, value: int) -> str:
        """A whole number, to index or to count with."""
        return self.constant(f"count/{value}", np.array(value, np.int64))

    def single(self, value: float) -> str:
        """A number, float32."""
        return self.constant(f"number/{value!r}", np.array(value, np.float32))

    def serialized(self, signature: Signature, facts: Mapping[str, str]) -> bytes:
        """The checked model in ONNX's own format."""
        helper, types = self._onnx.helper, {"float32": self.FLOAT, "bool": self._onnx.TensorProto.BOOL}
        inputs, outputs = (
            [helper.make_tensor_value_info(each.name, types[each.dtype], each.shape) for each in values]
            for values in (signature.inputs, signature.outputs)
        )
        graph = helper.make_graph(self._nodes, "diffraction_to_obj", inputs, outputs, list(self._constants.values()))
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="ptycho-core")
        helper.set_model_props(model, dict(facts))
        self._onnx.checker.check_model(model, full_check=True)
        content: bytes = model.SerializeToString()
        return content


# -- ops, as in the engines ----------------------------------------------------------------------------------------


def conv(
    graph: Graph, x: str, *, kernel: str, bias: str, activation: str, kernel_size: int, stride: int, padding: str
) -> str:
    border = kernel_size // 2
    if padding == "reflect":
        pads = graph.constant(f"border/{border}", np.array([0, 0, border, border] * 2, np.int64))
        x, border = graph.node("Pad", [x, pads], mode="reflect"), 0
    y = graph.node("Conv", [x, kernel, bias], pads=[border] * 4, strides=[stride] * 2)
    return activate(graph, y, activation=activation)


def transposed_conv(graph: Graph, x: str, *, kernel: str, bias: str, activation: str, kernel_size: int) -> str:
    kernel = graph.node("Transpose", [kernel], perm=[1, 0, 2, 3])  # (in, out, kh, kw), as ONNX has it here
    border = [kernel_size // 2] * 4
    y = graph.node("ConvTranspose", [x, kernel, bias], pads=border, output_padding=[1, 1], strides=[2, 2])
    return activate(graph, y, activation=activation)


def spectral_conv(graph: Graph, x: str, *, real: str, imaginary: str, modes: int, scale: float) -> str:
    side, larger = graph.size, int(graph.size * scale)
    x = _einsum(graph, "bchw,pwk->bchpk", x, _matrix(graph, spectral.to_modes, side, modes))
    x = _einsum(graph, "bchpk,pqhj->bcqjk", x, _matrix(graph, spectral.to_signed_modes, side, modes))
    x = _einsum(graph, "bcqjk,qrjkcd->bdrjk", x, _as_product(graph, real, imaginary))
    x = _einsum(graph, "bdrjk,rshj->bdshk", x, _matrix(graph, spectral.from_signed_modes, larger, modes))
    return _einsum(graph, "bdshk,swk->bdhw", x, _matrix(graph, spectral.from_modes, larger, modes))


def factorised_spectral_conv(graph: Graph, x: str, *, real: str, imaginary: str, modes: int) -> str:
    matrices = _as_product(graph, real, imaginary)
    there, back = (_matrix(graph, way, graph.size, modes) for way in (spectral.to_modes, spectral.from_modes))
    of_y, of_x = (graph.node("Gather", [matrices, graph.whole(axis)], axis=2) for axis in (0, 1))
    along_y = _einsum(graph, "bcpkw,prkcd->bdrkw", _einsum(graph, "bchw,phk->bcpkw", x, there), of_y)
    along_x = _einsum(graph, "bchpk,prkcd->bdhrk", _einsum(graph, "bchw,pwk->bchpk", x, there), of_x)
    both = _einsum(graph, "bdrkw,rhk->bdhw", along_y, back), _einsum(graph, "bdhrk,rwk->bdhw", along_x, back)
    return graph.node("Add", [*both])


def instance_norm(graph: Graph, x: str, *, epsilon: float) -> str:
    sides = graph.constant("axes/2,3", np.array([2, 3], np.int64))
    x = graph.node("Sub", [x, graph.node("ReduceMean", [x, sides], keepdims=1)])
    variance = graph.node("ReduceMean", [graph.node("Mul", [x, x]), sides], keepdims=1)
    return graph.node("Div", [x, graph.node("Sqrt", [graph.node("Add", [variance, graph.single(epsilon)])])])


def gain(graph: Graph, x: str, *, gain: str, start: float) -> str:
    sides = graph.constant("axes/1,2", np.array([1, 2], np.int64))
    return graph.node("Mul", [x, graph.node("Unsqueeze", [gain, sides])])


def coordinates(graph: Graph, x: str) -> str:
    size = graph.size
    places = graph.constant(f"coordinates/{size}", (np.mgrid[:size, :size] / size).astype(np.float32)[None])
    examples = graph.node("Shape", [x], start=0, end=1)
    shape = graph.constant(f"shape/2,{size},{size}", np.array([2, size, size], np.int64))
    places = graph.node("Expand", [places, graph.node("Concat", [examples, shape], axis=0)])
    return graph.node("Concat", [x, places], axis=1)


def _einsum(graph: Graph, equation: str, x: str, y: str) -> str:
    return graph.node("Einsum", [x, y], equation=equation)


def _matrix(graph: Graph, way: Callable[[int, int], NDArray[np.float64]], side: int, modes: int) -> str:
    return graph.constant(f"{way.__name__}/{side}/{modes}", way(side, modes).astype(np.float32))


def _as_product(graph: Graph, real: str, imaginary: str) -> str:
    """A product with real + i · imaginary, (part before, part after, …)."""
    first = graph.constant("axis/0", np.array([0], np.int64))

    def stacked(*parts: str) -> str:
        return graph.node("Concat", [graph.node("Unsqueeze", [part, first]) for part in parts], axis=0)

    return stacked(stacked(real, imaginary), stacked(graph.node("Neg", [imaginary]), real))


def max_pool(graph: Graph, x: str) -> str:
    return graph.node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])


def upsample(graph: Graph, x: str) -> str:
    scales = graph.constant("scales/2", np.array([1, 1, 2, 2], np.float32))
    settings = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    return graph.node("Resize", [x, "", scales], **settings)


def channels(graph: Graph, x: str, *, start: int, stop: int) -> str:
    return graph.node("Slice", [x, graph.number(start), graph.number(stop), graph.number(1)])


def pad(graph: Graph, x: str, *, width: int) -> str:
    border = np.array([0, 0, width, width] * 2, np.int64)
    return graph.node("Pad", [x, graph.constant(f"border/{width}", border)])


def outside_centre(graph: Graph, x: str) -> str:
    mask = outside_centre_mask(graph.size).astype(np.float32)[None, None]
    return graph.node("Mul", [x, graph.constant(f"outside_centre/{graph.size}", mask)])


def add(graph: Graph, x: str, y: str) -> str:
    return graph.node("Add", [x, y])


def concat(graph: Graph, x: str, y: str) -> str:
    return graph.node("Concat", [x, y], axis=1)


def scale(graph: Graph, x: str, *, factor: float) -> str:
    return graph.node("Mul", [x, graph.single(factor)])


def activate(graph: Graph, x: str, *, activation: str) -> str:
    if activation == "linear":
        return x
    if activation == "swish":
        return graph.node("Mul", [x, graph.node("Sigmoid", [x])])
    if activation == "gelu":
        error = graph.node("Erf", [graph.node("Mul", [x, graph.single(0.5**0.5)])])
        return graph.node(
            "Mul", [graph.node("Mul", [x, graph.single(0.5)]), graph.node("Add", [error, graph.single(1)])]
        )
    return graph.node(ACTIVATIONS[activation], [x])


def global_mean(graph: Graph, x: str) -> str:
    return graph.node("GlobalAveragePool", [x])


def global_max(graph: Graph, x: str) -> str:
    return graph.node("GlobalMaxPool", [x])


def channel_max_mean(graph: Graph, x: str) -> str:
    both = [graph.node(operator, [x, graph.number(1)], keepdims=1) for operator in ("ReduceMax", "ReduceMean")]
    return graph.node("Concat", both, axis=1)


def channel_conv(graph: Graph, x: str, *, kernel: str, kernel_size: int) -> str:
    rows = graph.node("Transpose", [x], perm=[0, 2, 1, 3])  # the channels as the rows of a map of one, (B, 1, C, 1)
    rows = graph.node("Conv", [rows, kernel], pads=[kernel_size // 2, 0] * 2)
    return graph.node("Transpose", [rows], perm=[0, 2, 1, 3])


def multiply(graph: Graph, x: str, gate: str) -> str:
    return graph.node("Mul", [x, gate])


OPS: dict[str, Callable[..., str]] = {
    op.__name__: op
    for op in (
        *(conv, max_pool, upsample, channels, pad, outside_centre, add, concat, scale, activate),
        *(global_mean, global_max, channel_max_mean, channel_conv, multiply),
        *(transposed_conv, spectral_conv, factorised_spectral_conv, instance_norm, gain, coordinates),
        *(warm_sweeps, data_step, in_gauge, correct),
    )
}
"""The graph and the inputs, then parameters and settings by name (specs/model.md, Layers)."""


def _onnx() -> Any:
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise MissingExtraError.of("ONNX", "onnx", "onnx", setting="form") from error
    return onnx
