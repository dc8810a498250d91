"""How positions and intensities of frames are corrected between the steps of an engine (specs/solving.md, Positions).

An engine says how far a frame's patch of the object should move, in pixels, to explain its pattern; what is made of
that is decided here, in float64, the same for every engine.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

LARGEST_STEP_PX = 0.5  # specs/solving.md, Positions
LARGEST_MOVE = 2.5  # in units of the largest error that is searched for
FIRST_SWEEP, FIRST_SWEEP_UNKNOWN_PROBE = 3, 5
SEARCH = ((1 / 4, 1.0), (3 / 8, 1.0), (1 / 2, 0.5), (5 / 8, 0.25))
"""After which part of the sweeps positions are searched for, and how far in units of the largest error."""
DIRECTIONS = 8
KEPT_INTENSITY = 0.7  # specs/solving.md, Intensities: of the running mean


def stepped(positions_px: NDArray[np.float64], shift_px: NDArray[np.floating]) -> NDArray[np.float64]:
    """Positions (B, 2) after the step `shift_px` (B, 2) that the patterns ask for, within a limit."""
    step = np.asarray(shift_px, np.float64)
    return positions_px + _within(np.where(np.isfinite(step), step, 0.0), LARGEST_STEP_PX)


def confined(
    positions_px: NDArray[np.float64], begun_px: NDArray[np.float64], limit_px: float, *, centred: bool = True
) -> NDArray[np.float64]:
    """Positions (M, 2) whose moves from `begun_px` are at most `limit_px` long, and where `centred` have no mean.

    The patterns do not tell where the whole scan lies, so the mean of the moves is nothing that they ask for.
    """
    moves = positions_px - begun_px
    return np.asarray(begun_px + _within(moves - moves.mean(axis=0) if centred else moves, limit_px))


def reach_px(largest_px: float) -> float:
    """How far a position may move in all, and in the middle of a sweep."""
    return LARGEST_MOVE * largest_px + LARGEST_STEP_PX


def searches(sweeps: int, largest_px: float) -> dict[int, float]:
    """Sweep, from 1, after which each frame is tried on a circle → its radius in pixels."""
    return {max(1, round(part * sweeps)): share * largest_px for part, share in SEARCH if sweeps >= len(SEARCH)}


def circle(radius_px: float) -> NDArray[np.float64]:
    """(1 + DIRECTIONS, 2): no move, and moves [x, y] to a circle."""
    angles = np.arange(DIRECTIONS) * (2 * math.pi / DIRECTIONS)
    return np.concatenate([np.zeros((1, 2)), radius_px * np.stack([np.cos(angles), np.sin(angles)], axis=1)])


def averaged(intensity: NDArray[np.float64], ratio: NDArray[np.floating]) -> NDArray[np.float64]:
    """Running mean of the intensities (B,) of frames with what fits best: the `ratio` times what they have."""
    known = np.where(np.isfinite(ratio) & (ratio > 0), ratio, 1.0)
    return np.asarray(intensity * (KEPT_INTENSITY + (1 - KEPT_INTENSITY) * known))


def _within(moves: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    length = np.linalg.norm(moves, axis=1, keepdims=True)
    return np.asarray(moves * np.minimum(1.0, limit / np.maximum(length, np.finfo(np.float64).tiny)))
