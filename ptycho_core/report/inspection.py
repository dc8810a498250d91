"""What a file is and holds, as plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ptycho_core.archive import ARCHIVE_NAME
from ptycho_core.checkpoint import CHECKPOINT_NAME
from ptycho_core.container import MANIFEST, member_names
from ptycho_core.errors import DataError, explain
from ptycho_core.io.files import UNREADABLE
from ptycho_core.io.npz import Measurement, load_npz_scan
from ptycho_core.physics import mean_frame_intensity
from ptycho_core.published import published_facts
from ptycho_core.reconstruction import load_reconstruction
from ptycho_core.report.models import model_or_checkpoint_facts


def inspect_file(path: Path, measurement: Measurement | None = None) -> dict[str, Any]:
    """The facts of a scan, a model archive of ours or a published one (or its folder) or a reconstruction.

    They are told apart by content.
    """
    target = path
    if path.is_dir():
        target = next((f for f in (path / ARCHIVE_NAME, path / CHECKPOINT_NAME) if f.exists()), path / ARCHIVE_NAME)
    try:
        members = member_names(target)
    except UNREADABLE as error:
        remedy = "Give an NPZ scan, a model archive or a reconstruction."
        raise DataError(
            explain(target, None, expected="a readable NPZ or zip file", received=error, remedy=remedy)
        ) from error
    if MANIFEST in members:
        return model_or_checkpoint_facts(target)
    if any(name.endswith(".dill") for name in members):
        return published_facts(target)
    if {"object.npy", "origin_px.npy"} <= members:
        return {"kind": "reconstruction", **load_reconstruction(target).summary()}
    return _scan_facts(target, measurement)


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
