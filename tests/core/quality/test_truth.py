"""Where a truth lies: by its origin, by search where that is wrong, and never without a word."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from scipy import ndimage

from ptycho_core.errors import DataError
from ptycho_core.quality.area import scanned_area
from ptycho_core.quality.evaluation import evaluate
from ptycho_core.quality.truth import Searched, Truth, load_truth, on_grid, search
from ptycho_core.reconstruction.result import Reconstruction
from tests.core.reconstructions import make_reconstruction


def whole(shape: tuple[int, int] = (160, 190), seed: int = 3) -> Any:
    rng = np.random.default_rng(seed)
    amplitude, phase = (ndimage.gaussian_filter(rng.standard_normal(shape), 2, mode="wrap") for _ in range(2))
    return ((1 + 0.2 * amplitude / amplitude.std()) * np.exp(0.6j * phase / phase.std())).astype(np.complex64)


@pytest.fixture
def result() -> Reconstruction:
    """Cut out of `whole()` where its origin says, with a phase ramp and some noise."""
    image = make_reconstruction()
    (x, y), (height, width) = (int(at) for at in image.origin_px), image.object_field.shape
    field = whole()[y : y + height, x : x + width]
    rows, columns = np.indices(field.shape)
    noise = np.random.default_rng(8).normal(0, 0.02, field.shape)
    spoiled = (field + noise) * np.exp(1j * (0.7 + 0.02 * rows - 0.03 * columns))
    return attrs.evolve(image, object_field=spoiled.astype(np.complex64))


def small() -> Reconstruction:
    """A few positions: 185 pixels are compared."""
    image = make_reconstruction()
    centre = image.positions_px.mean(axis=0)
    near = np.argsort(np.abs(image.positions_px - centre).max(axis=1))[:16]
    (x, y), (height, width) = (int(at) for at in image.origin_px), image.object_field.shape
    noise = np.random.default_rng(8).normal(0, 0.02, (height, width))
    field = (whole()[y : y + height, x : x + width] + noise).astype(np.complex64)
    return attrs.evolve(image, object_field=field, positions_px=image.positions_px[near])


def small_area(image: Reconstruction) -> Any:
    return scanned_area(image.positions_px, 16, image.object_field.shape, image.origin_px)


def test_a_truth_at_its_origin_is_not_searched(result: Reconstruction, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("ptycho_core.quality.evaluation.search")
    comparison = evaluate(result, whole())
    assert comparison.metrics.correlation > 0.98
    assert comparison.moved_px == (0, 0)
    assert comparison.correlation_at_origin is None
    assert "the origins differ" not in comparison.table()


@pytest.mark.parametrize("origin", [(37.0, -20.0), (-25.0, 14.0), (5000.0, 0.0), (-90.0, -70.0)])
def test_a_truth_with_another_origin_is_found_and_that_is_said(
    result: Reconstruction, origin: tuple[float, float]
) -> None:
    comparison = evaluate(result, Truth(object_field=whole(), origin_px=origin))
    assert comparison.metrics.correlation > 0.98
    assert comparison.moved_px == (-origin[0], -origin[1])
    assert comparison.share == pytest.approx(1, abs=0.1)
    x, y = comparison.moved_px
    assert f"the truth was found {x:+d}, {y:+d} px (x, y) from its own" in comparison.table()
    at_origin = comparison.correlation_at_origin
    assert at_origin is not None
    assert math.isnan(at_origin) or at_origin < 0.6
    facts = json.loads(json.dumps(comparison.as_dict(), allow_nan=False))
    assert facts["moved_px"] == [x, y]
    assert facts["share_compared"] == comparison.share


def test_between_pixels_a_truth_is_found_at_the_nearest(result: Reconstruction) -> None:
    """As it is placed by its origin: half a pixel is the most that is left."""
    comparison = evaluate(result, Truth(object_field=whole(), origin_px=(-25.6, 14.6)))
    assert comparison.moved_px == (26, -15)
    assert np.abs(comparison.metrics.alignment.shift_px).max() < 0.1


def test_the_share_compared_is_that_of_the_scanned_area(result: Reconstruction) -> None:
    x, width = int(result.origin_px[0]), result.object_field.shape[1]
    half = Truth(object_field=whole()[:, : x + width // 2])
    comparison = evaluate(result, half)
    area = scanned_area(result.positions_px, 16, result.object_field.shape, result.origin_px) & result.known
    left = area.copy()
    left[:, width // 2 :] = False
    assert comparison.share == pytest.approx(left.sum() / area.sum(), abs=0.02)
    assert f"compared: {100 * comparison.share:.3g} % of the scanned area" in comparison.table()


def test_another_object_is_found_nowhere(result: Reconstruction) -> None:
    comparison = evaluate(result, whole(seed=77))
    assert comparison.moved_px == (0, 0)
    assert comparison.metrics.correlation < 0.6
    assert comparison.doubt is not None
    there = f"where the origin of the truth says, the correlation is {comparison.metrics.correlation:.4f}"
    assert f"the origins may differ: {there}" in comparison.table()
    assert comparison.as_dict()["place_in_doubt"] == comparison.doubt
    assert "the origins may differ" in repr(comparison)


def test_another_object_that_lies_elsewhere_is_refused(result: Reconstruction) -> None:
    with pytest.raises(DataError, match="by its origin or by search"):
        evaluate(result, Truth(object_field=whole(seed=77), origin_px=(5000.0, 0.0)))


def test_a_large_grid_is_not_searched(result: Reconstruction, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptycho_core.quality.truth.MOST_SEARCHED", 100)
    area = np.ones(result.object_field.shape, bool)
    assert search(Truth(object_field=whole()), result, area) == Searched(reason="the two are too large to be searched")
    elsewhere = evaluate(result, Truth(object_field=whole(), origin_px=(37.0, -20.0)))
    assert "and the two are too large to be searched" in elsewhere.table()


@pytest.mark.parametrize("origin", [(12.0, -9.0), (-31.0, 25.0)])
def test_a_truth_with_another_origin_is_found_in_a_small_area_where_it_cannot_stand_out(
    origin: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = small()
    assert not search(Truth(object_field=whole(), origin_px=origin), image, small_area(image)).clear
    comparison = evaluate(image, Truth(object_field=whole(), origin_px=origin))
    assert comparison.moved_px == (-origin[0], -origin[1])
    assert comparison.metrics.correlation > 0.97
    assert comparison.doubt is None
    assert comparison.correlation_at_origin is not None
    monkeypatch.setattr("ptycho_core.quality.evaluation.SURE", 1.1)  # no place is alike enough
    unsure = evaluate(image, Truth(object_field=whole(), origin_px=origin))
    assert unsure.moved_px == (0, 0)
    assert unsure.doubt == "a search in the whole of the truth found no place that stands out"


def test_of_two_places_that_are_alike_none_is_taken() -> None:
    twice = np.concatenate([whole(), whole()], axis=1)
    comparison = evaluate(small(), Truth(object_field=twice, origin_px=(12.0, -9.0)))
    assert comparison.moved_px == (0, 0)
    assert comparison.doubt is not None


def test_a_result_against_itself_and_against_one_on_another_canvas(result: Reconstruction, tmp_path: Path) -> None:
    """Both origins count: the second canvas begins 7 rows and 11 columns later."""
    assert evaluate(result, result).metrics.correlation == pytest.approx(1)
    assert result.known is not None
    x, y = result.origin_px
    cut = attrs.evolve(
        result,
        object_field=result.object_field[7:, 11:],
        known=result.known[7:, 11:],
        overlap_count=result.overlap_count[7:, 11:],
        predicted_error=None,
        object_without_prior=None,
        origin_px=(x + 11, y + 7),
    )
    cut.save(tmp_path / "reconstruction.npz")
    for truth in (cut, load_truth(tmp_path), load_truth(tmp_path / "reconstruction.npz")):
        comparison = evaluate(result, truth)
        assert comparison.metrics.correlation_before_alignment == pytest.approx(1)
        assert comparison.moved_px == (0, 0)
    assert evaluate(cut, result).metrics.correlation_before_alignment == pytest.approx(1)


def test_what_was_not_lit_is_not_compared(result: Reconstruction) -> None:
    assert result.known is not None
    dark = result.known.copy()
    dark[20:40, 20:40] = False
    for image, truth in (
        (attrs.evolve(result, known=dark), Truth(object_field=whole())),
        (result, Truth(object_field=result.object_field, origin_px=result.origin_px, known=dark)),
    ):
        assert not evaluate(image, truth).compared[20:40, 20:40].any()


def test_the_resolution_is_stated_in_nanometres(result: Reconstruction) -> None:
    comparison = evaluate(result, whole(), pixel_m=(10e-9, 10e-9))
    crossing = comparison.metrics.frc.crossing_half
    assert 0 < crossing < 0.5
    assert comparison.as_dict()["resolution"]["half_period_m"] == pytest.approx([5e-9 / crossing] * 2)
    assert f"resolution (FRC 0.5): {crossing:.3f} cycles/px (half period" in comparison.table()
    assert " nm)" in comparison.table()


def test_a_damaged_mask_of_a_truth_is_named(result: Reconstruction, tmp_path: Path) -> None:
    result.save(tmp_path / "reconstruction.npz")
    with np.load(tmp_path / "reconstruction.npz") as source:
        arrays = {**source, "known": source["known"][1:]}
    np.savez(tmp_path / "reconstruction.npz", **arrays)
    with pytest.raises(DataError, match=r"reconstruction\.npz: known: expected booleans of shape"):
        load_truth(tmp_path)


def test_grids_that_are_not_whole_pixels_apart_are_taken_to_the_nearest(result: Reconstruction) -> None:
    """Not to the one nearer to 0."""
    x, y = result.origin_px
    truth = Truth(object_field=result.object_field, origin_px=(x + 0.9, y - 0.9))
    found, inside = on_grid(truth, result)
    np.testing.assert_array_equal(found[:-1, 1:], result.object_field[1:, :-1])
    assert not inside[:, 0].any() and not inside[-1].any()
