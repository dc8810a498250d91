"""What a reconstruction holds survives its file; what is not known stays not known; damage is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from ptycho_core.errors import DataError
from ptycho_core.quality.outliers import outliers
from ptycho_core.reconstruction.result import OPTIONAL, Reconstruction, load_reconstruction
from ptycho_core.scans.lengths import Lengths
from tests.core.reconstructions import make_reconstruction


def assert_same(after: Reconstruction, before: Reconstruction) -> None:
    for field in attrs.fields(Reconstruction):
        first, second = getattr(before, field.name), getattr(after, field.name)
        if field.name == "frc" and first is not None:
            np.testing.assert_array_equal(second.correlation, first.correlation)
            np.testing.assert_array_equal(second.frequency, first.frequency)
            assert second.as_dict() == first.as_dict()
        elif isinstance(first, np.ndarray):
            assert second.dtype == first.dtype, field.name
            np.testing.assert_array_equal(second, first, err_msg=field.name)
        else:
            assert second == first, field.name


def test_everything_survives_the_file(tmp_path: Path) -> None:
    result = make_reconstruction()
    result.save(tmp_path / "reconstruction.npz")
    loaded = load_reconstruction(tmp_path)
    assert_same(loaded, result)
    assert loaded.summary() == result.summary()


@pytest.mark.parametrize(
    "field",
    [field.name for field in attrs.fields(Reconstruction) if field.default is None],
)
def test_what_is_not_known_stays_not_known(field: str, tmp_path: Path) -> None:
    result = attrs.evolve(make_reconstruction(), **{field: None})
    result.save(tmp_path / "reconstruction.npz")
    assert_same(load_reconstruction(tmp_path), result)


def test_a_curve_without_meaning_keeps_its_reason(tmp_path: Path) -> None:
    curve = make_reconstruction().frc
    assert curve is not None
    flat = attrs.evolve(curve, correlation=np.full(16, np.nan), crossing_half=float("nan"), reason="it is flat")
    make_reconstruction(frc=flat).save(tmp_path / "reconstruction.npz")
    loaded = load_reconstruction(tmp_path).frc
    assert loaded is not None
    assert loaded.reason == "it is flat"
    assert np.isnan(loaded.crossing_half)


def test_the_summary_is_strict_json_without_nan() -> None:
    result = make_reconstruction(
        H=float("nan"), settings={"path": Path("a/b"), "rates": (np.float32(0.5), float("inf"))}
    )
    facts = json.loads(json.dumps(result.summary(), allow_nan=False))
    assert facts["H"] is None
    assert facts["settings"] == {"path": "a/b", "rates": [0.5, None]}
    assert facts["units"]["probe"] == "sqrt(photons)"
    assert facts["lengths"]["object_pixel_m"] == [40e-9, 40e-9]
    assert facts["resolution"]["half_period_m"][0] == pytest.approx(40e-9 / (2 * facts["resolution"]["cycles_per_px"]))


def test_the_summary_refuses_what_json_cannot_hold() -> None:
    with pytest.raises(TypeError, match="no Lengths"):
        make_reconstruction(settings={"lengths": Lengths()}).summary()


def test_bad_frames_are_named_by_their_number_in_the_scan() -> None:
    result = make_reconstruction()
    assert result.frames is not None
    assert result.bad_frames.tolist() == [3]
    assert result.summary()["bad_frames"] == [int(result.frames[3])]
    assert make_reconstruction(frame_deviance=None).bad_frames.tolist() == []
    assert make_reconstruction(frame_deviance=None, frame_R=None).bad_frames.tolist() == []


@pytest.mark.parametrize("key", OPTIONAL)
def test_an_array_of_another_shape_or_type_is_named(key: str, tmp_path: Path) -> None:
    path = tmp_path / "reconstruction.npz"
    for change in (lambda array: array[:-1], lambda array: array.astype("S8")):
        make_reconstruction().save(path)
        with np.load(path) as source:
            arrays = {**source, key: change(source[key])}
        np.savez(path, **arrays)
        with pytest.raises(DataError, match=rf"reconstruction\.npz: {key}: expected shape .* of kind"):
            load_reconstruction(path)


# -- frames that are out of line -------------------------------------------------------------------------------------


def test_outliers_are_found_among_many_and_worst_first() -> None:
    figures = np.exp(np.random.default_rng(0).normal(0, 0.13, 500))
    assert outliers(figures).tolist() == []
    figures[[7, 300]] = 3.0, 34.9
    assert outliers(figures).tolist() == [300, 7]


def test_a_third_of_bad_frames_does_not_hide_them() -> None:
    figures = np.exp(np.random.default_rng(1).normal(0, 0.1, 90))
    figures[::3] *= 20
    assert sorted(outliers(figures)) == list(range(0, 90, 3))


@pytest.mark.parametrize(
    "figures", [[], [np.nan, np.nan], [1.0], np.ones(50), [*np.ones(50), 1.4], [*np.ones(50), np.nan]]
)
def test_what_is_no_outlier(figures: Any) -> None:
    assert outliers(figures).tolist() == []


def test_equal_figures_do_not_make_a_small_difference_an_outlier() -> None:
    assert outliers([*np.ones(50), 1.6]).tolist() == [50]


# -- lengths ---------------------------------------------------------------------------------------------------------


def test_lengths_of_a_file_that_says_anything() -> None:
    metadata: dict[str, Any] = {
        "photon_energy_eV": "8 keV",
        "electron_energy_eV": float("inf"),
        "wavelength_m": -1.0,
        "detector_distance_m": True,
        "detector_pixel_m": [1e-6],
        "object_pixel_m": [1e-9, 0.0],
    }
    assert Lengths.of(metadata, 64) == Lengths()


def test_the_object_pixel_follows_from_the_others() -> None:
    known = {"photon_energy_eV": 8000.0, "detector_distance_m": 2.0, "detector_pixel_m": [75e-6, 150e-6]}
    pixel = Lengths.of(known, 64).object_pixel_m
    assert pixel == pytest.approx((1.5498025e-10 * 2 / 64 / 75e-6, 1.5498025e-10 * 2 / 64 / 150e-6), rel=1e-6)
    assert Lengths.of(known).object_pixel_m is None
    assert Lengths.of({**known, "object_pixel_m": [1e-9, 2e-9]}, 64).object_pixel_m == (1e-9, 2e-9)


def test_lengths_survive_json() -> None:
    lengths = make_reconstruction().lengths
    assert Lengths.of(json.loads(json.dumps(lengths.as_dict()))) == lengths


def test_a_folder_takes_the_file_under_its_usual_name(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert make_reconstruction().save(str(folder)) == folder / "reconstruction.npz"
    assert load_reconstruction(folder).patterns == make_reconstruction().patterns
