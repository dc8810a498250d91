"""Pixels that are held out, to judge by (specs/solving.md, Held-out pixels)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PATTERNS = 64  # specs/solving.md, Held-out pixels: how many there are, each for a part of the frames


def held_out_patterns(N: int, part: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """bool (PATTERNS, N, N), true = held out: every pixel in `part` of the patterns, as near as whole numbers come.

    So a bright pixel is held out as often as a dark one, whatever the seed: H is far less a matter of luck.
    """
    often = np.floor(PATTERNS * part + rng.random((N, N))).astype(np.uint8)
    first = rng.integers(0, PATTERNS, (N, N), np.uint8)
    stride = 2 * rng.integers(0, PATTERNS // 2, (N, N), np.uint8) + 1  # odd: each place of the cycle comes once
    return np.stack([(first + np.uint8(number) * stride) % PATTERNS < often for number in range(PATTERNS)])
