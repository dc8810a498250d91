"""What the learned prior sees of a canvas, and how it was in the canvases that it learned from (specs/prior.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs
import numpy as np
import scipy  # its submodules load on first use
from numpy.typing import NDArray

from ptycho_core.errors import DataError

# specs/prior.md, Input
LIT, OF = 0.2, 0.05  # of the median light of the pixels that have so much of the largest
LEAST_LIGHT = 1e-3  # of the largest
LARGEST_NOISE = 3.0
SMOOTH_PX = 3.0
NOISE_FLOOR, NOISE_SHIFT = 1e-4, 1.5
CHANNELS = 3


@attrs.frozen(eq=False)
class View:
    """A canvas as the network sees it.

    maps: float32 (H, W, 3). lit: bool (H, W), where enough light fell; elsewhere the maps show a clear object. mean:
    complex, of the canvas where it is lit, by which it is divided.
    """

    maps: NDArray[np.float32]
    lit: NDArray[np.bool_]
    mean: complex

    def facts(self) -> dict[str, float]:
        """Numbers by which canvases are compared with those that were learned from, over lit pixels."""
        real, imaginary, noise = (self.maps[..., channel][self.lit].astype(np.float64) for channel in range(CHANNELS))
        return {
            "noise": float(np.median(noise)),
            "real": float(np.log10(np.sqrt(np.square(real).mean()) + NOISE_FLOOR)),
            "imaginary": float(np.log10(np.sqrt(np.square(imaginary).mean()) + NOISE_FLOOR)),
        }


def view_of(canvas: NDArray[np.complex64], counts: NDArray[np.float64]) -> View:
    """canvas: complex (H, W). counts: (H, W), Σ|P|² placed at every position, in photons.

    Raises DataError where no light fell, and where the canvas has no mean to be divided by.
    """
    lit = lit_pixels(counts)
    mean = complex(canvas[lit].mean(dtype=np.complex128)) if lit.any() else 0j
    if not np.isfinite(mean) or mean == 0:
        received = "no lit pixel" if not lit.any() else f"a mean of {mean}"
        remedy = "Solve without a learned prior (--prior none)."
        raise DataError("prior", "canvas", expected="lit pixels of a finite mean", received=received, remedy=remedy)
    flat = np.where(lit, canvas / mean, 1)
    noise = np.minimum(1 / np.sqrt(2 * np.maximum(counts, LEAST_LIGHT * counts.max())), LARGEST_NOISE)
    noise = np.log10(noise / abs(mean) + NOISE_FLOOR) + NOISE_SHIFT
    return View(np.stack([flat.real - 1, flat.imag, noise], axis=-1).astype(np.float32), lit, mean)


def lit_pixels(counts: NDArray[np.floating]) -> NDArray[np.bool_]:
    """bool (H, W), where the prior may change an object."""
    bright = counts[counts > OF * counts.max()]
    return np.asarray(counts > LIT * np.median(bright)) if len(bright) else np.zeros(counts.shape, bool)


def smoothed(field: NDArray[np.complexfloating], counts: NDArray[np.floating]) -> NDArray[np.complex64]:
    """A Gaussian mean of `SMOOTH_PX` over the field (H, W), each pixel weighted by its light."""
    light = np.maximum(counts, LEAST_LIGHT * counts.max()).astype(np.float32)
    real, imaginary, weight = (
        scipy.ndimage.gaussian_filter(part, SMOOTH_PX, truncate=3)
        for part in (field.real * light, field.imag * light, light)
    )
    return np.asarray((real + 1j * imaginary) / weight, np.complex64)


SLACK, LEAST_SLACK = 0.1, 0.3  # specs/prior.md, Range: of the range, on both sides; a factor of two
Range = Mapping[str, tuple[float, float]]
"""Least and largest of each of `View.facts` among the canvases that were learned from."""


def range_of(facts: Iterable[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    rows: Sequence[Mapping[str, float]] = list(facts)
    return {name: (min(row[name] for row in rows), max(row[name] for row in rows)) for name in rows[0]}


def outside(facts: Mapping[str, float], seen: Range) -> str | None:
    """What of a canvas lies outside of what was seen, in words; None where nothing does."""
    for name, (low, high) in seen.items():
        slack = max(SLACK * (high - low), LEAST_SLACK)
        if not low - slack <= facts[name] <= high + slack:
            return f"{WORDS[name]} of {facts[name]:.3g}, where {low:.3g} to {high:.3g} was learned from"
    return None


WORDS = {
    "noise": "a logarithm of the noise",
    "real": "a logarithm of the contrast (real part)",
    "imaginary": "a logarithm of the contrast (imaginary part)",
}
