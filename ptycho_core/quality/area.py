"""The part of an object canvas that a scan has lit."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from ptycho_core.errors import DataError
from ptycho_core.quality.metrics import Mask

# ---- the area that was measured ------------------------------------------------------------------------------------


def scanned_area(
    positions_px: ArrayLike, N: int, shape: tuple[int, int], origin_px: ArrayLike, *, margin_px: float | None = None
) -> Mask:
    """bool (H, W): the pixels at least `margin_px` inside the convex hull of the patch centres.

    positions_px: (M, 2) [x, y], pixels of the object grid, the patch CENTRES. origin_px: (2,), the [x, y] of pixel
    [0, 0] of the field. margin_px: default N/4, half of a probe that fills half of its N × N patch.
    DataError: fewer than three positions, all on one line, or nothing left of the hull.
    """
    points = np.asarray(positions_px, np.float64)
    margin = N / 4 if margin_px is None else margin_px
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        expected, remedy = "finite positions (M, 2)", "Give one [x, y] per position."
        raise DataError("metrics.scanned_area", "positions_px", expected=expected, received=points.shape, remedy=remedy)
    remedy = "A scan along a line has no area: give the mask yourself."
    if len(points) < 3:
        expected = "three or more positions"
        raise DataError("metrics.scanned_area", "positions_px", expected=expected, received=len(points), remedy=remedy)
    try:
        hull = scipy.spatial.ConvexHull(points)
    except scipy.spatial.QhullError:
        expected, received = "positions that span an area", f"{len(points)} on one line"
        raise DataError(
            "metrics.scanned_area", "positions_px", expected=expected, received=received, remedy=remedy
        ) from None
    x_origin, y_origin = np.asarray(origin_px, np.float64)
    y, x = np.ogrid[: shape[0], : shape[1]]
    inside = np.ones(shape, bool)
    for normal_x, normal_y, offset in hull.equations:  # unit normals: the left side is the distance to an edge
        inside &= normal_x * (x + x_origin) + normal_y * (y + y_origin) + offset <= -margin
    if not inside.any():
        extent = np.ptp(points, axis=0)
        received = f"positions over {extent[0]:.4g} x {extent[1]:.4g} px (x, y) on a field of {shape[1]} x {shape[0]}"
        expected = f"pixels deeper than {margin:g} px in the hull"
        remedy = "Check origin_px, or take a smaller margin_px."
        raise DataError("metrics.scanned_area", "positions_px", expected=expected, received=received, remedy=remedy)
    return inside


def inside_hull(known: Mask, positions_px: ArrayLike, origin_px: ArrayLike) -> Mask:
    """bool (H, W): the known pixels inside the hull of the positions; all of them where the hull has no area."""
    try:
        inside = known & scanned_area(positions_px, 0, (known.shape[0], known.shape[1]), origin_px, margin_px=0)
    except DataError:  # positions on a line, or fewer than three
        return known
    return inside if inside.any() else known


def probe_width_px(probe: NDArray[Any]) -> float:
    """Diameter of the disk as large as the area, holes filled, where Σ|P|² is at least half its peak (FWHM).

    probe: complex (modes, N, N).
    """
    intensity = (np.abs(probe) ** 2).sum(axis=0)
    lit = scipy.ndimage.binary_fill_holes(intensity >= intensity.max() / 2)
    return float(2 * np.sqrt(lit.sum() / np.pi))


def lit_width_px(probe: NDArray[Any], share: float = 0.9) -> float:
    """Diameter of the disk as large as the brightest pixels that hold `share` of Σ|P|²: what a probe lights.

    probe: complex (modes, N, N). Wider than `probe_width_px` where a probe has wings.
    """
    intensity = np.sort((np.abs(probe.astype(np.complex128)) ** 2).sum(axis=0), axis=None)[::-1]
    lit = int(np.searchsorted(np.cumsum(intensity), share * intensity.sum())) + 1
    return float(2 * np.sqrt(lit / np.pi))


def mean_step_px(positions_px: NDArray[np.float64]) -> float | None:
    """Mean distance of a position to the nearest other one; None where there is one alone."""
    if len(positions_px) < 2:
        return None
    distance, _ = scipy.spatial.cKDTree(positions_px).query(positions_px, k=2)
    return float(distance[:, 1].mean())


def bounding_box(inside: Mask) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
