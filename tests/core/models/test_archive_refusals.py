"""What is not a whole archive of ours is refused with what and what to do; nothing in it is run or unpacked."""

from __future__ import annotations

import contextlib
import hashlib
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
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho_core.errors import ArchiveError
from ptycho_core.models import container
from ptycho_core.models.container import MANIFEST
from ptycho_core.models.model import ARCHIVE_NAME, load_model
from ptycho_core.vocabulary import LOG_SCALE, PROBE
from tests.core.archives import MEMBERS, assert_same, members_of, refusal, rewrite, tiny_model

pytestmark = pytest.mark.usefixtures("tiny_architecture")


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for one archive after the other."""
    return tmp_path_factory.mktemp("damaged") / ARCHIVE_NAME


# -- damage --------------------------------------------------------------------------------------------------------


@settings(max_examples=120, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bits=st.sampled_from([1, 2, 4, 8, 16, 32, 64, 128, 255]))
def test_a_flipped_byte_is_refused_or_makes_no_difference(whole: bytes, damaged: Path, place: float, bits: int) -> None:
    """No difference: dates, attributes and such, which say nothing about the content."""
    content = bytearray(whole)
    content[int(place * len(content))] ^= bits
    damaged.write_bytes(content)
    with contextlib.suppress(ArchiveError):
        assert_same(load_model(damaged), tiny_model())


@settings(max_examples=60, deadline=None)
@given(data=st.data(), name=st.sampled_from((MANIFEST, *MEMBERS)), bits=st.integers(1, 255))
def test_a_flipped_byte_in_a_member_is_refused(
    whole: bytes, damaged: Path, data: st.DataObject, name: str, bits: int
) -> None:
    damaged.write_bytes(whole)
    member = members_of(damaged)[name]
    place = whole.index(member) + data.draw(st.integers(0, len(member) - 1))
    damaged.write_bytes(whole[:place] + bytes([whole[place] ^ bits]) + whole[place + 1 :])
    refusal(damaged)


@settings(max_examples=40, deadline=None)
@given(kept=st.floats(0, 1, exclude_max=True))
def test_a_truncated_archive_is_refused(whole: bytes, damaged: Path, kept: float) -> None:
    damaged.write_bytes(whole[: int(kept * len(whole))])
    assert "copy or train it again" in refusal(damaged)


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_that_was_changed_and_packed_again_is_refused_by_name(saved: Path, name: str) -> None:
    content = members_of(saved)[name]
    rewrite(saved, trusted=False, **{name: content + b" "})
    stated, received = (hashlib.sha256(text).hexdigest() for text in (content, content + b" "))
    remedy = "It was changed after it was written: copy it again."
    assert refusal(saved) == f"{name}: expected SHA-256 {stated}; received {received}. {remedy}"


@pytest.mark.parametrize("name", [MANIFEST, *MEMBERS])
def test_a_missing_member_is_refused(saved: Path, name: str) -> None:
    if name == MANIFEST:
        rewrite(saved, manifest=None)
    else:
        rewrite(saved, **{name: None})
    message = refusal(saved)
    assert message.startswith("expected the members manifest.json, config.json, params.json, weights.safetensors")
    assert name not in message.partition("received")[2]


def test_a_surplus_member_is_refused(saved: Path) -> None:
    rewrite(saved, **{"extra.txt": b"hello"})
    assert "extra.txt" in refusal(saved).partition("received")[2]


def test_a_repeated_member_is_refused(saved: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(saved, "a") as target:
        target.writestr("config.json", b"{}")
    assert refusal(saved).startswith("expected the members")


@pytest.mark.parametrize(
    ("offset", "value", "received"),
    [(8, 1, "is encrypted"), (8, 0x20, "compressed patched data"), (10, 99, "method 99"), (10, 14, "method 14")],
    ids=["encrypted", "patched", "unknown-method", "lzma"],
)
def test_a_member_that_cannot_be_unpacked_is_refused(saved: Path, offset: int, value: int, received: str) -> None:
    content = bytearray(saved.read_bytes())
    directory = content.index(b"PK\x01\x02")  # the entry of the manifest
    content[directory + offset] = value
    saved.write_bytes(content)
    assert received in refusal(saved)


def test_a_zip_file_of_a_later_kind_is_refused(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 250  # version needed to extract: 25.0
    saved.write_bytes(content)
    assert "zip file version 25.0" in refusal(saved)


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"not a zip file", b"\x00" * 5000], ids=["empty", "PK", "text", "zeros"]
)
def test_what_is_no_zip_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / ARCHIVE_NAME
    path.write_bytes(content)
    assert refusal(path).startswith("expected a readable model archive; received BadZipFile")


def test_no_such_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere.zip") == (
        "expected a folder with wts.h5.zip, or such a file; received no such file. Check the path."
    )


def test_a_folder_without_an_archive(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="no such file") as caught:
        load_model(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / ARCHIVE_NAME}: ")


def test_a_member_beyond_the_limit_is_refused_before_it_is_read(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "MEMBER_LIMIT", 2000)
    assert refusal(saved).startswith("weights.safetensors: expected at most 2000 bytes; received")


# -- bombs and paths -----------------------------------------------------------------------------------------------


def pack(path: Path, method: int, **changes: bytes) -> None:
    """The archive packed again with compression, members replaced or added."""
    members = members_of(path) | changes
    with zipfile.ZipFile(path, "w", method) as target:
        for name, content in members.items():
            target.writestr(name, content)


def test_a_compressed_archive_is_read(saved: Path) -> None:
    pack(saved, zipfile.ZIP_DEFLATED)
    assert_same(load_model(saved), tiny_model())


@pytest.mark.parametrize("name", ["manifest.json", "config.json", "weights.safetensors"])
def test_a_bomb_is_refused_before_it_is_unpacked(saved: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(saved, zipfile.ZIP_DEFLATED, **{name: b" " * 2**24})
    read = zipfile.ZipFile.read
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda self, each: read(self, each) if each != name else 1 / 0)
    message = refusal(saved)
    assert message.startswith(f"{name}: expected at most 100 times its packed size; received 16777216 bytes from")
    assert message.endswith("This may be a decompression bomb; get the file from a source you trust.")


def test_a_bomb_that_understates_its_size_yields_no_more_than_it_states(saved: Path) -> None:
    pack(saved, zipfile.ZIP_DEFLATED, **{"config.json": b" " * 2**24})
    content = bytearray(saved.read_bytes())
    entry = content.index(b"config.json", content.index(b"PK\x01\x02")) - 46
    content[entry + 24 : entry + 28] = struct.pack("<I", 1000)
    saved.write_bytes(content)
    assert "received BadZipFile" in refusal(saved)


def test_text_beyond_the_limit_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "TEXT_LIMIT", 1500)
    assert "expected at most 1500 bytes; received" in refusal(saved)


def test_a_directory_of_too_many_members_is_never_read(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(saved, "a") as target:
        for number in range(20_000):
            target.writestr(f"{number:05}.json", b"")
    monkeypatch.setattr(zipfile.ZipInfo, "FileHeader", lambda self: 1 / 0)
    assert "received BadZipFile: a directory of more than 1048576 bytes" in refusal(saved)


def test_many_members_are_not_all_listed(saved: Path) -> None:
    with zipfile.ZipFile(saved, "a") as target:
        for number in range(1000):
            target.writestr(f"{number:05}.json", b"")
    assert " and 997 more. Copy" in refusal(saved)
    assert len(refusal(saved)) < 500


@pytest.mark.parametrize(
    "name", ["../outside.json", "/tmp/outside.json", "..\\outside.json", "C:/outside.json", "folder/../../outside"]
)
def test_a_member_whose_name_leads_out_is_refused_and_nothing_is_written(saved: Path, name: str) -> None:
    rewrite(saved, **{name: b"outside"})
    before = set(saved.parent.parent.rglob("*"))
    assert name.replace("\\", "/") in refusal(saved).replace("\\", "/")
    assert set(saved.parent.parent.rglob("*")) == before


def test_names_that_would_command_a_terminal_are_shown_without_effect(saved: Path) -> None:
    rewrite(saved, **{"\x1b[2J\x07.json": b""})
    assert refusal(saved).isprintable()


# -- content that does not fit -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "remedy"),
    [
        ("version", 2, "Update ptycho-core to read a model archive of a later version."),
        ("version", "1", "Update ptycho-core to read a model archive of a later version."),
        ("format", "another model", "Give a model archive of ptycho-core."),
        ("format", "ptycho-core checkpoint", "This is a checkpoint: give wts.h5.zip."),
        ("format", ["ptycho-core model"], "Give a model archive of ptycho-core."),
    ],
)
def test_another_format_or_a_later_version_is_refused(saved: Path, key: str, value: Any, remedy: str) -> None:
    manifest = json.loads(members_of(saved)[MANIFEST])
    manifest[key] = value
    rewrite(saved, manifest=json.dumps(manifest).encode())
    message = refusal(saved)
    assert message.startswith("manifest.json: expected 'ptycho-core model', version 1; received")
    assert str(value) in message
    assert message.endswith(remedy)


def test_a_later_version_is_named_as_such_whatever_its_members(saved: Path) -> None:
    manifest = json.loads(members_of(saved)[MANIFEST]) | {"version": 2}
    rewrite(saved, manifest=json.dumps(manifest).encode(), **{"more.json": b"{}"})
    assert "Update ptycho-core" in refusal(saved)


@pytest.mark.parametrize("best_epoch", [-1, 1.5, "2", True, None, [2]])
def test_a_best_epoch_that_is_no_whole_number_is_refused(saved: Path, best_epoch: Any) -> None:
    manifest = json.loads(members_of(saved)[MANIFEST]) | {"best_epoch": best_epoch}
    rewrite(saved, manifest=json.dumps(manifest).encode())
    assert "whole number" in refusal(saved)


def forge_weights(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    weights = dict(safetensors.numpy.load(members_of(path)["weights.safetensors"]))
    change(weights)
    rewrite(path, weights=safetensors.numpy.save(weights))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights["trunk/bias"].fill(np.nan), "weights: trunk/bias: expected finite numbers"),
        (lambda weights: weights[PROBE].fill(np.inf), f"weights: {PROBE}: expected finite numbers"),
        (
            lambda weights: weights.update({"trunk/bias": np.ones(1, np.int64)}),
            "weights: trunk/bias: expected float32 or float64; received int64",
        ),
        (lambda weights: weights.pop("a/kernel"), "weights: missing ['a/kernel']; unexpected []"),
        (lambda weights: weights.update(extra=np.ones(3)), "weights: missing []; unexpected ['extra']"),
        (
            lambda weights: weights.update({"trunk/bias": np.ones(7)}),
            "weights: trunk/bias: expected shape (1,); received (7,)",
        ),
        (lambda weights: weights.update({LOG_SCALE: np.ones(1)}), f"weights: {LOG_SCALE}: expected shape (); received"),
        (lambda weights: weights.update({PROBE: np.ones((16, 16))}), f"weights: {PROBE}: expected shape"),
        (
            lambda weights: weights.update({PROBE: np.ones((1, 8, 8, 2))}),
            f"weights: {PROBE}: expected shape (None, 16, 16, 2); received (1, 8",
        ),
        (
            lambda weights: weights.update({PROBE: np.ones((0, 16, 16, 2))}),
            f"weights: {PROBE}: expected shape (None, 16, 16, 2); received (0",
        ),
    ],
    ids=[
        "nan",
        "infinite",
        "integers",
        "missing",
        "surplus",
        "shape",
        "no-scalar",
        "flat-probe",
        "small-probe",
        "no-mode",
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(saved: Path, change: Any, message: str) -> None:
    forge_weights(saved, change)
    assert refusal(saved).startswith(message)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("model", "N", 24.5, "config.json: N must be a whole number; got 24.5"),
        (
            "model",
            "gridsze",
            2,
            "gridsze: no such setting. Did you mean 'gridsize'",
        ),
        ("model", "architecture", "unet", "architecture must be one of cnn, published_torch"),
        ("training", "batch_size", 3, "config.json: batch_size must be a positive power of two"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused_by_field(
    saved: Path, section: str, key: str, value: Any, message: str
) -> None:
    config = json.loads(members_of(saved)["config.json"])
    config[section][key] = value
    rewrite(saved, config=json.dumps(config).encode())
    assert message in refusal(saved)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(["manifest", "config", "weights"]),
    content=st.binary() | json_values.map(lambda value: json.dumps(value).encode()),
)
def test_any_other_content_is_refused(whole: bytes, damaged: Path, name: str, content: bytes) -> None:
    damaged.write_bytes(whole)
    rewrite(damaged, **{name: content})
    refusal(damaged)


@pytest.mark.parametrize("name", ["manifest", "config"])
def test_json_nested_beyond_reading_is_refused(saved: Path, name: str) -> None:
    rewrite(saved, **{name: b"[" * 100_000})
    assert "RecursionError" in refusal(saved)


# -- pickles -------------------------------------------------------------------------------------------------------


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_the_trap_of_these_tests_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))  # noqa: S301 - that is the point
    assert (tmp_path / "sprung").exists()


def test_a_published_archive_is_named_and_never_unpickled(tmp_path: Path) -> None:
    path, sprung = tmp_path / ARCHIVE_NAME, tmp_path / "sprung"
    with zipfile.ZipFile(path, "w") as target:
        for name in ("manifest.dill", "autoencoder/params.dill", "autoencoder/custom_objects.dill"):
            target.writestr(name, pickle.dumps(Trap(sprung)))
        target.writestr("autoencoder/model.keras", b"")
    message = refusal(path)
    assert "written by the published implementation and holds pickles" in message
    assert "manifest.dill" in message
    assert not sprung.exists()


@pytest.mark.parametrize("name", ["manifest", "config", "weights", "history"])
def test_a_pickle_in_the_place_of_a_member_is_never_unpickled(saved: Path, tmp_path: Path, name: str) -> None:
    rewrite(saved, **{name: pickle.dumps(Trap(tmp_path / "sprung"))})
    refusal(saved)
    assert not (tmp_path / "sprung").exists()


def test_a_numpy_pickle_in_the_place_of_the_weights_is_never_unpickled(saved: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap(tmp_path / "sprung")], dtype=object), allow_pickle=True)
    rewrite(saved, weights=buffer.getvalue())
    refusal(saved)
    assert not (tmp_path / "sprung").exists()
