"""Errors that a user can fix.

The command line prints a `PtychoError` as one message, without a traceback, and exits with code 2. Anything else that
escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable
from typing import ClassVar, Self


class PtychoError(Exception):
    """Base of every error whose cause lies in the input: a value that says where, and what would be right.

    source: the file, array or configuration class at fault. key: what in it. expected, received: in words; where
    nothing is expected, `received` is the whole fault. remedy: sentences that say what to do; state: settings that
    it asks for, `name` or `name=value`. setting: the setting at fault, where there is one. With `source` alone it is
    free text.

    Every attribute is text, tuples of text, or None: an error can be pickled and compared. `line` is the only place
    that makes a message of them.

    >>> error = DataError("scan.npz", "probe", expected="64 x 64 pixels", received="32 x 32", remedy="Give its probe.")
    >>> print(error)
    scan.npz: probe: expected 64 x 64 pixels; received 32 x 32. Give its probe.
    >>> error.key, error.received
    ('probe', '32 x 32')
    """

    verb: ClassVar[str | None] = None
    """Between the key and what is expected, where the message is to be a sentence about a setting."""

    def __init__(
        self,
        source: str | os.PathLike[str],
        key: str | None = None,
        *,
        expected: object = None,
        received: object = None,
        remedy: str | None = None,
        state: tuple[str, ...] = (),
        setting: str | None = None,
    ) -> None:
        self.source = os.fspath(source)
        self.key = key
        self.expected = None if expected is None else str(expected)
        self.received = None if received is None else str(received)
        self.remedy = remedy
        self.state = state
        self.setting = key if setting is None and self.verb is not None else setting
        self.places: tuple[str, ...] = ()
        super().__init__(self.source, *([] if key is None else [key]))

    def placed(self, place: str | os.PathLike[str]) -> Self:
        """The same error, put behind the flag, variable or file that it came from."""
        error = copy.copy(self)
        error.places = (os.fspath(place), *self.places)
        return error

    def renamed(self, old: str | os.PathLike[str], new: str | os.PathLike[str]) -> Self:
        """The same error, with the file `old` called `new`."""
        names = {os.fspath(old): os.fspath(new)}
        error = copy.copy(self)
        error.source = names.get(self.source, self.source)
        error.places = tuple(names.get(place, place) for place in self.places)
        return error

    def line(self, name_of: Callable[[str], str] = str) -> str:
        """The message: `scan.npz: diff3d: expected …; received …. Remedy.` or `ModelConfig: N must be …; got ….`

        name_of: how a setting that the remedy asks for is called; the command line calls it by its flag.
        """
        key = () if self.key is None else (self.key,)
        place = (*self.places, self.source)
        if self.verb is not None and self.key is not None:
            place = self.places or place  # a flag or a file says more than the class
        if self.verb is not None and self.key is not None and self.expected is not None:
            facts = {f"{self.key} {self.verb}": self.expected, "got": self.received}
        else:
            place += key
            facts = {"expected": self.expected, "received" if self.expected is not None else "": self.received}
        fault = "; ".join(f"{word} {fact}".strip() for word, fact in facts.items() if fact is not None)
        text = visible(": ".join([*place, fault] if fault else place))
        if self.remedy is None:
            return text
        asked = f": {', '.join(_asked(setting, name_of) for setting in self.state)}." if self.state else ""
        remedy = visible(self.remedy.removesuffix(".") + asked if asked else self.remedy)
        return f"{text}{'' if text.endswith(('.', '?')) else '.'} {remedy}"

    def __str__(self) -> str:
        return self.line()


LONGEST = 4000
"""Letters of a message's facts; what a file holds may be of any length."""


def printable(text: str) -> str:
    """The text with control characters shown as `\\x1b`, line ends and tabs apart."""
    kept = "\n\t\u00a0\u202f"
    return "".join(each if each.isprintable() or each in kept else repr(each)[1:-1] for each in text)


def visible(text: str) -> str:
    """The same, not longer than a page."""
    shown = printable(text)
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}…"


def ending(text: str, most: int) -> str:
    """The text, or an ellipsis and its end, such as the name of a file."""
    return text if len(text) <= most else f"…{text[1 - most :]}"


def _asked(setting: str, name_of: Callable[[str], str]) -> str:
    """`name` or `name=value` as the caller writes it: a flag and its value, or as it stands."""
    name, _, value = setting.partition("=")
    called = name_of(name)
    return setting if called == name else f"{called} {value}".rstrip()


class DataError(PtychoError, ValueError):
    """A scan, array or file does not fit its contract (specs/data.md)."""


class ConfigurationError(PtychoError, ValueError):
    """A setting is unknown, of the wrong type, out of range or contradicts another.

    source: the class that holds it, or what takes it. key: its name.
    """

    verb = "must be"


class NoEffectError(ConfigurationError):
    """A setting is set and would change nothing beside the others as they are."""

    verb = "has no effect unless"


class ArchiveError(PtychoError, ValueError):
    """A model archive is unreadable, damaged or not one of ours (specs/archive.md)."""


class BackendError(PtychoError, RuntimeError):
    """A backend is unknown or not installed, or has no such device or precision."""

    verb = "must be"


class MissingExtraError(PtychoError, RuntimeError):
    """An optional dependency is needed and not installed; the message names the extra that brings it."""

    @classmethod
    def of(cls, user: str, package: str, extra: str, *, setting: str | None = None, instead: str = "") -> Self:
        """user: what needs the package, as the subject of a sentence. setting: what asks for it."""
        remedy = f"Install it with: pip install 'ptycho-core[{extra}]'{instead}."
        return cls(f"{user} needs the package {package}, which is not installed", remedy=remedy, setting=setting)


class TrainingError(PtychoError, RuntimeError):
    """Training cannot go on: the loss is no longer finite, for example."""


class WorkerError(PtychoError, RuntimeError):
    """The child process that did the work died, or failed for another reason than its input."""


class ProcessError(PtychoError, RuntimeError):
    """Another process of the run has ended, or what has started the processes says half of where they are."""


class Cancelled(Exception):
    """Raised inside a run when its caller asked it to stop; not an error of the input."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory of the machine or of a device has run out, in the words of Python or of a framework."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    words = re.search(r"out of memory|not enough memory|can't allocate memory|bad_alloc", str(error))
    named = kinds & {"MemoryError", "OutOfMemoryError", "ResourceExhaustedError"}
    return bool(named) or (isinstance(error, RuntimeError) and words is not None)
