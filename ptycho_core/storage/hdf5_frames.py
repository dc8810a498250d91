"""Frames in an HDF5 file."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.storage.files import DAMAGED_HDF5
from ptycho_core.storage.hdf5_opening import opened
from ptycho_core.storage.stored import StoredFrames, as_frames, identity, native

CHUNK_CACHE_BYTES = 2**26
"""Unpacked chunks that HDF5 keeps; one at least, so that none is unpacked for every piece of it."""


class HDF5Frames:
    """A data set (M, H, W), or (1, …, M, H, W), of an HDF5 file, opened read-only when it is first read.

    Chunks are read once for a batch, in their order in the file; a data set that is stored contiguously is read as
    `StoredFrames` are: see `hdf5_frames`.
    """

    def __init__(self, path: str | os.PathLike[str], dataset: str, *, cube: bool = False) -> None:
        self.path, self.dataset = Path(path), dataset
        self._lock = threading.RLock()
        self._file: Any = None
        self._data: Any = None
        self.identity = identity(self._facts())
        data = self._open()
        self.shape = as_frames(path, dataset, data.shape, cube=cube)
        self._lead = (0,) * (data.ndim - 3)
        self.raster = (int(data.shape[0]), int(data.shape[1])) if cube and data.ndim == 4 else None
        self._stored = data.dtype
        self._chunk = 1 if data.chunks is None else data.chunks[-3]
        self.absent = absent_frames(data, self.shape) if self.raster is None else absent_places(data, self.raster)

    @property
    def dtype(self) -> np.dtype[Any]:
        return native(self._stored)

    whole_in_parts = True

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
                block = data[(*self._lead, slice(start, stop))] if self.raster is None else self._places(start, stop)
            except DAMAGED_HDF5 as error:
                remedy = "It is damaged, still being written, or packed by a filter that is not installed."
                expected, received = "readable data", str(error) or type(error).__name__
                raise DataError(self.path, self.dataset, expected=expected, received=received, remedy=remedy) from error
        return np.asarray(block, self.dtype)

    def _places(self, start: int, stop: int) -> NDArray[Any]:
        """Places start … stop − 1 of a cube, counted row after row."""
        assert self.raster is not None
        columns, parts = self.raster[1], []
        while start < stop:
            row, column = divmod(start, columns)
            end = min(columns, column + stop - start)
            parts.append(self._data[row, column:end])
            start += end - column
        return np.concatenate(parts) if parts else np.empty((0, *self.shape[1:]), self._stored)

    def _open(self) -> Any:
        """The data set, kept open: with it go the chunks that HDF5 has unpacked."""
        with self._lock:
            if self._data is None:
                if identity(self._facts()) != self.identity:
                    expected, remedy = "the file as it was when the scan was loaded", "Load the scan again."
                    raise DataError(self.path, self.dataset, expected=expected, received="another one", remedy=remedy)
                self._data = self._opened()
            return self._data

    def _facts(self) -> os.stat_result:
        try:
            return os.stat(self.path)
        except OSError as error:
            expected, remedy = "a readable HDF5 file", "Put it back, or load the scan again."
            raise DataError(self.path, self.dataset, expected=expected, received=error, remedy=remedy) from error

    def _opened(self) -> Any:
        import h5py

        cache = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
        try:
            self._file = opened(self.path)
            data = self._file.get(self.dataset)
            known = isinstance(data, h5py.Dataset) and data.dtype.kind in "biuf"
            if known and data.chunks is not None:
                size = max(CHUNK_CACHE_BYTES, math.prod(data.chunks) * data.dtype.itemsize)
                cache.set_chunk_cache(10_007, size, 0.75)  # a prime number of slots
                del data  # or HDF5 goes on with the cache that it has
                data = h5py.Dataset(h5py.h5d.open(self._file.id, self.dataset.encode(), cache))
        except DAMAGED_HDF5 as error:
            received, remedy = str(error) or type(error).__name__, "Put it back, or load the scan again."
            raise DataError(
                self.path, self.dataset, expected="a readable HDF5 file", received=received, remedy=remedy
            ) from error
        if not known:
            received = "no such data set" if data is None else f"{data!r}"
            expected, remedy = "a data set of real numbers", "Name the data set of the patterns."
            raise DataError(self.path, self.dataset, expected=expected, received=received, remedy=remedy)
        return data

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_data": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock())

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            self._file.close()


def absent_frames(data: Any, shape: tuple[int, int, int]) -> dict[str, NDArray[np.int64]]:
    """By reason, the frames (M, H, W) of which HDF5 gives the fill value, because their data are not there."""
    if data.is_virtual:
        return _absent_parts(data, shape)
    if data.chunks is None:
        empty = data.id.get_storage_size() == 0 and not data.external and math.prod(shape) > 0
        return {"never written": np.arange(shape[0])} if empty else {}
    counts = [-(-length // chunk) for length, chunk in zip(data.shape, data.chunks, strict=True)]
    written = data.id.get_num_chunks()
    if written >= math.prod(counts):
        return {}
    of_frame = math.prod(counts) // counts[-3]
    seen = np.zeros(counts[-3], np.int64)
    for number in range(written):
        seen[data.id.get_chunk_info(number).chunk_offset[-3] // data.chunks[-3]] += 1
    frames = np.repeat(seen < of_frame, data.chunks[-3])[: shape[0]]
    return {"never written": np.flatnonzero(frames)} if frames.any() else {}


def absent_places(data: Any, raster: tuple[int, int]) -> dict[str, NDArray[np.int64]]:
    """As `absent_frames`, of a cube (rows, columns, H, W): by its places."""
    if data.is_virtual:
        return {}
    if data.chunks is None:
        return absent_frames(data, (raster[0] * raster[1], data.shape[2], data.shape[3]))
    written, seen = data.id.get_num_chunks(), np.zeros(raster, np.int64)
    counts = [-(-length // chunk) for length, chunk in zip(data.shape, data.chunks, strict=True)]
    if written >= math.prod(counts):
        return {}
    for number in range(written):
        row, column = data.id.get_chunk_info(number).chunk_offset[:2]
        seen[row : row + data.chunks[0], column : column + data.chunks[1]] += 1
    return {"never written": np.flatnonzero(seen.ravel() < counts[2] * counts[3])}


def _absent_parts(data: Any, shape: tuple[int, int, int]) -> dict[str, NDArray[np.int64]]:
    """Of a virtual data set: parts whose file is not there, and frames that no part has."""
    folder, covered = Path(data.file.filename).parent, np.zeros(shape[0], bool)
    absent: dict[str, NDArray[np.int64]] = {}
    lead = data.ndim - 3
    for part in data.virtual_sources():
        low, high = part.vspace.get_select_bounds()
        frames = np.arange(low[lead], min(high[lead] + 1, shape[0]))
        covered[frames] = True
        plain = part.file_name.replace("\\", "/")
        beside = folder / (plain.rsplit("/", 1)[-1] if plain.startswith("/") else plain)
        if part.file_name != "." and not Path(plain).is_file() and not beside.is_file():
            reason = f"{part.file_name} is not there"
            absent[reason] = np.union1d(absent.get(reason, np.zeros(0, np.int64)), frames)
    if not covered.all():
        absent["in no part of the virtual data set"] = np.flatnonzero(~covered)
    return absent


def hdf5_frames(path: str | os.PathLike[str], dataset: str, *, cube: bool = False) -> StoredFrames | HDF5Frames:
    """The patterns (M, H, W) of an HDF5 data set, by the fastest way in which it can be read.

    cube: (rows, columns, H, W) is taken, too, row after row.
    """
    frames = HDF5Frames(path, dataset, cube=cube)
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
