"""Frames that fit far worse than the others (specs/data.md, Reconstruction)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

DEVIATIONS, LEAST_FACTOR = 5.0, 1.5  # specs/data.md, Reconstruction
RULE = (
    f"above the median by more than {DEVIATIONS:g} robust standard deviations (1.4826 times the median absolute "
    f"deviation) of the logarithm, and by more than a factor of {LEAST_FACTOR:g}"
)
"""In words, for reports."""


def outliers(figures: ArrayLike) -> NDArray[np.int64]:
    """Places of the figures (M,) that are far above the others, by `RULE`, worst first. NaN is no outlier.

    The logarithm, because misfits spread by factors; the median and its deviation, because up to half of the frames may
    be bad.
    """
    values = np.asarray(figures, np.float64)
    known = np.isfinite(values) & (values > 0)
    if not known.any():
        return np.zeros(0, np.int64)
    logarithm = np.log(values, out=np.full(values.shape, -np.inf), where=known)
    middle = np.median(logarithm[known])
    spread = 1.4826 * np.median(np.abs(logarithm[known] - middle))
    far = np.flatnonzero(logarithm > middle + max(DEVIATIONS * spread, np.log(LEAST_FACTOR)))
    return far[np.argsort(-values[far], kind="stable")]
