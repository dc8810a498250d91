"""How close a reconstruction is to a truth, once what diffraction cannot determine has been taken out.

A ptychographic object is known up to a global phase, an amplitude scale, a phase ramp and a shift, which the probe
undoes. `align` removes and states them; `evaluate_fields` compares what is left inside the scanned area
(specs/physics.md, Metrics). Vectors in results are [x, y] = [column, row], from the centre of pixel [0, 0].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NoReturn

import attrs
import numpy as np
import scipy  # its submodules load on first use: this module imports fast
from numpy.typing import ArrayLike, NDArray

from ptycho_core.errors import DataError, explain

Field = NDArray[Any]  # (H, W), real or complex
Mask = NDArray[np.bool_]
Vector = NDArray[np.float64]  # [row, column]: internal, results are [x, y]

FLAT = 1e-6  # a standard deviation below this part of the magnitude is round-off of float32, not structure
SSIM_SIGMA_PX, SSIM_RADIUS_PX, SSIM_K1, SSIM_K2 = 1.5, 5, 0.01, 0.03  # Wang et al. 2004, section III.C: 11 × 11 window
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, section 3.2
FRC_MINIMUM_PX = 8
GRADIENT_STEP_PX = 2
FADE_START_PX, FADE_WIDTH_PX = 2, 12
ALIGNMENT_ROUNDS, ALIGNMENT_TOLERANCE_PX = 40, 1e-5


# ---- point by point ------------------------------------------------------------------------------------------------


def complex_correlation(a: ArrayLike, b: ArrayLike, mask: ArrayLike | None = None) -> float:
    """|Σ (a − ā)(b − b̄)*| / √(Σ|a − ā|² Σ|b − b̄|²), 0 to 1, over the mask (default: everywhere).

    a, b: (H, W) real or complex. Blind to a global phase, a scale and an added constant, not to a ramp or a shift.
    NaN when either has no variance. DataError: shapes differ, values are not finite, the mask is empty.
    """
    first, second, inside = _pair("complex_correlation", a, b, mask)
    x, y = first[inside], second[inside]
    if _is_flat(x) or _is_flat(y):
        return math.nan
    x, y = x - x.mean(), y - y.mean()
    return float(abs(np.vdot(x, y)) / (np.linalg.norm(x) * np.linalg.norm(y)))


def mae(a: ArrayLike, b: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Mean of |a − b| over the mask; (H, W) real or complex, in their unit. DataError as in `complex_correlation`."""
    first, second, inside = _pair("mae", a, b, mask)
    return float(np.abs(first - second)[inside].mean())


