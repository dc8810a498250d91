"""Metrics against hand values, independent implementations and the ambiguity group of ptychography."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from ptycho_core.errors import DataError
from ptycho_core.quality import alignment, area, evaluation, frc, metrics

SHAPE = (72, 90)


def smooth_field(shape: tuple[int, int] = SHAPE, *, seed: int = 0, phase: float = 0.8, sigma: float = 2.0) -> Any:
    """A periodic complex field of amplitude about 1, band-limited for all practical purposes."""
    rng = np.random.default_rng(seed)
    amplitude, angle = (ndimage.gaussian_filter(rng.standard_normal(shape), sigma, mode="wrap") for _ in range(2))
    return (1 + 0.1 * amplitude / amplitude.std()) * np.exp(1j * phase * angle / angle.std())


def moved(field: NDArray[Any], shift: tuple[float, float]) -> Any:
    """field([x, y] − shift), by Fourier interpolation."""
    v, u = (np.fft.fftfreq(side) for side in field.shape)
    phase = np.exp(-2j * np.pi * (u[None] * shift[0] + v[:, None] * shift[1]))
    return np.fft.ifft2(np.fft.fft2(field) * phase)


def disguised(
    field: NDArray[Any], shift: tuple[float, float], ramp: tuple[float, float], phase: float, scale: float
) -> Any:
    y, x = np.indices(field.shape)
    return scale * np.exp(1j * (phase + ramp[0] * x + ramp[1] * y)) * moved(field, shift)


def middle(shape: tuple[int, int] = SHAPE, margin: int = 18) -> NDArray[np.bool_]:
    mask = np.zeros(shape, bool)
    mask[margin:-margin, margin:-margin] = True
    return mask


# ---- point by point


def test_complex_correlation_of_hand_made_vectors() -> None:
    a = np.array([[1.0, -1.0, 1.0, -1.0]])
    b = np.array([[1.0, -1.0, -1.0, 1.0]]) * 1j
    assert metrics.complex_correlation(a, a * (2 - 3j) + 5) == pytest.approx(1)
    assert metrics.complex_correlation(a, b) == pytest.approx(0, abs=1e-15)
    assert metrics.complex_correlation(a, a + 1j * b.imag) == pytest.approx(math.sqrt(0.5))


def test_complex_correlation_looks_inside_the_mask_only() -> None:
    a, b = smooth_field(seed=1), smooth_field(seed=1)
    b[:5] = 100
    mask = np.ones(SHAPE, bool)
    mask[:5] = False
    assert metrics.complex_correlation(a, b) < 0.5
    assert metrics.complex_correlation(a, b, mask) == pytest.approx(1)


def test_complex_correlation_without_variance_is_nan() -> None:
    assert math.isnan(metrics.complex_correlation(np.full((4, 4), 3.1, np.float32), np.eye(4)))


def test_point_metrics_by_hand() -> None:
    truth, estimate = np.array([[0.0, 1.0], [2.0, 4.0]]), np.array([[0.0, 1.0], [2.0, 2.0]])
    assert metrics.mae(estimate, truth) == pytest.approx(0.5)
    assert metrics.mse(estimate, truth) == pytest.approx(1.0)
    assert metrics.psnr(estimate, truth, 4.0) == pytest.approx(20 * math.log10(4))
    assert metrics.psnr(truth, truth, 4.0) == math.inf
    assert metrics.mae(truth * 1j, truth) == pytest.approx(math.sqrt(2) * 7 / 4)  # |i − 1| = √2


# ---- structural similarity


def direct_ssim(a: NDArray[np.float64], b: NDArray[np.float64], data_range: float) -> float:
    """Window by window, straight from the paper."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    values = []
    for row in range(5, a.shape[0] - 5):
        for column in range(5, a.shape[1] - 5):
            x, y = (image[row - 5 : row + 6, column - 5 : column + 6] for image in (a, b))
            mean_x, mean_y = (window * x).sum(), (window * y).sum()
            var_x, var_y = (window * (x - mean_x) ** 2).sum(), (window * (y - mean_y) ** 2).sum()
            covariance = (window * (x - mean_x) * (y - mean_y)).sum()
            luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
            values.append(luminance * (2 * covariance + c2) / (var_x + var_y + c2))
    return float(np.mean(values))


