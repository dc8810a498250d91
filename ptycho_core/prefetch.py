"""Gathers batches ahead of their use, in one thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")


class _End:
    """Closes the queue; carries the exception that ended the producer, if one did."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def prefetch(items: Iterable[T], ahead: int = 2) -> Generator[T]:
    """The same items in the same order, up to `ahead` of them made before they are asked for.

    An exception of the producer is raised here, at the place of the item that failed. Closing the iterator stops the
    thread.
    """
    ready: queue.Queue[T | _End] = queue.Queue(maxsize=ahead)
    stop = threading.Event()

    def put(item: T | _End) -> None:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def produce() -> None:
        try:
            for item in items:
                put(item)
                if stop.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - handed to the consumer, which raises it
            put(_End(error))
        else:
            put(_End())

    thread = threading.Thread(target=produce, name="ptycho-prefetch", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stop.set()
        thread.join()
