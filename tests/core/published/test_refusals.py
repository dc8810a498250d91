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
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho_core.errors import ArchiveError
from ptycho_core.models.checkpoint import load_checkpoint
from ptycho_core.models.model import load_model
from ptycho_core.networks.registry import build_table
from ptycho_core.published import convert_published, import_published, pickles
from ptycho_core.published import members as members_module
from ptycho_core.published.importing import is_published, published_facts
from ptycho_core.published.pickles import PLAIN, read_mapping, read_plain
from ptycho_core.published.tensors import read_tensors
from ptycho_core.settings.model import ModelConfig
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

TORCH = ModelConfig(N=32, n_filters_scale=1, amplitude_ceiling=1.0, architecture="published_torch")
TENSORFLOW = ModelConfig(N=32, n_filters_scale=1, amplitude_ceiling=1.0)
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


@pytest.mark.parametrize(
    ("module", "name"),
    [
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
    ],
)
def test_a_name_that_is_not_in_the_table_is_refused_by_name(module: str, name: str) -> None:
    for protocol in (0, 2, 4):
        with pytest.raises(ArchiveError, match=f"a: b: expected .*received a call of {module}.{name}.*Nothing was run"):
            read_plain(pickled({"key": Call(Name(module, name), ("x",))}, protocol), "a", "b")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"(S'x'\nios\nsystem\n.", "the instruction STRING"),
        (b"(ios\nsystem\n.", "the instruction INST"),
        (b"(cos\nsystem\no.", "the instruction OBJ"),
        (b"\x80\x02cnumpy\nndarray\n)\x81.", "the instruction NEWOBJ"),
        (b"\x80\x02\x82\x01.", "the instruction EXT1"),
        (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".", "not enough data|expected .* bytes"),
        (b"\x80\x05\x96" + struct.pack("<Q", 1) + b"x.", "the instruction BYTEARRAY8"),
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "value number 2147483647"),
        (b"\x80\x02" + b")" + b"\x85" * 10**5 + b".", "tuples"),
        (b"\x80\x02}", "whole pickle"),
        (b"", "whole pickle"),
        (b"\x80\x02X" + struct.pack("<I", 2**31) + b"abc.", "whole pickle"),
        (pickled(Stored(("storage",)), 2), "persistent"),
    ],
)
def test_instructions_that_plain_values_do_not_need_are_refused(content: bytes, what: str) -> None:
    with pytest.raises(ArchiveError, match=what):
        read_plain(content, "a", "b")


@pytest.mark.parametrize(
    "value",
    [
        Call(Name("numpy", "dtype"), ("O8", False, True)),
        Call(Name("numpy", "dtype"), ("V8",)),
        Call(Name("numpy", "ndarray"), ((3,),)),
        Call(
            numpy_array(np.ones(1)).name, (Name("numpy", "ndarray"), (0,), b"b"), (1, (9,), Name("os", "x"), False, b"")
        ),
        Call(Name("dill._dill", "_create_array"), (Name("builtins", "set"), (), (1, (), None, False, b""), None)),
        Call(Name("numpy", "dtype"), ("f4",), (3, "<", ("a",), None, None, -1, -1, 0)),
        Call(Name("_codecs", "encode"), ("x", "zlib")),
        Call(Name("pathlib", "PosixPath"), (1,)),
    ],
)
def test_constructors_take_only_what_they_are_for(value: Call) -> None:
    with pytest.raises(ArchiveError):
        read_plain(pickled(value), "a", "b")


def test_a_pickle_of_too_many_instructions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "INSTRUCTION_LIMIT", 100)
    with pytest.raises(ArchiveError, match="at most 100 instructions"):
        read_plain(b"\x80\x02" + b"N0" * 60 + b"N.", "a", "b")
    monkeypatch.setattr(pickles, "TEXT_LIMIT", 100)
    with pytest.raises(ArchiveError, match="a pickle of at most 100 bytes"):
        read_plain(pickled("x" * 100), "a", "b")


