"""What a reconstruction is held against, and where it lies on the reconstruction's grid (specs/physics.md, Metrics)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import attrs
import numpy as np
import scipy  # its submodules load on first use: this module imports fast
from numpy.typing import NDArray

from ptycho_core.errors import DataError, ending
from ptycho_core.quality.alignment import GRADIENT_STEP_PX, template_match
from ptycho_core.quality.area import bounding_box
from ptycho_core.quality.metrics import Image, Mask
from ptycho_core.storage.npz import read_npz

CLEAR = 8.0  # specs/physics.md, Metrics: standard deviations by which a found place stands out
PLACES = 4
"""Places of a small area that are compared, where none stands out."""
MOST_SEARCHED = 2**25
"""Pixels of the largest grid that is searched: about 3 GiB on the way."""


class Imaged(Protocol):
    """A reconstruction, as far as it is compared: complex64 (H, W), its pixel [0, 0] at the coordinate origin_px.

    known: bool (H, W), where it was lit; None where nobody said so.
    """

    @property
    def object_field(self) -> NDArray[np.complex64]: ...
    @property
    def origin_px(self) -> tuple[float, float]: ...
    @property
    def positions_px(self) -> NDArray[np.float64]: ...
    @property
    def probe(self) -> NDArray[np.complex64]: ...
    @property
    def known(self) -> Mask | None: ...


@attrs.frozen(eq=False, kw_only=True)
class Truth:
    """A known object.

    object_field: complex64 (H, W). origin_px: (x, y) of its pixel [0, 0]. source: where it is from. known: bool (H, W),
    where it can be trusted; None is everywhere.
    """

    object_field: NDArray[np.complex64]
    origin_px: tuple[float, float] = (0.0, 0.0)
    source: str = "truth"
    known: Mask | None = None

    def __repr__(self) -> str:
        height, width = self.object_field.shape
        return f"Truth({height} x {width} pixels, origin_px={self.origin_px}, source={ending(self.source, 60)!r})"


def load_truth(path: str | os.PathLike[str]) -> Truth:
    """The object in an NPZ file: `objectGuess` of a scan, or `object` with `origin_px` of a reconstruction.

    A folder stands for the `reconstruction.npz` in it.
    """
    file = Path(path)
    file = file / "reconstruction.npz" if file.is_dir() else file
    arrays = read_npz(file)
    key = next((name for name in ("objectGuess", "object") if name in arrays), None)
    if key is None or arrays[key].ndim != 2:
        received = f"the keys {', '.join(sorted(arrays))}" if key is None else f"shape {arrays[key].shape}"
        remedy = "Give a file with the true object."
        expected = "a complex object (H, W)"
        raise DataError(file, key or "objectGuess", expected=expected, received=received, remedy=remedy)
    origin = arrays["origin_px"] if key == "object" and "origin_px" in arrays else np.zeros(2)
    if origin.shape != (2,) or origin.dtype.kind not in "iuf":
        received, remedy = f"{origin.dtype} of shape {origin.shape}", "Give what `ptycho reconstruct` wrote."
        raise DataError(file, "origin_px", expected="(x, y)", received=received, remedy=remedy)
    if arrays[key].dtype.kind not in "biufc":
        received, remedy = f"dtype {arrays[key].dtype}", "Save complex numbers."
        raise DataError(file, key, expected="a complex object (H, W)", received=received, remedy=remedy)
    known = arrays.get("known") if key == "object" else None
    if known is not None and (known.shape != arrays[key].shape or known.dtype != np.bool_):
        received, remedy = f"{known.dtype} of shape {known.shape}", "It is damaged: reconstruct again."
        expected = f"booleans of shape {arrays[key].shape}"
        raise DataError(file, "known", expected=expected, received=received, remedy=remedy)
    x, y = origin
    return Truth(
        object_field=arrays[key].astype(np.complex64), origin_px=(float(x), float(y)), source=str(file), known=known
    )


def as_truth(truth: Truth | Imaged | NDArray[Any]) -> Truth:
    """An array's pixel [0, 0] is at the coordinate (0, 0); a reconstruction is where it says."""
    if isinstance(truth, Truth):
        return truth
    if isinstance(truth, np.ndarray):
        return Truth(object_field=np.asarray(truth, np.complex64))
    return Truth(object_field=truth.object_field, origin_px=truth.origin_px, source="reconstruction", known=truth.known)


