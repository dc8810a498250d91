"""RawData and grouped arrays hold what the scan and its lazy groups hold, under the published names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ptycho_core.batches.groups import draw_groups
from ptycho_core.errors import ConfigurationError, DataError
from ptycho_core.formats.convert import save_scan
from ptycho_core.io import load_scan
from ptycho_core.legacy import data
from ptycho_core.legacy.container import PtychoDataContainer
from ptycho_core.legacy.data import RawData, generate_grouped_data
from ptycho_core.physics.illumination import Illumination
from ptycho_core.physics.patches import extract_patches
from ptycho_core.scans.scan import Scan
from tests.core.conftest import make_numbered_scan

N, COUNT = 32, 9
NumberedScan = Callable[..., Scan]


def arrays(**changes: Any) -> dict[str, Any]:
    """What a caller gives to `from_coords_without_pc`."""
    rng = np.random.default_rng(3)
    fields = {
        "xcoords": rng.uniform(16, 36, COUNT),
        "ycoords": rng.uniform(16, 36, COUNT),
        "diff3d": rng.uniform(0, 3, (COUNT, N, N)),
        "probeGuess": rng.normal(size=(2, N, N)) + 1j * rng.normal(size=(2, N, N)),
        "scan_index": np.zeros(COUNT, int),
    }
    return {**fields, **changes}


def with_nominal(**changes: Any) -> Scan:
    """A scan whose true and nominal positions differ."""
    nominal = np.random.default_rng(5).uniform(16, 36, (COUNT, 2))
    return make_numbered_scan(COUNT, nominal_positions_px=nominal, **changes)


def in_group(positions: NDArray[np.float64], indices: NDArray[np.int64]) -> NDArray[np.float64]:
    """(B, 1, 2, C), [x, y] on axis 2."""
    return np.stack([positions[indices, 0], positions[indices, 1]], axis=1)[:, None]


# -- RawData -------------------------------------------------------------------------------------------------------


def test_raw_data_is_a_view_of_its_scan() -> None:
    scan = with_nominal()
    raw = RawData(scan)
    assert raw.scan is scan and len(raw) == COUNT
    assert raw.diff3d is scan.diffraction_amplitude and raw.objectGuess is scan.object_field
    assert np.shares_memory(raw.xcoords, scan.positions_px) and np.shares_memory(raw.probeGuess, scan.probe)
    assert scan.nominal_positions_px is not None
    np.testing.assert_array_equal(np.stack([raw.xcoords, raw.ycoords], axis=1), scan.positions_px)
    np.testing.assert_array_equal(np.stack([raw.xcoords_start, raw.ycoords_start], axis=1), scan.nominal_positions_px)
    np.testing.assert_array_equal(raw.scan_index, np.arange(COUNT))


def test_nominal_positions_are_the_positions_where_only_these_are_given() -> None:
    given_arrays = arrays()
    raw = RawData.from_coords_without_pc(**given_arrays)
    for name in ("xcoords", "ycoords"):
        np.testing.assert_array_equal(getattr(raw, name), given_arrays[name])
        np.testing.assert_array_equal(getattr(raw, f"{name}_start"), given_arrays[name])


def test_one_mode_has_two_axes_and_several_have_three() -> None:
    probe = arrays()["probeGuess"]
    assert RawData.from_coords_without_pc(**arrays()).probeGuess.shape == (2, N, N)
    for one in (probe[0], probe[:1]):
        assert RawData.from_coords_without_pc(**arrays(probeGuess=one)).probeGuess.shape == (N, N)


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.uint32])
def test_integers_are_counts_whose_square_root_is_the_amplitude(dtype: type) -> None:
    counts = np.random.default_rng(0).poisson(50, (COUNT, N, N)).astype(dtype)
    raw = RawData.from_coords_without_pc(**arrays(diff3d=counts))
    np.testing.assert_allclose(raw.diff3d, np.sqrt(counts.astype(float)), rtol=1e-7)
    assert raw.scan.dose_known and raw.diff3d.dtype == np.float32


def test_real_numbers_are_amplitudes_of_unknown_dose() -> None:
    raw = RawData.from_coords_without_pc(**arrays())
    np.testing.assert_array_equal(raw.diff3d, arrays()["diff3d"].astype(np.float32))
    assert not raw.scan.dose_known


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    field = np.random.default_rng(0).normal(size=(70, 60)) * np.exp(0.3j)
    before = RawData.from_coords_without_pc(**arrays(), objectGuess=field)
    before.to_file(tmp_path / "scan.npz")
    after = RawData.from_file(tmp_path / "scan.npz")
    starts = ("xcoords_start", "ycoords_start")
    for name in ("xcoords", "ycoords", *starts, "diff3d", "probeGuess", "scan_index", "objectGuess"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name), err_msg=name)
        assert getattr(after, name).dtype == getattr(before, name).dtype


def test_both_kinds_of_positions_survive_a_file(tmp_path: Path) -> None:
    scan = with_nominal()
    save_scan(tmp_path / "scan.npz", scan)
    raw = RawData.from_file(tmp_path / "scan.npz")
    np.testing.assert_array_equal(raw.xcoords_start, RawData(scan).xcoords_start)
    assert (raw.xcoords != raw.xcoords_start).all()


def test_what_a_file_holds_can_be_stated(tmp_path: Path) -> None:
    fields = {**arrays(), "diff3d": np.full((COUNT, N, N), 9.0)}
    np.savez(tmp_path / "counts.npz", **fields)
    assert RawData.from_file(tmp_path / "counts.npz", measurement="intensity").diff3d.max() == 3
    assert RawData.from_file(tmp_path / "counts.npz").diff3d.max() == 9
    assert load_scan(tmp_path / "counts.npz").source.endswith("counts.npz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"xcoords": np.zeros(4)}, r"RawData: xcoords, ycoords: expected equal lengths; received 4 and 9"),
        ({"xcoords": np.zeros((9, 1))}, r"RawData: xcoords: expected \(M,\) real numbers; received float64 of shape"),
        ({"diff3d": np.full((9, N, N), -1)}, "RawData: diff3d: expected counts >= 0; received a minimum of -1"),
        ({"diff3d": np.ones((9, N, N)) * 1j}, "RawData: diff3d: expected real numbers; received dtype complex128"),
        ({"probeGuess": np.ones((8, 8)) + 0j}, r"RawData: probe \(probeGuess\): expected shape \(modes, 32, 32\)"),
        ({"objectGuess": np.ones(8)}, r"RawData: object_field \(objectGuess\): expected \(H, W\) complex numbers"),
    ],
    ids=["lengths", "axes", "negative", "complex", "probe", "object"],
)
def test_arrays_that_do_not_fit_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        RawData.from_coords_without_pc(**arrays(**changes))


# -- grouped arrays ------------------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(
    gridsize=st.sampled_from((1, 2, 3)),
    nsamples=st.integers(1, COUNT),
    extra=st.integers(0, 4),
    seed=st.integers(0, 2**32) | st.none(),
    sequential=st.booleans(),
)
def test_grouped_arrays_are_those_of_the_lazy_groups(
    gridsize: int, nsamples: int, extra: int, seed: int | None, sequential: bool
) -> None:
    bad = np.zeros((N, N), bool)
    bad[2, 3] = True
    scan, channels, K = with_nominal(bad_pixels=bad), gridsize**2, gridsize**2 + extra
    grouped = RawData(scan).generate_grouped_data(
        N, K=K, nsamples=nsamples, gridsize=gridsize, seed=seed, sequential_sampling=sequential
    )
    groups = draw_groups(
        scan.positions_px,
        np.random.default_rng(seed or 0),
        gridsize=gridsize,
        n_groups=nsamples,
        neighbor_count=K,
        sequential=sequential,
    )
    (batch,) = groups.batches(
        scan, nsamples, illumination=Illumination.of(scan, nphotons=1e9), canvas_padding_px=0, with_truth=True
    )
    assert scan.nominal_positions_px is not None
    nominal = in_group(scan.nominal_positions_px, groups.indices)
    expected = {
        "nn_indices": groups.indices,
        "diffraction": batch.diffraction_amplitude,
        "X_full": batch.diffraction_amplitude * np.float32(batch.illumination.input_scale),
        "Y": batch.object_patches,
        "objectGuess": scan.object_field,
        "coords_offsets": groups.centres_px,
        "coords_relative": groups.relative_offsets_px,
        "coords_nn": in_group(scan.positions_px, groups.indices),
        "coords_start_offsets": nominal.mean(axis=3, keepdims=True),
        "coords_start_relative": (nominal.mean(axis=3, keepdims=True) - nominal).astype(np.float32),
        "coords_start_nn": nominal,
    }
    assert grouped.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(grouped[key], value, rtol=1e-6, atol=1e-6, err_msg=key)
    patches, pair, one = (nsamples, N, N, channels), (nsamples, 1, 2, channels), (nsamples, 1, 2, 1)
    assert {key: (value.dtype.name, value.shape) for key, value in grouped.items() if key != "objectGuess"} == {
        "diffraction": ("float32", patches),
        "X_full": ("float32", patches),
        "Y": ("complex64", patches),
        "coords_offsets": ("float64", one),
        "coords_relative": ("float32", pair),
        "coords_nn": ("float64", pair),
        "coords_start_offsets": ("float64", one),
        "coords_start_relative": ("float32", pair),
        "coords_start_nn": ("float64", pair),
        "nn_indices": ("int64", (nsamples, channels)),
    }


def test_each_channel_is_the_frame_and_the_patch_of_its_index(numbered_scan: NumberedScan) -> None:
    scan = numbered_scan()
    grouped = generate_grouped_data(scan, N, K=5, nsamples=6, gridsize=2)
    assert scan.object_field is not None
    for group, members in enumerate(grouped["nn_indices"]):
        for channel, frame in enumerate(members):
            np.testing.assert_array_equal(
                grouped["diffraction"][group, ..., channel], scan.diffraction_amplitude[frame]
            )
            (patch,) = extract_patches(scan.object_field, scan.positions_px[[frame]], N)
            np.testing.assert_array_equal(grouped["Y"][group, ..., channel], patch)


def test_positions_are_the_centre_less_the_offset() -> None:
    grouped = generate_grouped_data(with_nominal(), N, K=7, nsamples=5, gridsize=2)
    for kind in ("coords", "coords_start"):
        positions = grouped[f"{kind}_offsets"] - grouped[f"{kind}_relative"]
        np.testing.assert_allclose(positions, grouped[f"{kind}_nn"], atol=1e-5)
    assert (grouped["coords_nn"] != grouped["coords_start_nn"]).all()


def test_the_input_scale_is_that_of_the_whole_scan(numbered_scan: NumberedScan) -> None:
    scan = numbered_scan()
    every = generate_grouped_data(scan, N, nsamples=COUNT, sequential_sampling=True)["X_full"]
    assert np.square(every).sum(axis=(1, 2, 3)).mean() == pytest.approx((N / 2) ** 2, rel=1e-6)
    one = generate_grouped_data(scan, N, sequential_sampling=True)
    np.testing.assert_array_equal(one["X_full"][0], every[0])


def test_no_seed_means_seed_zero_whatever_numpys_global_state() -> None:
    scan = make_numbered_scan(40)
    drawn = []
    for state, seed in ((1, None), (2, None), (3, 0), (1, 1)):
        np.random.seed(state)  # noqa: NPY002 - the global state is what is tested
        drawn.append(generate_grouped_data(scan, N, K=7, nsamples=20, gridsize=2, seed=seed)["nn_indices"])
    np.testing.assert_array_equal(drawn[0], drawn[1])
    np.testing.assert_array_equal(drawn[0], drawn[2])
    assert (drawn[0] != drawn[3]).any()


def test_arrays_do_not_depend_on_how_many_groups_are_gathered_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = with_nominal()
    whole = generate_grouped_data(scan, N, nsamples=7, gridsize=2)
    monkeypatch.setattr(data, "CHUNK", 3)
    for key, value in generate_grouped_data(scan, N, nsamples=7, gridsize=2).items():
        np.testing.assert_array_equal(value, whole[key], err_msg=key)


def test_a_scan_without_an_object_has_no_truth(numbered_scan: NumberedScan) -> None:
    grouped = generate_grouped_data(numbered_scan(object_field=None), N)
    assert not {"Y", "objectGuess"} & grouped.keys()
    container = PtychoDataContainer.from_grouped(grouped, np.ones((N, N), np.complex64))
    assert [container.Y, container.Y_I, container.Y_phi, container.YY_full] == [None] * 4


def test_single_frames_are_taken_once_and_more_groups_of_four_need_both_switches(numbered_scan: NumberedScan) -> None:
    scan = numbered_scan()
    assert len(generate_grouped_data(scan, N, nsamples=100)["nn_indices"]) == COUNT
    with pytest.raises(
        ConfigurationError,
        match="n_groups must be at most 9, one for each position, unless oversampling draws from 4 or more",
    ):
        generate_grouped_data(scan, N, nsamples=10, gridsize=2)
    more = generate_grouped_data(scan, N, nsamples=30, gridsize=2, enable_oversampling=True, neighbor_pool_size=6)
    assert more["nn_indices"].shape == (30, 4)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"N": 64}, DataError, r"numbered\.npz: N: expected 32, the side of the patterns; received 64\. Give N = 32"),
        (
            {"nsamples": 0},
            ConfigurationError,
            "nsamples must be a whole number >= 1; got 0. Set nsamples to 1 or more.",
        ),
        (
            {"gridsize": 0},
            ConfigurationError,
            "gridsize must be a whole number >= 1; got 0. Set gridsize to 1 or more.",
        ),
        ({"gridsize": 4}, DataError, "positions: expected >= gridsize² = 16; received 9"),
    ],
    ids=["N", "nsamples", "gridsize", "few-positions"],
)
def test_settings_that_do_not_fit_are_refused_by_name(
    numbered_scan: NumberedScan, options: dict[str, int], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        RawData(numbered_scan()).generate_grouped_data(**{"N": N, **options})


# -- container -----------------------------------------------------------------------------------------------------


def container_fields(**changes: Any) -> dict[str, Any]:
    scan = with_nominal()
    container = PtychoDataContainer.from_grouped(generate_grouped_data(scan, N, nsamples=3, gridsize=2), scan.probe)
    return {**{field.name: getattr(container, field.name) for field in attrs.fields(PtychoDataContainer)}, **changes}


def test_a_container_holds_the_grouped_arrays_under_their_published_names() -> None:
    scan = with_nominal()
    grouped = generate_grouped_data(scan, N, nsamples=3, gridsize=2)
    container = PtychoDataContainer.from_grouped(grouped, scan.probe)
    assert len(container) == 3
    assert container.X is grouped["X_full"] and container.Y is grouped["Y"] and container.YY_full is scan.object_field
    assert container.coords_true is container.coords is container.local_offsets is grouped["coords_relative"]
    np.testing.assert_array_equal(container.coords_nominal, grouped["coords_start_relative"])
    assert container.global_offsets is grouped["coords_offsets"] and container.global_offsets.dtype == np.float64
    assert container.nn_indices is grouped["nn_indices"] and container.probe is scan.probe
    assert (container.coords_true != container.coords_nominal).any()


def test_amplitude_and_phase_make_up_the_truth() -> None:
    container = PtychoDataContainer(**container_fields())
    assert container.Y is not None and container.Y_I is not None and container.Y_phi is not None
    assert container.Y_I.dtype == container.Y_phi.dtype == np.float32
    np.testing.assert_allclose(container.Y_I * np.exp(1j * container.Y_phi), container.Y, atol=1e-6)


@pytest.mark.parametrize("modes", [1, 3])
def test_the_probe_keeps_the_axes_that_it_has(modes: int) -> None:
    probe = np.ones((modes, N, N)) + 0j
    assert PtychoDataContainer(**container_fields(probe=probe)).probe.shape == (modes, N, N)
    kept = PtychoDataContainer(**container_fields(probe=probe[0])).probe
    assert kept.shape == (N, N) and kept.dtype == np.complex64


def test_norm_makes_counts_of_the_input_as_intensity_scale_does() -> None:
    counts = np.random.default_rng(0).poisson(40, (COUNT, N, N))
    scan = RawData.from_coords_without_pc(**arrays(diff3d=counts)).scan
    grouped = generate_grouped_data(scan, N, nsamples=2, gridsize=2)
    container = PtychoDataContainer.from_grouped(grouped, scan.probe)
    np.testing.assert_allclose(container.X * container.norm_Y_I, grouped["diffraction"], rtol=1e-6)
    assert container.norm_Y_I == pytest.approx(np.sqrt(counts.sum(axis=(1, 2)).mean()) / (N / 2), rel=1e-6)


def test_dark_groups_have_no_norm() -> None:
    grouped = generate_grouped_data(make_numbered_scan(), N, nsamples=2)
    dark = {**grouped, "X_full": grouped["X_full"] * 0, "diffraction": grouped["diffraction"] * 0}
    assert np.isnan(PtychoDataContainer.from_grouped(dark, np.ones((N, N)) + 0j).norm_Y_I)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "Y",
            np.ones((3, N, N, 4), np.float32),
            r"Y: expected complex64 .*; received dtype float32\. Make it \(amp.*64",
        ),
        (
            "Y",
            np.ones((3, N, N, 1)) + 0j,
            r"Y: expected complex64 of shape \(3, 32, 32, 4\); received shape \(3, 32, 32",
        ),
        ("X", np.ones((3, N, 4)), r"X: expected shape \(B, N, N, C\); received shape \(3, 32, 4\)"),
        ("X", np.ones((3, N, N, 4)) + 0j, "X: expected float32 .*; received dtype complex128"),
        ("coords_true", np.ones((3, 2, 4)), r"coords_true: expected float32 of shape \(3, 1, 2, 4\)"),
        ("coords_nominal", np.ones((2, 1, 2, 4)), r"coords_nominal: expected float32 of shape \(3, 1, 2, 4\)"),
        ("probe", np.ones((8, 8)) + 0j, r"probe: expected complex64 of shape \(32, 32\); received shape \(8, 8\)"),
        ("probe", np.ones((N, N)), "probe: expected complex64 .*; received dtype float64"),
        ("nn_indices", np.ones((3, 4)), "nn_indices: expected int64 .*; received dtype float64"),
        ("global_offsets", np.ones((3, 1, 2, 4)), r"global_offsets: expected float64 of shape \(3, 1, 2, 1\)"),
        ("YY_full", np.ones(5) + 0j, r"YY_full: expected shape \(H, W\); received shape \(5,\)"),
    ],
)
def test_arrays_of_a_container_that_do_not_fit_are_refused_by_name(key: str, value: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"PtychoDataContainer: {message}"):
        PtychoDataContainer(**container_fields(**{key: value}))


def test_grouped_data_that_lack_a_key_are_refused_by_its_name() -> None:
    grouped = generate_grouped_data(make_numbered_scan(), N)
    del grouped["coords_offsets"]
    with pytest.raises(DataError, match="grouped data: coords_offsets: expected an array; received no such key"):
        PtychoDataContainer.from_grouped(grouped, np.ones((N, N)) + 0j)
