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
from tests.core.refusals import says

pytestmark = pytest.mark.usefixtures("tiny_architecture")


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for one archive after the other."""
    return tmp_path_factory.mktemp("damaged") / ARCHIVE_NAME


# -- damage --------------------------------------------------------------------------------------------------------


@settings(max_examples=120)
@given(place=st.floats(0, 1, exclude_max=True), bits=st.sampled_from([1, 2, 4, 8, 16, 32, 64, 128, 255]))
def test_a_flipped_byte_is_refused_or_makes_no_difference(whole: bytes, damaged: Path, place: float, bits: int) -> None:
    """No difference: dates, attributes and such, which say nothing about the content."""
    content = bytearray(whole)
    content[int(place * len(content))] ^= bits
    damaged.write_bytes(content)
    with contextlib.suppress(ArchiveError):
        assert_same(load_model(damaged), tiny_model())


@settings(max_examples=60)
@given(data=st.data(), name=st.sampled_from((MANIFEST, *MEMBERS)), bits=st.integers(1, 255))
def test_a_flipped_byte_in_a_member_is_refused(
    whole: bytes, damaged: Path, data: st.DataObject, name: str, bits: int
) -> None:
    damaged.write_bytes(whole)
    member = members_of(damaged)[name]
    place = whole.index(member) + data.draw(st.integers(0, len(member) - 1))
    damaged.write_bytes(whole[:place] + bytes([whole[place] ^ bits]) + whole[place + 1 :])
    refusal(damaged)


@settings(max_examples=40)
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


def test_a_folder_without_an_archive(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="no such file") as caught:
        load_model(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / ARCHIVE_NAME}: ")


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


# -- ways to spoil an archive --------------------------------------------------------------------------------------

Spoil = Callable[[Path], object]


def members(**changes: bytes | None) -> Spoil:
    """Members replaced, added or, with None, left out; the manifest knows of it."""
    return lambda path: rewrite(path, **changes)


def manifest(**changes: Any) -> Spoil:
    def spoil(path: Path) -> None:
        rewrite(path, manifest=json.dumps(json.loads(members_of(path)[MANIFEST]) | changes).encode())

    return spoil


def later_with_more(path: Path) -> None:
    manifest(version=2)(path)
    rewrite(path, manifest=members_of(path)[MANIFEST], **{"more.json": b"{}"})


def config(section: str, key: str, value: Any) -> Spoil:
    def spoil(path: Path) -> None:
        changed = json.loads(members_of(path)["config.json"])
        changed[section][key] = value
        rewrite(path, config=json.dumps(changed).encode())

    return spoil


def weights(change: Callable[[dict[str, Any]], object] = lambda arrays: None, **changed: Any) -> Spoil:
    def spoil(path: Path) -> None:
        arrays = dict(safetensors.numpy.load(members_of(path)["weights.safetensors"]))
        change(arrays)
        arrays.update(changed)
        rewrite(path, weights=safetensors.numpy.save(arrays))

    return spoil


def directory(offset: int, value: int) -> Spoil:
    """A byte in the zip file's entry of the first member, the manifest."""

    def spoil(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[content.index(b"PK\x01\x02") + offset] = value
        path.write_bytes(content)

    return spoil


def content(whole: bytes) -> Spoil:
    return lambda path: path.write_bytes(whole)


def twice(path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as target:
        target.writestr("config.json", b"{}")


def understated_bomb(path: Path) -> None:
    """It yields no more than it states."""
    pack(path, zipfile.ZIP_DEFLATED, **{"config.json": b" " * 2**24})
    changed = bytearray(path.read_bytes())
    entry = changed.index(b"config.json", changed.index(b"PK\x01\x02")) - 46
    changed[entry + 24 : entry + 28] = struct.pack("<I", 1000)
    path.write_bytes(changed)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_the_trap_of_these_tests_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))  # noqa: S301 - that is the point
    assert (tmp_path / "sprung").exists()


def trap(name: str) -> Spoil:
    return lambda path: rewrite(path, **{name: pickle.dumps(Trap(path.parent / "sprung"))})


def trap_of_numpy(path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap(path.parent / "sprung")], dtype=object), allow_pickle=True)
    rewrite(path, weights=buffer.getvalue())


