"""Archives of unknown origin are refused with what is wrong and what to do, and nothing in them is run."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ptycho_core.errors import ArchiveError
from ptycho_core.models.checkpoint import load_checkpoint
from ptycho_core.models.model import load_model
from ptycho_core.networks.registry import build_table
from ptycho_core.published import convert_published, import_published, pickles
from ptycho_core.published import members as members_module
from ptycho_core.published.importing import _stated_illumination, is_published, published_facts
from ptycho_core.published.pickles import PLAIN, read_mapping, read_plain
from ptycho_core.published.tensors import read_tensors
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.storage.files import DAMAGED_HDF5
from tests.core.published_archives import (
    DILL,
    KERAS,
    PYTORCH,
    SCALING,
    Call,
    Name,
    Stored,
    flat_parameters,
    keras_file,
    keras_layers,
    keras_members,
    network_of,
    numpy_array,
    pickled,
    tensor,
    torch_file,
    torch_members,
    torch_state,
    write_archive,
    zipped,
)
from tests.core.refusals import refusal_of, says
from tests.networks import cnn

TORCH = ModelConfig(N=32, n_filters_scale=1, amplitude_ceiling=1.0, architecture="published_torch")
TENSORFLOW = cnn(N=32, n_filters_scale=1, amplitude_ceiling=1.0)
WEIGHTS = network_of(TORCH)
FIRST = "model.autoencoder.encoder.blocks.0.conv1.weight"


def torch_archive(**changes: bytes | None) -> dict[str, bytes]:
    """The members of a sound archive, some replaced or, with None, left out."""
    names = {"dill": DILL, "pytorch": PYTORCH, "scaling": SCALING, "manifest": "manifest.dill"}
    members = dict(torch_members(TORCH, WEIGHTS))
    for key, content in changes.items():
        members.pop(names[key])
        if content is not None:
            members[names[key]] = content
    return members


def message_of(tmp_path: Path, members: dict[str, bytes] | bytes) -> str:
    """What an import of it says; the file is named, and a remedy is there."""
    path = tmp_path / "wts.h5.zip"
    path.write_bytes(members if isinstance(members, bytes) else zipped(members))
    with pytest.raises(ArchiveError) as caught:
        import_published(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and message.endswith(".")
    return message


# -- what is wrong with an archive ---------------------------------------------------------------------------------

Members = dict[str, bytes] | bytes


def besides(**more: bytes) -> dict[str, bytes]:
    """A sound archive with more members."""
    return {**torch_archive(), **more}


def parameters(**changes: Any) -> bytes:
    return pickled(flat_parameters(TORCH, **changes))


def state(change: Callable[[dict[str, Any]], object] = lambda arrays: None, **changed: Any) -> dict[str, bytes]:
    """An archive of PyTorch whose arrays were changed."""
    arrays: dict[str, Any] = {f"model.autoencoder.{name}": array for name, array in torch_state(WEIGHTS).items()}
    change(arrays)
    return torch_archive(pytorch=torch_file({**arrays, **changed}))


def first_with_nan() -> Any:
    kernel = FIRST_KERNEL.copy()
    kernel[0, 0, 1, 1] = np.nan
    return kernel


def endless_frame(length: int) -> dict[str, bytes]:
    """Python's own reader raises OverflowError."""
    content = bytearray(pickled({"N": 32}))
    assert content[2:3] == pickle.FRAME
    content[3:11] = struct.pack("<Q", length)
    return torch_archive(dill=bytes(content))


