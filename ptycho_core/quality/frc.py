"""Fourier ring correlation of two images, and the resolution that it gives."""

from __future__ import annotations

import math
from typing import Any

import attrs
import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from ptycho_core.quality.area import bounding_box
from ptycho_core.quality.metrics import Image, Mask, check_pair, is_flat

FRC_MINIMUM_PX = 8


# ---- Fourier ring correlation --------------------------------------------------------------------------------------


@attrs.frozen(eq=False, kw_only=True)
class FRC:
    """Fourier ring correlation.

    frequency: float64 (R,), cycles/pixel, the centres of rings that are 1/side wide; DC is left out.
    correlation: float64 (R,), −1 to 1; all NaN when it has no meaning.
    crossing_half: cycles/pixel beyond which the curve stays below 0.5: its last crossing from above; 0.5 (Nyquist) if
        it ends above, 0 if it is below throughout, NaN if it has no meaning; `reason` explains these three.
    dips: cycles/pixel (from, to) of each run of rings below 0.5 that lies before that crossing. Low rings hold few
        pixels, and a slow change of phase or the border spoils them; they do not limit the resolution.
    """

    frequency: NDArray[np.float64]
    correlation: NDArray[np.float64]
    crossing_half: float
    reason: str | None = None
    dips: tuple[tuple[float, float], ...] = ()

    def half_period_m(self, pixel_m: tuple[float, float] | None) -> tuple[float, float] | None:
        """Half the period at the crossing, along x and y, in metres; None without a pixel size or a crossing.

        pixel_m: (x, y), sides of an object pixel. At Nyquist it is one pixel.
        """
        if pixel_m is None or not self.crossing_half > 0:
            return None
        x, y = (side / (2 * self.crossing_half) for side in pixel_m)
        return x, y

    def as_dict(self, pixel_m: tuple[float, float] | None = None) -> dict[str, Any]:
        """The resolution for JSON, without the curve."""
        half = self.half_period_m(pixel_m)
        return {
            "cycles_per_px": self.crossing_half if math.isfinite(self.crossing_half) else None,
            "half_period_m": None if half is None else list(half),
            "below_half_before": [list(run) for run in self.dips],
            "reason": self.reason,
        }

    def resolution(self, pixel_m: tuple[float, float] | None = None) -> str:
        """In words: `0.293 cycles/px (half period 1.71 px, 17.1 nm)`."""
        if not math.isfinite(self.crossing_half):
            return f"not known: {self.reason}"
        text = f"{self.crossing_half:.3f} cycles/px"
        if self.crossing_half > 0:
            half = self.half_period_m(pixel_m)
            metres = "" if half is None else f", {nanometres(half)}"
            text += f" (half period {0.5 / self.crossing_half:.3g} px{metres})"
        return text

    def describe(self, pixel_m: tuple[float, float] | None = None) -> str:
        """The resolution in words, why it is at an end of the curve, and the rings below 0.5 before it."""
        text = self.resolution(pixel_m)
        if self.crossing_half in (0.0, 0.5):
            text += f": {self.reason}"
        if self.dips:
            runs = ", ".join(f"{low:.3f}" if low == high else f"{low:.3f} to {high:.3f}" for low, high in self.dips)
            text += f"; below 0.5 before that, not counted: {runs} cycles/px"
        return text


