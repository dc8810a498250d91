"""R, deviance, bad frames and trust map of a reconstruction, against sums written here."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
from ptycho_core_reference import ReferenceEngine

from ptycho_core.engine.problem import FrameFacts
from ptycho_core.errors import Cancelled
from ptycho_core.physics.patches import extract_patches
from ptycho_core.reconstruction.evidence import measured, misfit, with_evidence
from ptycho_core.reconstruction.result import Reconstruction
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.simulation import expected_intensity, simulate
from tests.core.reconstructions import ENGINE


@pytest.fixture(scope="module")
def scan() -> Scan:
    made = simulate(N=16, positions=60, object="lines", photons=1e4, bad_pixels=3, seed=2)
    return attrs.evolve(made, scan_index=np.arange(60) + 500, nominal_positions_px=None)


def solved(scan: Scan, rows: Any = None, **changes: Any) -> Reconstruction:
    """The truth as a reconstruction, at the scan's own coordinates."""
    assert scan.object_field is not None
    rows = np.arange(len(scan)) if rows is None else rows
    fields: dict[str, Any] = {
        "object_field": scan.object_field,
        "origin_px": (0.0, 0.0),
        "overlap_count": np.ones(scan.object_field.shape, np.int32),
        "probe": scan.probe,
        "positions_px": scan.positions_px[rows],
        "patterns": len(rows),
        "seconds": {"total": 1.0},
        "engine": ENGINE,
    }
    return Reconstruction(**{**fields, **changes})


def sums(scan: Scan, factor: float = 1.0) -> tuple[Any, Any, Any]:
    """(M,): Σ(√I − A)², ΣA² and Σ of the deviance over the good pixels, with the true object and probe."""
    patches = extract_patches(scan.object_field, scan.positions_px, scan.N)  # type: ignore[arg-type]
    intensity = factor * expected_intensity(scan.probe.astype(np.complex128), patches.astype(np.complex128))
    amplitude, good = scan.diffraction_amplitude[:].astype(np.float64), ~np.asarray(scan.bad_pixels)
    counts = amplitude**2
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithm = np.where(counts > 0, counts * np.log(counts / intensity), 0)
    deviance = 2 * (intensity - counts + logarithm)
    return tuple((term * good).sum(axis=(1, 2)) for term in ((np.sqrt(intensity) - amplitude) ** 2, counts, deviance))


def test_the_truth_fits_to_photon_noise(scan: Scan) -> None:
    rows = np.arange(60)
    result = measured(solved(scan), scan, rows, ReferenceEngine(), ExecutionConfig())
    assert result.intensities is not None
    factor = result.intensities[0]
    assert factor == pytest.approx(1, abs=0.02)
    error, power, deviance = sums(scan, factor)
    assert pytest.approx(error.sum() / power.sum(), rel=1e-4) == result.R
    assert result.H is None
    np.testing.assert_allclose(result.frame_R, error / power, rtol=1e-4)
    pixels = (~np.asarray(scan.bad_pixels)).sum()
    np.testing.assert_allclose(result.frame_deviance, deviance / pixels, rtol=1e-3)
    assert result.deviance == pytest.approx(deviance.mean() / pixels, rel=1e-3)
    assert result.deviance_error == pytest.approx(deviance.std() / np.sqrt(60) / pixels, rel=1e-3)
    assert result.summary()["deviance_of"] == "all good pixels"
    np.testing.assert_array_equal(result.frames, rows + 500)
    assert (result.source, result.dose_known) == ("simulation", True)


def test_the_scale_of_a_network_is_no_misfit(scan: Scan) -> None:
    """Object and probe of a network are known to a factor."""
    rows = np.arange(60)
    plain = measured(solved(scan), scan, rows, ReferenceEngine(), ExecutionConfig())
    louder = solved(scan, probe=(3 * scan.probe).astype(np.complex64))
    scaled = measured(louder, scan, rows, ReferenceEngine(), ExecutionConfig())
    assert pytest.approx(plain.R, rel=1e-4) == scaled.R
    np.testing.assert_allclose(scaled.predicted_error, plain.predicted_error, rtol=1e-3)


def test_bad_frames_are_found_and_doubted(scan: Scan) -> None:
    amplitude = scan.diffraction_amplitude[:].copy()
    amplitude[[7, 31]] = np.roll(amplitude[[7, 31]], 3, axis=2)
    spoiled = attrs.evolve(scan, diffraction_amplitude=amplitude)
    result = measured(solved(scan), spoiled, np.arange(60), ReferenceEngine(), ExecutionConfig())
    assert set(result.summary()["bad_frames"]) == {507, 531}
    plain = measured(solved(scan), scan, np.arange(60), ReferenceEngine(), ExecutionConfig())
    assert result.predicted_error is not None
    assert plain.predicted_error is not None
    x, y = scan.positions_px[7].astype(int)
    assert result.predicted_error[y, x] > 1.3 * plain.predicted_error[y, x]


