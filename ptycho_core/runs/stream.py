"""The course of a command as lines of JSON, for a program that runs it as its child (specs/events.md)."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from ptycho_core import __version__
from ptycho_core.errors import PtychoError
from ptycho_core.events import Event, ObjectSoFar, finite

VERSION = 1  # specs/events.md, Lines
BATCH_SECONDS = 0.2  # specs/events.md, Lines: between two lines of batches
PARTIAL_SECONDS, PARTIAL_SHARE = 1, 10  # specs/events.md, Partial objects: between two; times what one takes
PARTIAL_NAME = "partial.npz"
STOP = "stop"
ENDS = ("finished", "cancelled", "failed")


class EventStream:
    """A listener that writes every event as a line. The last line is the end of the command: its result, or its error.

    command: what `work` is before a work says its own. `result`: the summary that the command has come to.
    """

    def __init__(self, command: str, out: IO[str]) -> None:
        self.command, self._out = command, out
        self.result: Mapping[str, Any] | None = None
        self.log = _Warnings(self)
        self._lock, self._number, self._ended = threading.RLock(), 0, False
        self._held: list[str] | None = None
        self._folder: Path | None = None
        self._due = {"batch": 0.0, "partial": 0.0}
        self._warned: list[str] = []
        self._writing: threading.Thread | None = None
        self._fault: PtychoError | None = None

    def __call__(self, event: Event) -> None:
        if event.kind in ENDS:  # of a work; the command may go on to another one
            return
        if event.kind == "batch":
            if time.monotonic() < self._due["batch"]:
                return
            self._due["batch"] = time.monotonic() + BATCH_SECONDS
        if event.kind == "warning" and any(said.endswith(event.message) for said in self._warned):
            return
        more = {"path": os.fspath(event.payload)} if isinstance(event.payload, os.PathLike) else {}
        self.write(**event.as_dict(), **more)
        if self._folder is not None and hasattr(event.payload, "known_field") and event.done != event.total:
            self._draw(event, event.payload, self._folder)

    def warn(self, message: str) -> None:
        self._warned.append(message)
        self.write(kind="warning", work=self.command, message=message)

    def write(self, **fields: Any) -> None:
        """One line. Where nobody reads it any more, the run ends as on Ctrl-C."""
        with self._lock:
            if self._ended:
                return
            line = {"v": VERSION, "number": self._number, "time": round(time.time(), 3), **fields}
            self._number += 1
            text = json.dumps(finite(line), ensure_ascii=True) + "\n"
            if self._held is None:
                self._put(text)
            else:
                self._held.append(text)

    def _put(self, text: str) -> None:
        try:
            self._out.write(text)
            self._out.flush()
        except BrokenPipeError:
            self._ended = True
            with contextlib.suppress(OSError, ValueError):  # or the interpreter's last flush fails
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())
            if threading.current_thread() is threading.main_thread():
                raise KeyboardInterrupt("nobody reads the events any more") from None

    def begin(self) -> None:
        """Write what `telling` has held back until it is known which of several processes tells it."""
        with self._lock:
            held, self._held = self._held, None
            if held:
                self._put("".join(held))

    def silence(self) -> None:
        """Write nothing: another process of the run does."""
        self._ended = True

    @contextlib.contextmanager
    def telling(self, name_of: Callable[[str], str]) -> Iterator[None]:
        """The course of a command: its first line, what is written in the block, and its end.

        The first line waits for `begin`. Whatever else is printed goes to stderr. A line `stop` on stdin ends the
        command as SIGTERM does. name_of: how a setting is called in the message of an error.
        """
        self._held = []
        self.write(kind="started", work=self.command, program="ptycho-core", version=__version__, pid=os.getpid())
        threading.Thread(target=self._listen, daemon=True, name="stdin").start()
        with contextlib.redirect_stdout(sys.stderr):
            try:
                yield
            except KeyboardInterrupt as stop:
                self._end("cancelled", message=str(stop), result=self.result)
                raise
            except Exception as error:
                self.fail(error, name_of)
                raise
            else:
                self._end("finished", message="", result=self.result)

    def fail(self, error: Exception, name_of: Callable[[str], str]) -> None:
        """The last line, of a command that an error has ended."""
        facts: dict[str, Any] = {"type": type(error).__name__}
        message = str(error)
        if isinstance(error, PtychoError):
            message = error.line(name_of)
            names = ("source", "key", "expected", "received", "remedy", "setting")
            facts |= {name: getattr(error, name) for name in names}
        self._end("failed", message=message, error=facts, result=self.result)

    @contextlib.contextmanager
    def working_in(self, folder: Path | None) -> Iterator[None]:
        """Partial objects of the block go to the folder, and are gone when it ends."""
        before, self._folder = self._folder, folder
        try:
            yield
        finally:
            self._folder = before
            if self._writing is not None:
                self._writing.join()
            if folder is not None:
                (folder / PARTIAL_NAME).unlink(missing_ok=True)

    def _end(self, kind: str, **more: Any) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            if not self._ended:
                self.begin()
            self.write(kind=kind, work=self.command, **more)
        self._ended = True

    def _draw(self, event: Event, so_far: ObjectSoFar, folder: Path) -> None:
        """The object so far as a file, where the last one is long enough ago; written beside the work."""
        if self._fault is not None:
            raise self._fault
        started = time.monotonic()
        if started < self._due["partial"] or (self._writing is not None and self._writing.is_alive()):
            return
        from ptycho_core.report.still import Still  # with numpy, which the help does without

        taken = Still.of(so_far)
        self._due["partial"] = time.monotonic() + PARTIAL_SHARE * (time.monotonic() - started)
        fields = {**event.as_dict(), "kind": "partial", "path": str(folder / PARTIAL_NAME)}
        self._writing = threading.Thread(target=self._keep, args=(taken, folder, fields), daemon=True)
        self._writing.start()

    def _keep(self, taken: ObjectSoFar, folder: Path, fields: Mapping[str, Any]) -> None:
        import numpy as np

        from ptycho_core.storage.npz import write_npz

        started = time.monotonic()
        try:
            field, known = taken.known_field()
            arrays = {"object": field, "known": known, "origin_px": np.array(taken.origin_px)}
            write_npz(folder / PARTIAL_NAME, arrays)
        except PtychoError as error:  # a full disk
            self._fault = error
            return
        ended = time.monotonic()
        spent = max(PARTIAL_SECONDS, PARTIAL_SHARE * (ended - started))
        self._due["partial"] = max(self._due["partial"], ended + spent)
        self.write(**fields)

    def _listen(self) -> None:
        """Lines on stdin, but those of a terminal: reading them in the background would halt the process."""
        try:
            source = sys.stdin.fileno()
            if os.isatty(source):
                return
        except (AttributeError, OSError, ValueError):  # there is none
            return
        kept = b""
        while not self._ended:
            try:
                part = os.read(source, 4096)  # a stream would be locked while it waits, also when the process ends
            except OSError:
                return
            if not part:
                return
            *lines, kept = (kept + part)[-(2**16) :].split(b"\n")
            for line in lines:
                self._take(line.decode(errors="backslashreplace").strip())

    def _take(self, line: str) -> None:
        if line == STOP and not self._ended:
            main, kill = threading.main_thread().ident, getattr(signal, "pthread_kill", None)
            if kill is not None and main is not None:
                kill(main, signal.SIGTERM)
            else:
                signal.raise_signal(signal.SIGTERM)
        elif line:
            self.warn(f"stdin: expected {STOP!r}; received {line[:40]!r}")


class _Warnings(logging.Handler):
    """What is logged as a warning is one of the stream."""

    def __init__(self, stream: EventStream) -> None:
        super().__init__(logging.WARNING)
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        self._stream.warn(record.getMessage())
