"""Archives that one engine writes predict the same on the other; a run that changes engines stays the same run.

`benchmarks/exchange.py` prints the whole table: both sizes, both numbers of patterns per group, every switch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from ptycho_core.batches.batch import Batch
from ptycho_core.engine.protocol import Engine
from ptycho_core.models.checkpoint import load_checkpoint
from ptycho_core.models.model import Model, load_model
from ptycho_core.physics.illumination import Illumination
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.training.fit import Fit, fit
from ptycho_core.vocabulary import LOG_SCALE
from tests.contract.backends import engine_or_skip
from tests.contract.cases import assert_arrays_close, assert_field_close, make_scan, network_weights
from tests.networks import cnn

Pair = tuple[Engine, Engine]
CPU = ExecutionConfig(accelerator="cpu")
SWITCHES: dict[str, dict[str, Any]] = {
    "default": {"gridsize": 1},
    "merged": {},
    "larger": {"N": 128, "gridsize": 1},
    "larger-merged": {"N": 128},
    "swish": {"amp_activation": "swish"},
    "softplus": {"amp_activation": "softplus"},
    "relu": {"amp_activation": "relu"},
    "frames_alone": {"object_big": False},
    "centre": {"probe_big": False},
    "whole_patch": {"pad_object": False},
    "ceiling": {"amplitude_ceiling": 1.0},
    "cbam": {"cbam_encoder": True, "cbam_bottleneck": True, "cbam_decoder": True},
    "eca": {"eca_encoder": True, "eca_decoder": True},
    "spatial": {"spatial_decoder": True},
}
"""Those of which a prediction takes notice; the others act in the forward model, which the contract tests cover."""


@pytest.fixture(scope="module")
def engines() -> Pair:
    return engine_or_skip("tensorflow"), engine_or_skip("torch")


@pytest.mark.parametrize("name", SWITCHES)
def test_an_archive_predicts_the_same_whoever_reads_it(engines: Pair, name: str, tmp_path: Path) -> None:
    config = cnn(**{"N": 64, "gridsize": 2, "n_filters_scale": 1, **SWITCHES[name]})
    scan = make_scan(config.N, 1, 2e4, False)
    amplitude = np.moveaxis(scan.diffraction_amplitude[: config.channels], 0, -1)[None]
    batch = Batch(
        diffraction_amplitude=np.ascontiguousarray(amplitude),
        relative_offsets_px=np.zeros((1, 1, 2, config.channels), np.float32),
        canvas_padding_px=0,
        bad_pixels=np.zeros((config.N, config.N), bool),
        illumination=Illumination.of(scan, nphotons=2e4),
    )
    training = TrainingConfig(model=config)
    weights = {**network_weights(config, seed=3), LOG_SCALE: np.asarray(0.03, np.float32)}
    networks = [engine.build(config, None, weights, CPU) for engine in engines]
    for writer, reader, engine in zip(networks, networks[::-1], engines, strict=True):
        stored = {**writer.weights(), **batch.illumination.arrays()}
        model = Model(config=training, weights=stored, history=[], engine=engine.describe(), best_epoch=0)
        loaded = load_model(model.save(tmp_path / engine.name))
        reader.load_weights(loaded.network_weights)
        lit = attrs.evolve(batch, illumination=loaded.illumination)
        assert_field_close(reader.predict(lit), writer.predict(batch), 1e-5, f"written by {engine.name}")


def run_on(engine: Engine, patch: pytest.MonkeyPatch, precision: str, **more: Any) -> Fit:
    patch.setattr("ptycho_core.training.prepare.find_engine", lambda backend: lambda: engine)
    model = ModelConfig(N=32, n_filters_scale=1, architecture="contract", gridsize=2)
    config = TrainingConfig(model=model, nepochs=4, batch_size=2, n_groups=6, nphotons=2e4, probe_trainable=True)
    execution = attrs.evolve(CPU, precision=precision)
    return fit(make_scan(32, 1, 2e4, False), config, execution=execution, **more)


def test_a_run_stopped_after_its_second_epoch_goes_on_on_the_other_engine(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To 1e-7 in float64: rounding, made a 1e-9 of a weight by each step (test_training_step.py), in six steps."""
    whole = run_on(pair[0], monkeypatch, "64-true")
    for report in whole:
        if report.epoch == 2:
            stopped = whole.checkpoint().save(tmp_path)
    resumed = run_on(pair[1], monkeypatch, "64-true", resume=load_checkpoint(stopped))
    assert [report.epoch for report in resumed] == [3, 4]
    one, other = whole.checkpoint(), resumed.checkpoint()
    np.testing.assert_allclose(other.scores, one.scores, rtol=1e-9)
    assert_arrays_close(other.weights, one.weights, 1e-7)
    assert_arrays_close(other.optimizer, one.optimizer, 1e-7, "optimizer")


def test_a_float32_run_goes_on_on_the_other_engine_to_rounding(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a gradient is mere rounding, a step of Adam may be any: what the network has learnt is compared."""
    whole = run_on(pair[0], monkeypatch, "32-true")
    for report in whole:
        if report.epoch == 2:
            stopped = whole.checkpoint().save(tmp_path)
    resumed = run_on(pair[1], monkeypatch, "32-true", resume=load_checkpoint(stopped))
    list(resumed)
    np.testing.assert_allclose(resumed.checkpoint().scores, whole.checkpoint().scores, rtol=1e-4)
