"""Damaged and hostile scan files are read as far as they are whole, or refused, in bounded time and memory."""

from __future__ import annotations

import bz2
import gzip
import logging
import os
import re
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ptycho_core import load_scan
from ptycho_core.errors import DataError
from ptycho_core.io import packed
from ptycho_core.io.readers import describe_contents
from ptycho_core.storage import hdf5
from ptycho_core.storage import hdf5_guards as chunks
from ptycho_core.storage.hdf5_guards import is_sound, lookup3
from tests.core import scan_files
from tests.core.reading import load, put, refusal
from tests.core.scan_files import COUNT, MAKERS, N, counts, spoil


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
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)  # or it would find its own filters there and register none
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


def test_what_is_packed_twice_is_refused(tmp_path: Path) -> None:
    """There are files that unpack to themselves."""
    path = tmp_path / "scan.npz.gz.gz"
    path.write_bytes(gzip.compress(gzip.compress(b"anything")))
    assert "expected a packed scan; received one that is packed twice" in refusal(path)


def test_a_zip_file_of_more_entries_than_any_is_refused(tmp_path: Path) -> None:
    """zipfile makes an object of each, before anybody can count them."""
    path = tmp_path / "scan.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(20_000):
            archive.writestr(f"{number:040}", b"")
    for changes in ({}, {"reader": "npz"}, {"reader": "mapped"}):
        assert "a directory of more than" in refusal(path, **changes)


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
    assert "expected a scan file" in refusal(tmp_path / ("x" * 300))
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
        monkeypatch.setattr("ptycho_core.storage.source.IN_MEMORY_BYTES", 2**28 * (number % 2))
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
def test_a_file_of_a_broken_heap_is_refused(tmp_path: Path, size: int) -> None:
    """HDF5 would look for the next object of the heap without end."""
    file = scan_files.ptychodus(tmp_path)
    assert load(file).metadata["name"] == "scan"
    break_heap(tmp_path / "product.h5", size)
    assert "product.h5: expected whole heaps and trees" in refusal(file)


@pytest.mark.parametrize("user_block", [0, 512])
def test_a_group_whose_free_names_never_end_is_refused(tmp_path: Path, user_block: int) -> None:
    """HDF5 would follow the free blocks of the group's local heap without end."""
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w", userblock_size=user_block) as file:
        file["entry/data"] = np.ones((4, 8, 8))
    content = bytearray(path.read_bytes())
    assert is_sound(content)
    size, free, address = struct.unpack_from("<QQQ", content, content.index(b"HEAP\0") + 8)
    first = user_block + address + free
    assert struct.unpack_from("<QQ", content, first) == (1, size - free)
    for following, sound in ((free, False), (0, True), (size, True)):  # HDF5 itself refuses the others
        struct.pack_into("<Q", content, first, following)
        assert is_sound(content) is sound
    struct.pack_into("<Q", content, first, free)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"scan\.h5: expected whole heaps and trees"):
        load_scan(path)


@pytest.mark.parametrize("user_block", [0, 512])
@pytest.mark.parametrize(("kind", "key"), [(0, 8), (1, 32)], ids=["names", "chunks"])
def test_a_tree_that_leads_back_is_refused(tmp_path: Path, kind: int, key: int, user_block: int) -> None:
    """HDF5 would follow nodes to the right without end, or end the process on its way down."""
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w", userblock_size=user_block) as file:
        for number in range(300):
            file[f"entry/{number}"] = number
        file.create_dataset("frames", data=np.ones((20, 20)), chunks=(2, 2))
    whole = path.read_bytes()
    assert is_sound(whole)
    starts = [found.start() for found in re.finditer(b"TREE" + bytes((kind,)), whole)]
    leaves = [start for start in starts if whole[start + 5] == 0]
    (top,) = (start for start in starts if whole[start + 5] == 1)
    first = struct.unpack_from("<Q", whole, top + 24 + key)[0] + user_block
    assert first in leaves
    chained = struct.unpack_from("<Q", whole, first + 16)[0] + user_block
    for place, target in ((first + 16, first), (chained + 16, first), (top + 24 + key, top)):
        content = bytearray(whole)
        struct.pack_into("<Q", content, place, target - user_block)
        assert not is_sound(content)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"scan\.h5: expected whole heaps and trees"):
        load_scan(path)


def test_what_looks_like_a_heap_and_is_none_is_let_be(tmp_path: Path) -> None:
    """HDF5 itself refuses another version, or a length that cannot be."""
    for version, length in ((0, 4096), (1, 8), (1, 2**40)):
        content = b"GCOL" + bytes((version, 0, 0, 0)) + length.to_bytes(8, "little") + bytes(8192)
        assert is_sound(content), (version, length)