def on_grid(
    truth: Truth, image: Imaged, moved_px: tuple[int, int] = (0, 0)
) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
    """The truth on the image's canvas (H, W), and where it is known. Both grids are whole pixels apart.

    moved_px: (x, y), by which the truth lies further than its origin says.
    """
    height, width = image.object_field.shape
    left, top = (
        round(here - there) - move for here, there, move in zip(image.origin_px, truth.origin_px, moved_px, strict=True)
    )
    field = np.zeros((height, width), np.complex64)
    inside = np.zeros((height, width), bool)
    rows = slice(max(0, -top), max(0, min(height, truth.object_field.shape[0] - top)))
    columns = slice(max(0, -left), max(0, min(width, truth.object_field.shape[1] - left)))
    part = slice(rows.start + top, rows.stop + top), slice(columns.start + left, columns.stop + left)
    cut = truth.object_field[part]
    if cut.size:
        field[rows, columns] = cut
        inside[rows, columns] = True if truth.known is None else truth.known[part]
    return field, inside


@attrs.frozen(kw_only=True)
class Searched:
    """Where a truth may lie: (x, y), whole pixels from where its origin says, best first; none where nothing fits.

    clear: whether the first stands out. reason: why there is nothing to take, as the end of a sentence.
    """

    places: tuple[tuple[int, int], ...] = ()
    clear: bool = False
    reason: str = "a search in the whole of the truth found no place that stands out"


def search(truth: Truth, image: Imaged, area: Mask) -> Searched:
    """Where the truth lies, wherever its origin says.

    area: bool (H, W), the part of the image that is looked for, at every place where half of it or more lies on the
    truth. Compared are the products O(r) O*(r − 2 px) along x and y, in which a phase ramp is only a constant factor.
    The best place is clear where it stands out from the scores of all by `CLEAR` of their standard deviations; of a
    small area none may, and the best `PLACES` are given, further apart than an alignment moves an image.
    """
    (height, width), (rows, columns) = image.object_field.shape, truth.object_field.shape
    shape = height + rows, width + columns
    if shape[0] * shape[1] > MOST_SEARCHED:
        return Searched(reason="the two are too large to be searched")
    score = np.zeros(shape)
    for axis in (0, 1):
        template, valid = _products(image.object_field, area, axis)
        picture, known = _products(truth.object_field, np.ones((rows, columns), bool), axis)
        if not valid.any() or not known.any():
            return Searched()
        picture = np.where(known, picture - picture[known].mean(), 0)
        score += template_match(_padded(picture, shape), _padded(template, shape), _padded(valid, shape))
    share = scipy.fft.irfft2(
        scipy.fft.rfft2(_padded(np.ones((rows, columns)), shape)) * scipy.fft.rfft2(_padded(area, shape) + 0.0).conj(),
        shape,
    )
    score[share < 0.5 * area.sum() - 0.5] = 0
    scores = score[score > 0]
    if not scores.size:
        return Searched()
    clear = bool(score.max() - scores.mean() >= CLEAR * max(scores.std(), np.finfo(np.float64).tiny))
    near = [max(1, (span.stop - span.start) // 4) for span in bounding_box(area)]
    x, y = (round(here - there) for here, there in zip(image.origin_px, truth.origin_px, strict=True))
    places: list[tuple[int, int]] = []
    while len(places) < (1 if clear else PLACES) and score.any():
        found = np.unravel_index(int(np.argmax(score)), shape)
        # Pixel [0, 0] of the image lies on this pixel of the truth; beyond the truth's end is before its start.
        top, left = (
            int(at) - (side if at >= length else 0)
            for at, side, length in zip(found, shape, (rows, columns), strict=True)
        )
        places.append((x - left, y - top))
        around = [
            np.arange(at - reach, at + reach + 1) % side for at, reach, side in zip(found, near, shape, strict=True)
        ]
        score[np.ix_(*around)] = 0
    return Searched(places=tuple(places), clear=clear)


def _products(field: Image, inside: Mask, axis: int) -> tuple[Image, Mask]:
    """O(r) O*(r − step), and where both pixels are inside."""
    step = min(GRADIENT_STEP_PX, field.shape[axis] - 1)
    valid = inside & np.roll(inside, step, axis)
    np.moveaxis(valid, axis, 0)[:step] = False  # those came round the border
    return np.where(valid, field * np.roll(field, step, axis).conj(), 0), valid


def _padded(values: Image, shape: tuple[int, int]) -> Image:
    return np.pad(values, [(0, side - length) for side, length in zip(shape, values.shape, strict=True)])
