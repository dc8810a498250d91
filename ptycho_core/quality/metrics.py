"""Metrics of one image against another, real or complex, inside a mask (specs/physics.md, Metrics).

Vectors in results are [x, y] = [column, row], from the centre of pixel [0, 0].
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy  # its submodules load on first use: this module imports fast
from numpy.typing import ArrayLike, NDArray

from ptycho_core.errors import DataError

Image = NDArray[Any]  # (H, W), real or complex
Mask = NDArray[np.bool_]

FLAT = 1e-6  # a standard deviation below this part of the magnitude is round-off of float32, not structure
SSIM_SIGMA_PX, SSIM_RADIUS_PX, SSIM_K1, SSIM_K2 = 1.5, 5, 0.01, 0.03  # Wang et al. 2004, section III.C: 11 × 11 window
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, section 3.2


# ---- point by point ------------------------------------------------------------------------------------------------


def complex_correlation(a: ArrayLike, b: ArrayLike, mask: ArrayLike | None = None) -> float:
    """|Σ (a − ā)(b − b̄)*| / √(Σ|a − ā|² Σ|b − b̄|²), 0 to 1, over the mask (default: everywhere).

    a, b: (H, W) real or complex. Blind to a global phase, a scale and an added constant, not to a ramp or a shift.
    NaN when either has no variance. DataError: shapes differ, values are not finite, the mask is empty.

    >>> image = np.exp(1j * np.random.default_rng(0).standard_normal((16, 16)))
    >>> round(complex_correlation(image, 0.5j * image + 1), 6)
    1.0
    """
    first, second, inside = check_pair("complex_correlation", a, b, mask)
    x, y = first[inside], second[inside]
    if is_flat(x) or is_flat(y):
        return math.nan
    x, y = x - x.mean(), y - y.mean()
    return float(abs(np.vdot(x, y)) / (np.linalg.norm(x) * np.linalg.norm(y)))


def mae(a: ArrayLike, b: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Mean of |a − b| over the mask; (H, W) real or complex, in their unit. DataError as in `complex_correlation`."""
    first, second, inside = check_pair("mae", a, b, mask)
    return float(np.abs(first - second)[inside].mean())


def mse(a: ArrayLike, b: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Mean of |a − b|² over the mask; (H, W) real or complex, in their unit squared."""
    first, second, inside = check_pair("mse", a, b, mask)
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
        expected, received = "11 x 11 pixels inside, one window", f"{inside.sum()} pixels"
        raise DataError("metrics.ssim", "mask", expected=expected, received=received, remedy="Widen the mask.")
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
            received, remedy = f"no whole window on scale {scale}", "Use ssim for small images."
            raise DataError("metrics.ms_ssim", "mask", expected=expected, received=received, remedy=remedy)
        structure, luminance = _ssim_maps(first, second, data_range)
        similarity = structure * luminance if scale == len(MS_SSIM_WEIGHTS) else structure
        score *= max(0.0, float(similarity[windows].mean())) ** weight
        if scale < len(MS_SSIM_WEIGHTS):
            first, second, inside = _halve(first), _halve(second), _halve(inside) == 1
    return score


def _ssim_maps(a: Image, b: Image, data_range: float) -> tuple[Image, Image]:
    """Contrast times structure, and luminance, of every pixel's window: Wang et al. 2004, equations 6 and 13."""

    def local_mean(image: Image) -> Image:
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


def _halve(image: Image) -> Image:
    height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    blocks = image[:height, :width].reshape(height // 2, 2, width // 2, 2)
    return np.asarray(blocks.mean(axis=(1, 3)))


# ---- checks --------------------------------------------------------------------------------------------------------


def check_pair(function: str, a: ArrayLike, b: ArrayLike, mask: ArrayLike | None) -> tuple[Image, Image, Mask]:
    """Two images, as float64 or complex128, and their mask, checked."""
    first, second = check_image(function, "first image", a), check_image(function, "second image", b)
    if first.shape != second.shape:
        remedy = "Cut both to the same pixels of the object grid."
        expected, received = f"shape {first.shape}, as the first", f"shape {second.shape}"
        raise DataError(f"metrics.{function}", "second image", expected=expected, received=received, remedy=remedy)
    if mask is None:
        return first, second, np.ones(first.shape, bool)
    inside = np.asarray(mask)
    if inside.dtype != np.bool_ or inside.shape != first.shape:
        received = f"{inside.dtype} of shape {inside.shape}"
        expected, remedy = f"booleans of shape {first.shape}", "Give True where to compare."
        raise DataError(f"metrics.{function}", "mask", expected=expected, received=received, remedy=remedy)
    if not inside.any():
        remedy = "Check that True marks the pixels to compare."
        raise DataError(f"metrics.{function}", "mask", expected="at least one pixel", received="none", remedy=remedy)
    return first, second, inside


def check_image(function: str, key: str, values: ArrayLike) -> Image:
    image = np.asarray(values)
    if image.ndim != 2 or image.dtype.kind not in "biufc" or image.size == 0:
        received = f"{image.dtype} of shape {image.shape}"
        expected, remedy = "numbers of shape (H, W)", "Give one two-dimensional image."
        raise DataError(f"metrics.{function}", key, expected=expected, received=received, remedy=remedy)
    if not np.isfinite(image).all():
        remedy = "Set what was not measured to 0 and mask it."
        raise DataError(f"metrics.{function}", key, expected="finite values", received="NaN or infinity", remedy=remedy)
    return image.astype(np.complex128 if image.dtype.kind == "c" else np.float64)


def _real_pair(
    function: str, a: ArrayLike, b: ArrayLike, data_range: float, mask: ArrayLike | None
) -> tuple[Image, Image, Mask]:
    first, second, inside = check_pair(function, a, b, mask)
    _check_range(function, data_range)
    if "c" in (first.dtype.kind, second.dtype.kind):
        expected, remedy = "real numbers", "Compare amplitude and phase separately."
        raise DataError(f"metrics.{function}", "images", expected=expected, received="complex numbers", remedy=remedy)
    return first, second, inside


def _check_range(function: str, data_range: float) -> None:
    if not (math.isfinite(data_range) and data_range > 0):
        expected, remedy = "a positive number", "Take the truth's peak-to-peak; a flat truth has none."
        raise DataError(f"metrics.{function}", "data_range", expected=expected, received=data_range, remedy=remedy)


def is_flat(values: Image) -> bool:
    """No variance beyond the round-off of single precision."""
    return bool(np.std(values) <= FLAT * np.abs(values).max())
