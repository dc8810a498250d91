"""Patches cut out of an object and put back are the object, wherever it was covered."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ptycho_core.physics.canvas import ObjectCanvas, corners_on, summed_weight
from ptycho_core.physics.patches import extract_patches

whole = st.lists(st.tuples(st.integers(-9, 40), st.integers(-9, 40)), min_size=1, max_size=8).map(
    lambda points: np.array(points, dtype=float)
)
fractional = st.lists(st.tuples(st.floats(-9, 40), st.floats(-9, 40)), min_size=1, max_size=6).map(np.array)
sides = st.sampled_from([4, 8, 16]) | st.integers(2, 17)


def field(seed: int) -> NDArray[np.complex64]:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(90, 100)) + 1j * rng.normal(size=(90, 100))).astype(np.complex64)


FIELD_ORIGIN = (-30.0, -25.0)  # room for every position above


def canvas_of(positions: Any, weight: Any, seed: int = 0, *, pieces: int = 1) -> ObjectCanvas:
    """The canvas with the patches of `field(seed)` at `positions` on it."""
    canvas = ObjectCanvas(positions, weight)
    for piece in np.array_split(positions, pieces):
        canvas.add(extract_patches(field(seed), piece, len(weight), FIELD_ORIGIN), piece)
    return canvas


def cut(canvas: ObjectCanvas, array: NDArray[Any]) -> NDArray[Any]:
    """The part of an array on the grid of `field` that the canvas covers; both grids are whole pixels apart."""
    x, y = (int(own - other) for own, other in zip(canvas.origin_px, FIELD_ORIGIN, strict=True))
    height, width = canvas.overlap_count.shape
    return array[y : y + height, x : x + width]


@settings(max_examples=30)
@given(positions=whole, N=sides, seed=st.integers(0, 99))
def test_whole_positions_give_the_object_back_exactly(positions: Any, N: int, seed: int) -> None:
    weight = np.random.default_rng(seed).uniform(0.1, 1, (N, N))
    canvas = canvas_of(positions, weight, seed)
    covered = canvas.overlap_count > 0
    np.testing.assert_allclose(canvas.object_field()[covered], cut(canvas, field(seed))[covered], rtol=2e-6, atol=1e-6)


@settings(max_examples=30)
@given(positions=fractional, N=sides, seed=st.integers(0, 99))
def test_a_bilinear_object_comes_back_at_any_positions_inside_every_patch(positions: Any, N: int, seed: int) -> None:
    """At the border of a patch one of the two pixels that a canvas pixel lies between is missing."""
    a, b, c, d = (np.random.default_rng(seed).normal(size=(4, 2)) * [1, 1j]).sum(axis=1)
    y, x = np.mgrid[:90, :100].astype(float)
    bilinear = (a + b * x / 50 + c * y / 50 + d * x * y / 2500).astype(np.complex64)
    canvas = ObjectCanvas(positions, np.ones((N, N)))
    canvas.add(extract_patches(bilinear, positions, N, FIELD_ORIGIN), positions)

    corners = np.floor(positions).astype(int) - N // 2 - np.array(canvas.origin_px, dtype=int)
    inside = np.zeros(canvas.overlap_count.shape, bool)
    border = np.zeros_like(inside)
    for left, top in corners:
        inside[top + 1 : top + N, left + 1 : left + N] = True
        window = np.zeros_like(inside)
        window[top : top + N + 1, left : left + N + 1] = True
        window[top + 1 : top + N, left + 1 : left + N] = False
        border |= window
    exact = inside & ~border
    np.testing.assert_allclose(canvas.object_field()[exact], cut(canvas, bilinear)[exact], rtol=1e-5, atol=1e-5)


@settings(max_examples=30)
@given(positions=fractional, N=sides, pieces=st.integers(2, 6), seed=st.integers(0, 99))
def test_patches_added_in_pieces_are_patches_added_at_once(positions: Any, N: int, pieces: int, seed: int) -> None:
    weight = np.random.default_rng(seed).uniform(0, 1, (N, N))
    once, piecewise = canvas_of(positions, weight, seed), canvas_of(positions, weight, seed, pieces=pieces)
    np.testing.assert_array_equal(once.object_field(), piecewise.object_field())
    np.testing.assert_array_equal(once.overlap_count, piecewise.overlap_count)


@settings(max_examples=30)
@given(positions=fractional, N=sides)
@example(positions=np.array([[-1e-45, -1e-88]]), N=2)  # a fraction that is rounded to a whole pixel
def test_a_constant_object_is_constant_wherever_there_is_weight(positions: Any, N: int) -> None:
    canvas = ObjectCanvas(positions, np.random.default_rng(0).uniform(0.1, 1, (N, N)))
    canvas.add(np.full((len(positions), N, N), 2 - 1j, np.complex64), positions)
    result = canvas.object_field()
    np.testing.assert_allclose(result[result != 0], 2 - 1j, rtol=1e-5)
    # Whatever its fraction of a pixel, a patch lights all but the first row and column of its window.
    for x, y in (np.floor(positions) - N // 2 - canvas.origin_px).astype(int):
        assert (result[y + 1 : y + N, x + 1 : x + N] != 0).all()


@settings(max_examples=30)
@given(positions=fractional, N=sides)
def test_the_canvas_is_the_bounding_box_of_the_positions_and_n(positions: Any, N: int) -> None:
    canvas = ObjectCanvas(positions, np.ones((N, N)))
    low, high = np.floor(positions.min(axis=0)), np.floor(positions.max(axis=0))
    np.testing.assert_array_equal(canvas.origin_px, low - N // 2)
    height, width = canvas.overlap_count.shape
    np.testing.assert_array_equal((width, height), high - low + N + 1)


@settings(max_examples=30)
@given(positions=whole, N=sides)
def test_overlap_count_is_the_number_of_patches_over_a_pixel(positions: Any, N: int) -> None:
    canvas = canvas_of(positions, np.ones((N, N)))
    expected = np.zeros(canvas.overlap_count.shape, int)
    for column, row in positions - N // 2 - np.array(canvas.origin_px):
        expected[int(row) : int(row) + N, int(column) : int(column) + N] += 1
    np.testing.assert_array_equal(canvas.overlap_count, expected)


def test_overlapping_patches_are_averaged_by_their_weight() -> None:
    weight = np.array([[1.0, 3.0], [1.0, 3.0]])
    canvas = ObjectCanvas(np.array([[1.0, 1.0], [2.0, 1.0]]), weight)
    canvas.add(np.stack([np.full((2, 2), 1 + 0j), np.full((2, 2), 9 + 0j)]), np.array([[1.0, 1.0], [2.0, 1.0]]))
    # in the middle column the first patch weighs 3 and the second 1
    np.testing.assert_allclose(canvas.object_field()[:2, :3], [[1, (3 * 1 + 1 * 9) / 4, 9]] * 2, rtol=1e-6)


def test_the_centre_pixel_of_a_patch_is_at_its_position() -> None:
    canvas = ObjectCanvas(np.array([[20.0, 11.0], [40.0, 50.0]]), np.ones((8, 8)))
    patch = np.zeros((1, 8, 8), np.complex64)
    patch[0, 4, 4] = 1
    canvas.add(patch, np.array([[20.0, 11.0]]))
    (row,), (column,) = np.nonzero(canvas.object_field())
    assert (column + canvas.origin_px[0], row + canvas.origin_px[1]) == (20, 11)


@pytest.mark.parametrize(("x", "y"), [(10.25, 10.0), (10.0, 10.75), (10.5, 10.125)])
def test_a_point_between_pixels_has_its_centre_of_mass_at_its_position(x: float, y: float) -> None:
    canvas = ObjectCanvas(np.array([[x, y]]), np.ones((8, 8)))
    patch = np.zeros((1, 8, 8), np.complex64)
    patch[0, 4, 4] = 1
    canvas.add(patch, np.array([[x, y]]))
    mass = np.abs(canvas._sum)
    rows, columns = np.indices(mass.shape)
    assert np.sum(mass) == pytest.approx(1)
    assert np.sum(mass * columns) + canvas.origin_px[0] == pytest.approx(x)
    assert np.sum(mass * rows) + canvas.origin_px[1] == pytest.approx(y)


def test_pixels_that_no_patch_covers_are_zero() -> None:
    positions = np.array([[0.0, 0.0], [40.0, 40.0]])
    canvas = canvas_of(positions, np.ones((8, 8)))
    result = canvas.object_field()
    assert not result[canvas.overlap_count == 0].any()
    assert result[canvas.overlap_count > 0].all()


def test_pixels_with_next_to_no_weight_are_zero() -> None:
    weight = np.ones((8, 8))
    weight[0, 0] = 1e-7
    canvas = canvas_of(np.array([[10.0, 10.0]]), weight)
    assert canvas.object_field()[0, 0] == 0
    assert canvas.object_field()[0, 1] != 0


def test_an_empty_canvas_is_zero() -> None:
    canvas = ObjectCanvas(np.array([[3.0, 4.0]]), np.ones((8, 8)))
    assert not canvas.object_field().any()
    assert canvas.object_field().dtype == np.complex64


def test_adding_leaves_the_patches_as_they_are() -> None:
    patches = np.random.default_rng(0).normal(size=(2, 8, 8)).astype(np.complex64)
    before, positions = patches.copy(), np.array([[3.5, 4.0], [5.0, 6.25]])
    ObjectCanvas(positions, np.full((8, 8), 0.5)).add(patches, positions)
    np.testing.assert_array_equal(patches, before)


@settings(max_examples=25)
@given(positions=fractional, N=sides, seed=st.integers(0, 99))
def test_the_summed_weight_is_the_sum_of_the_shifted_weights(positions: Any, N: int, seed: int) -> None:
    weight = np.random.default_rng(seed).uniform(0, 1, (N, N)).astype(np.float32)
    canvas = canvas_of(positions, weight, pieces=2)
    expected = np.zeros(canvas.overlap_count.shape)
    whole = np.floor(positions)
    corners = (whole - np.array(canvas.origin_px)).astype(int) - N // 2
    for (left, top), (fx, fy) in zip(corners, positions - whole, strict=True):
        for row, column, share in (
            (0, 0, (1 - fy) * (1 - fx)),
            (0, 1, (1 - fy) * fx),
            (1, 0, fy * (1 - fx)),
            (1, 1, fy * fx),
        ):
            expected[top + row : top + row + N, left + column : left + column + N] += share * weight
    np.testing.assert_allclose(canvas.summed_weight(), expected, atol=2e-7 * len(positions))


@pytest.mark.parametrize("factors", [None, (1.0, 0.5, 2.0)])
def test_the_light_on_a_canvas_is_the_weight_at_every_position_times_its_factor(factors: Any) -> None:
    weight = np.random.default_rng(0).random((4, 4))
    positions = np.array([[10.0, 7.25], [11.5, 8.0], [13.75, 9.5]])
    light = summed_weight(
        positions, weight, origin_px=(5, 3), shape=(12, 14), factors=None if factors is None else np.array(factors)
    )
    expected = np.zeros((12, 14))
    for (x, y), factor in zip(positions, factors or (1, 1, 1), strict=True):
        column, row = x - 2 - 5, y - 2 - 3  # of the first pixel of the patch
        i, j = int(row), int(column)
        for down, share_y in ((0, 1 - row % 1), (1, row % 1)):
            for right, share_x in ((0, 1 - column % 1), (1, column % 1)):
                expected[i + down : i + down + 4, j + right : j + right + 4] += factor * share_y * share_x * weight
    np.testing.assert_allclose(light, expected, atol=1e-12)


@pytest.mark.parametrize("strip", [1, 300, 5000])
def test_strips_of_a_large_canvas_fit_together(monkeypatch: pytest.MonkeyPatch, strip: int) -> None:
    positions = np.random.default_rng(0).uniform(0, 90, (40, 2))
    canvas = ObjectCanvas(positions, np.random.default_rng(1).uniform(0, 1, (9, 9)))
    canvas.add(np.ones((40, 9, 9), np.complex64), positions)
    whole = canvas.summed_weight()
    monkeypatch.setattr("ptycho_core.physics.canvas.STRIP_PIXELS", strip)
    np.testing.assert_allclose(canvas.summed_weight(), whole, atol=1e-12)


def test_a_canvas_may_be_looked_at_while_patches_arrive() -> None:
    positions = np.random.default_rng(0).uniform(0, 20, (6, 2))
    whole, looked_at = canvas_of(positions, np.ones((8, 8))), ObjectCanvas(positions, np.ones((8, 8)))
    for position in positions:
        looked_at.add(extract_patches(field(0), position[None], 8, FIELD_ORIGIN), position[None])
        looked_at.object_field(), looked_at.overlap_count
    np.testing.assert_array_equal(looked_at.object_field(), whole.object_field())


def test_memory_is_the_canvas_and_one_batch() -> None:
    rng = np.random.default_rng(0)
    positions, patches = rng.uniform(0, 400, (2000, 2)), np.ones((50, 32, 32), np.complex64)
    tracemalloc.start()
    canvas = ObjectCanvas(positions, np.ones((32, 32)))
    held, _ = tracemalloc.get_traced_memory()
    for start in range(0, 2000, 50):
        canvas.add(patches, positions[start : start + 50])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - held < 2 * patches.nbytes, (peak, held)


# -- in parts ------------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(positions=fractional, N=sides, own_box=st.booleans(), data=st.data(), seed=st.integers(0, 99))
def test_merged_canvases_equal_the_whole_to_rounding_in_any_order_and_split(
    positions: Any, N: int, own_box: bool, data: st.DataObject, seed: int
) -> None:
    """A part has the canvas of the whole, or one of its own positions alone."""
    weight = np.random.default_rng(seed).uniform(0.1, 1, (N, N))
    order = np.array(data.draw(st.permutations(range(len(positions)))))
    parts = []
    for rows in np.array_split(order, data.draw(st.integers(1, 4))):
        if len(rows):
            parts.append(ObjectCanvas(positions[rows] if own_box else positions, weight))
            parts[-1].add(extract_patches(field(seed), positions[rows], N, FIELD_ORIGIN), positions[rows])
    merged, whole = ObjectCanvas(positions, weight), canvas_of(positions, weight, seed)
    for part in data.draw(st.permutations(parts)):
        merged.merge(part)
    np.testing.assert_array_equal(merged.overlap_count, whole.overlap_count)
    (one, known), (other, others) = merged.known_field(), whole.known_field()
    np.testing.assert_array_equal(known, others)
    np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6 * np.abs(other).max())  # complex64


def test_canvases_that_do_not_fit_are_not_merged() -> None:
    here, there = np.array([[20.0, 20.0], [30.0, 30.0]]), np.array([[20.0, 31.0]])
    canvas = ObjectCanvas(here, np.ones((8, 8)))
    with pytest.raises(ValueError, match="within"):
        canvas.merge(ObjectCanvas(there, np.ones((8, 8))))
    with pytest.raises(ValueError, match="within"):
        canvas.merge(ObjectCanvas(here - 1, np.ones((8, 8))))
    with pytest.raises(ValueError, match="weights"):
        canvas.merge(ObjectCanvas(here, np.full((8, 8), 2.0)))


def test_positions_just_short_of_a_pixel_stay_in_the_box_of_all() -> None:
    """A raster in metres has them: 13.999999999999998 + 14 is 28, and the canvas ends there."""
    short = np.nextafter(np.arange(1.0, 40.0), -np.inf)
    positions = np.stack([np.r_[-14.0, short], np.r_[-31.25, short]], axis=1)
    N, low = 8, np.floor(positions.min(axis=0))
    origin = (float(low[0]) - N // 2, float(low[1]) - N // 2)
    corners = corners_on(positions, N, origin)
    np.testing.assert_array_equal(np.floor(corners), np.floor(positions) - low)
    np.testing.assert_allclose(corners, positions - low, atol=1e-13)
    width, height = np.floor(positions.max(axis=0)) - low + N + 1
    light = summed_weight(positions, np.ones((N, N)), origin_px=origin, shape=(int(height), int(width)))
    assert light.sum() == pytest.approx(len(positions) * N**2)
