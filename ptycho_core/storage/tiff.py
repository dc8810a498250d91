"""Patterns in TIFF files, by tifffile: the pages of one file, or of a series (specs/data.md, Mapped files)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError, MissingExtraError
from ptycho_core.storage.stored import native

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
SMALLEST_DIRECTORY = 18
"""Bytes of the directory of a page: its length, one entry, and where the next is."""
LARGEST_PAGE = 2**28
"""Bytes of one unpacked pattern."""


def is_tiff(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) in SIGNATURES
    except OSError:
        return False


class TiffFrames:
    """The pages (H, W) of files of one size and type, in the order of the files. Each is unpacked when it is read."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._pages: list[tuple[Path, int]] = []
        kinds: dict[tuple[tuple[int, ...], np.dtype[Any]], Path] = {}
        for path in paths:
            with _opened(path) as file:
                pages = list(_each(path, file))
                if not pages:
                    remedy = "It is truncated or damaged: copy it again."
                    raise DataError(path, expected="a TIFF file with pages", received="none", remedy=remedy)
                for page in pages:
                    kinds.setdefault((tuple(page.shape), native(page.dtype)), path)
                self._pages += [(path, number) for number in range(len(pages))]
        (shape, self.dtype), *others = kinds
        if others:
            where = kinds[others[0]]
            received = f"{others[0][1]} of shape {others[0][0]}"
            remedy = "Leave out the files that differ."
            raise DataError(
                where, expected=f"pages as before, {self.dtype} of {shape}", received=received, remedy=remedy
            )
        if len(shape) != 2 or self.dtype.kind not in "biuf":
            remedy = "Save one pattern of counts for each page, without colours."
            received = f"{self.dtype} of shape {shape}"
            raise DataError(paths[0], expected="pages (H, W) of real numbers", received=received, remedy=remedy)
        if shape[0] * shape[1] * self.dtype.itemsize > LARGEST_PAGE:
            expected, remedy = f"at most {LARGEST_PAGE // 2**20} MiB a page", "It is damaged, or no pattern."
            raise DataError(paths[0], expected=expected, received=f"shape {shape}", remedy=remedy)
        self.shape: tuple[int, int, int] = (len(self._pages), shape[0], shape[1])

    def read(self, index: NDArray[np.int64]) -> NDArray[Any]:
        patterns = np.empty((len(index), *self.shape[1:]), self.dtype)
        wanted: dict[Path, list[int]] = {}
        for place, number in enumerate(index):
            wanted.setdefault(self._pages[number][0], []).append(place)
        for path, places in wanted.items():
            with _opened(path) as file:
                for place in places:
                    patterns[place] = self._page(path, file, self._pages[index[place]][1])
        return patterns

    def blocks(self, count: int) -> Iterator[NDArray[Any]]:
        for start in range(0, len(self._pages), count):
            yield self.read(np.arange(start, min(start + count, len(self._pages))))

    def close(self) -> None:
        """Nothing stays open."""

    def _page(self, path: Path, file: Any, number: int) -> NDArray[Any]:
        try:
            page = file.pages[number]
            if sum(page.databytecounts) > path.stat().st_size:
                raise ValueError(f"page {number} claims more bytes than the file has")
            values = page.asarray()
        except Exception as error:  # tifffile and what unpacks for it raise whatever they meet in a damaged file
            raise _unreadable(path, error) from error
        if values.shape != self.shape[1:]:
            remedy = "Load the scan again."
            raise DataError(path, expected=f"a page of {self.shape[1:]}", received=values.shape, remedy=remedy)
        return np.asarray(values, self.dtype)


def _opened(path: Path) -> Any:
    try:
        import tifffile
    except ModuleNotFoundError as error:
        if error.name != "tifffile":
            raise
        raise MissingExtraError.of(f"{path}: a TIFF file", "tifffile", "tiff", setting="dataset") from error
    try:
        return tifffile.TiffFile(path)
    except Exception as error:
        raise _unreadable(path, error) from error


def _each(path: Path, file: Any) -> Iterator[Any]:
    most = path.stat().st_size // SMALLEST_DIRECTORY
    try:
        for number, page in enumerate(file.pages):
            if number >= most:
                raise ValueError("more pages than it can hold: their directories lead in circles")
            yield page
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: BaseException) -> DataError:
    received = " ".join(str(error).split())[:200] or type(error).__name__
    remedy = "Install imagecodecs." if "imagecodecs" in received else "It is truncated or damaged: copy it again."
    return DataError(path, expected="a readable TIFF file", received=received, remedy=remedy)