def mse(a: ArrayLike, b: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Mean of |a − b|² over the mask; (H, W) real or complex, in their unit squared."""
    first, second, inside = _pair("mse", a, b, mask)
    return float((np.abs(first - second)[inside] ** 2).mean())


def psnr(estimate: ArrayLike, truth: ArrayLike, data_range: float, mask: ArrayLike | None = None) -> float:
    """10 log10(data_range² / MSE), dB; infinite when the two are equal.

    data_range: the peak-to-peak that the error is measured against, usually the truth's; DataError unless positive.
    """
    _check_range("psnr", data_range)
    error = mse(estimate, truth, mask)
    return math.inf if error == 0 else 10 * math.log10(data_range**2 / error)


# ---- structural similarity -----------------------------------------------------------------------------------------


def ssim(a: ArrayLike, b: ArrayLike, data_range: float, mask: ArrayLike | None = None) -> float:
    """Mean structural similarity, −1 to 1 (Wang et al., IEEE Trans. Image Process. 13, 600 (2004)).

    a, b: (H, W) real. Gaussian window of σ 1.5 on 11 × 11 pixels, K1 0.01, K2 0.03, population covariance. The mean is
    over the pixels whose whole window lies in the mask, so nothing outside counts; without a mask this is
    scikit-image's structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False).
    DataError: complex images, data_range not positive, no whole window inside.
    """
    first, second, inside = _real_pair("ssim", a, b, data_range, mask)
    windows = _whole_windows(inside)
    if not windows.any():
        _refuse("ssim", "mask", "11 x 11 pixels inside, one window", f"{inside.sum()} pixels", "Widen the mask.")
    structure, luminance = _ssim_maps(first, second, data_range)
    return float((structure * luminance)[windows].mean())


def ms_ssim(a: ArrayLike, b: ArrayLike, data_range: float, mask: ArrayLike | None = None) -> float:
    """Multi-scale structural similarity, 0 to 1 (Wang, Simoncelli & Bovik, Asilomar 2003, equation 7).

    As `ssim`, on five scales, each the mean of 2 × 2 pixels of the one before; luminance enters at the coarsest. A
    negative term counts as 0: it has no real power. DataError also when the fifth scale has no whole window, which
    takes 176 x 176 pixels inside the mask.
    """
    first, second, inside = _real_pair("ms_ssim", a, b, data_range, mask)
    score = 1.0
    for scale, weight in enumerate(MS_SSIM_WEIGHTS, start=1):
        if not (windows := _whole_windows(inside)).any():
            needed = (2 * SSIM_RADIUS_PX + 1) * 2 ** (len(MS_SSIM_WEIGHTS) - 1)
            expected = f"at least {needed} x {needed} pixels inside the mask, for {len(MS_SSIM_WEIGHTS)} scales"
            _refuse("ms_ssim", "mask", expected, f"no whole window on scale {scale}", "Use ssim for small images.")
        structure, luminance = _ssim_maps(first, second, data_range)
        similarity = structure * luminance if scale == len(MS_SSIM_WEIGHTS) else structure
        score *= max(0.0, float(similarity[windows].mean())) ** weight
        if scale < len(MS_SSIM_WEIGHTS):
            first, second, inside = _halve(first), _halve(second), _halve(inside) == 1
    return score


def _ssim_maps(a: Field, b: Field, data_range: float) -> tuple[Field, Field]:
    """Contrast times structure, and luminance, of every pixel's window: Wang et al. 2004, equations 6 and 13."""

    def local_mean(image: Field) -> Field:
        return np.asarray(scipy.ndimage.gaussian_filter(image, SSIM_SIGMA_PX, truncate=SSIM_RADIUS_PX / SSIM_SIGMA_PX))

    c1, c2 = (SSIM_K1 * data_range) ** 2, (SSIM_K2 * data_range) ** 2
    mean_a, mean_b = local_mean(a), local_mean(b)
    variances = local_mean(a * a) - mean_a**2 + local_mean(b * b) - mean_b**2
    covariance = local_mean(a * b) - mean_a * mean_b
    structure = (2 * covariance + c2) / (variances + c2)
    return structure, (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)


def _whole_windows(inside: Mask) -> Mask:
    side = 2 * SSIM_RADIUS_PX + 1
    return np.asarray(scipy.ndimage.minimum_filter(inside, side, mode="constant", cval=0), bool)


def _halve(image: Field) -> Field:
    height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    blocks = image[:height, :width].reshape(height // 2, 2, width // 2, 2)
    return np.asarray(blocks.mean(axis=(1, 3)))


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
    first, second, inside = _pair("frc", a, b, mask)
    box = _bounding_box(inside)
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
    flat = [name for name, image in (("first", first), ("second", second)) if _is_flat(image[inside])]
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
        _refuse("scanned_area", "positions_px", "finite positions (M, 2)", points.shape, "Give [x, y] a position.")
    remedy = "A scan along a line has no area: give the mask yourself."
    if len(points) < 3:
        _refuse("scanned_area", "positions_px", "three or more positions", len(points), remedy)
    try:
        hull = scipy.spatial.ConvexHull(points)
    except scipy.spatial.QhullError:
        _refuse("scanned_area", "positions_px", "positions that span an area", f"{len(points)} on one line", remedy)
    x_origin, y_origin = np.asarray(origin_px, np.float64)
    y, x = np.ogrid[: shape[0], : shape[1]]
    inside = np.ones(shape, bool)
    for normal_x, normal_y, offset in hull.equations:  # unit normals: the left side is the distance to an edge
        inside &= normal_x * (x + x_origin) + normal_y * (y + y_origin) + offset <= -margin
    if not inside.any():
        extent = np.ptp(points, axis=0)
        received = f"positions over {extent[0]:.4g} x {extent[1]:.4g} px (x, y) on a field of {shape[1]} x {shape[0]}"
        expected = f"pixels deeper than {margin:g} px in the hull"
        _refuse("scanned_area", "positions_px", expected, received, "Check origin_px, or take a smaller margin_px.")
    return inside


# ---- removing the ambiguities --------------------------------------------------------------------------------------


@attrs.frozen(eq=False, kw_only=True)
class Alignment:
    """An estimate with its ambiguities removed, and what they were:

    estimate(x, y) ≈ amplitude_scale · exp(i (global_phase_rad + phase_ramp · [x, y])) · truth([x, y] − shift_px),
    with pixel [0, 0] at x = y = 0.

    aligned: complex128 (H, W), comparable with the truth inside `mask`; a sub-pixel shift fades it to 0 further out.
    mask: bool (H, W), the given mask less the pixels that the shift moved in from beyond the border.
    phase_ramp_rad_per_px, shift_px: (x, y).
    reason: what could not be determined and was left alone, or None.
    """

    aligned: NDArray[np.complex128]
    mask: Mask
    global_phase_rad: float
    amplitude_scale: float
    phase_ramp_rad_per_px: tuple[float, float]
    shift_px: tuple[float, float]
    reason: str | None = None


def align(
    estimate: ArrayLike,
    truth: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    remove_ramp: bool = True,
    shift: Literal["subpixel", "integer", "none"] = "subpixel",
    max_shift_px: float | None = None,
) -> Alignment:
    """`estimate` without its shift, phase ramp, global phase and amplitude scale against `truth`, inside the mask.

    estimate, truth: (H, W) real or complex. mask: bool (H, W), default everywhere.
    max_shift_px: how far along x and y to search; default a quarter of the mask's bounding box.
    1. A whole-pixel shift, by matching the products O(r) O*(r − 2 px), in which a ramp is only a constant factor.
    2. A ramp, at the peak of the Fourier transform of estimate · truth* in the mask.
    3. Ramp and sub-pixel shift together, by Gauss-Newton least squares over the complex fields in the mask. (The peak
       of an upsampled cross-correlation, Guizar-Sicairos, Thurman & Fienup, Opt. Lett. 33, 156 (2008), is the same
       optimum on a periodic field, but drifts where a mask cuts through structure.)
    4. Least squares in the mask: the global phase over the complex fields, the scale over their amplitudes, so that
       phase errors do not pass for a loss of amplitude.
    Shifts are periodic and, below a pixel, Fourier interpolation; for that the estimate fades out beyond the mask, lest
    its far border ring. `Alignment.mask` leaves out what came round the border. A flat or empty field keeps its shift,
    scale or phase: see `Alignment.reason`.
    DataError: shapes differ, not finite, empty mask, unknown `shift`, negative max_shift_px.
    """
    if shift not in ("subpixel", "integer", "none"):
        _refuse("align", "shift", "'subpixel', 'integer' or 'none'", repr(shift), "Choose one of these.")
    if max_shift_px is not None and not max_shift_px >= 0:
        _refuse("align", "max_shift_px", "a number of pixels >= 0", max_shift_px, "Use shift='none' to search nowhere.")
    first, second, inside = _pair("align", estimate, truth, mask)
    field, target = first.astype(np.complex128), second.astype(np.complex128)
    reasons = []

    reach_px = np.array([(span.stop - span.start) / 4 for span in _bounding_box(inside)])
    if max_shift_px is not None:
        reach_px = np.full(2, float(max_shift_px))
    shift_px = np.zeros(2)
    if shift != "none" and (coarse := _coarse_shift(field, target, inside, reach_px)) is not None:
        shift_px = coarse
    elif shift != "none":
        shift = "none"
        reasons.append("shift: a field has no structure inside the mask")
    if shift == "subpixel":
        field = field * _faded_outside(np.roll(inside, shift_px.astype(np.int64), (0, 1)))
    inside = _still_measured(inside, shift_px)
    ramp = np.zeros(2)
    if remove_ramp:
        ramp = _coarse_ramp(_shifted(field, shift_px) * np.where(inside, target.conj(), 0))
    free = (remove_ramp, shift == "subpixel")
    ramp, shift_px = _refined(field, target, inside, ramp, shift_px, reach_px=reach_px, free=free)

    aligned = _shifted(field * _plane_wave(field.shape, -ramp), shift_px)
    inside = _still_measured(inside, shift_px)
    phase, scale, undetermined = _phase_and_scale(aligned[inside], target[inside])
    if undetermined:
        reasons.append(undetermined)
    return Alignment(
        aligned=aligned * np.exp(-1j * phase) / scale,
        mask=inside,
        global_phase_rad=phase,
        amplitude_scale=scale,
        phase_ramp_rad_per_px=(float(ramp[1]), float(ramp[0])),
        shift_px=(float(shift_px[1]), float(shift_px[0])),
        reason="; ".join(reasons) or None,
    )


def _phase_and_scale(estimate: Field, truth: Field) -> tuple[float, float, str | None]:
    """φ and s of estimate ≈ s·exp(iφ)·truth; 0 and 1 with a reason where they are undetermined."""
    overlap = complex(np.vdot(truth, estimate))
    amplitudes = float(np.abs(truth) @ np.abs(estimate))
    if amplitudes == 0:
        return 0.0, 1.0, "global phase and amplitude scale: the two fields nowhere overlap inside the mask"
    scale = float(np.linalg.norm(estimate)) ** 2 / amplitudes  # minimises Σ(|truth| − |estimate| / s)²
    return float(np.angle(overlap)), scale, None


def _coarse_shift(field: Field, target: Field, inside: Mask, reach_px: Vector) -> Vector | None:
    """The whole-pixel shift of `field` against `target` inside the mask; None where one of them has no structure.

    O(r) O*(r − step) follows a shift, holds amplitude and phase gradient, and turns a ramp into a constant factor.
    """
    score = np.zeros(field.shape)
    for axis in (0, 1):
        step = min(GRADIENT_STEP_PX, field.shape[axis] - 1)
        valid = inside & np.roll(inside, step, axis)
        np.moveaxis(valid, axis, 0)[:step] = False  # those came round the border
        image, template = (values * np.roll(values, step, axis).conj() for values in (field, target))
        score += _template_match(image, template, valid)
    if not score.any():
        return None
    rows, columns = (_signed(np.arange(side), side) for side in field.shape)
    score[np.abs(rows) > reach_px[0]] = -1
    score[:, np.abs(columns) > reach_px[1]] = -1
    row, column = np.unravel_index(np.argmax(score), field.shape)
    return np.array([rows[row], columns[column]], np.float64)


def _template_match(image: Field, template: Field, inside: Mask) -> NDArray[np.float64]:
    """Zero-mean normalised correlation, 0 to 1, of the template under the mask with `image` at every periodic shift."""
    count = int(inside.sum())
    if count == 0 or _is_flat(template[inside]):
        return np.zeros(image.shape)
    centred = np.where(inside, template - template[inside].mean(), 0)
    spectrum, window = scipy.fft.fft2(image), scipy.fft.fft2(inside.astype(np.float64)).conj()
    cross = scipy.fft.ifft2(spectrum * scipy.fft.fft2(centred).conj())
    total = scipy.fft.ifft2(scipy.fft.fft2(np.abs(image) ** 2) * window).real
    variance = total - np.abs(scipy.fft.ifft2(spectrum * window)) ** 2 / count
    if variance.max() <= FLAT**2 * total.max():
        return np.zeros(image.shape)
    energy = np.maximum(variance, 1e-6 * variance.max()) * np.sum(np.abs(centred) ** 2)
    return np.asarray(np.abs(cross) / np.sqrt(energy))


def _coarse_ramp(product: Field) -> Vector:
    """[row, column] rad/px of the strongest plane wave in `product`, to a quarter of a period over the field."""
    padded = [2 * scipy.fft.next_fast_len(side) for side in product.shape]
    peak = np.unravel_index(np.argmax(np.abs(scipy.fft.fft2(product, s=padded))), padded)
    return np.array([2 * np.pi * _signed(int(index), side) / side for index, side in zip(peak, padded, strict=True)])


def _refined(
    field: Field,
    target: Field,
    inside: Mask,
    ramp: Vector,
    shift_px: Vector,
    *,
    reach_px: Vector,
    free: tuple[bool, bool],
) -> tuple[Vector, Vector]:
    """Ramp and shift (those that are `free`) that make field(r + shift) exp(−i ramp·r) most like a multiple of target.

    Gauss-Newton on both at once, because curvature couples them: a shifted parabola of phase differs by a ramp. The
    slopes are the truth's, which are free of the estimate's noise and the same in every round (inverse compositional:
    Baker & Matthews, Int. J. Comput. Vis. 56, 221 (2004)). A step that does not raise the correlation is halved.
    """
    if not any(free) or not target[inside].any():
        return ramp, shift_px
    unit = np.concatenate([2 * np.pi / np.array(field.shape), np.ones(2)])  # a period over the field; a pixel
    truth = target[inside]
    solve = _least_squares(truth, _slopes(target, inside) * unit[:, None] * np.repeat(free, 2)[:, None])

    state, step, best = np.concatenate([ramp, shift_px]), np.zeros(4), 0.0
    for _ in range(ALIGNMENT_ROUNDS):
        trial = state + step
        trial[2:] = np.clip(trial[2:], -reach_px, reach_px)
        estimate = _shifted(field * _plane_wave(field.shape, -trial[:2]), trial[2:])[inside]
        overlap = np.vdot(truth, estimate)
        fit = float(abs(overlap) / max(np.linalg.norm(estimate), np.finfo(np.float64).tiny))
        if fit > best:
            state, best = trial, fit
            residual = solve @ (estimate * np.vdot(truth, truth).real / overlap - truth)
            step = unit * residual.real / max(1.0, 2 * np.abs(residual.real).max())  # at most half a unit
        else:
            step = step / 2
        if np.abs(step / unit).max() < ALIGNMENT_TOLERANCE_PX:
            break
    return state[:2], state[2:]


def _slopes(target: Field, inside: Mask) -> Field:
    """(4, pixels): by how much the target in the mask changes a unit of ramp (row, column) and of −shift."""
    spectrum = scipy.fft.fft2(target * _faded_outside(inside))
    v, u = (2j * np.pi * scipy.fft.fftfreq(side) for side in target.shape)
    middle = np.reshape(target.shape, (2, 1, 1)) / 2  # about which ramp and phase are nearly independent
    by_ramp = 1j * (np.indices(target.shape) - middle) * target
    by_shift = [-scipy.fft.ifft2(spectrum * slope) for slope in (v[:, None], u[None])]
    return np.array([values[inside] for values in (*by_ramp, *by_shift)])


def _least_squares(truth: Field, slopes: Field) -> Field:
    """(4, pixels): its product with a deviation from the truth has the four real coefficients of `slopes` as real part.

    A complex multiple of the truth is free besides. Directions that the truth does not determine get 0.
    """
    basis = np.concatenate([[truth, 1j * truth], slopes])
    normal = (basis.conj() @ basis.T).real
    size = np.sqrt(np.maximum(np.diag(normal), np.finfo(np.float64).tiny))
    inverse = np.linalg.pinv(normal / np.outer(size, size), rcond=1e-9, hermitian=True) / np.outer(size, size)
    return np.asarray((inverse @ basis.conj())[2:])


def _shifted(field: Field, shift_px: Vector) -> Field:
    """field(r + shift), periodic: a roll for whole pixels, Fourier interpolation between."""
    whole = np.rint(shift_px)
    if np.array_equal(whole, shift_px):
        return np.roll(field, tuple(-whole.astype(np.int64)), (0, 1))
    rows, columns = (
        np.exp(2j * np.pi * step * scipy.fft.fftfreq(side)) for side, step in zip(field.shape, shift_px, strict=True)
    )
    return np.asarray(scipy.fft.ifft2(scipy.fft.fft2(field) * rows[:, None] * columns[None]))


def _faded_outside(inside: Mask) -> NDArray[np.float64]:
    """1 in the mask, falling to 0 around it as a raised cosine."""
    if inside.all():
        return np.ones(inside.shape)
    distance = scipy.ndimage.distance_transform_edt(~inside)
    return np.asarray(np.cos(np.pi / 2 * np.clip((distance - FADE_START_PX) / FADE_WIDTH_PX, 0, 1)) ** 2)


def _still_measured(inside: Mask, shift_px: Vector) -> Mask:
    """The mask less the pixels that a shift takes from beyond the border."""
    sources = [np.arange(side) + step for side, step in zip(inside.shape, shift_px, strict=True)]
    rows, columns = ((source >= -0.5) & (source <= len(source) - 0.5) for source in sources)
    kept: Mask = inside & rows[:, None] & columns[None]
    if not kept.any():
        _refuse("align", "mask", "pixels left after the shift", "none", "Take a smaller max_shift_px or another mask.")
    return kept


def _plane_wave(shape: tuple[int, ...], ramp: Vector) -> Field:
    rows, columns = (np.exp(1j * slope * np.arange(side)) for side, slope in zip(shape, ramp, strict=True))
    return np.asarray(rows[:, None] * columns[None])


def _signed(index: Any, length: int) -> Any:
    """Index of a periodic axis as a displacement in [−length/2, length/2)."""
    return (index + length // 2) % length - length // 2


# ---- all of it -----------------------------------------------------------------------------------------------------


@attrs.frozen(eq=False, kw_only=True)
class Quality:
    """One real image (amplitude, or phase in rad) against its truth, inside the mask.

    data_range: the truth's peak-to-peak, in the image's unit; what PSNR (dB), SSIM and MS-SSIM refer to.
    frc: of the two images. A metric that cannot be computed is NaN and has an entry in `reasons`.
    """

    mae: float
    mse: float
    data_range: float
    psnr_db: float
    ssim: float
    ms_ssim: float
    frc: FRC
    reasons: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: numbers, None for NaN or infinity, and the reasons."""
        names = ("mae", "mse", "data_range", "psnr_db", "ssim", "ms_ssim")
        numbers = {name: _json_number(getattr(self, name)) for name in names}
        return {**numbers, "frc_crossing": _json_number(self.frc.crossing_half), "reasons": dict(self.reasons)}


@attrs.frozen(eq=False, kw_only=True)
class Evaluation:
    """A reconstruction against a truth.

    correlation_before_alignment: `complex_correlation` in the mask as given, blind to the global phase only.
    correlation: the same after alignment. frc: of the aligned complex fields.
    """

    correlation_before_alignment: float
    correlation: float
    frc: FRC
    alignment: Alignment
    amplitude: Quality
    phase: Quality
    reasons: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: plain numbers, lists and text; NaN becomes None and keeps its reason. Arrays are left out."""
        alignment = self.alignment
        return {
            "correlation_before_alignment": _json_number(self.correlation_before_alignment),
            "correlation": _json_number(self.correlation),
            "frc_crossing": _json_number(self.frc.crossing_half),
            "reasons": dict(self.reasons),
            "alignment": {
                "global_phase_rad": alignment.global_phase_rad,
                "amplitude_scale": alignment.amplitude_scale,
                "phase_ramp_rad_per_px": list(alignment.phase_ramp_rad_per_px),
                "shift_px": list(alignment.shift_px),
                "pixels_compared": int(alignment.mask.sum()),
                "reason": alignment.reason,
            },
            "amplitude": self.amplitude.as_dict(),
            "phase": self.phase.as_dict(),
        }


def evaluate_fields(estimate: ArrayLike, truth: ArrayLike, mask: ArrayLike | None = None) -> Evaluation:
    """Every metric of `estimate` against `truth` inside the mask, after `align`.

    estimate, truth: complex (H, W) on the same grid; mask: bool (H, W), usually `scanned_area`, default everywhere.
    Phase images: the wrapped difference from the truth, less its mean, is added to the truth's phase, which
    is counted from its minimum (SSIM is not blind to an offset). A truth that winds beyond 2π keeps its own wraps.
    DataError as in `align`; what merely cannot be computed (an image too small, a flat truth) is NaN with a reason.
    """
    first, second, inside = _pair("evaluate_fields", estimate, truth, mask)
    alignment = align(first, second, inside)
    box = _bounding_box(alignment.mask)
    found, target, compared = alignment.aligned[box], second[box], alignment.mask[box]
    before, after = complex_correlation(first, second, inside), complex_correlation(found, target, compared)
    curve = frc(found, target, compared)
    flat = "a field is flat inside the mask"
    reasons = {
        "correlation_before_alignment": flat if math.isnan(before) else None,
        "correlation": flat if math.isnan(after) else None,
        "frc_crossing": curve.reason,
    }
    round_off = FLAT * float(np.abs(target[compared]).max())
    return Evaluation(
        correlation_before_alignment=before,
        correlation=after,
        frc=curve,
        alignment=alignment,
        amplitude=_quality(np.abs(found), np.abs(target), compared, round_off),
        phase=_quality(*_phase_images(found, target, compared), compared, FLAT),
        reasons={name: reason for name, reason in reasons.items() if reason},
    )


def _phase_images(estimate: Field, truth: Field, inside: Mask) -> tuple[Field, Field]:
    """Phases in rad on one branch: the truth from its minimum in the mask, the estimate beside it."""
    centre = np.exp(-1j * np.angle(truth[inside].sum()))
    found, target = (np.angle(field * centre + 0.0) for field in (estimate, truth))  # + 0.0: angle(-0) would be π
    difference = np.angle(np.exp(1j * (found - target)))
    target = target - target[inside].min()
    return target + difference - difference[inside].mean(), target


def _quality(estimate: Field, truth: Field, inside: Mask, round_off: float) -> Quality:
    """All metrics of a real image; less variation than `round_off`, in its unit, counts as none."""
    estimate, truth = (
        np.full_like(image, image[inside].mean()) if np.ptp(image[inside]) <= round_off else image
        for image in (estimate, truth)
    )
    data_range = float(np.ptp(truth[inside]))
    curve = frc(estimate, truth, inside)
    reasons = {"frc_crossing": curve.reason} if curve.reason else {}
    scores = {}
    for name, metric in (("psnr_db", psnr), ("ssim", ssim), ("ms_ssim", ms_ssim)):
        try:
            scores[name] = metric(estimate, truth, data_range, inside)
        except DataError as error:
            scores[name], reasons[name] = math.nan, str(error)
    if math.isinf(scores["psnr_db"]):
        reasons["psnr_db"] = "infinite: the two images are equal inside the mask"
    return Quality(
        mae=mae(estimate, truth, inside),
        mse=mse(estimate, truth, inside),
        data_range=data_range,
        **scores,
        frc=curve,
        reasons=reasons,
    )


def _json_number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


# ---- checks --------------------------------------------------------------------------------------------------------


def _pair(function: str, a: ArrayLike, b: ArrayLike, mask: ArrayLike | None) -> tuple[Field, Field, Mask]:
    """Two images, as float64 or complex128, and their mask, checked."""
    first, second = _image(function, "first image", a), _image(function, "second image", b)
    if first.shape != second.shape:
        remedy = "Cut both to the same pixels of the object grid."
        _refuse(function, "second image", f"shape {first.shape}, as the first", f"shape {second.shape}", remedy)
    if mask is None:
        return first, second, np.ones(first.shape, bool)
    inside = np.asarray(mask)
    if inside.dtype != np.bool_ or inside.shape != first.shape:
        received = f"{inside.dtype} of shape {inside.shape}"
        _refuse(function, "mask", f"booleans of shape {first.shape}", received, "Give True where to compare.")
    if not inside.any():
        _refuse(function, "mask", "at least one pixel", "none", "Check the mask's sense: True is compared.")
    return first, second, inside


def _image(function: str, key: str, values: ArrayLike) -> Field:
    image = np.asarray(values)
    if image.ndim != 2 or image.dtype.kind not in "biufc" or image.size == 0:
        received = f"{image.dtype} of shape {image.shape}"
        _refuse(function, key, "numbers of shape (H, W)", received, "Give one two-dimensional image.")
    if not np.isfinite(image).all():
        _refuse(function, key, "finite values", "NaN or infinity", "Set what was not measured to 0 and mask it.")
    return image.astype(np.complex128 if image.dtype.kind == "c" else np.float64)


def _real_pair(
    function: str, a: ArrayLike, b: ArrayLike, data_range: float, mask: ArrayLike | None
) -> tuple[Field, Field, Mask]:
    first, second, inside = _pair(function, a, b, mask)
    _check_range(function, data_range)
    if "c" in (first.dtype.kind, second.dtype.kind):
        _refuse(function, "images", "real numbers", "complex numbers", "Compare amplitude and phase separately.")
    return first, second, inside


def _check_range(function: str, data_range: float) -> None:
    if not (math.isfinite(data_range) and data_range > 0):
        _refuse(
            function,
            "data_range",
            "a positive number",
            data_range,
            "Take the truth's peak-to-peak; a flat truth has none.",
        )


def _is_flat(values: Field) -> bool:
    """No variance beyond the round-off of single precision."""
    return bool(np.std(values) <= FLAT * np.abs(values).max())


def _bounding_box(inside: Mask) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _refuse(function: str, key: str, expected: object, received: object, remedy: str) -> NoReturn:
    raise DataError(explain(f"metrics.{function}", key, expected=expected, received=received, remedy=remedy))
