"""Archives that were written once and must be read for good (specs/archive.md, Versions), and how they came about.

`python -m tests.contract.frozen` wrote the files in tests/data for the versions of today. They are never rewritten:
a later version adds its own. Weights are random; those of "cnn" are sparse and the archive is deflated, so that it is
small. Predictions are those of the float64 reference, losses those of its run without a stop.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ptycho_core.batches.batch import Batch
from ptycho_core.engine.protocol import Engine, EngineInfo
from ptycho_core.formats.convert import save_scan
from ptycho_core.io import load_scan
from ptycho_core.models.model import Model
from ptycho_core.networks.cnn import network_channels
from ptycho_core.networks.initial import initial_weights
from ptycho_core.networks.registry import build_table, register_architecture
from ptycho_core.networks.table import Table, TableBuilder
from ptycho_core.physics.illumination import Illumination
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.training.fit import fit
from ptycho_core.vocabulary import LOG_SCALE
from tests.networks import cnn

DATA = Path(__file__).parents[1] / "data"
MODELS = {
    "frozen": ModelConfig(N=16, n_filters_scale=2, gridsize=2, architecture="frozen", amp_activation="swish"),
    "cnn": cnn(N=32, n_filters_scale=1, gridsize=2),
}
KEPT = 0.03
"""Of the kernels of "cnn"."""


@register_architecture("frozen")
def frozen(model: ModelConfig) -> Table:
    """A network of a few kilobytes; it may never change."""
    table, channels = TableBuilder(network_channels(model)), network_channels(model)
    x = table.conv("trunk", "input", 2 * model.n_filters_scale)
    x = table.upsample("up", table.max_pool("pool", x))
    amplitude = table.conv("amplitude/head", x, channels, model.amp_activation)
    return table.finish(amplitude=amplitude, phase=table.conv("phase/head", x, channels, "tanh"))


def measurements(name: str) -> NDArray[np.float32]:
    """(1, N, N, 4) amplitudes, whole numbers."""
    N = MODELS[name].N
    return np.random.default_rng(11).integers(0, 50, (1, N, N, 4)).astype(np.float32)


def batch_of(amplitude: NDArray[np.float32], illumination: Illumination) -> Batch:
    groups, N = amplitude.shape[:2]
    return Batch(
        diffraction_amplitude=amplitude,
        relative_offsets_px=np.zeros((groups, 1, 2, 4), np.float32),
        canvas_padding_px=4,
        bad_pixels=np.zeros((N, N), bool),
        illumination=illumination,
    )


def predicted(engine: Engine, model: Model, amplitude: NDArray[np.float32], precision: str) -> NDArray[np.complex64]:
    execution = ExecutionConfig(accelerator="cpu", precision=precision)  # type: ignore[arg-type]
    network = engine.build(model.config.model, None, model.network_weights, execution)
    return network.predict(batch_of(amplitude, model.illumination))


def run_config() -> TrainingConfig:
    return TrainingConfig(
        model=MODELS["frozen"],
        nepochs=4,
        batch_size=2,
        n_groups=6,
        nphotons=1e4,
        probe_trainable=True,
        accum_steps=2,
        learning_rate=1e-2,
        scheduler="ReduceLROnPlateau",
        plateau_patience=0,
    )


RUN = ExecutionConfig(accelerator="cpu", precision="64-true", checkpoint_save_top_k=2)


def write() -> None:
    """Everything in tests/data."""
    from ptycho_core_reference import ReferenceEngine

    for name, config in MODELS.items():
        model = _model(config, sparse=name == "cnn")
        path = model.save(DATA / f"model-1-{name}.h5.zip")
        if name == "cnn":
            with zipfile.ZipFile(path) as source:
                members = {member: source.read(member) for member in source.namelist()}
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target:
                for member, content in members.items():
                    target.writestr(member, content)
        patches = predicted(ReferenceEngine(), model, measurements(name), "64-true")
        np.savez_compressed(DATA / f"model-1-{name}.npz", amplitude=measurements(name), patches=patches)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ptycho_core.training.prepare.find_engine", lambda backend: ReferenceEngine)
        save_scan(DATA / "scan.npz", _scan(16))
        run = fit(load_scan(DATA / "scan.npz"), run_config(), execution=RUN)
        for report in run:
            if report.epoch == 2:
                run.checkpoint().save(DATA / "checkpoint-1.h5.zip")
        after = run.checkpoint()
    totals = np.array([row["total"] for row in after.history])
    np.savez_compressed(DATA / "checkpoint-1.npz", totals=totals, **after.weights)  # type: ignore[arg-type]


def _scan(N: int) -> Scan:
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:N, :N] - N // 2
    return Scan(
        diffraction_amplitude=np.sqrt(rng.poisson(40 * np.exp(-(x**2 + y**2) / 20), (9, N, N))),
        positions_px=rng.uniform(N / 2, N / 2 + 12, (9, 2)).round(2),
        probe=np.exp(-(x**2 + y**2) / 12 + 0.3j * x + 0.02j * y**2),
        dose_known=True,
    )


def _model(config: ModelConfig, sparse: bool) -> Model:
    rng = np.random.default_rng(3)
    weights: dict[str, NDArray[np.floating]] = {}
    for name, array in initial_weights(build_table(config), rng).items():
        if array.ndim == 1:
            array = rng.normal(scale=0.1, size=array.shape).round(3)
        elif sparse:  # of the same variance, and of two values
            kept = rng.random(array.shape) < KEPT
            array = np.sign(array) * kept * (array.std() / KEPT**0.5)
        weights[name] = array.astype(np.float32)
    scan = _scan(config.N)
    weights |= {LOG_SCALE: np.asarray(0.25, np.float32), **Illumination.of(scan, nphotons=1e9).arrays()}
    history: list[dict[str, Any]] = [
        {"epoch": 1.0, "total": 0.5, "nll": float("nan")},
        {"epoch": 2.0, "total": 0.25, "nll": 0.125, "validation_total": 0.75},
    ]
    training = TrainingConfig(model=config, nepochs=2, nll_weight=0.5, mae_weight=0.5, gradient_clip_val=1.0)
    engine = EngineInfo("torch", "PyTorch", "2.9.0", ("cuda", "cpu"), ("32-true", "64-true", "bf16-mixed"))
    return Model(config=training, weights=weights, history=history, engine=engine, best_epoch=2)


if __name__ == "__main__":
    write()
