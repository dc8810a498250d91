"""The object so far as a small picture in a terminal: two pixels in each character."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from ptycho_core.events import Event
from ptycho_core.quality.area import bounding_box
from ptycho_core.report.pages.images import flat
from ptycho_core.report.plots.drawing import limits_of

COLUMNS, LINES = 64, 20
"""Of a picture, at most."""
FIRST_SECONDS, GROWTH = 2.0, 1.5
"""After the first object its first picture, and how many times later each other one."""
UPPER, LOWER = "\u2580", "\u2584"


def greys_of(stream: TextIO, environment: Mapping[str, str] = os.environ) -> int:
    """Greys that a terminal shows: 256, 24, or 0 where it is none, or has neither colours nor half blocks."""
    if not stream.isatty() or environment.get("TERM", "dumb") == "dumb" or "NO_COLOR" in environment:
        return 0
    try:
        UPPER.encode(stream.encoding)
    except (UnicodeEncodeError, LookupError):
        return 0
    if environment.get("COLORTERM") in ("truecolor", "24bit"):
        return 256
    return 24 if "256color" in environment["TERM"] else 0


def picture(field: NDArray[np.complex64], known: NDArray[np.bool_], greys: int) -> str:
    """The phase of an object (H, W) without mean and ramp, as lines of text; what is not known is left clear."""
    columns, lines = shutil.get_terminal_size()
    rows, across = bounding_box(known)
    phase, known = flat(field[rows, across], known[rows, across]), known[rows, across]
    step = max(1, -(-phase.shape[1] // min(COLUMNS, columns - 1)), -(-phase.shape[0] // (2 * min(LINES, lines - 2))))
    low, high = limits_of(phase[known])
    shown = np.clip((phase[::step, ::step] - low) / max(high - low, 1e-30), 0, 1)
    pixels = np.where(known[::step, ::step], np.rint((greys - 1) * shown), -1).astype(int)
    pixels = np.pad(pixels, ((0, len(pixels) % 2), (0, 0)), constant_values=-1)
    pairs = zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True)
    return "\n".join("".join(_cell(*pair, greys) for pair in zip(*row, strict=True)) + "\033[0m" for row in pairs)


def _cell(upper: int, lower: int, greys: int) -> str:
    def colour(ground: int, grey: int) -> str:
        return f"{ground};5;{232 + grey}" if greys == 24 else f"{ground};2;{grey};{grey};{grey}"

    if upper < 0 and lower < 0:
        return "\033[0m "
    if upper < 0 or lower < 0:
        return f"\033[0;{colour(38, max(upper, lower))}m{UPPER if lower < 0 else LOWER}"
    return f"\033[{colour(38, upper)};{colour(48, lower)}m{UPPER}"


class Preview:
    """A listener that writes the object now and then, ever more seldom, and where it is done."""

    def __init__(self, greys: int) -> None:
        self.greys, self._due = greys, FIRST_SECONDS
        self._begun: float | None = None  # when the first object was there: a scan may be long in coming

    def __call__(self, event: Event) -> None:
        so_far: Any = event.payload
        if not hasattr(so_far, "known_field"):
            return
        now = time.monotonic()
        self._begun = now if self._begun is None else self._begun
        spent = now - self._begun
        if spent < self._due and event.done != event.total:
            return
        self._due = max(FIRST_SECONDS, GROWTH * spent)
        field, known = so_far.known_field()
        if known.any():
            from tqdm import tqdm

            tqdm.write(picture(field, known, self.greys), file=sys.stderr)
