"""One family of events: what they hold, how one becomes another, and how a terminal shows them."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import pty
import re
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho_core.embedding import ReconstructionProgress, TrainingProgress
from ptycho_core.events import Event, counting
from ptycho_core.runs.console import Output
from ptycho_core.runs.reconstruct import reconstruct_into
from ptycho_core.runs.train import train_into
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.training.reports import EpochReport, Progress
from tests.networks import cnn

BEGIN = Event(kind="prepared", work="train", total=50, unit="epoch", message="backend: torch")


def report(done: int = 2, total: int = 50, loss: float = 0.0123456) -> EpochReport:
    return EpochReport(
        done=done,
        total=total,
        learning_rate=1e-3,
        physics_weight=1.0,
        train={"total": loss, "nll": 0.25},
        validation={"total": 0.75},
        is_best=True,
        is_kept=True,
        seconds=3.5,
        patterns_per_second=20.0,
    )


def batch(done: int, epoch: int = 3, **terms: float) -> Progress:
    settings = {"nepochs": 50, "batch": 0, "batches": 10, "patterns": done % 1000}
    return Progress(done=done, total=50_000, epoch=epoch, terms=terms, **settings)


def test_a_line_counts_and_says_what_came_of_it() -> None:
    sweep = Event(kind="sweep", work="solve", done=3, total=50, unit="sweep", message="error 0.1")
    assert sweep.line == "sweep 3/50: error 0.1"
    assert Event(kind="batch", work="convert", done=3, unit="pattern").line == "pattern 3"
    assert Event(kind="warning", work="train", message="mind the gap").line == "mind the gap"
    assert report().line == "epoch 2/50: loss 0.01235, validation 0.75, 20 patterns/s"


def test_an_epoch_has_its_losses_as_terms() -> None:
    assert (report().kind, report().unit, report().epoch, report().nepochs) == ("epoch", "epoch", 2, 50)
    assert report().terms == {"total": 0.0123456, "nll": 0.25, "validation_total": 0.75}


def test_an_event_becomes_one_that_says_more() -> None:
    progress = report().extended(TrainingProgress, best_epoch=1, model_path=Path("model.zip"), backend="torch")
    assert isinstance(progress, EpochReport)
    assert (progress.epoch, progress.goal, progress.train, progress.best_epoch) == (2, 50, report().train, 1)
    assert progress.terms == report().terms
    assert pickle.loads(pickle.dumps(progress)) == progress  # noqa: S301 - our own


def test_as_plain_values_an_event_is_json_without_arrays_and_payload() -> None:
    field, known = np.ones((2, 2), np.complex64), np.ones((2, 2), bool)
    partial = ReconstructionProgress(done=1, total=2, object_field=field, known=known, payload=field)
    expected = {"kind": "partial", "work": "reconstruct", "done": 1, "total": 2, "unit": "group", "terms": {}}
    assert json.loads(json.dumps(partial.as_dict())) == {**expected, "message": "", "summary": None}
    progress = report().extended(TrainingProgress, best_epoch=1, model_path=Path("model.zip"), backend="torch")
    assert json.loads(json.dumps(progress.as_dict()))["model_path"] == "model.zip"


def test_counts_become_events() -> None:
    heard: list[Event] = []
    counting(heard.append, "convert", "pattern")(3, 9)
    assert heard == [Event(kind="batch", work="convert", done=3, total=9, unit="pattern")]


# -- on a terminal -------------------------------------------------------------------------------------------------


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], list[str]]:
    """Runs a function with stderr at a terminal of 80 columns, and returns the lines that were drawn there."""

    def lines_of(write: Callable[[], None]) -> list[str]:
        master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, 80))
        with os.fdopen(slave, "w") as stream, monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", stream)
            write()
        drawn = b""
        with os.fdopen(master, "rb", buffering=0) as other, contextlib.suppress(OSError):  # its end is an error
            while part := other.read(2**16):
                drawn += part
        return [line for line in re.split(r"[\r\n]+", drawn.decode()) if line.strip()]

    return lines_of


def show(*events: Event) -> Callable[[], None]:
    def write() -> None:
        with Output().listening() as tell:
            for event in events:
                tell(event)

    return write


def test_a_bar_fits_80_columns_and_cuts_off_no_loss(terminal: Any) -> None:
    lines = terminal(show(BEGIN, batch(1000), report(), batch(2000), report(50, loss=1.234e-05)))
    assert lines[0] == "backend: torch"
    assert max(map(len, lines)) <= 80
    last = lines[-1].rstrip()
    assert last.startswith("train 100%|")
    assert last.endswith("epoch 50/50, loss 1.234e-05, validation 0.75")


def test_a_bar_shows_the_loss_within_an_epoch_and_the_time_left(terminal: Any) -> None:
    first = terminal(show(BEGIN, batch(0, 1), batch(100, 1, total=0.02)))[-1].rstrip()
    assert re.search(r"\| [\d:]+ left, epoch 1/50, loss 0\.02$", first)
    last = terminal(show(BEGIN, batch(0, 1), report(), batch(2100, total=0.02, validation_total=1.234e-05)))[
        -1
    ].rstrip()
    assert re.search(r"\| [\d:]+ left, epoch 3/50, loss 0\.02, validation 1\.234e-05$", last)
    assert len(first) <= 80 and len(last) <= 80


def test_work_without_a_note_shows_its_rate(terminal: Any) -> None:
    done = [Event(kind="batch", work="reconstruct", done=done, total=9000, unit="group") for done in (1, 9000)]
    *_, last = terminal(show(*done))
    assert last.startswith("reconstruct 100%|")
    assert re.search(r"\| 00:00 left, +[\d.]+ groups/s$", last.rstrip()) and len(last) <= 80


def test_elsewhere_every_epoch_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    show(BEGIN, batch(1000), report(1), batch(2000), report(2))()
    first, *epochs = capsys.readouterr().err.splitlines()
    assert first == "backend: torch"
    assert [line.rpartition(",")[0] for line in epochs] == [report(1).line, report(2).line]
    assert all(line.endswith("s left") for line in epochs)


def test_what_cannot_be_drawn_is_said_once_by_a_command_of_several_runs(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    for _ in range(2):
        with output.listening() as tell:
            for work in ("draw", "watch"):
                tell(Event(kind="warning", work=work, message=f"{work}: left out"))
    assert capsys.readouterr().err.split("\n") == ["draw: left out", "watch: left out", "watch: left out", ""]
    assert output.warnings == ["draw: left out", "watch: left out"]


# -- what a work tells ---------------------------------------------------------------------------------------------


class Ears(Output):
    """Hears everything."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.heard: list[Event] = []

    def listening(self, folder: Path | None = None) -> Any:
        return contextlib.nullcontext(self.heard.append)


