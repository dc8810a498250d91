"""Stored patterns, read piece by piece: arrays inside files, HDF5 data sets, unpacked copies (specs/data.md, Frames).

Resident memory is why large arrays are read by position and not mapped: every touched page of a mapping, and many
around it, count as the process's own. Mapped, the kernel would also fetch cold frames one after the other; here it is
told all of a batch's frames first.
"""

from __future__ import annotations

import math
import mmap
import os
import shutil
import tempfile
import threading
import weakref
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError, explain
from ptycho_core.frames import Stream, fits_in_memory, frames_of_a_block
from ptycho_core.io.files import DAMAGED_HDF5

MAPPED_BYTES = 2**31  # specs/data.md, Frames: an array up to this size is mapped, a larger one read by position
TURNED_BYTES = 2**27
"""Bytes that are turned at a time where the frames are the last axis of a file."""
CHUNK_CACHE_BYTES = 2**26
"""Unpacked chunks that HDF5 keeps; one at least, so that none is unpacked for every piece of it."""


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
        self._identity = _identity(os.stat(path if descriptor is None else descriptor))
        self._lock = threading.Lock()
        self._file = None if descriptor is None else _Descriptor(descriptor)
        self._rows: NDArray[np.uint8] | None = None
        self._check_size(self._identity[0])

    @property
    def dtype(self) -> np.dtype[Any]:
        return native(self._stored)

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
            raise self._refuse("data that match their check sum", "other data", "It is damaged: write it again.")

    def read_into(self, view: memoryview, position: int) -> None:
        """Bytes of the array from `position` on."""
        file, position = self._descriptor(), self._offset + position
        while len(view):
            try:
                received = file.read_some(view, position)
            except OSError as error:
                remedy = "Check the disk, or copy the file to another."
                raise self._refuse("readable data", error.strerror, remedy) from error
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
            raise self._refuse("a readable file", error.strerror, "Put it back, or load the scan again.") from error
        if _identity(os.fstat(file.number)) != self._identity:
            raise self._refuse("the file as it was when the scan was loaded", "another one", "Load the scan again.")
        return file

    def _native(self, patterns: NDArray[Any]) -> NDArray[Any]:
        return patterns if self._stored.isnative else patterns.astype(self.dtype)

    def _check_size(self, size: int) -> None:
        if size < self._offset + self.nbytes:
            expected, received = f"at least {self._offset + self.nbytes} bytes", f"{size} bytes"
            raise self._refuse(expected, received, "It is truncated: copy it again, and do not change a file in use.")

    def _refuse(self, expected: object, received: object, remedy: str) -> DataError:
        return DataError(explain(self.path, self.key, expected=expected, received=received, remedy=remedy))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_rows": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())


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
        return DataError(explain(self.name, self.key, expected=expected, received=received, remedy=remedy))

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


