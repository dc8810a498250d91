"""The architecture table as an ONNX graph (specs/engine.md, Export). Needs the `onnx` package and no framework."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from ptycho_core.errors import MissingExtraError
from ptycho_core.layouts import HWIO_TO_OIHW
from ptycho_core.networks.table import INPUT, Layer, Table
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
    names: tuple[str, str, str],
    facts: Mapping[str, str],
) -> bytes:
    """The graph: measured amplitudes (B, N, N, C) float32 → real and imaginary part of the patches, likewise.

    channels: C. alone: the frames of a group go through the network one by one. names: of input and outputs. facts: for
    the file's metadata.
    """
    onnx = _onnx()
    graph = _Graph(onnx, weights)
    amplitude, real, imaginary = names
    x = graph.node("Mul", [amplitude, graph.constant("data/input_scale", np.float32(weights[INPUT_SCALE]))])
    x = graph.node("Transpose", [x], perm=[0, 3, 1, 2])
    if alone:
        x = graph.node("Reshape", [x, graph.constant("shape/alone", np.array([-1, 1, N, N], np.int64))])
    outputs, sizes = {INPUT: x}, {INPUT: N}
    for layer in table.layers:
        inputs = [outputs[name] for name in layer.inputs]
        sizes[layer.name] = _size(layer, sizes[layer.inputs[0]])
        outputs[layer.name] = graph.layer(layer, sizes[layer.name], *inputs)
    maps = []
    for name in (table.amplitude, table.phase):
        y = outputs[name]
        if alone:
            y = graph.node("Reshape", [y, graph.constant("shape/group", np.array([-1, channels, N, N], np.int64))])
        maps.append(graph.node("Transpose", [y], perm=[0, 2, 3, 1]))
    for part, result in (("Cos", real), ("Sin", imaginary)):
        graph.node("Mul", [maps[0], graph.node(part, [maps[1]])], output=result)
    return graph.serialized(amplitude, (real, imaginary), ("batch", N, N, channels), facts)


def _size(layer: Layer, size: int) -> int:
    """Pixels along a side of a layer's output, from those of its input."""
    match layer.op:
        case "max_pool":
            return size // 2
        case "upsample":
            return 2 * size
        case "pad":
            return size + 2 * layer.width
        case "global_mean" | "global_max":
            return 1
    return size


class _Graph:
    """Nodes and constants as they are added; maps are (B, C, H, W)."""

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

    def kernel(self, layer: Layer) -> str:
        array = rearrange(np.asarray(self._weights[layer.kernel], np.float32), HWIO_TO_OIHW)
        return self.constant(layer.kernel, np.ascontiguousarray(array))

    def layer(self, layer: Layer, size: int, x: str, *others: str) -> str:
        """size: pixels along a side of the output."""
        match layer.op:
            case "conv":
                bias = self.constant(layer.bias, np.asarray(self._weights[layer.bias], np.float32))
                border = [layer.kernel_size // 2] * 4
                return self.activation(layer, self.node("Conv", [x, self.kernel(layer), bias], pads=border))
            case "max_pool":
                return self.node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
            case "upsample":
                scales = self.constant("scales/2", np.array([1, 1, 2, 2], np.float32))
                settings = {"mode": "nearest", "nearest_mode": "floor"}
                return self.node("Resize", [x, "", scales], coordinate_transformation_mode="asymmetric", **settings)
            case "channels":
                ends = (layer.start, layer.stop, 1)
                start, stop, axis = (self.constant(f"whole/{number}", np.array([number], np.int64)) for number in ends)
                return self.node("Slice", [x, start, stop, axis])
            case "pad":
                border = [0, 0, layer.width, layer.width] * 2
                return self.node("Pad", [x, self.constant(f"border/{layer.width}", np.array(border, np.int64))])
            case "outside_centre":
                mask = outside_centre_mask(size).astype(np.float32)[None, None]
                return self.node("Mul", [x, self.constant(f"outside_centre/{size}", mask)])
            case "add":
                return self.node("Add", [x, others[0]])
            case "scale":
                factor = np.array(layer.factor, np.float32)
                return self.node("Mul", [x, self.constant(f"{layer.name}/factor", factor)])
            case "activate":
                return self.activation(layer, x)
            case "global_mean":
                return self.node("GlobalAveragePool", [x])
            case "global_max":
                return self.node("GlobalMaxPool", [x])
            case "channel_max_mean":
                axis = self.constant("whole/1", np.array([1], np.int64))
                both = [self.node(operator, [x, axis], keepdims=1) for operator in ("ReduceMax", "ReduceMean")]
                return self.node("Concat", both, axis=1)
            case "channel_conv":  # the channels as the rows of a map of one channel, (B, 1, C, 1)
                rows = self.node("Transpose", [x], perm=[0, 2, 1, 3])
                border = [layer.kernel_size // 2, 0] * 2
                rows = self.node("Conv", [rows, self.kernel(layer)], pads=border)
                return self.node("Transpose", [rows], perm=[0, 2, 1, 3])
            case "multiply":
                return self.node("Mul", [x, others[0]])
        raise ValueError(f"layer {layer.name!r}: the ONNX writer has no op {layer.op!r}")

    def activation(self, layer: Layer, x: str) -> str:
        if layer.activation == "linear":
            return x
        if layer.activation == "swish":
            return self.node("Mul", [x, self.node("Sigmoid", [x])])
        return self.node(ACTIVATIONS[layer.activation], [x])

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


def _onnx() -> Any:
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "ONNX needs the 'onnx' package, which is not installed. Install it with: pip install 'ptycho-core[onnx]'"
        ) from error
    return onnx
