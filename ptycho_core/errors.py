"""Errors that a user can mend.

The command line prints a `PtychoError` as one message, without a traceback, and exits with code 2. Anything else that
escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

import os


class PtychoError(Exception):
    """Base of every error whose cause lies in the input; the message says what, expected, received and remedy."""


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


def explain(source: str | os.PathLike[str], key: str | None, *, expected: object, received: object, remedy: str) -> str:
    """The one form of a message: `scan.npz: diff3d: expected …; received …. Remedy.`"""
    place = os.fspath(source) if key is None else f"{os.fspath(source)}: {key}"
    return f"{place}: expected {expected}; received {received}. {remedy}"