def repeated() -> bytes:
    stream = io.BytesIO(zipped(torch_archive()))
    with zipfile.ZipFile(stream, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("manifest.dill", b"x")
    return stream.getvalue()


def claiming(archive: bytes, size: int) -> bytes:
    """The last entry of the directory says that it has so many bytes."""
    place = archive.rindex(b"PK\x01\x02") + 20
    return archive[:place] + size.to_bytes(4, "little") + archive[place + 4 :]


def bomb(name: str, members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for each, content in {**members, name: bytes(20 * 2**20)}.items():
            archive.writestr(each, content)
    return stream.getvalue()


def keras(**members: bytes) -> dict[str, bytes]:
    """An archive of Keras, members of the model in it replaced."""
    pytest.importorskip("h5py")
    table, weights = build_table(TENSORFLOW), network_of(TENSORFLOW)
    return {**keras_members(TENSORFLOW, weights), KERAS: keras_file(table, TENSORFLOW.N, weights, **members)}


def graph(kind: str, cls: str | None = None, /, **settings: Any) -> dict[str, bytes]:
    """Every layer of the class `kind` with other settings; with `cls`, of that class and with these settings alone."""
    pytest.importorskip("h5py")
    layers = keras_layers(build_table(TENSORFLOW), TENSORFLOW.N)
    for layer in layers:
        if layer["class_name"] == kind:
            layer.update(class_name=cls or kind, config={**({} if cls else layer["config"]), **settings})
    return keras(**{"config.json": json.dumps({"config": {"layers": layers}}).encode()})


def weights_file(change: Callable[[Any], object]) -> bytes:
    h5py = pytest.importorskip("h5py")
    from tests.core.published_archives import keras_weights

    table = build_table(TENSORFLOW)
    stream = io.BytesIO(keras_weights(table, keras_layers(table, TENSORFLOW.N), network_of(TENSORFLOW)))
    with h5py.File(stream, "r+") as file:
        change(file)
    return stream.getvalue()


def keras_weights_file(change: Callable[[Any], object] = lambda file: None) -> dict[str, bytes]:
    return keras(**{"model.weights.h5": weights_file(change)})


def kernel_replaced(make: Callable[[Any], object]) -> dict[str, bytes]:
    """The first kernel is gone, and `make(file)` may put something in its place."""

    def change(file: Any) -> None:
        del file[PLACE]
        make(file)

    return keras_weights_file(change)


def kernel_is(value: Any) -> dict[str, bytes]:
    return kernel_replaced(lambda file: file.__setitem__(PLACE, value))


def elsewhere(folder: Path, kind: str) -> dict[str, bytes]:
    """The first kernel lies in another file."""
    h5py = pytest.importorskip("h5py")
    secret, raw = folder / "secret.h5", folder / "raw.bin"
    with h5py.File(secret, "w") as file:
        file["x"] = KERNEL
    raw.write_bytes(KERNEL.tobytes())

    def make(file: Any) -> None:
        if kind == "link":
            file[PLACE] = h5py.ExternalLink(str(secret), "x")
        elif kind == "external":
            file.create_dataset(PLACE, KERNEL.shape, KERNEL.dtype, external=[(str(raw), 0, KERNEL.nbytes)])
        else:
            layout = h5py.VirtualLayout(KERNEL.shape, KERNEL.dtype)
            layout[...] = h5py.VirtualSource(str(secret), "x", KERNEL.shape)
            file.create_virtual_dataset(PLACE, layout)

    return kernel_replaced(make)


def soft_link() -> dict[str, bytes]:
    h5py = pytest.importorskip("h5py")
    return kernel_is(h5py.SoftLink("/layers/conv2d_1/vars/0"))


def named(name: Any) -> dict[str, bytes]:
    """What the weights say of the name of their layer."""
    return keras_weights_file(lambda file: file["layers/conv2d/vars"].attrs.__setitem__("name", name))


def broken_heap(size: int) -> dict[str, bytes]:
    """HDF5 would look for the next object of the heap without end."""
    data = bytearray(weights_file(lambda file: None))
    place = data.index(b"GCOL") + 16
    while int.from_bytes(data[place : place + 2], "little"):
        place += 16 + -(-int.from_bytes(data[place + 8 : place + 16], "little") // 8) * 8
    data[place + 8 : place + 16] = size.to_bytes(8, "little")
    return keras(**{"model.weights.h5": bytes(data)})


def probe_is(probe: Any) -> dict[str, bytes]:
    return keras_members(TENSORFLOW, network_of(TENSORFLOW), probe=numpy_array(probe))


FIRST_KERNEL = np.array(WEIGHTS["encoder/block0/conv0/kernel"]).transpose(3, 2, 0, 1)
BIAS = "model.autoencoder.decoder_amp.amp.conv2.bias"
EXTRA = "model.autoencoder.encoder.blocks.0.bn1.weight"
PLACE = "layers/conv2d/vars/0"
KERNEL = network_of(TENSORFLOW)["encoder/block0/conv0/kernel"]
MANY = {f"{number:040}": b"" for number in range(20_000)}
WAYS_OUT = ("../../etc/passwd", "/etc/passwd", "a/../../b", "..\\b", "C:\\b", "\\b")
VERSIONS: tuple[dict[str, Any], ...] = (
    {"version": "3.0", "models": ["diffraction_to_obj"]},
    {"version": "1.0", "models": []},
    {"version": [1]},
    {},
)
VARIANTS = {
    "mode": "Supervised",
    "architecture": "hybrid_resnet",
    "cnn_output_mode": "real_imag",
    "amp_activation": "elu",
    "use_shared_decoder": True,
    "batch_norm": True,
    "use_legacy_decoder_channel_override": True,
    "eca_encoder": True,
    "cbam_decoder": True,
    "eca_decoder": True,
    "spatial_decoder": True,
}
GRAPHS = {
    "a convolution without padding": ("Conv2D", {"padding": "valid"}, "…layer conv2d_"),
    "another activation": ("Conv2D", {"activation": "elu"}, "…layer conv2d_"),
    "a larger kernel": ("Conv2D", {"kernel_size": [5, 5]}, "…layer conv2d_"),
    "strides": ("Conv2D", {"strides": [2, 2]}, "…layer conv2d_"),
    "another pooling": ("MaxPooling2D", {"pool_size": [3, 3]}, "…for encoder/block"),
    "another resize": ("UpSampling2D", {"interpolation": "bilinear"}, "…for "),
    "padding on both sides": ("ZeroPadding2D", {"padding": [[1, 1], [1, 1]]}, "…for amplitude/head/pad"),
    "another last activation": (
        "ActivationLayer",
        {"activation_name": "softplus"},
        "…for amplitude/head/conv: expected the activation sigmoid",
    ),
    "another mask": ("CenterMaskLayer", {"kind": "center"}, "…for amplitude/outer/mask"),
    "real and imaginary parts": ("CombineComplexLayer", {"use_polar": False}, "…a complex object"),
}
NO_GRAPH = (b"{}", b"[]", b"{", b'{"config": {"layers": [3]}}', b'{"config": {"layers": []}}')
MARSHALLED = {"function": {"class_name": "__lambda__", "config": {"code": "4wA"}}}
ARCHIVES: dict[str, tuple[Callable[[], Members], str]] = {
    **{
        f"a frame of {length} bytes": (
            partial(endless_frame, length),
            "…expected a whole pickle of plain values; received OverflowError…",
        )
        for length in (2**63, 2**64 - 1)
    },
    **{
        f"no dictionary: {value!r}": (
            partial(torch_archive, dill=pickled(value)),
            "…a dictionary of named values…",
        )
        for value in ([1], {1: 2}, "text")
    },
    **{
        f"a {name} without end": (partial(torch_archive, dill=parameters(**{name: 2**40_000})), "…'a int'…")
        for name in ("N", "gridsize", "n_filters_scale")
    },
    **{f"a way out: {name}": (partial(besides, **{name: b"x"}), "…leads out of it…") for name in WAYS_OUT},
    **{
        f"a way out of the network: {name}": (
            partial(torch_archive, pytorch=zipped({name: b"x"})),
            "…leads out of it…",
        )
        for name in WAYS_OUT
    },
    "a repeated member": (repeated, "…every member once…"),
    "a bomb": (lambda: bomb(DILL, torch_archive(dill=None)), "…This may be a decompression bomb…"),
    "a bomb in the network": (
        lambda: torch_archive(pytorch=bomb("model/data.pkl", {})),
        "…This may be a decompression bomb…",
    ),
    "a member larger than the file": (
        lambda: claiming(zipped(torch_archive()), 2**32 - 2**16),
        "…an entry of 4294901760 bytes in a file of…",
    ),
    "many members": (lambda: besides(**MANY), "…a directory of more than…"),
    "many members of the network": (lambda: torch_archive(pytorch=zipped(MANY)), "…a directory of more than…"),
    "no parameters": (lambda: torch_archive(dill=None), f"…expected a member {DILL}…"),
    "no network": (lambda: torch_archive(pytorch=None), f"…expected a member {PYTORCH}…"),
    "no settings": (lambda: torch_archive(scaling=None), f"…expected a member {SCALING}…"),
    "no manifest": (lambda: torch_archive(manifest=None), "…expected an archive with manifest.dill…"),
    **{
        f"another version: {manifest}": (
            partial(torch_archive, manifest=pickled(manifest)),
            "…manifest.dill: expected version 1.0 or 2.0-pytorch…",
        )
        for manifest in VERSIONS
    },
    **{
        f"a variant: {name}": (
            partial(torch_members, TORCH, WEIGHTS, **{name: value}),
            f"…{SCALING}: model_config.{name}: expected…received {value!r}…docs/published.md…",
        )
        for name, value in VARIANTS.items()
    },
    "an older network": (
        lambda: torch_archive(scaling=torch_file({"model_config": {"mode": "Unsupervised", "architecture": "cnn"}})),
        "…an archive of an older version…",
    ),
    "no settings of the network": (lambda: torch_archive(scaling=torch_file({})), "…the settings of the network…"),
    **{
        f"parameters of another network: {changes}": (
            partial(torch_archive, dill=parameters(**changes)),
            f"…{what}…",
        )
        for what, changes in (
            ("model_type: expected 'pinn'", {"model_type": "supervised"}),
            ("ModelConfig: N must be", {"N": 33}),
            ("ModelConfig: gridsize must be", {"gridsize": 0}),
            ("ModelConfig: N must be", {"N": "64"}),
            ("shape", {"gridsize": 2}),
            ("shape", {"n_filters_scale": 2}),
        )
    },
    "a weight that is not finite": (
        lambda: state(**{FIRST: first_with_nan()}),
        "…encoder/block0/conv0/kernel: expected finite numbers…",
    ),
    "a weight of another shape": (
        lambda: state(**{FIRST: FIRST_KERNEL[:3]}),
        f"…{FIRST}: expected encoder/block0/conv0/kernel of shape…",
    ),
    "a missing weight": (
        lambda: state(lambda arrays: arrays.pop(BIAS)),
        f"…{BIAS}: expected the weights of amplitude/outer/conv/bias; received nothing…",
    ),
    "a surplus weight": (
        lambda: state(**{EXTRA: np.ones(3, np.float32)}),
        "…received 1 others: encoder.blocks.0.bn1.weight…",
    ),
    "no weights": (lambda: state(dict.clear), "…the weights of one network…"),
    "a weight that is no array": (lambda: state(**{FIRST: 3}), "…an array of floating-point numbers…"),
    **{
        f"Keras: {name}": (
            partial(graph, kind, **settings),
            f"{what}…docs/published.md…",
        )
        for name, (kind, settings, what) in GRAPHS.items()
    },
    "Keras: marshalled code": (lambda: graph("Silu", "Lambda", **MARSHALLED), "…of class Lambda…"),
    **{f"Keras: no graph: {content!r}": (partial(keras, **{"config.json": content}), "…") for content in NO_GRAPH},
    "Keras 2": (
        lambda: keras(**{"metadata.json": b'{"keras_version": "2.15.0"}'}),
        "…expected Keras 3; received 2.15.0…",
    ),
    "Keras: a link": (soft_link, "…received a SoftLink…"),
    "Keras: a missing weight": (lambda: kernel_replaced(lambda file: None), "…received nothing…"),
    "Keras: a weight of another shape": (lambda: kernel_is(KERNEL[:1]), "…floating-point numbers of shape…"),
    "Keras: integers": (lambda: kernel_is(KERNEL.astype(int)), "…floating-point numbers of shape…"),
    "Keras: not finite": (lambda: kernel_is(np.full_like(KERNEL, np.nan)), "…expected finite numbers…"),
    "Keras: packed": (
        lambda: kernel_replaced(lambda file: file.create_dataset(PLACE, data=KERNEL, compression="gzip")),
        "…expected numbers in one piece, not packed…",
    ),
    "Keras: huge": (
        lambda: kernel_replaced(lambda file: file.create_dataset(PLACE, (2**20, 2**20), "f4", chunks=True)),
        "…floating-point numbers of shape…",
    ),
    "Keras: layers swapped": (lambda: named("conv2d_9"), "…expected the weights of layer…"),
    "Keras: no HDF5": (lambda: keras(**{"model.weights.h5": b"\x89HDF\r\n\x1a\n"}), "…a whole HDF5 file…"),
    **{
        f"Keras: a broken heap: {size}": (
            partial(broken_heap, size),
            "…model.weights.h5: expected whole heaps and trees of HDF5…",
        )
        for size in (0, 8)
    },
    **{
        f"Keras: no name: {kind}": (partial(named, name), "…expected a whole HDF5 file of weights…")
        for kind, name in {
            "numbers": np.ones(3),
            "long": np.bytes_(b"x" * 2000),
            "two": ["conv2d_0", "conv2d_0"],
            "a number": 7,
        }.items()
    },
    **{
        f"Keras: no probe: {kind}": (partial(probe_is, probe), "…params.dill: probe: expected…")
        for kind, probe in {
            "no light": np.zeros((32, 32, 1), np.complex64),
            "another size": np.ones((8, 8), np.complex64),
            "not finite": np.ones(3) * np.nan,
        }.items()
    },
}
"""Members of an archive, or its bytes, and what is said of them; `…` stands for any words."""


@pytest.mark.parametrize(("make", "words"), ARCHIVES.values(), ids=ARCHIVES)
def test_what_is_no_published_archive_of_ours_is_refused(
    tmp_path: Path, make: Callable[[], Members], words: str
) -> None:
    says(message_of(tmp_path, make()), words)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("link", "…received a ExternalLink…"),
        ("external", "…an array of this file…"),
        ("virtual", "…an array of this file…"),
    ],
)
def test_weights_that_lie_in_another_file_are_refused(tmp_path: Path, kind: str, words: str) -> None:
    says(message_of(tmp_path, elsewhere(tmp_path, kind)), words)


# -- what is wrong with its contents -------------------------------------------------------------------------------


def plain(content: bytes) -> Callable[[], object]:
    return lambda: read_plain(content, "a", "b")


def array_of(shape: tuple[Any, ...]) -> bytes:
    """An array of three numbers that claims that shape."""
    array = numpy_array(np.ones(3, np.float32))
    version, _, dtype, order, content = array.state
    return pickled(Call(array.name, array.arguments, (version, shape, dtype, order, content)))


def tensors(value: object, member: str = "m/data/0", content: bytes = bytes(16)) -> Callable[[], object]:
    return lambda: read_tensors(zipped({"m/data.pkl": pickled(value, 2), member: content}), "model.pth")


CALLS = (
    ("builtins", "eval"),
    ("builtins", "getattr"),
    ("builtins", "type"),
    ("subprocess", "Popen"),
    ("functools", "partial"),
    ("operator", "attrgetter"),
    ("copyreg", "_reconstructor"),
    ("numpy", "load"),
    ("numpy", "dtype.type"),
    ("numpy.core.multiarray", "fromfile"),
    ("dill._dill", "_load_type"),
    ("dill._dill", "_create_function"),
    ("dill._dill", "_import_module"),
    ("pathlib", "os.system"),
    ("torch.serialization", "load"),
    ("ptycho.model", "negloglik"),
)
INSTRUCTIONS = {
    "STRING": (b"(S'x'\nios\nsystem\n.", "the instruction STRING"),
    "INST": (b"(ios\nsystem\n.", "the instruction INST"),
    "OBJ": (b"(cos\nsystem\no.", "the instruction OBJ"),
    "NEWOBJ": (b"\x80\x02cnumpy\nndarray\n)\x81.", "the instruction NEWOBJ"),
    "EXT1": (b"\x80\x02\x82\x01.", "the instruction EXT1"),
    "a long BYTEARRAY8": (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".", "expected 1099511627776 bytes"),
    "BYTEARRAY8": (b"\x80\x05\x96" + struct.pack("<Q", 1) + b"x.", "the instruction BYTEARRAY8"),
    "a far value": (b"\x80\x02Nr\xff\xff\xff\x7f.", "value number 2147483647"),
    "tuple in tuple": (b"\x80\x02" + b")" + b"\x85" * 10**5 + b".", "tuples"),
    "no end": (b"\x80\x02}", "whole pickle"),
    "nothing": (b"", "whole pickle"),
    "less than stated": (b"\x80\x02X" + struct.pack("<I", 2**31) + b"abc.", "whole pickle"),
    "a persistent value": (pickled(Stored(("storage",)), 2), "persistent"),
}
CONSTRUCTORS = {
    "objects": Call(Name("numpy", "dtype"), ("O8", False, True)),
    "void": Call(Name("numpy", "dtype"), ("V8",)),
    "an array without numbers": Call(Name("numpy", "ndarray"), ((3,),)),
    "a name as dtype": Call(
        numpy_array(np.ones(1)).name, (Name("numpy", "ndarray"), (0,), b"b"), (1, (9,), Name("os", "x"), False, b"")
    ),
    "an array of a set": Call(
        Name("dill._dill", "_create_array"), (Name("builtins", "set"), (), (1, (), None, False, b""), None)
    ),
    "fields": Call(Name("numpy", "dtype"), ("f4",), (3, "<", ("a",), None, None, -1, -1, 0)),
    "another codec": Call(Name("_codecs", "encode"), ("x", "zlib")),
    "a path of numbers": Call(Name("pathlib", "PosixPath"), (1,)),
}
SHAPES = ((4,), (2**40, 2**40), (-3,), (1.5, 2), (True,) * 3)
LAYOUTS = (
    ((3,), (1,), 2, 4),
    ((2, 3), (3, 1), 0, 4),
    ((2**40,), (0,), 0, 4),
    ((2,), (-1,), 1, 4),
    ((2,), (2**62,), 0, 4),
    ((2, 2), (1,), 0, 4),
    ((1,), (1,), 0, 5),
)
"""Of tensors: shape, strides, offset, and how many numbers the file is said to hold; there are four."""
CONTENTS: dict[str, tuple[Callable[[], object], str]] = {
    **{
        f"a call of {module}.{name}, {protocol}": (
            plain(pickled({"key": Call(Name(module, name), ("x",))}, protocol)),
            f"a: b: expected …received a call of {module}.{name}…Nothing was run…",
        )
        for module, name in CALLS
        for protocol in (0, 2, 4)
    },
    **{name: (plain(content), f"…{what}…") for name, (content, what) in INSTRUCTIONS.items()},
    **{f"made of {name}": (plain(pickled(value)), "…") for name, value in CONSTRUCTORS.items()},
    **{f"an array of {shape}": (plain(array_of(shape)), "…") for shape in SHAPES},
    **{
        f"a tensor of {shape}, {strides}, {offset}, {count}": (
            tensors(tensor("0", count, shape, strides, offset)),
            "…model.pth: m/data.pkl: expected what torch.save…",
        )
        for shape, strides, offset, count in LAYOUTS
    },
    **{
        name: (tensors(Stored(("storage", Name("torch", name), "0", "cpu", 4))), f"…a call of torch.{name}…")
        for name in ("UntypedStorage", "BFloat16Storage")
    },
    "a program": (tensors(1, "m/code/x.py", b""), "…received a TorchScript program…"),
}
"""What reads contents, and what is said of them."""


@pytest.mark.parametrize(("read", "words"), CONTENTS.values(), ids=CONTENTS)
def test_what_plain_values_and_tensors_do_not_need_is_refused(read: Callable[[], object], words: str) -> None:
    says(str(refusal_of(read, ArchiveError)), words)


# -- pickles -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["dill", "scaling", "manifest", "pytorch"])
def test_a_pickle_that_would_run_a_command_is_refused_and_runs_nothing(tmp_path: Path, where: str) -> None:
    canary = tmp_path / "canary"
    command = Call(Name("posix", "system"), (f"touch {canary}",))
    for value in (command, {"N": command}, [Call(Name("os", "system"), (f"touch {canary}",))]):
        content = torch_file(value) if where in ("scaling", "pytorch") else pickled(value)
        message = message_of(tmp_path, torch_archive(**{where: content}))
        assert "received a call of " in message and ".system. Nothing was run." in message
    assert not canary.exists()
    pickle.loads(pickled(command))  # noqa: S301 - our own bytes: the canary works
    assert canary.exists()


def test_a_pickle_of_too_many_instructions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "INSTRUCTION_LIMIT", 100)
    with pytest.raises(ArchiveError, match="at most 100 instructions"):
        read_plain(b"\x80\x02" + b"N0" * 60 + b"N.", "a", "b")
    monkeypatch.setattr(pickles, "TEXT_LIMIT", 100)
    with pytest.raises(ArchiveError, match="a pickle of at most 100 bytes"):
        read_plain(pickled("x" * 100), "a", "b")


