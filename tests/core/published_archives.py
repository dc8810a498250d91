"""Archives such as the published implementations write, and hostile ones, made without any framework.

The pickles are written by hand, so that they can name what is not installed, and what must never be run.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.networks.initial import initial_weights
from ptycho_core.networks.ops import Layer
from ptycho_core.networks.registry import build_table
from ptycho_core.networks.table import INPUT, Table
from ptycho_core.published.torch_network import published_name
from ptycho_core.settings.model import ModelConfig
from ptycho_core.vocabulary import Weights

DILL, KERAS = "diffraction_to_obj/params.dill", "diffraction_to_obj/model.keras"
PYTORCH, SCALING = "diffraction_to_obj/model.pth", "torch_scaling_metadata.pt"


# -- pickles -------------------------------------------------------------------------------------------------------


@attrs.frozen(hash=False, eq=False)
class Name:
    """A function or class by name, whether or not it is there."""

    module: str
    name: str


@attrs.frozen(hash=False, eq=False)
class Call:
    """What calling a name with arguments gives, and then setting a state."""

    name: Name
    arguments: tuple[Any, ...]
    state: Any = None


@attrs.frozen(hash=False, eq=False)
class Stored:
    """A reference that a reader must resolve by itself."""

    reference: tuple[Any, ...]


class _Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    def _save_name(self, name: Name) -> None:
        self.write(b"c" + name.module.encode() + b"\n" + name.name.encode() + b"\n")
        self.memoize(name)

    def _save_call(self, call: Call) -> None:
        self.save(call.name)
        self.save(call.arguments)
        self.write(pickle.REDUCE)
        if call.state is not None:
            self.save(call.state)
            self.write(pickle.BUILD)

    def persistent_id(self, value: Any) -> Any:
        return value.reference if isinstance(value, Stored) else None

    dispatch = MappingProxyType({**pickle._Pickler.dispatch, Name: _save_name, Call: _save_call})  # type: ignore[attr-defined]


def pickled(value: Any, protocol: int = 4) -> bytes:
    stream = io.BytesIO()
    _Pickler(stream, protocol).dump(value)
    return stream.getvalue()


def numpy_array(array: NDArray[Any]) -> Call:
    """An array as numpy pickles it."""
    code = f"{array.dtype.kind}{array.dtype.itemsize}"
    dtype = Call(Name("numpy", "dtype"), (code, False, True), (3, "<", None, None, None, -1, -1, 0))
    empty = (Name("numpy", "ndarray"), (0,), b"b")
    state = (1, array.shape, dtype, False, array.tobytes())
    return Call(Name("numpy._core.multiarray", "_reconstruct"), empty, state)


def dill_tensor(array: NDArray[Any]) -> Call:
    """A tensor of TensorFlow as dill pickles it."""
    plain = numpy_array(array)
    made = Call(Name("dill._dill", "_create_array"), (plain.name, plain.arguments, plain.state, None))
    return Call(Name("tensorflow.python.framework.ops", "convert_to_tensor"), (made,))


# -- archives ------------------------------------------------------------------------------------------------------


def zipped(members: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def write_archive(path: Path, members: Mapping[str, bytes]) -> Path:
    path.write_bytes(zipped(members))
    return path


def network_of(model: ModelConfig, seed: int = 0) -> dict[str, NDArray[np.floating]]:
    """Weights of its layers, biases not 0, but for those that the published network does not have."""
    rng = np.random.default_rng(seed)
    weights: dict[str, NDArray[np.floating]] = {}
    for name, array in initial_weights(build_table(model), rng).items():
        none = model.architecture == "published_torch" and name.endswith("spatial/conv/bias")
        nudge = rng.normal(scale=0.05, size=array.shape) if name.endswith("/bias") and not none else 0
        weights[name] = (array + nudge).astype(np.float32)
    return weights


def flat_parameters(model: ModelConfig, **changes: Any) -> dict[str, Any]:
    """What `params.dill` holds of a network, and a little of its training."""
    names = {"object_big": "object.big", "probe_big": "probe.big", "probe_mask": "probe.mask"}
    fields = ("N", "gridsize", "n_filters_scale", "amp_activation", "pad_object", "probe_scale", *names)
    flat = {names.get(name, name): getattr(model, name) for name in fields}
    training = {
        "nphotons": 1e6,
        "nepochs": 3,
        "batch_size": 8,
        "neighbor_count": 7,
        "intensity_scale": 1e3 / (model.N / 2),
    }
    return {**flat, **training, "model_type": "pinn", "tv_weight": 0.0, **changes}


def keras_members(model: ModelConfig, weights: Weights, **parameters: Any) -> dict[str, bytes]:
    """The members of an archive of the TensorFlow implementation."""
    y, x = np.mgrid[: model.N, : model.N] - model.N / 2
    probe = np.exp(-(x**2 + y**2) / (2 * (model.N / 6) ** 2) + 0.05j * x)[..., None].astype(np.complex64)
    flat = {**flat_parameters(model), "probe": dill_tensor(probe), "_version": "1.0", **parameters}
    return {
        "manifest.dill": pickled({"models": ["autoencoder", "diffraction_to_obj"], "version": "1.0"}),
        "diffraction_to_obj/custom_objects.dill": pickled({"negloglik": Name("ptycho.model", "negloglik")}),
        DILL: pickled(flat),
        KERAS: keras_file(build_table(model), model.N, weights),
    }


def torch_members(model: ModelConfig, weights: Weights, **settings: Any) -> dict[str, bytes]:
    """The members of an archive of the PyTorch implementation. settings: of its `model_config`."""
    stated = {
        "mode": "Unsupervised",
        "architecture": "cnn",
        "use_legacy_decoder_channel_override": False,
        "amp_activation": model.amp_activation,
        "cbam_encoder": model.cbam_encoder,
        "cbam_bottleneck": model.cbam_bottleneck,
        **settings,
    }
    state = {f"model.autoencoder.{name}": array for name, array in torch_state(weights).items()}
    scale = np.ones(1, np.float32)
    return {
        "manifest.dill": pickled({"models": ["diffraction_to_obj", "autoencoder"], "version": "2.0-pytorch"}),
        DILL: pickled({**flat_parameters(model), "_version": "2.0-pytorch"}),
        PYTORCH: torch_file({**state, "model.forward_model.alpha": scale}),
        SCALING: torch_file({"schema_version": "ci-entrypoints-v1", "model_config": stated}),
    }


def torch_state(weights: Weights) -> dict[str, NDArray[np.floating]]:
    """Weights by the names and in the layouts of the PyTorch implementation."""
    state = {}
    for name, array in weights.items():
        if name.endswith("spatial/conv/bias"):
            continue
        if name.endswith("/kernel"):
            array = array.transpose(3, 2, 0, 1)
            array = array[..., 0, 0] if "/channel/" in name else array
        state[published_name(name)] = array
    return state


def torch_file(value: Any) -> bytes:
    """What `torch.save` writes: arrays in dictionaries become tensors."""
    numbers: dict[str, bytes] = {}

    def convert(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: convert(inner) for key, inner in part.items()}
        if not isinstance(part, np.ndarray):
            return part
        key = str(len(numbers))
        # As a transposed view of its numbers, so that strides matter.
        numbers[key] = np.ascontiguousarray(part.T).tobytes()
        strides = tuple(int(np.prod(part.shape[:axis])) for axis in range(part.ndim))
        return tensor(key, part.size, part.shape, strides)

    converted = convert(value)
    folder = {f"model/data/{key}": content for key, content in numbers.items()}
    return zipped({"model/data.pkl": pickled(converted, 2), "model/byteorder": b"little", **folder})


def tensor(key: str, count: int, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> Call:
    storage = Stored(("storage", Name("torch", "FloatStorage"), key, "cpu", count))
    hooks = Call(Name("collections", "OrderedDict"), ())
    return Call(Name("torch._utils", "_rebuild_tensor_v2"), (storage, offset, shape, strides, False, hooks))


# -- Keras ---------------------------------------------------------------------------------------------------------


def keras_file(table: Table, N: int, weights: Weights, **members: bytes) -> bytes:
    """A `.keras` file of the network; `members` replaces some."""
    layers = keras_layers(table, N)
    contents = {
        "metadata.json": json.dumps({"keras_version": "3.15.1"}).encode(),
        "config.json": json.dumps({"class_name": "Functional", "config": {"layers": layers}}).encode(),
        "model.weights.h5": keras_weights(table, layers, weights),
    }
    return zipped({**contents, **members})


def keras_layers(table: Table, N: int) -> list[dict[str, Any]]:
    """The graph of layers as Keras writes it."""
    made: list[dict[str, Any]] = []
    outputs = {INPUT: "intensity_scaler"}
    factors = {layer.inputs[0]: layer.settings["factor"] for layer in table.layers if layer.op == "scale"}

    def add(kind: str, name: str, settings: Mapping[str, Any], *arguments: Any) -> str:
        calls = [{"args": list(arguments), "kwargs": {}}] if arguments else []
        made.append({"class_name": kind, "name": name, "config": {"name": name, **settings}, "inbound_nodes": calls})
        return name

    add("InputLayer", "input", {})
    add("IntensityScaler", "intensity_scaler", {}, [_history("input")])
    for number, layer in enumerate(table.layers):
        inputs = [_history(outputs[name]) for name in layer.inputs]
        if layer.op == "scale":
            outputs[layer.name] = outputs[layer.inputs[0]]
        elif layer.op == "conv":
            outputs[layer.name] = _keras_conv(add, layer, number, factors.get(layer.name, 1.0), inputs[0])
        elif layer.op == "outside_centre":
            mask = add("CenterMaskLayer", f"mask_{number}", {"N": N, "c": 1, "kind": "border"}, inputs[0])
            outputs[layer.name] = add("Multiply", f"multiply_{number}", {}, inputs[0], _history(mask))
        else:
            kind, settings, more = _keras_layer(layer)
            outputs[layer.name] = add(kind, f"{kind.lower()}_{number}", settings, *inputs, *more)
    ends = [_history(outputs[name]) for name in (table.amplitude, table.phase)]
    add("CombineComplexLayer", "obj", {"use_polar": True}, ends)
    return made


def _keras_conv(add: Any, layer: Layer, number: int, factor: float, x: dict[str, Any]) -> str:
    settings = {
        "filters": layer.out_channels,
        "kernel_size": [3, 3],
        "strides": [1, 1],
        "padding": "same",
        "dilation_rate": [1, 1],
        "groups": 1,
        "use_bias": True,
        "data_format": "channels_last",
    }
    inline = layer.settings["activation"] == "relu" and not layer.name.endswith("head/conv")
    conv = add("Conv2D", f"conv2d_{number}", {**settings, "activation": "relu" if inline else "linear"}, x)
    if inline:
        return str(conv)
    if layer.name.endswith("outer/conv"):
        return str(add("Silu", f"silu_{number}", {}, _history(conv)))
    activation = {"activation_name": layer.settings["activation"], "scale": factor}
    return str(add("ActivationLayer", f"activation_{number}", activation, _history(conv)))


def _keras_layer(layer: Layer) -> tuple[str, dict[str, Any], list[Any]]:
    match layer.op:
        case "max_pool":
            return "MaxPooling2D", {"pool_size": [2, 2], "strides": [2, 2]}, []
        case "upsample":
            return "UpSampling2D", {"size": [2, 2], "interpolation": "nearest"}, []
        case "pad":
            return "ZeroPadding2D", {"padding": [[layer.settings["width"]] * 2] * 2}, []
        case "add":
            return "Add", {}, []
        case "channels":
            (channels,), start, stop = layer.in_channels, layer.settings["start"], layer.settings["stop"]
            start = None if start == 0 else start - channels
            stop = None if stop == channels else stop - channels
            part = {"class_name": "__slice__", "config": {"start": start, "stop": stop, "step": None}}
            return "GetItem", {}, [[{"class_name": "__ellipsis__", "config": {}}, part]]
    raise ValueError(layer.op)


def _history(name: str) -> dict[str, Any]:
    return {"class_name": "__keras_tensor__", "config": {"shape": [None], "keras_history": [name, 0, 0]}}


def keras_weights(table: Table, layers: list[dict[str, Any]], weights: Weights) -> bytes:
    import h5py

    ours = [layer for layer in table.layers if layer.op == "conv"]
    theirs = [layer["name"] for layer in layers if layer["class_name"] == "Conv2D"]
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for number, (layer, name) in enumerate(zip(ours, theirs, strict=True)):
            variables = file.create_group(f"layers/conv2d{f'_{number}' if number else ''}/vars")
            variables.attrs["name"] = name
            for index, key in enumerate(layer.parameters):
                variables[str(index)] = weights[key]
    return stream.getvalue()