def frc(a: ArrayLike, b: ArrayLike, mask: ArrayLike | None = None, *, taper: float = 0.125) -> FRC:
    """Re Σ F_a F_b* / √(Σ|F_a|² Σ|F_b|²) on rings of spatial frequency.

    Source: Saxton & Baumeister, J. Microsc. 127, 127 (1982).
    a, b: (H, W) real or complex; complex fields must share their global phase. Both are cut to the bounding box of the
    mask, their mean is removed, and a raised cosine fades them out towards the mask's edge, so that neither the border
    nor the shape of the mask correlates (Nieuwenhuizen et al., Nat. Methods 10, 557 (2013)).
    taper: width of that fade as a part of the box's shorter side; 0 for none.
    A flat image, or a box under 8 x 8 pixels, gives NaN and a reason. DataError: shapes differ, values are not finite.

    >>> image, noise = np.random.default_rng(0).standard_normal((2, 64, 64))
    >>> bool(np.allclose(frc(image, image).correlation, 1))
    True
    >>> same, other = (frc(image, second).correlation.mean() for second in (image + 0.5 * noise, noise))
    >>> bool(same > 0.8 > 0.2 > other)
    True
    """
    first, second, inside = check_pair("frc", a, b, mask)
    box = bounding_box(inside)
    first, second, inside = first[box], second[box], inside[box]
    side = min(inside.shape)
    frequency = np.arange(1, side // 2 + 1) / side
    if reason := _no_frc(first, second, inside):
        return read_curve(frequency, np.full(len(frequency), np.nan), reason)
    window = _soft_window(inside, taper * side)
    spectrum_a, spectrum_b = (
        scipy.fft.fft2(window * (image - np.average(image, weights=window))) for image in (first, second)
    )
    curve = _ring_correlation(spectrum_a, spectrum_b, len(frequency))
    return read_curve(frequency, curve)


def read_curve(frequency: NDArray[np.float64], correlation: NDArray[np.float64], reason: str | None = None) -> FRC:
    """The `FRC` of a curve. reason: why it has no meaning, where its correlation is NaN."""
    crossing: float = math.nan
    dips: tuple[tuple[float, float], ...] = ()
    if not np.isnan(correlation).all():
        crossing, dips, reason = _half_crossing(frequency, correlation)
    return FRC(frequency=frequency, correlation=correlation, crossing_half=crossing, reason=reason, dips=dips)


def _no_frc(first: Image, second: Image, inside: Mask) -> str | None:
    if min(inside.shape) < FRC_MINIMUM_PX:
        return f"{inside.shape[0]} x {inside.shape[1]} pixels are too few: at least {FRC_MINIMUM_PX} per side"
    flat = [name for name, image in (("first", first), ("second", second)) if is_flat(image[inside])]
    return f"the {' and the '.join(flat)} image is flat: without variance nothing correlates" if flat else None


def _ring_correlation(a: Image, b: Image, rings: int) -> NDArray[np.float64]:
    """Correlation of two spectra on rings 1 … `rings`, each 1 / (shorter side) wide; 0 where either has no power."""
    rows, columns = (scipy.fft.fftfreq(length) for length in a.shape)
    ring = np.rint(np.hypot(rows[:, None], columns[None]) * min(a.shape)).astype(np.intp).ravel()

    def over_rings(values: Image) -> NDArray[np.float64]:
        return np.asarray(np.bincount(ring, weights=values.ravel(), minlength=rings + 1)[1 : rings + 1], np.float64)

    cross = over_rings((a * b.conj()).real)
    power = np.sqrt(over_rings(np.abs(a) ** 2) * over_rings(np.abs(b) ** 2))
    return np.divide(cross, power, out=np.zeros_like(cross), where=power > 0)


def _half_crossing(
    frequency: NDArray[np.float64], curve: NDArray[np.float64]
) -> tuple[float, tuple[tuple[float, float], ...], str | None]:
    """Crossing, dips and reason, as `FRC` holds them."""
    above = np.flatnonzero(curve >= 0.5)
    if not len(above):
        return 0.0, (), "the correlation is below 0.5 throughout"
    last = int(above[-1])
    # Runs of rings below 0.5 between the first ring and the last one above.
    edges = np.flatnonzero(np.diff(np.concatenate([[0], curve[:last] < 0.5, [0]])))
    dips = tuple((float(frequency[a]), float(frequency[b - 1])) for a, b in edges.reshape(-1, 2).tolist())
    if last == len(curve) - 1:
        reason = "the correlation is above 0.5 at the highest ring: the crossing is given as the Nyquist frequency"
        return 0.5, dips, reason
    step = (curve[last] - 0.5) / (curve[last] - curve[last + 1])
    return float(frequency[last] + step * (frequency[last + 1] - frequency[last])), dips, None


def nanometres(half: tuple[float, float]) -> str:
    """`17.1 nm`, or `17.1 x 20 nm` where x and y differ."""
    x, y = (f"{side * 1e9:.3g}" for side in half)
    return f"{x} nm" if x == y else f"{x} x {y} nm"


def _soft_window(inside: Mask, width_px: float) -> NDArray[np.float64]:
    """1 in the middle of the mask, falling to 0 outside it as a raised cosine of the distance to its edge."""
    depth = scipy.ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1] - 0.5  # pixel centre to pixel edge
    return np.asarray(np.sin(np.pi / 2 * np.clip(depth / max(width_px, 0.5), 0, 1)) ** 2)
