"""Nothing is replaced unasked, and nothing is lost."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptycho_core import save_scan, simulate
from ptycho_core.cli import PATIENCE, Terminated, stopped_by_signals
from ptycho_core.errors import DataError
from ptycho_core.runs.folder import rescued
from ptycho_core.runs.train import train_into
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.storage.keeping import LOCK, check_folder_is_free, check_new, locked
from tests.networks import cnn

Ptycho = Callable[..., Any]


@pytest.fixture
def scan_file(tmp_path: Path, numbered_scan: Any) -> Path:
    path = tmp_path / "scan.npz"
    save_scan(path, numbered_scan(count=40, spread=60))
    return path


LENGTHS = ("--energy-eV", 8000, "--distance-m", 1, "--detector-pixel-m", 75e-6)


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (("simulate", "old.npz", "--N", 16, "--positions", 4), "old.npz"),
        (("convert", "scan.npz", "old.npz"), "old.npz"),
        (("convert", "scan.npz", "old.cxi", *LENGTHS), "old.cxi"),
        (("convert", "scan.npz", "pair", *LENGTHS), "pair/product.h5"),
        (("split", "scan.npz", "first.npz", "old.npz"), "old.npz"),
        (("split", "scan.npz", "old.npz", "second.npz"), "old.npz"),
        (("export", "scan.npz", "old.onnx"), "old.onnx"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_a_file_that_is_there_is_not_replaced_unasked(
    ptycho: Ptycho, scan_file: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[Any, ...], kept: str
) -> None:
    monkeypatch.chdir(scan_file.parent)
    Path("pair").mkdir()
    Path(kept).write_text("work of weeks")
    outcome = ptycho(*arguments)
    assert outcome.code == 2 and "--overwrite" in outcome.err and kept in outcome.err
    assert Path(kept).read_text() == "work of weeks"
    assert not any(Path(name).exists() for name in ("first.npz", "second.npz", "pair/diffraction.h5"))
    if arguments[0] != "export":
        assert ptycho(*arguments, "--overwrite").code == 0
        assert Path(kept).read_bytes() != b"work of weeks"


@pytest.mark.parametrize(
    "arguments",
    [("simulate", "scan.foo"), ("split", "scan.npz", "first.npz", "second.foo")],
    ids=lambda words: words[0],
)
def test_an_ending_that_means_no_format_is_refused(
    ptycho: Ptycho, scan_file: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(scan_file.parent)
    outcome = ptycho(*arguments)
    assert outcome.code == 2 and "received the ending '.foo'" in outcome.err
    assert [path.name for path in scan_file.parent.iterdir()] == ["scan.npz"]


def test_both_parts_of_a_split_can_be_written_before_either_is(ptycho: Ptycho, scan_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    outcome = ptycho("split", scan_file, tmp_path / "train.npz", tmp_path / "file" / "test.npz")
    assert outcome.code == 2 and not (tmp_path / "train.npz").exists()


def test_a_folder_of_another_run_is_refused_by_what_it_holds(tmp_path: Path) -> None:
    check_folder_is_free(tmp_path / "new", ["wts.h5.zip"], overwrite=False)
    (tmp_path / "wts.h5.zip").write_text("")
    check_folder_is_free(tmp_path, ["reconstruction.npz"], overwrite=False)
    check_folder_is_free(tmp_path, ["wts.h5.zip"], overwrite=True)
    with pytest.raises(DataError, match=r"wts\.h5\.zip of an earlier run"):
        check_folder_is_free(tmp_path, ["wts.h5.zip"], overwrite=False)
    with pytest.raises(DataError, match="a folder"):
        check_new(tmp_path, overwrite=False)


# -- one run at a time ---------------------------------------------------------------------------------------------


def test_a_second_run_in_a_folder_is_refused(tmp_path: Path, fake_engine: Any, numbered_scan: Any) -> None:
    config = TrainingConfig(model=cnn(N=32, n_filters_scale=1), nepochs=1, batch_size=4, n_groups=9)
    with locked(tmp_path), pytest.raises(DataError, match=f"process {os.getpid()} on .* writing there"):
        train_into(tmp_path, numbered_scan(9), config)
    assert not (tmp_path / LOCK).exists() and not list(tmp_path.iterdir())
    train_into(tmp_path, numbered_scan(9), config)
    assert not (tmp_path / LOCK).exists()


def test_a_run_that_is_refused_leaves_no_folder_that_was_made_for_it(
    tmp_path: Path, fake_engine: Any, numbered_scan: Any
) -> None:
    """Nor what lies above it; what is there, or holds anything, stays."""
    config = TrainingConfig(model=cnn(N=64), nepochs=1)
    with pytest.raises(DataError, match="N"):
        train_into(tmp_path / "new" / "run", numbered_scan(9), config)
    assert not list(tmp_path.iterdir())
    (tmp_path / "old").mkdir()

    def fails(folder: Path, *files: str) -> None:
        with locked(folder):
            for name in files:
                (folder / name).touch()
            raise KeyError

    for kept, files in {"old": (), "new/run": ("result",)}.items():
        with pytest.raises(KeyError):
            fails(tmp_path / kept, *files)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["new", "old", "result", "run"]


@pytest.mark.parametrize("begun", [None, "1"])
def test_the_lock_of_a_process_that_is_gone_is_taken_over(tmp_path: Path, begun: str | None) -> None:
    """It has ended, or another process has its number now."""
    pid = os.getpid()
    if begun is None:
        process = subprocess.Popen([sys.executable, "-c", ""])
        process.wait()
        pid = process.pid
    (tmp_path / LOCK).write_text(json.dumps({"pid": pid, "host": socket.gethostname(), "begun": begun}))
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("links", [True, False])
def test_a_lock_is_never_there_without_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """Who is killed while he takes it would leave one that nobody can judge."""
    seen: list[str] = []
    link = os.link

    def look(source: Any, target: Any) -> None:
        if not links:
            raise OSError("no links here")
        link(source, target)
        seen.append((tmp_path / LOCK).read_text())

    monkeypatch.setattr("os.link", look)
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
        with pytest.raises(DataError, match="writing there"), locked(tmp_path):
            pass
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    assert not list(tmp_path.iterdir()) and [json.loads(text)["pid"] for text in seen] == [os.getpid()] * links


@pytest.mark.parametrize("content", ['{"pid": 1, "host": "another machine"}', "no json", "[]", ""])
def test_a_lock_of_which_nobody_knows_is_kept(tmp_path: Path, content: str) -> None:
    (tmp_path / LOCK).write_text(content)
    with pytest.raises(DataError, match=r"remove .*ptycho\.lock"), locked(tmp_path):
        pass
    assert (tmp_path / LOCK).read_text() == content


# -- what cannot be written, and signals ---------------------------------------------------------------------------


def test_a_result_that_cannot_be_written_goes_elsewhere_and_the_error_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    scan = simulate(N=16, positions=4)
    with pytest.raises(DataError) as caught:
        rescued(lambda path: save_scan(path, scan), tmp_path / "full" / "result.npz")
    (place,) = (tmp_path / "tmp").glob("*/result.npz")
    assert str(place) in str(caught.value.remedy) and caught.value.source == str(tmp_path / "full" / "result.npz")

    def fails(path: Path) -> None:
        raise DataError(path, received="no space left")

    with pytest.raises(DataError, match=r"full.result\.npz: no space left"):
        rescued(fails, tmp_path / "full" / "result.npz")
    assert len(list((tmp_path / "tmp").iterdir())) == 1


@pytest.mark.skipif(os.name == "nt", reason="needs signals of POSIX")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_stops_a_command_as_an_interrupt_does(name: str) -> None:
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)  # under nohup the tests themselves ignore SIGHUP
    try:
        with pytest.raises(Terminated) as caught, stopped_by_signals():  # noqa: PT012 - the signal comes between
            os.kill(os.getpid(), number)
            time.sleep(5)
        assert caught.value.signum == number and isinstance(caught.value, KeyboardInterrupt)
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


@pytest.mark.skipif(os.name == "nt", reason="needs signals of POSIX")
def test_a_signal_has_an_exit_code_of_its_own(ptycho: Ptycho, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def end(**_: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr("ptycho_core.simulation.simulate", end)
    outcome = ptycho("simulate", tmp_path / "scan.npz")
    assert outcome.code == 143 and "Ended by SIGTERM." in outcome.err


@pytest.mark.skipif(os.name == "nt", reason="needs signals of POSIX")
@pytest.mark.parametrize("more", [0, 2, 3])
def test_further_interrupts_do_not_break_off_the_saving(more: int, capfd: pytest.CaptureFixture[str]) -> None:
    saved = []

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        finally:
            for _ in range(more):
                os.kill(os.getpid(), signal.SIGINT)
            saved.append(more)

    def impatient() -> None:
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        for _ in range(PATIENCE + 1):
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for each in (work, impatient):
            with pytest.raises(KeyboardInterrupt), stopped_by_signals():
                each()
        assert saved == [more] and capfd.readouterr().err.count("is being saved") == more + PATIENCE
    finally:
        signal.signal(signal.SIGINT, before)


class ResourceExhaustedError(Exception):
    """As a framework has it."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ResourceExhaustedError("OOM when allocating tensor"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
    ids=lambda error: f"{type(error).__name__} {str(error)[:9]}",
)
def test_too_little_memory_is_an_error_with_a_remedy(
    ptycho: Ptycho, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    def fail(**_: Any) -> None:
        raise error

    monkeypatch.setattr("ptycho_core.simulation.simulate", fail)
    outcome = ptycho("simulate", tmp_path / "scan.npz")
    assert outcome.code == 2 and outcome.err.startswith("Error: there is too little memory") and not outcome.out


def test_another_failure_keeps_its_traceback(ptycho: Ptycho, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(**_: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("ptycho_core.simulation.simulate", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        ptycho("simulate", tmp_path / "scan.npz")
