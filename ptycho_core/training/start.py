"""From a prepared training to one that can take its first step: scans read and checked, network built or restored."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import attrs
import numpy as np

from ptycho_core.engine.checks import check_network_memory, network_weights
from ptycho_core.engine.processes import ALONE, Processes, check_alike, check_asked, for_several
from ptycho_core.engine.protocol import EngineInfo, Network
from ptycho_core.errors import ArchiveError, ConfigurationError, DataError
from ptycho_core.io import load_scan
from ptycho_core.models.checkpoint import Checkpoint
from ptycho_core.models.model import Model
from ptycho_core.models.seen import Seen
from ptycho_core.networks.initial import initial_weights
from ptycho_core.networks.registry import build_table
from ptycho_core.physics.illumination import Illumination
from ptycho_core.physics.suitability import (
    check_same_probe,
    report_dose,
    warn_if_ambiguous,
    warn_if_wide,
    warn_of_other_intensity,
)
from ptycho_core.scans.lengths import Lengths
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.fields import to_mapping
from ptycho_core.settings.lists import listed
from ptycho_core.settings.sections import existing_file
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.training.data import TrainingData
from ptycho_core.training.guard import Guard
from ptycho_core.training.merged import Merged
from ptycho_core.training.prepare import Prepared
from ptycho_core.training.several import Drawn, Lit, RunScans
from ptycho_core.vocabulary import AUTO, LOG_SCALE, PROBE, Weights

log = logging.getLogger(__name__)


@attrs.frozen(eq=False, kw_only=True)
class Started:
    """All that the loop needs.

    scans: those that are trained on. tests, tested: those that are tested with, and their groups, drawn once; None
    without one. guard: judges the network as it will be used; None where a loss does. begin_from: whose layers the run
    began with.
    patterns_per_epoch: a pattern counts once for each group that it is in. resume: the run that goes on; the network
    holds its weights and its optimiser's state.
    """

    config: TrainingConfig
    execution: ExecutionConfig
    scans: RunScans
    tests: RunScans | None
    tested: Drawn | None
    patterns_per_epoch: int
    engine: EngineInfo
    network: Network
    resume: Checkpoint | None
    guard: Guard | Merged | None = None
    begin_from: Model | None = None
    processes: Processes = ALONE

    @property
    def illumination(self) -> Illumination:
        """That of the model: of the first scan."""
        return self.scans.lit[0].illumination

    @property
    def seen(self) -> tuple[Seen, ...]:
        """What the model has seen: its scans, or the first alone where all have the illumination of that."""
        on_canvas = bool(build_table(self.config.model).canvas)
        lit = self.scans.lit if on_canvas else self.scans.lit[:1]
        return tuple(
            Seen(each.illumination, Lengths.of(each.scan.metadata, each.scan.N).object_pixel_m) for each in lit
        )

    def untrained(self) -> Weights:
        """Those of a model before the first epoch of the run."""
        return {**self.illumination.arrays(), **_begun(self.illumination, self.config, self.begin_from)}

    def weights(self) -> Weights:
        """A copy of those of a model: the network's, and the illumination beside them."""
        return {**self.illumination.arrays(), **self.network.weights()}


Scans = Scan | Sequence[Scan] | None
"""One scan, several, or those that the configuration names."""


