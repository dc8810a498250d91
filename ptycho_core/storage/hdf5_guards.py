"""What in an HDF5 file would hurt the process that reads it (specs/data.md, HDF5).

Chunks: HDF5 unpacks a deflated chunk to its end, however far that is, before it compares sizes: of a megabyte it can
make a gigabyte. Global heaps, the local ones that hold the names of groups, and the trees of groups and chunks: HDF5
loops for ever over some that are damaged, or ends the process. Virtual data sets: HDF5 decodes the description of their
parts before it compares its checksum, and a damaged one can end the process.
"""

from __future__ import annotations

import functools
import math
import mmap
import re
import struct
import zlib
from collections.abc import Iterator
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


FILE_SIGNATURE = b"\x89HDF\r\n\x1a\n"
SIGNATURE = b"GCOL\x01"
"""With the version: HDF5 refuses another."""
MOST_BYTES = 2**28
"""Larger files are not searched."""
LEAST_BYTES = 4096
"""HDF5 refuses a collection that claims to be smaller, or to reach beyond the file: these bytes are something else."""
HEADER, OBJECT = struct.Struct("<5s3xQ"), struct.Struct("<HH4xQ")
NAMES, NAMES_HEADER = b"HEAP\x00", struct.Struct("<5s3xQQQ")
"""A local heap and its version; bytes of its data, the first free block among them, the address of the data."""
FREE, LAST = struct.Struct("<QQ"), 1
"""A free block of it: where the next one is, and its own bytes; what is in place of a next one in the last."""
TREE, TREE_HEADER, ADDRESS = b"TREE", struct.Struct("<4sBBHQQ"), struct.Struct("<Q")
"""A node of a tree, version 1: what it is of, its level, its entries, its neighbours to the left and to the right."""
OF_GROUPS, MOST_RANKS = 0, 32
"""An entry is a key and the address of a child. A key of a group is an address; one of chunks has an offset an axis."""


VIRTUAL = rb"\x03(%s)(.{4})"
"""Class of a virtual data set's layout, then where the description of its parts lies: heap and index."""
VERSIONS = range(4, 16)
"""Of such a layout, in the byte before; not in the pattern, which a literal beginning makes ten times as fast."""


def is_sound(data: bytes | mmap.mmap) -> bool:
    """Whether heaps and trees in an HDF5 file are consistent, and the parts of virtual data sets whole."""
    base = max(0, data.find(FILE_SIGNATURE))  # addresses count from here
    if not all(_free_blocks_end(data, place, base) for place in _places(data, NAMES)) or not _trees_end(data, base):
        return False
    heaps: dict[int, dict[int, slice]] = {}
    for place in _places(data, SIGNATURE):
        objects = _objects(data, place)
        if objects is None:
            return False
        if any(data[each.start] < 2 for each in objects.values()):  # versions of a description
            heaps[place] = objects
    return _descriptions_are_whole(data, heaps, base)


def can_be_searched(path: Path) -> bool:
    return 0 < path.stat().st_size <= MOST_BYTES


def file_is_sound(path: Path) -> bool:
    """The same of a file that can be searched. OSError."""
    facts = path.stat()
    return _searched(path, facts.st_size, facts.st_mtime_ns)


@functools.lru_cache(64)  # every reader opens a file to see whether it is its own
def _searched(path: Path, size: int, modified: int) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return is_sound(data)


def _places(data: bytes | mmap.mmap, signature: bytes) -> Iterator[int]:
    place = data.find(signature)
    while place >= 0:
        yield place
        place = data.find(signature, place + 1)


