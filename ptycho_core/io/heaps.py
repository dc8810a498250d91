"""Whether the global heaps of an HDF5 file are whole (specs/data.md, HDF5).

Texts of variable length, and where the parts of a virtual data set are, lie in global heap collections (HDF5 File
Format Specification 3.0, III.E), whose damage HDF5 1.14 does not notice: it reads on without end, or beyond its memory.
"""

from __future__ import annotations

import functools
import mmap
import struct
from pathlib import Path

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
