"""What is computed by one process and by several, and compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import attrs
import numpy as np

from ptycho_core.engine.problem import FrameFacts, Rates
from ptycho_core.engine.processes import ALONE, Processes
from ptycho_core.engine.protocol import Engine
from ptycho_core.reconstruction.predict import reconstruct
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.solving.bands import Bands, started
from ptycho_core.solving.loop import Solving, SweepReport
from ptycho_core.solving.problem import begun, scaled
from ptycho_core.training.fit import Fit, fit
from ptycho_core.vocabulary import Weights
from tests.contract.cases import make_scan

RTOL = {"64-true": 1e-12, "32-true": 1e-5}
DIES = 7
"""Exit code of a process that is to die."""
Work = Callable[[Engine, str, Processes], Weights]


def execution(precision: str) -> ExecutionConfig:
    return ExecutionConfig(accelerator="cpu", precision=precision)  # type: ignore[arg-type]


@contextmanager
def found(engine: Engine) -> Iterator[None]:
    """Runs find the engine that is tested, even one that is registered nowhere."""
    with (
        patch("ptycho_core.training.prepare.find_engine", lambda name: lambda: engine),
        patch("ptycho_core.solving.loop.load_engine", lambda name: engine),
        patch("ptycho_core.reconstruction.prepare.find_engine", lambda name: lambda: engine),
    ):
        yield


def trained(
    engine: Engine, precision: str, processes: Processes, model: ModelConfig, **settings: Any
) -> tuple[Weights, Fit]:
    """Weights, optimiser and history of two epochs of batches of 2 and 1 groups, two batches a step at most."""
    scan = make_scan(model.N, 2, 2e4, True)
    config = TrainingConfig(model=model, nepochs=2, n_groups=3, batch_size=2, nphotons=2e4, **settings)
    run = fit(scan, config, execution=execution(precision), processes=processes)
    rows = [report.as_row() for report in run]
    kept = run.checkpoint()
    names = sorted(set(rows[0]) - {"seconds"})
    history = {f"history/{name}": np.array([row[name] for row in rows]) for name in names}
    best = {f"best/{name}": array for name, array in run.best[0].weights.items()}
    epoch = np.array(run.best[0].best_epoch)
    return {**kept.weights, **kept.optimizer, **history, **best, "epoch": epoch}, run


def cnn(engine: Engine, precision: str, processes: Processes) -> Weights:
    """And what its model reconstructs, with the evidence."""
    model = ModelConfig(N=32, architecture="contract", n_filters_scale=1, gridsize=2)
    trained_to, run = trained(engine, precision, processes, model, probe_trainable=True, accum_steps=2)
    result = reconstruct(make_scan(32, 2, 2e4, True), run.model, execution=execution(precision), processes=processes)
    assert result.frame_R is not None
    field = {"shown/real": result.object_field.real, "shown/imag": result.object_field.imag}
    return {**trained_to, **field, "shown/overlap": result.overlap_count, "shown/frame_R": result.frame_R}


def canvas(engine: Engine, precision: str, processes: Processes) -> Weights:
    """By gradient descent: Adam makes a step of any gradient that is there, rounding too."""
    model = ModelConfig(N=16, architecture="canvas", group_size=5, warm_sweeps=1, canvas_blocks=1)
    return trained(engine, precision, processes, model, optimizer="sgd")[0]


def stepped(engine: Engine, precision: str, processes: Processes) -> Weights:
    """Three steps of a solver on object and probe, with shifts, on 7 frames and on 1 of a wide scan.

    Of two processes each holds two thirds of the canvas, and the second one alone has a frame in the second step.
    """
    scan = make_scan(16, 2, 2e4, True).subset(slice(0, 7))
    scan = attrs.evolve(scan, positions_px=scan.positions_px * (8, 1))
    task = begun(scan, SolveConfig(nphotons=2e4))
    bands = Bands(task, 3.5, processes)
    canvas = np.exp(1j * np.linspace(0, 9, math.prod(task.shape))).reshape(task.shape).astype(np.complex64)
    problem = task.problem(canvas, scaled(scan, scan.probe), "poisson")
    solver, _ = started(engine, problem, execution(precision), bands)
    facts = {}
    for number, batch in enumerate((np.arange(7), np.array([3]), np.arange(7))):
        own = bands.share(batch)
        frames = task.frames(own, scan.diffraction_amplitude[own], scan.positions_px[own], np.ones(len(own)))
        found = solver.step(frames, Rates(0.1, 0.05), shifts=True)
        table = processes.joined([(own, found.table())], np.empty((7, FrameFacts.columns())))
        facts[f"facts/{number}"] = np.nan_to_num(table)
    return {**solver.weights(), **solver.optimizer_state(), **facts}


def solved(engine: Engine, precision: str, processes: Processes) -> Weights:
    """Everything refined, sweep by sweep: 13 frames in batches of 4, 3, 3 and 3."""
    scan = make_scan(32, 2, 2e4, True).subset(slice(0, 13))
    config = SolveConfig(
        sweeps=3, batches=4, refine="probe,positions,intensity", prior="none", nphotons=2e4, split_half=False
    )
    run = Solving(scan, config, execution=execution(precision), processes=processes)
    sweeps = [event for event in run if isinstance(event, SweepReport)]
    history = {
        f"history/{name}": np.array([sweep.as_row()[name] for sweep in sweeps]) for name in ("R", "H", "moved_px")
    }
    kept, result = run.checkpoint(), run.result()
    assert result.frame_R is not None
    state = {"positions": kept.positions_px, "intensity": kept.intensity, "shown/frame_R": result.frame_R}
    shown = {"shown/real": result.object_field.real, "shown/imag": result.object_field.imag}
    return {**kept.weights, **kept.optimizer, **history, **state, **shown}


WORKS: dict[str, Work] = {"cnn": cnn, "canvas": canvas, "stepped": stepped, "solved": solved}


def alone(engine: Engine, work: str, precision: str) -> Weights:
    with found(engine):
        return WORKS[work](engine, precision, ALONE)


def differences(theirs: Weights, ours: Weights, precision: str) -> list[str]:
    """Names of the arrays that differ by more than their rounding, each relative to its largest number."""
    assert sorted(theirs) == sorted(ours)
    told = []
    for name, array in ours.items():
        rtol = RTOL["32-true"] if "held_out" in name or name.startswith("shown/") else RTOL[precision]
        error, peak = np.abs(np.asarray(theirs[name], np.float64) - array).max(), np.abs(array).max()
        if not error <= rtol * peak:
            told.append(f"{name}: {error:.3g} of {peak:.3g}, allowed {rtol:.0e}")
    return told
