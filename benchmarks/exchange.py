"""What one engine writes and the other one reads: every switch of the model, and runs that change engines.

    python benchmarks/exchange.py

First table: a network is trained for one step and saved by one engine, loaded and used by another; the error is the
largest difference of the patches from the writer's, by their peak (`n_filters_scale` 1, one batch of 4 groups).
Second table: a run that is stopped after epoch 2 on one engine, and goes on to epoch 4 on another from its checkpoint
file, beside a run that the first engine did alone: errors of the patches and of the weights, each by its peak.
Exit code 1 where more than allowed is found.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import attrs
import numpy as np
from cases import print_table

from ptycho_core import ModelConfig, Scan, TrainingConfig, simulate
from ptycho_core.batches.batch import Batch
from ptycho_core.batches.groups import draw_groups
from ptycho_core.batches.neighbours import largest_reach_px
from ptycho_core.engine.checks import network_weights
from ptycho_core.engine.protocol import Engine
from ptycho_core.engine.registry import load_engine
from ptycho_core.models.checkpoint import load_checkpoint
from ptycho_core.models.model import Model, load_model
from ptycho_core.networks.registry import build_table
from ptycho_core.physics.illumination import Illumination
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.training.fit import Fit, fit, train

ALLOWED = 1e-5
ALLOWED_AFTER_A_RUN = {"64-true": 1e-5, "32-true": 5e-3}
"""Of the patches. In float32 rounding, a step of Adam where a gradient is mere rounding, and twelve steps between."""
SWITCHES: dict[str, dict[str, Any]] = {
    "default": {},
    "amp_activation swish": {"amp_activation": "swish"},
    "amp_activation softplus": {"amp_activation": "softplus"},
    "amp_activation relu": {"amp_activation": "relu"},
    "object_big off": {"object_big": False},
    "probe_big off": {"probe_big": False},
    "probe_mask on": {"probe_mask": True},
    "pad_object off": {"pad_object": False},
    "probe_scale 2": {"probe_scale": 2.0},
    "gaussian_smoothing_sigma 1": {"gaussian_smoothing_sigma": 1.0},
    "amplitude_ceiling 1": {"amplitude_ceiling": 1.0},
    "merge_weights uniform": {"merge_weights": "uniform"},
    "merge_weights central": {"merge_weights": "central"},
    "cbam everywhere": {"cbam_encoder": True, "cbam_bottleneck": True, "cbam_decoder": True},
    "eca, spatial": {"eca_encoder": True, "eca_decoder": True, "spatial_decoder": True},
    "supervised": {"model_type": "supervised"},
}
CPU = ExecutionConfig(accelerator="cpu", num_workers=0)


def scan_of(N: int) -> Scan:
    return simulate(N=N, positions=24, photons=1e6, seed=1, object="lines")


def batch_of(scan: Scan, gridsize: int) -> Batch:
    groups = draw_groups(scan.positions_px, np.random.default_rng(0), gridsize=gridsize, n_groups=4, neighbor_count=4)
    reach = largest_reach_px(scan.positions_px, channels=gridsize**2, neighbor_count=4)
    return next(
        groups.batches(
            scan, 4, illumination=Illumination.of(scan, nphotons=1e9), canvas_padding_px=reach, with_truth=False
        )
    )


def predict(engine: Engine, model: Model, batch: Batch) -> np.ndarray[Any, Any]:
    return engine.build(model.config.model, None, model.network_weights, CPU).predict(batch)


def exchanged(engines: dict[str, Engine], N: int, gridsize: int, changes: dict[str, Any]) -> dict[str, float]:
    """Writer → reader, and the error."""
    scan = scan_of(N)
    model = ModelConfig(architecture="cnn", N=N, n_filters_scale=1, gridsize=gridsize, **changes)
    config = TrainingConfig(model=model, nepochs=1, n_groups=4, batch_size=4)
    batch, errors = batch_of(scan, gridsize), {}
    for writer, engine in engines.items():
        with tempfile.TemporaryDirectory() as folder:
            path = train(scan, attrs.evolve(config, backend=writer), execution=CPU).save(folder)
            own = predict(engine, load_model(path), batch)
            for reader, other in engines.items():
                errors[f"{writer} → {reader}"] = error_of(predict(other, load_model(path), batch), own)
    return errors


def error_of(actual: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def run_of(scan: Scan, backend: str, gridsize: int, precision: str, **more: Any) -> Fit:
    model = ModelConfig(architecture="cnn", N=64, n_filters_scale=1, gridsize=gridsize)
    settings: dict[str, Any] = {"nepochs": 4, "n_groups": 24, "batch_size": 8, "probe_trainable": True}
    config = TrainingConfig(model=model, backend=backend, **settings)
    execution = ExecutionConfig(accelerator="cpu", precision=precision, num_workers=0)  # type: ignore[arg-type]
    return fit(scan, config, execution=execution, **more)


def stopped_and_resumed(backends: list[str], gridsize: int, precision: str) -> Iterator[list[object]]:
    scan = scan_of(64)
    batch = batch_of(scan, gridsize)
    for begun in backends:
        whole = run_of(scan, begun, gridsize, precision)
        with tempfile.TemporaryDirectory() as folder:
            for report in whole:
                if report.epoch == 2:
                    path = whole.checkpoint().save(folder)
            theirs = whole.checkpoint().weights
            for resumed in backends:
                run = run_of(scan, resumed, gridsize, precision, resume=load_checkpoint(path))
                list(run)
                ours = run.checkpoint().weights
                # Both on one engine: what differs is what they were trained to.
                patches, expected = (
                    load_engine(begun)
                    .build(run.config.model, None, network_weights(build_table(run.config.model), None, weights), CPU)
                    .predict(batch)
                    for weights in (ours, theirs)
                )
                worst = max(error_of(ours[name], theirs[name]) for name in theirs if theirs[name].any())
                yield [gridsize, precision, begun, resumed, error_of(patches, expected), worst]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--N", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--gridsize", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--backend", nargs="+", default=["torch", "tensorflow"])
    asked = parser.parse_args()
    engines = {name: load_engine(name) for name in asked.backend}
    rows: list[list[object]] = []
    for N, gridsize in itertools.product(asked.N, asked.gridsize):
        for name, changes in SWITCHES.items():
            if gridsize == 1 and "merge_weights" in changes:
                continue
            errors = exchanged(engines, N, gridsize, changes)
            rows.append([N, gridsize, name, *errors.values()])
            print(*rows[-1], file=sys.stderr, flush=True)
    print_table(["N", "gridsize", "switch", *errors], rows)
    print()
    runs = [
        row
        for gridsize, precision in itertools.product(asked.gridsize, ALLOWED_AFTER_A_RUN)
        for row in stopped_and_resumed(asked.backend, gridsize, precision)
    ]
    print_table(["gridsize", "precision", "epochs 1, 2", "epochs 3, 4", "patches", "weights"], runs)
    most = max(float(error) for row in rows for error in row[3:])  # type: ignore[arg-type]
    print(f"\nexchanged models: at most {most:.2g}, allowed {ALLOWED}")
    good = most <= ALLOWED and all(float(row[4]) <= ALLOWED_AFTER_A_RUN[str(row[1])] for row in runs)  # type: ignore[arg-type]
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
