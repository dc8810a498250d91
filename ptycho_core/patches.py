"""Cutting patches out of an object at sub-pixel positions (specs/physics.md, Conventions)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho_core.errors import DataError, explain


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
    patch lie at the same fraction between object pixels, so four weights a patch interpolate it.

    The result takes 8·B·N² bytes and about three times as much on the way: cut many positions in pieces.
    """
    field = np.asarray(object_field, dtype=np.complex64)
    if field.ndim != 2 or field.size == 0:
        raise _refusal("object_field", "shape (H, W), not empty", f"shape {field.shape}", "Give one 2-D object.")
    positions = np.asarray(positions_px, dtype=np.float64)
    if positions.ndim != 2 or positions.shape[1] != 2:
        raise _refusal("positions_px", "shape (B, 2)", f"shape {positions.shape}", "Give one [x, y] row a patch.")
    if not np.isfinite(positions).all():
        raise _refusal("positions_px", "finite coordinates", "NaN or infinity", "Drop those positions.")
    if N < 1:
        raise _refusal("N", "at least one pixel", N, "Give the side of a patch in pixels.")

    corners = positions - np.asarray(origin_px, dtype=np.float64) - N // 2
    whole = np.floor(corners)
    right, down = (corners - whole).astype(np.float32).T[:, :, None, None]  # weights of the next column and row

    window = _gather(field, whole, N + 1)
    upper_and_lower = window[:, :-1] * (1 - down) + window[:, 1:] * down
    patches: NDArray[np.complex64] = upper_and_lower[:, :, :-1] * (1 - right) + upper_and_lower[:, :, 1:] * right
    return patches


def _gather(field: NDArray[np.complex64], corners: NDArray[np.float64], side: int) -> NDArray[np.complex64]:
    """Windows of side × side pixels whose first pixels are `corners` [column, row] (B, 2); zero outside the field."""
    (columns, column_inside), (rows, row_inside) = (
        _indices(corner, side, size) for corner, size in zip(corners.T, field.shape[::-1], strict=True)
    )
    window: NDArray[np.complex64] = field[rows[:, :, None], columns[:, None, :]]
    if not (row_inside.all() and column_inside.all()):
        window *= row_inside[:, :, None] & column_inside[:, None, :]
    return window


def _indices(first: NDArray[np.float64], side: int, size: int) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """`side` indices from each `first` on, kept within an axis of `size`, and which of them were inside; (B, side)."""
    start = np.clip(first, -side, size).astype(np.intp)  # further out makes no difference and could overflow
    index = start[:, None] + np.arange(side)
    return np.clip(index, 0, size - 1), (index >= 0) & (index < size)


def _refusal(key: str, expected: object, received: object, remedy: str) -> DataError:
    return DataError(explain("extract_patches", key, expected=expected, received=received, remedy=remedy))
