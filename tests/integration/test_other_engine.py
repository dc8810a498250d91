"""A model that one engine has trained and written down reconstructs on another; tests.parity has the way back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.command_line import ptycho
from tests.integration.conftest import INSTALLED, ONE, SMALL


def test_another_engine_reconstructs_the_same_object_from_an_archive(scan_file: Path, tmp_path: Path) -> None:
    if len(INSTALLED) < 2:
        pytest.skip("two engines are needed")
    ptycho("train", scan_file, "--out", tmp_path, "--backend", ONE, *SMALL)
    fields = []
    for name in INSTALLED:
        ptycho("reconstruct", scan_file, "--model", tmp_path, "--out", tmp_path / name, "--backend", name)
        fields.append(np.load(tmp_path / name / "reconstruction.npz")["object"])
    for other in fields[1:]:
        error = np.abs(fields[0] - other).max() / np.abs(fields[0]).max()
        assert error <= 1e-5, error
