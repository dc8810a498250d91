"""From a prepared training to one that can take its first step: scans read and checked, network built or restored."""

from __future__ import annotations

from collections.abc import Generator

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.batches.batch import Batch
from ptycho_core.batches.groups import Groups
from ptycho_core.engine.protocol import EngineInfo, Network
from ptycho_core.errors import ConfigurationError, DataError
from ptycho_core.io import load_scan
from ptycho_core.models.checkpoint import Checkpoint
from ptycho_core.networks.initial import initial_weights
from ptycho_core.networks.registry import build_table
from ptycho_core.physics.scale import calibrated_probe, measure_scale
from ptycho_core.physics.suitability import report_dose, warn_if_ambiguous, warn_if_wide, warn_of_other_intensity
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.sections import existing_file
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.training.data import TrainingData
from ptycho_core.training.prepare import Prepared
from ptycho_core.vocabulary import LOG_SCALE, PROBE, Weights


@attrs.frozen(eq=False, kw_only=True)
class Started:
    """All that the loop needs.

    test_groups: drawn once; None without a test scan. canvas_padding_px: one number for both scans. initial_probe:
    float (modes, N, N, 2), the one that the run began with. patterns_per_epoch: a pattern counts once for each group
    that it is in. resume: the run that goes on; the network holds its weights and its optimiser's state.
    """

    config: TrainingConfig
    execution: ExecutionConfig
    data: TrainingData
    test: TrainingData | None
    test_groups: Groups | None
    canvas_padding_px: int
    patterns_per_epoch: int
    engine: EngineInfo
    network: Network
    initial_probe: NDArray[np.floating]
    resume: Checkpoint | None

    def batches(self, data: TrainingData, groups: Groups, order: NDArray[np.int64] | None = None) -> Generator[Batch]:
        """Batches of one of the two scans, on the one canvas, gathered ahead."""
        padding, workers = self.canvas_padding_px, self.execution.num_workers
        return data.batches(groups, canvas_padding_px=padding, order=order, workers=workers)


def start(prepared: Prepared, scan: Scan | None = None, test: Scan | None = None) -> Started:
    """Read the scans that the configuration names where none are given, and build the network.

    Raises DataError where a scan does not suit the configuration or is not that of the run that goes on,
    ConfigurationError where the configuration asks for what the scan has not, and what the engine raises.
    """
    config, resume = prepared.config, prepared.resume
    scan, test = _given_or_loaded(config, scan, test)
    data = TrainingData(scan, config)
    tested = None if test is None else TrainingData(test, config, whole=True)
    test_groups = None
    if tested is not None:
        n_groups = min(config.n_groups, len(tested.scan))
        test_groups = tested.draw(np.random.default_rng([config.seed, 0]), n_groups)
    groups = data.draw(np.random.default_rng(config.seed))  # or it says why not
    padding = max(each.canvas_padding_px() for each in (data, tested) if each is not None)
    if resume is None:
        weights = _begun(data.scan, config)
    else:
        _check_same_scans(resume, data, tested)
        weights = {**resume.weights, PROBE: resume.initial_probe}  # merge weights: specs/physics.md, Groups
    if tested is not None:
        warn_of_other_intensity(tested.scan, weights)
    engine = prepared.load_engine()
    network = engine.build(config.model, config, weights, prepared.execution)
    if resume is not None:
        network.load_weights(resume.weights)
        network.load_optimizer_state(resume.optimizer)
    return Started(
        config=config,
        execution=prepared.execution,
        data=data,
        test=tested,
        test_groups=test_groups,
        canvas_padding_px=padding,
        patterns_per_epoch=groups.indices.size,
        engine=engine.describe(),
        network=network,
        initial_probe=np.array(weights[PROBE]),
        resume=resume,
    )


def _given_or_loaded(config: TrainingConfig, scan: Scan | None, test: Scan | None) -> tuple[Scan, Scan | None]:
    """The scans themselves, or those in the files that the configuration names; both are there before one is read."""
    file = existing_file(config, "train_data_file") if scan is None else None
    test_file = existing_file(config, "test_data_file") if test is None else None
    if scan is None and file is None:
        remedy, expected = "Pass a scan, or set train_data_file.", "a scan to train on"
        raise ConfigurationError("TrainingConfig", "train_data_file", expected=expected, received="none", remedy=remedy)
    if file is not None:
        scan = load_scan(file)
    assert scan is not None
    return scan, test if test_file is None else load_scan(test_file)


def _begun(scan: Scan, config: TrainingConfig) -> Weights:
    """The weights that a run begins with: probe and data scale measured on the scan, the others drawn."""
    scale = measure_scale(scan, config.nphotons)
    report_dose(scan, config, scale.mean_counts_per_frame)
    probe = calibrated_probe(scan, config.probe_gauge, masked=config.model.probe_mask, scale=config.model.probe_scale)
    warn_if_ambiguous(scan, config)
    warn_if_wide(scan, config)
    drawn = initial_weights(build_table(config.model), np.random.default_rng(config.seed))
    return {**drawn, PROBE: probe, LOG_SCALE: np.zeros((), np.float32), **scale.as_weights()}


def _check_same_scans(checkpoint: Checkpoint, data: TrainingData, test: TrainingData | None) -> None:
    """DataError unless the scans are those that the run began with."""
    data.check_same(checkpoint.scan)
    if (test is None) != (checkpoint.test is None):
        known = {True: "a test scan", False: "no test scan"}
        expected = f"{known[checkpoint.test is not None]}, as the run began"
        received, remedy = known[test is not None], "Give what it began with, or begin a new run."
        raise DataError("TrainingConfig", "test_data_file", expected=expected, received=received, remedy=remedy)
    if test is not None and checkpoint.test is not None:
        test.check_same(checkpoint.test)
