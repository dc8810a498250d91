"""R of the merged object judges a network of patches, whose losses hide what differs between patches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ptycho_core import simulate
from ptycho_core.physics.illumination import Illumination
from ptycho_core.physics.patches import extract_patches
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.training.data import TrainingData
from ptycho_core.training.fit import fit
from ptycho_core.training.merged import Merged
from ptycho_core.training.several import Lit
from tests.networks import cnn

CONFIG = TrainingConfig(model=cnn(N=32, n_filters_scale=1), nepochs=3, batch_size=16)


@pytest.fixture(scope="module")
def scan() -> Scan:
    return simulate(N=32, positions=49, step_px=3, object="lines", photons=1e8, seed=3)


class Predicts:
    """Patches of an object, frame after frame; with `turned` each at a phase of its own, which no pattern shows."""

    def __init__(self, scan: Scan, field: Any, *, turned: bool = False) -> None:
        self._patches = extract_patches(field, scan.positions_px, scan.N)
        if turned:
            phase = np.random.default_rng(0).uniform(0, 2 * np.pi, len(scan))
            self._patches *= np.exp(1j * phase)[:, None, None].astype(np.complex64)
        self._done = 0

    def predict(self, batch: Any) -> Any:
        first, self._done = self._done, (self._done + len(batch)) % len(self._patches)
        return self._patches[first : first + len(batch), :, :, None]


def judged(scan: Scan, network: Any, *more: Scan) -> dict[str, float]:
    scans = [scan, *more]
    lit = [Lit(TrainingData(each, CONFIG), Illumination.of(each, nphotons=1e8, gauge="mean")) for each in scans]
    merged = Merged(network, ExecutionConfig(inference_batch_size=16), CONFIG, lit)
    return dict(merged(lit[0].illumination.arrays()))


def test_the_true_object_fits_and_patches_that_do_not_agree_do_not(scan: Scan) -> None:
    field = scan.object_field
    assert judged(scan, Predicts(scan, field))["R"] < 2e-3
    assert judged(scan, Predicts(scan, 3 * np.asarray(field)))["R"] < 2e-3, "a factor is none of its business"
    assert judged(scan, Predicts(scan, np.ones_like(field)))["R"] > 0.05
    assert judged(scan, Predicts(scan, field, turned=True))["R"] > 0.05


def test_of_several_scans_it_is_the_mean(scan: Scan) -> None:
    found = judged(scan, Predicts(scan, scan.object_field), scan)
    assert set(found) == {"R", "scan1/R", "scan2/R"}
    assert found["R"] == pytest.approx((found["scan1/R"] + found["scan2/R"]) / 2)


@pytest.mark.field("execution.checkpoint_monitor_metric")
def test_it_chooses_the_best_epoch_and_is_told(fake_engine: Any, scan: Scan) -> None:
    """The loss falls throughout; the object is right after the first epoch alone."""
    right, wrong = Predicts(scan, scan.object_field), Predicts(scan, scan.object_field, turned=True)
    fake_engine.predict = lambda batch: (right if len(fake_engine.epochs) == 1 else wrong).predict(batch)
    reports = list(run := fit(scan, CONFIG))
    assert run.model is not None and run.model.best_epoch == 1
    R = [row["R"] for row in run.history]
    assert R[0] < 2e-3 < 0.05 < R[1] == pytest.approx(R[2])
    assert f"R of the object {R[0]:.4g}" in reports[0].line
    fake_engine.epochs.clear()
    by_loss = fit(scan, CONFIG, execution=ExecutionConfig(checkpoint_monitor_metric="total"))
    assert [report.is_best for report in by_loss] == [True, True, True]
    assert "R" not in by_loss.history[0]
    fake_engine.epochs.clear()
    tested = fit(scan, CONFIG, test=scan)
    assert "validation_R" in next(iter(tested)).terms
