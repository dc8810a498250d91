"""The counts of a scan, exactly where they are stored as whole numbers, for writers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_core.scans.frames import EXACT_ROOT, Frames
from ptycho_core.scans.scan import Scan
from ptycho_core.storage.source import BLOCK_BYTES


def intensity_blocks(scan: Scan, dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    """A² in the type that `counts_type` gave, some patterns at a time, in their order."""
    if (frames := stored_counts(scan)) is not None:
        for counts in frames.counts():
            yield counts.astype(dtype)
        return
    for block in _blocks(scan):
        if dtype == np.float32:
            yield np.square(block)
        else:
            yield np.rint(np.square(block, dtype=np.float64)).astype(dtype)


def counts_type(scan: Scan) -> np.dtype[Any]:
    """An unsigned integer type where every amplitude is the root of a whole number, else float32."""
    if (frames := stored_counts(scan)) is not None:
        return np.dtype(_smallest(max(float(counts.max(initial=0)) for counts in frames.counts())))
    largest = 0.0
    for block in _blocks(scan):
        counts = np.rint(np.square(block, dtype=np.float64))
        largest = max(largest, float(counts.max(initial=0)))
        if largest >= 2**32 or not np.array_equal(np.sqrt(counts.astype(np.float32)), block):
            return np.dtype(np.float32)
    return np.dtype(_smallest(largest))


def counts_beyond_roots(scan: Scan) -> Frames | None:
    """`stored_counts`, where some are so large that amplitudes in float32 do not tell them."""
    return stored_counts(scan) if scan.statistics.largest >= EXACT_ROOT else None


def stored_counts(scan: Scan) -> Frames | None:
    """The scan's patterns where they are read from whole numbers, which a square of float32 does not tell exactly."""
    frames = scan.diffraction_amplitude
    return frames if isinstance(frames, Frames) and frames.whole_numbers else None


def _smallest(largest: float) -> type[np.unsignedinteger[Any]]:
    return np.uint16 if largest < 2**16 else np.uint32 if largest < 2**32 else np.uint64


def _blocks(scan: Scan) -> Iterator[NDArray[np.float32]]:
    amplitude = scan.diffraction_amplitude
    if isinstance(amplitude, Frames):
        yield from amplitude.blocks()
        return
    count = max(1, BLOCK_BYTES // max(1, amplitude[:1].nbytes))
    for start in range(0, len(amplitude), count):
        yield amplitude[start : start + count]
