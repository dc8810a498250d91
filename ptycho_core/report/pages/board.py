"""What a page shows of a work in progress: made of its events, drawn in a thread of its own."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import visible
from ptycho_core.events import Event, ObjectSoFar
from ptycho_core.quality.area import bounding_box
from ptycho_core.report.pages.images import Coloured, canvas_of, of_error, of_object, of_pattern
from ptycho_core.report.plots.objects import Canvas

LARGEST_PX = 640
"""Of an image on the page; of a larger one every second, third, … pixel is shown."""
IMAGE_BYTES = 120_000
MOST_POINTS, MOST_POSITIONS = 2_000, 4_000
CURVES = ("epoch", "sweep")
KEPT_WARNINGS = 20


SHOWN = ("lag_s", "received", "waiting", "unplaced", "duplicates", "polished")


@attrs.frozen(kw_only=True, repr=False)
class Seen(Event):
    """An event as the page is told of it: without its payload. more: numbers of its class by name."""

    more: Mapping[str, float] = attrs.field(factory=dict)

    @classmethod
    def of(cls, event: Event) -> Seen:
        names = (*SHOWN, "patterns_per_second", *(("rate",) if event.work == "watch" else ()))
        more = {name: float(getattr(event, name)) for name in names if hasattr(event, name)}
        fields = {field.name: getattr(event, field.name) for field in attrs.fields(Event)}
        return cls(**{**fields, "terms": dict(event.terms), "payload": None}, more=more)


@attrs.frozen(eq=False)
class Drawing:
    """An object as it is shown. number: of the drawing, from 1. placed: frames that were in it."""

    number: int
    canvas: Canvas
    images: Mapping[str, Coloured]
    positions_px: NDArray[np.float64]
    pattern: str | None
    placed: int


class Board:
    """A listener that keeps what the page shows. `version` changes whenever anything does; read from any thread."""

    def __init__(self) -> None:
        self.version = 0
        self.status: dict[str, str] = {"state": "waiting for the first step"}
        self.curves: dict[str, tuple[list[float], list[float]]] = {}
        self.unit = ""
        self.warnings: list[str] = []
        self.drawing: Drawing | None = None
        self.ended = False
        self._begun = time.monotonic()
        self._waiting: tuple[Any, ...] | None = None
        self._ready = threading.Condition()
        threading.Thread(target=self._draw, daemon=True, name="page images").start()

    def __call__(self, event: Event) -> None:
        if event.kind == "warning":
            self.warnings = [*self.warnings, visible(event.message)][-KEPT_WARNINGS:]
        if event.kind in ("finished", "failed", "cancelled"):
            self.ended = True
        self.status = self._told(event)
        if event.kind in CURVES or (event.kind == "batch" and event.work == "watch"):
            self._plot(event)
        self.version += 1

    def _told(self, event: Event) -> dict[str, str]:
        told = dict(self.status)
        if event.work != "draw":  # of what has been done
            told["state"] = visible(f"{event.work}: {event.kind}")
        if event.unit:
            told["done"] = f"{event.done} {event.unit}s" + ("" if event.total is None else f" of {event.total}")
        if event.message:
            told["message"] = visible(event.message)
        more = event.more if isinstance(event, Seen) else {}
        rate = more.get("patterns_per_second", more.get("rate"))
        if rate is not None and event.kind != "sweep":
            told["rate"] = f"{rate:.0f} patterns/s"
        for name in SHOWN:
            if name in more:
                told[name] = f"{more[name]:.2f} s" if name == "lag_s" else f"{more[name]:.0f}"
        return told

    def _plot(self, event: Event) -> None:
        x = float(event.done) if event.kind in CURVES else time.monotonic() - self._begun
        self.unit = event.unit if event.kind in CURVES else "seconds"
        curves = dict(self.curves)
        for name, value in event.terms.items():
            if "/" in name or not math.isfinite(value):
                continue
            xs, ys = curves.get(name, ([], []))
            curves[name] = [*xs, x][-MOST_POINTS:], [*ys, float(value)][-MOST_POINTS:]
        self.curves = curves

    def show(self, so_far: ObjectSoFar, placed: int) -> None:
        """Draw an object, which nobody changes any more, in a thread; one that is not drawn yet is left out."""
        with self._ready:
            self._waiting = (so_far, placed)
            self._ready.notify()

    def _draw(self) -> None:
        while True:
            with self._ready:
                while self._waiting is None:
                    self._ready.wait()
                given, self._waiting = self._waiting, None
            so_far, placed = given
            number = 1 if self.drawing is None else self.drawing.number + 1
            field, known = so_far.known_field()
            if known.any():
                more = [getattr(so_far, name, None) for name in ("photon_limit", "places", "last_pattern")]
                limit, places, pattern = (None if each is None else each() for each in more)
                self.drawing = drawn(number, so_far.origin_px, field, known, limit, places, pattern, placed)
                self.version += 1


def drawn(
    number: int,
    origin_px: tuple[float, float],
    field: NDArray[np.complex64],
    known: NDArray[np.bool_],
    limit: NDArray[Any] | None,
    places: NDArray[np.float64] | None,
    pattern: NDArray[np.float32] | None,
    placed: int,
) -> Drawing:
    rows, columns = bounding_box(known)
    origin = origin_px[0] + columns.start, origin_px[1] + rows.start
    field, known = field[rows, columns], known[rows, columns]
    places = np.zeros((0, 2)) if places is None else places
    canvas = canvas_of(known, origin, places) if len(places) > 2 else Canvas.of(known, origin_px=origin)
    step = -(-max(known.shape) // LARGEST_PX)
    part = np.s_[::step, ::step]
    small = attrs.evolve(canvas, known=known[part], focus=canvas.focus[part])
    if not small.focus.any():
        small = attrs.evolve(small, focus=small.known)
    images = dict(zip(("amplitude", "phase"), of_object(field[part], small, most_bytes=IMAGE_BYTES), strict=True))
    if limit is not None:
        trust = of_error(limit[rows, columns][part], small, most_bytes=IMAGE_BYTES)
        images["trust"] = attrs.evolve(trust, title=trust.title.replace("predicted RMS error", "photon limit"))
    shown = places[:: max(1, -(-len(places) // MOST_POSITIONS))]
    picture = None
    if pattern is not None:
        picture = of_pattern(pattern, max(float(np.square(pattern.max(), dtype=np.float64)), 1e-30))
    return Drawing(number, canvas, images, shown, picture, placed)
