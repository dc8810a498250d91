"""Networks that Keras 3 wrote: the graph of layers is matched with our table, so that a kernel is known by its place.

A `.keras` file is a zip of the graph as JSON and of the weights as HDF5. Nothing of it is built or run.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import ArchiveError
from ptycho_core.models.container import shown
from ptycho_core.networks.ops import Layer
from ptycho_core.networks.table import INPUT, Table
from ptycho_core.published.members import opened
from ptycho_core.storage.files import DAMAGED_HDF5
from ptycho_core.storage.hdf5_guards import is_sound

CONFIG, WEIGHTS, METADATA = "config.json", "model.weights.h5", "metadata.json"
LONGEST_NAME = 1000
SPELLINGS = {"silu": "swish"}
MISMATCH = "It is a variant that cannot be imported (docs/published.md): train it again."


@attrs.frozen
class Node:
    """A layer of the Keras graph. arguments: what it is called with, the layers before it by name."""

    name: str
    kind: str
    settings: Mapping[str, Any]
    inputs: tuple[str, ...]
    arguments: tuple[Any, ...]


def read_keras(content: bytes, source: str, table: Table, N: int) -> tuple[dict[str, NDArray[np.floating]], str]:
    """The weights of a `.keras` file by our names, for the network of `table`; and the version of Keras that wrote it.

    Raises ArchiveError where the network is another one, or the file is not whole.
    """
    with opened(content, source) as members:
        version = str(members.read_json(METADATA).get("keras_version", "unknown"))
        if not version.startswith("3."):
            remedy = "Save it again with Keras 3."
            raise ArchiveError(source, METADATA, expected="Keras 3", received=shown(version), remedy=remedy)
        graph = read_graph(members.read_json(CONFIG), f"{source}: {CONFIG}")
        places = match(table, N, graph, f"{source}: {CONFIG}")
        return read_weights(members.read(WEIGHTS), f"{source}: {WEIGHTS}", table, graph, places), version


def read_graph(config: Mapping[str, Any], source: str) -> dict[str, Node]:
    """The layers by name, in the order of the file."""
    try:
        layers = config["config"]["layers"]
        nodes = [_node(layer) for layer in layers]
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        received = f"{type(error).__name__}: {shown(error)}"
        raise ArchiveError(source, expected="a functional Keras model", received=received, remedy=MISMATCH) from error
    return {node.name: node for node in nodes}


def _node(layer: Mapping[str, Any]) -> Node:
    calls = layer["inbound_nodes"]
    if len(calls) > 1:
        raise ValueError(f"layer {layer['name']}: used more than once")
    arguments = tuple(calls[0]["args"]) if calls else ()
    while len(arguments) == 1 and isinstance(arguments[0], list):
        arguments = tuple(arguments[0])
    inputs = tuple(argument["config"]["keras_history"][0] for argument in arguments if _is_tensor(argument))
    return Node(str(layer["name"]), str(layer["class_name"]), dict(layer["config"]), inputs, arguments)


def _is_tensor(argument: object) -> bool:
    return isinstance(argument, dict) and argument.get("class_name") == "__keras_tensor__"


# -- the same network ----------------------------------------------------------------------------------------------


def match(table: Table, N: int, graph: Mapping[str, Node], source: str) -> dict[str, str]:
    """Our conv → the Keras layer at the same place. Every layer on the way must be what the table says."""
    ends = [node for node in graph.values() if node.kind == "CombineComplexLayer"]
    if len(ends) != 1 or len(ends[0].inputs) != 2 or not ends[0].settings.get("use_polar", True):
        received = f"{len(ends)} of them" if len(ends) != 1 else "another one"
        expected = "one layer that makes a complex object of amplitude and phase"
        raise ArchiveError(source, expected=expected, received=received, remedy=MISMATCH)
    matching = _Matching(table, N, graph, source)
    for layer, node in zip((table.amplitude, table.phase), ends[0].inputs, strict=True):
        matching.follow(layer, node)
    return matching.places


class _Matching:
    """Walks table and graph backwards side by side, from the outputs to the input."""

    def __init__(self, table: Table, N: int, graph: Mapping[str, Node], source: str) -> None:
        self.size = N
        self.layers = {layer.name: layer for layer in table.layers}
        self.graph, self.source = graph, source
        self.places: dict[str, str] = {}
        self._met: dict[str, str] = {}

    def follow(self, name: str, node_name: str) -> None:
        if name in self._met:
            if self._met[name] != node_name:
                self._differ(name, f"the layer {self._met[name]}", self.graph[node_name])
            return
        self._met[name] = node_name
        node = self._known(node_name)
        if name == INPUT:
            self._input(node)
            return
        layer = self.layers[name]
        if layer.op == "scale" and layer.settings["factor"] == 1:  # nothing: the published network has no such layer
            self.follow(layer.inputs[0], node.name)
            return
        if layer.op == "scale":
            layer = self._scaled_conv(layer, node)
        if layer.op == "conv":
            node = self._conv(layer, node)
        elif layer.op == "outside_centre":
            self._outside_centre(layer, node)
        elif layer.op not in MATCHES or not MATCHES[layer.op](layer, node):
            self._differ(name, layer.op, node)
        for ours, theirs in zip(layer.inputs, node.inputs, strict=False):
            self.follow(ours, theirs)

    def _known(self, name: str) -> Node:
        if name not in self.graph:
            expected = "layers that are all in the file"
            raise ArchiveError(self.source, expected=expected, received=f"no layer {shown(name)}", remedy=MISMATCH)
        return self.graph[name]

    def _input(self, node: Node) -> None:
        if node.kind == "IntensityScaler" and len(node.inputs) == 1:
            node = self._known(node.inputs[0])
        if node.kind != "InputLayer":
            self._differ(INPUT, "the input", node)

    def _scaled_conv(self, layer: Layer, node: Node) -> Layer:
        """The conv under a factor: Keras has the factor in the activation."""
        factor = node.settings.get("scale")
        if (
            node.kind != "ActivationLayer"
            or not isinstance(factor, float)
            or not math.isclose(factor, layer.settings["factor"])
        ):
            self._differ(layer.name, f"an activation times {layer.settings['factor']:g}", node)
        conv = self.layers[layer.inputs[0]]
        self._met[conv.name] = node.name
        return conv

    def _conv(self, layer: Layer, node: Node) -> Node:
        """The Conv2D of a conv; its activation may be a layer of its own, after it."""
        activation, expected = "linear", layer.settings["activation"]
        if node.kind in ("ActivationLayer", "Silu"):
            activation = "silu" if node.kind == "Silu" else str(node.settings.get("activation_name"))
            if len(node.inputs) != 1 or SPELLINGS.get(activation, activation) != expected:
                self._differ(layer.name, f"the activation {expected}", node)
            expected = "linear"
            node = self._known(node.inputs[0])
        wanted = {
            "filters": layer.out_channels,
            "kernel_size": [layer.settings["kernel_size"]] * 2,
            "strides": [1, 1],
            "padding": "same",
            "dilation_rate": [1, 1],
            "groups": 1,
            "use_bias": True,
            "data_format": "channels_last",
            "activation": expected,
        }
        received = {key: node.settings.get(key) for key in wanted}
        received["activation"] = SPELLINGS.get(str(received["activation"]), received["activation"])
        if node.kind != "Conv2D" or len(node.inputs) != 1 or received != wanted:
            self._differ(layer.name, ", ".join(f"{key} {value}" for key, value in wanted.items()), node)
        self.places[layer.name] = node.name
        return node

    def _outside_centre(self, layer: Layer, node: Node) -> None:
        """Times a mask that a layer of its own makes of the same map."""
        mask = self._known(node.inputs[1]) if len(node.inputs) == 2 else node
        settings = {key: mask.settings.get(key) for key in ("kind", "N")}
        if node.kind != "Multiply" or mask.kind != "CenterMaskLayer" or mask.inputs != node.inputs[:1]:
            self._differ(layer.name, "times a mask of the border", node)
        if settings != {"kind": "border", "N": self.size}:
            self._differ(layer.name, f"a mask of the border of {self.size} pixels", mask)

    def _differ(self, name: str, expected: str, node: Node) -> NoReturn:
        plain = {key: value for key, value in node.settings.items() if isinstance(value, (int, float, str, list))}
        received = f"layer {shown(node.name)} of class {shown(node.kind)} with {shown(plain, 400)}"
        raise ArchiveError(self.source, f"for {name}", expected=expected, received=received, remedy=MISMATCH)


def _channels(layer: Layer, node: Node) -> bool:
    """`x[..., start:stop]`; either end may be counted from the last channel or left out."""
    if node.kind != "GetItem" or len(node.arguments) != 2 or not isinstance(node.arguments[1], list):
        return False
    *others, last = node.arguments[1]
    if [other.get("class_name") for other in others] != ["__ellipsis__"] or last.get("class_name") != "__slice__":
        return False
    start, stop, step = (last["config"].get(part) for part in ("start", "stop", "step"))
    ours = layer.settings["start"], layer.settings["stop"], 1
    return slice(start, stop, step).indices(layer.in_channels[0]) == ours


MATCHES: Mapping[str, Callable[[Layer, Node], bool]] = {
    "max_pool": lambda layer, node: (
        node.kind == "MaxPooling2D" and node.settings.get("pool_size") == node.settings.get("strides") == [2, 2]
    ),
    "upsample": lambda layer, node: (
        node.kind == "UpSampling2D"
        and node.settings.get("size") == [2, 2]
        and node.settings.get("interpolation") == "nearest"
    ),
    "channels": _channels,
    "pad": lambda layer, node: (
        node.kind == "ZeroPadding2D" and node.settings.get("padding") == [[layer.settings["width"]] * 2] * 2
    ),
    "add": lambda layer, node: node.kind == "Add" and len(node.inputs) == 2,
}
"""Our op → whether a Keras layer is the same."""


# -- weights -------------------------------------------------------------------------------------------------------


def read_weights(
    content: bytes, source: str, table: Table, graph: Mapping[str, Node], places: Mapping[str, str]
) -> dict[str, NDArray[np.floating]]:
    """Kernels and biases by our names. Keras numbers the groups of the file by class, in the order of the graph."""
    import h5py  # when it is needed: importing the core stays fast

    convs = [node.name for node in graph.values() if node.kind == "Conv2D"]
    groups = {name: f"conv2d_{number}" if number else "conv2d" for number, name in enumerate(convs)}
    weights: dict[str, NDArray[np.floating]] = {}
    if not is_sound(content):  # or HDF5 would read the names in them without end
        received = "a damaged one"
        raise ArchiveError(
            source, expected="whole heaps and trees of HDF5", received=received, remedy="Copy the archive again."
        )
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            for layer in table.layers:
                if layer.op != "conv":
                    continue
                name = places[layer.name]
                variables = f"layers/{groups[name]}/vars"
                stated = _stated_name(h5py, _linked(h5py, file, variables, source)) or name
                if stated != name:
                    expected = f"the weights of layer {shown(name)}"
                    raise ArchiveError(
                        source, variables, expected=expected, received=f"those of {shown(stated)}", remedy=MISMATCH
                    )
                for number, (key, shape) in enumerate(layer.parameters.items()):
                    weights[key] = _array(h5py, file, f"{variables}/{number}", shape, source)
    except ArchiveError:
        raise
    except DAMAGED_HDF5 as error:
        received = f"{type(error).__name__}: {shown(error)}"
        raise ArchiveError(
            source, expected="a whole HDF5 file of weights", received=received, remedy="Copy the archive again."
        ) from error
    return weights


def _linked(h5py: Any, file: Any, path: str, source: str) -> Any:
    """What lies at a path of the file; links to other files are refused."""
    place = ""
    for part in path.split("/"):
        place = f"{place}/{part}"
        link = file.get(place, getlink=True)
        if not isinstance(link, h5py.HardLink):
            received = "nothing" if link is None else f"a {type(link).__name__}"
            expected = "a group or array of this file"
            raise ArchiveError(source, path, expected=expected, received=received, remedy="Copy the archive again.")
    return file[path]


def _stated_name(h5py: Any, group: Any) -> str | None:
    """The layer that a group of weights says it belongs to; a text that is none, or as long as none is, is not read."""
    if "name" not in group.attrs:
        return None
    attribute = group.attrs.get_id("name")
    kind = attribute.get_type()
    if attribute.shape != () or kind.get_class() != h5py.h5t.STRING or kind.get_size() > LONGEST_NAME:
        raise ValueError(f"a name of type {attribute.dtype} and shape {attribute.shape}")
    name = group.attrs["name"]
    return name.decode() if isinstance(name, bytes) else str(name)


def _array(h5py: Any, file: Any, path: str, shape: tuple[int, ...], source: str) -> NDArray[np.floating]:
    """An array of the shape that our network has; no other is read."""
    dataset = _linked(h5py, file, path, source)
    if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external:
        raise ArchiveError(
            source, path, expected="an array of this file", received="something else", remedy="Copy the archive again."
        )
    if dataset.shape != shape or dataset.dtype.kind != "f":
        received = f"{dataset.dtype} {dataset.shape}"
        raise ArchiveError(
            source, path, expected=f"floating-point numbers of shape {shape}", received=received, remedy=MISMATCH
        )
    if dataset.chunks is not None:  # Keras writes none; a chunk can unpack to more than the memory holds
        received, remedy = f"chunks of shape {dataset.chunks}", "Save it again with Keras 3."
        raise ArchiveError(source, path, expected="numbers in one piece, not packed", received=received, remedy=remedy)
    return np.asarray(dataset[()], np.float32)
