"""The page of a work in progress, in a process of its own: drawing and browsers take nothing of the work's time."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import multiprocessing
import signal
import sys
import threading
import time
from collections import deque
from multiprocessing.connection import Connection
from typing import Any

from ptycho_core.errors import MissingExtraError, PtychoError, WorkerError
from ptycho_core.events import Event
from ptycho_core.report.pages.board import Seen
from ptycho_core.report.pages.live import PORT, Service
from ptycho_core.report.still import Still

IMAGE_SECONDS, IMAGE_SHARE = 0.35, 4
"""Least time between two images, and times what it took to copy and to send the last one."""
START_SECONDS, END_SECONDS = 60.0, 6.0
SWITCH_SECONDS = 5e-4
"""Between the thread that draws and the one that answers browsers."""


class LivePage:
    """A listener with a page. `url`: its address, with a secret in it where other machines can reach it.

    Raises MissingExtraError without the extra `pages`, ConfigurationError where the port is not free, WorkerError where
    its process does not start.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = PORT) -> None:
        if importlib.util.find_spec("bokeh") is None:
            raise MissingExtraError.of("a page", "bokeh", "pages", setting="serve")
        context = multiprocessing.get_context("spawn")
        answers, answer = context.Pipe(duplex=False)
        orders, self._sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_serve, args=(host, port, orders, answer), daemon=True, name="page")
        self._process.start()
        answer.close()
        orders.close()
        outcome: Any = None
        with contextlib.suppress(EOFError):
            outcome = answers.recv() if answers.poll(START_SECONDS) else None
        if isinstance(outcome, PtychoError):
            raise outcome
        if outcome is None:
            remedy = "See its output. A script's top level has to be under `if __name__ == '__main__':`."
            raise WorkerError("page", expected="a page", received="the end of its process", remedy=remedy)
        self.url: str = outcome
        self._notes: deque[Seen] = deque(maxlen=10_000)
        self._image: tuple[Any, int] | None = None
        self._due, self._closed = 0.0, False
        self._ready = threading.Condition()
        self._thread = threading.Thread(target=self._send, daemon=True, name="to the page")
        self._thread.start()

    def __call__(self, event: Event) -> None:
        image = None
        if hasattr(event.payload, "known_field") and (time.monotonic() > self._due or event.done == event.total):
            started = time.monotonic()
            image = (Still.of(event.payload), event.done)
            ended = time.monotonic()
            self._due = ended + max(IMAGE_SECONDS, IMAGE_SHARE * (ended - started))
        with self._ready:
            self._notes.append(Seen.of(event))
            self._image = self._image if image is None else image
            self._ready.notify()

    def close(self) -> None:
        """End the page, once open browsers had a moment to fetch the last state."""
        with self._ready:
            self._closed = True
            self._ready.notify()
        self._thread.join(END_SECONDS)
        self._sender.close()
        self._process.join(END_SECONDS)
        if self._process.is_alive():
            self._process.terminate()

    def _send(self) -> None:
        with contextlib.suppress(OSError):  # its process is gone, and with it the page
            while True:
                with self._ready:
                    while not (self._notes or self._image or self._closed):
                        self._ready.wait()
                    notes, image = list(self._notes), self._image
                    self._notes.clear()
                    self._image = None
                if not notes and image is None:
                    return
                started = time.monotonic()
                self._sender.send((notes, image))
                took = time.monotonic() - started
                self._due = max(self._due, time.monotonic() + IMAGE_SHARE * took)


def _serve(host: str, port: int, orders: Connection, answer: Connection) -> None:
    """The process of a page: it lives until nobody writes to it any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, for the work to act on
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        service = Service(host, port)
    except PtychoError as error:
        answer.send(error)
        return
    gc.freeze()  # Bokeh collects garbage twice for each browser that leaves: not among all that is loaded here
    answer.send(service.url)
    with contextlib.suppress(EOFError, OSError):
        while True:
            notes, image = orders.recv()
            for note in notes:
                service.board(note)
            if image is not None:
                service.board.show(*image)
    service.close()
