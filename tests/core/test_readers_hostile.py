"""Damaged and hostile scan files are read as far as they are whole, or refused, in bounded time and memory."""

from __future__ import annotations

import bz2
import gzip
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ptycho_core import load_scan
from ptycho_core.errors import DataError
from ptycho_core.io import hdf5, packed
from ptycho_core.io.readers import describe_contents

from . import scan_files
from .reading import load, put, refusal
from .scan_files import COUNT, MAKERS, N, counts, spoil


@pytest.fixture(autouse=True)
def _files_need_not_outlive_a_power_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def hostile(tmp_path: Path, make: Callable[[h5py.File, str], None]) -> str:
    """The refusal of a file whose patterns are made by `make`."""
    file = scan_files.mapped_hdf5(tmp_path)
    with h5py.File(file.path, "r+") as content:
        del content["entry/data"]
        make(content, "entry/data")
    return refusal(file)


@pytest.mark.parametrize("target", ["../other.h5", "/etc/passwd", "missing.h5", "."])
def test_links_to_other_places_are_refused(tmp_path: Path, target: str) -> None:
    def make(file: h5py.File, name: str) -> None:
        file[name] = h5py.ExternalLink(target, "/x")

    assert "links to" in hostile(tmp_path, make)


def test_a_link_to_a_file_beside_is_followed(tmp_path: Path) -> None:
    file = scan_files.mapped_hdf5(tmp_path)
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["deep/data"] = counts()
        other["here"] = h5py.SoftLink("/deep/data")
    with h5py.File(file.path, "r+") as content:
        del content["entry/data"]
        content["entry/data"] = h5py.ExternalLink("other.h5", "/here")
        content["entry/positions_too"] = h5py.SoftLink("positions")
    assert len(load(file, positions="entry/positions_too")) == COUNT


def test_links_without_end_are_refused(tmp_path: Path) -> None:
    def soft(file: h5py.File, name: str) -> None:
        file[name] = h5py.SoftLink(f"/{name}")

    def virtual(file: h5py.File, name: str) -> None:
        layout = h5py.VirtualLayout(counts().shape, "u2")
        layout[...] = h5py.VirtualSource(".", name, counts().shape)
        file.create_virtual_dataset(name, layout)

    for make in (soft, virtual):
        assert "expected at most 16 links in a row; received more" in hostile(tmp_path, make)


def test_groups_that_hold_themselves_are_listed_once(tmp_path: Path) -> None:
    file = scan_files.mapped_hdf5(tmp_path)
    with h5py.File(file.path, "r+") as content:
        content["entry/again"] = content["/"]
    assert describe_contents(file.path).count("float64") == 1


def test_data_in_other_files_are_refused(tmp_path: Path) -> None:
    def external(file: h5py.File, name: str) -> None:
        file.create_dataset(name, counts().shape, "u2", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])

    def virtual(file: h5py.File, name: str) -> None:
        layout = h5py.VirtualLayout(counts().shape, "u2")
        layout[...] = h5py.VirtualSource("../x.h5", "x", counts().shape)
        file.create_virtual_dataset(name, layout)

    assert "data inside the file; received external storage" in hostile(tmp_path, external)
    assert "received a link to '../x.h5'" in hostile(tmp_path, virtual)


def test_virtual_data_sets_of_files_beside_are_read(tmp_path: Path) -> None:
    file = scan_files.mapped_hdf5(tmp_path)
    with h5py.File(tmp_path / "part.h5", "w") as other:
        other["data"] = counts()
    with h5py.File(file.path, "r+") as content:
        del content["entry/data"]
        layout = h5py.VirtualLayout(counts().shape, "u2")
        layout[...] = h5py.VirtualSource("part.h5", "data", counts().shape)
        content.create_virtual_dataset("entry/data", layout)
    np.testing.assert_array_equal(load(file).diffraction_amplitude, np.sqrt(counts(), dtype=np.float32))


@pytest.mark.parametrize(
    ("shape", "chunks", "expected"),
    [
        ((2**40, N, N), (1, N, N), "data that were written"),
        ((2**13, 2**8, 2**8), (2**13, 2**7, 2**7), "chunks of at most"),
    ],
)
def test_absurd_sizes_are_refused(tmp_path: Path, shape: Any, chunks: Any, expected: str) -> None:
    assert f"expected {expected}" in hostile(
        tmp_path, lambda file, name: file.create_dataset(name, shape, "f8", chunks=chunks) and None
    )
    file = scan_files.mapped_hdf5(tmp_path)
    put(file.path, "probe", None)
    with h5py.File(file.path, "r+") as content:
        content.create_dataset("probe", (2**13, 2**13), "f8", chunks=(64, 64))
    assert "expected at most 256 MiB" in refusal(file)


