"""What of a scan a run depends on, as digests: whether it is the scan that the run began with (specs/archive.md)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.scans.frames import Frames
from ptycho_core.scans.scan import NPZ_KEYS, Scan

Fingerprint = Mapping[str, str]
"""Part of a scan → hexadecimal SHA-256."""

LOOKED_AT = 2**28  # specs/archive.md, Checkpoints: bytes of an array
READ_AT_ONCE = 2**24
FIELDS = {
    "frames": "diffraction_amplitude",
    "positions": "positions_px",
    "probe": "probe",
    "bad_pixels": "bad_pixels",
    "object": "object_field",
}


def fingerprint(scan: Scan, *, with_truth: bool) -> Fingerprint:
    """The digest of each part of a scan, as training uses it; of large arrays evenly spread rows."""
    parts = {part: getattr(scan, field) for part, field in FIELDS.items() if with_truth or part != "object"}
    return {part: _digest(array) for part, array in parts.items()}


def check_same_scan(scan: Scan, ours: Fingerprint, begun_with: Fingerprint) -> None:
    """DataError naming the first part in which the scan is not the one that the run began with."""
    for part, digest in begun_with.items():
        if ours.get(part) != digest:
            field = FIELDS.get(part, part)
            raise DataError(
                scan.source,
                NPZ_KEYS.get(field, field),
                expected=f"the scan that the run began with, {part} of SHA-256 {digest[:12]}…",
                received=f"{str(ours.get(part))[:12]}…",
                remedy="Give that scan, read with the same measurement, or start a new run.",
            )


def _digest(array: NDArray[np.generic] | Frames) -> str:
    """Of an array, or of patterns that stay in their file, a few rows at a time."""
    row_bytes = math.prod(array.shape[1:]) * array.dtype.itemsize
    rows = min(len(array), max(2, LOOKED_AT // row_bytes))
    chosen = np.linspace(0, len(array) - 1, rows).round().astype(int)
    little = array.dtype.newbyteorder("<")
    digest = hashlib.sha256(f"{little.str} {tuple(array.shape)}".encode())
    few = max(1, READ_AT_ONCE // row_bytes)
    for start in range(0, rows, few):
        digest.update(np.ascontiguousarray(array[chosen[start : start + few]], dtype=little).data)
    return digest.hexdigest()
