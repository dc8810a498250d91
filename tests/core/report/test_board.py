"""What a page keeps of the events of a work: curves, numbers, warnings, the last object."""

from __future__ import annotations

import pickle
import time
from typing import Any

import attrs
import numpy as np

from ptycho_core.events import Event
from ptycho_core.live.reconstruction import LiveReport
from ptycho_core.report.pages.board import KEPT_WARNINGS, Board, Seen
from ptycho_core.report.still import Still
from tests.core.test_events import report


class SoFar:
    origin_px = (10.0, 20.0)

    def known_field(self) -> tuple[Any, Any]:
        known = np.zeros((30, 40), bool)
        known[5:25, 10:30] = True
        return np.exp(0.1j * np.arange(1200).reshape(30, 40)).astype(np.complex64), known


def test_losses_become_curves_and_only_numbers_cross_to_the_page() -> None:
    board = Board()
    for done in (1, 2, 3):
        board(pickle.loads(pickle.dumps(Seen.of(report(done, loss=1 / done)))))  # noqa: S301 - our own
    board(Seen.of(attrs.evolve(Event(kind="epoch", work="train", done=4, unit="epoch"), terms={"total": np.nan})))
    assert board.curves["total"] == ([1, 2, 3], [1, 1 / 2, 1 / 3])
    assert board.curves["validation_total"][1] == [0.75] * 3
    assert board.status["rate"] == "20 patterns/s" and board.status["done"] == "4 epochs"
    seen = Seen.of(LiveReport(done=7, total=9, lag_s=0.123, rate=500.0, payload=SoFar()))
    assert seen.payload is None and seen.more["lag_s"] == 0.123
    board(seen)
    assert board.status["lag_s"] == "0.12 s" and board.status["done"] == "7 frames of 9"


def test_warnings_are_text_and_no_flood() -> None:
    board = Board()
    for number in range(100):
        board(Event(kind="warning", work="watch", message=f"{number} \x1b[2J"))
    assert len(board.warnings) == KEPT_WARNINGS and board.warnings[-1] == "99 \\x1b[2J"


def test_an_object_is_drawn_where_it_is_known() -> None:
    board = Board()
    board.show(Still.of(SoFar()), 12)
    end = time.monotonic() + 20
    while board.drawing is None and time.monotonic() < end:
        time.sleep(0.01)
    drawing = board.drawing
    assert drawing is not None and drawing.placed == 12
    assert drawing.canvas.known.shape == (20, 20) and drawing.canvas.origin_px == (20.0, 25.0)
    assert set(drawing.images) == {"amplitude", "phase"} and drawing.pattern is None
    assert all(image.uri.startswith("data:image/webp;base64,") for image in drawing.images.values())
