"""`ptycho train`: a training run in a folder."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from ptycho_core.engine.processes import ALONE, Processes, never
from ptycho_core.errors import ProcessError
from ptycho_core.events import Event, Listener, told_ending, told_file
from ptycho_core.models.checkpoint import CHECKPOINT_NAME, Checkpoint
from ptycho_core.models.model import ARCHIVE_NAME, Model
from ptycho_core.report.plots import plot_losses
from ptycho_core.report.record import write_record
from ptycho_core.runs.console import Output
from ptycho_core.runs.folder import (
    BEST_MODELS,
    STOPS,
    Stop,
    after_result,
    draw,
    following,
    kind_of_end,
    leading,
    reported,
    rescued,
    stoppable,
)
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.files import to_toml
from ptycho_core.settings.lists import SCANS_NAME
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.settings.rooted import rooted
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.storage.files import check_space, make_folder, remove_partial, write_text
from ptycho_core.storage.keeping import locked
from ptycho_core.training.fit import Fit, fit
from ptycho_core.training.loggers import logger
from ptycho_core.training.resuming import after_its_schedule


@attrs.frozen
class Trained:
    """A run that has ended. `stop`: what ended it early, for the caller to raise; None at its regular end."""

    run: Fit
    stop: Stop | None
    summary: dict[str, Any] | None
    """What was written at its end; None where no epoch had finished, or another process was gone."""

    @property
    def model(self) -> Model | None:
        return self.run.model


def train_into(
    folder: Path,
    scan: Scan | Sequence[Scan],
    config: TrainingConfig,
    *,
    test: Scan | Sequence[Scan] | None = None,
    execution: ExecutionConfig | None = None,
    reading: ReadOptions | None = None,
    output: Output | None = None,
    resume: Checkpoint | None = None,
    begin_from: Model | None = None,
    files: Sequence[Path] = (),
    processes: Processes | None = None,
    should_stop: Callable[[], bool] = never,
) -> Trained:
    """Train, and write `wts.h5.zip`, `config.toml`, the logger's files and `loss.png` into `folder`.

    The best model so far and `checkpoint.h5.zip` are there after every epoch, unless `enable_checkpointing` is off.
    reading: how the scans' files were read, kept for the run to go on. resume: the checkpoint from which the run goes
    on; one that has ended trains nothing and has its files completed. Without it, the checkpoint of an earlier run in
    the folder is removed. files: those of several scans, written down in `scans.txt` there. processes: those that
    train together, of which the first writes. should_stop: ends the run as Ctrl-C does. Raises what `fit` raises.
    """
    processes, config = processes or ALONE, rooted(config)
    execution = execution or ExecutionConfig()
    started = functools.partial(
        fit,
        scan,
        config,
        test=test,
        execution=execution,
        should_stop=should_stop,
        resume=resume,
        begin_from=begin_from,
        processes=processes,
    )
    if not processes.first:
        with following(folder, processes), stoppable():
            for _ in (run := started()):
                pass
            processes.barrier()
        return Trained(run, None, None)
    output, reading = output or Output(quiet=True), rooted(reading or ReadOptions())
    stop: Stop | None = None
    with locked(folder), leading(folder, processes), output.listening(folder) as tell:
        run = started(on_batch=tell)
        check_space(folder, run.bytes_on_disk)
        if files:
            write_text(folder / SCANS_NAME, "".join(f"{file.resolve()}\n" for file in files))
        begin = _prepare(run, folder, reading, resume)
        tell(begin)
        try:
            with stoppable(), logger(execution.logger, folder, run) as log:
                for report in run:
                    if execution.enable_checkpointing:  # whatever ends the run later, what it has done is on disk
                        _keep(run, folder, reading)
                        checkpoint = attrs.evolve(run.checkpoint(), reading=reading)
                        told_file(tell, "train", checkpoint.save(folder / CHECKPOINT_NAME), "checkpoint")
                    log(report)
                    tell(report)
        except STOPS as error:  # a full disk is one, too
            stop = error
            told_ending(tell, "train", stop)
        configs = {"model": run.config.model, "training": run.config, "execution": execution, "reading": reading}
        kept = isinstance(stop, ProcessError) and execution.enable_checkpointing  # others are to end soon
        summary = None if run.model is None or kept else _write(run, folder, configs, tell, stop)
        if summary is not None:
            with after_result(folder / ARCHIVE_NAME):
                write_record(
                    folder,
                    "train",
                    configs=configs,
                    scans=[scan] if isinstance(scan, Scan) else scan,
                    engine=run.engine,
                    seconds={"epochs": summary["seconds"]},
                    history=run.history,
                    warnings=output.warnings,
                    origin=output.origin,
                    stopped=None if stop is None else str(stop) or "an interrupt",
                )
                summary["report"] = reported(tell, folder)
        kind = kind_of_end(stop)
        tell(attrs.evolve(begin, kind=kind, done=len(run.history), message="" if stop is None else str(stop)))
        if stop is None:
            processes.barrier()
    return Trained(run, stop, summary)


def _prepare(run: Fit, folder: Path, reading: ReadOptions, resume: Checkpoint | None) -> Event:
    """The folder as the run needs it: nothing of another run, or of what an interrupted epoch of this one had done."""
    for place in (folder, folder / BEST_MODELS):
        remove_partial(place)
    file, done = folder / CHECKPOINT_NAME, f"epoch {len(run.history)} of {run.config.nepochs}"
    told = [f"backend: {run.engine.name} ({run.engine.framework} {run.engine.version})"]
    if resume is None:
        if file.exists():
            told.append(f"{file}: the checkpoint of an earlier run is removed")
            file.unlink()
    elif run.ended:
        told.append(f"{file}: the run has ended, after {done}: nothing is left to train")
    else:
        told.append(f"{file}: the run goes on after {done}")
        told += [sentence] if (sentence := after_its_schedule(run.config)) is not None else []
        if run.execution.enable_checkpointing:
            _keep(run, folder, reading, rewrite=True)
    epochs, message = len(run.history), "\n".join(told)
    return Event(kind="prepared", work="train", done=epochs, total=run.config.nepochs, unit="epoch", message=message)


def _keep(run: Fit, folder: Path, reading: ReadOptions, rewrite: bool = False) -> None:
    """The best model in `folder`, and where more are kept, each of them in `checkpoints`, better ones' places taken.

    Files that exist are left, unless `rewrite`.
    """
    models = [attrs.evolve(model, reading=reading) for model in run.best]
    best, *_ = models
    if rewrite or best.best_epoch == len(run.history) or not (folder / ARCHIVE_NAME).exists():
        best.save(folder / ARCHIVE_NAME)
    if run.execution.checkpoint_save_top_k == 1:
        return
    place = make_folder(folder / BEST_MODELS)
    kept = {f"epoch-{model.best_epoch:04d}.h5.zip": model for model in models}
    for name, model in kept.items():
        if rewrite or model.best_epoch == len(run.history) or not (place / name).exists():
            model.save(place / name)
    for file in place.glob("epoch-*.h5.zip"):
        if file.name not in kept:
            file.unlink()


def _write(
    run: Fit, folder: Path, configs: dict[str, Any], tell: Listener, stop: BaseException | None
) -> dict[str, Any]:
    assert run.model is not None
    model = attrs.evolve(run.model, reading=configs["reading"])
    archive = rescued(model.save, folder / ARCHIVE_NAME)  # once more, now with the whole history
    told_file(tell, "train", archive)
    with after_result(archive):
        _keep(run, folder, configs["reading"])
        write_text(folder / "config.toml", to_toml(**configs))
        figure = draw(tell, plot_losses, run.history, folder / "loss.png", best_epoch=run.model.best_epoch)
    return {
        "archive": str(archive),
        "backend": run.engine.name,
        "framework_version": run.engine.version,
        "epochs": len(run.history),
        "best_epoch": run.model.best_epoch,
        "losses": next((row for row in run.history if row["epoch"] == run.model.best_epoch), {}),
        "seconds": sum(row["seconds"] for row in run.history),
        "figure": figure,
        "stopped_early": stop is not None,
    }