@pytest.mark.parametrize("length", [2**63, 2**64 - 1])
def test_a_frame_longer_than_any_is_refused(tmp_path: Path, length: int) -> None:
    """Python's own reader raises OverflowError."""
    content = bytearray(pickled({"N": 32}))
    assert content[2:3] == pickle.FRAME
    content[3:11] = struct.pack("<Q", length)
    assert "expected a whole pickle of plain values; received OverflowError" in message_of(
        tmp_path, torch_archive(dill=bytes(content))
    )


def test_a_constructor_cannot_be_changed_by_a_pickle() -> None:
    before = {key: (made.name, made.make) for key, made in PLAIN.items()}
    change = b"\x80\x02cnumpy\ndtype\n}X\x04\x00\x00\x00makeNsb."
    for content in (change, b"\x80\x02cnumpy\ndtype\nN}X\x04\x00\x00\x00makeNs\x86b."):
        with pytest.raises(ArchiveError, match="is not to be changed"):
            read_plain(content, "a", "b")
    assert {key: (made.name, made.make) for key, made in PLAIN.items()} == before


def test_an_array_has_as_many_bytes_as_its_shape_takes() -> None:
    array = numpy_array(np.ones(3, np.float32))
    version, _, dtype, order, content = array.state
    for shape in ((4,), (2**40, 2**40), (-3,), (1.5, 2), (True,) * 3):
        with pytest.raises(ArchiveError):
            read_plain(pickled(Call(array.name, array.arguments, (version, shape, dtype, order, content))), "a", "b")


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


def test_a_pickle_of_something_else_than_a_dictionary_is_refused(tmp_path: Path) -> None:
    for value in ([1], {1: 2}, "text"):
        assert "a dictionary of named values" in message_of(tmp_path, torch_archive(dill=pickled(value)))


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


def test_a_number_without_end_is_refused(tmp_path: Path) -> None:
    for name in ("N", "gridsize", "n_filters_scale"):
        message = message_of(tmp_path, torch_archive(dill=pickled(flat_parameters(TORCH, **{name: 2**40_000}))))
        assert "'a int'" in message


# -- zip files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../b", "..\\b", "C:\\b", "\\b"])
def test_a_name_that_leads_out_of_the_archive_is_refused(tmp_path: Path, name: str) -> None:
    assert "leads out of it" in message_of(tmp_path, {**torch_archive(), name: b"x"})
    assert "leads out of it" in message_of(tmp_path, torch_archive(pytorch=zipped({name: b"x"})))


