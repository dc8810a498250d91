"""Groups are functions of their seed, hold neighbours in row-major order, and are gathered as they were drawn."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ptycho_core.batches import groups as grouping
from ptycho_core.batches import neighbours
from ptycho_core.batches.groups import Groups, draw_groups
from ptycho_core.batches.neighbours import largest_reach_px
from ptycho_core.errors import ConfigurationError, DataError
from ptycho_core.physics.illumination import Illumination
from ptycho_core.physics.patches import extract_patches

Drawing = tuple[NDArray[np.float64], dict[str, Any]]

eighths = st.integers(-400, 400).map(lambda value: value / 8)  # coarse, so that positions coincide now and then
coordinates = eighths | st.floats(-50, 50)


@st.composite
def drawings(draw: st.DrawFn, gridsizes: tuple[int, ...] = (1, 2, 3), oversampled: bool | None = None) -> Drawing:
    """Positions, and settings with which groups can be drawn from them."""
    gridsize = draw(st.sampled_from(gridsizes))
    points = draw(st.lists(st.tuples(coordinates, coordinates), min_size=gridsize**2, max_size=24))
    more = draw(st.booleans()) if oversampled is None else oversampled
    least = gridsize**2 if more else max(1, gridsize**2 - 1)
    count = draw(st.integers(least, least + 6))
    settings = {
        "gridsize": gridsize,
        "n_groups": draw(st.integers(1, 3 * len(points) if more else len(points)) | st.none()),
        "neighbor_count": count,
        "enable_oversampling": more,
        "neighbor_pool_size": draw(st.none() | st.integers(least, least + 9)) if more else None,
        "sequential": draw(st.booleans()),
    }
    return np.array(points, dtype=float), settings


def drawn(drawing: Drawing, seed: int = 0, **changes: Any) -> Groups:
    positions, settings = drawing
    return draw_groups(positions, np.random.default_rng(seed), **{**settings, **changes})


def pool(drawing: Drawing) -> int:
    """K, as specs/data.md, Groups has it."""
    positions, settings = drawing
    size = settings["neighbor_pool_size"] or settings["neighbor_count"]
    return min(max(size, settings["gridsize"] ** 2 - 1), len(positions) - 1)


def seeds_of(drawing: Drawing, seed: int = 0) -> NDArray[np.int64]:
    """The seed points: what the same generator gives for groups of one."""
    positions, settings = drawing
    points, count = len(positions), settings["n_groups"] or len(positions)
    rng = np.random.default_rng(seed)
    rounds = [np.arange(points) if settings["sequential"] else rng.permutation(points) for _ in range(0, count, points)]
    return np.concatenate(rounds)[: count if settings["gridsize"] > 1 else min(count, points)]


# -- drawing -------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(drawing=drawings(), seed=st.integers(0, 2**32))
def test_the_same_seed_draws_the_same_groups(drawing: Drawing, seed: int) -> None:
    first, second = drawn(drawing, seed), drawn(drawing, seed)
    np.testing.assert_array_equal(first.indices, second.indices)
    np.testing.assert_array_equal(first.relative_offsets_px, second.relative_offsets_px)


def a_raster(side: int, step: float) -> NDArray[np.float64]:
    return np.stack(np.meshgrid(np.arange(side) * step, np.arange(side) * step), axis=-1).reshape(-1, 2)


def a_random_scan(points: int) -> NDArray[np.float64]:
    return np.random.default_rng(7).uniform(0, 200, (points, 2))


SCANS = {
    "raster": a_raster(20, 0.7),  # 0.7 is no binary fraction: equal distances differ in their last digits
    "random": a_random_scan(400),
    "coincident": np.repeat(a_raster(5, 3.1), 16, axis=0),
}
DIGESTS = {
    "raster": "9e384ab10ef8db06b8eb3833fa53828e8f5a2228e68b798c69bf024b6910c76d",
    "random": "a36f278d64d94b15431c1f1af5e08ab190adb2c780dba759c8b17a12a144655b",
    "coincident": "522688f9b48e1d13b2f85b5c96caa475b21bbb2801b2aa909af235b5c9e0552f",
}


@pytest.mark.parametrize("name", SCANS)
def test_groups_are_those_of_every_machine(name: str) -> None:
    groups = drawn((SCANS[name], {"gridsize": 2, "n_groups": None, "neighbor_count": 7}))
    assert hashlib.sha256(groups.indices.astype("<i8").tobytes()).hexdigest() == DIGESTS[name]


def nearest_by_the_rule(positions: NDArray[np.float64], seed: int, k: int) -> list[int]:
    """specs/data.md, Groups: by distance rounded to 1e-6 px, then by index."""
    x, y = (positions - positions[seed]).T
    by_rule = np.lexsort((np.arange(len(positions)), np.rint(np.sqrt(x * x + y * y) * 1e6)))
    return [index for index in by_rule.tolist() if index != seed][:k]


nearly = st.tuples(eighths, st.integers(-3, 3)).map(lambda value: value[0] / 4 + value[1] * 4e-7)
"""Coordinates that differ by less than, or about, the unit in which distances are compared."""


@settings(max_examples=60)
@given(
    points=st.lists(st.tuples(nearly, nearly) | st.tuples(coordinates, coordinates), min_size=4, max_size=60),
    copies=st.integers(1, 9),
    gridsize=st.sampled_from((2, 3)),
)
def test_neighbours_are_the_nearest_by_rounded_distance_then_index(
    points: list[tuple[float, float]], copies: int, gridsize: int
) -> None:
    positions = np.tile(np.array(points), (copies + gridsize, 1))
    k = gridsize**2 - 1  # all neighbours are taken
    groups = drawn((positions, {"gridsize": gridsize, "n_groups": None, "neighbor_count": k, "sequential": True}))
    for seed, members in enumerate(groups.indices):
        assert sorted(members.tolist()) == sorted([seed, *nearest_by_the_rule(positions, seed, k)])


@pytest.mark.parametrize("k", [3, 4, 7, 8, 13, 20])
@pytest.mark.parametrize("name", [*SCANS, "ring"])
def test_ties_are_cut_by_index_however_many_positions_are_in_them(name: str, k: int) -> None:
    angles = np.arange(200) / 200 * 2 * np.pi
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1) * 30
    positions = SCANS[name] if name in SCANS else np.concatenate([ring, [[0, 0], [0, 0]]])
    drawing = (positions, {"gridsize": 2, "n_groups": 10 * len(positions), "neighbor_count": k, "sequential": True})
    groups = drawn(drawing, enable_oversampling=True, neighbor_pool_size=max(k, 4))
    for seed in range(0, len(positions), 17):
        expected = {seed, *nearest_by_the_rule(positions, seed, max(k, 4))}
        assert set(groups.indices[seed :: len(positions)].ravel()) <= expected
    seen = set(groups.indices[len(positions) - 1 :: len(positions)].ravel())
    assert len(seen) > k / 2  # not only a few of the nearest


def test_coincident_positions_are_taken_by_index_and_not_searched_one_by_one() -> None:
    positions = np.zeros((20_000, 2))  # each compared with each: 4e8 distances
    groups = drawn((positions, {"gridsize": 2, "n_groups": None, "neighbor_count": 3, "sequential": True}))
    np.testing.assert_array_equal(groups.indices[-1], [19_999, 0, 1, 2])
    np.testing.assert_array_equal(groups.indices[1], [1, 0, 2, 3])
    assert largest_reach_px(positions, channels=4, neighbor_count=3) == 0


@pytest.mark.parametrize(("chunk", "threads", "extra"), [(5, 1, 2), (64, 4, 0), (10**6, 1, 20)])
@pytest.mark.parametrize("name", SCANS)
def test_groups_do_not_depend_on_how_the_work_is_cut(
    monkeypatch: pytest.MonkeyPatch, name: str, chunk: int, threads: int, extra: int
) -> None:
    drawing = (SCANS[name], {"gridsize": 2, "n_groups": None, "neighbor_count": 7})
    before, reach = drawn(drawing), largest_reach_px(SCANS[name], channels=4, neighbor_count=7)
    for attribute, value in (("CHUNK", chunk), ("MOST_THREADS", threads), ("EXTRA", extra)):
        monkeypatch.setattr(neighbours, attribute, value)
    monkeypatch.setattr(grouping, "CHUNK", chunk)
    after = drawn(drawing)
    np.testing.assert_array_equal(after.indices, before.indices)
    np.testing.assert_array_equal(after.centres_px, before.centres_px)
    np.testing.assert_array_equal(after.relative_offsets_px, before.relative_offsets_px)
    assert largest_reach_px(SCANS[name], channels=4, neighbor_count=7) == reach


@pytest.mark.parametrize("error", [0, 1e-13, -1e-13])
def test_the_largest_reach_does_not_hang_on_the_last_digit_of_a_distance(error: float) -> None:
    assert largest_reach_px(a_raster(4, 10 + error), channels=4, neighbor_count=2 + 1) == math.ceil(200**0.5 * 1.5)
    line = np.stack([np.arange(8) * (10 + error), np.zeros(8)], axis=1)
    assert largest_reach_px(line, channels=4, neighbor_count=4) == 60


def test_another_seed_draws_other_groups() -> None:
    positions = np.random.default_rng(0).uniform(0, 90, (50, 2))
    drawing = (positions, {"gridsize": 2, "n_groups": 20, "neighbor_count": 6})
    assert (drawn(drawing, 1).indices != drawn(drawing, 2).indices).any()


@settings(max_examples=20)
@given(drawing=drawings())
def test_numpys_global_generator_is_neither_read_nor_moved(drawing: Drawing) -> None:
    np.random.seed(1)  # noqa: NPY002 - the global state is what is tested
    before, first = np.random.get_state()[1].tolist(), drawn(drawing)  # type: ignore[union-attr,index]  # noqa: NPY002
    assert np.random.get_state()[1].tolist() == before  # type: ignore[union-attr,index]  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    np.testing.assert_array_equal(drawn(drawing).indices, first.indices)


@settings(max_examples=30)
@given(drawing=drawings())
def test_one_group_for_every_position_covers_every_position(drawing: Drawing) -> None:
    groups = drawn(drawing, n_groups=None)
    assert len(groups) == len(drawing[0])
    assert set(groups.indices.ravel()) == set(range(len(drawing[0])))


@settings(max_examples=40)
@given(drawing=drawings())
def test_a_seed_belongs_to_its_group(drawing: Drawing) -> None:
    groups, seeds = drawn(drawing), seeds_of(drawing)
    assert len(groups) == len(seeds)
    assert (groups.indices == seeds[:, None]).any(axis=1).all(), (groups.indices, seeds)


@settings(max_examples=40)
@given(drawing=drawings(gridsizes=(2, 3)))
def test_members_of_a_group_are_distinct(drawing: Drawing) -> None:
    members = np.sort(drawn(drawing).indices, axis=1)
    assert (np.diff(members, axis=1) > 0).all(), members


@settings(max_examples=40)
@given(drawing=drawings(gridsizes=(2, 3)))
def test_members_are_among_the_nearest_neighbours_of_the_seed(drawing: Drawing) -> None:
    positions = drawing[0]
    for seed, members in zip(seeds_of(drawing), drawn(drawing).indices, strict=True):
        nearest = nearest_by_the_rule(positions, seed, pool(drawing))
        assert set(members) <= {seed, *nearest}, (seed, members, nearest)


@settings(max_examples=40)
@given(drawing=drawings(gridsizes=(2, 3)))
def test_channels_are_rows_of_rising_y_and_in_a_row_of_rising_x(drawing: Drawing) -> None:
    gridsize = drawing[1]["gridsize"]
    x, y = drawing[0][drawn(drawing).indices].reshape(-1, gridsize, gridsize, 2).transpose(3, 0, 1, 2)
    assert (np.diff(x, axis=2) >= 0).all()
    assert (y[:, 1:].min(axis=2) >= y[:, :-1].max(axis=2)).all()


def test_a_raster_gives_its_own_square_in_reading_order() -> None:
    raster = np.array([[x, y] for x in (0, 10) for y in (0, 9)])  # columns first, so that sorting has something to do
    groups = drawn((raster.astype(float), {"gridsize": 2, "n_groups": None, "neighbor_count": 3}))
    np.testing.assert_array_equal(raster[groups.indices[0]], [[0, 0], [10, 0], [0, 9], [10, 9]])
    np.testing.assert_array_equal(groups.relative_offsets_px[0, 0, 0], [5, -5, 5, -5])
    np.testing.assert_array_equal(groups.relative_offsets_px[0, 0, 1], [4.5, 4.5, -4.5, -4.5])
    np.testing.assert_array_equal(groups.centres_px[0, 0, :, 0], [5, 4.5])


@settings(max_examples=40)
@given(drawing=drawings())
def test_offsets_are_minus_position_less_centre_and_sum_to_zero(drawing: Drawing) -> None:
    groups = drawn(drawing)
    positions = np.moveaxis(drawing[0][groups.indices], -1, 1)  # (G, 2, C)
    np.testing.assert_allclose(groups.centres_px[:, 0, :, 0], positions.mean(axis=2), atol=1e-12)
    np.testing.assert_allclose(groups.relative_offsets_px[:, 0], groups.centres_px[:, 0] - positions, atol=1e-5)
    np.testing.assert_allclose(groups.relative_offsets_px.sum(axis=3), 0, atol=1e-4)
    assert groups.relative_offsets_px.dtype == np.float32
    assert groups.centres_px.dtype == np.float64


@settings(max_examples=60)
@given(drawing=drawings())
def test_no_group_reaches_beyond_the_largest_reach(drawing: Drawing) -> None:
    positions, settings = drawing
    largest = largest_reach_px(positions, channels=settings["gridsize"] ** 2, neighbor_count=pool(drawing))
    assert np.abs(drawn(drawing).relative_offsets_px).max() <= largest + 1e-12  # the mean of equal numbers may be off


def test_the_largest_reach_fits_a_group_with_one_member_far_from_all_others() -> None:
    x = [0.0, -10, -10.5, -11, -11.5, -12, 10, 10, 10, 10.5, 11]  # the K-th neighbours are at most 10 away
    positions = np.stack([x, np.zeros(11)], axis=1)
    drawing = (positions, {"gridsize": 2, "n_groups": 1, "neighbor_count": 4, "sequential": True})
    reached = max(np.abs(drawn(drawing, seed).relative_offsets_px).max() for seed in range(20))
    assert reached == 12.5  # members at 0, -10, 10 and 10
    assert largest_reach_px(positions, channels=4, neighbor_count=4) == 15


def test_the_reach_is_the_largest_offset_rounded_up() -> None:
    positions = np.array([[0.0, 0.0], [10, 0], [0, 9], [10, 9.5]])
    assert drawn((positions, {"gridsize": 2, "n_groups": None, "neighbor_count": 3})).reach_px == 5
    assert drawn((positions * 1.01, {"gridsize": 2, "n_groups": None, "neighbor_count": 3})).reach_px == 6


def test_coincident_positions_are_different_positions() -> None:
    positions = np.full((9, 2), 0.1)
    groups = drawn((positions, {"gridsize": 3, "n_groups": None, "neighbor_count": 8}))
    np.testing.assert_array_equal(np.sort(groups.indices, axis=1), np.tile(np.arange(9), (9, 1)))
    np.testing.assert_allclose(groups.relative_offsets_px, 0, atol=1e-6)


def test_the_seed_is_kept_among_more_coincident_positions_than_neighbours() -> None:
    positions = np.concatenate([np.zeros((30, 2)), np.ones((2, 2))])
    drawing = (positions, {"gridsize": 2, "n_groups": None, "neighbor_count": 4, "sequential": True})
    groups = drawn(drawing)
    assert (groups.indices == np.arange(32)[:, None]).any(axis=1).all()
    assert (np.diff(np.sort(groups.indices, axis=1), axis=1) > 0).all()


# -- how many ------------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(drawing=drawings(gridsizes=(2, 3), oversampled=True))
def test_every_position_seeds_as_often_as_any_other_to_within_one(drawing: Drawing) -> None:
    counts = np.bincount(seeds_of(drawing), minlength=len(drawing[0]))
    groups = drawn(drawing)
    assert len(groups) == (drawing[1]["n_groups"] or len(drawing[0]))
    assert np.ptp(counts) <= 1
    assert (np.bincount(groups.indices.ravel(), minlength=len(counts)) >= counts).all()


@pytest.mark.parametrize(
    ("allowed", "pool_size", "neighbor_count"),
    [(False, None, 4), (False, 8, 4), (True, 3, 4), (True, None, 3)],
    ids=["not-enabled", "pool-alone", "small-pool", "few-neighbours"],
)
def test_more_groups_than_positions_need_both_switches(
    allowed: bool, pool_size: int | None, neighbor_count: int
) -> None:
    positions = np.random.default_rng(0).uniform(0, 20, (10, 2))
    with pytest.raises(ConfigurationError) as caught:
        draw_groups(
            positions,
            np.random.default_rng(0),
            gridsize=2,
            n_groups=11,
            neighbor_count=neighbor_count,
            enable_oversampling=allowed,
            neighbor_pool_size=pool_size,
        )
    message = str(caught.value)
    assert message.startswith("groups: n_groups must be at most 10, one for each position, unless oversampling draws")
    assert f"got 11 groups of 4 from 10 positions, pool of {pool_size or neighbor_count}" in message
    assert "Set n_groups to 10 or fewer, or enable_oversampling with neighbor_pool_size >= 4." in message


def test_oversampling_draws_different_groups_of_the_same_seed() -> None:
    positions = np.random.default_rng(0).uniform(0, 20, (10, 2))
    drawing = (positions, {"gridsize": 2, "n_groups": 60, "neighbor_count": 4, "enable_oversampling": True})
    groups = drawn(drawing, neighbor_pool_size=8)
    assert len(np.unique(np.sort(groups.indices, axis=1), axis=0)) > 30


def test_single_frames_are_never_drawn_twice() -> None:
    drawing = (np.zeros((7, 2)), {"gridsize": 1, "n_groups": 100, "neighbor_count": 4})
    np.testing.assert_array_equal(np.sort(drawn(drawing).indices.ravel()), np.arange(7))


@pytest.mark.parametrize("gridsize", [1, 2])
def test_sequential_sampling_takes_the_first_points(gridsize: int) -> None:
    positions = np.random.default_rng(0).uniform(0, 20, (12, 2))
    drawing = (positions, {"gridsize": gridsize, "n_groups": 5, "neighbor_count": 4, "sequential": True})
    groups = drawn(drawing)
    assert len(groups) == 5
    assert (groups.indices == np.arange(5)[:, None]).any(axis=1).all()


@pytest.mark.parametrize("gridsize", [2, 3])
def test_fewer_positions_than_a_group_are_refused(gridsize: int) -> None:
    drawing = (np.zeros((gridsize**2 - 1, 2)), {"gridsize": gridsize, "n_groups": None, "neighbor_count": 9})
    with pytest.raises(
        DataError, match=f"positions: expected >= gridsize² = {gridsize**2}; received {gridsize**2 - 1}"
    ):
        drawn(drawing)


def test_exactly_the_positions_of_one_group_are_enough() -> None:
    positions = np.random.default_rng(0).uniform(0, 20, (4, 2))
    groups = drawn((positions, {"gridsize": 2, "n_groups": None, "neighbor_count": 4}))
    np.testing.assert_array_equal(np.sort(groups.indices, axis=1), np.tile(np.arange(4), (4, 1)))


# -- batches -------------------------------------------------------------------------------------------------------


def test_batches_hold_the_patterns_offsets_and_mask_of_their_groups(numbered_scan: Any) -> None:
    rng = np.random.default_rng(0)
    scan = numbered_scan(count=11, diffraction_amplitude=rng.uniform(0, 9, (11, 32, 32)))
    groups = draw_groups(scan.positions_px, rng, gridsize=2, n_groups=None, neighbor_count=5)
    order = rng.permutation(11)
    batches = list(
        groups.batches(scan, 4, illumination=Illumination.of(scan, nphotons=1e9), canvas_padding_px=17, order=order)
    )
    assert [len(batch) for batch in batches] == [4, 4, 3]
    for batch, chosen in zip(batches, np.split(order, [4, 8]), strict=True):
        for row, group in enumerate(chosen):
            for channel, frame in enumerate(groups.indices[group]):
                pattern = batch.diffraction_amplitude[row, :, :, channel]
                np.testing.assert_array_equal(pattern, scan.diffraction_amplitude[frame])
        np.testing.assert_array_equal(batch.relative_offsets_px, groups.relative_offsets_px[chosen])
        assert (batch.canvas_padding_px, batch.object_patches) == (17, None)
        assert batch.diffraction_amplitude.dtype == np.float32


def test_batches_come_in_the_order_of_the_groups_by_default(numbered_scan: Any, frames_of: Any) -> None:
    scan = numbered_scan(count=7)
    groups = draw_groups(scan.positions_px, np.random.default_rng(0), gridsize=1, n_groups=None, neighbor_count=4)
    frames = np.concatenate(
        [
            frames_of(batch)
            for batch in groups.batches(scan, 2, illumination=Illumination.of(scan, nphotons=1e9), canvas_padding_px=0)
        ]
    )
    np.testing.assert_array_equal(frames, groups.indices)


def test_truth_patches_are_those_at_the_frames_own_positions(numbered_scan: Any) -> None:
    scan = numbered_scan(count=6)
    groups = draw_groups(scan.positions_px, np.random.default_rng(0), gridsize=2, n_groups=3, neighbor_count=4)
    (batch,) = groups.batches(
        scan, 8, illumination=Illumination.of(scan, nphotons=1e9), canvas_padding_px=0, with_truth=True
    )
    assert batch.object_patches is not None
    for group, members in enumerate(groups.indices):
        for channel, frame in enumerate(members):
            (patch,) = extract_patches(scan.object_field, scan.positions_px[[frame]], scan.N)
            np.testing.assert_array_equal(batch.object_patches[group, :, :, channel], patch)


def test_truth_that_is_not_there_is_asked_for_by_name(numbered_scan: Any) -> None:
    scan = numbered_scan(object_field=None)
    groups = draw_groups(scan.positions_px, np.random.default_rng(0), gridsize=1, n_groups=3, neighbor_count=4)
    with pytest.raises(DataError, match=r"numbered\.npz: objectGuess: expected a complex object; received no object"):
        next(
            groups.batches(
                scan, 8, illumination=Illumination.of(scan, nphotons=1e9), canvas_padding_px=0, with_truth=True
            )
        )


@pytest.mark.parametrize("gridsize", [1, 2])
def test_bad_pixels_are_zero_in_a_batch_and_untouched_in_the_scan(numbered_scan: Any, gridsize: int) -> None:
    bad = np.zeros((32, 32), bool)
    bad[3, 4] = bad[20:22, 30] = True
    scan = numbered_scan(bad_pixels=bad)
    before = scan.diffraction_amplitude.copy()
    groups = draw_groups(
        scan.positions_px, np.random.default_rng(0), gridsize=gridsize, n_groups=None, neighbor_count=4
    )
    for batch in groups.batches(scan, 4, illumination=Illumination.of(scan, nphotons=1e9), canvas_padding_px=0):
        assert not batch.diffraction_amplitude[:, bad].any()
        assert batch.diffraction_amplitude[:, ~bad].all()
        np.testing.assert_array_equal(batch.bad_pixels, bad)
    np.testing.assert_array_equal(scan.diffraction_amplitude, before)


@pytest.mark.parametrize("most_bytes", [0, 3 * 2 * 4 * 32 * 32 * 4, 2**30])
def test_batches_do_not_depend_on_how_many_are_gathered_at_once(
    monkeypatch: pytest.MonkeyPatch, numbered_scan: Any, frames_of: Any, most_bytes: int
) -> None:
    monkeypatch.setattr("ptycho_core.batches.groups.GATHERED_BYTES", most_bytes)
    scan = numbered_scan(count=17)
    groups = draw_groups(scan.positions_px, np.random.default_rng(0), gridsize=2, n_groups=17, neighbor_count=4)
    batches = list(groups.batches(scan, 2, illumination=Illumination.of(scan, nphotons=1e9), canvas_padding_px=3))
    assert [len(batch) for batch in batches] == [2] * 8 + [1]
    np.testing.assert_array_equal(np.concatenate([frames_of(batch) for batch in batches]), groups.indices)


def test_groups_in_scan_order_are_the_same_groups_by_their_first_frame() -> None:
    positions = np.random.default_rng(0).uniform(0, 90, (30, 2))
    groups = draw_groups(positions, np.random.default_rng(1), gridsize=2, n_groups=30, neighbor_count=5)
    ordered = groups.in_scan_order()
    first = ordered.indices.min(axis=1)
    assert (np.diff(first) >= 0).all()
    order = np.argsort(groups.indices.min(axis=1), kind="stable")
    for name in ("indices", "centres_px", "relative_offsets_px"):
        np.testing.assert_array_equal(getattr(ordered, name), getattr(groups, name)[order])