def published(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as target:
        for name in ("manifest.dill", "autoencoder/params.dill", "autoencoder/custom_objects.dill"):
            target.writestr(name, pickle.dumps(Trap(path.parent / "sprung")))
        target.writestr("autoencoder/model.keras", b"")


# -- refusals ------------------------------------------------------------------------------------------------------

NO_ZIP = "expected a readable model archive; received BadZipFile…"
ALL = "expected the members manifest.json, config.json, params.json, weights.safetensors…"
WAYS_OUT = ("../outside.json", "/tmp/outside.json", "..\\outside.json", "C:/outside.json", "folder/../../outside")
LATER = "Update ptycho-core to read a model archive of a later version."
STATED = "manifest.json: expected 'ptycho-core model', version 1; received…"
REFUSALS: dict[str, tuple[Spoil, str]] = {
    "no file": (
        Path.unlink,
        "expected a folder with wts.h5.zip, or such a file; received no such file. Check the path.",
    ),
    **{f"no zip file: {what[:10]!r}": (content(what), NO_ZIP) for what in (b"", b"PK", b"not a zip file", bytes(5000))},
    "encrypted": (directory(8, 1), "…is encrypted…"),
    "patched": (directory(8, 0x20), "…compressed patched data…"),
    "unknown method": (directory(10, 99), "…method 99…"),
    "lzma": (directory(10, 14), "…method 14…"),
    "a later kind of zip file": (directory(6, 250), "…zip file version 25.0…"),
    "a bomb that understates its size": (understated_bomb, "…received BadZipFile…"),
    "a surplus member": (members(**{"extra.txt": b"hello"}), ALL + "received…extra.txt…"),
    "a repeated member": (twice, ALL),
    **{f"a way out: {name}": (members(**{name: b"outside"}), f"…{name}…".replace("\\", "…")) for name in WAYS_OUT},
    "commands for a terminal": (members(**{"\x1b[2J\x07.json": b""}), ALL),
    "a later version": (manifest(version=2), f"{STATED}2…{LATER}"),
    "a version as text": (manifest(version="1"), f"{STATED}1…{LATER}"),
    "another format": (manifest(format="another model"), f"{STATED}another model…Give a model archive of ptycho-core."),
    "a checkpoint": (
        manifest(format="ptycho-core checkpoint"),
        f"{STATED}ptycho-core checkpoint…This is a checkpoint: give wts.h5.zip.",
    ),
    "a list of formats": (
        manifest(format=["ptycho-core model"]),
        f"{STATED}['ptycho-core model']…Give a model archive of ptycho-core.",
    ),
    "a later version with other members": (later_with_more, "…Update ptycho-core…"),
    **{
        f"best epoch {epoch!r}": (manifest(best_epoch=epoch), "…whole number…")
        for epoch in (-1, 1.5, "2", True, None, [2])
    },
    "nan": (
        weights(lambda arrays: arrays["trunk/bias"].fill(np.nan)),
        "weights: trunk/bias: expected finite numbers…",
    ),
    "infinite": (weights(lambda arrays: arrays[PROBE].fill(np.inf)), f"weights: {PROBE}: expected finite numbers…"),
    "integers": (
        weights(**{"trunk/bias": np.ones(1, np.int64)}),
        "weights: trunk/bias: expected float32 or float64; received int64…",
    ),
    "a missing weight": (
        weights(lambda arrays: arrays.pop("a/kernel")),
        "weights: missing ['a/kernel']; unexpected []…",
    ),
    "a surplus weight": (weights(extra=np.ones(3)), "weights: missing []; unexpected ['extra']…"),
    "shape": (weights(**{"trunk/bias": np.ones(7)}), "weights: trunk/bias: expected shape (1,); received (7,)…"),
    "no scalar": (weights(**{LOG_SCALE: np.ones(1)}), f"weights: {LOG_SCALE}: expected shape (); received…"),
    "a flat probe": (weights(**{PROBE: np.ones((16, 16))}), f"weights: {PROBE}: expected shape…"),
    "a small probe": (
        weights(**{PROBE: np.ones((1, 8, 8, 2))}),
        f"weights: {PROBE}: expected shape (None, 16, 16, 2); received (1, 8…",
    ),
    "no mode": (
        weights(**{PROBE: np.ones((0, 16, 16, 2))}),
        f"weights: {PROBE}: expected shape (None, 16, 16, 2); received (0…",
    ),
    "a setting of another type": (config("model", "N", 24.5), "config.json: N must be a whole number; got 24.5…"),
    "an unknown setting": (
        config("model", "gridsze", 2),
        "…gridsze: no such setting. Did you mean 'gridsize'…",
    ),
    "an unknown architecture": (
        config("model", "architecture", "unet"),
        "…architecture must be one of cnn, published_torch…",
    ),
    "a setting out of range": (
        config("training", "batch_size", 3),
        "config.json: batch_size must be a positive power of two…",
    ),
    "a manifest nested beyond reading": (members(manifest=b"[" * 100_000), "…RecursionError…"),
    "a configuration nested beyond reading": (members(config=b"[" * 100_000), "…RecursionError…"),
    **{f"a pickle as {name}": (trap(name), "…") for name in ("manifest", "config", "weights", "history")},
    "an array of pickles": (trap_of_numpy, "…"),
    "a published archive": (
        published,
        "…received manifest.dill…written by the published implementation and holds pickles…",
    ),
}
"""What is done to an archive, and what is said of it; `…` stands for any words."""


def files_around(path: Path) -> set[Path]:
    return {*path.parent.parent.iterdir(), *path.parent.rglob("*")}


@pytest.mark.parametrize(("spoil", "words"), REFUSALS.values(), ids=REFUSALS)
def test_what_is_no_whole_archive_of_ours_is_refused(saved: Path, spoil: Spoil, words: str) -> None:
    spoil(saved)
    before = files_around(saved)
    message = refusal(saved)
    says(message, words)
    assert message.isprintable()
    assert files_around(saved) == before  # nothing was run or unpacked


@pytest.mark.parametrize("name", [MANIFEST, *MEMBERS])
def test_a_missing_member_is_refused(saved: Path, name: str) -> None:
    members(**{"manifest" if name == MANIFEST else name: None})(saved)
    message = refusal(saved)
    says(message, ALL)
    assert name not in message.partition("received")[2]


@pytest.mark.parametrize(
    ("limit", "value", "words"),
    [
        ("MEMBER_LIMIT", 2000, "weights.safetensors: expected at most 2000 bytes; received…"),
        ("TEXT_LIMIT", 1500, "…expected at most 1500 bytes; received…"),
    ],
)
def test_a_member_beyond_a_limit_is_refused_before_it_is_read(
    saved: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, words: str
) -> None:
    monkeypatch.setattr(container, limit, value)
    says(refusal(saved), words)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=40)
@given(
    name=st.sampled_from(["manifest", "config", "weights"]),
    content=st.binary() | json_values.map(lambda value: json.dumps(value).encode()),
)
def test_any_other_content_is_refused(whole: bytes, damaged: Path, name: str, content: bytes) -> None:
    damaged.write_bytes(whole)
    rewrite(damaged, **{name: content})
    refusal(damaged)