def test_a_member_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO(zipped(torch_archive()))
    with zipfile.ZipFile(stream, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("manifest.dill", b"x")
    assert "every member once" in message_of(tmp_path, stream.getvalue())


@pytest.mark.parametrize("where", ["outer", "inner"])
def test_a_member_that_unpacks_to_far_more_is_refused(tmp_path: Path, where: str) -> None:
    stream = io.BytesIO()
    inner = where == "inner"
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in ({} if inner else torch_archive(dill=None)).items():
            archive.writestr(name, content)
        archive.writestr("model/data.pkl" if inner else DILL, bytes(20 * 2**20))
    members = torch_archive(pytorch=stream.getvalue()) if inner else stream.getvalue()
    assert "This may be a decompression bomb" in message_of(tmp_path, members)


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


@pytest.mark.parametrize("inner", [False, True])
def test_a_directory_that_fills_the_memory_is_refused(tmp_path: Path, inner: bool) -> None:
    many = {f"{number:040}": b"" for number in range(20_000)}
    members = torch_archive(pytorch=zipped(many)) if inner else {**torch_archive(), **many}
    assert "a directory of more than" in message_of(tmp_path, members)


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


@pytest.mark.parametrize(("key", "name"), [("dill", DILL), ("pytorch", PYTORCH), ("scaling", SCALING)])
def test_a_missing_member_is_named(tmp_path: Path, key: str, name: str) -> None:
    assert f"expected a member {name}" in message_of(tmp_path, torch_archive(**{key: None}))


def test_a_file_that_is_no_published_archive_is_named(tmp_path: Path) -> None:
    assert "expected an archive with manifest.dill" in message_of(tmp_path, torch_archive(manifest=None))
    with pytest.raises(ArchiveError, match=r"no such file\. Check the path"):
        import_published(tmp_path / "nowhere.zip")


@pytest.mark.parametrize(
    "manifest",
    [{"version": "3.0", "models": ["diffraction_to_obj"]}, {"version": "1.0", "models": []}, {"version": [1]}, {}],
)
def test_another_version_is_refused(tmp_path: Path, manifest: dict[str, Any]) -> None:
    message = message_of(tmp_path, torch_archive(manifest=pickled(manifest)))
    assert "manifest.dill: expected version 1.0 or 2.0-pytorch" in message


# -- networks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mode", "Supervised"),
        ("architecture", "hybrid_resnet"),
        ("cnn_output_mode", "real_imag"),
        ("amp_activation", "elu"),
        ("use_shared_decoder", True),
        ("batch_norm", True),
        ("use_legacy_decoder_channel_override", True),
        ("eca_encoder", True),
        ("cbam_decoder", True),
        ("eca_decoder", True),
        ("spatial_decoder", True),
    ],
)
def test_a_variant_that_cannot_be_ours_is_refused_by_name(tmp_path: Path, name: str, value: object) -> None:
    message = message_of(tmp_path, torch_members(TORCH, WEIGHTS, **{name: value}))
    assert f"{SCALING}: model_config.{name}: expected" in message and f"received {value!r}" in message
    assert "docs/published.md" in message


def test_an_older_network_of_pytorch_is_refused(tmp_path: Path) -> None:
    scaling = torch_file({"model_config": {"mode": "Unsupervised", "architecture": "cnn"}})
    assert "an archive of an older version" in message_of(tmp_path, torch_archive(scaling=scaling))
    assert "the settings of the network" in message_of(tmp_path, torch_archive(scaling=torch_file({})))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"model_type": "supervised"}, "model_type: expected 'pinn'"),
        ({"N": 33}, "ModelConfig: N must be"),
        ({"gridsize": 0}, "ModelConfig: gridsize must be"),
        ({"N": "64"}, "ModelConfig: N must be"),
        ({"gridsize": 2}, "shape"),
        ({"n_filters_scale": 2}, "shape"),
    ],
)
def test_parameters_that_are_not_those_of_the_network_are_refused(
    tmp_path: Path, changes: dict[str, Any], what: str
) -> None:
    assert what in message_of(tmp_path, torch_archive(dill=pickled(flat_parameters(TORCH, **changes))))


def changed_state(change: Callable[[dict[str, Any]], None]) -> bytes:
    state: dict[str, Any] = {f"model.autoencoder.{name}": array for name, array in torch_state(WEIGHTS).items()}
    change(state)
    return torch_file(state)


def test_weights_of_another_network_are_refused_by_name(tmp_path: Path) -> None:
    def message(change: Callable[[dict[str, Any]], None]) -> str:
        return message_of(tmp_path, torch_archive(pytorch=changed_state(change)))

    first = np.array(WEIGHTS["encoder/block0/conv0/kernel"]).transpose(3, 2, 0, 1)
    bias = "model.autoencoder.decoder_amp.amp.conv2.bias"
    with_nan = first.copy()
    with_nan[0, 0, 1, 1] = np.nan
    assert "encoder/block0/conv0/kernel: expected finite numbers" in message(lambda s: s.update({FIRST: with_nan}))
    assert f"{FIRST}: expected encoder/block0/conv0/kernel of shape" in message(lambda s: s.update({FIRST: first[:3]}))
    assert f"{bias}: expected the weights of amplitude/outer/conv/bias; received nothing" in message(
        lambda s: s.pop(bias)
    )
    extra = {"model.autoencoder.encoder.blocks.0.bn1.weight": np.ones(3, np.float32)}
    assert "received 1 others: encoder.blocks.0.bn1.weight" in message(lambda s: s.update(extra))
    assert "the weights of one network" in message(lambda s: s.clear())
    assert "an array of floating-point numbers" in message(lambda s: s.update({FIRST: 3}))


