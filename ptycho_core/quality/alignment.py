"""Removing what diffraction cannot determine, before a reconstruction is compared (specs/physics.md, Metrics).

A ptychographic object is known up to a global phase, an amplitude scale, a phase ramp and a shift, which the probe
undoes. `align` removes and states them. Vectors in results are [x, y] = [column, row], from the centre of pixel [0, 0].
"""

from __future__ import annotations

from typing import Any, Literal

import attrs
import numpy as np
import scipy  # its submodules load on first use: this module imports fast
from numpy.typing import ArrayLike, NDArray

from ptycho_core.errors import DataError
from ptycho_core.quality.area import bounding_box
from ptycho_core.quality.metrics import FLAT, Image, Mask, check_pair, is_flat

Vector = NDArray[np.float64]  # [row, column]: internal, results are [x, y]

GRADIENT_STEP_PX = 2
FADE_START_PX, FADE_WIDTH_PX = 2, 12
ALIGNMENT_ROUNDS, ALIGNMENT_TOLERANCE_PX = 40, 1e-5


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

    >>> rows, columns = np.indices((64, 64))
    >>> truth = np.exp(1j * np.sin(rows / 5) * np.cos(columns / 7))
    >>> found = align(2 * np.exp(0.5j + 0.01j * columns) * truth, truth)
    >>> round(found.amplitude_scale, 4), round(found.phase_ramp_rad_per_px[0], 4)
    (2.0, 0.01)
    >>> bool(np.allclose(found.aligned, truth))
    True
    """
    if shift not in ("subpixel", "integer", "none"):
        expected, received = "'subpixel', 'integer' or 'none'", repr(shift)
        raise DataError("metrics.align", "shift", expected=expected, received=received, remedy="Choose one of these.")
    if max_shift_px is not None and not max_shift_px >= 0:
        expected, remedy = "a number of pixels >= 0", "Use shift='none' to search nowhere."
        raise DataError("metrics.align", "max_shift_px", expected=expected, received=max_shift_px, remedy=remedy)
    first, second, inside = check_pair("align", estimate, truth, mask)
    field, target = first.astype(np.complex128), second.astype(np.complex128)
    reasons = []

    reach_px = np.array([(span.stop - span.start) / 4 for span in bounding_box(inside)])
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
        ramp = coarse_ramp(_shifted(field, shift_px) * np.where(inside, target.conj(), 0))
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


def _phase_and_scale(estimate: Image, truth: Image) -> tuple[float, float, str | None]:
    """φ and s of estimate ≈ s·exp(iφ)·truth; 0 and 1 with a reason where they are undetermined."""
    overlap = complex(np.vdot(truth, estimate))
    amplitudes = float(np.abs(truth) @ np.abs(estimate))
    if amplitudes == 0:
        return 0.0, 1.0, "global phase and amplitude scale: the two fields nowhere overlap inside the mask"
    scale = float(np.linalg.norm(estimate)) ** 2 / amplitudes  # minimises Σ(|truth| − |estimate| / s)²
    return float(np.angle(overlap)), scale, None


def _coarse_shift(field: Image, target: Image, inside: Mask, reach_px: Vector) -> Vector | None:
    """The whole-pixel shift of `field` against `target` inside the mask; None where one of them has no structure.

    O(r) O*(r − step) follows a shift, holds amplitude and phase gradient, and turns a ramp into a constant factor.
    """
    score = np.zeros(field.shape)
    for axis in (0, 1):
        step = min(GRADIENT_STEP_PX, field.shape[axis] - 1)
        valid = inside & np.roll(inside, step, axis)
        np.moveaxis(valid, axis, 0)[:step] = False  # those came round the border
        image, template = (values * np.roll(values, step, axis).conj() for values in (field, target))
        score += template_match(image, template, valid)
    if not score.any():
        return None
    rows, columns = (_signed(np.arange(side), side) for side in field.shape)
    score[np.abs(rows) > reach_px[0]] = -1
    score[:, np.abs(columns) > reach_px[1]] = -1
    row, column = np.unravel_index(np.argmax(score), field.shape)
    return np.array([rows[row], columns[column]], np.float64)


def template_match(image: Image, template: Image, inside: Mask) -> NDArray[np.float64]:
    """Zero-mean normalised correlation, 0 to 1, of the template under the mask with `image` at every periodic shift."""
    count = int(inside.sum())
    if count == 0 or is_flat(template[inside]):
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


def coarse_ramp(product: Image) -> Vector:
    """[row, column] rad/px of the strongest plane wave in `product`, to a quarter of a period over the field."""
    padded = [2 * scipy.fft.next_fast_len(side) for side in product.shape]
    peak = np.unravel_index(np.argmax(np.abs(scipy.fft.fft2(product, s=padded))), padded)
    return np.array([2 * np.pi * _signed(int(index), side) / side for index, side in zip(peak, padded, strict=True)])


def _refined(
    field: Image,
    target: Image,
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


def _slopes(target: Image, inside: Mask) -> Image:
    """(4, pixels): by how much the target in the mask changes a unit of ramp (row, column) and of −shift."""
    spectrum = scipy.fft.fft2(target * _faded_outside(inside))
    v, u = (2j * np.pi * scipy.fft.fftfreq(side) for side in target.shape)
    middle = np.reshape(target.shape, (2, 1, 1)) / 2  # about which ramp and phase are nearly independent
    by_ramp = 1j * (np.indices(target.shape) - middle) * target
    by_shift = [-scipy.fft.ifft2(spectrum * slope) for slope in (v[:, None], u[None])]
    return np.array([values[inside] for values in (*by_ramp, *by_shift)])


def _least_squares(truth: Image, slopes: Image) -> Image:
    """(4, pixels): its product with a deviation from the truth has the four real coefficients of `slopes` as real part.

    A complex multiple of the truth is free besides. Directions that the truth does not determine get 0.
    """
    basis = np.concatenate([[truth, 1j * truth], slopes])
    normal = (basis.conj() @ basis.T).real
    size = np.sqrt(np.maximum(np.diag(normal), np.finfo(np.float64).tiny))
    inverse = np.linalg.pinv(normal / np.outer(size, size), rcond=1e-9, hermitian=True) / np.outer(size, size)
    return np.asarray((inverse @ basis.conj())[2:])


def _shifted(field: Image, shift_px: Vector) -> Image:
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
        remedy = "Take a smaller max_shift_px or another mask."
        raise DataError("metrics.align", "mask", expected="pixels left after the shift", received="none", remedy=remedy)
    return kept


def _plane_wave(shape: tuple[int, ...], ramp: Vector) -> Image:
    rows, columns = (np.exp(1j * slope * np.arange(side)) for side, slope in zip(shape, ramp, strict=True))
    return np.asarray(rows[:, None] * columns[None])


def _signed(index: Any, length: int) -> Any:
    """Index of a periodic axis as a displacement in [−length/2, length/2)."""
    return (index + length // 2) % length - length // 2
