"""Fourier ring correlation of two images, and the resolution that it gives."""

from __future__ import annotations

import math

import attrs
import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from ptycho_core.quality.area import bounding_box
from ptycho_core.quality.metrics import Field, Mask, check_pair, is_flat

FRC_MINIMUM_PX = 8


# ---- Fourier ring correlation --------------------------------------------------------------------------------------


@attrs.frozen(eq=False, kw_only=True)
class FRC:
    """Fourier ring correlation.

    frequency: float64 (R,), cycles/pixel, the centres of rings that are 1/side wide; DC is left out.
    correlation: float64 (R,), −1 to 1; all NaN when it has no meaning.
    crossing_half: cycles/pixel where the curve first falls below 0.5; 0.5 (Nyquist) if it never does, 0 if it starts
        there, NaN if the curve has no meaning; `reason` explains these three.
    """

    frequency: NDArray[np.float64]
    correlation: NDArray[np.float64]
    crossing_half: float
    reason: str | None = None


def frc(a: ArrayLike, b: ArrayLike, mask: ArrayLike | None = None, *, taper: float = 0.125) -> FRC:
    """Re Σ F_a F_b* / √(Σ|F_a|² Σ|F_b|²) on rings of spatial frequency.

    Source: Saxton & Baumeister, J. Microsc. 127, 127 (1982).
    a, b: (H, W) real or complex; complex fields must share their global phase. Both are cut to the bounding box of the
    mask, their mean is removed, and a raised cosine fades them out towards the mask's edge, so that neither the border
    nor the shape of the mask correlates (Nieuwenhuizen et al., Nat. Methods 10, 557 (2013)).
    taper: width of that fade as a part of the box's shorter side; 0 for none.
    A flat image, or a box under 8 x 8 pixels, gives NaN and a reason. DataError: shapes differ, values are not finite.
    """
    first, second, inside = check_pair("frc", a, b, mask)
    box = bounding_box(inside)
    first, second, inside = first[box], second[box], inside[box]
    side = min(inside.shape)
    frequency = np.arange(1, side // 2 + 1) / side
    if reason := _no_frc(first, second, inside):
        nothing = np.full(len(frequency), np.nan)
        return FRC(frequency=frequency, correlation=nothing, crossing_half=math.nan, reason=reason)
    window = _soft_window(inside, taper * side)
    spectrum_a, spectrum_b = (
        scipy.fft.fft2(window * (image - np.average(image, weights=window))) for image in (first, second)
    )
    curve = _ring_correlation(spectrum_a, spectrum_b, len(frequency))
    crossing, reason = _half_crossing(frequency, curve)
    return FRC(frequency=frequency, correlation=curve, crossing_half=crossing, reason=reason)


def _no_frc(first: Field, second: Field, inside: Mask) -> str | None:
    if min(inside.shape) < FRC_MINIMUM_PX:
        return f"{inside.shape[0]} x {inside.shape[1]} pixels are too few: at least {FRC_MINIMUM_PX} a side"
    flat = [name for name, image in (("first", first), ("second", second)) if is_flat(image[inside])]
    return f"the {' and the '.join(flat)} image is flat: without variance nothing correlates" if flat else None


def _ring_correlation(a: Field, b: Field, rings: int) -> NDArray[np.float64]:
    """Correlation of two spectra on rings 1 … `rings`, each 1 / (shorter side) wide; 0 where either has no power."""
    rows, columns = (scipy.fft.fftfreq(length) for length in a.shape)
    ring = np.rint(np.hypot(rows[:, None], columns[None]) * min(a.shape)).astype(np.intp).ravel()

    def over_rings(values: Field) -> NDArray[np.float64]:
        return np.asarray(np.bincount(ring, weights=values.ravel(), minlength=rings + 1)[1 : rings + 1], np.float64)

    cross = over_rings((a * b.conj()).real)
    power = np.sqrt(over_rings(np.abs(a) ** 2) * over_rings(np.abs(b) ** 2))
    return np.divide(cross, power, out=np.zeros_like(cross), where=power > 0)


def _half_crossing(frequency: NDArray[np.float64], curve: NDArray[np.float64]) -> tuple[float, str | None]:
    below = np.flatnonzero(curve < 0.5)
    if not len(below):
        return 0.5, "the correlation never falls below 0.5: the crossing is given as the Nyquist frequency"
    index = int(below[0])
    if index == 0:
        return 0.0, "the correlation is below 0.5 from the lowest ring on"
    step = (curve[index - 1] - 0.5) / (curve[index - 1] - curve[index])
    return float(frequency[index - 1] + step * (frequency[index] - frequency[index - 1])), None


def _soft_window(inside: Mask, width_px: float) -> NDArray[np.float64]:
    """1 in the middle of the mask, falling to 0 outside it as a raised cosine of the distance to its edge."""
    depth = scipy.ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1] - 0.5  # pixel centre to pixel edge
    return np.asarray(np.sin(np.pi / 2 * np.clip(depth / max(width_px, 0.5), 0, 1)) ** 2)
