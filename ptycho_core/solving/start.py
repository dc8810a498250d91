"""What a solve begins with: a flat object, or one that a network, an earlier solve or a file gives."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptycho_core.engine.processes import ALONE, Processes
from ptycho_core.errors import ConfigurationError, DataError
from ptycho_core.models.container import CHECKPOINT, MODEL, located
from ptycho_core.models.model import Model, load_model
from ptycho_core.quality.truth import load_truth
from ptycho_core.reconstruction.predict import reconstruct
from ptycho_core.reconstruction.result import Reconstruction, load_reconstruction
from ptycho_core.scans.lengths import Lengths
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.solving.problem import Task, scaled
from ptycho_core.solving.run import State

Start = Reconstruction | Model | NDArray[np.complexfloating] | str | os.PathLike[str]
"""An object to begin with; an array (H, W) has its pixel [0, 0] at the coordinate (0, 0), as a scan's object has."""
LEAST_COVERED = 0.5  # specs/solving.md, Start: of the light of the scan
PIXEL_TOLERANCE = 0.01


def flat(task: Task, probe: NDArray[np.complex64]) -> State:
    """The state where nothing is known of the object."""
    return State(
        canvas=np.ones(task.shape, np.complex64),
        probe=probe,
        positions_px=task.scan.positions_px.copy(),
        intensity=np.ones(len(task)),
    )


def opened(
    start: Start, scan: Scan, backend: str, execution: ExecutionConfig, processes: Processes = ALONE
) -> Reconstruction | NDArray[np.complex64]:
    """What a start stands for: a model is used on the scan, a file is read."""
    if isinstance(start, np.ndarray):
        if start.ndim != 2 or start.dtype.kind not in "biufc":
            received = f"{start.dtype} of shape {start.shape}"
            remedy = "Give one complex object."
            raise DataError("start", expected="complex numbers (H, W)", received=received, remedy=remedy)
        return np.asarray(start, np.complex64)
    if isinstance(start, Model):
        return reconstruct(scan, start, backend=backend, execution=execution, processes=processes)
    if isinstance(start, Reconstruction):
        return start
    path = Path(start)
    if not path.exists():
        remedy = "Give the file or folder of a reconstruction or a model, or flat."
        raise ConfigurationError(
            "SolveConfig", "start", expected="flat or a path", received=f"no such file: {path}", remedy=remedy
        )
    if (path / "reconstruction.npz").exists():
        return load_reconstruction(path)
    archive = located(path, MODEL)
    if path.is_dir() or path.name.endswith((MODEL.name, CHECKPOINT.name)):
        return reconstruct(scan, load_model(archive), backend=backend, execution=execution, processes=processes)
    truth = load_truth(path)
    if truth.origin_px != (0.0, 0.0) or truth.known is not None:
        return load_reconstruction(path)
    return truth.object_field


def begun_with(start: Reconstruction | NDArray[np.complex64], task: Task, probe: NDArray[np.complex64]) -> State:
    """The state that an object gives; a reconstruction gives its probe, too. `probe`: the scan's, in its scale.

    Raises DataError for an object of another scan: of another size of pattern or pixel, not finite, or elsewhere.
    """
    known: NDArray[np.bool_] | None = None
    origin = (0.0, 0.0)
    if isinstance(start, np.ndarray):
        field = start
    else:
        field, origin, known = start.object_field, start.origin_px, start.known
        _check_fits(start, task)
        given = start.probe
        probe = scaled(task.scan, given)
        field = field * math.sqrt(_energy(given) / _energy(probe))
    known = np.ones(field.shape, bool) if known is None else known
    known = known & (field != 0)
    if not np.isfinite(field[known]).all() or not np.isfinite(field).all():
        raise DataError(
            "start",
            "object",
            expected="finite values",
            received="NaN or infinity",
            remedy="Begin with another object, or with a flat one.",
        )
    canvas, inside = np.ones(task.shape, np.complex64), np.zeros(task.shape, bool)
    (left, top), (height, width) = (
        (round(there - here) for there, here in zip(origin, task.origin_px, strict=True)),
        task.shape,
    )
    rows = slice(max(0, top), max(0, min(height, top + field.shape[0])))
    columns = slice(max(0, left), max(0, min(width, left + field.shape[1])))
    part = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
    inside[rows, columns] = known[part]
    canvas[rows, columns] = field[part]
    light = task.light(probe, task.scan.positions_px)
    covered = float(light[inside].sum() / light.sum())
    if covered < LEAST_COVERED:
        h, w = field.shape
        received = f"{w} x {h} pixels from {origin} on, which hold {covered:.0%} of the light of {task.scan.source}"
        remedy = "Begin with an object of this scan, or with a flat one."
        raise DataError("start", "object", expected="an object of the scanned area", received=received, remedy=remedy)
    mean = complex((light * canvas)[inside].sum() / light[inside].sum())
    canvas[~inside] = mean / abs(mean) if mean else 1
    return State(canvas=canvas, probe=probe, positions_px=task.scan.positions_px.copy(), intensity=np.ones(len(task)))


def _check_fits(start: Reconstruction, task: Task) -> None:
    N, scan = task.N, task.scan
    if start.probe.shape[1:] != (N, N):
        h, w = start.probe.shape[1:]
        remedy = "Begin with a reconstruction of patterns of the same size, or with a flat object."
        raise DataError(
            "start", "probe", expected=f"{N} x {N} pixels, as {scan.source} has", received=f"{w} x {h}", remedy=remedy
        )
    ours, theirs = Lengths.of(scan.metadata, N).object_pixel_m, start.lengths.object_pixel_m
    if ours is None or theirs is None:
        return
    if any(abs(there / here - 1) > PIXEL_TOLERANCE for here, there in zip(ours, theirs, strict=True)):
        remedy = "Begin with a reconstruction of the same crop and binning, or with a flat object."
        raise DataError(
            "start", "object pixel", expected=f"{ours} m, as {scan.source} has", received=f"{theirs} m", remedy=remedy
        )


def _energy(probe: NDArray[np.complexfloating]) -> float:
    return float(np.square(np.abs(probe), dtype=np.float64).sum())
