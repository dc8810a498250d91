"""From a prepared training to one that can take its first step: scans read and checked, network built or restored."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.batches.batch import Batch
from ptycho_core.batches.groups import Groups
from ptycho_core.engine.checks import check_network_memory, network_weights
from ptycho_core.engine.protocol import EngineInfo, Network
from ptycho_core.errors import ArchiveError, ConfigurationError, DataError
from ptycho_core.io import load_scan
from ptycho_core.models.checkpoint import Checkpoint
from ptycho_core.models.model import Model
from ptycho_core.networks.initial import initial_weights
from ptycho_core.networks.registry import build_table
from ptycho_core.physics.illumination import Illumination
from ptycho_core.physics.suitability import report_dose, warn_if_ambiguous, warn_if_wide, warn_of_other_intensity
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.sections import existing_file
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.training.data import TrainingData
from ptycho_core.training.guard import Guard
from ptycho_core.training.prepare import Prepared
from ptycho_core.vocabulary import LOG_SCALE, PROBE, Weights

PADDING_STEP = 8  # specs/data.md, Batch: of the border of a canvas, so that few shapes occur


@attrs.frozen(eq=False, kw_only=True)
class Started:
    """All that the loop needs.

    test_groups: drawn once; None without a test scan. illumination, canvas_padding_px: those of every batch, of both
    scans. guard: judges a network of a canvas; None for any other. begin_from: whose layers the run began with.
    patterns_per_epoch: a pattern counts once for each group that it is in. resume: the run that goes on; the
    network holds its weights and its optimiser's state.
    """

    config: TrainingConfig
    execution: ExecutionConfig
    data: TrainingData
    test: TrainingData | None
    test_groups: Groups | None
    illumination: Illumination
    canvas_padding_px: int
    patterns_per_epoch: int
    engine: EngineInfo
    network: Network
    resume: Checkpoint | None
    guard: Guard | None = None
    begin_from: Model | None = None

    def batches(self, data: TrainingData, groups: Groups, order: NDArray[np.int64] | None = None) -> Generator[Batch]:
        """Batches of one of the two scans, on the one canvas, gathered ahead.

        A network of a canvas has one that fits the batch: what it costs grows with its area.
        """
        gathered = data.batches(
            groups,
            illumination=self.illumination,
            canvas_padding_px=self.canvas_padding_px,
            order=order,
            workers=self.execution.num_workers,
        )
        return gathered if self.guard is None else _with_own_border(gathered)

    def untrained(self) -> Weights:
        """Those of a model before the first epoch of the run."""
        return {**self.illumination.arrays(), **_begun(self.illumination, self.config, self.begin_from)}

    def weights(self) -> Weights:
        """A copy of those of a model: the network's, and the illumination beside them."""
        return {**self.illumination.arrays(), **self.network.weights()}


def start(
    prepared: Prepared, scan: Scan | None = None, test: Scan | None = None, begin_from: Model | None = None
) -> Started:
    """Read the scans that the configuration names where none are given, and build the network.

    begin_from: a model whose layers are the first weights; everything else is of the new run.

    Raises DataError where a scan does not suit the configuration or is not that of the run that goes on,
    ConfigurationError where the configuration asks for what the scan has not, and what the engine raises.
    """
    config, resume = prepared.config, prepared.resume
    scan, test = _given_or_loaded(config, scan, test)
    on_canvas = bool(build_table(config.model).canvas)
    data = TrainingData(scan, config, on_canvas=on_canvas)
    tested = None if test is None else TrainingData(test, config, whole=True, on_canvas=on_canvas)
    test_groups = None
    if tested is not None:
        n_groups = min(config.n_groups, len(tested.scan))
        test_groups = tested.draw(np.random.default_rng([config.seed, 0]), n_groups)
    groups = data.draw(np.random.default_rng(config.seed))  # or it says why not
    padding = max(each.canvas_padding_px() for each in (data, tested) if each is not None)
    if resume is None:
        illumination = _measured(data.scan, config)
        weights = _begun(illumination, config, begin_from)
    else:
        _check_same_scans(resume, data, tested)
        illumination, weights = resume.illumination, resume.network_weights
    if tested is not None:
        warn_of_other_intensity(tested.scan, illumination)
    engine = prepared.load_engine()
    check_network_memory(
        build_table(config.model),
        config.model,
        config.batch_size,
        prepared.execution,
        engine.describe().devices,
        train=True,
    )
    guard = None
    if on_canvas:
        guard = Guard(engine, prepared.execution, config, (tested or data).scan)
    network = engine.build(config.model, config, weights, prepared.execution)
    if resume is not None:
        network.load_optimizer_state(resume.optimizer)
    return Started(
        config=config,
        execution=prepared.execution,
        data=data,
        test=tested,
        test_groups=test_groups,
        illumination=illumination,
        canvas_padding_px=padding,
        patterns_per_epoch=groups.indices.size,
        engine=engine.describe(),
        network=network,
        resume=resume,
        guard=guard,
        begin_from=begin_from,
    )


def _with_own_border(batches: Generator[Batch]) -> Generator[Batch]:
    """The batches, each with the border that its own groups need; few shapes occur, for engines that trace them."""
    with contextlib.closing(batches):
        for batch in batches:
            reach = math.ceil(float(np.abs(batch.relative_offsets_px).max()))
            yield attrs.evolve(batch, canvas_padding_px=-(-reach // PADDING_STEP) * PADDING_STEP)


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


def _measured(scan: Scan, config: TrainingConfig) -> Illumination:
    """The illumination that all batches of the run have, the test scan's too."""
    report_dose(scan, config)
    if not build_table(config.model).canvas:
        warn_if_ambiguous(scan, config)
        warn_if_wide(scan, config)
    return Illumination.of(
        scan,
        nphotons=config.nphotons,
        gauge=config.probe_gauge,
        masked=config.model.probe_mask,
        probe_scale=config.model.probe_scale,
    )


def _begun(illumination: Illumination, config: TrainingConfig, begin_from: Model | None) -> Weights:
    """The weights that a run begins with: layers drawn or those of a model, a probe to be refined as it is measured."""
    table = build_table(config.model)
    drawn: Weights = initial_weights(table, np.random.default_rng(config.seed))
    if begin_from is not None:
        known = {name: begin_from.weights[name] for name in table.parameters if name in begin_from.weights}
        shapes = {name: np.shape(array) for name, array in known.items()}
        if shapes != table.parameters:
            differ = sorted(name for name in table.parameters if shapes.get(name) != table.parameters[name])
            remedy = "Train with the settings of that model: architecture, width, blocks."
            raise ArchiveError(
                "model to begin with",
                expected="the layers of this network",
                received=f"other {differ[:3]}",
                remedy=remedy,
            )
        drawn = known
    known = {**drawn, PROBE: illumination.pairs, LOG_SCALE: np.zeros((), np.float32)}
    return network_weights(table, config, known)


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
