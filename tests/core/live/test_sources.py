"""Sources: a stream that is late, broken or hostile, a file and a folder that grow. Nothing dies, all is said."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import h5py
import numpy as np
import pytest
from ptycho_core_reference import ReferenceEngine

from ptycho_core import simulate, solve
from ptycho_core.errors import DataError
from ptycho_core.live import LiveReconstruction
from ptycho_core.live.messages import (
    Arrived,
    Ended,
    Idle,
    decoded,
    end_message,
    frames_message,
    header_of,
    setup_message,
)
from ptycho_core.live.replay import Faults, Sender, replay
from ptycho_core.live.setup import Setup
from ptycho_core.live.sources import FileSource, FolderSource, StreamSource, source_of
from ptycho_core.reconstruction.result import load_reconstruction
from ptycho_core.runs.console import Output
from ptycho_core.runs.watch import watch_into
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.solving import loop
from tests.core.archives import tiny_model
from tests.core.live.test_live import FAST

zmq = pytest.importorskip("zmq", reason="the extra stream is not installed")
ANY = "tcp://127.0.0.1:*"


@pytest.fixture(autouse=True)
def reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "load_engine", lambda backend: ReferenceEngine())
    monkeypatch.setattr("ptycho_core.runs.watch.load_engine", lambda backend: ReferenceEngine())
    monkeypatch.setattr("ptycho_core.runs.prepare.find_engine", lambda backend: ReferenceEngine)
    monkeypatch.setattr("ptycho_core.runs.watch.draw", lambda *arguments, **keywords: None)
    monkeypatch.setattr("ptycho_core.live.sources.POLL_SECONDS", 0.01)


@pytest.fixture(scope="module")
def scan() -> Scan:
    return simulate(N=16, positions=80, step_px=3, object="lines", photons=1e5, seed=3)


@attrs.define
class Watching:
    """`watch_into` in a thread of its own."""

    folder: Path
    source: StreamSource
    output: Output
    outcome: list[Any] = attrs.field(factory=list)

    def run(self) -> None:
        try:
            self.outcome.append(watch_into(self.folder, self.source, SolveConfig(**FAST), output=self.output))
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            self.outcome.append(error)


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[tuple[Watching, threading.Thread]]:
    work = Watching(tmp_path / "out", StreamSource(ANY), Output(quiet=True))
    thread = threading.Thread(target=work.run, daemon=True)
    thread.start()
    yield work, thread
    thread.join(20)
    assert not thread.is_alive()


def test_a_replay_with_everything_that_goes_wrong_ends_as_an_offline_run(
    scan: Scan, watching: tuple[Watching, threading.Thread]
) -> None:
    work, thread = watching
    faults = Faults(shuffle=True, duplicate=0.1, late=0.1, late_s=0.3, lose=0.05, seed=2)
    sent = replay(scan, work.source.bound, rate=1000, faults=faults)
    thread.join(20)
    assert 60 < sent < 80
    result, summary = work.outcome[0]
    assert summary["live"]["placed"] == sent and summary["live"]["duplicates"] >= 1
    offline = solve(scan.subset(result.frames), SolveConfig(**FAST))
    np.testing.assert_array_equal(result.object_field, offline.object_field)
    assert load_reconstruction(work.folder).patterns == sent
    assert not (work.folder / "live").exists()


def test_a_watch_that_was_killed_after_the_end_has_all_that_it_needs(scan: Scan, tmp_path: Path) -> None:
    live = LiveReconstruction(
        SolveConfig(**FAST), Setup.of(scan, 80), folder=tmp_path / "live", engine=ReferenceEngine()
    )
    live.receive(np.asarray(scan.diffraction_amplitude), scan.positions_px)
    live.setup.save(tmp_path / "live" / "setup.npz")
    (tmp_path / "live" / "ended").write_text("the source has ended\n")
    result, _ = watch_into(tmp_path, StreamSource(ANY), SolveConfig(**FAST))
    assert result.patterns == 80 and not (tmp_path / "live").exists()


def test_a_first_scan_that_the_model_does_not_take_ends_both_sides_and_leaves_nothing(
    tmp_path: Path, fake_engine: Any, tiny_architecture: None
) -> None:
    source, outcome = StreamSource(ANY), []

    def watch() -> None:
        with pytest.raises(DataError) as caught:
            watch_into(tmp_path / "out", source, tiny_model())
        outcome.append(str(caught.value))

    bound = source.bound
    thread = threading.Thread(target=watch)
    thread.start()
    words = r"N: expected patterns of 16 x 16 pixels, as the model was trained; received 20 x 20\. Use a model"
    with pytest.raises(DataError, match=rf"tcp://.*expected messages that are taken; received .*{words}"):
        replay(simulate(N=20, positions=5), bound, rate=1000)
    thread.join(20)
    assert re.search(words, outcome[0]) and not (tmp_path / "out").exists()


def test_garbage_on_the_socket_is_said_and_nothing_dies(
    scan: Scan, watching: tuple[Watching, threading.Thread]
) -> None:
    work, thread = watching
    port = int(work.source.bound.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(range(256)) * 40)
    with socket.create_connection(("127.0.0.1", port)) as stranger:  # of a kind of ZeroMQ that is not spoken here
        stranger.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"OTHER".ljust(20, b"\0") + bytes(32))
    sender = Sender(work.source.bound)
    setup, frames = (
        setup_message(Setup.of(scan)),
        frames_message(np.arange(2), scan.diffraction_amplitude[:2], "amplitude"),
    )
    promised = json.loads(frames[0])
    evil = "<script>alert(1)</script>"
    for parts in (
        [json.dumps({"v": 1, "kind": evil}).encode()],
        [json.dumps({**promised, "shape": [2, 64, 64]}).encode(), frames[1]],
        [json.dumps({**promised, "shape": [10**9, 16, 16]}).encode(), frames[1]],
        setup,
        frames_message(np.arange(2), np.ones((2, 8, 8), np.float32), "amplitude"),
    ):
        sender.send(parts)
    sender.settle(5)
    sender._socket.send_multipart([b"\xff\xfe no JSON", b"?"])
    other = attrs.evolve(Setup.of(scan), probe=np.ones((1, 8, 8), np.complex64), bad_pixels=np.zeros((8, 8), bool))
    sender.send(setup_message(other))
    sender.send(frames)  # of the other scan: left out
    stranger = Sender(work.source.bound)
    for parts in (setup_message(other), end_message()):  # which ends nothing here
        stranger.send(parts)
    assert stranger.settle(5) and stranger.refused == []
    stranger.close()
    sender.settle(5)
    assert [text.partition(":")[2].split(":")[0].strip() for text in sender.refused] == [
        "kind",
        "frames",
        "frames",
        "header",
    ]
    replay(scan, work.source.bound, rate=5000)
    sender.close()
    thread.join(20)
    _, summary = work.outcome[0]
    assert summary["live"]["placed"] == 80
    said = "\n".join(work.output.warnings)
    for words in (
        "expected scan, frames, positions or end",
        "as the header promises",
        "JSON object",
        "another scan",
        "not speak ZeroMQ",
    ):
        assert words in said, said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"v": 2}, "header"),
        ({"dtype": "object"}, "dtype"),
        ({"numbers": [1]}, "numbers"),
        ({"numbers": [1, -2]}, "numbers"),
        ({"numbers": [True, 2]}, "numbers"),
        ({"shape": [2, 16]}, "shape"),
        ({"shape": "x"}, "shape"),
        ({"measurement": "?"}, "measurement"),
        ({"kind": "positions", "unit": "m"}, "positions"),
    ],
)
def test_a_message_that_does_not_fit_is_refused_by_its_key(change: dict[str, Any], words: str) -> None:
    header, payload = frames_message(np.arange(2), np.ones((2, 16, 16), np.float32), "intensity")
    with pytest.raises(DataError, match=f"message: {words}: expected"):
        decoded(header_of([json.dumps({**json.loads(header), **change}).encode()]), [payload], None)


def test_a_message_that_is_too_large_cuts_off_its_sender_alone(
    monkeypatch: pytest.MonkeyPatch, core_log: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ptycho_core.live.sources.MESSAGE_BYTES", 100_000)
    source, found, stop = StreamSource(ANY), [], threading.Event()
    thread = threading.Thread(target=lambda: found.extend(source.items(stop.is_set)))
    thread.start()
    flood, honest = (zmq.Context.instance().socket(zmq.DEALER) for _ in range(2))
    for peer in (flood, honest):
        peer.setsockopt(zmq.LINGER, 0)
        peer.connect(source.bound)
    flood.send_multipart([b"{}", bytes(1_000_000)])
    honest.send_multipart([json.dumps({"v": 1, "kind": "end", "id": 7}).encode()])
    assert honest.poll(5000) and json.loads(honest.recv()) == {"v": 1, "id": 7, "taken": True}
    assert not flood.poll(50) and "cut off for a message of more than" in core_log.text
    stop.set()
    thread.join()
    assert [type(item) for item in found if not isinstance(item, Idle)] == [Ended]
    for peer in (flood, honest):
        peer.close()


def test_a_port_in_use_is_refused() -> None:
    first = StreamSource(ANY)
    with pytest.raises(DataError, match="expected a free address"):
        StreamSource(first.bound)
    first._socket.close()


def gathered(items: Iterator[Any]) -> tuple[dict[int, Any], list[Setup]]:
    """What a source brings until it ends: (amplitude, position) by number."""
    found: dict[int, Any] = {}
    setups = []
    for item in items:
        if isinstance(item, Setup):
            setups.append(item)
        elif isinstance(item, Arrived):
            assert item.amplitude is not None and item.positions_px is not None
            for number, amplitude, place in zip(item.numbers.tolist(), item.amplitude, item.positions_px, strict=True):
                assert number not in found
                found[number] = amplitude, place
        elif isinstance(item, Ended):
            break
    return found, setups


@pytest.mark.parametrize("swmr", [True, False])
def test_a_file_that_grows_is_followed(scan: Scan, tmp_path: Path, swmr: bool) -> None:
    path, counts = tmp_path / "scan.h5", np.square(np.asarray(scan.diffraction_amplitude)).round().astype(np.uint32)

    def write() -> None:
        with h5py.File(path, "w", libver="latest") as file:
            file["probe"] = scan.probe[0]
            frames = file.create_dataset("frames", (0, 16, 16), "u4", maxshape=(None, 16, 16), chunks=(8, 16, 16))
            places = file.create_dataset("places", (0, 2), "f8", maxshape=(None, 2))
            if swmr:
                file.swmr_mode = True
            for start in range(0, 80, 20):  # patterns first, their positions after the next ones
                frames.resize(start + 20, 0)
                frames[start:] = counts[start : start + 20]
                file.flush()
                time.sleep(0.03)
                places.resize(start + 20, 0)
                places[start:] = scan.positions_px[start : start + 20]
                file.flush()

    thread = threading.Thread(target=write)
    thread.start()
    named = {
        "dataset": "frames",
        "positions": "places",
        "position_unit": "px",
        "position_order": "xy",
        "probe": "probe",
    }
    reading = ReadOptions(**named, measurement="intensity")
    found, setups = gathered(FileSource(path, reading, patience=0.5).items(lambda: False))
    thread.join()
    assert sorted(found) == list(range(80)) and len(setups) == 1
    np.testing.assert_allclose(np.stack([found[n][0] for n in range(80)]) ** 2, counts, rtol=1e-5)
    np.testing.assert_allclose(np.stack([found[n][1] for n in range(80)]), scan.positions_px)


def test_a_master_is_followed_whose_data_files_come_one_after_another(scan: Scan, tmp_path: Path) -> None:
    counts = np.square(np.asarray(scan.diffraction_amplitude)).round().astype(np.uint32)
    np.save(tmp_path / "probe.npy", scan.probe[0])
    np.save(tmp_path / "places.npy", scan.positions_px)
    raw = tmp_path / "raw"
    raw.mkdir()
    names = [f"scan_data_{number:06d}.h5" for number in (1, 2, 3, 4)]
    with h5py.File(raw / "scan_master.h5", "w") as file:
        for name in names:
            file[f"entry/data/{name[5:16]}"] = h5py.ExternalLink(name, "/entry/data/data")
        file["entry/instrument/detector/pixel_mask"] = np.zeros((16, 16), np.uint32)
    reading = ReadOptions(
        positions=str(tmp_path / "places.npy"),
        position_unit="px",
        position_order="xy",
        probe=str(tmp_path / "probe.npy"),
        measurement="intensity",
    )
    source = source_of(str(raw), reading, 0.5)
    assert isinstance(source, FileSource)

    def measured() -> Iterator[Any]:
        """Each file is written once what was in the ones before has come."""
        items = source.items(lambda: False)
        for name, part in zip(names, np.split(counts, 4), strict=True):
            with h5py.File(raw / "begun.h5", "w") as file:
                file["entry/data/data"] = part
            (raw / "begun.h5").rename(raw / name)
            while not isinstance(item := next(items), Arrived):
                yield item
            assert len(item.numbers) == 20
            yield item
        yield from items

    found, setups = gathered(measured())
    assert sorted(found) == list(range(80)) and len(setups) == 1
    np.testing.assert_allclose(np.stack([found[n][0] for n in range(80)]) ** 2, counts, rtol=1e-5)


@pytest.mark.parametrize("suffix", [".npy", ".tif"])
def test_a_folder_of_frames_is_followed(scan: Scan, tmp_path: Path, suffix: str) -> None:
    if suffix == ".tif":
        write = pytest.importorskip("tifffile", reason="the extra tiff is not installed").imwrite
    else:
        write = np.save
    np.save(tmp_path / "probe.npy", scan.probe[0])
    table = "x,y\n" + "".join(f"{x},{y}\n" for x, y in scan.positions_px[:12].tolist())
    (tmp_path / "places.csv").write_text(table)
    folder = tmp_path / "frames"
    folder.mkdir()

    def measure() -> None:
        for number in (3, 0, 2, 1, *range(4, 12)):
            write(folder / f"frame_{number + 1:05d}{suffix}", scan.diffraction_amplitude[number])
            (folder / "notes.txt").write_text("no frame")

    thread = threading.Thread(target=measure)
    thread.start()
    reading = ReadOptions(
        positions=str(tmp_path / "places.csv"),
        position_unit="px",
        position_order="xy",
        probe=str(tmp_path / "probe.npy"),
        measurement="amplitude",
    )
    source = source_of(str(folder), reading, 0.5, first=1)
    assert isinstance(source, FolderSource)
    found, _ = gathered(source.items(lambda: False))
    thread.join()
    assert sorted(found) == list(range(12))
    np.testing.assert_allclose(np.stack([found[n][0] for n in range(12)]), scan.diffraction_amplitude[:12], rtol=1e-6)
    np.testing.assert_allclose(np.stack([found[n][1] for n in range(12)]), scan.positions_px[:12])


def test_a_source_that_never_comes_is_said(tmp_path: Path, ptycho: Callable[..., Any]) -> None:
    outcome = ptycho("watch", tmp_path / "nowhere.h5", "--out", tmp_path / "out", "--patience", "0.1")
    assert outcome.code == 2 and "nowhere.h5: expected a scan file; received no such file" in outcome.err
    outcome = ptycho("watch", "udp://there:1", "--out", tmp_path / "out", "--preview")
    assert "--preview is left out: stderr is no terminal" in outcome.err
    assert outcome.code == 2 and "expected a stream, a file or a folder" in outcome.err
    outcome = ptycho("watch", "udp://there:1", "--out", tmp_path / "out", "--preview", "--quiet")
    assert outcome.code == 2 and "--preview shows nothing with --quiet" in outcome.err
