"""How much a prior leaves of what is faint: the held-out deviance is blind to that (specs/solving.md, Prior)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptycho_core.engine.protocol import Engine
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.solving.features import lit_pixels
from ptycho_core.solving.prior import Prior
from ptycho_core.solving.problem import Task
from ptycho_core.solving.run import State, complex_of
from ptycho_core.vocabulary import OBJECT

# specs/solving.md, Prior
RADIUS_PX, APART_PX, PHASE = 3.5, 24, 0.1


def disks(shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Disks of `RADIUS_PX` on a square grid, `APART_PX` apart."""
    rows, columns = (np.arange(side) % APART_PX - APART_PX // 2 for side in shape)
    return np.hypot(rows[:, None], columns[None, :]) < RADIUS_PX


def kept_contrast(
    task: Task, engine: Engine, execution: ExecutionConfig, state: State, prior: Prior, weight: float
) -> float:
    """The part of faint phase disks that is left where they are added to a solved object; 1 is all.

    state: solved without a prior. It is compared with itself: Re Σ conj(d) (p(O + d) - p(O)) / Σ|d|², p the prior,
    applied as often as after the last sweep, and d what the disks change.
    """
    counts = task.light(state.probe, state.positions_px) * task.counts_per_intensity
    added = np.where(disks(task.shape) & lit_pixels(counts), np.exp(1j * PHASE), 1).astype(np.complex64)
    apply = prior.on(engine, execution)

    def after(canvas: NDArray[np.complex64]) -> NDArray[np.complex64]:
        solver = engine.start_solver(task.problem(canvas, state.probe, "poisson"), execution)
        for _ in range(1 + prior.rounds):
            apply(solver, weight, counts)
        return complex_of(solver.weights()[OBJECT])

    change = state.canvas * added - state.canvas
    left = after(state.canvas * added) - after(state.canvas)
    return float((change.conj() * left).real.sum(dtype=np.float64) / np.square(np.abs(change), dtype=np.float64).sum())
