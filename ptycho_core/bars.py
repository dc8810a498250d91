"""A bar of how a work gets on, on a terminal or in a notebook: a listener of events."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ptycho_core.errors import printable
from ptycho_core.events import Event, Listener

NOTES = ("started", "prepared", "warning")
"""Kinds of events whose message is printed."""
STEPS = ("epoch", "sweep")
"""Kinds of events that have a line of their own where there is no bar."""


class Bar:
    """A bar that fits the terminal: the time left stands beside it, and what the work has come to or else the rate."""

    NOTED = "{desc} {percentage:3.0f}%|{bar}| {remaining} left{postfix}"
    COUNTED = "{desc} {percentage:3.0f}%|{bar}| {remaining} left, {rate_noinv_fmt}"

    def __init__(self) -> None:
        self._bar: Any = None
        self._unit = ""

    def __call__(self, event: Event) -> None:
        if event.kind in NOTES and event.message:
            self._write(event.message)
        if event.kind not in ("batch", *STEPS) or not event.total:
            return
        if self._bar is None:
            start = {"total": event.total, "initial": event.done, "unit": f" {event.unit}s", "desc": event.work}
            self._bar, self._unit = _kind()(**start, dynamic_ncols=True, bar_format=self.COUNTED), event.unit
        note = event.message
        if event.kind in STEPS:
            note = ", ".join(part for part in (f"{event.unit} {event.done}/{event.total}", event.message) if part)
        if note:
            self._bar.bar_format = self.NOTED
            self._bar.set_postfix_str(note, refresh=False)
        done = event.done if event.unit == self._unit else round(self._bar.total * event.done / event.total)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _write(self, text: str) -> None:
        from tqdm import tqdm

        tqdm.write(printable(text), file=sys.stderr)


@contextmanager
def bar_where_asked(asked: bool | None, allowed: bool = True) -> Iterator[Listener]:
    """A bar, or nothing. asked: None is a bar where somebody sees it, on a terminal or in a notebook, if `allowed`."""
    if not (asked or (asked is None and allowed and (sys.stderr.isatty() or in_notebook()))):
        yield lambda event: None
        return
    bar = Bar()
    try:
        yield bar
    finally:
        bar.close()


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    module = sys.modules.get("IPython")
    shell = None if module is None else module.get_ipython()
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"


def _kind() -> Any:
    """The bar of tqdm that fits: of widgets where a notebook has them, else of text."""
    if in_notebook() and importlib.util.find_spec("ipywidgets") is not None:
        from tqdm.notebook import tqdm
    else:
        from tqdm import tqdm

    return tqdm
