"""Rules of positions and intensities."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_core.solving import positions as rules


def test_a_step_is_what_is_asked_for_and_at_most_half_a_pixel() -> None:
    begun = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    moved = rules.stepped(begun, np.array([[0.2, -0.4], [30.0, 40.0], [0.0, 0.0]]))
    np.testing.assert_allclose(moved - begun, [[0.2, -0.4], [0.3, 0.4], [0.0, 0.0]], atol=1e-12)


def test_a_frame_whose_step_is_not_known_stays() -> None:
    begun = np.zeros((2, 2))
    moved = rules.stepped(begun, np.array([[np.nan, np.nan], [0.2, 0.0]]))
    np.testing.assert_allclose(moved, [[0.0, 0.0], [0.2, 0.0]], atol=1e-12)


def test_moves_have_no_mean_and_stay_within_the_limit() -> None:
    begun = np.random.default_rng(0).uniform(0, 100, (50, 2))
    moved = begun + np.random.default_rng(1).normal(3, 4, (50, 2))
    confined = rules.confined(moved, begun, 5.0) - begun
    free = moved - begun - (moved - begun).mean(axis=0)
    near = np.linalg.norm(free, axis=1) <= 5
    assert 0 < near.sum() < 50
    np.testing.assert_allclose(confined[near], free[near], atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(confined[~near], axis=1), 5.0)


def test_tried_places_keep_their_mean_move() -> None:
    begun = np.zeros((3, 2))
    np.testing.assert_array_equal(rules.confined(begun + 2, begun, 5.0, centred=False), begun + 2)


def test_searches_come_at_a_quarter_to_five_eighths_of_the_sweeps_with_shrinking_circles() -> None:
    assert rules.searches(40, 2.0) == {10: 2.0, 15: 2.0, 20: 1.0, 25: 0.5}
    assert rules.searches(3, 2.0) == {}, "in so few sweeps an object is not good enough to search with"


def test_a_circle_has_its_centre_and_eight_places() -> None:
    moves = rules.circle(2.0)
    np.testing.assert_array_equal(moves[0], [0, 0])
    np.testing.assert_allclose(np.linalg.norm(moves[1:], axis=1), 2.0)
    np.testing.assert_allclose(moves[3], [0, 2], atol=1e-12)
    assert len(moves) == 9


def test_an_intensity_is_a_running_mean_of_what_fits() -> None:
    averaged = rules.averaged(np.array([1.0, 2.0, 1.0]), np.array([2.0, 1.0, np.nan]))
    np.testing.assert_allclose(averaged, [1.3, 2.0, 1.0])


@pytest.mark.parametrize("largest", [1.0, 2.0, 4.0])
def test_the_room_around_a_canvas_holds_every_move(largest: float) -> None:
    begun = np.zeros((2, 2))
    far = rules.confined(np.array([[100.0, 0.0], [-100.0, 0.0]]), begun, rules.LARGEST_MOVE * largest)
    step = rules.stepped(far, np.array([[9.0, 0.0], [-9.0, 0.0]]))
    assert np.abs(step).max() <= rules.reach_px(largest)
