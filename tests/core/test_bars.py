"""A bar shows how a work gets on where somebody sees it or asks for it, and nowhere else."""

from __future__ import annotations

import io
import sys
from types import ModuleType
from typing import Any

import pytest

from ptycho_core import bars
from ptycho_core.bars import bar_where_asked, in_notebook
from ptycho_core.events import Event

EPOCH = Event(kind="epoch", work="train", done=1, total=2, unit="epoch", message="loss 0.125")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class ZMQInteractiveShell:
    """As the kernel of a notebook calls its own."""


@pytest.mark.parametrize(
    ("asked", "stream", "allowed", "shown"),
    [
        (None, Terminal, True, True),
        (None, Terminal, False, False),
        (None, io.StringIO, True, False),
        (True, io.StringIO, False, True),
        (False, Terminal, True, False),
    ],
)
def test_it_is_shown_on_a_terminal_or_where_asked_for(
    asked: bool | None, stream: type[io.StringIO], allowed: bool, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream())
    with bar_where_asked(asked, allowed) as bar:
        bar(EPOCH)
    assert ("epoch 1/2, loss 0.125" in sys.stderr.getvalue()) is shown  # type: ignore[attr-defined]


def test_a_notebook_is_told_by_its_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("IPython")
    module.get_ipython = lambda: None
    monkeypatch.setitem(sys.modules, "IPython", module)
    assert not in_notebook()
    module.get_ipython = ZMQInteractiveShell
    assert in_notebook()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(bars.importlib.util, "find_spec", lambda name: None)  # of widgets
    with bar_where_asked(None) as bar:
        bar(EPOCH)
    assert "loss 0.125" in sys.stderr.getvalue()  # type: ignore[attr-defined]
