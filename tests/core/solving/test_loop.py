"""The loop: events, the result, stopping, diverging, going on."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from ptycho_core.errors import BackendError, Cancelled, ConfigurationError, DataError, TrainingError
from ptycho_core.events import Event
from ptycho_core.reconstruction.result import load_reconstruction
from ptycho_core.runs.solve import solve_into
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.solving.checkpoint import SOLVING_NAME, load_solve_checkpoint
from ptycho_core.solving.loop import Solving, SweepReport, solve, solving_steps
from ptycho_core.solving.run import Run
from tests.core.solving.conftest import small

pytestmark = pytest.mark.usefixtures("engines")
Likeness = Callable[[Any, Scan], float]


def finished(scan: Scan, config: SolveConfig, **more: Any) -> Solving:
    run = Solving(scan, config, **more)
    for _ in run:
        pass
    return run


def test_a_scan_is_solved(solved_scan: Scan, likeness: Likeness) -> None:
    """From a flat object, with the true probe."""
    result = solve(solved_scan, small(sweeps=40, batches=16))
    assert likeness(result, solved_scan) > 0.98
    assert result.R is not None and result.H is not None
    assert result.R < 0.01
    assert result.method == "solver"
    assert result.patterns == 40
    assert result.known is not None and 0.3 < result.known.mean() < 1
    assert not result.object_field[~result.known].any(), "what no light fell on is not known, not speckle"
    assert result.predicted_error is not None and np.isnan(result.predicted_error[~result.known]).all()


def test_a_listener_that_returns_true_ends_the_solve_with_that_sweep(solved_scan: Scan) -> None:
    ended = solve(solved_scan, small(), on_event=lambda event: event.kind == "sweep" and event.done == 2)
    assert [row["sweep"] for row in ended.history] == [1, 2]
    at_once = solve(solved_scan, small(), on_event=lambda event: event.kind == "started")
    assert len(at_once.history) == 1, "a sweep is needed for a result"


def test_an_event_after_every_sweep_holds_the_object_so_far(solved_scan: Scan) -> None:
    seen: list[tuple[float, float]] = []
    kinds = []
    steps = solving_steps(solved_scan, small())
    for event in steps:
        kinds.append(event.kind)
        if isinstance(event, SweepReport):
            field, known = event.payload.known_field()
            assert event.payload.origin_px == pytest.approx(tuple(np.floor(solved_scan.positions_px.min(axis=0)) - 8))
            seen.append((event.R, float(np.abs(field[known] - 1).mean())))
            assert event.line == f"sweep {event.done}/3: R {event.R:.4g}, H {event.H:.4g}"
            assert event.terms == {"R": event.R, "H": event.H}
    assert kinds == ["started", "prepared", "sweep", "sweep", "sweep"]
    assert seen[0][0] > seen[1][0] > seen[2][0], "the fit gets better"
    assert seen[0][1] < seen[2][1], "the object goes away from the flat one"


def test_the_step_size_falls_from_one_to_nothing_along_a_cosine(solved_scan: Scan) -> None:
    rates = [event.rate for event in Solving(solved_scan, small(sweeps=4)) if isinstance(event, SweepReport)]
    np.testing.assert_allclose(rates, [0.5 + 0.5 * np.cos(np.pi * t / 4) for t in (1, 2, 3, 4)], atol=1e-12)


def test_the_last_step_is_small_but_a_step(solved_scan: Scan, engines: list[str]) -> None:
    result = solve(solved_scan, small(sweeps=1, batches=1))
    moved = np.abs(result.object_field - 1)[result.known]
    assert 0.01 < moved.max() < 0.05, "half of the first step size, 0.05, in Adam's first step"


def test_a_listener_hears_the_events(solved_scan: Scan) -> None:
    heard: list[Event] = []
    result = solve(solved_scan, small(sweeps=1), on_event=heard.append)
    assert [event.kind for event in heard] == ["started", "prepared", "sweep"]
    assert [row["sweep"] for row in result.history] == [1.0]


def test_the_result_tells_settings_history_and_choices(solved_scan: Scan, tmp_path: Path) -> None:
    result = solve(solved_scan, small(sweeps=2, refine="probe,intensity", modes=2))
    assert result.settings["modes"] == "2"
    assert result.choices["modes"] == 2
    assert result.choices["refined"] == ["probe", "intensity"]
    assert result.probe.shape == (2, 16, 16)
    result.save(tmp_path / "reconstruction.npz")
    again = load_reconstruction(tmp_path)
    assert dict(again.choices) == json.loads(json.dumps(dict(result.choices)))
    assert [row["R"] for row in again.history] == [row["R"] for row in result.history]


def test_the_same_run_twice_is_the_same_to_the_last_bit(solved_scan: Scan) -> None:
    config = small(refine="probe,positions,intensity", modes=2, sweeps=4, prior="tv", prior_weight=0.01)
    one, other = solve(solved_scan, config), solve(solved_scan, config)
    np.testing.assert_array_equal(one.object_field, other.object_field)
    np.testing.assert_array_equal(one.positions_px, other.positions_px)


def test_each_sweep_takes_every_frame_once_in_an_order_of_its_own(
    solved_scan: Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ptycho_core.solving.problem import Task

    batches: list[list[int]] = []
    frames = Task.frames

    def watched(self: Task, index: Any, *rest: Any) -> Any:
        batches.append(list(index))
        return frames(self, index, *rest)

    monkeypatch.setattr(Task, "frames", watched)
    for _ in Solving(solved_scan, small(sweeps=2)):
        pass
    assert batches[0] == list(range(40)), "what R is before the first sweep"
    first, second = batches[1:5], batches[5:]
    assert sorted(itertools.chain(*first)) == sorted(itertools.chain(*second)) == list(range(40))
    assert first != second
    assert all(len(batch) == 10 for batch in batches[1:])


# -- stopping ----------------------------------------------------------------------------------------------------------


def test_a_wish_to_stop_is_granted_before_the_next_step_and_keeps_the_last_whole_sweep(solved_scan: Scan) -> None:
    calls = 0

    def stop() -> bool:
        nonlocal calls
        calls += 1
        return calls > 7  # in the second sweep

    run = Solving(solved_scan, small(), should_stop=stop)
    with pytest.raises(Cancelled, match="stopped in sweep 2, before batch 3 of 4"):
        for _ in run:
            pass
    whole = solve(solved_scan, small(sweeps=3))
    kept = run.result()  # though the wish is still there
    assert len(run.history) == len(kept.history) == 1
    assert kept.history[0]["R"] == whole.history[0]["R"]
    assert kept.R is not None and whole.R is not None
    assert kept.R > whole.R
    with pytest.raises(TrainingError, match="received a part of sweep 2"):
        run.checkpoint()


def test_a_wish_to_stop_while_the_result_is_made_ends_a_run_as_ctrl_c_does(solved_scan: Scan, tmp_path: Path) -> None:
    def stop() -> bool:
        return (tmp_path / SOLVING_NAME).exists()

    with pytest.raises(KeyboardInterrupt, match="stopped after sweep 1"):
        solve_into(tmp_path, solved_scan, small(sweeps=1), should_stop=stop)


def test_stopped_before_the_first_sweep_there_is_no_result(solved_scan: Scan) -> None:
    run = Solving(solved_scan, small(), should_stop=lambda: True)
    with pytest.raises(Cancelled):
        list(run)
    with pytest.raises(TrainingError, match="solving: expected a whole sweep; received none"):
        run.result()


def test_leaving_the_loop_and_coming_back_goes_on(solved_scan: Scan) -> None:
    run = Solving(solved_scan, small())
    for event in run:
        if event.kind == "sweep":
            break
    for _ in run:
        pass
    np.testing.assert_array_equal(run.result().object_field, solve(solved_scan, small()).object_field)


def test_a_run_that_diverges_stops_keeps_its_best_sweep_and_says_what_to_lower(
    solved_scan: Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the fourth sweep on its steps are a hundred times larger; in the third R rises a little."""
    larger = {2: 2.0, 3: 100.0}
    monkeypatch.setattr(Run, "share", lambda run, sweeps: larger.get(int(sweeps), 0.2))
    run = Solving(solved_scan, small(object_rate=0.1, sweeps=12))
    events = list(run)
    R = [row["R"] for row in run.history]
    assert len(R) == 3 and R[1] < R[2] < 1.5 * 0.1
    assert events[-1].kind == "warning"
    said = f"R rose from {R[1]:.4g} to "
    assert events[-1].message.startswith(said) and " in sweep 4: the run has diverged" in events[-1].message
    assert "its best sweep is kept. Lower object_rate, now 0.1." in events[-1].message
    result = run.result()
    assert run.ended
    assert result.choices["warnings"] == [events[-1].message]
    monkeypatch.setattr(Run, "share", lambda run, sweeps: 0.2)
    np.testing.assert_array_equal(
        result.object_field, solve(solved_scan, small(object_rate=0.1, sweeps=2)).object_field
    )