def test_ssim_agrees_with_a_direct_implementation() -> None:
    rng = np.random.default_rng(3)
    a = rng.random((19, 24))
    b = a + 0.2 * rng.standard_normal(a.shape)
    assert metrics.ssim(a, b, 1.0) == pytest.approx(direct_ssim(a, b, 1.0), rel=1e-10)


def test_ssim_in_a_mask_is_that_of_the_box_it_marks() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.random((2, 30, 36))
    mask = np.zeros(a.shape, bool)
    mask[4:25, 6:30] = True
    b[~mask] = 1e3
    assert metrics.ssim(a, b, 1.0, mask) == pytest.approx(direct_ssim(a[4:25, 6:30], b[4:25, 6:30], 1.0), rel=1e-9)


def test_similarity_of_identical_images_is_one() -> None:
    image = np.abs(smooth_field((180, 177)))
    assert metrics.ssim(image, image, 1.0) == pytest.approx(1)
    assert metrics.ms_ssim(image, image, 1.0) == pytest.approx(1)


def test_ms_ssim_of_two_constants_is_the_luminance_of_the_last_scale() -> None:
    a, b = np.full((176, 176), 2.0), np.full((176, 176), 1.0)
    assert metrics.ms_ssim(a, b, 1.0) == pytest.approx(((4 + 1e-4) / (5 + 1e-4)) ** 0.1333)


def test_ms_ssim_weighs_the_scales() -> None:
    """A checkerboard exists on the finest scale alone: lost there, it costs only that scale's small weight."""
    flat = np.full((176, 176), 0.5)
    checkerboard = flat + 0.1 * (-1.0) ** np.indices(flat.shape).sum(axis=0)
    c2 = 0.03**2
    assert metrics.ms_ssim(checkerboard, flat, 1.0) == pytest.approx((c2 / (0.1**2 + c2)) ** 0.0448, rel=1e-3)


def test_ms_ssim_names_the_smallest_size() -> None:
    with pytest.raises(DataError, match="176 x 176"):
        metrics.ms_ssim(np.ones((175, 300)), np.ones((175, 300)), 1.0)


# ---- Fourier ring correlation


def test_ms_ssim_looks_inside_the_mask_only() -> None:
    rng = np.random.default_rng(14)
    a, b = np.abs(smooth_field((220, 220))), rng.random((220, 220))
    mask = np.zeros(a.shape, bool)
    mask[7:205, 7:205] = True  # its border falls between the pixels of the coarser scales
    assert metrics.ms_ssim(a, np.where(mask, a, 9 * b), 1.0, mask) == pytest.approx(1)


def test_frc_of_identical_images_is_one_up_to_nyquist() -> None:
    field = smooth_field(seed=5)
    result = frc.frc(field, field)
    np.testing.assert_allclose(result.correlation, 1, atol=1e-12)
    assert result.crossing_half == 0.5
    assert result.reason is not None
    assert "Nyquist" in result.reason


def test_frc_of_opposite_images_is_minus_one() -> None:
    field = smooth_field(seed=5)
    np.testing.assert_allclose(frc.frc(field, -field).correlation, -1, atol=1e-12)


def test_frc_of_independent_noise_is_low_and_says_so() -> None:
    a, b = np.random.default_rng(6).standard_normal((2, 128, 128))
    result = frc.frc(a, b)
    assert np.abs(result.correlation).mean() < 0.12
    assert result.crossing_half < 0.05


