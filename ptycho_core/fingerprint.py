"""What of a scan a run depends on, as digests: whether it is the scan that the run began with (specs/archive.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ptycho_core.contracts import NPZ_KEYS, Scan
from ptycho_core.errors import DataError, explain
from ptycho_core.frames import Frames

Fingerprint = Mapping[str, str]
"""Part of a scan → hexadecimal SHA-256."""

LOOKED_AT = 2**28  # specs/archive.md, Checkpoints: bytes of an array
AT_ONCE = 256
"""Rows read together."""
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
    return {part: _digest(array if isinstance(array, Frames) else np.asarray(array)) for part, array in parts.items()}


def check_same_scan(scan: Scan, ours: Fingerprint, begun_with: Fingerprint) -> None:
    """DataError naming the first part in which the scan is not the one that the run began with."""
    for part, digest in begun_with.items():
        if ours.get(part) != digest:
            field = FIELDS.get(part, part)
            raise DataError(
                explain(
                    scan.source,
                    NPZ_KEYS.get(field, field),
                    expected=f"the scan that the run began with, {part} of SHA-256 {digest[:12]}…",
                    received=f"{str(ours.get(part))[:12]}…",
                    remedy="Give that scan, read in the same way (--measurement), or begin a new run.",
                )
            )


def _digest(array: NDArray[np.generic] | Frames) -> str:
    """Of dtype, shape and rows; patterns that stay in their file are read a few at a time."""
    rows = min(len(array), max(2, LOOKED_AT // max(1, array[:1].nbytes)))
    little = array.dtype.newbyteorder("<")
    digest = hashlib.sha256(f"{little.str} {array.shape}".encode())
    chosen = np.linspace(0, len(array) - 1, rows).round().astype(int)
    for start in range(0, rows, AT_ONCE):
        digest.update(np.ascontiguousarray(array[chosen[start : start + AT_ONCE]], dtype=little).data)
    return digest.hexdigest()