@pytest.mark.parametrize(("setting", "value"), [("object_rate", 5.0), ("probe_rate", 5.0)])
def test_a_run_that_diverges_in_its_first_sweep_is_an_error_that_says_what_to_lower(
    solved_scan: Scan, setting: str, value: float
) -> None:
    """It might come back as its steps shrink, but to an image that is worse than one with smaller steps."""
    with pytest.raises(
        TrainingError, match=rf"R of at most 0.15 in the first sweep; it is 0.026.*Lower {setting}, now 5"
    ):
        solve(solved_scan, small(refine="probe", sweeps=20, **{setting: value}))


def test_first_steps_away_from_a_good_object_are_no_divergence_but_few_sweeps_are_warned_of(solved_scan: Scan) -> None:
    good = solve(solved_scan, small(sweeps=40, batches=16))
    assert good.R is not None
    few, many = (solve(solved_scan, small(sweeps=sweeps, batches=16), start=good) for sweeps in (1, 40))
    assert few.history[0]["R"] > 2 * good.R
    (said,) = few.choices["warnings"]
    assert f"R is {few.R:.4g} after the sweeps and was" in said and "Raise sweeps, or lower object_rate" in said
    assert not many.choices["warnings"]


# -- going on ----------------------------------------------------------------------------------------------------------

