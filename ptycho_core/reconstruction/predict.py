"""Predict patches and reassemble them as they come (specs/data.md, Reassembly)."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TypeVar

import attrs
import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from ptycho_core.batches.batch import Batch
from ptycho_core.batches.groups import draw_groups
from ptycho_core.batches.prefetch import Share, gathered
from ptycho_core.batches.sampling import subsample
from ptycho_core.engine.checks import check_network_memory
from ptycho_core.engine.processes import ALONE, Processes, agreed, check_asked, never
from ptycho_core.engine.protocol import Engine
from ptycho_core.errors import Cancelled, ConfigurationError, DataError
from ptycho_core.events import Count, Event
from ptycho_core.io import load_scan
from ptycho_core.layouts import BHWC_TO_PATCHES
from ptycho_core.models.canvas import WholeScan
from ptycho_core.models.model import Model, load_model
from ptycho_core.networks.registry import build_table
from ptycho_core.physics.canvas import ObjectCanvas
from ptycho_core.physics.illumination import Illumination
from ptycho_core.physics.suitability import (
    check_size,
    warn_of_other_intensity,
    warn_of_other_pixel,
    warn_of_other_probe,
)
from ptycho_core.physics.weights import probe_mask, reassembly_weight
from ptycho_core.reconstruction.evidence import measured
from ptycho_core.reconstruction.prepare import prepare
from ptycho_core.reconstruction.result import NETWORK, Reconstruction
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.fields import default_of, fields_of, to_mapping
from ptycho_core.settings.inference import InferenceConfig
from ptycho_core.settings.sections import existing_file

log = logging.getLogger(__name__)

T = TypeVar("T")


def reconstruct(
    scan: Scan | None,
    model: Model | None,
    *,
    backend: str | None = None,
    config: InferenceConfig | None = None,
    execution: ExecutionConfig | None = None,
    on_batch: Count | None = None,
    should_stop: Callable[[], bool] = never,
    processes: Processes = ALONE,
) -> Reconstruction:
    """The object that `model` sees in `scan`, on a canvas of the positions' bounding box plus N.

    scan, model: None is the one that `config` names, by test_data_file and by model_path. backend: the engine;
    unstated, `config.backend`, and where that is auto, the model's own, or else the one that trained it. on_batch:
    called with (groups done, groups) after every batch. processes: those that share the groups out, each of which calls
    this with the same arguments; the result is the same in all, progress is of the process's own. Raises DataError
    when the scan does not fit the model, ConfigurationError when `config` does not, BackendError when the engine is not
    there, Cancelled when `should_stop` says so.
    """
    steps = reconstruction_steps(
        scan,
        model,
        backend=backend,
        config=config,
        execution=execution,
        should_stop=should_stop,
        processes=processes,
    )
    with contextlib.closing(steps):
        while True:
            try:
                event = next(steps)
            except StopIteration as end:
                result: Reconstruction = end.value
                return result
            if on_batch is not None and event.total is not None:
                on_batch(event.done, event.total)


def reconstruction_steps(
    scan: Scan | None,
    model: Model | None,
    *,
    backend: str | None = None,
    config: InferenceConfig | None = None,
    execution: ExecutionConfig | None = None,
    should_stop: Callable[[], bool] = never,
    processes: Processes = ALONE,
) -> Generator[Event, None, Reconstruction]:
    """`reconstruct` as a generator: an event after every batch, and the result as its return value. Close it to stop.

    The payload is the canvas, the object so far. Arguments and errors are those of `reconstruct`.
    """
    config, execution = config or InferenceConfig(), execution or ExecutionConfig()
    check_asked(execution, processes)
    model = _named(config, "model_path", "a trained model", load_model) if model is None else model
    make_engine = prepare(model, config, backend)
    scan = named_scan(config) if scan is None else scan
    scan.check_probe()
    check_size(scan, model.config.model.N)
    scan = subsample(scan, config)
    _check_groups(scan, config)
    if build_table(model.config.model).canvas:
        return (yield from _on_one_canvas(scan, model, make_engine(), config, execution, should_stop, processes))
    warn_of_other_intensity(scan, model.illumination)
    warn_of_other_probe(scan, [model.illumination])
    warn_of_other_pixel(scan, [model.object_pixel_m])
    engine = make_engine()
    check_network_memory(
        build_table(model.config.model),
        model.config.model,
        execution.inference_batch_size,
        execution,
        engine.describe().devices,
        train=False,
    )
    begun = time.perf_counter()
    network = engine.build(model.config.model, None, model.network_weights, execution)
    started = time.perf_counter()
    groups = draw_groups(
        scan.positions_px,
        np.random.default_rng(config.seed),
        gridsize=model.config.model.gridsize,
        n_groups=config.n_groups,
        neighbor_count=max(config.neighbor_count, model.config.model.channels - 1),
        enable_oversampling=config.enable_oversampling,
        neighbor_pool_size=config.neighbor_pool_size,
    ).in_scan_order()
    probe = model.illumination.probe.astype(np.complex64)
    used = scan.positions_px[groups.indices.ravel()]
    weight = reassembly_weight(model.illumination.intensity, model.config.model, config.weighting, config.middle_trim)
    canvas = ObjectCanvas(used, weight)

    seconds = {"build": started - begun, "grouping": time.perf_counter() - started, "predict": 0.0, "reassemble": 0.0}
    size, done = execution.inference_batch_size, 0
    own = np.arange(len(groups))[processes.part.of(len(groups))]  # in the order of the scan: each reads a part of it
    share = Share(groups=groups, scan=scan, illumination=model.illumination, canvas_padding_px=0, order=own)
    with contextlib.closing(gathered([share], size, workers=execution.num_workers)) as batches:
        for batch in batches:
            if processes.size == 1 and should_stop():
                raise Cancelled(f"stopped after {done} of {len(groups)} groups")
            before = time.perf_counter()
            patches = network.predict(batch)
            predicted = time.perf_counter()
            frames = groups.indices[own[done : done + len(batch)]].ravel()
            canvas.add(rearrange(patches, BHWC_TO_PATCHES), scan.positions_px[frames])
            seconds["predict"] += predicted - before
            seconds["reassemble"] += time.perf_counter() - predicted
            done += len(batch)
            if config.debug:
                _log_batch(done, len(own), batch, patches, predicted - before)
            yield Event(kind="batch", work="reconstruct", done=done, total=len(own), unit="group", payload=canvas)
    if processes.size > 1 and agreed(processes, should_stop)():
        raise Cancelled("stopped before the shares were put together")
    canvas.sum_over(processes.sum)
    object_field, known = canvas.known_field()
    if not np.isfinite(object_field).all():
        expected, remedy = "finite predictions", "Check the scan's intensities and the model, or use precision 32-true."
        raise DataError(scan.source, expected=expected, received="NaN or infinity", remedy=remedy)
    ended = time.perf_counter()
    seconds["total"] = ended - started
    result = Reconstruction(
        object_field=object_field,
        origin_px=canvas.origin_px,
        overlap_count=canvas.overlap_count,
        known=known,
        probe=probe,
        positions_px=used,
        patterns=groups.indices.size,
        seconds=seconds,
        engine=engine.describe(),
        model_engine=model.engine,
        model_digest=model.digest,
        method=NETWORK,
        settings=to_mapping(config),
    )
    lit = (probe * probe_mask(scan.N)).astype(np.complex64) if model.config.model.probe_mask else probe
    rows = groups.indices.ravel()
    result = measured(result, scan, rows, engine, execution, probe=lit, should_stop=should_stop, processes=processes)
    return attrs.evolve(result, seconds={**seconds, "measure": time.perf_counter() - ended})


def _on_one_canvas(
    scan: Scan,
    model: Model,
    engine: Engine,
    config: InferenceConfig,
    execution: ExecutionConfig,
    should_stop: Callable[[], bool],
    processes: Processes,
) -> Generator[Event, None, Reconstruction]:
    """With a network of a canvas: all patterns on one, in the light of the scan's own probe and dose."""
    training = model.config
    for name in ("n_groups", "middle_trim"):
        if getattr(config, name) is not None:
            expected, remedy = "a network that works on patches", f"Leave {name} unset."
            received = f"architecture = {model.config.model.architecture}, which works on one canvas"
            raise ConfigurationError("InferenceConfig", name, expected=expected, received=received, remedy=remedy)
    known = fields_of(InferenceConfig)
    for name in ("weighting", "neighbor_count", "seed"):
        if getattr(config, name) != default_of(config, known[name]):
            log.warning("%s has no effect on architecture %s: there are no patches.", name, training.model.architecture)
    illumination = Illumination.of(
        scan,
        nphotons=training.nphotons,
        gauge=training.probe_gauge,
        masked=training.model.probe_mask,
        probe_scale=training.model.probe_scale,
    )
    warn_of_other_probe(scan, [each.illumination for each in model.seen], used=True)
    warn_of_other_pixel(scan, [each.object_pixel_m for each in model.seen])
    # refuses positions that lie too far apart, before anything is worked out
    canvas = ObjectCanvas(scan.positions_px, np.ones((scan.N, scan.N)))
    started = time.perf_counter()
    whole = WholeScan.of(
        engine, execution, training.model, scan, illumination, should_stop=should_stop, processes=processes
    )
    field = yield from whole.predict(model.weights)
    if not np.isfinite(field).all():
        expected, remedy = "finite predictions", "Check the scan's intensities and the model, or use precision 32-true."
        raise DataError(scan.source, expected=expected, received="NaN or infinity", remedy=remedy)
    ended = time.perf_counter()
    seconds = {"predict": ended - started, "total": ended - started}
    probe = illumination.probe.astype(np.complex64)
    result = Reconstruction(
        object_field=np.where(whole.known, field, 0).astype(np.complex64),
        origin_px=whole.origin_px,
        overlap_count=canvas.overlap_of(scan.positions_px),
        known=whole.known,
        probe=probe,
        positions_px=scan.positions_px,
        patterns=len(scan),
        seconds=seconds,
        engine=engine.describe(),
        model_engine=model.engine,
        model_digest=model.digest,
        method=NETWORK,
        settings=to_mapping(config),
    )
    lit = (probe * probe_mask(scan.N)).astype(np.complex64) if training.model.probe_mask else probe
    rows = np.arange(len(scan))
    result = measured(result, scan, rows, engine, execution, probe=lit, should_stop=should_stop, processes=processes)
    return attrs.evolve(result, seconds={**seconds, "measure": time.perf_counter() - ended})


