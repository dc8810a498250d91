"""Work in a child process, made for it and ended with it (specs/embedding.md, Processes).

The child is spawned: nothing of the parent's frameworks, threads or devices reaches it, and what it holds of a device
is free again when it ends. One pipe leads from it to the parent. Messages are tuples: ("progress", what the job
yields), ("log", level, logger, text), ("error", the error, traceback) and, last, ("done",).
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Protocol, TypeVar

from ptycho_core import errors
from ptycho_core.errors import Cancelled, PtychoError, WorkerError

log = logging.getLogger(__name__)

T = TypeVar("T", covariant=True)

END_SECONDS = 0.5
"""How long a child that was told to end may take before it is made to."""


class Job(Protocol[T]):
    """What can be sent to a child: it is pickled, and so is whatever it yields."""

    def run(self, should_stop: Callable[[], bool]) -> Generator[T]:
        """Do the work. should_stop: whether nobody waits for it any more; then `Cancelled` may be raised."""
        ...


def in_child(job: Job[T], *, idle_seconds: float | None = None) -> Generator[T | None]:
    """What the job yields, from a freshly spawned process that lives until the generator ends or is closed.

    idle_seconds: yield None whenever nothing has come for so long. Closing ends the child at once. Raises what the
    job raised where it is one of `ptycho_core.errors`, with its fields, and else WorkerError, also where the
    child dies.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    level = logging.getLogger("ptycho_core").getEffectiveLevel()
    process = context.Process(target=_work, args=(job, sender, level), name="ptycho-core", daemon=True)
    with receiver:
        try:
            with sender:  # from then on the child alone holds it, and its end is an end of file here
                process.start()
        except BrokenPipeError as error:
            raise _died("its end while it was started") from error
        try:
            yield from _messages(process, receiver, idle_seconds)
            process.join(END_SECONDS)
        finally:
            _end(process)


def in_process(job: Job[T], should_stop: Callable[[], bool] = lambda: False) -> Generator[T]:
    """The same without a child: for debugging, and for a process that is one already. should_stop: ends it."""
    with contextlib.closing(job.run(should_stop)) as steps, contextlib.suppress(Cancelled):
        yield from steps


def _messages(process: SpawnProcess, receiver: Connection, idle_seconds: float | None) -> Iterator[Any]:
    while True:
        ready = wait([receiver, process.sentinel], idle_seconds)
        if not ready:
            yield None
            continue
        try:  # what a child has sent before its end is still there
            kind, *content = receiver.recv() if receiver.poll() else ("end",)
        except (EOFError, OSError):
            kind = "end"
        if kind == "progress":
            yield content[0]
        elif kind == "log":
            level, name, text = content
            logging.getLogger(name).log(level, "%s", text)
        elif kind == "error":
            raise _noted(*content)
        elif kind == "done":
            return
        else:
            process.join(END_SECONDS)
            raise _died(_ending(process.exitcode))


def _noted(error: PtychoError, trace: str) -> PtychoError:
    error.add_note(f"In the child process:\n{trace}")
    return error


def _ending(exitcode: int | None) -> str:
    names = {-number: f"its end by {number.name}" for number in signal.Signals}
    return names.get(exitcode or 0, f"its end with exit code {exitcode}")


def _died(received: str) -> WorkerError:
    remedy = (
        "See its output. A process that the system killed may have wanted too much memory: try smaller batches. "
        "A script's top level has to be under `if __name__ == '__main__':`."
    )
    return WorkerError("child process", expected="a result", received=received, remedy=remedy)


def _end(process: SpawnProcess) -> None:
    """No graceful end is needed: files are written whole or not at all, and a device is freed with its process."""
    for end in (process.terminate, process.kill):
        if process.is_alive():
            end()
            process.join(END_SECONDS)


# -- in the child --------------------------------------------------------------------------------------------------


class _Log(logging.Handler):
    """Sends what is logged to the parent."""

    def __init__(self, send: Callable[..., None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        self._send("log", record.levelno, record.name, self.format(record))


def _sendable(error: Exception) -> PtychoError:
    """The error itself where its class is one of ours, which the parent has too; else what it was, in words."""
    if isinstance(error, PtychoError) and type(error).__module__ == errors.__name__:
        return error
    received, remedy = f"{type(error).__name__}: {error}", "Its traceback is below; please report it."
    return WorkerError("child process", expected="a result", received=received, remedy=remedy)


def _work(job: Job[Any], sender: Connection, level: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, for the parent to act on
    parent, lock = multiprocessing.parent_process(), threading.Lock()
    assert parent is not None

    def send(*message: Any) -> None:
        with lock:  # of several threads that log
            sender.send(message)

    logger = logging.getLogger()
    logger.handlers = [_Log(send)]
    logger.setLevel(level)
    try:
        try:
            for progress in job.run(lambda: not parent.is_alive()):
                send("progress", progress)
        except Cancelled:
            return
        except Exception as error:  # noqa: BLE001 - it is raised again where the job is waited for
            send("error", _sendable(error), traceback.format_exc())
        else:
            send("done")
    except BrokenPipeError:
        return  # nobody waits any more
