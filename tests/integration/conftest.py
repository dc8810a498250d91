"""Runs the installed command as a user would: in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ptycho_core.engine.registry import is_installed, registered_engines

ENGINES = sorted(registered_engines())
REQUIRED = [name for name in os.environ.get("PTYCHO_REQUIRE_BACKENDS", "").split(",") if name]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def ptycho() -> Run:
    """`ptycho(*arguments, check=True)`: the finished process, its text kept apart as stdout and stderr."""

    def run(*arguments: object, check: bool = True, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ptycho_core", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, timeout=300)
        if check:
            assert done.returncode == 0, f"exit code {done.returncode} of {command}:\n{done.stderr}"
        return done

    return run


@pytest.fixture(scope="session", params=ENGINES)
def backend(request: pytest.FixtureRequest) -> str:
    """Every registered engine in turn."""
    name: str = request.param
    if not is_installed(name):
        if name in REQUIRED:
            pytest.fail(f"{name} is required by PTYCHO_REQUIRE_BACKENDS and is not installed")
        pytest.skip(f"{name} is not installed")
    return name


@pytest.fixture(scope="session")
def scan_file(ptycho: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated scan: 150 patterns of 32 x 32 pixels."""
    path = tmp_path_factory.mktemp("scan") / "scan.npz"
    ptycho("simulate", path, "--N", 32, "--positions", 150, "--object", "siemens-star", "--photons", 1e6)
    return path


@pytest.fixture(scope="session")
def trained(ptycho: Run, scan_file: Path, backend: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a trained model."""
    folder = tmp_path_factory.mktemp(f"trained-{backend}")
    ptycho("train", scan_file, "--out", folder, "--backend", backend, *SMALL)
    return folder


SMALL = ("--n-filters-scale", 1, "--nepochs", 4)
