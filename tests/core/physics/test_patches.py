"""Patches are cut at the documented coordinates, bilinear, and zero outside the object."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from ptycho_core.errors import DataError
from ptycho_core.physics.patches import extract_patches


def random_field(shape: tuple[int, int], seed: int) -> NDArray[np.complex64]:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def sampled_by_scipy(field: NDArray[Any], positions: NDArray[Any], N: int, origin: Any, mode: str) -> NDArray[Any]:
    offsets = np.arange(N) - N // 2
    rows = positions[:, 1, None, None] - origin[1] + offsets[None, :, None]
    columns = positions[:, 0, None, None] - origin[0] + offsets[None, None, :]
    coordinates = np.broadcast_arrays(rows, columns)
    real, imaginary = (
        map_coordinates(part.astype(np.float64), coordinates, order=1, mode=mode, cval=0.0)
        for part in (field.real, field.imag)
    )
    return np.asarray(real + 1j * imaginary)


coordinate = st.floats(-60, 60, allow_nan=False)


@settings(max_examples=80)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    N=st.integers(1, 20),
    positions=st.lists(st.tuples(coordinate, coordinate), min_size=1, max_size=4),
    origin=st.tuples(coordinate, coordinate),
    seed=st.integers(0, 99),
)
def test_patches_are_bilinear_samples_of_the_object_extended_by_zeros(
    height: int, width: int, N: int, positions: list[Any], origin: tuple[float, float], seed: int
) -> None:
    field, centres = random_field((height, width), seed), np.array(positions)
    reference = sampled_by_scipy(field, centres, N, origin, "grid-constant")
    np.testing.assert_allclose(extract_patches(field, centres, N, origin), reference, atol=2e-6)


@settings(max_examples=40)
@given(
    x=st.floats(8, 21, allow_nan=False),
    y=st.floats(8, 31, allow_nan=False),
    seed=st.integers(0, 99),
)
def test_inside_the_object_the_border_rule_makes_no_difference(x: float, y: float, seed: int) -> None:
    field, centres = random_field((40, 30), seed), np.array([[x, y]])
    reference = sampled_by_scipy(field, centres, 16, (0.0, 0.0), "constant")
    np.testing.assert_allclose(extract_patches(field, centres, 16), reference, atol=2e-6)


def test_whole_pixel_positions_copy_pixels_exactly() -> None:
    field = random_field((50, 70), 1)
    patches = extract_patches(field, [[40, 20], [8, 8]], 16)
    assert patches.dtype == np.complex64
    np.testing.assert_array_equal(patches[0], field[12:28, 32:48])
    np.testing.assert_array_equal(patches[1], field[:16, :16])


def test_half_a_pixel_to_the_right_averages_neighbouring_columns() -> None:
    field = random_field((32, 32), 2)
    (patch,) = extract_patches(field, [[16.5, 16]], 8)
    np.testing.assert_allclose(patch, (field[12:20, 12:20] + field[12:20, 13:21]) / 2, rtol=1e-6)


def test_origin_shifts_the_coordinates_of_the_object() -> None:
    field = random_field((32, 32), 3)
    shifted = extract_patches(field, [[21.25, 8.5]], 8, origin_px=(5.25, -7.5))
    np.testing.assert_array_equal(shifted, extract_patches(field, [[16, 16]], 8))


def test_patches_beyond_the_object_are_zero_however_far() -> None:
    field = random_field((32, 32), 4)
    assert not extract_patches(field, [[1e30, 16.0], [-1e30, -1e30], [16.0, 45.0], [-9.0, 16.0]], 16).any()


def test_many_patches_need_no_more_memory_than_they_take() -> None:
    object_field, positions = random_field((300, 300), 6), np.random.default_rng(7).uniform(0, 300, (4000, 2))
    tracemalloc.start()
    patches = extract_patches(object_field, positions, 16)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.1 * patches.nbytes


def test_no_positions_give_no_patches() -> None:
    assert extract_patches(random_field((9, 9), 5), np.empty((0, 2)), 4).shape == (0, 4, 4)


@pytest.mark.parametrize(
    ("field", "positions", "N", "message"),
    [
        (np.ones((2, 9, 9)), [[1, 1]], 4, r"object_field: .*received shape \(2, 9, 9\)"),
        (np.ones((9, 9)), [1, 1], 4, r"positions_px: expected shape \(B, 2\); received shape \(2,\)"),
        (np.ones((9, 9)), [[np.nan, 1]], 4, "positions_px: expected finite"),
        (np.ones((9, 9)), [[1, 1]], 0, "N: expected at least one pixel; received 0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(field: Any, positions: Any, N: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        extract_patches(field, positions, N)
