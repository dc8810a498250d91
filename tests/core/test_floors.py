"""The contract of the floors (ARCHITECTURE.md) holds, and breaks where an import runs up or across."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT = (sys.executable, "-c", "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())")
ENGINES = ("reference", "torch", "tensorflow")


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages and the contract, in a folder of their own."""
    folder = tmp_path_factory.mktemp("floors")
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(ROOT / "ptycho_core", folder / "ptycho_core", ignore=shutil.ignore_patterns("__pycache__"))
    for engine in ENGINES:
        shutil.copytree(ROOT / f"engines/{engine}/ptycho_core_{engine}", folder / f"ptycho_core_{engine}")
    return folder


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"}
    return subprocess.run(LINT, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_floors_are_kept(copied: Path) -> None:
    done = lint(copied)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("ptycho_core/storage/files.py", "import ptycho_core.training.fit", "ptycho_core.storage is not allowed to"),
        (
            "ptycho_core/physics/illumination.py",
            "import ptycho_core.networks.table",
            "ptycho_core.physics is not allowed to",
        ),
        ("ptycho_core/models/model.py", "import ptycho_core_torch", "ptycho_core is not allowed to"),
        ("ptycho_core/engine/steps.py", "import torch", "ptycho_core is not allowed to"),
        ("ptycho_core_torch/ops.py", "import ptycho_core_tensorflow", "ptycho_core_torch is not allowed to"),
    ],
    ids=["up", "across", "core to engine", "core to framework", "engine to engine"],
)
def test_a_planted_import_is_refused(copied: Path, module: str, line: str, broken: str) -> None:
    file = copied / module
    text = file.read_text(encoding="utf-8")
    try:
        file.write_text(f"{text}\n{line}\n", encoding="utf-8")
        done = lint(copied)
    finally:
        file.write_text(text, encoding="utf-8")
    assert done.returncode == 1, done.stdout + done.stderr
    assert broken in done.stdout


def test_a_room_that_is_on_no_floor_is_refused(copied: Path) -> None:
    room = copied / "ptycho_core" / "attic"
    room.mkdir()
    try:
        (room / "__init__.py").write_text("", encoding="utf-8")
        done = lint(copied)
    finally:
        shutil.rmtree(room)
    assert done.returncode == 1
    assert "ptycho_core.attic" in done.stdout + done.stderr
