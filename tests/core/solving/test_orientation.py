"""Which way round the patterns are: turning a scan, and the rule by which one way is taken."""

from __future__ import annotations

import attrs
import numpy as np
import pytest

from ptycho_core.errors import DataError
from ptycho_core.scans.frames import Frames
from ptycho_core.scans.orientation import ORIENTATIONS, about_the_centre, describe
from ptycho_core.scans.scan import Scan
from ptycho_core.scans.steps import Orient
from ptycho_core.simulation import simulate
from ptycho_core.solving.loop import Solving
from ptycho_core.solving.orientation import AS_READ, chosen_orientation, turned, turned_task
from ptycho_core.solving.problem import begun
from ptycho_core.solving.run import Freedoms
from ptycho_core.storage.source import ArraySource
from tests.core.refusals import refusal_of
from tests.core.solving.conftest import small
from tests.core.solving.fakes import answered, fake_bench, kept

TRANSPOSED = Orient(True, False, False)


def masked(scan: Scan) -> Scan:
    bad = np.zeros((scan.N, scan.N), bool)
    bad[2, 5] = bad[0, 9] = True
    return attrs.evolve(scan, bad_pixels=bad)


# -- turning -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=describe)
def test_patterns_and_bad_pixels_are_turned_together(solved_scan: Scan, orientation: Orient) -> None:
    scan = masked(solved_scan)
    other = turned(scan, orientation)
    pattern = np.where(scan.bad_pixels, -1, np.asarray(scan.diffraction_amplitude[7]))
    for step in about_the_centre(orientation, scan.N):
        pattern = step.apply(pattern[None])[0]
    np.testing.assert_array_equal(np.where(other.bad_pixels, -1, other.diffraction_amplitude[7]), pattern)
    np.testing.assert_array_equal(other.positions_px, scan.positions_px)


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=describe)
def test_lazy_patterns_are_turned_as_loaded_ones_are(solved_scan: Scan, orientation: Orient) -> None:
    loaded = masked(solved_scan)
    stored = np.asarray(loaded.diffraction_amplitude)
    lazy = attrs.evolve(loaded, diffraction_amplitude=Frames(ArraySource(stored), measurement="amplitude", steps=()))
    one, other = turned(loaded, orientation), turned(lazy, orientation)
    assert isinstance(other.diffraction_amplitude, Frames)
    np.testing.assert_array_equal(other.diffraction_amplitude[:], one.diffraction_amplitude)
    np.testing.assert_array_equal(other.bad_pixels, one.bad_pixels)


def test_the_centre_of_the_pattern_stays_where_it_is(solved_scan: Scan) -> None:
    marked = np.zeros((40, 16, 16), np.float32)
    marked[:, 8, 8] = 1
    scan = attrs.evolve(solved_scan, diffraction_amplitude=marked)
    assert all(turned(scan, orientation).diffraction_amplitude[0, 8, 8] == 1 for orientation in ORIENTATIONS)


def test_the_held_out_pixels_turn_with_the_patterns(solved_scan: Scan) -> None:
    task = begun(solved_scan, small(held_out=0.2))
    for orientation in ORIENTATIONS:
        other = turned_task(task, orientation)
        frame = 11
        held = (
            np.sort(np.asarray(each.scan.diffraction_amplitude[frame])[each.held_out[each.pattern[frame]]])
            for each in (task, other)
        )
        np.testing.assert_array_equal(*held)


# -- the choice --------------------------------------------------------------------------------------------------------


def choose(
    scan: Scan, best: dict[Orient, float], *, probe_unknown: bool = False
) -> tuple[Orient, list[str], list[str]]:
    deviances = {describe(orientation): best.get(orientation, 900.0) for orientation in ORIENTATIONS}
    bench = fake_bench(begun(scan, small()), deviances)
    answer, trials = answered(chosen_orientation(bench, Freedoms(probe=True), probe_unknown=probe_unknown))
    assert {sweeps for *_, sweeps in bench.asked} == {3}
    return answer, kept(trials), bench.names


def test_the_one_that_is_far_ahead_is_taken(solved_scan: Scan) -> None:
    answer, names, asked = choose(solved_scan, {TRANSPOSED: 400})
    assert (answer, names) == (TRANSPOSED, ["transpose"])
    assert asked == [describe(orientation) for orientation in ORIENTATIONS]


def test_two_that_are_close_are_refused_with_the_table(solved_scan: Scan) -> None:
    error = refusal_of(
        lambda: choose(solved_scan, {TRANSPOSED: 400, AS_READ: 402}),
        DataError,
        "transpose and as stored",
        "Turn the patterns as the instrument does",
        key="orientation",
    )
    assert all(describe(orientation) in str(error) for orientation in ORIENTATIONS)


def test_of_an_unknown_probe_four_ways_are_left_and_each_candidate_is_tried(solved_scan: Scan) -> None:
    answer, _, asked = choose(solved_scan, {TRANSPOSED: 400}, probe_unknown=True)
    assert answer == TRANSPOSED
    assert set(asked) == {describe(orientation) for orientation in ORIENTATIONS if not orientation.flip_rows}
    assert len(asked) == 4 * 27


@pytest.mark.usefixtures("engines")
def test_patterns_that_lie_on_their_side_are_turned_back() -> None:
    upright = simulate(N=16, positions=80, step_px=2, object="lines", photons=1e6, seed=4)
    fallen = turned(upright, TRANSPOSED)
    run = Solving(fallen, small(orientation="auto", sweeps=1, batches=8, held_out=0.2))
    for _ in run:
        pass
    assert run.choices["orientation"] == {"transpose": True, "flip_rows": False, "flip_columns": False}
    assert [trial.candidate for trial in run.trials if trial.kept] == ["transpose"]
