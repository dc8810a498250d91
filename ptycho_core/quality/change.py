"""What a prior changed of an object, in units of the error that is predicted there (specs/data.md, Reconstruction)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptycho_core.quality.metrics import Mask

MANY = 3.0
"""Predicted errors."""


def change_by_prior(
    object_field: NDArray[np.complex64],
    without: NDArray[np.complex64],
    predicted_error: NDArray[np.floating],
    known: Mask,
) -> NDArray[np.float32]:
    """float32 (H, W): |O - f · O'| over the predicted error, NaN where not known.

    O' is the object without the prior, f the complex factor that brings it nearest: one factor is no change.
    """
    old, new = without[known].astype(np.complex128), object_field[known].astype(np.complex128)
    power = float(np.square(np.abs(old)).sum())
    factor = np.vdot(old, new) / power if power else 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.abs(object_field - factor * without) / predicted_error
    return np.where(known & np.isfinite(change), change, np.nan).astype(np.float32)


def change_in_words(change: NDArray[np.float32]) -> dict[str, float | None]:
    """Median and 95th percentile, and the part of the known pixels that changed by more than three errors."""
    known = change[np.isfinite(change)]
    if not len(known):
        return {"median": None, "percentile_95": None, "above_3": None}
    median, most = np.percentile(known, (50, 95))
    return {"median": float(median), "percentile_95": float(most), "above_3": float((known > MANY).mean())}
