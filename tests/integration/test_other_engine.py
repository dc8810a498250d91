"""A model that one engine has trained and written down reconstructs on another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptycho_core.engine.registry import is_installed
from tests.command_line import ptycho
from tests.integration.conftest import ENGINES, SMALL


def test_another_engine_reconstructs_the_same_object_from_an_archive(
    scan_file: Path, backend: str, tmp_path: Path
) -> None:
    others = [name for name in ENGINES if name != backend and is_installed(name)]
    if not others:
        pytest.skip(f"{backend} is the only engine installed")
    ptycho("train", scan_file, "--out", tmp_path, "--backend", backend, *SMALL)
    fields = []
    for name in (backend, *others):
        ptycho("reconstruct", scan_file, "--model", tmp_path, "--out", tmp_path / name, "--backend", name)
        fields.append(np.load(tmp_path / name / "reconstruction.npz")["object"])
    for other in fields[1:]:
        error = np.abs(fields[0] - other).max() / np.abs(fields[0]).max()
        assert error <= 1e-5, error
