"""Chunks of HDF5 data sets that unpack to more than they may hold (specs/data.md, HDF5).

HDF5 unpacks a deflated chunk to its end, however far that is, before it compares sizes: of a megabyte it can make a
gigabyte.
"""

from __future__ import annotations

import math
import zlib
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
