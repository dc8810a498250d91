"""Whether one candidate is better than another."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from ptycho_core.solving.choices import Candidate, Trial, margin, table


def candidate(deviance: object, pixels: int = 100) -> Candidate:
    return Candidate("one", np.asarray(deviance, np.float64), pixels)


def test_the_margin_is_the_difference_over_its_standard_error() -> None:
    """By hand: differences 1, 2, 3 have the sum 6 and the standard deviation 1, so that of the sum is √3."""
    assert margin(candidate([5, 5, 5]), candidate([6, 7, 8])) == pytest.approx(6 / math.sqrt(3))
    assert margin(candidate([6, 7, 8]), candidate([5, 5, 5])) == pytest.approx(-6 / math.sqrt(3))


def test_what_varies_alike_between_frames_does_not_blur_the_margin() -> None:
    """Frames differ a hundred times more among themselves than the candidates do."""
    rng = np.random.default_rng(0)
    frames, noise = rng.normal(1000, 100, 400), rng.normal(0, 1, 400)
    assert margin(candidate(frames), candidate(frames + 1 + noise)) > 15


def test_candidates_that_differ_by_noise_alone_are_not_told_apart() -> None:
    rng = np.random.default_rng(1)
    margins = [margin(candidate(rng.normal(0, 1, 200)), candidate(rng.normal(0, 1, 200))) for _ in range(200)]
    assert 0.8 < np.std(margins) < 1.2, "a standard error is what it says"
    assert max(map(abs, margins)) < 5


def test_what_is_not_finite_is_worse_than_anything() -> None:
    fine, broken = candidate([1, 2, 3]), candidate([1, np.nan, 3])
    assert margin(fine, broken) == math.inf
    assert margin(broken, fine) == -math.inf
    assert broken.mean_deviance == math.inf


def test_equal_candidates_and_a_single_frame_have_no_margin() -> None:
    assert margin(candidate([1, 2, 3]), candidate([1, 2, 3])) == 0
    assert margin(candidate([1]), candidate([9])) == 0


def test_a_trial_as_plain_values_comes_back() -> None:
    trial = Trial(question="prior", candidate="tv 0.1", deviance=0.5, margin=math.nan, kept=True, facts={"H": 0.1})
    row = json.loads(json.dumps(trial.as_dict()))
    assert row["margin"] is None
    again = Trial.from_mapping(row)
    assert math.isnan(again.margin)
    assert again.as_dict() == trial.as_dict()


def test_a_table_has_a_line_for_each_trial_and_marks_what_is_kept() -> None:
    trials = [
        Trial(question="freedoms", candidate="nothing refined", deviance=1.25, margin=math.nan, kept=False),
        Trial(question="freedoms", candidate="probe", deviance=1.125, margin=12.34, kept=True),
    ]
    _, first, second = table(trials).splitlines()
    assert first.split() == ["nothing", "refined", "1.25", "-"]
    assert second.split() == ["probe", "1.125", "12.3", "*"]
    assert trials[1].line == "freedoms: probe: held-out deviance 1.125, +12.3 standard errors (kept)"
