"""A scan sent as if it were measured: for demonstrations, rehearsals and tests."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np

from ptycho_core.errors import DataError
from ptycho_core.live.messages import end_message, frames_message, positions_message, setup_message
from ptycho_core.live.setup import Setup
from ptycho_core.live.sources import load_zmq
from ptycho_core.scans.scan import Scan

WINDOW = 64  # specs/live.md, Messages: that wait for their answers
AGAIN_SECONDS, LONGEST_SECONDS = 5, 20  # specs/live.md, Messages: after which they are sent again
AT_ONCE, END_SECONDS = 16, 5.0


@attrs.frozen(kw_only=True)
class Faults:
    """What goes wrong on the way: parts of the frames, 0 to 1. late: come `late_s` after their time."""

    shuffle: bool = False
    duplicate: float = 0.0
    late: float = 0.0
    late_s: float = 10.0
    lose: float = 0.0
    seed: int = 0


class Sender:
    """Messages to a `StreamSource`; each is sent again until it is answered."""

    def __init__(self, address: str) -> None:
        zmq = load_zmq("a replay")
        self._zmq, self._address = zmq, address
        self._open: dict[int, list[bytes]] = {}
        self._number, self._heard, self._patience = 0, time.monotonic(), AGAIN_SECONDS
        self.refused: list[str] = []
        self._socket: Any = None
        self._connect()

    def _connect(self) -> None:
        zmq = self._zmq
        if self._socket is not None:
            self._socket.close()
        self._socket = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, WINDOW)
        try:
            self._socket.connect(self._address)
        except zmq.ZMQError as error:
            remedy = "Give the address of ptycho watch, as tcp://127.0.0.1:5555."
            raise DataError(self._address, expected="an address", received=error.strerror, remedy=remedy) from error

    def send(self, parts: list[bytes]) -> None:
        """Send, when fewer than `WINDOW` messages are unanswered."""
        while len(self._open) >= WINDOW:
            self.hear(0.05)
        self._number += 1
        header = {**json.loads(parts[0]), "id": self._number}
        message = [json.dumps(header).encode(), *parts[1:]]
        self._open[self._number] = message
        self._put(message)

    def _put(self, message: list[bytes]) -> None:
        while True:
            try:
                self._socket.send_multipart(message, self._zmq.NOBLOCK)
                return
            except self._zmq.Again:
                self.hear(0.05)

    def hear(self, seconds: float) -> None:
        """Take the answers that come within a time; after `AGAIN_SECONDS` of silence what is unanswered goes again."""
        if self._socket.poll(int(1000 * seconds)):
            while self._socket.poll(0):
                answer = json.loads(self._socket.recv_multipart()[-1])
                self._open.pop(answer.get("id"), None)
                self._heard, self._patience = time.monotonic(), AGAIN_SECONDS
                if "refused" in answer:
                    self.refused.append(str(answer["refused"]))
        elif self._open and time.monotonic() - self._heard > self._patience:
            self._heard, self._patience = time.monotonic(), min(2 * self._patience, LONGEST_SECONDS)
            self._connect()
            for message in list(self._open.values()):
                try:
                    self._socket.send_multipart(message, self._zmq.NOBLOCK)
                except self._zmq.Again:
                    break

    def settle(self, seconds: float | None = None) -> bool:
        """Wait until everything is answered; whether that was so in the time."""
        end = None if seconds is None else time.monotonic() + seconds
        while self._open:
            self.hear(0.1)
            if end is not None and time.monotonic() > end:
                return False
        return True

    def check(self) -> None:
        """Raises DataError where a message was refused."""
        if self.refused:
            remedy = "See what the other side says."
            raise DataError(self._address, expected="messages that are taken", received=self.refused[0], remedy=remedy)

    def close(self) -> None:
        self._socket.close()


def replay(
    scan: Scan,
    address: str,
    *,
    rate: float,
    faults: Faults | None = None,
    tell: Callable[[int, int], None] = lambda done, total: None,
    end: bool = True,
) -> int:
    """Send a scan at `rate` frames a second; how many frames were sent, each counted once. Raises DataError."""
    faults = faults or Faults()
    rng = np.random.default_rng(faults.seed)
    numbers = rng.permutation(len(scan)) if faults.shuffle else np.arange(len(scan))
    kinds = rng.random(len(scan))
    sent = numbers[kinds[numbers] >= faults.lose]
    late = (kinds[sent] >= faults.lose) & (kinds[sent] < faults.lose + faults.late)
    times = np.arange(len(sent)) / rate + np.where(late, faults.late_s, 0.0)
    again = sent[rng.random(len(sent)) < faults.duplicate]
    numbers = np.concatenate([sent, again])
    times = np.concatenate([times, rng.uniform(0, len(sent) / rate, len(again))])
    order = np.argsort(times, kind="stable")
    numbers, times = numbers[order], times[order]
    places = rng.permutation(len(scan)) if faults.shuffle else np.arange(len(scan))
    sender = Sender(address)
    try:
        sender.send(setup_message(Setup.of(scan, expected=len(sent)), session=secrets.token_hex(8)))
        sender.settle()  # where another scan was expected, this one is not sent
        sender.check()
        begun = time.monotonic()
        for start in range(0, len(numbers), AT_ONCE):
            part = numbers[start : start + AT_ONCE]
            while (left := begun + times[start] - time.monotonic()) > 0:
                sender.hear(min(left, 0.05))
            beside = places[start : start + AT_ONCE]
            if len(beside):
                sender.send(positions_message(beside, scan.positions_px[beside]))
            sender.send(frames_message(part, scan.diffraction_amplitude[part], "amplitude"))
            tell(start + len(part), len(numbers))
        for start in range(-(-len(numbers) // AT_ONCE) * AT_ONCE, len(scan), AT_ONCE):
            beside = places[start : start + AT_ONCE]
            sender.send(positions_message(beside, scan.positions_px[beside]))
        if end:
            sender.settle()
            sender.send(end_message())
        sender.settle(END_SECONDS)  # whoever has ended may not answer any more
        sender.check()
    finally:
        sender.close()
    return len(sent)
