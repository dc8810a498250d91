"""The command line: in this process, where a framework is imported once, or in one of its own, as a user runs it."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import attrs
import pytest


@attrs.frozen
class Outcome:
    code: int
    out: str
    err: str


def run_here(*arguments: object) -> Outcome:
    """`ptycho …` through `main` in this process."""
    from ptycho_core.cli import main

    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        pytest.MonkeyPatch.context() as patch,
        _own_log(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["ptycho", *map(str, arguments)])
        patch.setenv("TF_CPP_MIN_LOG_LEVEL", os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3"))
        handler = signal.getsignal(signal.SIGINT)
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, handler)  # which a command that was interrupted ignores to its end
    return Outcome(code, out.getvalue(), err.getvalue())


def ptycho(*arguments: object) -> Outcome:
    """`ptycho …` in this process; it has to succeed."""
    done = run_here(*arguments)
    assert done.code == 0, f"exit code {done.code} of {arguments}:\n{done.err}"
    return done


@contextlib.contextmanager
def _own_log() -> Iterator[None]:
    """A command takes the core's log for itself; what the tests see of it comes back."""
    logger = logging.getLogger("ptycho_core")
    before = logger.handlers, logger.level, logger.propagate
    try:
        yield
    finally:
        logger.handlers, logger.level, logger.propagate = before


def run_apart(*arguments: object) -> Outcome:
    """`ptycho …` as the installed command, in a process of its own."""
    command = [sys.executable, "-m", "ptycho_core", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    return Outcome(done.returncode, done.stdout, done.stderr)