@pytest.mark.parametrize(
    "value",
    [
        np.array(["a", "b"], dtype=object),
        np.zeros(3, [("a", "f4")]),
        np.zeros((COUNT, N, N), complex),
        h5py.Empty("f4"),
        np.float64(3),
        np.zeros((0, N, N)),
        np.zeros((COUNT, N, N)),
        -np.ones((COUNT, N, N)),
        np.full((COUNT, N, N), np.nan),
        np.ones((COUNT, N)),
    ],
    ids=lambda value: f"{getattr(value, 'dtype', '')} {getattr(value, 'shape', '')}",
)
def test_patterns_that_are_none_are_refused(tmp_path: Path, value: Any) -> None:
    file = scan_files.mapped_hdf5(tmp_path)
    with h5py.File(file.path, "r+") as content:
        del content["entry/data"]
        kind = h5py.string_dtype() if getattr(value, "dtype", None) == np.dtype(object) else None
        content.create_dataset("entry/data", data=value, dtype=kind)
    refusal(file, measurement="intensity")


def test_references_and_missing_filters_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "dtype object" in hostile(
        tmp_path, lambda file, name: file.create_dataset(name, (3, N, N), h5py.regionref_dtype) and None
    )
    file = scan_files.shelves(tmp_path)
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: code != h5py.h5z.FILTER_DEFLATE)
    message = refusal(file)
    assert "expected filters that are installed; received filter 1 (deflate)" in message and "hdf5plugin" in message


@pytest.mark.parametrize("name", ["npz", "mapped_npz", "mapped_npy", "probe_array"])
def test_a_pickle_is_never_executed(tmp_path: Path, name: str) -> None:
    file = MAKERS[name](tmp_path)
    trap = np.empty(1, object)
    trap[0] = scan_files.Trap(tmp_path / "executed")
    if file.victim.suffix == ".npz":
        arrays = dict(np.load(file.victim))
        key = next(key for key in arrays if "probe" in key.lower())
        np.savez(file.victim, **{**arrays, key: trap})
    else:
        np.save(file.victim, trap, allow_pickle=True)
    refusal(file)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("pack", [bz2.compress, gzip.compress])
def test_a_packed_file_that_grows_without_bounds_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(packed, "LARGE_BYTES", 2**20)
    path = tmp_path / "bomb.npz.gz"
    path.write_bytes(pack(bytes(2**22)))
    assert "expected a packed measurement; received more than" in refusal(path)
    path.write_bytes(path.read_bytes()[:-20])
    refusal(path)


def test_truncated_packed_files_are_refused(tmp_path: Path) -> None:
    file = scan_files.packed(tmp_path)
    file.path.write_bytes(file.path.read_bytes()[:-30])
    assert "expected a readable packed file" in refusal(file)


def test_unreadable_and_linked_files(tmp_path: Path) -> None:
    file = scan_files.cxi(tmp_path)
    link = tmp_path / "link.cxi"
    link.symlink_to(file.path)
    assert len(load_scan(link)) == COUNT  # a link is as good as the file
    file.path.unlink()
    assert "received no such file" in refusal(link)
    loop = tmp_path / "loop.npz"
    loop.symlink_to(loop)
    assert "received no such file" in refusal(loop)
    pipe = tmp_path / "pipe.npz"
    os.mkfifo(pipe)
    assert "expected a scan file" in refusal(pipe)
    if os.geteuid() != 0:
        closed = scan_files.npz(tmp_path).path
        closed.chmod(0)
        refusal(closed)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", MAKERS)
def test_spoiled_files_are_read_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A few inputs of benchmarks/fuzz_readers.py."""
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    for number in range(16):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.setattr("ptycho_core.frames.IN_MEMORY_BYTES", 2**28 * (number % 2))
        file = MAKERS[name](folder)
        spoil(file, np.random.default_rng([number, len(name)]), tmp_path / "executed")
        message = f"{folder}: expected"
        try:
            load(file)
        except DataError as error:
            message = str(error)
        assert str(folder) in message and "expected" in message
        assert not (tmp_path / "executed").exists()


def test_the_signature_is_found_where_it_may_be(tmp_path: Path) -> None:
    path = tmp_path / "user.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["dp"] = 1
    assert hdf5.is_hdf5(path) and not hdf5.is_hdf5(tmp_path)
    path.write_bytes(b"\x00" * 300)
    assert not hdf5.is_hdf5(path)


@pytest.mark.parametrize("size", [0, 8, 2**40])
def test_texts_of_a_broken_heap_are_not_read(tmp_path: Path, size: int) -> None:
    """HDF5 would look for the next object of the heap without end."""
    file = scan_files.ptychodus(tmp_path)
    product = tmp_path / "product.h5"
    data = bytearray(product.read_bytes())
    place = data.index(b"GCOL") + 16
    while int.from_bytes(data[place : place + 2], "little"):
        place += 16 + -(-int.from_bytes(data[place + 8 : place + 16], "little") // 8) * 8
    assert load(file).metadata["name"] == "scan"
    data[place + 8 : place + 16] = size.to_bytes(8, "little")  # of the free space
    product.write_bytes(data)
    assert "name" not in load(file).metadata