def start(
    prepared: Prepared,
    scan: Scans = None,
    test: Scans = None,
    begin_from: Model | None = None,
    processes: Processes = ALONE,
) -> Started:
    """Read the scans that the configuration names where none are given, and build the network.

    begin_from: a model whose layers are the first weights; everything else is of the new run. processes: those that
    train together; all have the same scans and settings.

    Raises DataError where a scan does not suit the configuration or is not that of the run that goes on,
    ConfigurationError where the configuration asks for what the scan has not, and what the engine raises.
    """
    config, resume = prepared.config, prepared.resume
    check_asked(prepared.execution, processes)
    scans, tests = _given_or_loaded(config, scan, test)
    on_canvas = bool(build_table(config.model).canvas)
    config = _grouped(config, scans) if on_canvas else config
    _check_together(scans, config, on_canvas)
    data = [TrainingData(each, config, on_canvas=on_canvas) for each in scans]
    tested = [TrainingData(each, config, whole=True, on_canvas=on_canvas) for each in tests]
    padding = max(each.canvas_padding_px() for each in (*data, *tested))
    if resume is not None:
        _check_same_scans(resume, data, tested)
    lights = _lights(data, config, on_canvas) if resume is None else resume.lights(len(data))
    execution = prepared.execution
    one_of_all = functools.partial(
        RunScans,
        batch_size=config.batch_size,
        canvas_padding_px=padding,
        own_border=on_canvas,
        workers=execution.num_workers,
        part=processes.part,
    )
    trained_on = one_of_all(lit=tuple(map(Lit, data, lights)))
    tested_with = None
    if tested:
        tested_with = one_of_all(
            lit=tuple(Lit(each, _test_light(each, lights[0], config, on_canvas)) for each in tested)
        )
    tested_on = None
    if tested_with is not None:
        tested_on = tested_with.in_order(np.random.default_rng([config.seed, 0]), config.n_groups)
    drawn = trained_on.shuffled(np.random.default_rng(config.seed))  # or it says why not
    for each, share in zip(data, drawn.shares, strict=True):
        each.check_overlap(share.groups)
    engine = prepared.load_engine()
    if processes.size > 1:
        _check_alike(processes, config, (*data, *tested))
    check_network_memory(
        build_table(config.model), config.model, config.batch_size, execution, engine.describe().devices, train=True
    )
    weights = _begun(lights[0], config, begin_from) if resume is None else resume.network_weights
    weights = {name: processes.broadcast(np.asarray(array)) for name, array in weights.items()}
    network = engine.build(config.model, config, weights, execution, **for_several(engine, processes))
    guard: Guard | Merged | None = None
    if execution.checkpoint_monitor_metric == AUTO and on_canvas:
        guard = Guard(engine, execution, config, (tested_with or trained_on).lit, processes)
    elif execution.checkpoint_monitor_metric == AUTO and config.model.model_type == "pinn":
        guard = Merged(network, execution, config, (tested_with or trained_on).lit, processes)
    if resume is not None:
        network.load_optimizer_state(resume.optimizer)
    return Started(
        config=config,
        execution=execution,
        scans=trained_on,
        tests=tested_with,
        tested=tested_on,
        patterns_per_epoch=drawn.patterns,
        engine=engine.describe(),
        network=network,
        resume=resume,
        guard=guard,
        begin_from=begin_from,
        processes=processes,
    )


def _check_alike(processes: Processes, config: TrainingConfig, data: Sequence[TrainingData]) -> None:
    """DataError where processes have other scans or settings."""
    for each in data:
        check_alike(processes, each.scan.source, each.fingerprint)
    settings = repr(sorted(to_mapping(attrs.evolve(config, output_dir=Path())).items()))
    check_alike(processes, "TrainingConfig", {"settings": hashlib.sha256(settings.encode()).hexdigest()})


def _given_or_loaded(config: TrainingConfig, scan: Scans, test: Scans) -> tuple[list[Scan], list[Scan]]:
    """The scans themselves, or those in the files that the configuration names; all are there before one is read."""
    file = existing_file(config, "train_data_file") if scan is None else None
    test_file = existing_file(config, "test_data_file") if test is None else None
    files, test_files = (() if each is None else listed(each) for each in (file, test_file))
    scans, tests = (
        [load_scan(path) for path in paths] or _as_list(given) for paths, given in ((files, scan), (test_files, test))
    )
    if not scans:
        remedy, expected = "Pass a scan, or set train_data_file.", "a scan to train on"
        raise ConfigurationError("TrainingConfig", "train_data_file", expected=expected, received="none", remedy=remedy)
    return scans, tests


