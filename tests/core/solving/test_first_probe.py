"""A probe to begin with: its candidates, and the rules by which one is taken."""

from __future__ import annotations

import attrs
import numpy as np
import pytest

from ptycho_core.errors import ConfigurationError, DataError
from ptycho_core.scans.scan import Scan
from ptycho_core.simulation import simulate
from ptycho_core.solving.first_probe import (
    ProbeCandidate,
    around,
    chosen_probe,
    overlap,
    placed_probe,
    sweeps_for,
    unknown,
)
from ptycho_core.solving.loop import Solving, solve
from ptycho_core.solving.problem import begun, scaled
from ptycho_core.solving.run import Freedoms
from ptycho_core.solving.start import flat
from tests.core.refusals import refusal_of
from tests.core.solving.conftest import small
from tests.core.solving.fakes import answered, fake_bench, kept

NAMES = [f"candidate {number}" for number in range(9)]


# -- candidates --------------------------------------------------------------------------------------------------------


def test_candidates_send_the_mean_pattern_out(solved_scan: Scan) -> None:
    mean = solved_scan.mean_pattern()
    for one in unknown(solved_scan):
        far = np.abs(np.fft.fftshift(np.fft.fft2(one.probe[0], norm="ortho"))) ** 2
        np.testing.assert_allclose(far, mean, atol=1e-4 * mean.max())


def test_candidates_go_through_the_focus_in_even_steps(solved_scan: Scan) -> None:
    radii = [float(one.name.split()[1]) for one in unknown(solved_scan)]
    assert radii == sorted(radii)
    assert len(radii) == 27 and radii[13] == 0
    assert radii[-1] == pytest.approx(-radii[0])


def test_a_candidate_on_the_other_side_of_the_focus_is_the_conjugate(solved_scan: Scan) -> None:
    """Of one whose far field is real; its pixels are mirrored about the centre."""
    first, last = (unknown(solved_scan)[place].probe[0] for place in (3, -4))
    np.testing.assert_allclose(first, np.roll(last.conj()[::-1, ::-1], 1, (0, 1)), atol=1e-4 * np.abs(last).max())


def test_bad_pixels_take_no_part_in_the_mean_pattern(solved_scan: Scan) -> None:
    bad = np.zeros((16, 16), bool)
    bad[3, 4] = True
    hot = np.asarray(solved_scan.diffraction_amplitude).copy()
    hot[:, 3, 4] = 1e4
    one, other = (
        unknown(attrs.evolve(solved_scan, bad_pixels=bad, diffraction_amplitude=amplitude))[20].probe
        for amplitude in (np.asarray(solved_scan.diffraction_amplitude), hot)
    )
    np.testing.assert_array_equal(one, other)


def test_around_a_probe_it_is_the_middle_one_and_the_others_undo_a_defocus(solved_scan: Scan) -> None:
    candidates = around(solved_scan, solved_scan.probe)
    assert len(candidates) == 11
    np.testing.assert_allclose(candidates[5].probe, scaled(solved_scan, solved_scan.probe), rtol=1e-3, atol=1e-3)
    back = around(solved_scan, candidates[8].probe)[2].probe
    np.testing.assert_allclose(back, candidates[5].probe, atol=1e-4 * np.abs(back).max())
    assert overlap(candidates[8].probe, candidates[5].probe) < 0.9


def test_larger_patterns_take_fewer_sweeps() -> None:
    assert (sweeps_for(64), sweeps_for(128)) == (4, 2)


# -- the choice --------------------------------------------------------------------------------------------------------


def choose(scan: Scan, deviances: list[float], **more: float) -> tuple[int, list[str], list[int]]:
    """The place of the candidate that is chosen, those that are kept, and the sweeps of each trial."""
    names = dict(zip(NAMES, deviances, strict=True))
    bench = fake_bench(begun(scan, small()), {**names, **{f"{name}, longer": value for name, value in more.items()}})
    waves = [np.exp(2j * np.pi * number * np.arange(16) / 16) * np.ones((1, 16, 1)) for number in range(9)]
    candidates = [ProbeCandidate(name, wave.astype(np.complex64)) for name, wave in zip(NAMES, waves, strict=True)]
    state, trials = answered(chosen_probe(bench, candidates, Freedoms(probe=True)))
    place = int(np.argmax([overlap(state.probe, candidate.probe) for candidate in candidates]))
    return place, kept(trials), [sweeps for *_, sweeps in bench.asked]


def test_the_one_that_is_far_ahead_is_taken(solved_scan: Scan) -> None:
    place, names, sweeps = choose(solved_scan, [900, 900, 900, 400, 900, 900, 900, 900, 900])
    assert (place, names, sweeps) == (3, ["candidate 3"], [4] * 9)


def test_its_neighbours_are_no_rivals(solved_scan: Scan) -> None:
    place, names, _ = choose(solved_scan, [900, 402, 401, 400, 401, 402, 900, 900, 900])
    assert (place, names) == (3, ["candidate 3"])


