"""`python -m ptycho_core.integrations.ptychodus`: our algorithms are there before a settings file is read, or after."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

pytest.importorskip("ptychodus", reason="ptychodus is not installed")

from ptycho_core.integrations.ptychodus.launch import core_class, main
from tests.ptychodus.conftest import ONE, Case

SETTINGS = f"""
[Processing]
Algorithm = ptycho-core_solve
[PtychoCoreTraining]
NumEpochs = 6
[PtychoCoreSolving]
Sweeps = 2
Modes = 1
Backend = {ONE}
"""


@pytest.fixture
def settings_file(tmp_path: Path) -> Path:
    path = tmp_path / "settings.ini"
    path.write_text(SETTINGS)
    return path


@pytest.fixture
def batch(settings_file: Path, simulated: Case, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """The command line, on the folder of the settings file."""
    for name in ("diffraction.h5", "product.h5"):
        shutil.copyfile(simulated.pair / name, settings_file.parent / name)
    folder = str(settings_file.parent)
    command = ["ptychodus-ptycho-core", "-b", "reconstruct", "-i", folder, "-o", f"{folder}/out"]

    def run() -> int:
        import ptychodus.__main__

        monkeypatch.setattr(ptychodus.__main__, "ModelCore", None)  # and back to what it was when the test ends
        monkeypatch.setattr(sys, "argv", command)
        return main()

    return run


@pytest.mark.skipif(not ONE, reason="no engine is installed")
def test_a_batch_writes_its_result(
    batch: Callable[[], int], settings_file: Path, simulated: Case, without_children: None
) -> None:
    assert batch() == 0
    with (
        h5py.File(settings_file.parent / "out" / "product.h5") as result,
        h5py.File(simulated.pair / "product.h5") as given,
    ):
        assert result["object"].shape == given["object"].shape
        assert not np.array_equal(result["object"], given["object"])
        assert list(result["loss_epochs"]) == [1, 2]


def test_an_algorithm_that_is_not_there_is_refused(
    batch: Callable[[], int], settings_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings_file.write_text(SETTINGS.replace("ptycho-core_solve", "pty-chi_LSQML"))
    assert batch() not in (None, 0)
    assert "Algorithm must be one of" in caplog.text and "got 'pty-chi_LSQML'" in caplog.text
    assert not (settings_file.parent / "out" / "product.h5").exists()


@pytest.mark.parametrize("started", ["by us", "by itself"])
def test_a_settings_file_counts_whenever_our_algorithms_are_added(started: str, settings_file: Path) -> None:
    from ptychodus.model import ModelCore

    from ptycho_core.integrations.ptychodus import register

    core: Any = core_class()(settings_file) if started == "by us" else ModelCore(settings_file)
    library = register(core)
    assert core.processing_core.algorithm_parameter.get_value() == "ptycho-core_solve"
    assert library.settings.training("pinn").nepochs == 6
    assert library.settings.solving().sweeps == 2


def test_ours_is_chosen_where_no_algorithm_was() -> None:
    assert core_class()().processing_core.algorithm_parameter.get_value() == "ptycho-core_pinn"
