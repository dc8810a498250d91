"""The file that holds a model or a checkpoint: a zip of JSON, CSV and safetensors, digests checked (specs/archive.md).

No member is ever unpacked onto the disk, unpickled or run.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

import ptycho_core
from ptycho_core.errors import ArchiveError, PtychoError
from ptycho_core.storage.files import COMPRESSION, UNREADABLE, make_folder, opened_zip, replacing
from ptycho_core.vocabulary import Weights

MANIFEST = "manifest.json"
# specs/archive.md, Limits: bytes once unpacked, and how many times larger than packed
MEMBER_LIMIT = 4 * 2**30
TEXT_LIMIT = 64 * 2**20
RATIO_LIMIT, SMALL = 100, 2**20
MALFORMED = (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, safetensors.SafetensorError)
"""What the reading of members raises whose content is not what it should be."""


@attrs.frozen
class ArchiveKind:
    """One of our formats. `version`: the one that is written. `noun`: what to call such a file, and `name` it."""

    format: str
    version: int
    members: tuple[str, ...]
    noun: str
    name: str


MODEL = ArchiveKind(
    "ptycho-core model",
    1,
    ("config.json", "params.json", "weights.safetensors", "history.csv"),
    "model archive",
    "wts.h5.zip",
)
CHECKPOINT = ArchiveKind(
    "ptycho-core checkpoint",
    1,
    ("config.json", "weights.safetensors", "optimizer.safetensors", "run.safetensors", "history.csv"),
    "checkpoint",
    "checkpoint.h5.zip",
)
SOLVING = ArchiveKind(
    "ptycho-core solving",
    1,
    ("config.json", "weights.safetensors", "optimizer.safetensors", "run.safetensors", "run.json"),
    "checkpoint of a solve",
    "solving.h5.zip",
)
PRIOR = ArchiveKind(
    "ptycho-core prior",
    1,
    ("config.json", "weights.safetensors", "history.csv"),
    "prior",
    "prior.h5.zip",
)
TEACHING = ArchiveKind(
    "ptycho-core prior checkpoint",
    1,
    ("config.json", "run.json", "weights.safetensors", "optimizer.safetensors", "history.csv"),
    "checkpoint of a prior",
    "teaching.h5.zip",
)
ARCHIVE_KINDS = {kind.format: kind for kind in (MODEL, CHECKPOINT, SOLVING, PRIOR, TEACHING)}


# -- writing -------------------------------------------------------------------------------------------------------


def write_container(
    path: str | os.PathLike[str], kind: ArchiveKind, facts: Mapping[str, Any], members: Mapping[str, bytes]
) -> Path:
    """Write the file, whole or not at all, `facts` in its manifest; returns its path.

    A path without an ending is a folder, created if missing; the file in it has the kind's name.
    """
    target = Path(path)
    if target.is_dir() or not target.suffix:
        target = make_folder(target) / kind.name
    manifest = {
        "format": kind.format,
        "version": kind.version,
        "ptycho_core": ptycho_core.__version__,
        **facts,
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in members.items()},
    }
    with replacing(target) as file, zipfile.ZipFile(file, "w") as archive:
        for name, content in {MANIFEST: to_json(manifest), **members}.items():
            archive.writestr(name, content)
    return target


def to_json(content: object) -> bytes:
    return json.dumps(content, indent=2, sort_keys=True).encode()


def from_arrays(arrays: Weights) -> bytes:
    """The arrays in the safetensors format."""
    content: bytes = safetensors.numpy.save({name: np.asarray(array, order="C") for name, array in arrays.items()})
    return content


def history_csv(history: list[dict[str, float]]) -> str:
    """The history as CSV text: a header line and one line for each epoch, or for each sweep of a solve."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    count = "sweep" if "sweep" in columns else "epoch"
    writer.writerows({**row, count: int(row[count])} for row in history)
    return text.getvalue()


# -- reading -------------------------------------------------------------------------------------------------------


def to_arrays(content: bytes, what: str) -> dict[str, NDArray[np.floating]]:
    """The arrays of a safetensors member; ArchiveError unless all of them are float32 or float64."""
    arrays: dict[str, NDArray[np.floating]] = safetensors.numpy.load(content)
    for name, array in arrays.items():
        if array.dtype not in (np.float32, np.float64):
            raise ArchiveError(what, shown(name), expected="float32 or float64", received=array.dtype)
    return arrays


def from_history_csv(content: bytes) -> list[dict[str, float]]:
    rows = csv.DictReader(io.StringIO(content.decode()))
    return [{name: float(value) for name, value in row.items() if value} for row in rows]