SMALLEST_GROUP = 4  # specs/data.md, Groups: of which one is held out


def _grouped(config: TrainingConfig, scans: Sequence[Scan]) -> TrainingConfig:
    """Where the size of a group is not stated and a scan has fewer patterns than that, groups of as many as it has."""
    fewest = min(len(scan) if config.n_subsample is None else min(len(scan), config.n_subsample) for scan in scans)
    size, usual = max(SMALLEST_GROUP, fewest), config.model.channels
    if config.model.group_size is not None or size >= usual:
        return config
    log.info("groups of %d patterns in place of %d: there are no more (--group-size)", size, usual)
    return attrs.evolve(config, model=attrs.evolve(config.model, group_size=size))


def _as_list(scans: Scans) -> list[Scan]:
    return [] if scans is None else [scans] if isinstance(scans, Scan) else list(scans)


def _check_together(scans: Sequence[Scan], config: TrainingConfig, on_canvas: bool) -> None:
    """Refuse scans that cannot be trained on together: of different N, or of probes that the network does not see."""
    first, *others = scans
    if not others:
        return
    for each in others:
        if each.N != first.N:
            expected = f"{first.N} x {first.N} patterns, as those of {first.source}"
            remedy = "Crop or pad the patterns so that they agree (--crop, --pad), or train on each size by itself."
            raise DataError(each.source, "diff3d", expected=expected, received=f"{each.N} x {each.N}", remedy=remedy)
    if config.probe_trainable:
        remedy = "Leave it unset: a solve refines the probe of each scan (ptycho solve)."
        expected = "one scan, as a training refines one probe"
        received = f"{len(scans)} scans"
        raise ConfigurationError(
            "TrainingConfig", "probe_trainable", expected=expected, received=received, remedy=remedy
        )
    if not on_canvas:
        for each in scans:
            each.check_probe()
        for each in others:
            check_same_probe(each, first, config.model.architecture)


def _lights(data: Sequence[TrainingData], config: TrainingConfig, on_canvas: bool) -> list[Illumination]:
    """The illumination of each scan; a network that cannot see it has that of the first throughout."""
    if on_canvas:
        return [_measured(each.scan, config, on_canvas) for each in data]
    first = _measured(data[0].scan, config, on_canvas)
    for each in data[1:]:
        report_dose(each.scan, config)
        warn_of_other_intensity(each.scan, first)
    return [first] * len(data)


def _test_light(data: TrainingData, first: Illumination, config: TrainingConfig, on_canvas: bool) -> Illumination:
    """A network of a canvas is tested as it is used, in the scan's own light, unless it refines a probe."""
    if on_canvas and not config.probe_trainable:
        return _illumination(data.scan, config)
    warn_of_other_intensity(data.scan, first)
    return first


def _measured(scan: Scan, config: TrainingConfig, on_canvas: bool) -> Illumination:
    report_dose(scan, config)
    if not on_canvas:
        warn_if_ambiguous(scan, config)
        warn_if_wide(scan, config)
    return _illumination(scan, config)


def _illumination(scan: Scan, config: TrainingConfig) -> Illumination:
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


def _check_same_scans(checkpoint: Checkpoint, data: Sequence[TrainingData], tested: Sequence[TrainingData]) -> None:
    """DataError unless the scans are those that the run began with, in their order."""
    for field, begun, ours in (
        ("train_data_file", checkpoint.scans, data),
        ("test_data_file", checkpoint.tests, tested),
    ):
        if len(ours) != len(begun):
            what = "scan" if field == "train_data_file" else "test scan"
            before, now = (
                f"{number} {what}s" if number > 1 else f"{'a' if number else 'no'} {what}"
                for number in map(len, (begun, ours))
            )
            expected, remedy = f"{before}, as the run began", "Give what it began with, or begin a new run."
            raise DataError("TrainingConfig", field, expected=expected, received=now, remedy=remedy)
        for each, fingerprint in zip(ours, begun, strict=True):
            each.check_same(fingerprint)