def test_a_constructor_cannot_be_changed_by_a_pickle() -> None:
    before = {key: (made.name, made.make) for key, made in PLAIN.items()}
    change = b"\x80\x02cnumpy\ndtype\n}X\x04\x00\x00\x00makeNsb."
    for content in (change, b"\x80\x02cnumpy\ndtype\nN}X\x04\x00\x00\x00makeNs\x86b."):
        with pytest.raises(ArchiveError, match="is not to be changed"):
            read_plain(content, "a", "b")
    assert {key: (made.name, made.make) for key, made in PLAIN.items()} == before


def test_plain_values_are_read_as_they_are() -> None:
    scalar = Call(Name("numpy", "dtype"), ("f8", False, True), (3, "<", None, None, None, -1, -1, 0))
    values = {
        "numbers": [1, -2, 2**70, 0.5, True, None],
        "text": "Größe",
        "bytes": b"\x00\xff",
        "sets": {1, 2},
        "pair": (1, {"a": ()}),
        "complex": Call(Name("builtins", "complex"), (1.0, 2.0)),
        "path": Call(Name("pathlib", "PosixPath"), ("/", "runs", "scan.npz")),
        "scalar": Call(Name("numpy.core.multiarray", "scalar"), (scalar, np.float64(0.25).tobytes())),
        "array": numpy_array(np.arange(6, dtype=np.int16).reshape(2, 3)),
    }
    for protocol in (2, 4):
        read = read_mapping(pickled(values, protocol), "a", "b")
        np.testing.assert_array_equal(read.pop("array"), np.arange(6).reshape(2, 3))
        expected = {**values, "complex": 1 + 2j, "path": "/runs/scan.npz", "scalar": 0.25}
        assert read == {key: value for key, value in expected.items() if key != "array"}


