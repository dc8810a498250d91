"""A solve is logged as a training is: `ExecutionConfig.logger`."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ptycho_core.runs.solve import Solved, solve_into
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.training.loggers import scalars
from ptycho_core.training.prepare import LOGGERS
from tests.core.solving.conftest import small

pytestmark = pytest.mark.usefixtures("engines")


def logged(folder: Path, scan: Scan, name: str) -> Solved:
    return solve_into(folder, scan, small(), execution=ExecutionConfig(logger=name))


def test_csv_has_a_line_for_each_sweep(solved_scan: Scan, tmp_path: Path) -> None:
    history = logged(tmp_path, solved_scan, "csv").run.history
    with (tmp_path / "sweeps.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["sweep"] for row in rows] == ["1", "2", "3"]
    assert [float(row["R"]) for row in rows] == [row["R"] for row in history]
    assert not (tmp_path / "history.csv").exists()  # that of a training in the same folder


def test_without_a_logger_there_is_no_csv(solved_scan: Scan, tmp_path: Path) -> None:
    logged(tmp_path, solved_scan, "none")
    assert not list(tmp_path.glob("*.csv"))


def test_a_logger_of_a_program_is_called_after_every_sweep(
    solved_scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOGGERS, "_registered", {})
    seen: list[Any] = []

    @LOGGERS.register("Own")
    @contextmanager
    def own(folder: Path, run: Any) -> Iterator[Any]:
        yield lambda report: seen.append((folder, run.config.sweeps, report.done, scalars(report)))

    history = logged(tmp_path, solved_scan, "own").run.history
    expected = [{name: value for name, value in row.items() if name != "sweep"} for row in history]
    assert seen == [(tmp_path, 3, number, row) for number, row in enumerate(expected, 1)]


def test_tensorboard_and_mlflow_take_a_solve(solved_scan: Scan, tmp_path: Path) -> None:
    for name, package, file in (("tensorboard", "tensorboardX", "tensorboard"), ("mlflow", "mlflow", "mlflow.db")):
        pytest.importorskip(package)
        logged(tmp_path / name, solved_scan, name)
        assert (tmp_path / name / file).exists()
