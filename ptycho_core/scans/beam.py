"""Where the direct beam is in the mean pattern of a scan."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BRIGHT = 0.1
"""Part of the brightest value (that of one pixel in a thousand) from which on a pixel counts for the centroid."""
ROUNDS = 10


def beam_centroid(pattern: NDArray[np.float64], good: NDArray[np.bool_]) -> tuple[float, float]:
    """(row, column) of the centroid of the bright good pixels of a mean pattern (H, W).

    The window about it shrinks to what is symmetric about it, so that a beam beside the middle is not drawn to the
    middle by the edge of the detector.
    """
    values = np.where(good, pattern, 0.0)
    lit = values[good]
    if not lit.any():
        return (pattern.shape[0] - 1) / 2, (pattern.shape[1] - 1) / 2
    bright = np.quantile(lit, 1 - max(1e-3, 4 / len(lit)))
    values = np.where(values >= BRIGHT * bright, np.minimum(values, bright) if bright > 0 else values, 0.0)
    rows, columns = np.arange(pattern.shape[0]), np.arange(pattern.shape[1])
    inside_rows, inside_columns = np.ones(len(rows), bool), np.ones(len(columns), bool)
    row, column = (len(rows) - 1) / 2, (len(columns) - 1) / 2
    for _ in range(ROUNDS):
        part = values * inside_rows[:, None] * inside_columns[None]
        total = part.sum()
        if total == 0:
            break
        row, column = float(rows @ part.sum(axis=1) / total), float(part.sum(axis=0) @ columns / total)
        inside_rows = np.abs(rows - row) <= min(row, len(rows) - 1 - row) + 0.5
        inside_columns = np.abs(columns - column) <= min(column, len(columns) - 1 - column) + 0.5
    return row, column