FREE: dict[str, Any] = {
    "refine": "probe,positions,intensity",
    "modes": 2,
    "sweeps": 6,
    "prior": "tv",
    "prior_weight": 0.01,
}


@pytest.mark.parametrize("done", [1, 4])
def test_a_run_that_goes_on_is_the_same_to_the_last_bit(solved_scan: Scan, tmp_path: Path, done: int) -> None:
    execution = ExecutionConfig(precision="64-true")
    run = Solving(solved_scan, small(**FREE), execution=execution)
    for event in run:
        if event.kind == "sweep" and event.done == done:
            run.checkpoint().save(tmp_path)
            break
    checkpoint = load_solve_checkpoint(tmp_path)
    assert checkpoint.sweep == done
    again = finished(solved_scan, checkpoint.config, resume=checkpoint)
    whole = finished(solved_scan, small(**FREE), execution=execution)
    assert [row["R"] for row in again.history] == [row["R"] for row in whole.history]
    for field in ("object_field", "probe", "positions_px", "intensities"):
        np.testing.assert_array_equal(getattr(again.result(), field), getattr(whole.result(), field))


def test_what_was_found_out_is_not_asked_again(solved_scan: Scan, tmp_path: Path) -> None:
    config = small(refine="auto", sweeps=2)
    run = Solving(solved_scan, config)
    for event in run:
        if event.kind == "sweep":
            run.checkpoint().save(tmp_path / SOLVING_NAME)
            break
    again = Solving(solved_scan, resume=load_solve_checkpoint(tmp_path))
    kinds = [event.kind for event in again]
    assert kinds == ["started", "prepared", "sweep"]
    assert again.choices == run.choices
    assert len(again.trials) == 4


def test_a_run_that_ended_has_nothing_left_to_do_but_gives_its_result(solved_scan: Scan) -> None:
    run = finished(solved_scan, small())
    again = finished(solved_scan, small(), resume=run.checkpoint())
    np.testing.assert_array_equal(again.result().object_field, run.result().object_field)


@pytest.mark.parametrize(("field", "value"), [("sweeps", 9), ("object_rate", 0.1), ("seed", 7), ("loss", "amplitude")])
def test_what_would_make_another_run_is_refused(solved_scan: Scan, field: str, value: Any) -> None:
    run = finished(solved_scan, small())
    with pytest.raises(ConfigurationError, match=rf"SolveConfig: {field} must be .*, as the run began; got {value}"):
        Solving(solved_scan, small(**{field: value}), resume=run.checkpoint())


def test_another_scan_is_refused(solved_scan: Scan) -> None:
    checkpoint = finished(solved_scan, small()).checkpoint()
    other = attrs.evolve(solved_scan, positions_px=solved_scan.positions_px + 0.25)
    with pytest.raises(DataError, match="expected the scan that the run began with, positions of SHA-256"):
        Solving(other, small(), resume=checkpoint)


def test_a_run_goes_on_with_the_engine_that_began_it(solved_scan: Scan, engines: list[str]) -> None:
    checkpoint = finished(solved_scan, small()).checkpoint()
    engines.clear()
    Solving(solved_scan, small(), resume=checkpoint)
    Solving(solved_scan, small(backend="torch"), resume=checkpoint)
    assert engines == ["reference", "torch"]


# -- refused -----------------------------------------------------------------------------------------------------------


def test_an_unknown_prior_is_refused_before_the_scan_is_looked_at(solved_scan: Scan) -> None:
    with pytest.raises(ConfigurationError, match=r"SolveConfig: prior must be one of auto, none, tv, .* got 'tvv'"):
        Solving(solved_scan, small(prior="tvv"))


def test_without_a_scan_there_is_nothing_to_solve() -> None:
    with pytest.raises(ConfigurationError, match="SolveConfig: data_file must be a scan to solve; got none"):
        solve(None, small())


def test_an_engine_without_a_solver_is_refused(solved_scan: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        name = "old"

    monkeypatch.setattr("ptycho_core.solving.loop.load_engine", lambda backend: Old())
    with pytest.raises(BackendError, match="'old' has no solver"):
        Solving(solved_scan, small())
