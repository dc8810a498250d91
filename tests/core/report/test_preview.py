"""The object in the terminal: half blocks in greys, only where a terminal shows them, and seldom."""

from __future__ import annotations

import io
import re
from typing import Any

import attrs
import numpy as np
import pytest

from ptycho_core.events import Event
from ptycho_core.report import preview
from tests.core.report.test_board import SoFar

COLOURED = {"TERM": "xterm-256color"}


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "encoding", "greys"),
    [
        (COLOURED, "utf-8", 24),
        ({"TERM": "xterm", "COLORTERM": "truecolor"}, "utf-8", 256),
        ({"TERM": "xterm"}, "utf-8", 0),
        ({"TERM": "dumb", "COLORTERM": "truecolor"}, "utf-8", 0),
        ({**COLOURED, "NO_COLOR": "1"}, "utf-8", 0),
        (COLOURED, "ascii", 0),
    ],
)
def test_a_terminal_says_what_it_shows(environment: dict[str, str], encoding: str, greys: int) -> None:
    assert preview.greys_of(Terminal(io.BytesIO(), encoding=encoding), environment) == greys
    assert preview.greys_of(io.StringIO(), environment) == 0


def test_two_rows_are_one_line_and_what_is_not_known_is_clear() -> None:
    rows, columns = np.indices((9, 8))
    known = (columns > 1) & ~((rows == 0) & (columns == 7))
    field = np.exp(0.4j * (rows % 2)).astype(np.complex64)
    lines = preview.picture(field, known, 256).split("\n")
    assert [re.sub(r"\033\[[0-9;]*m", "", line) for line in lines] == ["▀▀▀▀▀▄", *["▀▀▀▀▀▀"] * 4]
    upper, lower = map(int, re.findall(r"[34]8;2;(\d+)", lines[1])[:2])
    assert upper < 20 and lower > 235
    assert re.search(r"38;5;23\d;48;5;25\dm", preview.picture(field, known, 24))


def test_a_large_object_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview.shutil, "get_terminal_size", lambda: (50, 30))
    lines = preview.picture(np.ones((300, 700), np.complex64), np.ones((300, 700), bool), 24).split("\n")
    assert {line.count("▀") for line in lines} == {47} and len(lines) == 10


def test_pictures_come_ever_more_seldom_and_the_last_one_surely(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [1000.0]
    monkeypatch.setattr(preview.time, "monotonic", lambda: now[0])
    shows, seen = preview.Preview(24), []
    event: Any = Event(kind="sweep", work="solve", total=1000, unit="sweep", payload=SoFar())
    shows(Event(kind="prepared", work="solve"))  # long before the first object
    for second in range(21):
        now[0] = 5000.0 + second
        shows(event)
        if capsys.readouterr().err:
            seen.append(second)
    assert seen == [2, 3, 5, 8, 12, 18]
    shows(attrs.evolve(event, done=1000))
    assert "▀" in capsys.readouterr().err
