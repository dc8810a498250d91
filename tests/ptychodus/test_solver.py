"""Ptychodus 1.7 solves a scan with our solver, on every engine, gets probe and positions back, and stops when asked."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ptychodus", reason="ptychodus is not installed")

from tests.ptychodus.conftest import LIBRARY, ONE, Case, Ptychodus

SOLVE = f"{LIBRARY}_solve"


def test_a_solve_comes_back_with_its_object_probe_and_positions(
    simulated: Case,
    opened: Callable[[Case], Ptychodus],
    settings: Callable[..., None],
    backend: str,
    without_children: None,
) -> None:
    settings(backend=backend, sweeps=10, modes="1", refine="probe,positions", prior="none")
    ptychodus = opened(simulated)
    with ptychodus.watched() as told:
        result = ptychodus.product.reconstruct_local(algorithm=SOLVE, block=True)
        ptychodus.core.run_tasks()
    done, goals = zip(*told[1:], strict=True)
    assert list(done) == sorted(done) and done[0] == 0 and done[-1] == goals[-1] == 10
    before, after = ptychodus.product.get_product(), result.get_product()
    assert after.object_.get_geometry() == before.object_.get_geometry()
    assert simulated.correlation(after.object_.get_layer(0)) > 0.98
    misfit = [loss.value for loss in after.losses]
    assert len(misfit) >= 2 and misfit[-1] < misfit[0]
    assert not np.array_equal(after.probes.get_array(), before.probes.get_array())
    pixel = before.object_.get_pixel_geometry().width_m
    moved = [
        np.hypot(new.x_m - old.x_m, new.y_m - old.y_m) / pixel
        for new, old in zip(after.probe_positions, before.probe_positions, strict=True)
    ]
    assert 0 < max(moved) < 0.5, "correct positions stay where they are, by the grid of the object"


@pytest.mark.skipif(not ONE, reason="no engine is installed")
def test_a_stop_ends_a_solve_within_two_seconds(
    simulated: Case,
    opened: Callable[[Case], Ptychodus],
    settings: Callable[..., None],
) -> None:
    settings(backend=ONE, sweeps=1000, modes="1", refine="probe", prior="none")
    ptychodus: Any = opened(simulated)
    monitor = ptychodus.monitor
    runs = monitor.get_completed_runs()
    result = ptychodus.product.reconstruct_local(algorithm=SOLVE, block=False)
    ptychodus.until(lambda: monitor.get_progress_goal() == 1000 and monitor.get_progress() > 0)
    asked = time.monotonic()
    monitor.stop_processing()
    ptychodus.until(lambda: monitor.get_completed_runs() > runs)
    assert time.monotonic() - asked < 2
    monitor.raise_if_failed()
    ptychodus.core.run_tasks()
    assert np.isfinite(result.get_product().object_.get_array()).all()