@pytest.mark.parametrize("band", [0.12, 0.3])
@pytest.mark.parametrize("shape", [(128, 128), (128, 200)])
def test_frc_crosses_where_the_common_band_ends(band: float, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(7)
    truth, noise = rng.standard_normal((2, *shape))
    radius = np.hypot(*np.meshgrid(*(np.fft.fftfreq(side) for side in shape), indexing="ij"))
    spectrum = np.where(radius <= band, np.fft.fft2(truth), np.fft.fft2(noise))
    result = frc.frc(np.fft.ifft2(spectrum).real, truth)
    assert result.crossing_half == pytest.approx(band, abs=1.5 / 128)
    assert result.reason is None
    assert result.frequency[-1] == 0.5


def test_frc_crossing_is_interpolated_between_rings() -> None:
    a, b = np.random.default_rng(8).standard_normal((2, 64, 64))
    result = frc.frc(a, a + b * 0.5 + 6 * np.fft.ifft2(np.fft.fft2(b) * _radius(64)).real)
    index = int(np.flatnonzero(result.correlation >= 0.5)[-1]) + 1
    interpolated = np.interp(
        result.crossing_half, result.frequency[index - 1 : index + 1], result.correlation[index - 1 : index + 1]
    )
    assert interpolated == pytest.approx(0.5)


FREQUENCY = np.arange(1, 9) / 16


@pytest.mark.parametrize(
    ("curve", "crossing", "dips"),
    [
        ([0.9, 0.8, 0.7, 0.6, 0.4, 0.2, 0.1, 0.0], 0.28125, ()),
        ([0.3, 0.9, 0.9, 0.6, 0.4, 0.2, 0.1, 0.0], 0.28125, ((0.0625, 0.0625),)),
        ([0.1, 0.2, 0.9, 0.6, 0.4, 0.2, 0.1, 0.0], 0.28125, ((0.0625, 0.125),)),
        ([0.1, 0.8, 0.2, 0.6, 0.4, 0.2, 0.1, 0.0], 0.28125, ((0.0625, 0.0625), (0.1875, 0.1875))),
        ([0.1, 0.8, 0.8, 0.6, 0.7, 0.7, 0.7, 0.7], 0.5, ((0.0625, 0.0625),)),
        ([0.4, 0.1, 0.2, 0.3, 0.1, 0.0, 0.2, 0.1], 0.0, ()),
    ],
)
def test_frc_resolution_is_the_last_crossing_and_low_rings_are_said_apart(
    curve: list[float], crossing: float, dips: tuple[tuple[float, float], ...]
) -> None:
    result = frc.read_curve(FREQUENCY, np.array(curve))
    assert result.crossing_half == pytest.approx(crossing)
    assert result.dips == dips
    for low, _ in dips:
        assert f"not counted: {dips[0][0]:.3f}" in result.describe(), low


def test_frc_of_a_lost_slow_phase_keeps_its_resolution() -> None:
    """What spoils the lowest rings alone is not what limits the image."""
    rng = np.random.default_rng(21)
    truth, slow = rng.standard_normal((2, 128, 128))
    slow = np.fft.ifft2(np.fft.fft2(slow) * (_radius(128) < 0.02)).real
    fine = ndimage.gaussian_filter(truth, 1.5, mode="wrap")
    noise = 0.02 * rng.standard_normal(truth.shape)
    result = frc.frc(fine + 30 * slow, fine + noise)
    assert result.correlation[0] < 0.5
    assert result.dips[0][0] == pytest.approx(1 / 128)
    assert result.crossing_half == pytest.approx(frc.frc(fine, fine + noise).crossing_half, abs=0.02)


def test_frc_states_half_a_period_in_metres() -> None:
    result = frc.read_curve(FREQUENCY, np.array([0.9, 0.9, 0.9, 0.6, 0.4, 0.2, 0.1, 0.0]))
    assert result.half_period_m((10e-9, 10e-9)) == pytest.approx((17.78e-9, 17.78e-9), rel=1e-3)
    assert result.describe((10e-9, 10e-9)) == "0.281 cycles/px (half period 1.78 px, 17.8 nm)"
    assert result.describe((10e-9, 20e-9)) == "0.281 cycles/px (half period 1.78 px, 17.8 x 35.6 nm)"
    assert result.describe() == "0.281 cycles/px (half period 1.78 px)"
    assert result.half_period_m(None) is None
    assert frc.read_curve(FREQUENCY, np.zeros(8)).half_period_m((1e-9, 1e-9)) is None


def _radius(side: int) -> Any:
    return np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])