def test_a_training_tells_its_course(fake_engine: Any, numbered_scan: Any, tmp_path: Path) -> None:
    config = TrainingConfig(model=cnn(N=32, n_filters_scale=1), nepochs=2, batch_size=8, n_groups=9)
    ears = Ears()
    train_into(tmp_path, numbered_scan(9), config, execution=ExecutionConfig(logger="none"), output=ears)
    steps = [
        (event.kind, event.done, event.total, event.unit)
        for event in ears.heard
        if event.kind not in ("file", "checkpoint")
    ]
    assert [step for step in steps if step[0] != "warning"] == [
        ("prepared", 0, 2, "epoch"),
        ("batch", 0, 18, "pattern"),
        ("batch", 8, 18, "pattern"),
        ("epoch", 1, 2, "epoch"),
        ("batch", 9, 18, "pattern"),
        ("batch", 17, 18, "pattern"),
        ("epoch", 2, 2, "epoch"),
        ("finished", 2, 2, "epoch"),
    ]
    files = [event.payload for event in ears.heard if event.kind in ("file", "checkpoint")]
    assert {"checkpoint.h5.zip", "wts.h5.zip"} <= {path.name for path in files}
    assert all(path.is_file() for path in files)
    assert {event.payload.name for event in ears.heard if event.kind == "checkpoint"} == {"checkpoint.h5.zip"}


@pytest.mark.parametrize("kind", ["failed", "cancelled"])
def test_a_training_tells_how_it_ended(fake_engine: Any, numbered_scan: Any, tmp_path: Path, kind: str) -> None:
    def loss(epoch: int) -> float:
        if epoch == 2 and kind == "cancelled":
            raise KeyboardInterrupt
        return 1.0 if epoch == 1 else float("nan")

    fake_engine.train_loss = loss
    config = TrainingConfig(model=cnn(N=32, n_filters_scale=1), nepochs=3, n_groups=9)
    ears = Ears()
    done = train_into(tmp_path, numbered_scan(9), config, output=ears)
    assert done.stop is not None
    assert (ears.heard[-1].kind, ears.heard[-1].done, ears.heard[-1].message) == (kind, 1, str(done.stop))
    assert [event.kind for event in ears.heard].count("cancelling") == (kind == "cancelled")


def test_a_reconstruction_tells_its_course(fake_engine: Any, numbered_scan: Any, tmp_path: Path) -> None:
    scan = numbered_scan(9)
    config = TrainingConfig(model=cnn(N=32, n_filters_scale=1), nepochs=1, n_groups=9)
    model = train_into(tmp_path, scan, config).model
    assert model is not None
    ears = Ears()
    reconstruct_into(tmp_path, scan, model, execution=ExecutionConfig(inference_batch_size=5), output=ears)
    batches = [(event.done, event.total, event.unit) for event in ears.heard if event.kind == "batch"]
    assert batches == [(5, 9, "group"), (9, 9, "group")]
    assert tmp_path / "reconstruction.npz" in [event.payload for event in ears.heard if event.kind == "file"]