def whole_number(value: Any) -> int:
    """The value, a whole number from 0; ValueError otherwise."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"expected a whole number, received {shown(repr(value))}")
    return value


def located(path: str | os.PathLike[str], kind: ArchiveKind) -> Path:
    """The file itself, or the one of the kind's name in the folder. ArchiveError for what is there and no file.

    A pipe or a device could be read without end.
    """
    target = Path(path)
    # os.path says no where a path cannot be looked at; opening the file will say why.
    target = target / kind.name if os.path.isdir(target) else target
    if os.path.exists(target) and not os.path.isfile(target):
        received = "a folder" if os.path.isdir(target) else "a pipe or a device"
        raise ArchiveError(target, expected=f"a {kind.noun}", received=received, remedy="Give a file.")
    return target


def read_container(path: Path, kind: ArchiveKind) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest and the members that it vouches for, their digests verified.

    Raises ArchiveError naming the file, the member and the remedy.
    """
    try:
        with _opened(path) as archive:
            names = archive.namelist()
            if MANIFEST not in names:
                raise _other_members(path, kind, names)
            manifest = json.loads(_read(path, archive, MANIFEST))
            _check_format(path, kind, manifest)
            if sorted(names) != sorted((MANIFEST, *kind.members)):
                raise _other_members(path, kind, names)
            members = {name: _read(path, archive, name) for name in kind.members}
        for name, content in members.items():
            digest, stated = hashlib.sha256(content).hexdigest(), manifest["sha256"][name]
            if digest != stated:
                remedy = "It was changed after it was written: copy it again."
                raise ArchiveError(path, name, expected=f"SHA-256 {shown(stated)}", received=digest, remedy=remedy)
    except ArchiveError:
        raise
    except FileNotFoundError as error:
        expected = f"a folder with {kind.name}, or such a file"
        raise ArchiveError(path, expected=expected, received="no such file", remedy="Check the path.") from error
    except (*UNREADABLE, KeyError, TypeError) as error:
        remedy = f"It is truncated or not a {kind.noun}: copy or train it again."
        received = f"{type(error).__name__}: {shown(error)}"
        raise ArchiveError(path, expected=f"a readable {kind.noun}", received=received, remedy=remedy) from error
    return manifest, members


def member_names(path: Path) -> set[str]:
    """What a zip file of any kind holds; what `UNREADABLE` names is raised where that cannot be told."""
    with _opened(path) as archive:
        return set(archive.namelist())


def read_manifest(path: Path) -> dict[str, Any]:
    """What the manifest of a file says that `read_container` has read."""
    with _opened(path) as archive:
        manifest: dict[str, Any] = json.loads(_read(path, archive, MANIFEST))
    return manifest


@contextmanager
def decoding(path: Path, kind: ArchiveKind) -> Iterator[None]:
    """Turns whatever the reading of members in the block raises into an ArchiveError of this file."""
    try:
        yield
    except ArchiveError as error:
        raise error.placed(path) from error
    except PtychoError as error:
        raise ArchiveError(path, received=error) from error
    except MALFORMED as error:
        remedy = f"The {kind.noun} is damaged: copy or train it again."
        received = f"{type(error).__name__}: {shown(error)}"
        raise ArchiveError(path, expected=f"a whole {kind.noun}", received=received, remedy=remedy) from error


def archive_kind(path: Path) -> ArchiveKind | None:
    """Which of our kinds a readable zip file says it is, if any; nothing but the manifest is looked at."""
    try:
        with _opened(path) as archive:
            if MANIFEST not in archive.namelist():
                return None
            return ARCHIVE_KINDS.get(json.loads(_read(path, archive, MANIFEST))["format"])
    except (*UNREADABLE, KeyError, TypeError, RecursionError):
        return None


def shown(text: object, width: int = 200) -> str:
    """Text of a file of unknown origin, fit for a message: short, on one line, without control characters."""
    printable = "".join(letter if letter.isprintable() else "�" for letter in str(text)[: width + 1])
    return printable if len(printable) <= width else printable[:width] + "…"


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    with path.open("rb", buffering=0) as file, opened_zip(file) as archive:
        yield archive


def _read(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    """A member within the limits."""
    info = archive.getinfo(name)
    limit = MEMBER_LIMIT if name.endswith(".safetensors") else TEXT_LIMIT
    if info.file_size > limit:
        remedy = "This is not one of our files."
        raise ArchiveError(path, name, expected=f"at most {limit} bytes", received=info.file_size, remedy=remedy)
    if info.file_size > max(SMALL, RATIO_LIMIT * info.compress_size):
        expected = f"at most {RATIO_LIMIT} times its packed size"
        received = f"{info.file_size} bytes from {info.compress_size}"
        remedy = "This may be a decompression bomb; get the file from a source you trust."
        raise ArchiveError(path, name, expected=expected, received=received, remedy=remedy)
    if info.compress_type not in COMPRESSION:
        remedy = "It is damaged or not one of our files: copy or train it again."
        raise ArchiveError(
            path, name, expected="a stored or deflated member", received=f"method {info.compress_type}", remedy=remedy
        )
    return archive.read(name)


def _check_format(path: Path, kind: ArchiveKind, manifest: Mapping[str, Any]) -> None:
    form, version = manifest["format"], manifest["version"]
    if form == kind.format and version == kind.version:
        return
    remedy = f"Update ptycho-core to read a {kind.noun} of a later version."
    if form != kind.format:
        other = ARCHIVE_KINDS.get(form) if isinstance(form, str) else None
        remedy = f"This is a {other.noun}: give {kind.name}." if other else f"Give a {kind.noun} of ptycho-core."
    received = f"{shown(repr(form))}, version {shown(repr(version))}"
    raise ArchiveError(
        path, MANIFEST, expected=f"{kind.format!r}, version {kind.version}", received=received, remedy=remedy
    )


def _other_members(path: Path, kind: ArchiveKind, names: Collection[str]) -> ArchiveError:
    remedy = "Copy or train it again."
    if any(name.endswith(".dill") for name in names):
        remedy = "It was written by the published implementation and holds pickles."
    elif any(name.endswith(".npy") for name in names):
        remedy = f"This is a scan or another NPZ file; give a {kind.noun}."
    received = ", ".join(shown(name, 60) for name in list(names)[:8]) + (
        f" and {len(names) - 8} more" * (len(names) > 8)
    )
    expected = f"the members {', '.join((MANIFEST, *kind.members))}"
    return ArchiveError(path, expected=expected, received=received or "none", remedy=remedy)
