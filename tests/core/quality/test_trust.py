"""The predicted error against the actual one, made here without a solver; halves that cover a scan evenly."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.stats import spearmanr

from ptycho_core.physics.canvas import summed_weight
from ptycho_core.quality import trust
from ptycho_core.quality.trust import compare_halves, halves_of, lit_pixels, split_half, trust_map
from ptycho_core.reconstruction.result import Reconstruction
from tests.core.reconstructions import make_reconstruction

N = 16


def lit(seed: int = 0, frames: int = 200, side: float = 60.0) -> dict[str, Any]:
    """A scan's positions and probe, on a canvas that holds all patches."""
    rng = np.random.default_rng(seed)
    positions = rng.uniform(20, 20 + side, (frames, 2))
    origin = np.floor(positions.min(axis=0)) - N // 2
    width, height = (np.floor(positions.max(axis=0)) - origin - N // 2 + N + 1).astype(int)
    rows, columns = np.indices((N, N)) - N / 2
    probe = 30 * np.exp(-(rows**2 + columns**2) / 16 + 0.1j * columns)
    return {
        "positions_px": positions,
        "probe": probe[None].astype(np.complex64),
        "origin_px": (float(origin[0]), float(origin[1])),
        "shape": (int(height), int(width)),
    }


def test_photon_noise_alone_gives_the_error_of_the_light() -> None:
    """Deviance 1 everywhere: κ / √(2S), RMS over 2 px, with S the light that really fell on each pixel."""
    scan = lit()
    result = trust_map(frame_deviance=np.ones(200), **scan)
    light = np.zeros(scan["shape"])
    weight = np.abs(scan["probe"][0]) ** 2
    for x, y in scan["positions_px"] - N // 2 - np.asarray(scan["origin_px"]):
        column, row = int(np.floor(x)), int(np.floor(y))
        fx, fy = x - column, y - row
        for a in (0, 1):
            for b in (0, 1):
                share = (fy if a else 1 - fy) * (fx if b else 1 - fx)
                light[row + a : row + a + N, column + b : column + b + N] += share * weight
    known = result.known
    assert 0.3 < known.mean() < 1
    power, share = np.zeros(light.shape), known.astype(np.float64)
    power[known] = 16 / (2 * light[known])
    power, share = (ndimage.gaussian_filter(values, 2.0)[known] for values in (power, share))
    np.testing.assert_allclose(result.predicted_error[known], np.sqrt(power / share), rtol=1e-4)
    assert np.isnan(result.predicted_error[~known]).all()
    lit_enough = light > 0.02 * np.median(light[light > 0.01 * light.max()])
    usual = np.median(4 / np.sqrt(2 * light[lit_enough]))
    np.testing.assert_array_equal(known, lit_enough & (light >= 4**2 / (2 * max(0.2, 3 * usual) ** 2)))


def test_the_unit_of_intensity_cancels() -> None:
    """A file in an arbitrary unit: |P|² and deviance are a tenth, and counts are ten of its units, or nobody knows."""
    scan, deviance = lit(), np.random.default_rng(1).uniform(1, 3, 200)
    counts = trust_map(frame_deviance=deviance, **scan)
    other = {**scan, "probe": scan["probe"] / np.sqrt(np.float32(10))}
    stated = trust_map(frame_deviance=deviance, counts_per_intensity=10.0, **other)
    unknown = trust_map(frame_deviance=deviance / 10, **other)
    for result in (stated, unknown):
        np.testing.assert_allclose(result.predicted_error, counts.predicted_error, rtol=1e-4)


def test_frames_that_do_not_fit_make_their_place_doubtful() -> None:
    scan = lit()
    x, y = scan["positions_px"].T
    bad = (x > 60) & (y > 60)
    result = trust_map(frame_deviance=np.where(bad, 16.0, 1.0), **scan)
    plain = trust_map(frame_deviance=np.ones(200), **scan)
    ratio = result.predicted_error / plain.predicted_error
    rows, columns = np.indices(scan["shape"])
    right, below = columns + scan["origin_px"][0], rows + scan["origin_px"][1]
    assert ratio[(right > 70) & (below > 70) & result.known] == pytest.approx(4, rel=0.02)
    np.testing.assert_array_equal(result.known, plain.known)
    assert ratio[(right < 45) & (below < 45) & result.known] == pytest.approx(1, rel=0.02)


def test_a_frame_without_a_pixel_that_counts_takes_no_part() -> None:
    scan, deviance = lit(), np.random.default_rng(1).uniform(1, 3, 200)
    deviance[::7] = np.nan
    result = trust_map(frame_deviance=deviance, **scan)
    assert np.isfinite(result.predicted_error[result.known]).all()
    alone = trust_map(frame_deviance=np.full(200, np.nan), **scan)
    assert not alone.known.any()
    assert np.isnan(alone.predicted_error).all()


def test_dim_frames_count_less() -> None:
    scan = lit()
    dim = np.full(200, 0.25)
    half = trust_map(frame_deviance=np.ones(200), intensities=dim, **scan)
    full = trust_map(frame_deviance=np.ones(200), **scan)
    np.testing.assert_allclose(half.predicted_error, 2 * full.predicted_error, rtol=1e-5)


@pytest.mark.parametrize(("brighter", "share"), [(1e4, 1.0), (1.0, 0.99), (1e-2, 0.99), (1e-4, 0.99)])
def test_a_lit_pixel_is_known_unless_its_error_is_large_beside_the_others(brighter: float, share: float) -> None:
    """At many photons all that is lit is known; at few, what is no worse than three times the usual."""
    scan = lit()
    scan["probe"] = scan["probe"] * np.float32(np.sqrt(brighter))
    result = trust_map(frame_deviance=np.ones(200), **scan)
    weight = np.square(np.abs(scan["probe"][0]), dtype=np.float64)
    light = summed_weight(scan["positions_px"], weight, origin_px=scan["origin_px"], shape=scan["shape"])
    error = np.divide(4.0, np.sqrt(2 * light), out=np.full(light.shape, np.inf), where=light > 0)
    usual = np.median(error[lit_pixels(light)])
    np.testing.assert_array_equal(result.known, lit_pixels(light) & (error <= max(0.2, 3 * usual)))
    assert (result.known.sum() < lit_pixels(light).sum()) == (brighter < 1e4)
    assert result.known[20:-20, 20:-20].mean() >= share


@pytest.mark.parametrize("light", [np.zeros((4, 5)), np.zeros((0, 0))])
def test_without_light_nothing_is_known(light: NDArray[np.float64]) -> None:
    assert not lit_pixels(light).any()


# -- halves ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 50, 517])
def test_halves_share_no_frame_and_leave_none_out(count: int) -> None:
    positions = np.random.default_rng(0).uniform(0, 90, (count, 2))
    first, second = halves_of(positions, seed=5)
    assert sorted([*first, *second]) == list(range(count))
    assert len(first) - len(second) in (0, 1)
    if count > 10:
        assert not np.array_equal(first, halves_of(positions, seed=6)[0])


@pytest.mark.parametrize("columns", [20, 21])
def test_halves_of_a_raster_have_no_stripes_and_no_holes(columns: int) -> None:
    """Every second frame in the order of a raster of even width would be stripes."""
    grid = np.stack(np.meshgrid(np.arange(columns), np.arange(20)), axis=-1).reshape(-1, 2) * 4.0
    for half in halves_of(grid, seed=1):
        kept = grid[half]
        for axis in (0, 1):
            share = np.unique(kept[:, axis], return_counts=True)[1] / np.unique(grid[:, axis], return_counts=True)[1]
            assert 0.2 < share.min() <= share.max() < 0.8
        assert cKDTree(kept).query(grid)[0].max() <= 4.0 * np.sqrt(2)


def test_coincident_positions_are_halved_too() -> None:
    first, second = halves_of(np.zeros((10, 2)))
    assert (len(first), len(second)) == (5, 5)


def noisy(truth: Reconstruction, sigma: NDArray[np.float64], seed: int) -> NDArray[np.complex64]:
    noise = np.random.default_rng(seed).standard_normal((2, *truth.object_field.shape)) * sigma / np.sqrt(2)
    return (truth.object_field + noise[0] + 1j * noise[1]).astype(np.complex64)


@pytest.fixture
def truth() -> Reconstruction:
    return make_reconstruction(frames=150, known=None, predicted_error=None, object_without_prior=None)


@pytest.fixture
def sigma(truth: Reconstruction) -> NDArray[np.float64]:
    """RMS error of the whole: 0.02 to 0.12, smooth."""
    rough = ndimage.gaussian_filter(np.random.default_rng(4).standard_normal(truth.object_field.shape), 7)
    return np.asarray(0.07 + 0.05 * rough / np.abs(rough).max())


def test_halves_tell_the_error_of_the_whole(truth: Reconstruction, sigma: NDArray[np.float64]) -> None:
    """Halves have √2 the noise of the whole; each lies elsewhere, at another phase, scale and ramp."""
    whole = attrs.evolve(truth, object_field=noisy(truth, sigma, 1))
    rows, columns = np.indices(sigma.shape)
    halves = []
    for seed, (top, left) in ((2, (3, 0)), (3, (0, 5))):
        field = 1.3 * noisy(truth, np.sqrt(2) * sigma, seed) * np.exp(1j * (seed + 0.02 * rows - 0.01 * columns))
        origin = truth.origin_px[0] + left, truth.origin_px[1] + top
        halves.append(attrs.evolve(truth, object_field=field[top:, left:].astype(np.complex64), origin_px=origin))
    result = compare_halves(whole, *halves)
    inside = result.compared
    assert inside[8:-8, 8:-8].mean() > 0.8
    ratio = result.error[inside] / sigma[inside]
    assert np.median(ratio) == pytest.approx(1, abs=0.07)
    assert spearmanr(result.error[inside], sigma[inside])[0] > 0.75
    assert np.isnan(result.error[~inside]).all()
    assert 0.1 < result.frc.crossing_half < 0.5


def test_each_half_is_solved_from_its_own_frames(truth: Reconstruction) -> None:
    asked: list[NDArray[np.int64]] = []

    def solve(index: NDArray[np.int64]) -> Reconstruction:
        asked.append(index)
        return attrs.evolve(truth, object_field=noisy(truth, np.full(truth.object_field.shape, 0.1), len(asked)))

    result = split_half(truth, truth.positions_px, solve, seed=3)
    expected = halves_of(truth.positions_px, 3)
    for index, half in zip(asked, expected, strict=True):
        np.testing.assert_array_equal(index, half)
    assert np.nanmedian(result.error) == pytest.approx(0.1 / np.sqrt(2), rel=0.1)


def test_halves_calibrate_the_map() -> None:
    scan = lit()
    scan["probe"] = 100 * scan["probe"]  # all that is lit is known
    shape = scan["shape"]
    plain = trust_map(frame_deviance=np.ones(200), **scan)
    compared = np.zeros(shape, bool)
    compared[20:40, 20:40] = True
    curve = make_reconstruction().frc
    assert curve is not None
    halves = trust.SplitHalf(
        frc=curve, error=np.where(compared, 2.5 / 4 * plain.predicted_error, np.nan), compared=compared
    )
    result = trust_map(frame_deviance=np.ones(200), halves=halves, **scan)
    assert (result.factor, result.factor_from) == (pytest.approx(2.5, rel=1e-5), "split halves")
    both = result.known & plain.known
    np.testing.assert_allclose(result.predicted_error[both], 2.5 / 4 * plain.predicted_error[both], rtol=1e-5)

    # Twice the factor in the right half of what was compared: the map follows, smoothly, and beyond keeps the median.
    # Pixels where the halves happen to be equal say nothing.
    right = compared & (np.indices(shape)[1] >= 30)
    error = np.where(right, 2 * halves.error, halves.error)
    error[30, [25, 35]] = 0
    split = attrs.evolve(halves, error=error)
    followed = trust_map(frame_deviance=np.ones(200), halves=split, **scan)
    ratio = followed.predicted_error / plain.predicted_error * 4 / 2.5
    assert ratio[30, 38] > 1.5 > 1.3 > ratio[30, 21] > 1
    assert ratio[70, 70] == pytest.approx(np.sqrt(2), rel=0.05)
    nowhere = attrs.evolve(halves, compared=np.zeros(shape, bool))
    assert trust_map(frame_deviance=np.ones(200), halves=nowhere, **scan).factor_from == "the default"


def test_what_is_known_does_not_depend_on_halves() -> None:
    """The same object is shown with them and without."""
    scan = lit()
    plain = trust_map(frame_deviance=np.ones(200), **scan)
    curve = make_reconstruction().frc
    assert curve is not None
    for factor in (0.1, 10):
        halves = trust.SplitHalf(frc=curve, error=factor * plain.predicted_error.astype(float), compared=plain.known)
        told = trust_map(frame_deviance=np.ones(200), halves=halves, **scan)
        assert told.factor == pytest.approx(4 * factor, rel=0.1)
        np.testing.assert_array_equal(told.known, plain.known)