@pytest.mark.parametrize(
    ("shape", "strides", "offset", "count"),
    [
        ((3,), (1,), 2, 4),
        ((2, 3), (3, 1), 0, 4),
        ((2**40,), (0,), 0, 4),
        ((2,), (-1,), 1, 4),
        ((2,), (2**62,), 0, 4),
        ((2, 2), (1,), 0, 4),
        ((1,), (1,), 0, 5),
    ],
)
def test_a_tensor_lies_inside_its_numbers(
    shape: tuple[int, ...], strides: tuple[int, ...], offset: int, count: int
) -> None:
    value = tensor("0", count, shape, strides, offset)
    content = zipped({"m/data.pkl": pickled(value, 2), "m/data/0": bytes(16)})
    with pytest.raises(ArchiveError, match=r"model.pth: m/data.pkl: expected what torch.save"):
        read_tensors(content, "model.pth")


def test_numbers_are_read_in_the_byte_order_of_the_file() -> None:
    numbers = np.arange(4, dtype=">f4").tobytes()
    pickle_of_it = pickled({"x": tensor("0", 4, (2, 2), (1, 2))}, 2)
    content = zipped({"m/data.pkl": pickle_of_it, "m/data/0": numbers, "m/byteorder": b"big"})
    np.testing.assert_array_equal(read_tensors(content, "model.pth")["x"], [[0, 2], [1, 3]])


@pytest.mark.parametrize(
    ("name", "what"),
    [("UntypedStorage", "a call of torch.UntypedStorage"), ("BFloat16Storage", "a call of torch.BFloat16Storage")],
)
def test_a_kind_of_tensor_that_is_not_known_is_refused_by_name(name: str, what: str) -> None:
    value = Stored(("storage", Name("torch", name), "0", "cpu", 4))
    with pytest.raises(ArchiveError, match=what):
        read_tensors(zipped({"m/data.pkl": pickled(value, 2), "m/data/0": bytes(16)}), "model.pth")


def test_a_program_of_pytorch_is_refused() -> None:
    with pytest.raises(ArchiveError, match="received a TorchScript program"):
        read_tensors(zipped({"m/data.pkl": pickled(1), "m/code/x.py": b""}), "model.pth")


# -- Keras ---------------------------------------------------------------------------------------------------------


def keras_message(tmp_path: Path, **members: bytes) -> str:
    table = build_table(TENSORFLOW)
    weights = network_of(TENSORFLOW)
    archive = {**keras_members(TENSORFLOW, weights), KERAS: keras_file(table, TENSORFLOW.N, weights, **members)}
    return message_of(tmp_path, archive)


def changed_graph(change: Callable[[dict[str, Any]], None]) -> bytes:
    """The graph after `change` was given every layer."""
    layers = keras_layers(build_table(TENSORFLOW), TENSORFLOW.N)
    for layer in layers:
        change(layer)
    return json.dumps({"config": {"layers": layers}}).encode()


