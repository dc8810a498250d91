"""Readers and writers of scan files."""

from __future__ import annotations

import os
from pathlib import Path

from ptycho_core.contracts import Scan
from ptycho_core.frames import Measurement
from ptycho_core.io.npz import load_npz_scan, save_npz_scan


def load_scan(path: str | os.PathLike[str], *, measurement: Measurement | None = None) -> Scan:
    """The scan in the file `path`.

    measurement: "intensity" (counts) or "amplitude" (their square root), where the file does not say. Raises DataError.
    """
    return load_npz_scan(Path(path), measurement=measurement)


def save_scan(path: str | os.PathLike[str], scan: Scan) -> None:
    """Write the NPZ contract, whole or not at all."""
    save_npz_scan(Path(path), scan)