def test_a_container_without_end_is_never_written_out(tmp_path: Path) -> None:
    endless: list[Any] = []
    for _ in range(60):
        endless = [endless, endless]
    for name in ("N", "gridsize", "model_type", "batch_size", "intensity_scale"):
        flat = pickled(flat_parameters(TORCH, **{name: endless}))
        if name in ("batch_size", "intensity_scale"):
            write_archive(tmp_path / "sound.zip", torch_archive(dill=flat))
            assert import_published(tmp_path / "sound.zip").config.batch_size in (8, 16)
        else:
            assert "'a list'" in message_of(tmp_path, torch_archive(dill=flat))
    manifest = pickled({"version": endless, "models": [endless]})
    assert "received version 'a list', models a list" in message_of(tmp_path, torch_archive(manifest=manifest))
    scaling = torch_file({"model_config": {"use_legacy_decoder_channel_override": endless}})
    assert "received 'a list'" in message_of(tmp_path, torch_archive(scaling=scaling))


def test_numbers_are_read_in_the_byte_order_of_the_file() -> None:
    numbers = np.arange(4, dtype=">f4").tobytes()
    pickle_of_it = pickled({"x": tensor("0", 4, (2, 2), (1, 2))}, 2)
    content = zipped({"m/data.pkl": pickle_of_it, "m/data/0": numbers, "m/byteorder": b"big"})
    np.testing.assert_array_equal(read_tensors(content, "model.pth")["x"], [[0, 2], [1, 3]])


