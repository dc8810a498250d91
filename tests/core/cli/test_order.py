"""A command that cannot succeed says so before it opens a scan, and leaves nothing behind."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptycho_core.storage.files import check_folder
from tests.core.archives import tiny_model

Ptycho = Callable[..., Any]


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with scan.npz, model.zip and a file that is no folder; whoever opens or simulates a scan fails."""

    def opened(*arguments: Any, **settings: Any) -> Any:
        raise AssertionError("a scan was opened")

    monkeypatch.setattr("ptycho_core.io.load_scan", opened)
    monkeypatch.setattr("ptycho_core.simulation.simulate", opened)
    monkeypatch.chdir(tmp_path)
    for name in ("scan.npz", "file"):
        (tmp_path / name).write_text("nothing")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--backend", "tensorlfow"],
            "flag --backend: Unknown backend 'tensorlfow'. Registered backends: tensorflow, torch.",
        ),
        (["--architecture", "cnnn"], "flag --architecture: architecture must be one of cnn, published_torch"),
        (["--accelerator", "nonsense"], "flag --accelerator: accelerator must be one of 'auto', 'cpu'"),
        (["--batch-size", "12"], "flag --batch-size: batch_size must be a positive power of two"),
        (["--architecture", "cnn", "--gridsize", "3"], "neighbor_count must be >= gridsize² - 1 = 8"),
        (["--architecture", "cnn", "--N", "33"], "flag --N: N must be a size from 32 to 512"),
        (["--checkpoint-monitor-metric", "realspace_mae"], "checkpoint_monitor_metric must be one of total"),
        (["--out", "file/out"], "file/out: expected a folder; received one inside the file file"),
        (["--test", "nowhere.npz"], "flag --test-data-file: test_data_file must be an existing file"),
        (
            ["--logger", "tensorboard"],
            "flag --logger: logger 'tensorboard' needs the package tensorboardX, which is not installed. "
            "Install it with: pip install 'ptycho-core[tensorboard]', or choose logger = csv.",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_training_is_refused_before_the_scan_is_opened(
    ptycho: Ptycho, unread: Path, request: pytest.FixtureRequest, arguments: list[str], message: str
) -> None:
    if "--backend" not in arguments:
        request.getfixturevalue("fake_engine")
    request.getfixturevalue("monkeypatch").setitem(sys.modules, "tensorboardX", None)
    before = sorted(unread.iterdir())
    outcome = ptycho("train", "scan.npz", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert sorted(unread.iterdir()) == before


@pytest.mark.usefixtures("tiny_architecture")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "tensorlfow"], "flag --backend: Unknown backend 'tensorlfow'."),
        (["--accelerator", "nonsense"], "flag --accelerator: accelerator must be one of 'auto', 'cpu'"),
        (["--weighting", "sideways"], "flag --weighting: weighting must be one of 'probe', 'uniform'"),
        (
            ["--enable-oversampling"],
            "flag --enable-oversampling: enable_oversampling has no effect unless",
        ),
        (["--out", "file/out"], "file/out: expected a folder; received one inside the file file"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_reconstruction_is_refused_before_the_scan_is_opened(
    ptycho: Ptycho, unread: Path, request: pytest.FixtureRequest, arguments: list[str], message: str
) -> None:
    if "--backend" not in arguments:
        request.getfixturevalue("fake_engine")
    tiny_model().save(unread / "model.zip")
    before = sorted(unread.iterdir())
    outcome = ptycho("reconstruct", "scan.npz", "--model", "model.zip", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert sorted(unread.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "tensorlfow"], "flag --backend: Unknown backend 'tensorlfow'."),
        (["--out", "file/out"], "file/out: expected a folder; received one inside the file file"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_the_demo_is_refused_before_it_simulates(
    ptycho: Ptycho, unread: Path, request: pytest.FixtureRequest, arguments: list[str], message: str
) -> None:
    if "--backend" not in arguments:
        request.getfixturevalue("fake_engine")
    before = sorted(unread.iterdir())
    outcome = ptycho("demo", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert sorted(unread.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "tensorlfow"], "flag --backend: Unknown backend 'tensorlfow'."),
        (["--prior", "tvv"], "flag --prior: prior must be one of auto, none, tv, learned, alternating; got 'tvv'."),
        (["--logger", "tensorboard"], "flag --logger: logger 'tensorboard' needs the package tensorboardX"),
        (["--write", "tiff"], "flag --write: TIFF needs the package tifffile, which is not installed."),
        (["--out", "file/out"], "file/out: expected a folder; received one inside the file file"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_solving_is_refused_before_the_scan_is_opened(
    ptycho: Ptycho, unread: Path, request: pytest.FixtureRequest, arguments: list[str], message: str
) -> None:
    if "--backend" not in arguments:
        request.getfixturevalue("fake_engine")
    for package in ("tensorboardX", "tifffile"):
        request.getfixturevalue("monkeypatch").setitem(sys.modules, package, None)
    before = sorted(unread.iterdir())
    outcome = ptycho("solve", "scan.npz", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert sorted(unread.iterdir()) == before


def test_a_folder_that_can_be_made_is_not_made(tmp_path: Path) -> None:
    check_folder(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
