"""A run that stops goes on as if it had not: weights, optimiser, losses and best models to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho_core.engine.protocol import Engine
from ptycho_core.models.checkpoint import Checkpoint, load_checkpoint
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.training.fit import Fit, fit
from tests.contract.cases import PRECISIONS, make_scan

CASES: dict[str, dict[str, Any]] = {
    "adam, the probe trained": {"gridsize": 2, "probe_trainable": True, "accum_steps": 2},
    "sgd, a plateau": {"gridsize": 1, "optimizer": "sgd", "scheduler": "ReduceLROnPlateau", "plateau_patience": 0},
}


def begin(name: str, precision: str, resume: Checkpoint | None = None) -> Fit:
    changes = dict(CASES[name])
    model = ModelConfig(N=32, n_filters_scale=1, architecture="contract", gridsize=changes.pop("gridsize"))
    small: dict[str, Any] = {"nepochs": 4, "batch_size": 2, "n_groups": 6, "nphotons": 2e4, "learning_rate": 1e-2}
    config = TrainingConfig(model=model, **{**small, **changes})
    execution = ExecutionConfig(
        accelerator="cpu",
        precision=precision,
        deterministic=True,
        checkpoint_save_top_k=2,  # type: ignore[arg-type]
    )
    scan = make_scan(32, 1, 2e4, True)
    return fit(scan, config, test=scan.subset(slice(3, 9)), execution=execution, resume=resume)


def without_time(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def assert_equal(actual: Any, expected: Any, what: str) -> None:
    assert sorted(actual) == sorted(expected), what
    for name, array in expected.items():
        assert actual[name].dtype == array.dtype, f"{what}: {name}"
        np.testing.assert_array_equal(actual[name], array, err_msg=f"{what}: {name}")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", CASES)
def test_a_run_that_is_resumed_from_its_file_is_the_same_to_the_last_bit(
    engine: Engine, name: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptycho_core.training.prepare.find_engine", lambda backend: lambda: engine)
    whole = begin(name, precision)
    for report in whole:
        if report.epoch == 2:
            stopped = whole.checkpoint().save(tmp_path)
    resumed = begin(name, precision, load_checkpoint(stopped))
    assert [report.epoch for report in resumed] == [3, 4]
    one, other = whole.checkpoint(), resumed.checkpoint()
    assert_equal(other.weights, one.weights, "weights")
    assert_equal(other.optimizer, one.optimizer, "optimizer")
    assert without_time(other.history) == without_time(one.history)
    assert other.scores == one.scores
    assert [model.best_epoch for model in other.best] == [model.best_epoch for model in one.best]
    for ours, theirs in zip(other.best, one.best, strict=True):
        assert_equal(ours.weights, theirs.weights, f"best model of epoch {theirs.best_epoch}")