# -- zip files -----------------------------------------------------------------------------------------------------


def test_a_member_that_is_too_large_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = torch_archive(dill=pickled({**flat_parameters(TORCH), "padding": "x" * 2 * len(zipped(torch_archive()))}))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    monkeypatch.setattr(members_module, "SIZE_LIMIT", len(stream.getvalue()))
    assert f"{DILL}: expected at most" in message_of(tmp_path, stream.getvalue())
    monkeypatch.setattr(members_module, "SIZE_LIMIT", len(stream.getvalue()) - 1)
    assert "expected at most" in message_of(tmp_path, stream.getvalue())


def test_members_that_together_fill_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each within its limits, and so many of them."""
    stream = io.BytesIO()
    network = io.BytesIO(torch_archive()[PYTORCH])
    with zipfile.ZipFile(network) as whole, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in whole.namelist():
            archive.writestr(name, bytes(len(whole.read(name))) if "/data/" in name else whole.read(name))
    members = torch_archive(pytorch=stream.getvalue())
    monkeypatch.setattr(members_module, "SMALL", 2**22)
    path = write_archive(tmp_path / "zeros.h5.zip", members)
    import_published(path)  # no more than an archive may take
    monkeypatch.setattr(members_module, "UNPACKED_LIMIT", 2**19)
    assert "bytes of all members that are needed; received more" in message_of(tmp_path, members)


def test_more_members_than_an_archive_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members_module, "COUNT_LIMIT", 3)
    assert "expected at most 3 members; received 4" in message_of(tmp_path, torch_archive())


def test_a_truncated_archive_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    whole = zipped(torch_archive())
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 30, len(whole) - 1):
        message = message_of(tmp_path, whole[:length])  # the end of a zip inside it may pass for its own
        assert "a readable archive" in message or "Give the whole wts.h5.zip" in message
    network = torch_archive()[PYTORCH]
    for length in (0, 100, len(network) - 1):
        assert "a readable archive" in message_of(tmp_path, torch_archive(pytorch=network[:length]))


def test_damage_anywhere_is_never_another_error(tmp_path: Path) -> None:
    whole = zipped(torch_archive())
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 60):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path = tmp_path / "wts.h5.zip"
        path.write_bytes(damaged)
        with contextlib.suppress(ArchiveError):
            import_published(path)


@pytest.mark.parametrize("kind", DAMAGED_HDF5)
def test_whatever_h5py_raises_is_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    """OverflowError, for example, for a size in the file that is no number of Python's."""
    h5py = pytest.importorskip("h5py")

    def fail(self: Any, *_: object) -> None:
        raise kind("a number that is none")

    monkeypatch.setattr(h5py.Dataset, "__getitem__", fail)
    message = message_of(tmp_path, keras(**{"model.weights.h5": weights_file(lambda file: None)}))
    assert f"expected a whole HDF5 file of weights; received {kind.__name__}" in message


