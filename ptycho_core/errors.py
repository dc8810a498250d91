"""Errors that a user can fix.

The command line prints a `PtychoError` as one message, without a traceback, and exits with code 2. Anything else that
escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

import copy
import os
from typing import Self


class PtychoError(Exception):
    """Base of every error whose cause lies in the input: a value that says where, and what would be right.

    source: the file, object or configuration at fault. key: what in it. expected, received: in words. remedy: a
    sentence that says what to do. With `source` alone it is free text. Every attribute is text or None, so that an
    error can be pickled and compared; `str(error)` is the only place that makes a line of them.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        key: str | None = None,
        *,
        expected: object = None,
        received: object = None,
        remedy: str | None = None,
    ) -> None:
        self.source = os.fspath(source)
        self.key = key
        self.expected = None if expected is None else str(expected)
        self.received = None if received is None else str(received)
        self.remedy = remedy
        self.places: tuple[str, ...] = ()
        super().__init__(self.source, *([] if key is None else [key]))

    def placed(self, place: str | os.PathLike[str]) -> Self:
        """The same error, put behind the flag, variable or file that it came from."""
        error = copy.copy(self)
        error.places = (os.fspath(place), *self.places)
        return error

    def __str__(self) -> str:
        """`scan.npz: diff3d: expected …; received …. Remedy.`"""
        place = ": ".join([*self.places, self.source, *([] if self.key is None else [self.key])])
        fault = [f"{word} {text}" for word, text in self._facts() if text is not None]
        line = ": ".join([place, *(["; ".join(fault)] if fault else [])])
        return line if self.remedy is None else f"{line}. {self.remedy}"

    def _facts(self) -> list[tuple[str, str | None]]:
        return [("expected", self.expected), ("received", self.received)]


class DataError(PtychoError, ValueError):
    """A scan, array or file does not fit its contract (specs/data.md)."""


class ConfigurationError(PtychoError, ValueError):
    """A configuration field is unknown, of the wrong type, out of range or contradicts another."""


class ArchiveError(PtychoError, ValueError):
    """A model archive is unreadable, damaged or not one of ours (specs/archive.md)."""


class BackendError(PtychoError, RuntimeError):
    """A backend is unknown, or its framework is not installed."""


class MissingExtraError(PtychoError, RuntimeError):
    """An optional dependency is needed and not installed; the message names the extra that brings it."""


class TrainingError(PtychoError, RuntimeError):
    """Training cannot go on: the loss is no longer finite, for example."""


class WorkerError(PtychoError, RuntimeError):
    """The child process that did the work died, or failed for another reason than its input."""


class Cancelled(Exception):
    """Raised inside a run when its caller asked it to stop; not an error of the input."""