class HDF5Frames:
    """A data set (M, H, W), or (1, …, M, H, W), of an HDF5 file, opened read-only when it is first read.

    Chunks are read once for a batch, in their order in the file; a data set that is stored contiguously is read as
    `StoredFrames` are: see `hdf5_frames`.
    """

    def __init__(self, path: str | os.PathLike[str], dataset: str) -> None:
        self.path, self.dataset = Path(path), dataset
        self._lock = threading.RLock()
        self._file: Any = None
        self._data: Any = None
        self._identity = _identity(self._facts())
        data = self._open()
        self.shape = as_frames(path, dataset, data.shape)
        self._lead = (0,) * (data.ndim - 3)
        self._stored = data.dtype
        self._chunk = 1 if data.chunks is None else data.chunks[-3]

    @property
    def dtype(self) -> np.dtype[Any]:
        return native(self._stored)

    def read(self, index: NDArray[np.int64]) -> NDArray[Any]:
        patterns = np.empty((len(index), *self.shape[1:]), self.dtype)
        if not len(index):
            return patterns
        order = np.argsort(index, kind="stable")
        ordered = index[order]
        limit = max(1, 2**23 // max(1, patterns[:1].nbytes))  # frames of one reading, where chunks are long
        pieces = np.flatnonzero(np.diff(ordered // min(self._chunk, limit), prepend=-1)).tolist()
        for start, stop in zip(pieces, [*pieces[1:], len(index)], strict=True):
            chosen = ordered[start:stop]
            block = self._slice(int(chosen[0]), int(chosen[-1]) + 1)
            patterns[order[start:stop]] = block[chosen - chosen[0]]
        return patterns

    def blocks(self, count: int) -> Iterator[NDArray[Any]]:
        count = max(count // self._chunk, 1) * self._chunk if self._chunk < 4 * count else count
        for start in range(0, self.shape[0], count):
            yield self._slice(start, min(start + count, self.shape[0]))

    def close(self) -> None:
        with self._lock:
            self._data = None
            if self._file is not None:
                self._file.close()
            self._file = None

    def _slice(self, start: int, stop: int) -> NDArray[Any]:
        with self._lock:
            data = self._open()
            try:
                block = data[(*self._lead, slice(start, stop))]
            except DAMAGED_HDF5 as error:
                remedy = "It is damaged, still being written, or packed by a filter that is not installed."
                raise self._refuse("readable data", str(error) or type(error).__name__, remedy) from error
        return np.asarray(block, self.dtype)

    def _open(self) -> Any:
        """The data set, kept open: with it go the chunks that HDF5 has unpacked."""
        with self._lock:
            if self._data is None:
                if _identity(self._facts()) != self._identity:
                    expected, remedy = "the file as it was when the scan was loaded", "Load the scan again."
                    raise self._refuse(expected, "another one", remedy)
                self._data = self._opened()
            return self._data

    def _facts(self) -> os.stat_result:
        try:
            return os.stat(self.path)
        except OSError as error:
            raise self._refuse("a readable HDF5 file", error, "Put it back, or load the scan again.") from error

    def _opened(self) -> Any:
        import h5py

        cache = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
        try:
            self._file = h5py.File(self.path, "r")
            data = self._file.get(self.dataset)
            known = isinstance(data, h5py.Dataset) and data.dtype.kind in "biuf"
            if known and data.chunks is not None:
                size = max(CHUNK_CACHE_BYTES, math.prod(data.chunks) * data.dtype.itemsize)
                cache.set_chunk_cache(10_007, size, 0.75)  # a prime number of slots
                del data  # or HDF5 goes on with the cache that it has
                data = h5py.Dataset(h5py.h5d.open(self._file.id, self.dataset.encode(), cache))
        except DAMAGED_HDF5 as error:
            received, remedy = str(error) or type(error).__name__, "Put it back, or load the scan again."
            raise self._refuse("a readable HDF5 file", received, remedy) from error
        if not known:
            received = "no such data set" if data is None else f"{data!r}"
            raise self._refuse("a data set of real numbers", received, "Name the data set of the patterns.")
        return data

    def _refuse(self, expected: object, received: object, remedy: str) -> DataError:
        return DataError(explain(self.path, self.dataset, expected=expected, received=received, remedy=remedy))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_data": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock())

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            self._file.close()


class JoinedFrames:
    """Sources of equal patterns one after the other: scans that a detector wrote to several files."""

    def __init__(self, sources: Sequence[Any]) -> None:
        self.sources = tuple(sources)
        shapes = {source.shape[1:] for source in self.sources}
        if len(shapes) != 1:
            expected, remedy = "files with patterns of one size", "Leave out the files that differ."
            raise DataError(explain("frames", None, expected=expected, received=sorted(shapes), remedy=remedy))
        self._ends = np.cumsum([source.shape[0] for source in self.sources])
        self.shape = (int(self._ends[-1]), *next(iter(shapes)))

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


def hdf5_frames(path: str | os.PathLike[str], dataset: str) -> StoredFrames | HDF5Frames:
    """The patterns (M, H, W) of an HDF5 data set, by the fastest way in which it can be read."""
    frames = HDF5Frames(path, dataset)
    data = frames._open()
    # Without chunks, filters, external files or virtual parts it lies in one piece, at a known place.
    offset = data.id.get_offset()
    plain = data.chunks is None and not data.external and not data.is_virtual and offset is not None
    inside = os.path.realpath(data.file.filename) == os.path.realpath(path)  # not behind a link to another file
    if not (plain and inside and frames.dtype.kind in "iuf" and frames.dtype.itemsize <= 8):
        return frames
    stored = data.dtype
    frames.close()
    return StoredFrames(path, offset, frames.shape, stored, key=dataset)


def as_frames(path: str | os.PathLike[str], key: str | None, shape: Sequence[int]) -> tuple[int, int, int]:
    """(M, H, W) of an array that may have further axes of length 1 in front."""
    if len(shape) < 3 or any(length != 1 for length in shape[:-3]):
        remedy = "Name the data set of the patterns, one (H, W) pattern a frame."
        raise DataError(explain(path, key, expected="shape (M, H, W)", received=f"shape {tuple(shape)}", remedy=remedy))
    count, height, width = (int(length) for length in shape[-3:])
    return count, height, width


def native(dtype: Any) -> np.dtype[Any]:
    """The type in the byte order of this machine."""
    return np.dtype(dtype).newbyteorder("=")  # type: ignore[no-any-return]  # differs between numpy's stubs


def as_bytes(array: NDArray[Any]) -> memoryview:
    """The bytes of a contiguous array, to be read into or written."""
    return array.reshape(-1).view(np.uint8).data


def _identity(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_size, facts.st_mtime_ns
