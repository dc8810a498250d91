"""Frames that are somewhere: the protocol, and those of an array."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

BLOCK_BYTES = 2**23
"""Stored bytes of one piece of a pass over all patterns: memory stays bounded whatever the scan."""
IN_MEMORY_BYTES = 2**28
"""specs/data.md, Frames: patterns up to this size, as float32, are held in memory."""


class Stream(Protocol):
    """Stored patterns (M, H, W) of a real type, in native byte order once read."""

    @property
    def shape(self) -> tuple[int, int, int]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def blocks(self, count: int) -> Iterator[NDArray[Any]]:
        """All patterns in order, at most `count` at a time, new arrays. A check sum, if there is one, is verified."""
        ...

    def close(self) -> None:
        """Give back the file, if one is open; the next reading opens it again."""
        ...


class FrameSource(Stream, Protocol):
    """A stream that can be read anywhere, from any thread."""

    def read(self, index: NDArray[np.int64]) -> NDArray[Any]:
        """The patterns at `index` (each in 0 … M − 1, any order, repeated or not), a new array (k, H, W)."""
        ...


class ArraySource:
    """Patterns in memory (M, H, W)."""

    def __init__(self, patterns: NDArray[Any]) -> None:
        self.patterns = patterns

    @property
    def shape(self) -> tuple[int, int, int]:
        count, height, width = self.patterns.shape
        return count, height, width

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.patterns.dtype.newbyteorder("="))

    def read(self, index: NDArray[np.int64]) -> NDArray[Any]:
        return np.asarray(self.patterns[index], self.dtype)

    def blocks(self, count: int) -> Iterator[NDArray[Any]]:
        for start in range(0, len(self.patterns), count):
            yield self.patterns[start : start + count].astype(self.dtype)

    def close(self) -> None:
        pass


def frames_of_a_block(source: FrameSource | Stream) -> int:
    """How many patterns hold about `BLOCK_BYTES`."""
    height, width = source.shape[1:]
    return max(1, BLOCK_BYTES // max(1, height * width * source.dtype.itemsize))


def fits_in_memory(shape: tuple[int, ...]) -> bool:
    """Whether amplitudes (M, N, N) are held in memory (specs/data.md, Frames)."""
    return math.prod(shape) * 4 <= IN_MEMORY_BYTES
