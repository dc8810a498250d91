"""Whether texts of variable length can be read from an HDF5 file (specs/data.md, HDF5).

They lie in global heap collections (HDF5 File Format Specification 3.0, III.E), whose damage HDF5 1.14 does not notice:
it reads on without end, or beyond its memory.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

SIGNATURE = b"GCOL"
MOST_BYTES = 2**28
"""Larger files are not searched: a text is decoration."""
HEADER, OBJECT = struct.Struct("<4sB3xQ"), struct.Struct("<HH4xQ")


def heaps_are_sound(path: Path) -> bool:
    """Whether every global heap collection is consistent; False for a file that is too large to be searched."""
    try:
        size = path.stat().st_size
        if not 0 < size <= MOST_BYTES:
            return False
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            place = data.find(SIGNATURE)
            while place >= 0:
                if not _sound(data, place, size):
                    return False
                place = data.find(SIGNATURE, place + 1)
    except (OSError, ValueError):
        return False
    return True


def _sound(data: mmap.mmap, place: int, size: int) -> bool:
    """Whether the objects of the collection at `place` follow each other up to its end."""
    if place + HEADER.size > size:
        return False
    _, version, length = HEADER.unpack_from(data, place)
    if version != 1 or length < HEADER.size or place + length > size:
        return False
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
