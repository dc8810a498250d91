"""Where the losses of a run go while it trains."""

from __future__ import annotations

import csv
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ptycho_core.errors import ConfigurationError, MissingExtraError
from ptycho_core.models.model import load_model
from ptycho_core.runs.train import train_into
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.training.fit import fit
from ptycho_core.training.loggers import logger
from ptycho_core.training.prepare import LOGGERS, check_logger
from tests.core.refusals import refusal_of
from tests.networks import cnn

CONFIG = {"nepochs": 3, "n_groups": 9, "learning_rate": 0.5, "scheduler": "Default"}


def trained(scan: Any, folder: Path, name: Any, **changes: Any) -> Any:
    config = TrainingConfig(model=cnn(N=32, n_filters_scale=1), **{**CONFIG, **changes})
    return train_into(folder, scan, config, test=scan, execution=ExecutionConfig(logger=name))


def test_every_choice_has_a_logger() -> None:
    assert LOGGERS.names() == ("csv", "tensorboard", "mlflow", "none")
    for name in LOGGERS.names():
        assert callable(LOGGERS.load(name))


def test_a_logger_of_a_program_is_called_after_every_epoch(
    fake_engine: Any, numbered_scan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOGGERS, "_registered", {})
    seen: list[int] = []

    @LOGGERS.register("Own")
    @contextmanager
    def own(folder: Path, run: Any) -> Iterator[Any]:
        assert folder == tmp_path / "run"
        yield lambda report: seen.append(report.epoch)
        seen.append(0)

    trained(numbered_scan(9), tmp_path / "run", "own")
    assert seen[0] == 1 and seen[-1] == 0 and len(seen) > 2


def test_an_unknown_logger_is_refused_with_the_known_ones() -> None:
    refusal_of(
        lambda: check_logger("cvs"),
        ConfigurationError,
        source="ExecutionConfig",
        key="logger",
        expected="one of csv, tensorboard, mlflow, none",
        remedy="Did you mean 'csv'?",
    )


def test_csv_is_whole_after_every_epoch(fake_engine: Any, numbered_scan: Any, tmp_path: Path) -> None:
    path, lines = tmp_path / "history.csv", []
    fake_engine.train_loss = lambda epoch: lines.append(len(path.read_text().splitlines()) if path.exists() else 0) or 1
    trained(numbered_scan(9), tmp_path, "csv")
    assert lines == [0, 2, 3]
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[2]["validation_total"]) == pytest.approx(1 / 3)


def test_no_logger_leaves_the_history_to_the_archive(fake_engine: Any, numbered_scan: Any, tmp_path: Path) -> None:
    trained(numbered_scan(9), tmp_path, "none")
    assert not (tmp_path / "history.csv").exists()
    assert len(load_model(tmp_path).history) == 3


def events_of(folder: Path) -> list[Any]:
    """The events of a TensorBoard file: records of length, checksum, protocol buffer, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    (path,) = folder.glob("events.out.tfevents.*")
    content, events = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        events.append(Event.FromString(content[12 : 12 + length]))
        content = content[12 + length + 4 :]
    return events


def test_tensorboard_holds_every_scalar_of_every_epoch(fake_engine: Any, numbered_scan: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="the extra 'tensorboard' is not installed")
    trained(numbered_scan(9), tmp_path, "tensorboard")
    values = {
        (value.tag, event.step): value.simple_value
        for event in events_of(tmp_path / "tensorboard")
        for value in event.summary.value
        if value.HasField("simple_value")
    }
    assert {step for _, step in values} == {1, 2, 3}
    assert values["train/total", 2] == pytest.approx(0.5)
    assert values["validation/total", 3] == pytest.approx(1 / 3)
    assert values["learning_rate", 1] == pytest.approx(0.5)
    assert values["physics_weight", 1] == 1


def test_mlflow_holds_parameters_metrics_and_the_end(
    fake_engine: Any, numbered_scan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run that ended, and of a second one in its folder that did not: making the database takes long."""
    mlflow = pytest.importorskip("mlflow", reason="the extra 'mlflow' is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def broken(epoch: int) -> float:
        raise OSError("the disk is gone")

    trained(numbered_scan(9), tmp_path, "mlflow")
    fake_engine.train_loss = broken
    with pytest.raises(OSError, match="the disk is gone"):
        trained(numbered_scan(9), tmp_path, "mlflow")
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("ptycho-core")
    runs = {run.info.status: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(runs) == ["FAILED", "FINISHED"]
    for run in runs.values():
        assert run.data.params["learning_rate"] == "0.5"
        assert run.data.params["engine"] == "fake (1.0)"
    history = client.get_metric_history(runs["FINISHED"].info.run_id, "train/total")
    assert [(metric.step, metric.value) for metric in history] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboardX"), ("mlflow", "mlflow")])
def test_a_logger_whose_package_is_missing_names_the_extra(
    fake_engine: Any, numbered_scan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    run = fit(numbered_scan(9), TrainingConfig(model=cnn(N=32), n_groups=9))
    with (
        pytest.raises(MissingExtraError, match=rf"package {package}, which .*pip install 'ptycho-core\[{name}\]'"),
        logger(name, tmp_path, run),
    ):
        pass


def test_a_missing_package_ends_a_training_before_it_begins(
    ptycho: Any, fake_engine: Any, numbered_scan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ptycho_core import save_scan

    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    save_scan(tmp_path / "scan.npz", numbered_scan(9))
    done = ptycho("train", tmp_path / "scan.npz", "--out", tmp_path / "out", "--logger", "tensorboard")
    assert done.code == 2
    assert "pip install 'ptycho-core[tensorboard]'" in done.err
    assert fake_engine.epochs == []
