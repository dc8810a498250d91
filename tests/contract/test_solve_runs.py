"""Whole solves: every engine comes to what the float64 reference comes to, and goes on where another stopped."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from ptycho_core_reference import ReferenceEngine

from ptycho_core.engine.protocol import Engine
from ptycho_core.errors import TrainingError
from ptycho_core.physics.canvas import summed_weight
from ptycho_core.quality.metrics import complex_correlation
from ptycho_core.reconstruction.result import Reconstruction
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.simulation import simulate
from ptycho_core.solving.checkpoint import SolveCheckpoint, load_solve_checkpoint
from ptycho_core.solving.loop import Solving

CASES: dict[str, dict[str, Any]] = {
    "one mode": {"refine": "probe"},
    "everything": {"refine": "probe,positions,intensity", "modes": 2, "prior": "tv", "prior_weight": 0.02},
    "amplitude": {"refine": "none", "loss": "amplitude"},
}
SWEEPS, STOPPED = 8, 3
R_RTOL, ALIKE = 0.01, 0.999
ON_THE_EDGE = 1e-3
"""How near the least light of a known pixel it may be enough on one engine and not on another: rounding moves it."""


@functools.cache
def scan() -> Scan:
    """60 patterns of 32 x 32 pixels."""
    return simulate(N=32, positions=60, step_px=4, object="dead-leaves", photons=1e5, seed=2)


def solving(engine: Engine, case: str, resume: SolveCheckpoint | None = None, **changes: Any) -> Solving:
    config = SolveConfig(sweeps=SWEEPS, batches=8, **{"modes": 1, "prior": "none", **CASES[case], **changes})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ptycho_core.solving.loop.load_engine", lambda backend: engine)
        return Solving(scan(), config, execution=ExecutionConfig(accelerator="cpu"), resume=resume)


def ended(run: Solving) -> Reconstruction:
    for _ in run:
        pass
    return run.result()


def stopped(run: Solving) -> SolveCheckpoint:
    for event in run:
        if event.kind == "sweep" and event.done == STOPPED:
            return run.checkpoint()
    raise AssertionError("the run ended before")


@functools.cache
def reference(case: str) -> Reconstruction:
    return ended(solving(ReferenceEngine(), case))


def light_of(result: Reconstruction) -> NDArray[np.float64]:
    """(H, W): Σ|P|² placed at every position."""
    weight = np.square(np.abs(result.probe), dtype=np.float64).sum(axis=0)
    shape = result.object_field.shape
    return summed_weight(result.positions_px, weight, origin_px=result.origin_px, shape=shape)


def assert_alike(actual: Reconstruction, expected: Reconstruction) -> None:
    """R within 1 %, and objects alike up to their phase, on all that both know."""
    assert actual.R is not None and actual.H is not None and expected.R is not None and expected.H is not None
    assert expected.known is not None
    np.testing.assert_allclose([actual.R, actual.H], [expected.R, expected.H], rtol=R_RTOL)
    assert actual.known is not None
    known = actual.known & expected.known
    light = light_of(expected)
    np.testing.assert_allclose(light[actual.known != expected.known], light[expected.known].min(), rtol=ON_THE_EDGE)
    assert complex_correlation(actual.object_field, expected.object_field, known) > ALIKE
    np.testing.assert_allclose(actual.positions_px, expected.positions_px, atol=0.01)
    np.testing.assert_allclose(actual.intensities, expected.intensities, rtol=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_a_solve_comes_to_what_the_reference_comes_to(engine: Engine, case: str) -> None:
    assert_alike(ended(solving(engine, case)), reference(case))


@pytest.mark.parametrize("begun_by_reference", [True, False], ids=["from the reference", "to the reference"])
def test_a_solve_goes_on_in_another_engine(engine: Engine, begun_by_reference: bool, tmp_path: Path) -> None:
    begun, other = (ReferenceEngine(), engine) if begun_by_reference else (engine, ReferenceEngine())
    stopped(solving(begun, "everything")).save(tmp_path)
    result = ended(solving(other, "everything", load_solve_checkpoint(tmp_path)))
    assert len(result.history) == SWEEPS
    assert_alike(result, reference("everything"))


def test_a_solve_that_goes_on_in_its_engine_is_the_same_to_the_last_bit(engine: Engine, tmp_path: Path) -> None:
    whole = ended(solving(engine, "everything"))
    stopped(solving(engine, "everything")).save(tmp_path)
    again = ended(solving(engine, "everything", load_solve_checkpoint(tmp_path)))
    for name in ("object_field", "probe", "positions_px", "intensities"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name), err_msg=name)


def test_a_solve_that_diverges_is_an_error_that_says_what_to_lower(engine: Engine) -> None:
    run = solving(engine, "amplitude", object_rate=5.0)
    with pytest.raises(TrainingError, match=r"the run has diverged. Lower object_rate, now 5\."):
        list(run)