def test_two_that_are_close_are_both_carried_on(solved_scan: Scan) -> None:
    more = {"candidate 3": 350.0, "candidate 7": 250.0}
    place, names, sweeps = choose(solved_scan, [900, 900, 900, 400, 900, 900, 900, 401, 900], **more)
    assert (place, names, sweeps) == (7, ["candidate 7, longer"], [4] * 9 + [16] * 2)


def test_two_that_stay_close_are_refused_with_the_table(solved_scan: Scan) -> None:
    more = {"candidate 3": 350.0, "candidate 7": 351.0}
    deviances = [900.0, 900, 900, 400, 900, 900, 900, 401, 900]
    error = refusal_of(
        lambda: choose(solved_scan, deviances, **more),
        DataError,
        "candidate 3 and candidate 7",
        "Give a probe",
        key="probe",
    )
    assert all(name in str(error) for name in NAMES)


def test_two_that_come_to_the_same_probe_are_one(solved_scan: Scan) -> None:
    scores = dict(zip(NAMES, [900.0, 900, 900, 400, 900, 900, 900, 401, 900], strict=True))
    scores |= {"candidate 3, longer": 350, "candidate 7, longer": 349}
    moved = [np.roll(solved_scan.probe, (number, -number), (1, 2)) for number in range(9)]
    candidates = [ProbeCandidate(name, probe) for name, probe in zip(NAMES, moved, strict=True)]
    bench = fake_bench(begun(solved_scan, small()), scores)
    _, trials = answered(chosen_probe(bench, candidates, Freedoms(probe=True)))
    assert kept(trials) == ["candidate 7, longer"]


def test_probes_overlap_wherever_they_lie_and_whatever_their_phase_and_scale(solved_scan: Scan) -> None:
    probe = solved_scan.probe
    assert overlap(probe, 3j * np.roll(probe, (2, -5), (1, 2))) == pytest.approx(1)
    assert overlap(probe, np.ones_like(probe)) < 0.9


@pytest.fixture(scope="module")
def bright() -> Scan:
    """40 patterns of 32 x 32 pixels, whose probe is not in focus."""
    return simulate(
        N=32, positions=40, step_px=4, object="dead-leaves", probe="defocused-gaussian", photons=1e6, seed=5
    )


# -- its place in the window -------------------------------------------------------------------------------------------

MOVES = ("+2, +0", "-2, +0", "+2, +2", "+2, -2", "+0, +2", "+0, -2", "+3, +0", "+1, +0", "+3, +1", "+3, -1")


def placed(scan: Scan, by: dict[str, float]) -> tuple[tuple[int, int], list[str], int]:
    """Where the probe comes to lie (rows, columns), the rows that are kept, and how many places were tried."""
    task = begun(scan, small())
    usual = {f"moved by {move} px": 900.0 for move in MOVES}
    bench = fake_bench(
        task, {"place as found": 900.0, **usual, **{f"moved by {move} px": to for move, to in by.items()}}
    )
    state = flat(task, np.zeros((1, 32, 32), np.complex64))
    state.probe[0, 10, 20] = state.canvas[15, 25] = 7
    probe, trials = answered(placed_probe(bench, state, Freedoms(probe=True)))
    for _, tried, _, sweeps in bench.asked:
        (y, x), (row, column) = (np.argwhere(field == 7)[0] for field in (tried.probe[0], tried.canvas))
        assert (row - y, column - x, sweeps) == (5, 5, 4), "the object moves with the probe"
    y, x = np.argwhere(probe[0] == 7)[0]
    return (y - 10, x - 20), kept(trials), len(bench.asked)


def test_a_probe_is_moved_to_where_its_window_cuts_off_least(bright: Scan) -> None:
    place, names, tried = placed(bright, {"+2, +0": 500, "+3, +0": 450, "+3, +1": 448, "+2, +2": 950})
    assert (place, names) == ((0, 3), ["place as found", "moved by +2, +0 px", "moved by +3, +0 px"])
    assert tried == 1 + 4 + 4


def test_a_move_needs_less_to_be_kept_than_a_choice(bright: Scan) -> None:
    assert placed(bright, {"+2, +0": 897}) == ((0, 2), ["place as found", "moved by +2, +0 px"], 1 + 4)


def test_where_no_move_matters_it_stays(bright: Scan) -> None:
    assert placed(bright, {"+2, +0": 899}) == ((0, 0), ["place as found"], 1 + 4)


# -- in a solve --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("engines")
def test_an_unknown_probe_is_found(bright: Scan) -> None:
    blind = attrs.evolve(bright, probe=np.ones_like(bright.probe))
    result = solve(blind, small(first_probe="auto", refine="probe", sweeps=12, batches=8))
    known = solve(bright, small(refine="probe", sweeps=12, batches=8))
    assert result.H is not None and known.H is not None
    assert result.H < 1.1 * known.H
    assert overlap(result.probe, bright.probe) > 0.97


def test_an_unknown_probe_that_is_not_to_be_refined_is_refused(solved_scan: Scan) -> None:
    blind = attrs.evolve(solved_scan, probe_known=False)
    for scan, config in ((blind, small()), (solved_scan, small(first_probe="auto"))):
        refusal_of(
            lambda scan=scan, config=config: Solving(scan, config), ConfigurationError, "Add probe", key="refine"
        )
