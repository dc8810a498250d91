"""Cutting patches out of an object at sub-pixel positions (specs/physics.md, Conventions)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho_core.errors import DataError

CACHED_PATCHES = 8
"""Patches cut at a time: few enough to stay in a processor's cache."""


def extract_patches(
    object_field: NDArray[Any],
    positions_px: ArrayLike,
    N: int,
    origin_px: tuple[float, float] = (0.0, 0.0),
) -> NDArray[np.complex64]:
    """Patches of N × N pixels around each position, bilinear between pixels, complex64 (B, N, N).

    object_field: complex (H, W); outside it the object counts as zero, so a patch across the border fades out within
        its last pixel and a patch beyond it is zero.
    positions_px: (B, 2), [x, y] = [column, row] of each patch centre, object pixels.
    origin_px: [x, y], the coordinate of pixel [0, 0] of `object_field`.

    Pixel [i, j] of the patch at (x, y) is the object at the coordinate (x - N//2 + j, y - N//2 + i). All pixels of one
    patch lie at the same fraction between object pixels, so four weights per patch interpolate it.

    The result takes 8·B·N² bytes; what is needed on the way does not grow with B.

    >>> ramp = np.arange(20.0) + np.zeros((20, 1)) + 0j  # the value of a pixel is its x
    >>> extract_patches(ramp, [[10.0, 10.0], [10.25, 10.0]], N=4)[:, 0].real
    array([[ 8.  ,  9.  , 10.  , 11.  ],
           [ 8.25,  9.25, 10.25, 11.25]], dtype=float32)
    """
    field = np.asarray(object_field, dtype=np.complex64)
    if field.ndim != 2 or field.size == 0:
        expected, received, remedy = "shape (H, W), not empty", f"shape {field.shape}", "Give one 2-D object."
        raise DataError("extract_patches", "object_field", expected=expected, received=received, remedy=remedy)
    positions = np.asarray(positions_px, dtype=np.float64)
    if positions.ndim != 2 or positions.shape[1] != 2:
        received, remedy = f"shape {positions.shape}", "Give one [x, y] row per patch."
        raise DataError("extract_patches", "positions_px", expected="shape (B, 2)", received=received, remedy=remedy)
    if not np.isfinite(positions).all():
        expected, remedy = "finite coordinates", "Drop those positions."
        raise DataError("extract_patches", "positions_px", expected=expected, received="NaN or infinity", remedy=remedy)
    if N < 1:
        remedy = "Give the side of a patch in pixels."
        raise DataError("extract_patches", "N", expected="at least one pixel", received=N, remedy=remedy)

    corners = positions - np.asarray(origin_px, dtype=np.float64) - N // 2
    whole = np.floor(corners)
    fraction = (corners - whole).astype(np.float32)
    patches = np.empty((len(positions), N, N), np.complex64)
    for start in range(0, len(patches), CACHED_PATCHES):
        piece = slice(start, start + CACHED_PATCHES)
        patches[piece] = _between(_windows(field, whole[piece], N + 1), fraction[piece])
    return patches


def _windows(field: NDArray[np.complex64], corners: NDArray[np.float64], side: int) -> NDArray[np.complex64]:
    """Windows of side × side pixels whose first pixels are `corners` [column, row] (B, 2); zero outside the field."""
    height, width = field.shape
    # Further out makes no difference and could overflow.
    first = np.clip(corners, -side, (width, height)).astype(np.intp)
    windows = np.zeros((len(corners), side, side), np.complex64)
    for window, (left, top) in zip(windows, first.tolist(), strict=True):
        rows, columns = slice(max(top, 0), top + side), slice(max(left, 0), left + side)
        part = field[rows, columns] if top + side > 0 and left + side > 0 else field[:0, :0]
        window[rows.start - top : rows.start - top + len(part), columns.start - left :][:, : part.shape[1]] = part
    return windows


def _between(windows: NDArray[np.complex64], fraction: NDArray[np.float32]) -> NDArray[np.complex64]:
    """(B, N + 1, N + 1) → (B, N, N): bilinear at a fraction [x, y] of a pixel in [0, 1).

    The next pixel and the next row are a fixed step away in one row of numbers, which is what numpy is fast at; what
    steps over the end of a row lies in the last column, which is cut off.
    """
    count, side, _ = windows.shape
    flat = windows.view(np.float32).reshape(count, -1)
    for step, share in ((2 * side, fraction[:, 1:]), (2, fraction[:, :1])):
        further = flat[:, step:] * share
        flat *= 1 - share
        flat[:, :-step] += further
    return windows[:, :-1, :-1]
