"""A disk that is full is noticed before the work where that can be known, and loses nothing where it cannot."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ptycho_core_reference import ReferenceEngine

from ptycho_core import save_scan, simulate
from ptycho_core.errors import DataError
from ptycho_core.models.model import load_model
from ptycho_core.models.prior import load_prior
from ptycho_core.reconstruction.result import load_reconstruction
from ptycho_core.solving import loop
from ptycho_core.storage.files import check_space, write_text
from tests.core.reconstructions import make_reconstruction

Ptycho = Callable[..., Any]
SMALL = ("--architecture", "cnn", "--n-filters-scale", 1)
TRAIN = ("train", "scan.npz", "--out", "out", "--nepochs", 2, *SMALL, "--quiet")
FEW = ("--refine", "none", "--modes", 1, "--prior", "none", "--batches", 2, "--sweeps", 2)
SOLVE = ("solve", "scan.npz", "--out", "out", *FEW)
RECONSTRUCT = ("reconstruct", "scan.npz", "--model", "run", "--out", "out", "--write", "hdf5", "--quiet")
METRES = ("--energy-eV", 8000, "--distance-m", 1, "--detector-pixel-m", 75e-6)


class Disk:
    """One that is full from the `room`-th file on that is written whole in the folder `out`."""

    def __init__(self, room: int, out: Path) -> None:
        self.room, self.out, self.files = room, out, 0

    def fsync(self, descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if stat.S_ISREG(os.fstat(descriptor).st_mode) and self.out in path.parents:
            self.files += 1
            if self.files > self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def as_it_fills(
    ptycho: Ptycho, out: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[Any, ...], *, least: int, most: int = 30
) -> Iterator[tuple[int, Any]]:
    """How a command ends on a disk with room for no file, for one, and so on, until there is room for all."""
    for room in range(most):
        disk = Disk(room, out)
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", disk.fsync)
            done = ptycho(*command)
        if disk.files <= room:
            break
        assert done.code == 2 and os.strerror(errno.ENOSPC) in done.err, (room, done.err)
        assert not list(out.rglob(".*"))
        yield room, done
    assert done.code == 0 and least < room < most, (room, done.err)


def quickly_drawn(*arguments: Any, **_: Any) -> None:
    """In place of a picture, which would take its time."""
    write_text(next(path for path in arguments if isinstance(path, Path)), "a picture")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_engine: Any) -> Path:
    """With a scan; what is rescued goes to its folder `tmp`."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(loop, "load_engine", lambda backend: ReferenceEngine())
    for room, plot in (("train", "losses"), ("solve", "reconstruction"), ("reconstruct", "reconstruction")):
        monkeypatch.setattr(f"ptycho_core.runs.{room}.plot_{plot}", quickly_drawn)
    save_scan("scan.npz", simulate(N=32, positions=12, photons=1e5, seed=1))
    return tmp_path


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs to know which file a descriptor is")
@pytest.mark.parametrize("command", [TRAIN, SOLVE, RECONSTRUCT], ids=lambda command: str(command[0]))
def test_a_disk_that_fills_at_any_file_loses_nothing(
    ptycho: Ptycho, folder: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[Any, ...]
) -> None:
    if command is RECONSTRUCT:
        assert ptycho("train", "scan.npz", "--out", "run", "--nepochs", 1, *SMALL).code == 0
    load: Callable[[Path], Any] = load_model if command is TRAIN else load_reconstruction
    result = "wts.h5.zip" if command is TRAIN else "reconstruction.npz"
    for room, done in as_it_fills(ptycho, folder / "out", monkeypatch, command, least=3):
        places = [folder / "out" / result, *folder.glob(f"tmp/*/{result}")]
        found = [place for place in places if place.exists()]
        assert found and all(load(place) for place in found), (room, done.err)
        assert str(found[0].relative_to(folder)) in done.err or found[0] == places[0]
        for left in ("out", "tmp"):
            shutil.rmtree(folder / left, ignore_errors=True)
        (folder / "tmp").mkdir()