def test_frc_is_not_raised_by_the_border_of_a_common_slope() -> None:
    noise = np.random.default_rng(15).standard_normal((2, 96, 96))
    a, b = noise + np.linspace(-30, 30, 96)
    assert np.abs(frc.frc(a, b).correlation[16:]).mean() < 0.15


def test_frc_is_not_raised_by_the_mask_or_a_common_background() -> None:
    """A hard-edged mask on a bright background would correlate by its own shape."""
    a, b = 50 + np.random.default_rng(9).standard_normal((2, 128, 128))
    mask = np.hypot(*(np.indices(a.shape) - 63.5)) < 50
    assert np.abs(frc.frc(a, b, mask).correlation).mean() < 0.15


@pytest.mark.parametrize("flat_first", [True, False])
def test_frc_of_a_flat_image_is_nan_with_a_reason(flat_first: bool) -> None:
    pair = (np.full((32, 32), 0.7, np.float32), np.eye(32))
    result = frc.frc(*(pair if flat_first else pair[::-1]))
    assert math.isnan(result.crossing_half)
    assert np.isnan(result.correlation).all()
    assert result.reason is not None
    assert ("first" if flat_first else "second") in result.reason


def test_frc_of_too_few_pixels_is_nan_with_a_reason() -> None:
    result = frc.frc(np.eye(7), np.eye(7))
    assert math.isnan(result.crossing_half)
    assert result.reason is not None
    assert "7 x 7" in result.reason


# ---- scanned area


def test_scanned_area_of_a_rectangle_of_positions() -> None:
    corners = [[20, 30], [60, 30], [20, 50], [60, 50], [40, 40]]
    mask = area.scanned_area(corners, 16, (80, 100), (10, 20))
    rows, columns = np.nonzero(mask)
    # x 20 … 60, y 30 … 50, less N/4 = 4 on each side, less the origin
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (14, 46, 14, 26)
    assert mask.sum() == 33 * 13


