"""The orientation of a detector is found where the data tell it, and a tie is said to be one."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import attrs
import numpy as np
import pytest

from ptycho_core.errors import DataError
from ptycho_core.formats.npz import load_npz_scan
from ptycho_core.scans.frames import Frames
from ptycho_core.scans.orientation import (
    ORIENTATIONS,
    OrientationRanking,
    about_the_centre,
    combined,
    describe,
    rank_orientations,
)
from ptycho_core.scans.scan import Scan
from ptycho_core.scans.steps import Orient, Step
from ptycho_core.simulation import simulate
from ptycho_core.storage.source import ArraySource
from tests.shared_data import shared

AS_STORED, BOTH_FLIPS = Orient(), Orient(flip_rows=True, flip_columns=True)
N = 32


def lopsided_probe() -> np.ndarray:
    """A defocused spot with a satellite: no symmetry at all."""
    y, x = np.mgrid[:N, :N] - N // 2
    spot = np.exp(-(x**2 + y**2) / 40 + 0.06j * (x**2 + y**2))
    return spot + 0.6 * np.exp(-((x - 5) ** 2 + (y + 3) ** 2) / 8 + 0.4j * y)


@cache
def scan(probe: str = "lopsided", **changes: Any) -> Scan:
    options = {"N": N, "positions": 80, "scan": "fermat", "photons": 1e5, "seed": 3, **changes}
    return simulate(probe=lopsided_probe() if probe == "lopsided" else probe, **options)


def stored_so_that(orientation: Orient, of: Scan) -> Scan:
    """The scan with its patterns turned so that `orientation` puts them right."""
    patterns = np.asarray(of.diffraction_amplitude)
    inverse = next(turn for turn in ORIENTATIONS if combined(turn, orientation) == AS_STORED)
    return attrs.evolve(of, diffraction_amplitude=applied(inverse, patterns))


def applied(orientation: Orient, patterns: np.ndarray) -> np.ndarray:
    steps: tuple[Step, ...] = about_the_centre(orientation, patterns.shape[-1])
    for step in steps:
        patterns = step.apply(patterns)
    return patterns


def ranked(of: Scan, **options: Any) -> OrientationRanking:
    return rank_orientations(of, **{"frames": 60, "sweeps": 6, **options})


@pytest.mark.parametrize("side", [7, 8])
def test_the_eight_orientations_differ_and_keep_the_direct_beam(side: int) -> None:
    pattern = np.arange(side * side)[None].reshape(1, side, side)
    turned = [applied(orientation, pattern)[0] for orientation in ORIENTATIONS]
    assert len({image.tobytes() for image in turned}) == 8
    assert {int(image[side // 2, side // 2]) for image in turned} == {pattern[0, side // 2, side // 2]}


@pytest.mark.parametrize("side", [7, 8])
def test_two_orientations_combine_to_one(side: int) -> None:
    pattern = np.arange(side * side).reshape(1, side, side)
    for first in ORIENTATIONS:
        for then in ORIENTATIONS:
            expected = applied(then, applied(first, pattern))
            np.testing.assert_array_equal(applied(combined(first, then), pattern), expected, f"{first} {then}")


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=describe)
def test_a_planted_orientation_is_found(orientation: Orient) -> None:
    found = ranked(stored_so_that(orientation, scan()))
    assert found.best == orientation, found.as_table()
    assert found.scores[0].score > 0.5, found.as_table()
    assert found.margin > 0.3, found.as_table()


def test_the_real_siemens_star_is_as_stored_by_a_wide_margin() -> None:
    found = ranked(load_npz_scan(shared("siemens_star", "siemens_star_64.npz")), frames=100)
    assert found.best == AS_STORED, found.as_table()
    assert found.scores[0].score > 0.6, found.as_table()
    assert found.scores[0].misfit < 0.0162, found.as_table()
    assert found.margin > 0.5, found.as_table()


def test_a_flat_probe_ties_with_both_flips_and_says_why() -> None:
    found = ranked(scan("disk"))
    assert found.best is None
    assert set(found.tied) == {AS_STORED, BOTH_FLIPS}, found.as_table()
    assert "flat phase" in str(found.reason)
    assert "undecided" in found.as_table()


def test_positions_of_other_patterns_decide_nothing() -> None:
    mixed = np.random.default_rng(0).permutation(scan().positions_px)
    found = ranked(attrs.evolve(scan(), positions_px=mixed, nominal_positions_px=None))
    assert found.best is None, found.as_table()
    assert len(found.tied) == 8
    assert "no orientation predicts" in str(found.reason)


def test_exchanged_coordinates_look_like_a_transposed_detector() -> None:
    symmetric = scan("defocused-zone-plate")
    found = ranked(attrs.evolve(symmetric, positions_px=symmetric.positions_px[:, ::-1], nominal_positions_px=None))
    assert found.best == Orient(transpose=True), found.as_table()


def test_modes_bad_pixels_and_a_detector_larger_than_needed_change_nothing() -> None:
    spoilt = scan("defocused-zone-plate", N=96, modes=2, bad_pixels=300, positions=50)
    found = ranked(stored_so_that_with_mask(Orient(flip_rows=True), spoilt), frames=40, sweeps=4)
    assert found.side == 64
    assert found.best == Orient(flip_rows=True), found.as_table()


def stored_so_that_with_mask(orientation: Orient, of: Scan) -> Scan:
    """A flip is its own inverse."""
    assert of.bad_pixels is not None
    return attrs.evolve(stored_so_that(orientation, of), bad_pixels=applied(orientation, of.bad_pixels[None])[0])


def test_patterns_in_a_file_give_the_same_ranking_as_in_memory() -> None:
    lazy = Frames(ArraySource(np.asarray(scan().diffraction_amplitude)))
    assert ranked(attrs.evolve(scan(), diffraction_amplitude=lazy), sweeps=1) == ranked(scan(), sweeps=1)


def test_the_seed_decides_and_nothing_else() -> None:
    assert ranked(scan(), sweeps=1, seed=5) == ranked(scan(), sweeps=1, seed=5)
    assert ranked(scan(), sweeps=1, seed=5).scores != ranked(scan(), sweeps=1, seed=6).scores


def test_progress_is_told_after_every_sweep() -> None:
    told: list[tuple[int, int]] = []
    ranked(scan(), sweeps=3, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_the_result_is_json_and_a_table_with_the_flags_of_a_reader() -> None:
    found = ranked(scan(), sweeps=2)
    plain = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert plain["best"] == {"transpose": False, "flip_rows": False, "flip_columns": False}
    assert [entry["score"] for entry in plain["ranking"]] == sorted((e.score for e in found.scores), reverse=True)
    assert len(found.as_table().splitlines()) == 10
    assert "best: as stored, by" in found.as_table()


def test_a_scan_of_few_patterns_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"simulation: diffraction_amplitude: expected at least 16 patterns; received 9"
    ):
        ranked(scan().subset(slice(9)))


def test_a_probe_beside_the_detector_is_refused() -> None:
    beam = np.zeros((N, N), bool)
    beam[N // 2, N // 2] = True
    plane_wave = attrs.evolve(scan(), probe=np.ones((N, N)), bad_pixels=beam)
    with pytest.raises(DataError, match="probe: expected some light in the good pixels of the detector; received none"):
        ranked(plane_wave)
