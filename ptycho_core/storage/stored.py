"""Stored patterns, read piece by piece: arrays inside files, HDF5 data sets, unpacked copies (specs/data.md, Frames).

Resident memory is why large arrays are read by position and not mapped: every touched page of a mapping, and many
around it, count as the process's own. Mapped, the kernel would also fetch cold frames one after the other; here it is
told all of a batch's frames first.
"""

from __future__ import annotations

import mmap
import os
import threading
import weakref
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError

MAPPED_BYTES = 2**31  # specs/data.md, Frames: an array up to this size is mapped, a larger one read by position


class _Descriptor:
    """An open file by its number; closed with the last reference to it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.lock = threading.Lock()
        weakref.finalize(self, os.close, number)

    def read_some(self, view: memoryview, position: int) -> int:
        if hasattr(os, "preadv"):
            return int(os.preadv(self.number, (view,), position))
        with self.lock:
            os.lseek(self.number, position, os.SEEK_SET)
            received = os.read(self.number, len(view))
        view[: len(received)] = received
        return len(received)


class StoredFrames:
    """A C-ordered array (M, H, W) of plain numbers inside a file, from byte `offset` on.

    The file is opened when it is first read and must stay as it was: one that shrank or could not be read is a
    DataError, and so is another file in its place when it has to be opened again (after `close` or unpickling).
    crc: zlib.crc32 of the bytes `crc_start` … end of the array, which `blocks` verifies. descriptor: an open file that
    is read in place of `path`, which then is only named; it is closed with these frames.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        offset: int,
        shape: Sequence[int],
        dtype: Any,
        *,
        key: str | None = None,
        crc: int | None = None,
        crc_start: int = 0,
        descriptor: int | None = None,
    ) -> None:
        self.path, self.key = Path(path), key
        self.shape = as_frames(path, key, shape)
        self._offset = offset
        self._stored: np.dtype[Any] = np.dtype(dtype)
        self._frame_bytes = self.shape[1] * self.shape[2] * self._stored.itemsize
        self.nbytes = self.shape[0] * self._frame_bytes
        self._crc, self._crc_start = crc, crc_start
        self.identity = identity(os.stat(path if descriptor is None else descriptor))
        self._lock = threading.Lock()
        self._file = None if descriptor is None else _Descriptor(descriptor)
        self._rows: NDArray[np.uint8] | None = None
        self._check_size(self.identity[0])

    @property
    def dtype(self) -> np.dtype[Any]:
        return native(self._stored)

    @property
    def whole_in_parts(self) -> bool:
        """Whether reading all patterns in parts checks what `blocks` does: there is no check sum."""
        return self._crc is None

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        """As in the file, byte order included."""
        return self._stored

    def read(self, index: NDArray[np.int64]) -> NDArray[Any]:
        patterns = np.empty((len(index), *self.shape[1:]), self._stored)
        if patterns.size == 0:
            return self._native(patterns)
        if self.nbytes <= MAPPED_BYTES:
            target = patterns.reshape(len(index), -1).view(np.uint8)
            self._mapped().take(index, axis=0, out=target, mode="clip")
        else:
            self._read_by_position(index, as_bytes(patterns))
        return self._native(patterns)

    def blocks(self, count: int) -> Iterator[NDArray[Any]]:
        crc = None
        if self._crc is not None:
            header = bytearray(self._offset - self._crc_start)
            self.read_into(memoryview(header), self._crc_start - self._offset)
            crc = zlib.crc32(header)
        for start in range(0, self.shape[0], count):
            patterns = np.empty((min(count, self.shape[0] - start), *self.shape[1:]), self._stored)
            view = as_bytes(patterns)
            self.read_into(view, start * self._frame_bytes)
            crc = None if crc is None else zlib.crc32(view, crc)
            yield self._native(patterns)
        if crc != self._crc:
            expected, remedy = "data that match their check sum", "It is damaged: copy it again."
            raise DataError(self.path, self.key, expected=expected, received="other data", remedy=remedy)

    def read_into(self, view: memoryview, position: int) -> None:
        """Bytes of the array from `position` on."""
        file, position = self._descriptor(), self._offset + position
        while len(view):
            try:
                received = file.read_some(view, position)
            except OSError as error:
                remedy = "Check the disk, or copy the file to another."
                raise DataError(
                    self.path, self.key, expected="readable data", received=error.strerror, remedy=remedy
                ) from error
            if received == 0:
                self._check_size(position)
            view, position = view[received:], position + received

    def expect(self, positions: Sequence[int], length: int) -> None:
        """Says that `length` bytes at each of these positions are read next, so that they are fetched side by side."""
        if hasattr(os, "posix_fadvise"):
            number = self._descriptor().number
            for position in positions:
                os.posix_fadvise(number, self._offset + position, length, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        with self._lock:
            self._file = self._rows = None

    def _read_by_position(self, index: NDArray[np.int64], view: memoryview) -> None:
        size, done = self._frame_bytes, 0
        # Frames that follow each other in the file are one reading.
        starts = np.flatnonzero(np.diff(index, prepend=index[0] - 2) != 1).tolist()
        self.expect((index * size).tolist(), size)
        for start, stop in zip(starts, [*starts[1:], len(index)], strict=True):
            length = (stop - start) * size
            self.read_into(view[done : done + length], int(index[start]) * size)
            done += length

    def _mapped(self) -> NDArray[np.uint8]:
        """(M, bytes of a frame): bytes, because numbers inside a zip file need not be aligned."""
        file = self._descriptor()
        self._check_size(os.fstat(file.number).st_size)  # a page beyond the end of a file is a crash, not an exception
        with self._lock:
            if self._rows is None:
                mapping = mmap.mmap(file.number, self._offset + self.nbytes, access=mmap.ACCESS_READ)
                rows = np.frombuffer(mapping, np.uint8, self.nbytes, self._offset)
                self._rows = rows.reshape(self.shape[0], self._frame_bytes)
            return self._rows

    def _descriptor(self) -> _Descriptor:
        with self._lock:
            if self._file is None:
                self._file = self._open()
            return self._file

    def _open(self) -> _Descriptor:
        try:
            file = _Descriptor(os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0)))
        except OSError as error:
            expected, remedy = "a readable file", "Put it back, or load the scan again."
            raise DataError(self.path, self.key, expected=expected, received=error.strerror, remedy=remedy) from error
        if identity(os.fstat(file.number)) != self.identity:
            expected, received = "the file as it was when the scan was loaded", "another one"
            raise DataError(self.path, self.key, expected=expected, received=received, remedy="Load the scan again.")
        return file

    def _native(self, patterns: NDArray[Any]) -> NDArray[Any]:
        return patterns if self._stored.isnative else patterns.astype(self.dtype)

    def _check_size(self, size: int) -> None:
        if size < self._offset + self.nbytes:
            expected, received = f"at least {self._offset + self.nbytes} bytes", f"{size} bytes"
            remedy = "It is truncated: copy it again, and do not change a file in use."
            raise DataError(self.path, self.key, expected=expected, received=received, remedy=remedy)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_rows": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())


