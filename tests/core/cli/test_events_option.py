"""`--events`: every line is of the schema, the last one says how the command ended, and nothing else is on stdout."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from ptycho_core import save_scan, simulate
from ptycho_core.events import Event
from ptycho_core.runs.stream import EventStream
from ptycho_core.solving import loop

Ptycho = Callable[..., Any]
SPECS = Path(__file__).parents[3] / "specs"
SCHEMA = jsonschema.Draft202012Validator(json.loads((SPECS / "events.schema.json").read_text(encoding="utf-8")))
FAST = ("--refine", "none", "--modes", "1", "--prior", "none", "--batches", "4", "--sweeps", "3", "--no-split-half")


pytestmark = pytest.mark.usefixtures("solved_by_reference")


@pytest.fixture
def scan_file(tmp_path: Path) -> Path:
    path = tmp_path / "scan.npz"
    save_scan(path, simulate(N=16, positions=20, step_px=3, object="lines", photons=1e5, seed=3))
    return path


def lines_of(out: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in out.splitlines()]
    for number, line in enumerate(lines):
        SCHEMA.validate(line)
        assert line["number"] == number
    return lines


def test_a_solve_tells_its_course_and_its_result(ptycho: Ptycho, scan_file: Path, tmp_path: Path) -> None:
    outcome = ptycho("solve", scan_file, "--out", tmp_path / "out", *FAST, "--events")
    assert outcome.code == 0, outcome.err
    first, *lines = lines_of(outcome.out)
    assert (first["kind"], first["work"], first["pid"]) == ("started", "solve", os.getpid())
    kinds = [line["kind"] for line in lines if line["kind"] not in ("warning", "started")]
    assert kinds.count("sweep") == kinds.count("checkpoint") == 3
    assert kinds[0] == "prepared" and kinds[-1] == "finished" and "partial" in kinds
    sweeps = [line for line in lines if line["kind"] == "sweep"]
    assert [(line["done"], line["total"]) for line in sweeps] == [(1, 3), (2, 3), (3, 3)]
    assert sweeps[-1]["terms"]["R"] < sweeps[0]["terms"]["R"]
    summary = json.loads((tmp_path / "out" / "reconstruction.json").read_text(encoding="utf-8"))
    assert lines[-1]["result"] == summary and summary["report"] == str(tmp_path / "out" / "report.html")
    assert not (tmp_path / "out" / "partial.npz").exists()


def test_a_run_that_is_interrupted_says_so_before_and_after_it_saves(
    ptycho: Ptycho, scan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = loop.Run.sweep

    def interrupted(run: loop.Run) -> Any:
        if run.done == 1:
            signal.raise_signal(signal.SIGTERM)
        return sweep(run)

    monkeypatch.setattr(loop.Run, "sweep", interrupted)
    outcome = ptycho("solve", scan_file, "--out", tmp_path / "out", *FAST, "--events")
    assert outcome.code == 128 + signal.SIGTERM
    *_, cancelling, file, _, last = (
        line for line in lines_of(outcome.out) if line["kind"] not in ("warning", "partial")
    )
    assert [line["kind"] for line in (cancelling, file, last)] == ["cancelling", "file", "cancelled"]
    assert last["result"]["stopped_early"] is True and len(last["result"]["history"]) == 1


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (("nowhere.npz",), {"type": "DataError", "source": "nowhere.npz", "received": "no such file"}),
        (("--sweeps", "x"), {"type": "ConfigurationError", "setting": "sweeps", "received": "'x'"}),
        (("--sweeeps", "3"), {"type": "NoSuchOption"}),
        (("--json",), {"type": "UsageError"}),
    ],
)
def test_what_is_refused_is_one_error_with_its_fields(
    ptycho: Ptycho, arguments: tuple[str, ...], facts: dict[str, str]
) -> None:
    outcome = ptycho("solve", *arguments, "--events")
    *_, last = lines_of(outcome.out)
    assert (outcome.code, last["kind"]) == (2, "failed")
    assert facts.items() <= last["error"].items()
    assert last["message"] and "Error: " in outcome.err


class SoFar:
    origin_px = (3.0, 4.0)

    def known_field(self) -> tuple[Any, Any]:
        return np.full((2, 3), 1j, np.complex64), np.ones((2, 3), bool)


def test_a_partial_object_is_a_whole_file_while_the_work_lasts(tmp_path: Path) -> None:
    out = io.StringIO()
    stream = EventStream("solve", out)
    sweep = Event(kind="sweep", work="solve", done=1, total=9, unit="sweep", payload=SoFar())
    with stream.working_in(tmp_path):
        stream(sweep)
        assert stream._writing is not None
        stream._writing.join()
        stream(sweep)  # too soon for another
        _, partial, _ = (json.loads(line) for line in out.getvalue().splitlines())
        assert partial["kind"] == "partial" and partial["done"] == 1
        with np.load(partial["path"]) as kept:
            assert (kept["object"] == 1j).all() and kept["known"].all() and kept["origin_px"].tolist() == [3, 4]
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_says_stop_is_a_sigterm_and_another_one_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    out, sent = io.StringIO(), []
    monkeypatch.setattr(signal, "pthread_kill", lambda thread, signum: sent.append((thread, signum)))
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb", buffering=0) as source, os.fdopen(writer, "wb", buffering=0) as sink:
        monkeypatch.setattr("sys.stdin", source)
        sink.write(b"halt\nstop\n")
        with EventStream("solve", out).telling(str):
            for thread in threading.enumerate():
                if thread.name == "stdin":
                    sink.close()
                    thread.join(5)
    assert sent == [(threading.main_thread().ident, signal.SIGTERM)]
    _, warning, _ = lines_of(out.getvalue())
    assert warning["message"] == "stdin: expected 'stop'; received 'halt'"


def test_a_run_ends_when_nobody_reads_its_events(tmp_path: Path) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with pytest.raises(KeyboardInterrupt, match="nobody reads"):
        EventStream("solve", Gone())(Event(kind="warning", work="solve", message="?"))
