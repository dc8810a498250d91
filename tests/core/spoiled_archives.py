"""Small valid archives of the published implementations, and ways to spoil them; for benchmarks/fuzz_readers.py."""

from __future__ import annotations

import functools
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ptycho_core.settings.model import ModelConfig
from tests.core.published_archives import keras_members, network_of, torch_members, zipped
from tests.core.scan_files import ScanFile, spoil

DEEPER = 0.85
"""How often one member of a zip file is spoiled and not the zip file itself."""


@functools.cache
def _content(kind: str) -> bytes:
    model = ModelConfig(N=32, n_filters_scale=1, amplitude_ceiling=1.0, architecture=kind)
    members = keras_members if kind == "cnn" else torch_members
    return zipped(members(model, network_of(model)))


def published_keras(folder: Path) -> Path:
    path = folder / "wts.h5.zip"
    path.write_bytes(_content("cnn"))
    return path


def published_torch(folder: Path) -> Path:
    path = folder / "wts.h5.zip"
    path.write_bytes(_content("published_torch"))
    return path


ARCHIVES: dict[str, Callable[[Path], Path]] = {maker.__name__: maker for maker in (published_keras, published_torch)}


def spoil_archive(path: Path, rng: np.random.Generator, trap: Path) -> str:
    """Change the archive or something in it, however deep, and nothing around that; returns what."""
    if rng.random() < DEEPER:
        content, way = _spoiled(path.read_bytes(), path.parent / "member", rng, trap)
        path.write_bytes(content)
        return way
    return _way(path, rng, trap)


def _spoiled(archive: bytes, scratch: Path, rng: np.random.Generator, trap: Path) -> tuple[bytes, str]:
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    inside = [name for name, content in members.items() if content[:4] in (b"PK\x03\x04", b"\x89HDF")]
    names = inside if inside and rng.random() < 0.7 else list(members)
    name = names[int(rng.integers(len(names)))]
    if members[name][:4] == b"PK\x03\x04" and rng.random() < DEEPER:
        members[name], way = _spoiled(members[name], scratch, rng, trap)
    else:
        scratch.write_bytes(members[name])
        way = _way(scratch, rng, trap)
        members[name] = scratch.read_bytes()
        scratch.unlink()
    return zipped(members), way


def _way(path: Path, rng: np.random.Generator, trap: Path) -> str:
    return spoil(ScanFile(path), rng, trap, arrays=False)
