"""Scan positions: float64 (M, 2), [x, y] = [column, row] of each patch centre, pixels of the object grid."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho_core.errors import ConfigurationError, DataError
from ptycho_core.simulation.files import kind_named, unknown_kind

Positions = NDArray[np.float64]
MARGIN_PX = 1  # of object around every patch, for the interpolation between pixels


def raster(count: int, step_px: float, rng: np.random.Generator, *, jitter: float = 0.25) -> Positions:
    """Rows of a square grid, as nearly square as `count` allows, each position moved by up to jitter · step_px.

    The jitter keeps the reconstruction free of the grid's own period (Thibault et al., Ultramicroscopy 109, 338, 2009).
    """
    columns = int(np.ceil(np.sqrt(count)))
    y, x = np.divmod(np.arange(count), columns)
    return np.stack([x, y], axis=-1) * step_px + rng.uniform(-jitter, jitter, (count, 2)) * step_px


def fermat(count: int, step_px: float, rng: np.random.Generator) -> Positions:
    """Fermat spiral with the golden angle, one position per step_px² of area, turned by a random angle.

    r = step_px · sqrt(n / π), θ = n · π(3 - √5) (Huang et al., Opt. Express 22, 12634, 2014), with n from 1/2 on: that
    keeps the innermost positions as far apart as the others.
    """
    n = np.arange(count) + 0.5
    radius = step_px * np.sqrt(n / np.pi)
    angle = n * np.pi * (3 - np.sqrt(5)) + rng.uniform(0, 2 * np.pi)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)


def uniform(count: int, step_px: float, rng: np.random.Generator) -> Positions:
    """Independent positions, uniform over a square of side step_px · sqrt(count)."""
    return rng.uniform(0, step_px * np.sqrt(count), (count, 2))


SCAN_KINDS: dict[str, Callable[[int, float, np.random.Generator], Positions]] = {
    "raster": raster,
    "fermat": fermat,
    "random": uniform,
}


def make_positions(kind: str, count: int, step_px: float, rng: np.random.Generator, *, N: int) -> Positions:
    """Positions of a scan, float64 (count, 2), [x, y] in object pixels.

    kind: a name in SCAN_KINDS. step_px: mean distance of neighbours; there is one position per step_px² of area.
    The least x and the least y are N/2 + 1, so every patch of N × N pixels lies in an object of `object_shape`.
    """
    place = kind_named(kind, SCAN_KINDS)
    if place is None:
        raise unknown_kind("scan", kind, SCAN_KINDS)
    if count < 1:
        raise ConfigurationError(
            "simulation", "positions", expected="a whole number >= 1", received=count, remedy="Ask for more positions."
        )
    if not 0 < step_px < np.inf:
        remedy = "Give a distance in object pixels; N/8 is usual."
        raise ConfigurationError("simulation", "step_px", expected="a number > 0", received=step_px, remedy=remedy)
    positions = place(count, step_px, rng)
    positions += N // 2 + MARGIN_PX - positions.min(axis=0)
    return positions


def object_shape(positions_px: ArrayLike, N: int) -> tuple[int, int]:
    """(H, W) of the least object that holds every patch and a margin of one pixel; pixel [0, 0] is at (0, 0)."""
    positions = np.asarray(positions_px, dtype=np.float64)
    if positions.ndim != 2 or positions.shape[1] != 2 or len(positions) == 0 or not np.isfinite(positions).all():
        received = f"shape {positions.shape}" if np.isfinite(positions).all() else "NaN or infinity"
        remedy = "Give one [x, y] row per pattern."
        raise DataError("simulation", "positions", expected="finite (M, 2)", received=received, remedy=remedy)
    lowest = positions.min(axis=0)
    if (lowest < N // 2).any():
        missing = np.maximum(np.ceil(N // 2 + MARGIN_PX - lowest), 0)
        remedy = f"Add [{missing[0]:g}, {missing[1]:g}] to every [x, y]; the object's pixel [0, 0] is at (0, 0)."
        raise DataError(
            "simulation", "positions", expected=f">= N/2 = {N // 2}", received=lowest.tolist(), remedy=remedy
        )
    width, height = np.ceil(positions.max(axis=0)).astype(int) + N // 2 + MARGIN_PX
    return int(height), int(width)