def test_a_pipe_or_a_device_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "wts.h5.zip").mkdir()
    (tmp_path / "checkpoint.h5.zip").mkdir()
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        for read in (import_published, published_facts, load_model, load_checkpoint):
            with pytest.raises(ArchiveError, match=f"{path}.*: expected a (model archive|checkpoint); received a"):
                read(path)
        assert not is_published(path)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"no such file\. Check the path"):
        import_published(tmp_path / "nowhere.zip")


def test_a_path_that_cannot_be_looked_at_is_refused(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 300)
    for read in (import_published, published_facts, load_model, load_checkpoint):
        with pytest.raises(ArchiveError, match="File name too long"):
            read(path)


def test_nothing_is_written_when_an_archive_is_refused(tmp_path: Path) -> None:
    source = write_archive(tmp_path / "wts.h5.zip", torch_archive(pytorch=None))
    with pytest.raises(ArchiveError):
        convert_published(source, tmp_path / "ours.h5.zip")
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("stated", [1e-300, 1e300, float("nan"), -1.0, "1"])
def test_an_intensity_scale_that_says_nothing_of_photons_is_not_taken(stated: object) -> None:
    config = TrainingConfig(model=ModelConfig(N=16), nphotons=1e4)
    light = _stated_illumination(SimpleNamespace(parameters={"intensity_scale": stated}), config)  # type: ignore[arg-type]
    assert (light.mean_intensity, light.input_scale) == (1e4 / 16**2, 8 / 1e2)
