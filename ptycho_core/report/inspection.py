"""What a file is and holds, as plain values."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_core.architecture import build_table
from ptycho_core.archive import ARCHIVE_NAME, load_model
from ptycho_core.container import MANIFEST
from ptycho_core.errors import DataError, explain
from ptycho_core.io.files import UNREADABLE
from ptycho_core.io.npz import Measurement, load_npz_scan
from ptycho_core.physics import COUNTS_PER_INTENSITY, INPUT_SCALE, mean_frame_intensity
from ptycho_core.reconstruction import load_reconstruction


def inspect_file(path: Path, measurement: Measurement | None = None) -> dict[str, Any]:
    """The facts of a scan, a model archive (or its folder) or a reconstruction, told apart by content."""
    target = path / ARCHIVE_NAME if path.is_dir() else path
    try:
        with zipfile.ZipFile(target) as archive:
            members = set(archive.namelist())
    except UNREADABLE as error:
        remedy = "Give an NPZ scan, a model archive or a reconstruction."
        raise DataError(
            explain(target, None, expected="a readable NPZ or zip file", received=error, remedy=remedy)
        ) from error
    if MANIFEST in members or any(name.endswith(".dill") for name in members):
        return _model_facts(target)
    if {"object.npy", "origin_px.npy"} <= members:
        return {"kind": "reconstruction", **load_reconstruction(target).summary()}
    return _scan_facts(target, measurement)


def _model_facts(path: Path) -> dict[str, Any]:
    model = load_model(path)
    network = model.config.model
    return {
        "kind": "model archive",
        "written_by": f"{model.engine.name} ({model.engine.framework} {model.engine.version})",
        "N": network.N,
        "gridsize": network.gridsize,
        "architecture": network.architecture,
        "model_type": network.model_type,
        "parameters": sum(model.weights[name].size for name in build_table(network).parameters),
        "best_epoch": model.best_epoch,
        "epochs": len(model.history),
        "loss": model.history[model.best_epoch - 1]["total"],
        "input_scale": float(model.weights[INPUT_SCALE]),
        "counts_per_intensity": float(model.weights[COUNTS_PER_INTENSITY]),
        "digests": "verified",
    }


def _scan_facts(path: Path, measurement: Measurement | None) -> dict[str, Any]:
    scan = load_npz_scan(path, measurement=measurement)
    low, high = scan.positions_px.min(axis=0), scan.positions_px.max(axis=0)
    return {
        "kind": "scan",
        "patterns": len(scan),
        "N": scan.N,
        "probe_modes": len(scan.probe),
        "bad_pixels": int(np.asarray(scan.bad_pixels).sum()),
        "dose_known": scan.dose_known,
        "mean_frame_intensity": mean_frame_intensity(scan),
        "x_range_px": [float(low[0]), float(high[0])],
        "y_range_px": [float(low[1]), float(high[1])],
        "object_shape": None if scan.object_field is None else list(scan.object_field.shape),
        "metadata": dict(scan.metadata),
    }
