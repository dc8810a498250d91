"""The architecture table as an ONNX graph (specs/engine.md, Export). Needs the `onnx` package and no framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from ptycho_core.errors import MissingExtraError
from ptycho_core.layouts import HWIO_TO_OIHW
from ptycho_core.networks.ops import op_function
from ptycho_core.networks.table import INPUT, Table
from ptycho_core.physics.weights import outside_centre_mask
from ptycho_core.vocabulary import INPUT_SCALE, Weights

OPSET, IR_VERSION = 18, 8  # specs/engine.md, Export
ACTIVATIONS = {"relu": "Relu", "sigmoid": "Sigmoid", "softplus": "Softplus", "tanh": "Tanh"}
"""Those that are one ONNX operator; swish is two, linear none."""


def onnx_bytes(
    table: Table,
    weights: Weights,
    *,
    N: int,
    channels: int,
    alone: bool,
    input_scale: float,
    names: tuple[str, str, str],
    facts: Mapping[str, str],
) -> bytes:
    """The graph: measured amplitudes (B, N, N, C) float32 → real and imaginary part of the patches, likewise.

    channels: C. alone: the frames of a group go through the network one by one. input_scale: k. names: of input and
    outputs. facts: for the file's metadata.
    """
    graph = Graph(_onnx(), weights)
    amplitude, real, imaginary = names
    x = graph.node("Mul", [amplitude, graph.constant(INPUT_SCALE, np.float32(input_scale))])
    x = graph.node("Transpose", [x], perm=[0, 3, 1, 2])
    if alone:
        x = graph.node("Reshape", [x, graph.constant("shape/alone", np.array([-1, 1, N, N], np.int64))])
    outputs, sizes = {INPUT: x}, table.sizes(N)
    for layer in table.layers:
        function = op_function(layer, "onnx", OPS)
        graph.size = sizes[layer.inputs[0]]
        own = {parameter: graph.parameter(name) for parameter, name in layer.uses.items()}
        outputs[layer.name] = function(graph, *(outputs[name] for name in layer.inputs), **own, **layer.settings)
    maps = []
    for name in (table.amplitude, table.phase):
        y = outputs[name]
        if alone:
            y = graph.node("Reshape", [y, graph.constant("shape/group", np.array([-1, channels, N, N], np.int64))])
        maps.append(graph.node("Transpose", [y], perm=[0, 2, 3, 1]))
    for part, result in (("Cos", real), ("Sin", imaginary)):
        graph.node("Mul", [maps[0], graph.node(part, [maps[1]])], output=result)
    return graph.serialized(amplitude, (real, imaginary), ("batch", N, N, channels), facts)


class Graph:
    """Nodes and constants as they are added; maps are (B, C, H, W), and go by the name of the node that gives them.

    size: pixels along a side of what the op at hand is given.
    """

    size: int

    def __init__(self, onnx: Any, weights: Weights) -> None:
        self._onnx, self._weights = onnx, weights
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
        """A whole number, as operators take them that index or name an axis."""
        return self.constant(f"whole/{value}", np.array([value], np.int64))

    def serialized(
        self, source: str, results: tuple[str, ...], shape: tuple[str | int, ...], facts: Mapping[str, str]
    ) -> bytes:
        """The checked model in ONNX's own format."""
        helper, floats = self._onnx.helper, self._onnx.TensorProto.FLOAT
        inputs = [helper.make_tensor_value_info(source, floats, shape)]
        outputs = [helper.make_tensor_value_info(name, floats, shape) for name in results]
        graph = helper.make_graph(self._nodes, "diffraction_to_obj", inputs, outputs, list(self._constants.values()))
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="ptycho-core")
        helper.set_model_props(model, dict(facts))
        self._onnx.checker.check_model(model, full_check=True)
        content: bytes = model.SerializeToString()
        return content


# -- ops, as in the engines ----------------------------------------------------------------------------------------


def conv(graph: Graph, x: str, *, kernel: str, bias: str, activation: str, kernel_size: int) -> str:
    return activate(graph, graph.node("Conv", [x, kernel, bias], pads=[kernel_size // 2] * 4), activation=activation)


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
    return graph.node("Mul", [x, graph.constant(f"factor/{factor!r}", np.array(factor, np.float32))])


def activate(graph: Graph, x: str, *, activation: str) -> str:
    if activation == "linear":
        return x
    if activation == "swish":
        return graph.node("Mul", [x, graph.node("Sigmoid", [x])])
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
    )
}
"""The graph and the inputs, then parameters and settings by name (specs/model.md, Layers)."""


def _onnx() -> Any:
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise MissingExtraError.of("ONNX", "onnx", "onnx", setting="form") from error
    return onnx
