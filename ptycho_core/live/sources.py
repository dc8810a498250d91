"""Where frames come from: a file or a folder that grows, a stream (specs/live.md, Sources)."""

from __future__ import annotations

import json
import logging
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError, MissingExtraError, PtychoError, visible
from ptycho_core.io import load_scan
from ptycho_core.io.tables import read_table
from ptycho_core.live.messages import MESSAGE_BYTES, Arrived, Ended, Idle, Item, Trouble, decoded, header_of
from ptycho_core.live.setup import Setup
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.storage.tiff import TiffFrames

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
CHUNK = 512  # specs/live.md, Sources: frames that are read of a file at a time
LOOKED_BACK = 1024  # specs/live.md, Sources: frames before the last that may still get a position
WAITING_MESSAGES = 64
STREAM = "tcp://"
NUMBER = re.compile(r"(\d+)$")
PICTURES = (".npy", ".tif", ".tiff")


class Known:
    """Numbers of frames that have come from a file or a folder, a byte for each up to the highest."""

    def __init__(self) -> None:
        self._known = np.zeros(0, bool)
        self.highest = -1

    def __bool__(self) -> bool:
        return self.highest >= 0

    def __contains__(self, number: int) -> bool:
        return 0 <= number <= self.highest and bool(self._known[number])

    def among(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(k,): which of them have."""
        found = np.zeros(len(numbers), bool)
        inside = numbers <= self.highest
        found[inside] = self._known[numbers[inside]]
        return found

    def add(self, numbers: NDArray[np.int64]) -> None:
        self.highest = max(self.highest, int(numbers.max()))
        if self.highest >= len(self._known):
            more = max(self.highest + 1, len(self._known) * 3 // 2) - len(self._known)
            self._known = np.concatenate([self._known, np.zeros(more, bool)])
        self._known[numbers] = True


class Source(Protocol):
    """Brings what a live reconstruction takes, in the order in which it comes.

    origin: whose the item is that `items` has brought last; None where all is of one.
    """

    origin: bytes | None

    def items(self, should_stop: Callable[[], bool]) -> Iterator[Item]:
        """Waits for what comes; at least twice a second an item, `Idle` where nothing came.

        Where this is a generator, what goes wrong with an item is thrown into it, for its sender to be told.
        """
        ...


def source_of(place: str, reading: ReadOptions, patience: float, first: int = 0) -> Source:
    """The source of that name: `tcp://HOST:PORT`, a folder or a file. Raises DataError, MissingExtraError."""
    if place.startswith(STREAM):
        return StreamSource(place)
    path = Path(place)
    if path.is_dir():
        masters = sorted(path.glob("*_master.h5"))
        if len(masters) > 1:
            remedy = "Name the file itself."
            received = ", ".join(visible(master.name) for master in masters)
            raise DataError(path, expected="one master file", received=received, remedy=remedy)
        return FileSource(masters[0], reading, patience) if masters else FolderSource(path, reading, patience, first)
    if "://" in place:
        remedy = "Give tcp://HOST:PORT, a file or a folder."
        raise DataError(place, expected="a stream, a file or a folder", received="another address", remedy=remedy)
    return FileSource(path, reading, patience)


@attrs.define(eq=False)
class FileSource:
    """A file that is being written, of any format that is read, in SWMR mode or not: it is looked at again and again.

    A pattern without a position, or without a count, has not been written yet. Where nothing new has come for
    `patience` seconds, the file has ended. Raises DataError where it cannot be read for so long.
    """

    path: Path
    reading: ReadOptions
    patience: float
    origin: bytes | None = attrs.field(default=None, init=False)
    _known: Known = attrs.field(factory=Known, init=False)

    def items(self, should_stop: Callable[[], bool]) -> Iterator[Item]:
        told = trouble = None
        came = time.monotonic()
        while not should_stop():
            try:
                scan, more = self._next()
                trouble = None
            except PtychoError as error:
                scan, more, trouble = None, False, error
                if str(error) != told:
                    told = str(error)
                    log.info("not yet: %s", error)
            if scan is not None:
                if not self._known:
                    yield Setup.of(scan)
                if (arrived := self._new(scan)) is not None:
                    came = time.monotonic()
                    yield arrived
            if more:
                continue
            quiet = time.monotonic() - came
            if quiet > self.patience:
                if trouble is not None and not self._known:
                    raise trouble
                yield Ended(f"{self.path}: nothing new for {self.patience:g} s")
                return
            yield Idle(quiet)
            time.sleep(POLL_SECONDS)

    def _next(self) -> tuple[Scan | None, bool]:
        """The next patterns that may be new, and whether others follow them."""
        low = self._first_unknown()
        left_out = {"unplaced", "unwritten", *(self.reading.drop_frames or "").split(",")} - {""}
        options = attrs.evolve(self.reading, frames=f"{low}:{low + CHUNK}", drop_frames=",".join(sorted(left_out)))
        talkers = [logging.getLogger(f"ptycho_core.{room}") for room in ("io", "formats")]
        levels = [talker.level for talker in talkers]
        for talker in talkers:  # the same each time
            talker.setLevel(logging.WARNING)
        try:
            scan = load_scan(self.path, options)
        except DataError as error:
            if error.key == "frames" and self._known:
                return None, False
            raise
        finally:
            for talker, level in zip(talkers, levels, strict=True):
                talker.setLevel(level)
        highest = int(_numbers_of(scan).max())
        return scan, highest == low + CHUNK - 1 and not self._known.among(np.arange(low, low + CHUNK)).all()

    def _first_unknown(self) -> int:
        begun = np.arange(max(0, self._known.highest - LOOKED_BACK), self._known.highest)
        gaps = begun[~self._known.among(begun)]
        return int(gaps[0]) if len(gaps) else self._known.highest + 1

    def _new(self, scan: Scan) -> Arrived | None:
        numbers = _numbers_of(scan)
        amplitude = np.asarray(scan.diffraction_amplitude)
        chosen = amplitude.any(axis=(1, 2)) & ~self._known.among(numbers)
        if not chosen.any():
            return None
        self._known.add(numbers[chosen])
        return Arrived(numbers=numbers[chosen], amplitude=amplitude[chosen], positions_px=scan.positions_px[chosen])


def _numbers_of(scan: Scan) -> NDArray[np.int64]:
    """In the file."""
    if scan.noticed is not None:
        return np.asarray(scan.noticed.frames, np.int64)
    return np.asarray(scan.scan_index, np.int64)


@attrs.define(eq=False)
class FolderSource:
    """A folder to which one file a frame is written: NPY or TIFF, its number at the end of its name.

    Frame `first` has the first position; positions are those of a table or a file, which may grow as well. A file is
    taken when its size has stayed the same from one look to the next.
    """

    folder: Path
    reading: ReadOptions
    patience: float
    first: int = 0
    origin: bytes | None = attrs.field(default=None, init=False)
    _known: Known = attrs.field(factory=Known, init=False)
    _sizes: dict[Path, int] = attrs.field(factory=dict, init=False)

    def items(self, should_stop: Callable[[], bool]) -> Iterator[Item]:
        if self.reading.positions is None or not Path(self.reading.positions.partition(":")[0]).is_file():
            remedy = "Name a file of positions, a row a frame"
            raise DataError(
                self.folder,
                "positions",
                expected="a table of positions",
                received=self.reading.positions or "none",
                remedy=remedy,
                state=("positions",),
            )
        came, told, begun = time.monotonic(), "", False
        while not should_stop():
            try:
                scan = self._next()
            except PtychoError as error:
                scan = None
                if str(error) != told:
                    told = str(error)
                    yield Trouble(told)
            if scan is not None:
                if not begun:
                    yield Setup.of(scan)
                    begun = True
                came = time.monotonic()
                amplitude = np.asarray(scan.diffraction_amplitude)
                numbers = np.asarray(scan.scan_index, np.int64)
                yield Arrived(numbers=numbers, amplitude=amplitude, positions_px=scan.positions_px)
                continue
            quiet = time.monotonic() - came
            if quiet > self.patience:
                yield Ended(f"{self.folder}: nothing new for {self.patience:g} s")
                return
            yield Idle(quiet)
            time.sleep(POLL_SECONDS)

    def _next(self) -> Scan | None:
        """The new files as a scan, its `scan_index` their numbers; None where there are none."""
        ready: dict[int, Path] = {}
        for path in sorted(self.folder.iterdir()):
            found = NUMBER.search(path.stem)
            if path.suffix.lower() not in PICTURES or found is None:
                continue
            number, size = int(found[1]) - self.first, path.stat().st_size
            if number < 0 or number in self._known:
                continue
            if self._sizes.get(path) == size and size:
                ready[number] = path
            self._sizes[path] = size
            if len(ready) == CHUNK:
                break
        if not ready:
            return None
        assert self.reading.positions is not None
        name, colon, columns = self.reading.positions.partition(":")
        rows, headings = _rows(Path(name))
        numbers = np.array([number for number in sorted(ready) if number < len(rows)], np.int64)
        if not len(numbers):
            return None
        with tempfile.TemporaryDirectory(prefix="ptycho-watch-") as place:
            stack, places = Path(place) / "frames.npy", Path(place) / f"positions{Path(name).suffix}"
            np.save(stack, np.stack([_image(ready[number]) for number in numbers.tolist()]))
            if places.suffix == ".npy":
                np.save(places, rows[numbers])
            else:
                np.savetxt(places, rows[numbers], delimiter=",", header=",".join(headings), fmt="%.17g")
            options = attrs.evolve(self.reading, positions=f"{places}{colon}{columns}", frames=None)
            try:
                scan = load_scan(stack, options)
            except PtychoError as error:
                named = error.renamed(stack, self.folder).renamed(places, name)
                named.key = name if named.key == str(places) else named.key
                raise named from error
            scan = attrs.evolve(
                scan,
                diffraction_amplitude=np.asarray(scan.diffraction_amplitude),
                scan_index=numbers[_numbers_of(scan)],
                noticed=None,
                source=str(self.folder),
            )
        self._known.add(numbers)
        for number in numbers.tolist():
            del self._sizes[ready[number]]
        return scan


def _image(path: Path) -> NDArray[Any]:
    try:
        if path.suffix.lower() == ".npy":
            return np.asarray(np.load(path, allow_pickle=False))
        return np.asarray(TiffFrames([path]).read(np.zeros(1, np.int64))[0])
    except (OSError, ValueError, EOFError) as error:
        remedy = "Remove it, or write it whole."
        raise DataError(path, expected="an image", received=type(error).__name__, remedy=remedy) from error


def _rows(path: Path) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """The rows of a table as they are now, and its headings; of an NPY file, none."""
    if path.suffix.lower() != ".npy":
        table = read_table(path, "positions")
        return table.values, table.headings
    try:
        return np.asarray(np.load(path, allow_pickle=False), np.float64), ()
    except (OSError, ValueError, EOFError) as error:
        remedy = "Name a table or an NPY file."
        raise DataError(path, expected="positions", received=type(error).__name__, remedy=remedy) from error


@attrs.define(eq=False)
class StreamSource:
    """A ZeroMQ socket (ROUTER) to which messages are sent. Each is answered when it has been taken, or refused."""

    address: str
    setup: Setup | None = None
    origin: bytes | None = attrs.field(default=None, init=False)
    _zmq: Any = attrs.field(default=None, init=False)
    _session: Any = attrs.field(default=None, init=False)
    _socket: Any = attrs.field(default=None, init=False)
    _monitor: Any = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        zmq = self._zmq = load_zmq("a stream")
        self._socket = zmq.Context.instance().socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 1000)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES)  # who sends more is cut off
        self._socket.setsockopt(zmq.RCVHWM, WAITING_MESSAGES)
        strange = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        self._monitor = self._socket.get_monitor_socket(strange | zmq.EVENT_DISCONNECTED)
        try:
            self._socket.bind(self.address)
        except zmq.ZMQError as error:
            self._socket.close()
            remedy = "Give another port, as tcp://127.0.0.1:5555, or end the program that has it."
            raise DataError(self.address, expected="a free address", received=error.strerror, remedy=remedy) from error

    @property
    def bound(self) -> str:
        """The address with the port that was taken, where it was given as *."""
        return str(self._socket.getsockopt_string(self._zmq.LAST_ENDPOINT))

    def items(self, should_stop: Callable[[], bool]) -> Iterator[Item]:
        came = time.monotonic()
        try:
            while not should_stop():
                yield from self._gone()
                if not self._socket.poll(int(1000 * POLL_SECONDS)):
                    yield Idle(time.monotonic() - came)
                    continue
                sender, *parts = self._socket.recv_multipart()
                came = time.monotonic()
                number = None
                try:
                    header = header_of(parts)
                    number = header.get("id")
                    item = decoded(header, parts[1:], self.setup)
                except PtychoError as error:
                    yield Trouble(visible(str(error)))
                    self._answer(sender, {"refused": str(error)}, number)
                    continue
                session = header.get("session")
                again = isinstance(item, Setup) and session is not None and session == self._session
                if isinstance(item, Setup):
                    self.setup, self._session = self.setup or item, session
                answer: dict[str, Any] | None = {"taken": True}
                try:
                    self.origin = sender
                    if not again:  # the same message, which was not answered in time
                        yield item
                except Exception as error:  # of the one who takes it: frames that are not kept will be sent again
                    answer = {"refused": str(error)} if isinstance(item, Setup) else None
                    raise
                finally:  # also where nobody asks for more after the end
                    if answer is not None:
                        self._answer(sender, answer, number)
        finally:
            self._socket.disable_monitor()
            self._socket.close()

    def _gone(self) -> Iterator[Trouble]:
        """What became of those who were connected, where that is amiss."""
        from zmq.utils.monitor import recv_monitor_message

        while self._monitor.poll(0):
            if recv_monitor_message(self._monitor)["event"] == self._zmq.EVENT_DISCONNECTED:
                most = MESSAGE_BYTES // 2**20
                log.info("%s: a sender has left, or was cut off for a message of more than %d MiB", self.address, most)
            else:
                yield Trouble(f"{self.address}: somebody who does not speak ZeroMQ was turned away")

    def _answer(self, sender: bytes, answer: dict[str, Any], number: object) -> None:
        try:
            text = json.dumps({"v": 1, "id": number if isinstance(number, int) else None, **answer})
            self._socket.send_multipart([sender, text.encode()], self._zmq.NOBLOCK)
        except self._zmq.ZMQError:  # it is gone, or does not read
            log.debug("an answer was not taken")


def load_zmq(user: str) -> Any:
    try:
        import zmq
    except ModuleNotFoundError as error:
        raise MissingExtraError.of(user, "pyzmq", "stream") from error
    return zmq
