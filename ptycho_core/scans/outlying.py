"""Patterns and positions that stand apart from the rest of a scan (specs/data.md, Findings)."""

from __future__ import annotations

import numpy as np
import scipy  # its submodules load on first use
from numpy.typing import NDArray

DARK, HOT = 0.05, 5.0  # specs/data.md, Findings: of the median intensity of a pattern
NOISE = 6.0  # standard deviations of Poisson counts by which a dark or hot pattern differs at least
FAR_EXTENTS, FAR_STEPS = 10.0, 10.0  # specs/data.md, Findings
MOST_STRAY = 0.1  # a larger part of a scan is no stray one


def empty_frames(intensity: NDArray[np.float64], *, counts: bool) -> NDArray[np.int64]:
    """Which patterns hold next to nothing. intensity: (M,), Σ A² of each; counts: in photons."""
    usual = _usual(intensity)
    dark = intensity < DARK * usual
    if counts:  # of a few photons none may come by chance
        dark &= usual - intensity > NOISE * np.sqrt(usual)
    return np.flatnonzero(dark)


def hot_frames(intensity: NDArray[np.float64], *, counts: bool) -> NDArray[np.int64]:
    """Which patterns hold far more than the others."""
    usual = _usual(intensity)
    hot = intensity > HOT * usual
    if counts:
        hot &= intensity - usual > NOISE * np.sqrt(usual)
    return np.flatnonzero(hot)


def _usual(intensity: NDArray[np.float64]) -> float:
    """The median of the patterns that hold anything."""
    lit = intensity[intensity > 0]
    return float(np.median(lit)) if len(lit) else 0.0


def stray_frames(positions_px: NDArray[np.float64], N: int) -> NDArray[np.int64]:
    """Which positions lie far away from the others: (M, 2) px, patterns of N pixels.

    Far is more than ten times the middle half of the positions, at least ten patterns, from their median; or ten
    times as far from its nearest neighbour as is usual, where it overlaps with none. None where more than a tenth are.
    """
    count = len(positions_px)
    if count < 5:
        return np.zeros(0, np.int64)
    low, middle, high = np.percentile(positions_px, (25, 50, 75), axis=0)
    reach = FAR_EXTENTS * max(float((high - low).max()), N)
    far = (np.abs(positions_px - middle) > reach).any(axis=1)
    step = steps_px(positions_px)
    far |= (step > FAR_STEPS * np.median(step)) & (step > N)
    return np.flatnonzero(far) if far.sum() <= MOST_STRAY * count else np.zeros(0, np.int64)


def steps_px(positions_px: NDArray[np.float64]) -> NDArray[np.float64]:
    """(M,), the distance of each position to the nearest other one; none where there is one alone."""
    if len(positions_px) < 2:
        return np.zeros(0)
    distance, _ = scipy.spatial.cKDTree(positions_px).query(positions_px, k=2)
    return np.asarray(distance[:, 1])
