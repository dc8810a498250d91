"""Where a command's words go: messages and progress to stderr, results to stdout."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

Update = Callable[[int, str], None]
"""`update(done, note)`: how far a bar is, and what to say beside it."""


class Output:
    """What a command says and how: `quiet` leaves nothing but errors and, with `as_json`, the result."""

    def __init__(self, quiet: bool = False, as_json: bool = False, progress_bar: bool = True) -> None:
        self.quiet, self.as_json, self.progress_bar = quiet, as_json, progress_bar

    def take_log(self) -> None:
        """From now on the core's log goes to stderr, in this form and nowhere else."""
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        logger = logging.getLogger("ptycho_core")
        level = logging.ERROR if self.quiet else logging.INFO
        logger.handlers, logger.level, logger.propagate = [handler], level, False

    def say(self, message: str) -> None:
        if not self.quiet:
            click.echo(message, err=True)

    def result(self, summary: dict[str, Any], text: str = "") -> None:
        """The summary as JSON if asked for; otherwise the text, unless quiet."""
        if self.as_json:
            click.echo(json.dumps(summary, indent=2))
        elif text and not self.quiet:
            click.echo(text)

    @contextmanager
    def bar(self, total: int | None, title: str, unit: str) -> Iterator[Update]:
        """A progress bar on a terminal, nothing elsewhere. total: None where it is not known."""
        if self.quiet or not self.progress_bar or not sys.stderr.isatty():
            yield lambda done, note: None
            return
        from tqdm import tqdm

        with tqdm(total=total, desc=title, unit=unit, dynamic_ncols=True, leave=True) as bar:

            def update(done: int, note: str) -> None:
                bar.set_postfix_str(note, refresh=False)
                bar.update(done - bar.n)

            yield update
