"""Steps from stored patterns to patterns of the scan: blank, crop, pad, bin, roll, orient."""

from __future__ import annotations

from typing import Any, Protocol

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError


class Step(Protocol):
    """One step from stored values to the patterns of a scan; pixels that it adds hold 0."""

    def shape(self, height: int, width: int) -> tuple[int, int]: ...

    def apply(self, values: NDArray[Any]) -> NDArray[Any]:
        """(k, height, width) to the new shape; `values` may be changed or be part of the result."""
        ...

    def mask(self, bad: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which pixels are bad afterwards, true = bad."""
        ...


@attrs.frozen(eq=False)
class Blank:
    """Pixels marked in `bad` (H, W) become 0, whatever a detector writes there, and are bad from here on.

    kept: those values stay that a scan may have, which are finite and not negative.
    """

    bad: NDArray[np.bool_]
    kept: bool = False

    def shape(self, height: int, width: int) -> tuple[int, int]:
        if self.bad.shape != (height, width):
            remedy = "Give a mask of the size that the patterns have at this step."
            expected, received = f"shape ({height}, {width})", f"shape {self.bad.shape}"
            raise DataError("frames", "bad pixels", expected=expected, received=received, remedy=remedy)
        return height, width

    def apply(self, values: NDArray[Any]) -> NDArray[Any]:
        if self.kept:
            marked = values[:, self.bad]
            values[:, self.bad] = np.where(np.isfinite(marked) & (marked >= 0), marked, 0)
        else:
            values[:, self.bad] = 0
        return values

    def mask(self, bad: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return bad | self.bad


@attrs.frozen(eq=False)
class Level:
    """A background taken off, and nothing left below 0. background: one number, or (H, W) as the patterns."""

    background: NDArray[np.float64] | float = 0.0

    def shape(self, height: int, width: int) -> tuple[int, int]:
        received = np.shape(self.background)
        if received not in ((), (height, width)):
            expected, remedy = f"shape ({height}, {width})", "Give a background of the stored patterns."
            raise DataError("frames", "background", expected=expected, received=f"shape {received}", remedy=remedy)
        return height, width

    def apply(self, values: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(np.maximum(np.subtract(values, self.background, dtype=np.float64), 0), np.float32)

    def mask(self, bad: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return bad


@attrs.frozen
class Window:
    """`height` × `width` pixels from [top, left] on: a crop, a pad or both. Pixels outside are 0 and bad."""

    top: int
    left: int
    height: int
    width: int

    def shape(self, height: int, width: int) -> tuple[int, int]:
        rows, columns = self._inside(height, width)
        if rows[0] >= rows[1] or columns[0] >= columns[1]:
            received = f"[{self.top}, {self.left}] and {self.height} x {self.width} pixels"
            expected, remedy = f"a window on {height} x {width} pixels", "Move or enlarge the window."
            raise DataError("frames", "crop", expected=expected, received=received, remedy=remedy)
        return self.height, self.width

    def apply(self, values: NDArray[Any]) -> NDArray[Any]:
        return self._cut(values, 0)

    def mask(self, bad: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.asarray(self._cut(bad[None], True)[0])

    def _cut(self, values: NDArray[Any], outside: object) -> NDArray[Any]:
        (top, bottom), (left, right) = self._inside(*values.shape[1:])
        part = values[:, top:bottom, left:right]
        if part.shape[1:] == (self.height, self.width):
            return part
        whole = np.full((len(values), self.height, self.width), outside, values.dtype)
        whole[:, top - self.top : bottom - self.top, left - self.left : right - self.left] = part
        return whole

    def _inside(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        return (
            (max(0, self.top), min(height, self.top + self.height)),
            (max(0, self.left), min(width, self.left + self.width)),
        )


@attrs.frozen
class Bin:
    """Counts of `factor` × `factor` pixels added; a bin with a bad pixel is bad."""

    factor: int

    def shape(self, height: int, width: int) -> tuple[int, int]:
        if self.factor < 1 or height % self.factor or width % self.factor:
            expected = f"a factor that divides {height} x {width} pixels"
            remedy = "Crop the patterns first, or choose another factor."
            raise DataError("frames", "bin", expected=expected, received=self.factor, remedy=remedy)
        return height // self.factor, width // self.factor

    def apply(self, values: NDArray[Any]) -> NDArray[Any]:
        """Adds values: amplitudes have been squared before."""
        whole = values.dtype.kind in "iub"  # whose sums stay exact
        return np.asarray(self._bins(values).sum(axis=(2, 4), dtype=np.float64 if whole else np.float32))

    def mask(self, bad: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.asarray(self._bins(bad[None])[0].any(axis=(1, 3)), np.bool_)

    def _bins(self, values: NDArray[Any]) -> NDArray[Any]:
        count, height, width = values.shape
        return values.reshape(count, height // self.factor, self.factor, width // self.factor, self.factor)


@attrs.frozen
class Roll:
    """Moved down by `rows` and right by `columns`; what leaves on one side enters on the other."""

    rows: int
    columns: int

    def shape(self, height: int, width: int) -> tuple[int, int]:
        return height, width

    def apply(self, values: NDArray[Any]) -> NDArray[Any]:
        return np.roll(values, (self.rows, self.columns), axis=(1, 2))

    def mask(self, bad: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.roll(bad, (self.rows, self.columns), axis=(0, 1))


@attrs.frozen
class Orient:
    """Rows and columns exchanged, then rows reversed, then columns reversed: the eight orientations of a detector."""

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    def shape(self, height: int, width: int) -> tuple[int, int]:
        return (width, height) if self.transpose else (height, width)

    def apply(self, values: NDArray[Any]) -> NDArray[Any]:
        values = values.swapaxes(1, 2) if self.transpose else values
        return values[:, :: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]

    def mask(self, bad: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.asarray(self.apply(bad[None])[0])


def fftshift(shape: tuple[int, ...]) -> Roll:
    """Moves DC from the corner [0, 0] to [H // 2, W // 2]. shape: (…, H, W)."""
    return Roll(shape[-2] // 2, shape[-1] // 2)


def centred(shape: tuple[int, ...], N: int, centre: tuple[int, int] | None = None) -> Window:
    """N × N pixels with pixel `centre` [row, column], by default [H // 2, W // 2], at [N // 2, N // 2]."""
    row, column = (shape[-2] // 2, shape[-1] // 2) if centre is None else centre
    return Window(row - N // 2, column - N // 2, N, N)