def _free_blocks_end(data: bytes | mmap.mmap, place: int, base: int) -> bool:
    """Whether HDF5 comes to the end of the free blocks of the local heap at `place`, or refuses one of them."""
    if place + NAMES_HEADER.size > len(data):
        return True
    _, size, free, address = NAMES_HEADER.unpack_from(data, place)
    if base + address + size > len(data):
        return True
    for _ in range(size // FREE.size + 1):
        if free == LAST or free + FREE.size > size:
            return True
        following, length = FREE.unpack_from(data, base + address + free)
        if following == 0 or free + length > size:
            return True
        free = following
    return False


def _trees_end(data: bytes | mmap.mmap, base: int) -> bool:
    """Whether HDF5 comes to an end to the right of every node, and below it: children are of a lower level."""
    nodes: dict[int, tuple[int, int, int, int]] = {}
    for place in _places(data, TREE):
        if place + TREE_HEADER.size <= len(data):
            _, kind, level, entries, _, right = TREE_HEADER.unpack_from(data, place)
            nodes[place - base] = kind, level, entries, right
    ends: set[int] = set()
    for node in nodes:
        passed: set[int] = set()
        while node in nodes and node not in ends:
            if node in passed:
                return False
            passed.add(node)
            node = nodes[node][-1]
        ends |= passed
    for node, (kind, level, entries, _) in nodes.items():
        if level and any(nodes[child][1] >= level for child in _children(data, base + node, kind, entries, nodes)):
            return False
    return True


def _children(
    data: bytes | mmap.mmap, place: int, kind: int, entries: int, nodes: dict[int, tuple[int, int, int, int]]
) -> list[int]:
    """The nodes below one, of whose keys it is not known how long they are: as long as most are nodes."""
    first = place + TREE_HEADER.size
    found: list[int] = []
    for words in (1,) if kind == OF_GROUPS else range(3, MOST_RANKS + 3):
        step = (words + 1) * ADDRESS.size
        places = range(first + words * ADDRESS.size, min(first + entries * step, len(data) - ADDRESS.size + 1), step)
        children = [child for (child,) in (ADDRESS.unpack_from(data, each) for each in places) if child in nodes]
        found = max(found, children, key=len)
    return found


def _objects(data: bytes | mmap.mmap, place: int) -> dict[int, slice] | None:
    """Where the objects of the collection at `place` lie, by index; None where they do not fill it up to its end.

    Empty objects, and a collection that HDF5 refuses, have none.
    """
    if place + HEADER.size > len(data):
        return {}
    _, length = HEADER.unpack_from(data, place)
    if length < LEAST_BYTES or place + length > len(data):
        return {}
    offset, found = HEADER.size, {}
    while offset + OBJECT.size <= length:
        index, _, stored = OBJECT.unpack_from(data, place + offset)
        if index == 0:  # the free space, up to the end
            if stored != length - offset:
                return None
            break
        if index in found:
            return None
        offset += OBJECT.size
        found[index] = slice(place + offset, place + offset + stored)
        offset += -(-stored // 8) * 8
    return {index: each for index, each in found.items() if each.start < each.stop} if offset <= length else None


def _descriptions_are_whole(data: bytes | mmap.mmap, heaps: dict[int, dict[int, slice]], base: int) -> bool:
    """Whether the checksum of each description of parts in these collections is that of what is before it."""
    if not heaps:
        return True
    addresses = {struct.pack("<Q", place - base): objects for place, objects in heaps.items()}
    for found in re.finditer(VIRTUAL % b"|".join(map(re.escape, addresses)), data, re.DOTALL):
        if data[found.start() - 1] not in VERSIONS:
            continue
        where = addresses[found[1]].get(int.from_bytes(found[2], "little"), slice(0))
        content, checksum = data[where][:-4], data[where][-4:]
        if len(checksum) < 4 or lookup3(content) != int.from_bytes(checksum, "little"):
            return False
    return True


def lookup3(data: bytes) -> int:
    """The checksum of HDF5's own structures: `hashlittle` of lookup3.c with the initial value 0.

    Bob Jenkins, "A hash function for hash table lookup", 2006, https://burtleburtle.net/bob/hash/doobs.html.
    """
    mask = 0xFFFFFFFF
    a = b = c = (0xDEADBEEF + len(data)) & mask
    if not data:
        return c
    padded = data + bytes(-len(data) % 12)
    words: tuple[int, ...] = struct.unpack(f"<{len(padded) // 4}I", padded)
    for at in range(0, len(words) - 3, 3):
        a, b, c = (a + words[at]) & mask, (b + words[at + 1]) & mask, (c + words[at + 2]) & mask
        a = ((a - c) & mask) ^ _turned(c, 4)
        c += b
        b = ((b - a) & mask) ^ _turned(a, 6)
        a += c
        c = ((c - b) & mask) ^ _turned(b, 8)
        b += a
        a = ((a - c) & mask) ^ _turned(c, 16)
        c += b
        b = ((b - a) & mask) ^ _turned(a, 19)
        a += c
        c = ((c - b) & mask) ^ _turned(b, 4)
        b = (b + a) & mask
    a, b, c = (a + words[-3]) & mask, (b + words[-2]) & mask, (c + words[-1]) & mask
    c = ((c ^ b) - _turned(b, 14)) & mask
    a = ((a ^ c) - _turned(c, 11)) & mask
    b = ((b ^ a) - _turned(a, 25)) & mask
    c = ((c ^ b) - _turned(b, 16)) & mask
    a = ((a ^ c) - _turned(c, 4)) & mask
    b = ((b ^ a) - _turned(a, 14)) & mask
    return ((c ^ b) - _turned(b, 24)) & mask


def _turned(value: int, bits: int) -> int:
    """A 32-bit number with its bits moved round to the left."""
    value &= 0xFFFFFFFF
    return (value << bits | value >> (32 - bits)) & 0xFFFFFFFF
