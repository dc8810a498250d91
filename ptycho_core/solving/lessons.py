"""What a prior learns from: a solved canvas, and what it should have been (specs/prior.md, Lessons)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.engine.protocol import Engine
from ptycho_core.errors import DataError
from ptycho_core.models.prior import LearnedPrior
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.simulation.thinning import thinned
from ptycho_core.solving.asking import plan_of
from ptycho_core.solving.learned import as_prior
from ptycho_core.solving.problem import Task, begun, cover_of, scaled
from ptycho_core.solving.run import Freedoms, Run
from ptycho_core.solving.start import flat
from ptycho_core.storage.npz import read_npz, write_npz

# specs/prior.md, Lessons
LEAST_PART, MOST_PART, PARTS = 0.001, 1 / 3, 4


@attrs.frozen(eq=False)
class Lesson:
    """canvas: complex64 (H, W), solved without a prior. wanted: complex64 (H, W), what it should be, to a factor;
    0 where that is not known. counts: float32 (H, W), photons on each pixel.
    """

    canvas: NDArray[np.complex64]
    wanted: NDArray[np.complex64]
    counts: NDArray[np.float32]

    def save(self, path: Path) -> Path:
        """Write the three arrays (.npz), whole or not at all; returns the path."""
        write_npz(path, attrs.asdict(self))
        return path


def load_lesson(path: Path) -> Lesson:
    """What `Lesson.save` wrote. Raises DataError."""
    arrays = read_npz(path)
    names = [field.name for field in attrs.fields(Lesson)]
    shapes = {arrays[name].shape for name in names if name in arrays}
    if set(arrays) != set(names) or len(shapes) != 1:
        received = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        remedy = "Remove it; it is written again."
        raise DataError(path, expected=f"{', '.join(names)} of one shape", received=received, remedy=remedy)
    return Lesson(**arrays)


def with_truth(scan: Scan, config: SolveConfig, engine: Engine, execution: ExecutionConfig) -> Lesson:
    """The lesson of a scan whose object is known. Raises DataError for another."""
    if scan.object_field is None:
        remedy = "Give simulated scans, or learn from thinned counts (--from-scans)."
        raise DataError(scan.source, "objectGuess", expected="ground truth", received="none", remedy=remedy)
    found = solved(scan, config, engine, execution)
    task = found.task
    wanted = np.zeros(task.shape, np.complex64)
    left, top = (round(edge) for edge in task.origin_px)
    height, width = scan.object_field.shape
    rows = slice(max(0, -top), min(task.shape[0], height - top))
    columns = slice(max(0, -left), min(task.shape[1], width - left))
    wanted[rows, columns] = scan.object_field[
        rows.start + top : rows.stop + top, columns.start + left : columns.stop + left
    ]
    return attrs.evolve(found.lesson, wanted=wanted)


def from_counts(
    scan: Scan, config: SolveConfig, engine: Engine, execution: ExecutionConfig, rng: np.random.Generator
) -> Iterator[Lesson]:
    """Lessons without a truth: the scan with a part of its photons, and with all of them. DataError without counts.

    The probe is refined with all photons, and then known.
    """
    whole = solved(scan, config, engine, execution, refined=True)
    for part in np.exp(rng.uniform(math.log(LEAST_PART), math.log(MOST_PART), PARTS)):
        fewer = attrs.evolve(thinned(scan, float(part), rng), probe=whole.probe)
        yield attrs.evolve(solved(fewer, config, engine, execution).lesson, wanted=whole.lesson.canvas)


def again(
    scan: Scan, lesson: Lesson, prior: LearnedPrior, config: SolveConfig, engine: Engine, execution: ExecutionConfig
) -> Lesson:
    """The same lesson a round later: its canvas as the prior leaves it and as it then meets its patterns again."""
    config = attrs.evolve(config, batches=min(config.batches, len(scan)))
    task, probe = begun(scan, config), scaled(scan, scan.probe)
    state = attrs.evolve(flat(task, probe), canvas=lesson.canvas)
    run = Run(task, engine, execution, state, Freedoms(), plan_of(config))
    run.solver.set_cover(cover_of(task.light(probe, scan.positions_px)))
    as_prior(lambda: prior).on(engine, execution)(run.solver, 1.0, lesson.counts.astype(np.float64))
    run.meet_patterns()
    return attrs.evolve(lesson, canvas=run.state.canvas)


@attrs.frozen(eq=False)
class SolvedCanvas:
    """lesson: with nothing wanted yet. probe: complex64 (modes, N, N)."""

    lesson: Lesson
    task: Task
    probe: NDArray[np.complex64]


def solved(
    scan: Scan, config: SolveConfig, engine: Engine, execution: ExecutionConfig, *, refined: bool = False
) -> SolvedCanvas:
    """The whole canvas of a scan without a prior, and the photons on each pixel. refined: whether the probe is.

    DataError where the probe is not known.
    """
    scan.check_probe()
    task = begun(scan, attrs.evolve(config, batches=min(config.batches, len(scan))))
    plan = attrs.evolve(plan_of(config), batches=min(config.batches, len(scan)))
    run = Run(task, engine, execution, flat(task, scaled(scan, scan.probe)), Freedoms(probe=refined), plan)
    for _ in range(config.sweeps):
        run.sweep()
    state = run.state
    counts = (task.light(state.probe, state.positions_px) * task.counts_per_intensity).astype(np.float32)
    return SolvedCanvas(Lesson(state.canvas, np.zeros_like(state.canvas), counts), task, state.probe)