@pytest.mark.parametrize(
    ("kind", "settings", "what"),
    [
        ("Conv2D", {"padding": "valid"}, "layer conv2d_"),
        ("Conv2D", {"activation": "elu"}, "layer conv2d_"),
        ("Conv2D", {"kernel_size": [5, 5]}, "layer conv2d_"),
        ("Conv2D", {"strides": [2, 2]}, "layer conv2d_"),
        ("MaxPooling2D", {"pool_size": [3, 3]}, "for encoder/block"),
        ("UpSampling2D", {"interpolation": "bilinear"}, "for "),
        ("ZeroPadding2D", {"padding": [[1, 1], [1, 1]]}, "for amplitude/head/pad"),
        (
            "ActivationLayer",
            {"activation_name": "softplus"},
            "for amplitude/head/conv: expected the activation sigmoid",
        ),
        ("CenterMaskLayer", {"kind": "center"}, "for amplitude/outer/mask"),
        ("CombineComplexLayer", {"use_polar": False}, "a complex object"),
    ],
)
def test_a_graph_of_other_layers_is_refused_by_name(
    tmp_path: Path, kind: str, settings: dict[str, Any], what: str
) -> None:
    pytest.importorskip("h5py")

    def change(layer: dict[str, Any]) -> None:
        if layer["class_name"] == kind:
            layer["config"].update(settings)

    message = keras_message(tmp_path, **{"config.json": changed_graph(change)})
    assert what in message and "docs/published.md" in message


def test_a_layer_of_marshalled_code_is_refused_by_name(tmp_path: Path) -> None:
    pytest.importorskip("h5py")

    def change(layer: dict[str, Any]) -> None:
        if layer["class_name"] == "Silu":
            layer.update(
                class_name="Lambda", config={"function": {"class_name": "__lambda__", "config": {"code": "4wA"}}}
            )

    assert "of class Lambda" in keras_message(tmp_path, **{"config.json": changed_graph(change)})


@pytest.mark.parametrize("graph", [b"{}", b"[]", b"{", b'{"config": {"layers": [3]}}', b'{"config": {"layers": []}}'])
def test_a_graph_that_is_none_is_refused(tmp_path: Path, graph: bytes) -> None:
    pytest.importorskip("h5py")
    assert "wts.h5.zip" in keras_message(tmp_path, **{"config.json": graph})


def test_another_keras_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    assert "expected Keras 3; received 2.15.0" in keras_message(
        tmp_path, **{"metadata.json": b'{"keras_version": "2.15.0"}'}
    )


def weights_file(change: Callable[[Any], None]) -> bytes:
    import h5py

    from tests.core.published_archives import keras_weights

    table = build_table(TENSORFLOW)
    stream = io.BytesIO(keras_weights(table, keras_layers(table, TENSORFLOW.N), network_of(TENSORFLOW)))
    with h5py.File(stream, "r+") as file:
        change(file)
    return stream.getvalue()


def test_weights_that_lie_elsewhere_or_are_others_are_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    place = "layers/conv2d/vars/0"
    kernel = network_of(TENSORFLOW)["encoder/block0/conv0/kernel"]
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["x"] = kernel
    raw = tmp_path / "raw.bin"
    raw.write_bytes(kernel.tobytes())

    def replaced(make: Callable[[Any], None]) -> str:
        def change(file: Any) -> None:
            del file[place]
            make(file)

        return keras_message(tmp_path, **{"model.weights.h5": weights_file(change)})

    def linked(link: Any) -> Callable[[Any], None]:
        return lambda file: file.__setitem__(place, link)

    def external(file: Any) -> None:
        file.create_dataset(place, kernel.shape, kernel.dtype, external=[(str(raw), 0, kernel.nbytes)])

    def virtual(file: Any) -> None:
        layout = h5py.VirtualLayout(kernel.shape, kernel.dtype)
        layout[...] = h5py.VirtualSource(str(secret), "x", kernel.shape)
        file.create_virtual_dataset(place, layout)

    assert "received a ExternalLink" in replaced(linked(h5py.ExternalLink(str(secret), "x")))
    assert "received a SoftLink" in replaced(linked(h5py.SoftLink("/layers/conv2d_1/vars/0")))
    assert "an array of this file" in replaced(external)
    assert "an array of this file" in replaced(virtual)
    assert "received nothing" in replaced(lambda file: None)
    assert "floating-point numbers of shape" in replaced(linked(kernel[:1]))
    assert "floating-point numbers of shape" in replaced(linked(kernel.astype(int)))
    assert "expected finite numbers" in replaced(linked(np.full_like(kernel, np.nan)))
    packed = lambda file: file.create_dataset(place, data=kernel, compression="gzip")  # noqa: E731
    assert "expected numbers in one piece, not packed" in replaced(packed)
    huge = lambda file: file.create_dataset(place, (2**20, 2**20), "f4", chunks=True)  # noqa: E731
    assert "floating-point numbers of shape" in replaced(huge)
    swapped = weights_file(lambda file: file["layers/conv2d/vars"].attrs.__setitem__("name", "conv2d_9"))
    assert "expected the weights of layer" in keras_message(tmp_path, **{"model.weights.h5": swapped})
    assert "a whole HDF5 file" in keras_message(tmp_path, **{"model.weights.h5": b"\x89HDF\r\n\x1a\n"})


