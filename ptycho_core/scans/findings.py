"""What is noticed about a scan, as values (specs/data.md, Findings)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError

Severity = Literal["error", "warning"]
MOST_RANGES = 12
MOST_BAD = 0.5
"""Share of the pixels beyond which a mask is a finding."""


@attrs.frozen(kw_only=True)
class Finding:
    """One fault of a scan: an error where no sense can be made of it, else a warning.

    what: what is at fault, in two or three words. expected, received, remedy, state: as those of an error. count: of
    frames or pixels, 0 where it is the scan. frames: their numbers in the file, without those that no pattern has.
    """

    severity: Severity
    what: str
    expected: str
    received: str
    remedy: str
    state: tuple[str, ...] = ()
    count: int = 0
    frames: tuple[int, ...] = ()

    def error(self, source: str) -> DataError:
        """The finding as an error of the scan called `source`."""
        return DataError(
            source,
            self.what,
            expected=self.expected,
            received=self.received,
            remedy=self.remedy,
            state=self.state,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; frames as ranges."""
        return {**attrs.asdict(self), "state": list(self.state), "frames": ranges(self.frames, most=10**6)}


@attrs.frozen(eq=False, kw_only=True)
class Noticed:
    """What reading a file has shown. frames: int64 (M,), the number in the file of each pattern.

    centre: the stored pixel (row, column) in the middle of the patterns as read, where they were not turned; bin:
    stored pixels in one of theirs, each way.
    """

    frames: NDArray[np.int64]
    findings: tuple[Finding, ...] = ()
    centre: tuple[int, int] | None = None
    bin: int = 1

    def stored_pixel(self, row: float, column: float) -> tuple[int, int] | None:
        """The stored pixel so many pixels from the middle of the patterns as read."""
        if self.centre is None:
            return None
        return round(self.centre[0] + row * self.bin), round(self.centre[1] + column * self.bin)


def mask_finding(count: int, size: int) -> Finding:
    """What is said where most pixels are bad."""
    return Finding(
        severity="warning",
        what="bad pixels",
        expected="a mask that is true where a pixel is bad",
        received=f"{count} of {size} pixels bad: the mask may be the other way round",
        remedy="If it marks the good pixels, say so",
        state=("good_pixels",),
        count=count,
    )


def ranges(frames: Sequence[int] | NDArray[np.int64], most: int = MOST_RANGES) -> str:
    """Whole numbers in words: `3,20-34,99`; after `most` pieces `…`.

    >>> ranges([3, 20, 21, 22, 99])
    '3,20-22,99'
    """
    numbers = np.unique(np.asarray(frames, np.int64))
    if not len(numbers):
        return ""
    pieces = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    words = [str(piece[0]) if len(piece) == 1 else f"{piece[0]}-{piece[-1]}" for piece in pieces[:most]]
    return ",".join(words) + (",…" if len(pieces) > most else "")
