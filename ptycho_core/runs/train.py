"""`ptycho train`: a training run in a folder."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import attrs

from ptycho_core.errors import TrainingError
from ptycho_core.models.checkpoint import CHECKPOINT_NAME, Checkpoint
from ptycho_core.models.model import ARCHIVE_NAME, Model
from ptycho_core.runs.console import Output
from ptycho_core.runs.folder import BEST_MODELS, draw
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.files import to_toml
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.storage.files import make_folder, remove_partial, write_text
from ptycho_core.training.fit import Fit, fit
from ptycho_core.training.loggers import logger
from ptycho_core.training.reports import EpochReport, Progress


@attrs.frozen
class Trained:
    """A run that has ended. `stop`: what ended it early, for the caller to raise; None at its regular end."""

    run: Fit
    stop: KeyboardInterrupt | TrainingError | None
    summary: dict[str, Any] | None
    """What was written; None where no epoch had finished and so nothing was."""

    @property
    def model(self) -> Model | None:
        return self.run.model


def train_into(
    folder: Path,
    scan: Scan,
    config: TrainingConfig,
    *,
    test: Scan | None = None,
    execution: ExecutionConfig | None = None,
    reading: ReadOptions | None = None,
    output: Output | None = None,
    resume: Checkpoint | None = None,
) -> Trained:
    """Train, and write `wts.h5.zip`, `config.toml`, the logger's files and `loss.png` into `folder`.

    The best model so far and `checkpoint.h5.zip` are there after every epoch, unless `enable_checkpointing` is off.
    reading: how the scans' files were read, kept for the run to go on. resume: the checkpoint from which the run goes
    on; one that has ended trains nothing and has its files completed. Without it, the checkpoint of an earlier run in
    the folder is removed. Raises what `fit` raises.
    """
    execution, output = execution or ExecutionConfig(), output or Output(quiet=True)
    reading = reading or ReadOptions()
    last = "loss –"

    def on_batch(progress: Progress) -> None:
        done = (progress.epoch - 1) * run.patterns_per_epoch + progress.patterns
        update(done, f"epoch {progress.epoch}/{progress.nepochs}, {last}")

    run = fit(scan, config, test=test, execution=execution, on_batch=on_batch, resume=resume)
    _prepare(run, folder, resume, output)
    begun, started, stop = len(run.history), time.perf_counter(), None
    try:
        with (
            output.bar(config.nepochs * run.patterns_per_epoch, "train", "pattern") as update,
            logger(execution.logger, folder, run) as log,
        ):
            for report in run:
                last = describe_losses(report)
                if execution.enable_checkpointing:  # whatever ends the run later, what it has done is on disk
                    _keep(run, folder)
                    attrs.evolve(run.checkpoint(), reading=reading).save(folder / CHECKPOINT_NAME)
                log(report)
                update(report.epoch * run.patterns_per_epoch, f"epoch {report.epoch}/{report.nepochs}, {last}")
                left = (time.perf_counter() - started) / (report.epoch - begun) * (report.nepochs - report.epoch)
                if not sys.stderr.isatty():
                    rate = f"{report.patterns_per_second:.0f} patterns/s, {left:.0f} s left"
                    output.say(f"epoch {report.epoch}/{report.nepochs}: {last}, {rate}")
    except (KeyboardInterrupt, TrainingError) as error:
        stop = error
    configs = {"model": run.config.model, "training": run.config, "execution": execution, "reading": reading}
    return Trained(run, stop, None if run.model is None else _write(run, folder, configs, output, stop))


def describe_losses(report: EpochReport) -> str:
    text = f"loss {report.train['total']:.4g}"
    return text if report.validation is None else f"{text}, validation {report.validation['total']:.4g}"


def _prepare(run: Fit, folder: Path, resume: Checkpoint | None, output: Output) -> None:
    """The folder as the run needs it: nothing of another run, or of what an interrupted epoch of this one had done."""
    for place in (make_folder(folder), folder / BEST_MODELS):
        remove_partial(place)
    output.say(f"backend: {run.engine.name} ({run.engine.framework} {run.engine.version})")
    done = f"epoch {len(run.history)} of {run.config.nepochs}"
    if resume is None:
        if (folder / CHECKPOINT_NAME).exists():
            output.say(f"{folder / CHECKPOINT_NAME}: the checkpoint of an earlier run is removed")
            (folder / CHECKPOINT_NAME).unlink()
    elif run.ended:
        output.say(f"{folder / CHECKPOINT_NAME}: the run has ended, after {done}: nothing is left to train")
    else:
        output.say(f"{folder / CHECKPOINT_NAME}: the run goes on after {done}")
        if run.execution.enable_checkpointing:
            _keep(run, folder, rewrite=True)


def _keep(run: Fit, folder: Path, rewrite: bool = False) -> None:
    """The best model in `folder`, and where more are kept, each of them in `checkpoints`, better ones' places taken.

    Files that exist are left, unless `rewrite`.
    """
    best, *_ = run.best
    if rewrite or best.best_epoch == len(run.history) or not (folder / ARCHIVE_NAME).exists():
        best.save(folder / ARCHIVE_NAME)
    if run.execution.checkpoint_save_top_k == 1:
        return
    place = make_folder(folder / BEST_MODELS)
    kept = {f"epoch-{model.best_epoch:04d}.h5.zip": model for model in run.best}
    for name, model in kept.items():
        if rewrite or model.best_epoch == len(run.history) or not (place / name).exists():
            model.save(place / name)
    for file in place.glob("epoch-*.h5.zip"):
        if file.name not in kept:
            file.unlink()


def _write(
    run: Fit, folder: Path, configs: dict[str, Any], output: Output, stop: BaseException | None
) -> dict[str, Any]:
    assert run.model is not None
    _keep(run, folder)
    archive = run.model.save(folder / ARCHIVE_NAME)  # once more, now with the whole history
    write_text(folder / "config.toml", to_toml(**configs))
    return {
        "archive": str(archive),
        "backend": run.engine.name,
        "framework_version": run.engine.version,
        "epochs": len(run.history),
        "best_epoch": run.model.best_epoch,
        "losses": run.history[run.model.best_epoch - 1],
        "seconds": sum(row["seconds"] for row in run.history),
        "figure": draw(output, "plot_losses", run.history, folder / "loss.png"),
        "stopped_early": stop is not None,
    }
