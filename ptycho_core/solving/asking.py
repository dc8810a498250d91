"""What a configuration leaves to be found out before the run: one question after the other, by short solves.

In the order orientation, first probe, freedoms, prior: each is asked with what was found before (specs/solving.md,
Solving).
"""

from __future__ import annotations

from collections.abc import Callable, Generator

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.engine.processes import ALONE, Processes, never
from ptycho_core.engine.protocol import Engine
from ptycho_core.reconstruction.result import Reconstruction
from ptycho_core.scans.scan import Scan
from ptycho_core.scans.steps import Orient
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.solving.choices import Trial
from ptycho_core.solving.first_probe import around, chosen_probe, placed_probe, unknown
from ptycho_core.solving.freedoms import stated, tried_freedoms, tried_priors
from ptycho_core.solving.modes import with_modes
from ptycho_core.solving.orientation import AS_READ, chosen_orientation, turned_task
from ptycho_core.solving.problem import Task, begun, scaled
from ptycho_core.solving.run import Freedoms, Plan, State
from ptycho_core.solving.start import begun_with, flat
from ptycho_core.solving.trials import Bench, cut, middle_of

TRIAL_SWEEPS = 10  # specs/solving.md, Choices


@attrs.frozen(eq=False, kw_only=True)
class Found:
    """What the run goes on with. task: with its patterns turned as `orientation` says."""

    task: Task
    orientation: Orient
    state: State
    freedoms: Freedoms


def plan_of(config: SolveConfig) -> Plan:
    """How a run of this configuration is annealed."""
    return Plan(
        sweeps=config.sweeps,
        batches=config.batches,
        object_rate=config.object_rate,
        probe_rate=config.probe_rate,
        loss=config.loss,
        seed=config.seed,
        position_error_px=config.position_error_px,
        unknown_probe=config.first_probe == "auto",
    )


def found_out(
    task: Task,
    config: SolveConfig,
    engine: Engine,
    execution: ExecutionConfig,
    *,
    start: Reconstruction | NDArray[np.complex64] | None = None,
    should_stop: Callable[[], bool] = never,
    processes: Processes = ALONE,
) -> Generator[Trial, None, Found]:
    """All that is left open, a row of the table at a time. DataError where the patterns do not tell."""

    def bench(few: Task) -> Bench:
        plan = attrs.evolve(plan_of(config), sweeps=TRIAL_SWEEPS, batches=min(config.batches, len(few)))
        return Bench(
            task=few, engine=engine, execution=execution, plan=plan, should_stop=should_stop, processes=processes
        )

    unknown_probe = config.first_probe == "auto"
    free = stated(config, len(task.scan.probe))
    searching = attrs.evolve(free, probe=True) if config.refined is None or unknown_probe else free
    alone = attrs.evolve(searching, positions=False, intensity=False)
    orientation = AS_READ
    if config.orientation == "auto":
        few, _ = middle_of(task)
        orientation = yield from chosen_orientation(bench(few), alone, probe_unknown=unknown_probe)
        task = turned_task(task, orientation)
    probe = scaled(task.scan, task.scan.probe)
    if unknown_probe or config.probe_defocus == "auto":
        few, _ = middle_of(task)
        candidates = unknown(task.scan) if unknown_probe else around(task.scan, task.scan.probe)
        found = yield from chosen_probe(bench(few), candidates, alone)
        placed = (yield from placed_probe(bench(few), found, alone)) if unknown_probe else found.probe
        probe = scaled(task.scan, placed)
    state = flat(task, probe) if start is None else begun_with(start, task, probe)
    few, index = middle_of(task)
    modes = config.mode_count or 0
    if config.refined is None or config.mode_count is None:
        chosen = yield from tried_freedoms(bench(few), cut(state, task, few, index), config)
        free, modes = chosen.freedoms, chosen.modes
    state = attrs.evolve(state, probe=with_modes(state.probe, modes))
    if config.prior != "none":
        free = yield from tried_priors(bench(few), cut(state, task, few, index), free, config)
    return Found(task=task, orientation=orientation, state=state, freedoms=free)


def orientation_of(scan: Scan, engine: Engine, execution: ExecutionConfig) -> Generator[Trial, None, Orient]:
    """Which way round the patterns of a scan are: nothing but the first question. DataError where they do not tell."""
    config = SolveConfig(batches=min(SolveConfig().batches, len(scan)), refine="probe")
    few, _ = middle_of(begun(scan, config))
    bench = Bench(task=few, engine=engine, execution=execution, plan=plan_of(config))
    return chosen_orientation(bench, Freedoms(probe=True), probe_unknown=not scan.probe_known)
