"""`ptycho train-prior`: a prior in a folder, learned from a folder of scans."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from ptycho_core.engine.protocol import Engine
from ptycho_core.engine.registry import load_engine
from ptycho_core.errors import ConfigurationError, DataError, TrainingError
from ptycho_core.events import Event, Listener, told_ending, told_file
from ptycho_core.io import load_scan
from ptycho_core.models.prior import PRIOR_NAME, TEACHING_NAME, LearnedPrior, load_teaching
from ptycho_core.runs.console import Output
from ptycho_core.runs.folder import kind_of_end, with_remedy
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.fields import fields_of
from ptycho_core.settings.files import to_toml
from ptycho_core.settings.prior import PriorConfig
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.solving.lessons import Lesson, again, from_counts, load_lesson, with_truth
from ptycho_core.solving.teaching import FREE, WORK, Teaching
from ptycho_core.storage.files import make_folder, remove_partial, write_text
from ptycho_core.storage.keeping import locked

LESSONS = "lessons"
CONFIG = "config.toml"


@attrs.frozen(eq=False)
class Taught:
    """A run that has ended. stop: what ended it early, for the caller to raise. summary: None before an epoch ended."""

    stop: KeyboardInterrupt | TrainingError | DataError | None
    summary: dict[str, Any] | None


def train_prior_into(
    folder: Path,
    config: PriorConfig,
    *,
    execution: ExecutionConfig | None = None,
    reading: ReadOptions | None = None,
    output: Output | None = None,
    resume: bool = False,
) -> Taught:
    """Solve the scans, learn from them, and write `prior.h5.zip` and `config.toml` into `folder`.

    `lessons/` has a file for each scan that is solved, `teaching.h5.zip` the state after every epoch; `resume` goes on
    from both. Raises ConfigurationError, DataError, BackendError or ArchiveError before any work; what ends the work is
    the result's `stop`.
    """
    execution, reading = execution or ExecutionConfig(), reading or ReadOptions()
    output = output or Output(quiet=True)
    paths = scans_in(config.scans_dir)
    for path in paths:
        _check(load_scan(path, reading), config)
    engine = load_engine(config.backend)
    checkpoint = None
    if resume:
        checkpoint = load_teaching(folder / TEACHING_NAME) if (folder / TEACHING_NAME).exists() else None
    stop: KeyboardInterrupt | TrainingError | DataError | None = None
    summary: dict[str, Any] | None = None
    with locked(folder), output.listening(folder) as tell:
        remove_partial(folder)
        if not resume:
            _remove_earlier(folder, tell)
        configs = {"prior": config, "execution": execution, "reading": reading}
        write_text(folder / CONFIG, to_toml(**configs))
        tell(Event(kind="started", work=WORK, message=f"backend {engine.name}, {len(paths)} scans"))
        run: Teaching | None = None
        prior: LearnedPrior | None = None
        lessons: list[list[Lesson]] = []
        try:
            for number in range(1, config.taught_rounds + 1):
                more = _lessons(number, prior, lessons, paths, folder, config, engine, execution, reading, tell)
                lessons = [[*had, *new] for had, new in zip(lessons or [[]] * len(paths), more, strict=True)]
                if checkpoint is not None and checkpoint.round > number:
                    continue
                run = Teaching(lessons, config, engine, execution, after=prior, resume=checkpoint)
                if checkpoint is not None and run.history:  # killed, or a disk was full, between the two files
                    told_file(tell, WORK, run.prior.save(folder / PRIOR_NAME))
                checkpoint = None
                tell(_prepared(run, lessons))
                for report in run:
                    tell(report)
                    if execution.enable_checkpointing:
                        told_file(tell, WORK, run.checkpoint().save(folder / TEACHING_NAME), "checkpoint")
                    told_file(tell, WORK, run.prior.save(folder / PRIOR_NAME))
                prior = run.prior
        except (KeyboardInterrupt, TrainingError) as error:
            stop = error
            told_ending(tell, WORK, stop)
        except DataError as error:  # a full disk is one, too
            command = shlex.join(("ptycho", "train-prior", "--resume", "--out", str(folder)))
            stop = with_remedy(error, f"What was made and learned before is kept; then: {command}")
        if run is not None and run.history:
            last = run.history[-1]
            summary = {"prior": str(folder / PRIOR_NAME), "scans": len(paths), "epochs": len(run.history)}
            summary |= {name: last[name] for name in ("loss", "unseen") if name in last}
        tell(Event(kind=kind_of_end(stop), work=WORK, message="" if stop is None else str(stop)))
    return Taught(stop, summary)


def scans_in(folder: Path | None) -> list[Path]:
    """The files in a folder, in order. ConfigurationError where there are none."""
    remedy = "Give the folder of scans as the argument SCANS, one file each."
    if folder is None or not folder.is_dir():
        received = "none" if folder is None else f"no such folder: {folder}"
        raise ConfigurationError(
            "PriorConfig", "scans_dir", expected="a folder of scans", received=received, remedy=remedy
        )
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not paths:
        received = f"no file in {folder}"
        raise ConfigurationError(
            "PriorConfig", "scans_dir", expected="a folder of scans", received=received, remedy=remedy
        )
    return paths


def check_goes_on(begun: PriorConfig, config: PriorConfig) -> None:
    """ConfigurationError where a run that goes on is asked for what its lessons are not."""
    for name in fields_of(PriorConfig):
        before, now = getattr(begun, name), getattr(config, name)
        if name not in FREE and now != before:
            remedy = "Leave it as it was, or begin a new run."
            raise ConfigurationError(
                "PriorConfig", name, expected=f"{before}, as the run began", received=now, remedy=remedy
            )


def _check(scan: Scan, config: PriorConfig) -> None:
    scan.check_probe()
    if not config.from_scans and scan.object_field is None:
        remedy = "Leave this scan out, or learn from thinned counts (--from-scans)."
        raise DataError(scan.source, "objectGuess", expected="ground truth", received="none", remedy=remedy)
    if config.from_scans and not scan.dose_known:
        remedy = "Leave it out, or give patterns of counts (--measurement intensity)."
        raise DataError(scan.source, "dose", expected="patterns in photons", received="an unknown unit", remedy=remedy)


def _lessons(
    number: int,
    prior: LearnedPrior | None,
    before: Sequence[Sequence[Lesson]],
    paths: Sequence[Path],
    folder: Path,
    config: PriorConfig,
    engine: Engine,
    execution: ExecutionConfig,
    reading: ReadOptions,
    tell: Listener,
) -> Iterator[list[Lesson]]:
    """Those of a round, of each scan in order: read where they are in the folder, or made.

    prior: of the round before, and before: the lessons up to it; a round later the last of each scan is made again.
    """
    kept = make_folder(folder / LESSONS)
    solving = SolveConfig(refine="none", modes="1", prior="none", sweeps=config.sweeps, seed=config.seed)
    for place, path in enumerate(paths):
        name = f"{path.name}.{number}"
        files, whole = sorted(kept.glob(f"{name}.*.npz")), kept / f"{name}.done"
        if not whole.exists():
            scan = load_scan(path, reading)
            made: Iterator[Lesson]
            if prior is not None:
                made = iter((again(scan, before[place][-1], prior, solving, engine, execution),))
            elif config.from_scans:
                rng = np.random.default_rng([config.seed, place])
                made = from_counts(scan, solving, engine, execution, rng)
            else:
                made = iter((with_truth(scan, solving, engine, execution),))
            files = [lesson.save(kept / f"{name}.{part}.npz") for part, lesson in enumerate(made)]
            write_text(whole, f"{len(files)}\n")
        yield [load_lesson(file) for file in files]
        tell(Event(kind="batch", work=WORK, done=place + 1, total=len(paths), unit="scan"))


def _prepared(run: Teaching, lessons: Sequence[Sequence[Lesson]]) -> Event:
    config = run.config
    count, total = sum(map(len, lessons)), config.taught_rounds * config.epochs
    message = f"round {run.round}: {count} lessons, {config.epochs} epochs of {config.steps} steps"
    return Event(kind="prepared", work=WORK, done=len(run.history), total=total, unit="epoch", message=message)


def _remove_earlier(folder: Path, tell: Listener) -> None:
    """What an earlier run left: its lessons may be of other scans."""
    for path in (folder / LESSONS, folder / TEACHING_NAME):
        if path.exists():
            tell(Event(kind="started", work=WORK, message=f"{path}: that of an earlier run is removed"))
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