def test_names_in_a_broken_heap_are_refused(tmp_path: Path) -> None:
    """HDF5 would look for the next object of the heap without end."""
    pytest.importorskip("h5py")
    data = bytearray(weights_file(lambda file: None))
    place = data.index(b"GCOL") + 16
    while int.from_bytes(data[place : place + 2], "little"):
        place += 16 + -(-int.from_bytes(data[place + 8 : place + 16], "little") // 8) * 8
    for size in (0, 8):
        data[place + 8 : place + 16] = size.to_bytes(8, "little")
        message = keras_message(tmp_path, **{"model.weights.h5": bytes(data)})
        assert "model.weights.h5: expected whole global heaps of HDF5" in message


@pytest.mark.parametrize("name", [np.ones(3), np.bytes_(b"x" * 2000), ["conv2d_0", "conv2d_0"], 7])
def test_a_layer_whose_name_is_none_is_refused(tmp_path: Path, name: Any) -> None:
    pytest.importorskip("h5py")
    content = weights_file(lambda file: file["layers/conv2d/vars"].attrs.__setitem__("name", name))
    assert "expected a whole HDF5 file of weights" in keras_message(tmp_path, **{"model.weights.h5": content})


@pytest.mark.parametrize("kind", DAMAGED_HDF5)
def test_whatever_h5py_raises_is_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    """OverflowError, for example, for a size in the file that is no number of Python's."""
    h5py = pytest.importorskip("h5py")

    def fail(self: Any, *_: object) -> None:
        raise kind("a number that is none")

    monkeypatch.setattr(h5py.Dataset, "__getitem__", fail)
    message = keras_message(tmp_path, **{"model.weights.h5": weights_file(lambda file: None)})
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


def test_a_path_that_cannot_be_looked_at_is_refused(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 300)
    for read in (import_published, published_facts, load_model, load_checkpoint):
        with pytest.raises(ArchiveError, match="File name too long"):
            read(path)


@pytest.mark.parametrize(
    "probe", [np.zeros((32, 32, 1), np.complex64), np.ones((8, 8), np.complex64), np.ones(3) * np.nan]
)
def test_a_probe_that_is_none_is_refused(tmp_path: Path, probe: Any) -> None:
    pytest.importorskip("h5py")
    members = keras_members(TENSORFLOW, network_of(TENSORFLOW), probe=numpy_array(probe))
    assert "params.dill: probe: expected" in message_of(tmp_path, members)


def test_nothing_is_written_when_an_archive_is_refused(tmp_path: Path) -> None:
    source = write_archive(tmp_path / "wts.h5.zip", torch_archive(pytorch=None))
    with pytest.raises(ArchiveError):
        convert_published(source, tmp_path / "ours.h5.zip")
    assert list(tmp_path.iterdir()) == [source]