def named_scan(config: InferenceConfig) -> Scan:
    """The scan in `config.test_data_file`; ConfigurationError where that is not set."""
    return _named(config, "test_data_file", "a scan to reconstruct", load_scan)


def _named(config: InferenceConfig, field: str, what: str, load: Callable[[Path], T]) -> T:
    """What the file that a field names holds; ConfigurationError where it names none."""
    path = existing_file(config, field)
    if path is None:
        remedy = f"Pass it, or set {field}."
        raise ConfigurationError("InferenceConfig", field, expected=what, received="none", remedy=remedy)
    return load(path)


def _log_batch(done: int, total: int, batch: Batch, patches: NDArray[np.complex64], seconds: float) -> None:
    modulus = np.abs(patches)
    log.info(
        "groups %d-%d of %d: diffraction amplitude %.4g to %.4g, object amplitude %.4g to %.4g, %.1f ms",
        done - len(batch) + 1,
        done,
        total,
        batch.diffraction_amplitude.min(),
        batch.diffraction_amplitude.max(),
        modulus.min(),
        modulus.max(),
        seconds * 1e3,
    )


def _check_groups(scan: Scan, config: InferenceConfig) -> None:
    if config.n_groups is not None and config.n_groups > len(scan) and not config.enable_oversampling:
        expected, remedy = f"at most {len(scan)}, the frames of {scan.source}", "Lower n_groups or leave it unset."
        raise ConfigurationError(
            "InferenceConfig", "n_groups", expected=expected, received=config.n_groups, remedy=remedy
        )
