"""Where a command's words go: messages and progress to stderr, results to stdout."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ptycho_core.bars import NOTES, STEPS, Bar
from ptycho_core.errors import printable
from ptycho_core.events import Event, Listener
from ptycho_core.runs.stream import EventStream

if TYPE_CHECKING:  # with numpy
    from ptycho_core.report.record import Origin


class _Printable(logging.Formatter):
    """Names of files and of what they hold come from anywhere: no command to the terminal is among them."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class Output:
    """What a command says and how: `quiet` leaves nothing but errors and, with `as_json`, the result.

    stream: takes progress and result in place of the terminal. origin: where the run is from, for its record;
    watchers: hear everything, too. `warnings`: what has been warned of so far.
    """

    def __init__(
        self,
        quiet: bool = False,
        as_json: bool = False,
        progress_bar: bool = True,
        stream: EventStream | None = None,
    ) -> None:
        self.quiet, self.as_json, self.progress_bar, self.stream = quiet, as_json, progress_bar, stream
        self.origin: Origin | None = None
        self.watchers: list[Listener] = []
        self.warnings: list[str] = []

    def take_log(self) -> None:
        """From now on the core's log goes to stderr, in this form and nowhere else."""
        handler = logging.StreamHandler()
        handler.setFormatter(_Printable("%(levelname)s: %(message)s"))
        handler.setLevel(logging.ERROR if self.quiet else logging.INFO)
        logger = logging.getLogger("ptycho_core")
        logger.handlers, logger.propagate = [handler, _Kept(self.warn)], False
        if self.stream is not None:
            logger.addHandler(self.stream.log)
        least = min(each.level for each in logger.handlers)
        logger.setLevel(least)  # which also forgets what it let through before

    def warn(self, message: str) -> None:
        """Keep a warning for the record of the run."""
        if not any(said.endswith(message) for said in self.warnings):
            self.warnings.append(message)

    def say(self, message: str) -> None:
        if not self.quiet:
            click.echo(printable(message), err=True)

    def result(self, summary: dict[str, Any], text: str = "") -> None:
        """The summary as JSON if asked for; otherwise the text, unless quiet."""
        if self.stream is not None:
            self.stream.result = summary
        elif self.as_json:
            click.echo(json.dumps(summary, indent=2))
        elif text and not self.quiet:
            click.echo(printable(text))

    @contextmanager
    def listening(self, folder: Path | None = None) -> Iterator[Listener]:
        """A listener that shows how a work gets on: a bar on a terminal, elsewhere a line for every epoch or sweep.

        folder: to which the work writes.
        """
        with self._shown(folder) as shown:

            def tell(event: Event) -> None:
                if event.kind == "warning":
                    if event.work == "draw" and event.message in self.warnings:
                        return  # what cannot be drawn here is said once, however many runs a command makes
                    self.warn(event.message)
                shown(event)
                for watcher in self.watchers:
                    watcher(event)

            yield tell

    @contextmanager
    def _shown(self, folder: Path | None) -> Iterator[Listener]:
        if self.stream is not None:
            with self.stream.working_in(folder):
                yield self.stream
        elif self.quiet:
            yield lambda event: None
        elif self.progress_bar and sys.stderr.isatty():
            bar = Bar()
            try:
                yield bar
            finally:
                bar.close()
        else:
            yield _Lines()


class _Kept(logging.Handler):
    """Tells of every warning that is logged."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._warn = warn

    def emit(self, record: logging.LogRecord) -> None:
        self._warn(record.getMessage())


class _Lines:
    """Prints the events that are no more than a few."""

    def __init__(self) -> None:
        self._begun, self._started = 0, time.perf_counter()

    def __call__(self, event: Event) -> None:
        if event.kind == "prepared":
            self._begun, self._started = event.done, time.perf_counter()
        if event.kind in NOTES and event.message:
            click.echo(printable(event.message), err=True)
        if event.kind in STEPS and event.total is not None:
            each = (time.perf_counter() - self._started) / max(1, event.done - self._begun)
            click.echo(f"{event.line}, {each * (event.total - event.done):.0f} s left", err=True)
