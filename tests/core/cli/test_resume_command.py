"""`ptycho train --resume`: the run in the output folder goes on, with its own settings and no others."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ptycho_core_reference import ReferenceEngine

from ptycho_core import save_scan
from ptycho_core.errors import TrainingError
from ptycho_core.models.checkpoint import CHECKPOINT_NAME, load_checkpoint
from ptycho_core.models.model import load_model
from ptycho_core.training.schedules import learning_rate
from ptycho_core.vocabulary import LOG_SCALE

pytestmark = pytest.mark.usefixtures("tiny_architecture")

LOSSES = {1: 5.0, 2: 3.0, 3: 4.0, 4: 2.0, 5: 3.5, 6: 1.0}


@pytest.fixture
def scan_file(tmp_path: Path, numbered_scan: Any) -> Path:
    path = tmp_path / "scan.npz"
    save_scan(path, numbered_scan(9))
    return path


@pytest.fixture
def train(
    ptycho: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fake_engine: Any
) -> Callable[..., Any]:
    """`train(scan, …)` into `run`; figures are left out, and `stops_in` an epoch ends the process as a kill would."""
    monkeypatch.setattr("ptycho_core.runs.folder.draw", lambda *arguments, **keywords: None)

    def run(*arguments: object, stops_in: int | None = None) -> Any:
        def loss(epoch: int) -> float:
            if epoch == stops_in:
                raise TrainingError("the power is cut")
            return LOSSES[epoch]

        fake_engine.train_loss = loss
        return ptycho("train", *arguments, "--out", tmp_path / "run", "--json")

    return run


BEGIN: tuple[object, ...] = (
    *("--architecture", "tiny", "--n-filters-scale", 1, "--nepochs", 4, "--batch-size", 4, "--scheduler", "Default"),
    *("--checkpoint-monitor-metric", "total"),  # what the fake engine is told
)


@pytest.fixture
def stopped(train: Callable[..., Any], scan_file: Path, tmp_path: Path) -> Path:
    """The folder of a run that ended in its third epoch, as it is when the process was killed there."""
    assert train(scan_file, *BEGIN, "--checkpoint-save-top-k", 2, stops_in=3).code == 2
    for name in ("config.toml", "loss.png"):
        (tmp_path / "run" / name).unlink(missing_ok=True)
    return tmp_path / "run"


def test_a_run_goes_on_with_its_own_settings(train: Callable[..., Any], stopped: Path, fake_engine: Any) -> None:
    assert load_checkpoint(stopped).epoch == 2
    fake_engine.epochs.clear()
    outcome = train("--resume")
    assert outcome.code == 0, outcome.err
    assert len(fake_engine.epochs) == 2
    assert f"{stopped / CHECKPOINT_NAME}: the run goes on after epoch 2 of 4" in outcome.err
    model = load_model(stopped)
    assert (model.best_epoch, len(model.history), model.config.batch_size) == (4, 4, 4)
    with (stopped / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3", "4"]
    assert (stopped / "config.toml").exists()
    assert sorted(path.name for path in (stopped / "checkpoints").iterdir()) == [
        "epoch-0002.h5.zip",
        "epoch-0004.h5.zip",
    ]


def test_what_a_killed_epoch_left_behind_is_put_right(
    train: Callable[..., Any], stopped: Path, fake_engine: Any
) -> None:
    """Killed after the archive of epoch 3 was written and before its checkpoint was."""
    best = load_model(stopped)
    best.history.append({"epoch": 3.0, "total": 0.1})
    best.weights[LOG_SCALE].fill(3)  # type: ignore[index]
    best.save(stopped)
    (stopped / ".wts.h5.zip.abc.partial").write_bytes(b"half")
    (stopped / "checkpoints" / ".epoch-0003.h5.zip.abc.partial").write_bytes(b"half")
    assert train("--resume", stops_in=3).code == 2
    assert int(load_model(stopped).weights[LOG_SCALE]) == 2
    assert not list(stopped.rglob("*.partial"))


def test_a_run_that_has_ended_says_so_and_trains_nothing(
    train: Callable[..., Any], stopped: Path, fake_engine: Any
) -> None:
    assert train("--resume").code == 0
    fake_engine.epochs.clear()
    before = load_model(stopped)
    (stopped / "config.toml").unlink()
    outcome = train("--resume")
    assert outcome.code == 0
    assert "the run has ended, after epoch 4 of 4: nothing is left to train" in outcome.err
    assert fake_engine.epochs == []
    assert load_model(stopped).history == before.history
    assert (stopped / "config.toml").exists()


def test_a_run_that_has_ended_goes_on_with_more_epochs(train: Callable[..., Any], stopped: Path) -> None:
    assert train("--resume").code == 0
    assert train("--resume", "--nepochs", 6).code == 0
    assert (len(load_model(stopped).history), load_checkpoint(stopped).config.nepochs) == (6, 6)


@pytest.mark.parametrize(
    "schedule",
    [("--scheduler", "WarmupCosine"), ("--scheduler", "MultiStage", "--stage-1-epochs", 2, "--stage-3-epochs", 2)],
)
def test_a_run_is_extended_beyond_its_schedule_and_says_how(
    train: Callable[..., Any], fake_engine: Any, scan_file: Path, tmp_path: Path, schedule: tuple[object, ...]
) -> None:
    assert train(scan_file, *BEGIN[:-2], *schedule).code == 0
    gone_on = train("--resume", "--nepochs", 6)
    assert gone_on.code == 0, gone_on.err
    asked = load_checkpoint(tmp_path / "run").config
    assert asked.schedule_epochs == 4
    rate = learning_rate(asked, 5)
    assert f"the schedule spans 4 epochs: those after it have the learning rate {rate:.3g}" in gone_on.err
    assert fake_engine.rates[-2:] == [rate, rate]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--batch-size", 8), "flag --batch-size: batch_size must be 4, as the run began; got 8"),
        (("--gridsize", 2), "flag --gridsize: gridsize must be 1, as the run began; got 2"),
        (("--precision", "64-true"), "flag --precision: precision must be 32-true, as the run began"),
        (("--nepochs", 1), "flag --nepochs: nepochs must be at least 2, the epochs that are done"),
    ],
)
def test_a_flag_that_contradicts_the_run_is_refused_by_name(
    train: Callable[..., Any], stopped: Path, flags: tuple[object, ...], message: str
) -> None:
    before = (stopped / CHECKPOINT_NAME).read_bytes()
    outcome = train("--resume", *flags)
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert (stopped / CHECKPOINT_NAME).read_bytes() == before


def test_a_variable_or_file_that_contradicts_the_run_is_refused_by_name(
    train: Callable[..., Any], stopped: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "other.toml").write_text("[training]\nseed = 3\n")
    outcome = train("--resume", "--config", tmp_path / "other.toml")
    assert f"{tmp_path / 'other.toml'}: seed must be 0, as the run began; got 3" in outcome.err
    monkeypatch.setenv("PTYCHO_BATCH_SIZE", "16")
    assert "environment PTYCHO_BATCH_SIZE: batch_size must be 4" in train("--resume").err


@pytest.mark.parametrize("flags", [("--batch-size", 4), ("--num-workers", 0), ("--logger", "none")])
def test_flags_that_do_not_contradict_it_are_taken(
    train: Callable[..., Any], stopped: Path, flags: tuple[object, ...]
) -> None:
    assert train("--resume", *flags).code == 0


def test_a_folder_that_was_moved_and_a_scan_that_was_moved_go_on(
    ptycho: Callable[..., Any], fake_engine: Any, stopped: Path, scan_file: Path, tmp_path: Path
) -> None:
    fake_engine.train_loss = LOSSES.__getitem__
    os.rename(stopped, tmp_path / "moved")
    os.rename(scan_file, tmp_path / "elsewhere.npz")
    lost = ptycho("train", "--resume", "--out", tmp_path / "moved")
    assert lost.code == 2
    assert "scan.npz" in lost.err
    outcome = ptycho("train", tmp_path / "elsewhere.npz", "--resume", "--out", tmp_path / "moved")
    assert outcome.code == 0, outcome.err
    assert load_model(tmp_path / "moved").config.output_dir == tmp_path / "moved"
    assert not stopped.exists()


def test_another_scan_is_refused(train: Callable[..., Any], stopped: Path, numbered_scan: Any, tmp_path: Path) -> None:
    save_scan(tmp_path / "other.npz", numbered_scan(9, seed=1))
    outcome = train(tmp_path / "other.npz", "--resume")
    assert outcome.code == 2
    assert "other.npz: xcoords, ycoords: expected the scan that the run began with" in outcome.err


@pytest.mark.parametrize("made", [True, False])
def test_a_folder_without_a_checkpoint_is_an_error_with_the_remedy(
    ptycho: Callable[..., Any], tmp_path: Path, made: bool
) -> None:
    if made:
        (tmp_path / "run").mkdir()
    outcome = ptycho("train", "--resume", "--out", tmp_path / "run")
    assert (outcome.code, outcome.err) == (
        2,
        f"Error: {tmp_path / 'run' / CHECKPOINT_NAME}: expected the checkpoint of a run; received no such "
        f"{'file' if made else 'folder'}. Give the folder of a run as --out, or start one without --resume.\n",
    )


def test_a_damaged_checkpoint_is_refused(train: Callable[..., Any], stopped: Path) -> None:
    file = stopped / CHECKPOINT_NAME
    file.write_bytes(file.read_bytes()[:-50])
    outcome = train("--resume")
    assert outcome.code == 2
    assert "expected a readable checkpoint" in outcome.err


def test_a_run_that_begins_anew_never_leaves_another_ones_checkpoint(
    train: Callable[..., Any], stopped: Path, scan_file: Path
) -> None:
    """Otherwise a kill in its first epoch would make --resume go on with the run before it."""
    kept = (stopped / CHECKPOINT_NAME).read_bytes()
    refused = train(scan_file, *BEGIN)
    assert refused.code == 2 and "checkpoint.h5.zip of an earlier run, which would be lost" in refused.err
    assert "--overwrite" in refused.err and (stopped / CHECKPOINT_NAME).read_bytes() == kept
    outcome = train(scan_file, *BEGIN, "--overwrite", stops_in=1)
    assert f"{stopped / CHECKPOINT_NAME}: the checkpoint of an earlier run is removed" in outcome.err
    assert not (stopped / CHECKPOINT_NAME).exists()
    assert "expected the checkpoint of a run" in train("--resume").err


def test_the_settings_of_a_run_that_goes_on_are_shown_with_where_they_are_from(
    ptycho: Callable[..., Any], stopped: Path
) -> None:
    shown = ptycho("train", "--resume", "--out", stopped, "--nepochs", 9, "--show-config").out
    assert f"batch_size = 4  # file {stopped / CHECKPOINT_NAME}" in shown
    assert "nepochs = 9  # flag --nepochs" in shown


def test_without_checkpointing_there_is_none(train: Callable[..., Any], scan_file: Path, tmp_path: Path) -> None:
    assert train(scan_file, *BEGIN, "--no-enable-checkpointing").code == 0
    assert not (tmp_path / "run" / CHECKPOINT_NAME).exists()


# -- several scans -------------------------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path: Path, numbered_scan: Any, scan_file: Path) -> list[Path]:
    save_scan(tmp_path / "other.npz", numbered_scan(6, seed=1))
    return [scan_file, tmp_path / "other.npz"]


def test_several_scans_are_written_down_for_the_run_to_go_on(
    train: Callable[..., Any], ptycho: Callable[..., Any], two: list[Path], fake_engine: Any, tmp_path: Path
) -> None:
    stopped = train(*two, *BEGIN, stops_in=3)
    assert stopped.code == 2, stopped.err
    written = tmp_path / "run" / "scans.txt"
    assert written.read_text() == "".join(f"{path.resolve()}\n" for path in two)
    assert load_checkpoint(tmp_path / "run").config.train_data_file == written
    fake_engine.epochs.clear()
    outcome = train("--resume")
    assert outcome.code == 0, outcome.err
    assert [sorted({batch.scan for batch in epoch}) for epoch in fake_engine.epochs] == [[1, 2], [1, 2]]
    assert f"Next: ptycho reconstruct {two[0]}" in outcome.err
    assert train("--resume", two[0]).code == 2
    with pytest.MonkeyPatch.context() as elsewhere:
        elsewhere.chdir(tmp_path)
        assert train("other.npz", "--resume").code == 2
        assert train("scan.npz", "other.npz", "--resume").code == 0


def test_a_list_of_scans_is_as_good_as_its_scans(
    ptycho: Callable[..., Any], two: list[Path], fake_engine: Any, tmp_path: Path
) -> None:
    """Of those that are trained on and of those that are tested with."""
    (tmp_path / "night.txt").write_text("scan.npz\nother.npz\n")
    one = tmp_path / "one"
    settings = (*BEGIN, "--nepochs", 1, "--test", tmp_path / "night.txt")
    assert ptycho("train", tmp_path / "night.txt", *settings, "--out", one).code == 0
    assert not (one / "scans.txt").exists()
    for batches in (fake_engine.epochs[0], fake_engine.evaluated[0]):
        assert sum(len(batch) for batch in batches) == 15
        assert {batch.scan for batch in batches} == {1, 2}
    shown = ptycho("train", *two, *BEGIN, "--out", one, "--show-config").out
    named = f'train_data_file = "{one / "scans.txt"}"  # written when the run begins: 2 scans'
    assert named in shown and not (one / "scans.txt").exists()
    (tmp_path / "night.txt").write_text("scan.npz\nnone.npz\n")
    refused = ptycho("train", tmp_path / "night.txt", *BEGIN, "--out", tmp_path / "two")
    assert refused.code == 2 and "night.txt: line 2: expected an existing file" in refused.err
    pair = ptycho("train", *two, *BEGIN, "--out", tmp_path / "two", "--companion", two[0])
    assert pair.code == 2 and "companion must be left out where several scans are read" in pair.err


@pytest.mark.parametrize("command", ["train", "solve"])
def test_a_run_goes_on_from_another_working_folder(
    ptycho: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    scan_file: Path,
    fake_engine: Any,
    command: str,
) -> None:
    """With files that were named from the folder where it began, in another folder than the scan's."""
    monkeypatch.setattr("ptycho_core.solving.loop.load_engine", lambda backend: ReferenceEngine())
    for module in ("train", "solve"):
        monkeypatch.setattr(f"ptycho_core.runs.{module}.draw", lambda *arguments, **keywords: None)
    for folder in ("raw", "elsewhere"):
        (tmp_path / folder).mkdir()
    scan_file.rename(tmp_path / "raw" / "scan.npz")
    np.save(tmp_path / "bad.npy", np.zeros((32, 32), bool))
    begin: tuple[object, ...] = ("raw/scan.npz", "--bad-pixels", "bad.npy", "--out", "run")
    more: tuple[object, ...] = ("--nepochs", 6)
    if command == "solve":
        begin += ("--sweeps", 1, "--batches", 1, "--refine", "none", "--modes", 1, "--prior", "none", "--no-split-half")
        more = ()
    else:
        begin += BEGIN
    monkeypatch.chdir(tmp_path)
    assert ptycho(command, *begin, "--quiet").code == 0
    monkeypatch.chdir(tmp_path / "elsewhere")
    outcome = ptycho(command, "--resume", "--out", "../run", *more)
    assert outcome.code == 0, outcome.err
    assert not list((tmp_path / "elsewhere").iterdir())
