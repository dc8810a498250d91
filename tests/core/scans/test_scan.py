"""A scan is checked where it enters: what does not fit is refused with source, key, expected, received and remedy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ptycho_core.errors import DataError
from ptycho_core.scans.scan import Scan
from tests.core.refusals import refusal_of

N, COUNT = 8, 3


def good() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "diffraction_amplitude": rng.uniform(1, 2, (COUNT, N, N)),
        "positions_px": rng.uniform(0, 30, (COUNT, 2)),
        "probe": rng.normal(size=(2, N, N)) + 1j * rng.normal(size=(2, N, N)),
        "source": "run42.npz",
    }


def changed(array: Any, index: Any, value: Any) -> Any:
    copy = np.array(array)
    copy[index] = value
    return copy


AMPLITUDE, POSITIONS, PROBE = (good()[key] for key in ("diffraction_amplitude", "positions_px", "probe"))
NO_GOOD_PIXEL = np.ones((N, N), bool)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("diffraction_amplitude", None, r"expected \(M, N, N\) real numbers; received dtype object"),
        ("diffraction_amplitude", AMPLITUDE[0], r"expected \(M, N, N\) real numbers; received shape \(8, 8\)"),
        (
            "diffraction_amplitude",
            AMPLITUDE[:, :, :6],
            r"expected square patterns .*; received \(3, 8, 6\)\. Crop or pad",
        ),
        ("diffraction_amplitude", AMPLITUDE[:0], r"expected at least one pattern.*; received \(0, 8, 8\)"),
        ("diffraction_amplitude", AMPLITUDE[:, :0, :0], r"expected at least one pattern.*; received \(3, 0, 0\)"),
        ("diffraction_amplitude", AMPLITUDE * 1j, "expected .* real numbers; received dtype complex128. Convert"),
        ("diffraction_amplitude", changed(AMPLITUDE, (1, 2, 3), np.nan), "expected finite values; received NaN"),
        ("diffraction_amplitude", changed(AMPLITUDE, (1, 2, 3), -np.inf), "expected finite values; received NaN"),
        ("diffraction_amplitude", changed(AMPLITUDE, (1, 2, 3), -2), "expected values >= 0; received a minimum of -2"),
        ("diffraction_amplitude", np.zeros_like(AMPLITUDE), "expected some counts in good pixels; received zeros only"),
        ("diffraction_amplitude", AMPLITUDE.astype(str), "expected .* real numbers; received dtype <U"),
        ("positions_px", None, r"expected \(M, 2\) real numbers; received dtype object"),
        ("positions_px", POSITIONS.ravel(), r"expected \(M, 2\) real numbers; received shape \(6,\)"),
        ("positions_px", POSITIONS[:2], r"expected shape \(3, 2\); received shape \(2, 2\)\. Give one \[x, y\]"),
        ("positions_px", POSITIONS.T, r"expected shape \(3, 2\); received shape \(2, 3\)"),
        ("positions_px", POSITIONS + 0j, "expected .* real numbers; received dtype complex128"),
        ("positions_px", changed(POSITIONS, (2, 0), np.nan), "expected finite coordinates; received NaN or infinity"),
        ("probe", None, r"expected \(modes, N, N\) complex numbers; received dtype object"),
        ("probe", PROBE[:, :6, :6], r"expected shape \(modes, 8, 8\); received shape \(2, 6, 6\)\. Resample .* 8 x 8"),
        ("probe", PROBE[:0], r"expected shape \(modes, 8, 8\); received shape \(0, 8, 8\)"),
        ("probe", PROBE[None], r"expected \(modes, N, N\) complex numbers; received shape \(1, 2, 8, 8\)"),
        ("probe", PROBE * 0, "expected finite values, not all zero"),
        ("probe", changed(PROBE, (0, 0, 0), np.nan), "expected finite values, not all zero; received NaN"),
        ("bad_pixels", np.zeros((4, 4), bool), r"expected shape \(8, 8\) with at least one good .* shape \(4, 4\)"),
        (
            "bad_pixels",
            NO_GOOD_PIXEL,
            "expected .* with at least one good pixel; received .*64 bad.* Check that the mask is True where",
        ),
        ("bad_pixels", np.full((N, N), 2), r"expected \(N, N\) booleans, True = bad; received dtype int64"),
        ("bad_pixels", np.zeros((N, N)), "expected .* booleans, True = bad; received dtype float64"),
        ("object_field", np.ones(5), r"expected \(H, W\) complex numbers; received shape \(5,\)"),
        ("object_field", np.full((5, 5), np.nan), "expected finite values; received NaN or infinity. Drop it"),
        ("nominal_positions_px", POSITIONS[:1], "expected 3 entries, one per pattern; received 1"),
        ("scan_index", np.arange(4), "expected 3 entries, one per pattern; received 4"),
        ("scan_index", np.arange(3.0), r"expected \(M,\) integers; received dtype float64"),
    ],
)
def test_what_does_not_fit_is_refused_by_source_and_key(key: str, value: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"^run42\.npz: {key}( \([a-zA-Z0-9_, ]+\))?: {message}"):
        Scan(**{**good(), key: value})


def test_counts_in_bad_pixels_only_are_no_counts() -> None:
    hot = np.zeros((N, N), bool)
    hot[2, 3] = True
    with pytest.raises(DataError, match=r"run42\.npz: diffraction_amplitude \(diff3d\): expected some counts"):
        Scan(**{**good(), "diffraction_amplitude": np.ones((COUNT, N, N)) * hot, "bad_pixels": hot})


def test_arrays_are_converted_to_the_types_of_the_contract() -> None:
    scan = Scan(**good(), bad_pixels=np.eye(N, dtype=int), object_field=np.ones((9, 7)), scan_index=[3, 1, 2])
    received = {
        name: (getattr(scan, name).dtype.name, getattr(scan, name).shape)
        for name in (
            "diffraction_amplitude",
            "positions_px",
            "probe",
            "bad_pixels",
            "object_field",
            "nominal_positions_px",
            "scan_index",
        )
    }
    assert received == {
        "diffraction_amplitude": ("float32", (COUNT, N, N)),
        "positions_px": ("float64", (COUNT, 2)),
        "probe": ("complex64", (2, N, N)),
        "bad_pixels": ("bool", (N, N)),
        "object_field": ("complex64", (9, 7)),
        "nominal_positions_px": ("float64", (COUNT, 2)),
        "scan_index": ("int64", (COUNT,)),
    }


def test_a_two_dimensional_probe_is_one_mode() -> None:
    scan = Scan(**{**good(), "probe": PROBE[0]})
    np.testing.assert_array_equal(scan.probe, PROBE[:1].astype(np.complex64))


def test_a_real_probe_is_a_complex_one() -> None:
    scan = Scan(**{**good(), "probe": np.ones((N, N))})
    assert scan.probe.dtype == np.complex64
    assert scan.probe.sum() == N * N


def test_what_is_left_out_has_its_default() -> None:
    scan = Scan(**good())
    assert (scan.N, len(scan), scan.object_field, scan.dose_known) == (N, COUNT, None, False)
    assert not np.any(scan.bad_pixels)
    np.testing.assert_array_equal(scan.nominal_positions_px, scan.positions_px)
    np.testing.assert_array_equal(scan.scan_index, [0, 1, 2])


@pytest.mark.parametrize(
    ("index", "frames"),
    [(np.array([2, 0]), [2, 0]), (slice(1, None), [1, 2]), (np.array([True, False, True]), [0, 2])],
    ids=["integers", "slice", "booleans"],
)
def test_a_subset_takes_the_chosen_frames_of_every_array(index: Any, frames: list[int]) -> None:
    nominal = POSITIONS + 0.25
    scan = Scan(**good(), nominal_positions_px=nominal, scan_index=[10, 11, 12], dose_known=True, metadata={"a": 1})
    part = scan.subset(index)
    np.testing.assert_array_equal(part.diffraction_amplitude, AMPLITUDE[frames].astype(np.float32))
    np.testing.assert_array_equal(part.positions_px, POSITIONS[frames])
    np.testing.assert_array_equal(part.nominal_positions_px, nominal[frames])
    np.testing.assert_array_equal(part.scan_index, np.array([10, 11, 12])[frames])
    assert (part.dose_known, part.metadata, part.source) == (True, {"a": 1}, "run42.npz")


def test_an_empty_subset_is_refused() -> None:
    with pytest.raises(DataError, match="expected at least one pattern"):
        Scan(**good()).subset(np.zeros(COUNT, bool))


@pytest.mark.parametrize("key", ["diffraction_amplitude", "positions_px", "probe"])
def test_a_scan_needs_patterns_positions_and_probe(key: str) -> None:
    fields = good()
    del fields[key]
    with pytest.raises(TypeError, match=key):
        Scan(**fields)


# -- counts ------------------------------------------------------------------------------------------------------------


def test_counts_are_rooted_exactly_and_their_dose_is_known() -> None:
    counts = np.arange(2 * 4 * 4, dtype=np.uint16).reshape(2, 4, 4) ** 2
    scan = Scan.from_counts(counts, np.zeros((2, 2)), np.ones((4, 4), complex), source="mine")
    np.testing.assert_array_equal(scan.diffraction_amplitude, np.arange(32.0).reshape(2, 4, 4))
    assert scan.dose_known and scan.source == "mine"
    assert not Scan.from_counts(counts, np.zeros((2, 2)), np.ones((4, 4), complex), dose_known=False).dose_known


def test_counts_are_not_taken_for_amplitudes() -> None:
    counts = np.ones((2, 4, 4), np.int32)
    refusal_of(
        lambda: Scan(diffraction_amplitude=counts, positions_px=np.zeros((2, 2)), probe=np.ones((4, 4), complex)),
        DataError,
        "received dtype int32, as detectors count",
        "Scan.from_counts",
    )
    for bad, received in ((-counts, "a minimum of -1"), (counts * 1j, "dtype complex128")):
        refusal_of(
            lambda bad=bad: Scan.from_counts(bad, np.zeros((2, 2)), np.ones((4, 4), complex)),
            DataError,
            key="counts",
            received=received,
        )
