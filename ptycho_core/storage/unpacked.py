"""Frames that are unpacked once, and frames whose index comes last."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.storage.source import Stream, fits_in_memory, frames_of_a_block
from ptycho_core.storage.stored import StoredFrames, as_bytes

TURNED_BYTES = 2**27
"""Bytes that are turned at a time where the frames are the last axis of a file."""


class UnpackedFrames:
    """A stream unpacked once into a temporary file, which is gone with the last reference, whatever ends the process.

    Unpacked by the first pass in order (`blocks`), or before the first reading. The folder is that of `tempfile`
    (environment variable TMPDIR). Pickled, it is the stream alone: where it arrives, it is unpacked again.
    """

    def __init__(self, stream: Stream, *, name: str | os.PathLike[str], key: str | None = None) -> None:
        self.stream, self.name, self.key = stream, os.fspath(name), key
        self._lock = threading.Lock()
        self._copy: StoredFrames | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.stream.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.stream.dtype

    @property
    def _size(self) -> int:
        return self.shape[0] * self.shape[1] * self.shape[2] * self.dtype.itemsize

    def read(self, index: NDArray[np.int64]) -> NDArray[Any]:
        return self._unpacked().read(index)

    def read_into(self, view: memoryview, position: int) -> None:
        """Bytes of the array from `position` on."""
        self._unpacked().read_into(view, position)

    def expect(self, positions: Sequence[int], length: int) -> None:
        """As `StoredFrames.expect`."""
        self._unpacked().expect(positions, length)

    def blocks(self, count: int) -> Iterator[NDArray[Any]]:
        copy = self._copy
        if copy is not None:
            return copy.blocks(count)
        # A few patterns are about to be held in memory: no need for a file.
        return self.stream.blocks(count) if fits_in_memory(self.shape) else self._unpack(count)

    def close(self) -> None:
        """The temporary file goes, too."""
        self._copy = None
        self.stream.close()

    def _unpacked(self) -> StoredFrames:
        with self._lock:
            if self._copy is None:
                for _ in self._unpack(frames_of_a_block(self)):
                    pass
                assert self._copy is not None
            return self._copy

    def _unpack(self, count: int) -> Iterator[NDArray[Any]]:
        folder = tempfile.gettempdir()
        size = self._size
        free = shutil.disk_usage(folder).free
        if free < size:
            raise self._no_space(folder, size, f"{free / 2**30:.3g} GiB")
        with tempfile.TemporaryFile(prefix="ptycho-") as file:  # has no name from the start on, where the system can
            for block in self.stream.blocks(count):
                try:
                    file.write(as_bytes(np.ascontiguousarray(block)))
                except OSError as error:
                    raise self._no_space(folder, size, error.strerror) from error
                yield block
            file.flush()
            copy = os.dup(file.fileno())
            self._copy = StoredFrames(self.name, 0, self.shape, self.dtype, key=self.key, descriptor=copy)
        self.stream.close()

    def _no_space(self, folder: str, size: int, received: object) -> DataError:
        remedy = "Free some space, name another folder in TMPDIR, or store the patterns uncompressed, frames first."
        expected = f"{size / 2**30:.3g} GiB to unpack the patterns in {folder}"
        return DataError(self.name, self.key, expected=expected, received=received, remedy=remedy)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_copy": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())


class FramesLast:
    """The stream of an array whose last axis in the file counts the frames: (H, W, M), or (W, H, M) where `turned`.

    stored: those bytes, as a StoredFrames or UnpackedFrames of any shape. Frames are gathered `TURNED_BYTES` at a time.
    """

    def __init__(
        self, stored: StoredFrames | UnpackedFrames, shape: tuple[int, int, int], *, turned: bool = False
    ) -> None:
        self.stored, self.turned = stored, turned
        first, second, count = shape
        self.shape = (count, second, first) if turned else (count, first, second)
        self._pixels = first, second

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.stored.dtype

    def blocks(self, count: int) -> Iterator[NDArray[Any]]:
        dtype = self.stored.stored_dtype if isinstance(self.stored, StoredFrames) else self.stored.dtype
        frames, pixels = self.shape[0], self._pixels[0] * self._pixels[1]
        at_once = max(1, TURNED_BYTES // (pixels * dtype.itemsize))
        for start in range(0, frames, at_once):
            wide = min(at_once, frames - start)
            columns = np.empty((pixels, wide), dtype)
            positions = [(pixel * frames + start) * dtype.itemsize for pixel in range(pixels)]
            self.stored.expect(positions, wide * dtype.itemsize)
            for pixel, position in enumerate(positions):
                self.stored.read_into(as_bytes(columns[pixel]), position)
            for first in range(0, wide, count):
                part = columns[:, first : first + count].T.reshape(-1, *self._pixels)
                yield np.ascontiguousarray(part.swapaxes(1, 2) if self.turned else part, self.dtype)

    def close(self) -> None:
        self.stored.close()
