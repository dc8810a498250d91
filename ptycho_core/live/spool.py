"""Every frame and every position that has come, on disk, once: what a live reconstruction goes on from.

Three files are appended to: `frames.bin` (amplitudes, float32, one pattern after another), `frames.idx` (int64, the
number of each, written after it) and `positions.bin` (int64 number, float64 x, float64 y). A part of a record that a
killed process left at the end is cut off (specs/live.md, State).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.storage.files import make_folder

FRAMES, NUMBERS, POSITIONS = "frames.bin", "frames.idx", "positions.bin"
PLACE = np.dtype([("number", "<i8"), ("x", "<f8"), ("y", "<f8")])
SAME_PX = 1e-3  # specs/live.md, Frames
MERGED = 4096
"""Numbers that are looked up one by one until they are sorted in among the others."""


class Grown:
    """An array that is appended to. width: numbers in a row; 0 for an array of one axis."""

    def __init__(self, dtype: str, width: int = 0) -> None:
        self._array = np.empty((MERGED, width) if width else MERGED, dtype)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def extend(self, rows: NDArray[Any]) -> None:
        count = self._count + len(rows)
        if count > len(self._array):
            larger = np.empty((max(count, len(self._array) * 3 // 2), *self._array.shape[1:]), self._array.dtype)
            larger[: self._count] = self.rows
            self._array = larger
        self._array[self._count : count] = rows
        self._count = count

    @property
    def rows(self) -> NDArray[Any]:
        """What is there now, to be read; it stays as it is when more comes."""
        rows = self._array[: self._count]
        rows.flags.writeable = False
        return rows


class Numbers:
    """Which row the frame of each number has, whatever the numbers are; 16 bytes a number.

    >>> known = Numbers()
    >>> known.add(np.array([7, 2**40]))
    >>> known.rows_of(np.array([2**40, 8, 7])).tolist()
    [1, -1, 0]
    """

    def __init__(self) -> None:
        self._sorted, self._rows = np.empty(0, np.int64), np.empty(0, np.int64)
        self._latest: dict[int, int] = {}
        self.next = 0
        """The number after the highest."""

    def __len__(self) -> int:
        return len(self._sorted) + len(self._latest)

    def add(self, numbers: NDArray[np.int64]) -> None:
        """Numbers that are not there yet get the rows that follow."""
        if not len(numbers):
            return
        self._latest.update(zip(numbers.tolist(), range(len(self), len(self) + len(numbers)), strict=True))
        self.next = max(self.next, int(numbers.max()) + 1)
        if len(self._latest) >= max(MERGED, len(self._sorted) // 16):
            self._merge()

    def _merge(self) -> None:
        latest = np.array(list(self._latest.items()), np.int64).reshape(-1, 2)
        latest = latest[np.argsort(latest[:, 0])]
        places = np.searchsorted(self._sorted, latest[:, 0])
        self._sorted = np.insert(self._sorted, places, latest[:, 0])
        self._rows = np.insert(self._rows, places, latest[:, 1])
        self._latest = {}

    def rows_of(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row of each; -1 where there is none."""
        rows = np.array([self._latest.get(number, -1) for number in numbers.tolist()], np.int64)
        if len(self._sorted):
            places = np.minimum(np.searchsorted(self._sorted, numbers), len(self._sorted) - 1)
            rows = np.where(self._sorted[places] == numbers, self._rows[places], rows)
        return rows

    def all(self) -> NDArray[np.int64]:
        """In order."""
        self._merge()
        return self._sorted