def test_a_frame_with_several_patches_is_measured_once_and_counted_for_each(scan: Scan) -> None:
    rows = np.array([4, 9, 4, 30, 9, 4])
    once = measured(solved(scan), scan, np.arange(60), ReferenceEngine(), ExecutionConfig())
    result = measured(solved(scan, rows), scan, rows, ReferenceEngine(), ExecutionConfig())
    assert result.frame_R is not None
    assert once.frame_R is not None
    np.testing.assert_array_equal(result.frames, rows + 500)
    np.testing.assert_allclose(result.frame_R, once.frame_R[rows], rtol=0.02)
    assert result.frame_R[0] == result.frame_R[2] == result.frame_R[5]


def test_a_pattern_of_median_misfit_is_kept_with_its_model(scan: Scan) -> None:
    result = measured(solved(scan), scan, np.arange(60), ReferenceEngine(), ExecutionConfig())
    assert result.pattern_frame is not None
    assert result.frame_R is not None
    assert result.intensities is not None
    row = result.pattern_frame - 500
    assert (result.frame_R < result.frame_R[row]).sum() == 30
    np.testing.assert_array_equal(result.measured_amplitude, scan.diffraction_amplitude[row])
    patch = extract_patches(scan.object_field, scan.positions_px[[row]], 16)  # type: ignore[arg-type]
    modelled = np.sqrt(result.intensities[row] * expected_intensity(scan.probe, patch)[0])
    np.testing.assert_allclose(result.modelled_amplitude, modelled, rtol=1e-5)


def test_what_was_not_known_before_stays_unknown(scan: Scan) -> None:
    assert scan.object_field is not None
    known = np.ones(scan.object_field.shape, bool)
    known[20:25, 20:25] = False
    result = measured(solved(scan, known=known), scan, np.arange(60), ReferenceEngine(), ExecutionConfig())
    assert result.known is not None
    assert result.predicted_error is not None
    assert not result.known[20:25, 20:25].any()
    assert np.isnan(result.predicted_error[20:25, 20:25]).all()


def test_an_engine_without_a_solver_says_so(scan: Scan, core_log: pytest.LogCaptureFixture) -> None:
    class Networks:
        name = "networks"

    result = measured(solved(scan), scan, np.arange(60), Networks(), ExecutionConfig())  # type: ignore[arg-type]
    assert result.R is None
    assert result.source == "simulation"
    assert "backend networks has no solver, which R and the trust map need" in core_log.text


def test_measuring_can_be_stopped(scan: Scan) -> None:
    with pytest.raises(Cancelled):
        measured(solved(scan), scan, np.arange(60), ReferenceEngine(), ExecutionConfig(), should_stop=lambda: True)


# -- held-out pixels -------------------------------------------------------------------------------------------------


def facts(held: bool) -> FrameFacts:
    """Two frames of 100 pixels, of which 4 and 6 are held out."""
    fields = {
        "error": [1.0, 3.0],
        "power": [100.0, 200.0],
        "held_error": [0.5, 0.7],
        "held_power": [10.0, 20.0],
        "deviance": [96.0, 188.0],
        "held_deviance": [8.0, 9.0],
        "held_deviance_squares": [20.0, 30.0],
        "pixels": [96.0, 94.0],
        "held_pixels": [4.0, 6.0],
        "intensity": [100.0, 200.0],
    }
    empty = {name: [0.0, 0.0] for name in fields if name.startswith("held")}
    arrays = {name: np.array(values) for name, values in ({**fields, **({} if held else empty)}).items()}
    return FrameFacts(**arrays, shift_px=np.full((2, 2), np.nan))


def test_held_out_pixels_are_what_is_judged_by() -> None:
    figures = misfit(facts(True))
    assert figures["R"] == pytest.approx(4 / 300)
    assert figures["H"] == pytest.approx(1.2 / 30)
    assert figures["deviance"] == pytest.approx(1.7)
    assert figures["deviance_error"] == pytest.approx(np.sqrt((5.0 - 1.7**2) / 10))
    assert figures["frame_deviance"] == pytest.approx([2.0, 1.5])


def test_without_held_out_pixels_all_used_ones_judge() -> None:
    figures = misfit(facts(False))
    assert figures["H"] is None
    assert figures["deviance"] == pytest.approx(284 / 190)
    assert figures["deviance_error"] == pytest.approx(46 * np.sqrt(2) / 190)
    assert figures["frame_deviance"] == pytest.approx([1.0, 2.0])


def test_a_frame_of_zeros_has_no_r_and_is_not_bad() -> None:
    empty = attrs.evolve(facts(True), power=np.array([0.0, 200.0]), held_pixels=np.array([0.0, 6.0]))
    figures = misfit(empty)
    assert np.isnan(figures["frame_R"]).tolist() == [True, False]
    assert np.isnan(figures["frame_deviance"]).tolist() == [True, False]


def test_facts_of_a_solver_become_its_evidence(scan: Scan) -> None:
    part = scan.subset(np.array([3, 8]))
    result = with_evidence(solved(part), part, np.arange(2), facts(True), counts_per_intensity=2.0)
    assert (pytest.approx(4 / 300), pytest.approx(1.2 / 30)) == (result.R, result.H)
    assert result.summary()["deviance_of"] == "held-out pixels"
    assert result.frames is not None
    assert result.frames.tolist() == [503, 508]
    other = with_evidence(solved(part), part, np.arange(2), facts(True))
    np.testing.assert_allclose(result.predicted_error, other.predicted_error / np.sqrt(2), rtol=1e-5)  # type: ignore[operator]
