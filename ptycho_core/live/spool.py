"""Every frame and every position that has come, on disk, once: what a live reconstruction goes on from.

Three files are appended to: `frames.bin` (amplitudes, float32, one pattern after another), `frames.idx` (int64, the
number of each, written after it) and `positions.bin` (int64 number, float64 x, float64 y). A part of a record that a
killed process left at the end is cut off (specs/live.md, State).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.storage.files import make_folder

FRAMES, NUMBERS, POSITIONS = "frames.bin", "frames.idx", "positions.bin"
PLACE = np.dtype([("number", "<i8"), ("x", "<f8"), ("y", "<f8")])
SAME_PX = 1e-3  # specs/live.md, Frames


class Spool:
    """Frames and positions by number. `duplicates`: that came again; `conflicts`: positions that came otherwise."""

    def __init__(self, folder: Path, N: int) -> None:
        self.folder, self.N = make_folder(folder), N
        self.row_of: dict[int, int] = {}
        self.place_of: dict[int, tuple[float, float]] = {}
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
        for row, number in enumerate(np.fromfile(numbers, "<i8").tolist()):
            self.row_of[number] = row
        for number, x, y in np.fromfile(positions, PLACE).tolist():
            self.place_of[number] = (x, y)
        self._files = [path.open("ab", buffering=0) for path in (frames, numbers, positions)]

    def close(self) -> None:
        for file in self._files:
            file.close()

    def __len__(self) -> int:
        """Frames that have come, with a position or without."""
        return len(self.row_of)

    def add_frames(self, numbers: NDArray[np.int64], amplitude: NDArray[np.float32]) -> list[int]:
        """Keep those that are new; their numbers. Raises DataError where the disk is full."""
        new: dict[int, int] = {}
        for index, number in enumerate(numbers.tolist()):
            if number not in self.row_of and number not in new:
                new[number] = index
        self.duplicates += len(numbers) - len(new)
        if new:
            first = len(self.row_of)
            chosen = np.ascontiguousarray(amplitude[list(new.values())], "<f4")
            self._append(0, chosen)
            self._append(1, np.array(list(new), "<i8"))
            self.row_of.update({number: first + row for row, number in enumerate(new)})
        return list(new)

    def add_positions(self, numbers: NDArray[np.int64], positions_px: NDArray[np.float64]) -> list[int]:
        """Keep the first position of each number; the numbers of those that are new."""
        new: dict[int, tuple[float, float]] = {}
        for number, (x, y) in zip(numbers.tolist(), positions_px.tolist(), strict=True):
            known = self.place_of.get(number) or new.get(number)
            if known is None:
                new[number] = (x, y)
            elif max(abs(known[0] - x), abs(known[1] - y)) > SAME_PX:
                self.conflicts += 1
        if new:
            rows = np.array([(number, x, y) for number, (x, y) in new.items()], PLACE)
            self._append(2, rows)
            self.place_of.update(new)
        return list(new)

    def positions_of(self, numbers: NDArray[np.int64] | list[int]) -> NDArray[np.float64]:
        return np.array([self.place_of[int(number)] for number in numbers], np.float64).reshape(-1, 2)

    def amplitude_of(self, numbers: NDArray[np.int64] | list[int]) -> NDArray[np.float32]:
        """(k, N, N), read from the disk."""
        rows = [self.row_of[int(number)] for number in numbers]
        return np.asarray(self.amplitude[rows], np.float32)

    @property
    def amplitude(self) -> NDArray[np.float32]:
        """(rows, N, N), mapped."""
        return np.memmap(self.folder / FRAMES, "<f4", "r", shape=(len(self.row_of), self.N, self.N))

    def paired(self) -> NDArray[np.int64]:
        """Numbers that have a frame and a position, in order."""
        return np.array(sorted(self.row_of.keys() & self.place_of.keys()), np.int64)

    def _append(self, file: int, array: NDArray[np.generic]) -> None:
        try:
            view = memoryview(array.tobytes())
            while view:
                view = view[self._files[file].write(view) or 0 :]
        except OSError as error:
            remedy = "Free some space, then run the same command again: it goes on."
            place = self.folder / (FRAMES, NUMBERS, POSITIONS)[file]
            raise DataError(place, expected="a record written whole", received=error.strerror, remedy=remedy) from error