def test_scanned_area_margin_is_a_distance_to_oblique_edges_too() -> None:
    triangle = np.array([[0.0, 0.0], [60.0, 0.0], [0.0, 60.0]])
    mask = area.scanned_area(triangle, 64, (61, 61), (0, 0), margin_px=5)
    y, x = np.indices(mask.shape)
    np.testing.assert_array_equal(mask, (x >= 5) & (y >= 5) & ((x + y - 60) / math.sqrt(2) <= -5))


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([[0, 0], [50, 50]], "three or more positions"),
        ([[0, 0], [50, 50], [100, 100], [20, 20]], "on one line"),
        ([[0, 0], [10, 0], [0, 10]], "smaller margin_px"),
        ([[0, 0, 0]], r"\(M, 2\)"),
    ],
)
def test_scanned_area_without_an_area_says_why(positions: list[list[float]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        area.scanned_area(positions, 64, (100, 100), (0, 0))


# ---- alignment

ambiguity = {
    "shift": st.tuples(st.floats(-12, 12), st.floats(-12, 12)),
    "ramp": st.tuples(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3)),
    "phase": st.floats(-3, 3),
    "scale": st.floats(0.2, 5),
}


@settings(max_examples=25)
@given(**ambiguity, seed=st.integers(0, 100))
@example(shift=(0.0, 12.0), ramp=(0.0, 0.25), phase=0.0, scale=1.0, seed=0)  # a ramp breaks what comes round the border
def test_align_recovers_what_was_done_to_a_periodic_field(
    shift: tuple[float, float], ramp: tuple[float, float], phase: float, scale: float, seed: int
) -> None:
    truth = smooth_field(seed=seed)
    result = alignment.align(disguised(truth, shift, ramp, phase, scale), truth)
    np.testing.assert_allclose(result.shift_px, shift, atol=1e-3)
    np.testing.assert_allclose(result.phase_ramp_rad_per_px, ramp, atol=1e-5)
    assert abs(np.exp(1j * result.global_phase_rad) - np.exp(1j * phase)) < 1e-3
    assert result.amplitude_scale == pytest.approx(scale, rel=1e-3)
    assert np.abs(result.aligned - truth)[result.mask].max() < 2e-3
    assert result.reason is None


def test_align_in_a_mask_is_not_led_astray_by_what_lies_outside() -> None:
    shape = (110, 120)
    truth, rng = smooth_field(shape, phase=0.2), np.random.default_rng(10)
    estimate = disguised(truth, (3.37, -5.81), (0.11, -0.07), 0.7, 1.3)
    measured = middle(shape, 10)
    estimate = np.where(measured, estimate, 0.3 * rng.standard_normal(shape))
    result = alignment.align(estimate, truth, middle(shape, 30))
    np.testing.assert_allclose(result.shift_px, (3.37, -5.81), atol=5e-3)
    np.testing.assert_allclose(result.phase_ramp_rad_per_px, (0.11, -0.07), atol=1e-4)
    assert result.amplitude_scale == pytest.approx(1.3, rel=1e-3)
    assert np.abs(result.aligned - truth)[result.mask].max() < 0.02


def test_align_holds_its_ground_in_noise() -> None:
    truth, rng = smooth_field((128, 128)), np.random.default_rng(11)
    noise = 0.5 * (rng.standard_normal(truth.shape) + 1j * rng.standard_normal(truth.shape))
    result = alignment.align(disguised(truth, (-4.6, 7.3), (0.2, 0.05), 1.0, 1.0) + noise, truth, middle((128, 128)))
    np.testing.assert_allclose(result.shift_px, (-4.6, 7.3), atol=0.1)
    np.testing.assert_allclose(result.phase_ramp_rad_per_px, (0.2, 0.05), atol=2e-3)


def test_align_separates_a_ramp_from_the_shift_of_a_curved_phase() -> None:
    """A shifted parabola of phase differs from itself by a ramp: only finer structure tells the two apart."""
    y, x = np.indices((128, 128)) - 64
    truth = smooth_field((128, 128), phase=0.3) * np.exp(
        2e-3j * (x**2 + y**2) * np.exp(-(((x**2 + y**2) / 45**2) ** 4))
    )
    result = alignment.align(disguised(truth, (2.4, -1.7), (0.05, 0.02), 0.0, 1.0), truth, middle((128, 128), 30))
    np.testing.assert_allclose(result.shift_px, (2.4, -1.7), atol=1e-2)
    np.testing.assert_allclose(result.phase_ramp_rad_per_px, (0.05, 0.02), atol=1e-4)


def test_align_by_whole_pixels_leaves_the_values_alone() -> None:
    truth = smooth_field()
    result = alignment.align(np.roll(truth, (-3, 5), (0, 1)), truth, middle(), remove_ramp=False, shift="integer")
    assert result.shift_px == (5.0, -3.0)
    np.testing.assert_allclose(result.aligned[result.mask], truth[result.mask], atol=1e-12)


def test_align_can_leave_ramp_and_shift_in_place() -> None:
    truth = smooth_field()
    estimate = disguised(truth, (2.0, 0.0), (0.02, 0.0), 0.0, 1.0)
    result = alignment.align(estimate, truth, remove_ramp=False, shift="none")
    assert result.shift_px == (0.0, 0.0)
    assert result.phase_ramp_rad_per_px == (0.0, 0.0)
    assert metrics.complex_correlation(result.aligned, truth) < 0.9


def test_align_leaves_out_what_came_round_the_border() -> None:
    truth = smooth_field()
    result = alignment.align(np.roll(truth, (4, -7), (0, 1)), truth)
    rows, columns = np.flatnonzero(result.mask.any(axis=1)), np.flatnonzero(result.mask.any(axis=0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (0, SHAPE[0] - 5, 7, SHAPE[1] - 1)


@pytest.mark.parametrize("shift", ["integer", "subpixel"])
@pytest.mark.parametrize("axis", [0, 1])
def test_align_searches_no_further_than_told(axis: int, shift: Any) -> None:
    truth = smooth_field()
    estimate = 0.65 * np.roll(truth, 12, axis) + 0.35 * np.roll(truth, 3, axis)
    far, near = (alignment.align(estimate, truth, shift=shift, max_shift_px=limit).shift_px for limit in (14, 6))
    assert far[1 - axis] == pytest.approx(12, abs=0.5)
    assert near[1 - axis] == pytest.approx(3, abs=1)


def test_align_does_not_creep_beyond_the_limit() -> None:
    truth = smooth_field()
    assert np.abs(alignment.align(np.roll(truth, 10, 1), truth, max_shift_px=6).shift_px).max() <= 6


def test_align_scale_is_not_lowered_by_phase_errors() -> None:
    truth, rng = smooth_field(), np.random.default_rng(12)
    result = alignment.align(1.7 * truth * np.exp(0.5j * rng.standard_normal(SHAPE)), truth)
    assert result.amplitude_scale == pytest.approx(1.7, rel=0.02)


@pytest.mark.parametrize(
    ("estimate", "truth", "reason"),
    [
        (np.zeros(SHAPE), smooth_field(), "amplitude scale"),
        (smooth_field(), np.zeros(SHAPE), "amplitude scale"),
        (np.ones(SHAPE), smooth_field(), "shift"),
        (smooth_field(), np.full(SHAPE, 2.0 + 1j), "shift"),
        (np.ones((1, 1)), np.ones((1, 1)), "shift"),
    ],
)
def test_align_without_structure_gives_reasons_and_finite_numbers(estimate: Any, truth: Any, reason: str) -> None:
    result = alignment.align(estimate, truth)
    assert np.isfinite(result.aligned).all()
    assert result.shift_px == (0.0, 0.0)
    assert result.reason is not None
    assert reason in result.reason


def test_align_of_unrelated_fields_stays_finite() -> None:
    result = alignment.align(smooth_field(seed=1), smooth_field(seed=2), middle())
    assert np.isfinite(result.aligned).all()
    assert result.mask.any()


# ---- everything together


@settings(max_examples=10)
@given(
    shift=st.tuples(st.integers(-6, 6), st.integers(-6, 6)),
    ramp=ambiguity["ramp"],
    phase=ambiguity["phase"],
    scale=ambiguity["scale"],
)
def test_evaluation_is_blind_to_the_ambiguities(
    shift: tuple[int, int], ramp: tuple[float, float], phase: float, scale: float
) -> None:
    truth, rng = smooth_field(), np.random.default_rng(13)
    noise = ndimage.gaussian_filter(rng.standard_normal((2, *SHAPE)), (0, 1, 1), mode="wrap")
    estimate = truth + 0.3 * (noise[0] + 1j * noise[1])
    plain = evaluation.evaluate_fields(estimate, truth, middle())
    other = evaluation.evaluate_fields(disguised(estimate, shift, ramp, phase, scale), truth, middle())
    assert other.correlation == pytest.approx(plain.correlation, abs=2e-3)
    assert other.frc.crossing_half == pytest.approx(plain.frc.crossing_half, abs=5e-3)
    for first, second in ((plain.amplitude, other.amplitude), (plain.phase, other.phase)):
        for name, tolerance in (("mae", 1e-3), ("mse", 1e-3), ("psnr_db", 0.2), ("ssim", 5e-3)):
            assert getattr(second, name) == pytest.approx(getattr(first, name), abs=tolerance), name
        assert second.data_range == pytest.approx(first.data_range)


def test_evaluation_before_alignment_sees_the_ramp() -> None:
    truth = smooth_field()
    result = evaluation.evaluate_fields(disguised(truth, (0, 0), (0.1, 0.1), 1.0, 2.0), truth, middle())
    assert result.correlation_before_alignment < 0.3
    assert result.correlation == pytest.approx(1, abs=1e-6)


def test_evaluation_states_errors_in_amplitude_and_radians() -> None:
    truth = smooth_field(phase=0.3)
    sign = (-1.0) ** np.indices(SHAPE).sum(axis=0)
    amplitude = evaluation.evaluate_fields(truth * (1 + 0.05 * sign), truth, middle()).amplitude
    assert amplitude.mae == pytest.approx(0.05, rel=0.05)
    assert amplitude.data_range == pytest.approx(np.ptp(np.abs(truth)[middle()]))
    assert amplitude.psnr_db == pytest.approx(10 * math.log10(amplitude.data_range**2 / amplitude.mse))
    phase = evaluation.evaluate_fields(truth * np.exp(0.2j * sign), truth, middle()).phase
    assert phase.mae == pytest.approx(0.2, rel=0.02)
    assert phase.mse == pytest.approx(0.04, rel=0.04)


def test_evaluation_wraps_phase_differences() -> None:
    truth = smooth_field(phase=0.1) * np.exp(3.1j)  # within 0.1 rad of the branch cut
    estimate = truth * np.exp(0.1j * np.sin(np.arange(SHAPE[1])))
    assert evaluation.evaluate_fields(estimate, truth, middle()).phase.mae < 0.1


def test_evaluation_is_written_as_strict_json_with_reasons() -> None:
    result = evaluation.evaluate_fields(smooth_field(seed=1), smooth_field(seed=2), middle())
    text = json.dumps(result.as_dict(), allow_nan=False)
    assert json.loads(text)["amplitude"]["ms_ssim"] is None
    assert "176 x 176" in json.loads(text)["amplitude"]["reasons"]["ms_ssim"]


def test_evaluation_of_a_flat_truth_refuses_scores_with_reasons() -> None:
    values = evaluation.evaluate_fields(smooth_field(), np.ones(SHAPE), middle()).as_dict()
    assert values["correlation"] is None
    assert {"correlation", "frc_crossing"} <= values["reasons"].keys()
    for part in ("amplitude", "phase"):
        assert values[part]["psnr_db"] is None
        assert {"psnr_db", "ssim", "ms_ssim", "frc_crossing"} == values[part]["reasons"].keys()


@pytest.mark.parametrize("phase", [0.5, 2.0, -2.5])
def test_evaluation_of_an_empty_estimate_finds_no_phase_in_it(phase: float) -> None:
    result = evaluation.evaluate_fields(np.zeros(SHAPE), smooth_field(phase=0.3) * np.exp(1j * phase), middle())
    assert "first image is flat" in result.phase.reasons["frc_crossing"]
    assert result.phase.mae > 0.1


def test_evaluation_of_a_large_field_has_every_score() -> None:
    truth = smooth_field((200, 190))
    result = evaluation.evaluate_fields(truth, truth)
    assert result.amplitude.ms_ssim == pytest.approx(1)
    assert result.phase.ms_ssim == pytest.approx(1)
    assert result.phase.frc.crossing_half == 0.5


# ---- errors and imports


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.mae(np.ones((3, 3)), np.ones((3, 4))), r"expected shape \(3, 3\)"),
        (lambda: metrics.mse(np.ones(3), np.ones(3)), r"\(H, W\)"),
        (lambda: frc.frc(np.full((9, 9), np.nan), np.ones((9, 9))), "finite"),
        (lambda: alignment.align(np.ones((3, 3)), np.ones((3, 3)), np.zeros((3, 3), bool)), "at least one pixel"),
        (lambda: alignment.align(np.ones((3, 3)), np.ones((3, 3)), np.ones((3, 3))), "booleans"),
        (lambda: alignment.align(np.eye(3), np.eye(3), shift="half"), "'subpixel', 'integer' or 'none'"),  # type: ignore[arg-type]
        (lambda: alignment.align(np.eye(3), np.eye(3), max_shift_px=-1), "max_shift_px"),
        (lambda: metrics.psnr(np.eye(3), np.eye(3), 0.0), "a positive number"),
        (lambda: metrics.ssim(np.eye(20) * 1j, np.eye(20), 1.0), "amplitude and phase separately"),
        (lambda: metrics.ssim(np.eye(10), np.eye(10), 1.0), "11 x 11"),
    ],
)
def test_what_cannot_be_compared_is_refused(call: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        call()


def test_metrics_import_no_framework_and_no_matplotlib() -> None:
    code = (
        "import sys, ptycho_core.quality.evaluation, ptycho_core.report.plots;"
        "print(sorted({'torch', 'tensorflow', 'matplotlib'} & sys.modules.keys()))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