def break_heap(path: Path, size: int = 0) -> None:
    """The free space of the first global heap gets a size that is not its own."""
    data = bytearray(path.read_bytes())
    place = data.index(b"GCOL") + 16
    while int.from_bytes(data[place : place + 2], "little"):
        place += 16 + -(-int.from_bytes(data[place + 8 : place + 16], "little") // 8) * 8
    data[place + 8 : place + 16] = size.to_bytes(8, "little")
    path.write_bytes(data)


def outcome(file: scan_files.ScanFile, seconds: int = 60) -> tuple[str, float]:
    """What loading says in a process of its own, which is ended after that time; how many MiB its memory grew."""
    program = """
import resource, sys
from pathlib import Path
from ptycho_core import load_scan
from ptycho_core.errors import DataError
import h5py
import numpy as np
file = eval(sys.argv[1], {"settings": None})
memory = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = memory()
try:
    said = str(np.asarray(load_scan(file[0], **file[1]).diffraction_amplitude).shape)
except DataError as error:
    said = str(error)
print(memory() - before, said)
"""
    command = [sys.executable, "-c", program, repr((str(file.path), dict(file.settings)))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=True)
    grown, _, said = done.stdout.partition(" ")
    return said.strip(), float(grown)


def test_a_virtual_data_set_of_a_broken_heap_is_refused(tmp_path: Path) -> None:
    """HDF5 reads where its parts are from a global heap, as soon as it is opened."""
    file = scan_files.mapped_virtual(tmp_path)
    break_heap(file.path)
    assert "expected whole heaps and trees" in outcome(file)[0]


@pytest.mark.parametrize("user_block", [0, 512])
def test_a_damaged_description_of_a_virtual_data_set_never_reaches_hdf5(tmp_path: Path, user_block: int) -> None:
    """HDF5 decodes it before it compares its checksum, and some bytes of it end the process."""
    path = tmp_path / "virtual.h5"
    layout = h5py.VirtualLayout((8, 4, 4), "u2")
    for number in range(2):
        layout[4 * number : 4 * number + 4] = h5py.VirtualSource(f"part{number}.h5", "data", (4, 4, 4))
    with h5py.File(path, "w", userblock_size=user_block) as file:
        file.attrs["text"] = ["of", "variable", "length"]
        file.create_virtual_dataset("data", layout)
    content = bytearray(path.read_bytes())
    assert is_sound(content)
    start = content.index(b"part0.h5") - 9  # its version, and how many parts there are
    stop = start + int.from_bytes(content[start - 8 : start], "little")
    message = content.index(b"\x04\x03")
    index = int.from_bytes(content[message + 10 : message + 14], "little")
    assert int.from_bytes(content[start - 16 : start - 14], "little") == index
    for place in (*range(start + 1, stop), message + 10):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        assert not is_sound(damaged), place - start
    content[start] = 7
    path.write_bytes(content)
    with h5py.File(path) as file, pytest.raises((OSError, KeyError)):  # another version HDF5 itself refuses
        file["data"]


def test_a_virtual_data_set_with_one_byte_changed_is_refused(tmp_path: Path) -> None:
    file = scan_files.mapped_virtual(tmp_path)
    content = bytearray(file.path.read_bytes())
    content[content.index(b"part1.h5") + 20] ^= 1
    file.path.write_bytes(content)
    assert "expected whole heaps and trees" in outcome(file)[0]


def test_a_damaged_tree_of_names_does_not_hold_the_process(tmp_path: Path) -> None:
    """HDF5 walks this one without end where it is asked how large it is."""
    file = scan_files.ptylab(tmp_path)
    rng = np.random.default_rng([208, 5133])
    rng.random()
    assert spoil(file, rng, tmp_path / "trap") == "metadata"
    assert "lab.hdf5: expected " in outcome(file, seconds=30)[0]


def test_the_checksum_is_that_of_its_author() -> None:
    """The values that lookup3.c gives as examples."""
    assert lookup3(b"") == 0xDEADBEEF
    assert lookup3(b"Four score and seven years ago") == 0x17770551


def bomb(size: int) -> bytes:
    """Zeros, deflated."""
    packer = zlib.compressobj(9)
    return b"".join([packer.compress(bytes(2**20)) for _ in range(size // 2**20)] + [packer.flush()])


def test_a_chunk_that_unpacks_to_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    """HDF5 unpacks it all before it looks at the size."""
    file = scan_files.mapped_hdf5(tmp_path)
    with h5py.File(file.path, "r+") as content:
        del content["entry/data"]
        data = content.create_dataset("entry/data", (2**10, 2**5, 2**5), "u2", chunks=True, compression="gzip")
        data[...] = np.random.default_rng(0).integers(0, 9, data.shape)
        data.id.write_direct_chunk((0, 0, 0), bomb(2**29))
    said, grown = outcome(file)
    assert "expected chunks of" in said and "that unpack to no more" in said and grown < 256, (said, grown)


def test_data_that_were_packed_twice_are_refused(tmp_path: Path) -> None:
    """One after the other they make a gigabyte of a kilobyte."""

    def make(file: h5py.File, name: str) -> None:
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_chunk(counts().shape)
        settings.set_deflate(1)
        settings.set_deflate(1)
        space = h5py.h5s.create_simple(counts().shape)
        h5py.h5d.create(file.id, name.encode(), h5py.h5t.NATIVE_UINT16, space, settings)
        file[name][...] = counts()

    assert "expected data that are packed once" in hostile(tmp_path, make)


def test_large_packed_chunks_that_are_whole_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "SAFE_BYTES", 2**10)
    for name in ("shelves", "ptyd", "mapped_chunks"):
        folder = tmp_path / name
        folder.mkdir()
        assert len(load(MAKERS[name](folder))) == COUNT


def test_a_virtual_data_set_reads_no_file_elsewhere(tmp_path: Path) -> None:
    """HDF5 takes a full path as it is where there is such a file."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with h5py.File(elsewhere / "secret.h5", "w") as other:
        other["x"] = counts()
    here = tmp_path / "here"
    here.mkdir()

    def make(target: str) -> Callable[[h5py.File, str], None]:
        def virtual(file: h5py.File, name: str) -> None:
            layout = h5py.VirtualLayout(counts().shape, "u2")
            layout[...] = h5py.VirtualSource(target, "x", counts().shape)
            file.create_virtual_dataset(name, layout)

        return virtual

    for target in (str(elsewhere / "secret.h5"), "../elsewhere/secret.h5"):
        assert "expected links to files in its own folder" in hostile(here, make(target))
    with h5py.File(here / "secret.h5", "w") as other:
        other["x"] = counts()
    assert "expected links to files in its own folder" in hostile(here, make(str(elsewhere / "secret.h5")))
    gone = scan_files.mapped_hdf5(here)
    put(gone.path, "entry/data", None)
    with h5py.File(gone.path, "r+") as content:
        make("/gone/secret.h5")(content, "entry/data")
    assert len(load(gone)) == COUNT  # it stands for the file beside


def test_a_virtual_data_set_of_numbered_files_is_refused(tmp_path: Path) -> None:
    """Which files it reads, and what links are in them, is known to HDF5 alone."""
    shape = counts().shape

    def make(file: h5py.File, name: str) -> None:
        with h5py.File(tmp_path / "part0.h5", "w") as other:
            other.create_dataset("x", shape, "u2", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])
        endless = (h5py.h5s.UNLIMITED, *shape[1:])
        space = h5py.h5s.create_simple(shape, endless)
        space.select_hyperslab((0, 0, 0), (h5py.h5s.UNLIMITED, 1, 1), (shape[0], 1, 1), shape)
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_virtual(space, b"part%b.h5", b"x", h5py.h5s.create_simple(shape))
        whole = h5py.h5s.create_simple(shape, endless)
        h5py.h5d.create(file.id, name.encode(), h5py.h5t.NATIVE_UINT16, whole, settings)

    assert "expected files that are named one by one" in hostile(tmp_path, make)


def test_sources_of_a_virtual_data_set_are_checked_as_any_other(tmp_path: Path) -> None:
    file = scan_files.mapped_virtual(tmp_path)
    with h5py.File(tmp_path / "part0.h5", "w") as other:
        other.create_dataset("data", (2**13, 2**8, 2**8), "f8", chunks=(2**13, 2**7, 2**7))
    assert "expected chunks of at most" in refusal(file)


def test_whatever_h5py_raises_while_patterns_are_read_is_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in hdf5.DAMAGED:

        def fail(self: Any, *_: object, kind: type[BaseException] = kind) -> None:
            raise kind("a number that is none")

        folder = tmp_path / kind.__name__
        folder.mkdir()
        file = scan_files.shelves(folder)
        with monkeypatch.context() as patched:
            patched.setattr(h5py.Dataset, "__getitem__", fail)
            refusal(file, positions=str(scan_files.mapped_npy(folder).settings["positions"]), **scan_files.MAPPED)


def test_a_companion_that_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("shelves", "ptychodus", "cxi"):
        folder = tmp_path / name
        folder.mkdir()
        for companion in (tmp_path / "pipe", Path("/dev/zero"), tmp_path, tmp_path / "none"):
            message = refusal(MAKERS[name](folder), companion=companion)
            assert "companion: expected a file" in message, message


def test_a_chunk_of_many_patterns_is_unpacked_once(tmp_path: Path) -> None:
    """It is the most that a chunk may hold, and read in 32 pieces."""
    file = scan_files.mapped_hdf5(tmp_path)
    shape = (2**12, 2**7, 2**7)
    with h5py.File(file.path, "r+") as content:
        for name in ("entry/data", "entry/positions", "probe"):
            del content[name]
        content.create_dataset("entry/data", shape, "u4", chunks=shape, compression="gzip")
        content["entry/data"].id.write_direct_chunk((0, 0, 0), bomb(2**28))
        content["entry/positions"], content["probe"] = np.zeros((shape[0], 2)), np.ones(shape[1:], complex)
    started = time.process_time()  # of this process alone: unpacking 32 times would take half a minute of it
    said, grown = outcome(file)
    assert "zero" in said, said
    assert time.process_time() - started < 20 and grown < 1024
