"""Scaling, probe gauge, masks, smoothing and merge weights are what specs/physics.md says."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ptycho_core.physics.illumination import Illumination, calibrated_probe, mean_frame_intensity
from ptycho_core.physics.weights import merge_weight, outside_centre_mask, probe_mask, smoothing_matrix
from ptycho_core.scans.scan import Scan
from ptycho_core.vocabulary import COUNTS_PER_INTENSITY, INPUT_SCALE, MEAN_INTENSITY, PROBE
from tests.networks import cnn

N = 16


def scan(**changes: Any) -> Scan:
    rng = np.random.default_rng(0)
    fields = {
        "diffraction_amplitude": rng.uniform(0, 30, (5, N, N)),
        "positions_px": rng.uniform(0, 30, (5, 2)),
        "probe": rng.normal(size=(2, N, N)) + 1j * rng.normal(size=(2, N, N)),
    }
    return Scan(**{**fields, **changes})


# -- scale ---------------------------------------------------------------------------------------------------------


def test_scaled_frames_have_the_mean_power_of_a_quarter_n_squared() -> None:
    scanned = scan()
    k = Illumination.of(scanned, nphotons=1e9).input_scale
    power = np.sum((k * scanned.diffraction_amplitude.astype(np.float64)) ** 2, axis=(1, 2))
    assert power.mean() == pytest.approx((N / 2) ** 2, rel=1e-6)


@settings(max_examples=20)
@given(factor=st.floats(1e-6, 1e6))
def test_scaled_frames_do_not_depend_on_the_unit_of_the_data(factor: float) -> None:
    one, other = scan(), scan(diffraction_amplitude=scan().diffraction_amplitude * factor)
    first = Illumination.of(one, nphotons=1e9).input_scale * one.diffraction_amplitude
    second = Illumination.of(other, nphotons=1e9).input_scale * other.diffraction_amplitude
    np.testing.assert_allclose(second, first, rtol=1e-5)


def test_mean_frame_intensity_is_the_mean_over_the_frames() -> None:
    expected = np.sum(np.square(scan().diffraction_amplitude, dtype=np.float64)) / 5
    np.testing.assert_allclose(mean_frame_intensity(scan()), expected, rtol=1e-12)


def facts(scan: Scan) -> tuple[float, float, float]:
    lit = Illumination.of(scan, nphotons=1e9)
    return lit.input_scale, lit.mean_intensity, lit.counts_per_intensity


def test_bad_pixels_are_left_out_of_every_mean() -> None:
    bad = np.zeros((N, N), bool)
    bad[2:4, 5] = True
    hot = scan(bad_pixels=bad).diffraction_amplitude.copy()
    hot[:, bad] = 1e6
    one, other = scan(bad_pixels=bad), scan(bad_pixels=bad, diffraction_amplitude=hot)
    assert facts(one) == facts(other)
    good = one.diffraction_amplitude[:, ~bad].astype(np.float64)
    assert Illumination.of(one, nphotons=1e9).mean_intensity == pytest.approx(np.mean(good**2), rel=1e-6)
    np.testing.assert_array_equal(calibrated_probe(one, "mean"), calibrated_probe(other, "mean"))


def test_where_the_dose_is_unknown_nphotons_says_it() -> None:
    measured = Illumination.of(scan(dose_known=False), nphotons=5e4)
    assert measured.counts_per_intensity == pytest.approx(5e4 / mean_frame_intensity(scan()))


def test_where_the_dose_is_known_it_is_measured() -> None:
    measured = Illumination.of(scan(dose_known=True), nphotons=5e4)
    assert measured.counts_per_intensity == 1


@pytest.mark.parametrize("precision", [np.complex64, np.complex128])
def test_arrays_hold_the_illumination_by_canonical_name(precision: Any) -> None:
    """Exactly: what is measured is rounded to float32 at once, and a refined probe may have come in float64."""
    measured = Illumination.of(scan(), nphotons=1e9)
    whole = attrs.evolve(measured, probe=measured.probe.astype(precision) * precision(1 + 1e-9))
    arrays = whole.arrays()
    assert {name: array.shape for name, array in arrays.items()} == {
        PROBE: (2, N, N, 2),
        INPUT_SCALE: (),
        MEAN_INTENSITY: (),
        COUNTS_PER_INTENSITY: (),
    }
    assert {array.dtype for array in arrays.values()} == {np.dtype(precision(0).real.dtype)}
    again = Illumination.from_arrays({**arrays, "trunk/kernel": np.ones(3)})
    np.testing.assert_array_equal(again.probe, whole.probe)
    assert again.probe.dtype == precision
    for name in ("input_scale", "mean_intensity", "counts_per_intensity"):
        assert getattr(again, name) == getattr(measured, name)


def test_an_illumination_does_not_change() -> None:
    """Engines keep what they make of it for as long as it lives."""
    given = scan().probe
    lit = Illumination(probe=given, input_scale=1, mean_intensity=1, counts_per_intensity=1)
    before = lit.intensity.copy()
    given[...] = 0
    np.testing.assert_array_equal(lit.intensity, before)
    with pytest.raises(ValueError, match="read-only"):
        lit.probe[...] = 0
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        lit.input_scale = 2.0  # type: ignore[misc]


@pytest.mark.parametrize("shape", [(N, N), (1, N, N + 1), (1, N, N, 2)])
def test_a_probe_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"probe: expected shape \(modes, N, N\); received \("):
        Illumination(probe=np.ones(shape), input_scale=1, mean_intensity=1, counts_per_intensity=1)


def test_the_intensity_is_summed_over_the_modes() -> None:
    lit = Illumination.of(scan(), nphotons=1e9, gauge="given")
    np.testing.assert_allclose(lit.intensity, np.sum(np.abs(scan().probe.astype(np.complex128)) ** 2, axis=0))


# -- probe ---------------------------------------------------------------------------------------------------------


def test_the_mean_gauge_gives_a_clear_object_the_mean_frame() -> None:
    probe = calibrated_probe(scan(), "mean")
    assert np.sum(np.abs(probe.astype(np.complex128)) ** 2) == pytest.approx(mean_frame_intensity(scan()), rel=1e-6)


def test_the_mean_gauge_multiplies_by_a_positive_number() -> None:
    ratio = calibrated_probe(scan(), "mean") / scan().probe
    np.testing.assert_allclose(ratio, ratio[0, 0, 0].real, rtol=1e-5)
    assert ratio[0, 0, 0].real > 0


def test_the_given_gauge_leaves_the_probe_as_it_is() -> None:
    np.testing.assert_array_equal(calibrated_probe(scan(), "given"), scan().probe)


def test_pairs_are_real_and_imaginary_part() -> None:
    pairs = Illumination.of(scan(), nphotons=1e9, gauge="given").pairs
    assert (pairs.shape, pairs.dtype.name) == ((2, N, N, 2), "float32")
    np.testing.assert_array_equal(pairs[..., 1], scan().probe.imag)


# -- masks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("N", [32, 64])
def test_the_probe_mask_is_a_disk_about_the_centre_pixel(N: int) -> None:
    mask = probe_mask(N)
    row = mask[N // 2]
    np.testing.assert_array_equal(np.flatnonzero(row), np.arange(N // 4, 3 * N // 4 + 1))
    np.testing.assert_array_equal(mask, mask.T)
    assert set(np.unique(mask)) == {0.0, 1.0}
    assert mask.sum() == pytest.approx(np.pi * (N / 4) ** 2, rel=0.05)


@pytest.mark.parametrize("N", [32, 48])
def test_the_outer_mask_leaves_out_the_central_half(N: int) -> None:
    mask = outside_centre_mask(N)
    inside = np.zeros((N, N), bool)
    inside[N // 4 : 3 * N // 4, N // 4 : 3 * N // 4] = True
    np.testing.assert_array_equal(mask == 0, inside)
    assert mask.sum() == N * N * 3 / 4


# -- smoothing -----------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(sigma=st.floats(0.05, 8), N=st.sampled_from([16, 32]), seed=st.integers(0, 9))
def test_smoothing_is_scipys_gaussian_with_zeros_outside(sigma: float, N: int, seed: int) -> None:
    field = np.random.default_rng(seed).normal(size=(N, N))
    matrix = smoothing_matrix(N, sigma)
    reference = gaussian_filter(field, sigma, mode="constant", truncate=4)
    np.testing.assert_allclose(matrix @ field @ matrix.T, reference, atol=1e-13)


# -- merge weights -------------------------------------------------------------------------------------------------


def intensity_of_two_modes() -> NDArray[np.float64]:
    return np.square(np.random.default_rng(0).normal(size=(2, N, N, 2))).sum(axis=(0, 3))


def test_probe_weights_are_the_summed_intensity_in_units_of_its_peak_and_a_floor() -> None:
    intensity = intensity_of_two_modes()
    weight = merge_weight(intensity_of_two_modes(), cnn(N=N))
    np.testing.assert_allclose(weight, intensity / intensity.max() + 1e-3, rtol=1e-12)


def test_probe_weights_are_masked_with_the_probe() -> None:
    weight = merge_weight(intensity_of_two_modes(), cnn(N=N, probe_mask=True))
    np.testing.assert_array_equal(weight[probe_mask(N) == 0], 1e-3)
    assert weight.max() == pytest.approx(1.001)


@pytest.mark.parametrize("kind", ["uniform", "central"])
def test_other_weights_do_not_depend_on_the_probe(kind: Any) -> None:
    expected = np.ones((N, N)) if kind == "uniform" else 1 - outside_centre_mask(N)
    np.testing.assert_array_equal(
        merge_weight(intensity_of_two_modes(), cnn(N=N, gridsize=2, merge_weights=kind)), expected
    )


@pytest.mark.parametrize("masked", [False, True])
def test_a_clear_object_has_amplitude_one_behind_a_beamstop(masked: bool) -> None:
    y, x = np.mgrid[:32, :32] - 16
    probe = np.exp(-(x**2 + y**2) / 72 + 0.03j * x**2)
    lit = probe * probe_mask(32) if masked else probe
    pattern = np.abs(np.fft.fftshift(np.fft.fft2(lit, norm="ortho")))
    beamstop = np.hypot(x, y) < 4
    scan = Scan(
        diffraction_amplitude=np.stack([7 * pattern] * 3),
        positions_px=np.array([[16.0, 16], [20, 16], [16, 20]]),
        probe=probe,
        bad_pixels=beamstop,
    )
    calibrated = calibrated_probe(scan, "mean", masked=masked)
    np.testing.assert_allclose(calibrated[0], 7 * probe, rtol=0, atol=7e-6)
