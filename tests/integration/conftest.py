"""A scan, and a model that the installed command trained in a process of its own, as a user would; others read it."""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import pytest

from ptycho_core.engine.registry import is_installed, registered_engines
from tests.command_line import Outcome, ptycho, run_apart

ENGINES = sorted(registered_engines())
REQUIRED = [name for name in os.environ.get("PTYCHO_REQUIRE_BACKENDS", "").split(",") if name]
PATTERNS = 48
SMALL = ("--architecture", "cnn", "--n-filters-scale", 1, "--no-pad-object", "--nepochs", 4, "--batch-size", 4)


INSTALLED = [name for name in ENGINES if is_installed(name)]
ONE = INSTALLED[-1] if INSTALLED else ""
"""Where a test does the same on every engine; PyTorch where it is there, which starts soonest."""
needs_an_engine = pytest.mark.skipif(not INSTALLED, reason="no engine is installed")


@attrs.frozen
class Trained:
    """The folder of a trained model, and what the command printed."""

    folder: Path
    printed: Outcome


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
def scan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated scan: PATTERNS patterns of 32 x 32 pixels."""
    path = tmp_path_factory.mktemp("scan") / "scan.npz"
    ptycho("simulate", path, "--N", 32, "--positions", PATTERNS, "--object", "siemens-star", "--photons", 1e6)
    return path


@pytest.fixture(scope="session")
def trained(scan_file: Path, backend: str, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp(f"trained-{backend}")
    done = run_apart("train", scan_file, "--out", folder, "--backend", backend, *SMALL, "--json")
    assert done.code == 0, done.err
    return Trained(folder, done)


@pytest.fixture(scope="session")
def reconstructed(trained: Trained, scan_file: Path, backend: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the scan's reconstruction by the trained model. Read it; write elsewhere."""
    folder = tmp_path_factory.mktemp(f"reconstructed-{backend}")
    ptycho("reconstruct", scan_file, "--model", trained.folder, "--out", folder, "--backend", backend)
    return folder