class JoinedFrames:
    """Sources of equal patterns one after the other: scans that a detector wrote to several files."""

    def __init__(self, sources: Sequence[Any]) -> None:
        self.sources = tuple(sources)
        shapes = {source.shape[1:] for source in self.sources}
        if len(shapes) != 1:
            expected, remedy = "files with patterns of one size", "Leave out the files that differ."
            raise DataError("frames", expected=expected, received=sorted(shapes), remedy=remedy)
        self._ends = np.cumsum([source.shape[0] for source in self.sources])
        self.shape = (int(self._ends[-1]), *next(iter(shapes)))
        self.absent: dict[str, NDArray[np.int64]] = {}
        for source, end in zip(self.sources, self._ends, strict=True):
            for reason, frames in getattr(source, "absent", {}).items():
                before = self.absent.get(reason, np.zeros(0, np.int64))
                self.absent[reason] = np.concatenate([before, frames + end - source.shape[0]])

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.result_type(*(source.dtype for source in self.sources))

    def read(self, index: NDArray[np.int64]) -> NDArray[Any]:
        patterns = np.empty((len(index), *self.shape[1:]), self.dtype)
        owners = np.searchsorted(self._ends, index, side="right")
        for owner in np.unique(owners):
            mine = owners == owner
            source = self.sources[owner]
            patterns[mine] = source.read(index[mine] - (self._ends[owner] - source.shape[0]))
        return patterns

    def blocks(self, count: int) -> Iterator[NDArray[Any]]:
        for source in self.sources:
            for block in source.blocks(count):
                yield np.asarray(block, self.dtype)

    def close(self) -> None:
        for source in self.sources:
            source.close()


def as_frames(
    path: str | os.PathLike[str], key: str | None, shape: Sequence[int], *, cube: bool = False
) -> tuple[int, int, int]:
    """(M, H, W) of an array that may have further axes of length 1 in front. cube: it may be (rows, columns, H, W)."""
    if cube and len(shape) == 4:
        rows, columns, height, width = (int(length) for length in shape)
        return rows * columns, height, width
    if len(shape) < 3 or any(length != 1 for length in shape[:-3]):
        remedy = "Name the data set of the patterns, one (H, W) pattern per frame."
        raise DataError(path, key, expected="shape (M, H, W)", received=f"shape {tuple(shape)}", remedy=remedy)
    count, height, width = (int(length) for length in shape[-3:])
    return count, height, width


def native(dtype: Any) -> np.dtype[Any]:
    """The type in the byte order of this machine."""
    return np.dtype(dtype).newbyteorder("=")  # type: ignore[no-any-return]  # differs between numpy's stubs


def as_bytes(array: NDArray[Any]) -> memoryview:
    """The bytes of a contiguous array, to be read into or written."""
    return array.reshape(-1).view(np.uint8).data


def identity(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_size, facts.st_mtime_ns
