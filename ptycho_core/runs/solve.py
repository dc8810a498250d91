"""`ptycho solve`: a solved scan in a folder."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from ptycho_core.engine.processes import ALONE, Processes, never
from ptycho_core.events import Event, told_ending, told_file
from ptycho_core.reconstruction.result import RESULT_BYTES, Reconstruction, canvas_pixels
from ptycho_core.reconstruction.writing import check_pixel_known
from ptycho_core.report.plots import plot_reconstruction
from ptycho_core.report.record import write_record
from ptycho_core.runs.console import Output
from ptycho_core.runs.folder import (
    STOPS,
    Stop,
    after_result,
    draw,
    following,
    has_others,
    kind_of_end,
    leading,
    reported,
    rescued,
    stoppable,
    written_images,
)
from ptycho_core.scans.lengths import Lengths
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.files import to_toml
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.settings.rooted import rooted
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.solving.checkpoint import SOLVING_NAME, SolveCheckpoint
from ptycho_core.solving.loop import Solving, SweepReport
from ptycho_core.solving.start import Start
from ptycho_core.storage.files import check_space, remove_partial, write_text
from ptycho_core.storage.keeping import locked
from ptycho_core.training.loggers import logger

CHECKPOINT_BYTES = 32
"""Of an object pixel in the checkpoint of a solve, at least: the object and the state of its step."""


@attrs.frozen(eq=False)
class Solved:
    """A solve that has ended. `stop`: what ended it early, for the caller to raise; None at its regular end."""

    run: Solving
    stop: Stop | None
    result: Reconstruction | None
    summary: dict[str, Any] | None
    """What was written; None where no sweep had ended and so nothing was."""


def solve_into(
    folder: Path,
    scan: Scan,
    config: SolveConfig | None = None,
    *,
    start: Start | None = None,
    execution: ExecutionConfig | None = None,
    reading: ReadOptions | None = None,
    output: Output | None = None,
    resume: SolveCheckpoint | None = None,
    formats: Sequence[str] = (),
    processes: Processes | None = None,
    should_stop: Callable[[], bool] = never,
) -> Solved:
    """Solve, and write `reconstruction.npz`, `.json` and `.png`, `config.toml` and the logger's files into `folder`.

    `solving.h5.zip`, from which the run can go on, is there after every sweep, unless `enable_checkpointing` is off. An
    interrupt keeps the last whole sweep. reading: how the scan's file was read. resume: the checkpoint from which the
    run goes on; without it, that of an earlier run in the folder is removed. formats: further files of the object, by
    the names of `IMAGE_FORMATS`. processes: those that solve together, of which the first writes. should_stop: ends the
    run as Ctrl-C does. Raises what `Solving` raises, and DataError before any work for a format that cannot be written.
    """
    processes = processes or ALONE
    started = functools.partial(
        Solving,
        scan,
        None if config is None else rooted(config),
        start=start,
        execution=execution,
        should_stop=should_stop,
        resume=resume,
        processes=processes,
    )
    if not processes.first:
        return _followed(folder, started, processes)
    check_pixel_known(folder, formats, Lengths.of(scan.metadata, scan.N))
    again = CHECKPOINT_BYTES if (execution or ExecutionConfig()).enable_checkpointing else 0
    check_space(folder, (RESULT_BYTES + again) * canvas_pixels(scan.positions_px, scan.N))
    output, reading = output or Output(quiet=True), rooted(reading or ReadOptions())
    stop: Stop | None = None
    result: Reconstruction | None = None
    summary: dict[str, Any] | None = None
    with locked(folder), leading(folder, processes), output.listening(folder) as tell:
        run = started()
        keeps = processes.tell(run.execution.enable_checkpointing)
        remove_partial(folder)
        file = folder / SOLVING_NAME
        if resume is None and file.exists():
            tell(Event(kind="started", work="solve", message=f"{file}: the checkpoint of an earlier run is removed"))
            file.unlink()
        try:
            with stoppable(), logger(run.execution.logger, folder, run) as log:
                for event in run:
                    if isinstance(event, SweepReport):
                        if keeps:
                            kept = attrs.evolve(run.checkpoint(), reading=reading)
                            told_file(tell, "solve", kept.save(file), "checkpoint")
                        log(event)
                    tell(event)
        except STOPS as error:  # a full disk is one, too
            stop = error
            told_ending(tell, "solve", stop)
        if run.history and has_others(processes, stop):
            with stoppable():
                result = run.result()
            path = folder / "reconstruction.npz"
            rescued(result.save, path)
            told_file(tell, "solve", path)
            with after_result(path):
                figure = draw(tell, plot_reconstruction, result, folder / "reconstruction.png")
                summary = {**result.summary(), "scan": scan.source, "reconstruction": str(path), "figure": figure}
                summary["stopped_early"] = stop is not None
                summary["written"] = written_images(tell, "solve", folder, result, formats)
                configs = {"solving": run.config, "execution": run.execution, "reading": reading}
                write_text(folder / "config.toml", to_toml(**configs))
                write_record(
                    folder,
                    "solve",
                    configs=configs,
                    scans=[scan],
                    engine=run.engine,
                    seconds=result.seconds,
                    history=run.history,
                    warnings=output.warnings,
                    origin=output.origin,
                    stopped=None if stop is None else str(stop) or "an interrupt",
                )
                summary["report"] = reported(tell, folder)
                write_text(folder / "reconstruction.json", json.dumps(summary, indent=2) + "\n")
        kind = kind_of_end(stop)
        done, message = len(run.history), "" if stop is None else str(stop)
        tell(Event(kind=kind, work="solve", done=done, total=run.config.sweeps, unit="sweep", message=message))
    return Solved(run, stop, result, summary)


def _followed(folder: Path, started: Callable[[], Solving], processes: Processes) -> Solved:
    """The run of a process that writes nothing, to its result, of which each measures its share."""
    stop: Stop | None = None
    with following(folder, processes):
        run = started()
        keeps = processes.tell(False)  # as the first one says
        try:
            with stoppable():
                for event in run:
                    if isinstance(event, SweepReport) and keeps:
                        run.checkpoint()  # the first one keeps it, of what each of them holds
        except STOPS as error:
            stop = error
        with stoppable():
            result = run.result() if run.history and has_others(processes, stop) else None
    return Solved(run, stop, result, None)