class Spool:
    """Frames and positions by number. `duplicates`: that came again; `conflicts`: positions that came otherwise."""

    def __init__(self, folder: Path, N: int) -> None:
        self.folder, self.N = make_folder(folder), N
        self._frames, self._places = Numbers(), Numbers()
        self._positions = Grown("<f8", 2)
        self.duplicates = self.conflicts = 0
        self._files: list[IO[bytes]] = []
        self._open()

    def _open(self) -> None:
        frames, numbers, positions = (self.folder / name for name in (FRAMES, NUMBERS, POSITIONS))
        for path in (frames, numbers, positions):
            path.touch()
        size = 4 * self.N**2
        rows = min(frames.stat().st_size // size, numbers.stat().st_size // 8)
        places = positions.stat().st_size // PLACE.itemsize
        for path, whole in ((frames, rows * size), (numbers, rows * 8), (positions, places * PLACE.itemsize)):
            os.truncate(path, whole)
        self._frames.add(np.fromfile(numbers, "<i8"))
        known = np.fromfile(positions, PLACE)
        self._places.add(known["number"])
        self._positions.extend(np.stack([known["x"], known["y"]], axis=1))
        self._files = [path.open("ab", buffering=0) for path in (frames, numbers, positions)]

    def close(self) -> None:
        for file in self._files:
            file.close()

    def __len__(self) -> int:
        """Frames that have come, with a position or without."""
        return len(self._frames)

    @property
    def next_number(self) -> int:
        """After the highest one of a frame that has come."""
        return self._frames.next

    def has_frames(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        return self._frames.rows_of(numbers) >= 0

    def has_positions(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        return self._places.rows_of(numbers) >= 0

    def add_frames(self, numbers: NDArray[np.int64], amplitude: NDArray[np.float32]) -> NDArray[np.int64]:
        """Keep those that are new; their numbers. Raises DataError where the disk is full."""
        first = _first_of_each(numbers)
        chosen = first[~self.has_frames(numbers[first])]
        new = numbers[chosen]
        self.duplicates += len(numbers) - len(new)
        if len(new):
            self._append(0, np.ascontiguousarray(amplitude[chosen], "<f4"))
            self._append(1, new.astype("<i8"))
            self._frames.add(new)
        return new

    def add_positions(self, numbers: NDArray[np.int64], positions_px: NDArray[np.float64]) -> NDArray[np.int64]:
        """Keep the first position of each number; the numbers of those that are new."""
        first = _first_of_each(numbers)
        chosen = first[~self.has_positions(numbers[first])]
        new = numbers[chosen]
        if len(new):
            rows = np.empty(len(new), PLACE)
            rows["number"], (rows["x"], rows["y"]) = new, positions_px[chosen].T
            self._append(2, rows)
            self._places.add(new)
            self._positions.extend(positions_px[chosen])
        if len(new) < len(numbers):
            other = np.abs(self.positions_of(numbers) - positions_px).max(axis=1) > SAME_PX
            self.conflicts += int(other.sum())
        return new

    def positions_of(self, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        """(k, 2), of numbers that have one."""
        return np.asarray(self._positions.rows[self._places.rows_of(numbers)])

    def rows_of(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where in the file the frames of these numbers are, which have come."""
        return self._frames.rows_of(numbers)

    def amplitude_of(self, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """(k, N, N), read from the disk."""
        return np.asarray(self.amplitude[self.rows_of(numbers)], np.float32)

    @property
    def amplitude(self) -> NDArray[np.float32]:
        """(rows, N, N), mapped."""
        return np.memmap(self.folder / FRAMES, "<f4", "r", shape=(len(self), self.N, self.N))

    def paired(self) -> NDArray[np.int64]:
        """Numbers that have a frame and a position, in order."""
        return np.intersect1d(self._frames.all(), self._places.all(), assume_unique=True)

    def _append(self, file: int, array: NDArray[np.generic]) -> None:
        try:
            view = memoryview(array.tobytes())
            while view:
                view = view[self._files[file].write(view) or 0 :]
        except OSError as error:
            remedy = "Free some space, then run the same command again: it goes on."
            place = self.folder / (FRAMES, NUMBERS, POSITIONS)[file]
            raise DataError(place, expected="a record written whole", received=error.strerror, remedy=remedy) from error


def _first_of_each(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each number stands first, in the order in which they came."""
    return np.sort(np.unique(numbers, return_index=True)[1])
