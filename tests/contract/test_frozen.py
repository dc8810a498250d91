"""What an earlier release wrote is read, and means what it meant: on every engine, for good."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ptycho_core.engine.protocol import Engine
from ptycho_core.io import load_scan
from ptycho_core.models.checkpoint import load_checkpoint
from ptycho_core.models.model import load_model
from ptycho_core.training.fit import fit
from ptycho_core.vocabulary import LOG_SCALE, PROBE
from tests.contract.cases import FORWARD_RTOL, assert_arrays_close, assert_field_close
from tests.contract.frozen import DATA, MODELS, RUN, predicted

RUN_RTOL = 1e-8
"""In float64, after six steps: each may enlarge rounding to 1e-9 of a weight (see test_training_step.py)."""


@pytest.mark.parametrize("precision", FORWARD_RTOL)
@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_version_1_predicts_what_it_did(engine: Engine, name: str, precision: str) -> None:
    model = load_model(DATA / f"model-1-{name}.h5.zip")
    with np.load(DATA / f"model-1-{name}.npz") as file:
        amplitude, patches = file["amplitude"], file["patches"]
    # Patches are handed out in complex64, whatever they are computed in.
    rtol = max(FORWARD_RTOL[precision], 1.2e-7)
    assert_field_close(predicted(engine, model, amplitude, precision), patches, rtol, "patches")


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_version_1_has_the_settings_it_had(name: str) -> None:
    model = load_model(DATA / f"model-1-{name}.h5.zip")
    assert model.config.model == MODELS[name]
    assert (model.config.nll_weight, model.config.gradient_clip_val, model.best_epoch) == (0.5, 1.0, 2)
    assert (model.engine.name, model.engine.version) == ("torch", "2.9.0")
    assert math.isnan(model.history[0]["nll"])
    assert model.history[1] == {"epoch": 2.0, "total": 0.25, "nll": 0.125, "validation_total": 0.75}
    assert float(model.weights[LOG_SCALE]) == 0.25
    assert model.weights[PROBE].dtype == np.float32


def test_a_run_of_version_1_goes_on_as_it_did(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptycho_core.training.prepare.find_engine", lambda backend: lambda: engine)
    checkpoint = load_checkpoint(DATA / "checkpoint-1.h5.zip")
    run = fit(load_scan(DATA / "scan.npz"), checkpoint.config, execution=RUN, resume=checkpoint)
    assert [report.epoch for report in run] == [3, 4]
    with np.load(DATA / "checkpoint-1.npz") as file:
        expected = dict(file)
    np.testing.assert_allclose([row["total"] for row in run.history], expected.pop("totals"), rtol=RUN_RTOL)
    assert_arrays_close(run.checkpoint().weights, expected, RUN_RTOL)
