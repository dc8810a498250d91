"""Chunks of HDF5 data sets that unpack to more than they may hold (specs/data.md, HDF5).

HDF5 unpacks a deflated chunk to its end, however far that is, before it compares sizes: of a megabyte it can make a
gigabyte.
"""

from __future__ import annotations

import functools
import math
import mmap
import struct
import zlib
from pathlib import Path
from typing import Any

LARGEST_FACTOR = 1032
"""More than this deflate cannot pack (zlib, Technical Details)."""
SAFE_BYTES = 2**28
"""A chunk that cannot unpack to more than this is not tried."""
CHECK_SUMS = 64
"""Bytes that filters may add to a chunk."""
PIECE = 2**20


def packings(data: Any) -> list[int]:
    """The filters of a data set that change the size of its chunks, by their codes."""
    import h5py

    properties = data.id.get_create_plist()
    codes = [properties.get_filter(number)[0] for number in range(properties.get_nfilters())]
    return [code for code in codes if code not in (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32)]


def bursting_chunk(data: Any) -> tuple[int, ...] | None:
    """The place of a chunk of a deflated data set that unpacks to more than a chunk holds; None where all are whole.

    Only chunks that might exceed `SAFE_BYTES` are unpacked, a piece at a time.
    """
    import h5py

    if packings(data) != [h5py.h5z.FILTER_DEFLATE] or data.id.get_storage_size() * LARGEST_FACTOR <= SAFE_BYTES:
        return None
    holds = math.prod(data.chunks) * data.dtype.itemsize + CHECK_SUMS
    large: list[tuple[int, ...]] = []

    def note(chunk: Any) -> tuple[int, ...] | None:
        if chunk.size > 2 * holds:  # deflate adds less than a hundredth to what it cannot pack
            return tuple(chunk.chunk_offset)
        if chunk.size * LARGEST_FACTOR > SAFE_BYTES:
            large.append(tuple(chunk.chunk_offset))
        return None

    longer = data.id.chunk_iter(note)
    if longer is not None:
        return tuple(longer)
    return next((place for place in large if _bursts(data.id.read_direct_chunk(place)[1], holds)), None)


def _bursts(packed: bytes, holds: int) -> bool:
    """Whether more than `holds` bytes come out; what is damaged otherwise HDF5 will say."""
    unpacker, done = zlib.decompressobj(), 0
    try:
        while packed and not unpacker.eof and done <= holds:
            done += len(unpacker.decompress(packed, PIECE))
            packed = unpacker.unconsumed_tail
    except zlib.error:
        pass
    return done > holds


SIGNATURE = b"GCOL\x01"
"""With the version: HDF5 refuses another."""
MOST_BYTES = 2**28
"""Larger files are not searched."""
LEAST_BYTES = 4096
"""HDF5 refuses a collection that claims to be smaller, or to reach beyond the file: these bytes are something else."""
HEADER, OBJECT = struct.Struct("<5s3xQ"), struct.Struct("<HH4xQ")


def heaps_are_sound(data: bytes | mmap.mmap) -> bool:
    """Whether every global heap collection in an HDF5 file is consistent."""
    place = data.find(SIGNATURE)
    while place >= 0:
        if not _sound(data, place):
            return False
        place = data.find(SIGNATURE, place + 1)
    return True


def can_be_searched(path: Path) -> bool:
    return 0 < path.stat().st_size <= MOST_BYTES


def file_heaps_are_sound(path: Path) -> bool:
    """The same of a file that can be searched. OSError."""
    facts = path.stat()
    return _searched(path, facts.st_size, facts.st_mtime_ns)


@functools.lru_cache(64)  # every reader opens a file to see whether it is its own
def _searched(path: Path, size: int, modified: int) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return heaps_are_sound(data)


def _sound(data: bytes | mmap.mmap, place: int) -> bool:
    """Whether the objects of the collection at `place` follow each other up to its end."""
    if place + HEADER.size > len(data):
        return True
    _, length = HEADER.unpack_from(data, place)
    if length < LEAST_BYTES or place + length > len(data):
        return True
    offset, seen = HEADER.size, set()
    while offset + OBJECT.size <= length:
        index, _, stored = OBJECT.unpack_from(data, place + offset)
        if index == 0:  # the free space, up to the end
            return bool(stored == length - offset)
        if index in seen:
            return False
        seen.add(index)
        offset += OBJECT.size + -(-stored // 8) * 8
    return bool(offset <= length)