LEARN = (
    *("train-prior", "scans", "--out", "out", "--epochs", 2, "--steps", 1, "--batch-size", 1, "--crop-px", 16),
    *("--widths", "2,3", "--sweeps", 1, "--quiet"),
)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs to know which file a descriptor is")
def test_a_disk_that_fills_while_a_prior_is_learned_loses_nothing(
    ptycho: Ptycho, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever there is is whole, the error says how to go on, and --resume does."""
    monkeypatch.setattr("ptycho_core.runs.train_prior.load_engine", lambda backend: ReferenceEngine())
    monkeypatch.setattr("ptycho_core.runs.prepare.find_engine", lambda backend: ReferenceEngine)
    (folder / "scans").mkdir()
    save_scan("scans/one.npz", simulate(N=16, positions=20, step_px=4, seed=1))
    learned = []
    for room, done in as_it_fills(ptycho, folder / "out", monkeypatch, LEARN, least=4):
        if (folder / "out" / "config.toml").exists():
            assert "ptycho train-prior --resume --out out" in done.err, (room, done.err)
            gone_on = ptycho("train-prior", "--resume", "--out", "out", "--quiet")
            assert gone_on.code == 0, (room, gone_on.err)
            learned.append(load_prior(folder / "out" / "prior.h5.zip").weights)
        shutil.rmtree(folder / "out", ignore_errors=True)
    for name, array in load_prior(folder / "out" / "prior.h5.zip").weights.items():
        assert learned and all(np.array_equal(weights[name], array) for weights in learned), name


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs to know which file a descriptor is")
@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "out", "--truth", "truth"),
        ("inspect", "scan.npz", "--figure", "out/scan.png"),
        ("export", "run", "out/network.onnx"),
        ("convert", "scan.npz", "out/scan.cxi", *METRES),
        ("convert", "scan.npz", "out/pair", *METRES),
        ("split", "scan.npz", "out/train.npz", "out/test.npz"),
        ("simulate", "out/many", "--many", 3, "--N", 16, "--positions", 9),
    ],
    ids=lambda command: " ".join(map(str, command[:3])),
)
def test_a_disk_that_fills_leaves_what_was_there_and_nothing_half(
    ptycho: Ptycho, folder: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[Any, ...]
) -> None:
    if command[0] == "export":
        pytest.importorskip("onnx", reason="onnx is not installed")
        assert ptycho("train", "scan.npz", "--out", "run", "--nepochs", 1, *SMALL).code == 0
    monkeypatch.setattr("ptycho_core.runs.evaluate.plot_comparison", quickly_drawn)
    (folder / "out").mkdir()
    if command[0] == "evaluate":
        for name in ("out", "truth"):
            (folder / name).mkdir(exist_ok=True)
            make_reconstruction().save(folder / name)
    before = {path: path.read_bytes() for path in (folder / "out").rglob("*")}
    for _ in as_it_fills(ptycho, folder / "out", monkeypatch, command, least=0, most=10):
        assert all(path.read_bytes() == content for path, content in before.items())
        for path in (folder / "out").rglob("*"):
            if path.is_file() and path not in before:
                assert path.stat().st_size, path
                path.unlink()


@pytest.mark.parametrize(
    ("command", "what"),
    [
        (TRAIN, "out"),
        (SOLVE, "out"),
        (RECONSTRUCT, "out"),
        (("convert", "scan.npz", "other.npz"), "other.npz"),
        (("convert", "scan.npz", "other.cxi", *METRES), ""),
        (("simulate", "other.npz"), "other.npz"),
    ],
    ids=lambda value: " ".join(map(str, value[:3])) if isinstance(value, tuple) else "",
)
def test_too_little_space_is_refused_before_the_work(
    ptycho: Ptycho, folder: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[Any, ...], what: str
) -> None:
    if command is RECONSTRUCT:
        assert ptycho("train", "scan.npz", "--out", "run", "--nepochs", 1, *SMALL).code == 0
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage._replace(free=3000))
    done = ptycho(*command)
    assert done.code == 2
    assert f"{what}: expected " in done.err and "free on its disk; received 2.93 KiB. Free some space" in done.err
    assert not [path for path in folder.rglob("*") if path.suffix in (".zip", ".npz") and path.parent.name == "out"]


def test_a_disk_that_does_not_say_how_much_is_free_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_space(tmp_path / "not" / "there.npz", 1)
    with pytest.raises(DataError, match="1024 TiB free"):
        check_space(tmp_path / "not" / "there.npz", 2**50)

    def silent(place: Path) -> None:
        raise OSError

    monkeypatch.setattr("shutil.disk_usage", silent)
    check_space(tmp_path, 2**50)
