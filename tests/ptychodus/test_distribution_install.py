"""pip does not put the distribution for Ptychodus over another package `ptycho`."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "distributions" / "ptychodus"

if importlib.util.find_spec("pip") is None:
    pytest.skip("pip is not installed", allow_module_level=True)


class Environment:
    """A fresh environment, and where its packages lie."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        self.python = folder / Path(sysconfig.get_path("scripts")).name / Path(sys.executable).name
        found = self.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
        self.packages = Path(found.stdout.strip())

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(self.python), *arguments], capture_output=True, text=True, check=False)

    def install(self) -> subprocess.CompletedProcess[str]:
        """From the folder, as a user does, dependencies left out; skips the test where hatchling cannot be had."""
        command = [sys.executable, "-m", "pip", "--python", str(self.python), "install", "--no-deps", str(FOLDER)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        if "No matching distribution found for hatchling" in done.stderr:
            pytest.skip("hatchling, which builds the distribution, cannot be downloaded")
        return done

    def publish(self, name: str = "ptychopinn", package: str = "ptycho") -> None:
        """Another distribution with that package, as pip would have left it."""
        info = self.packages / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "RECORD").write_text(f"{package}/__init__.py,,\n{name}-1.2.dist-info/METADATA,,\n")
        (self.packages / package).mkdir(exist_ok=True)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "environment")


def test_pip_refuses_beside_another_and_leaves_it_as_it_is(environment: Environment) -> None:
    environment.publish()
    theirs = environment.packages / "ptycho" / "__init__.py"
    theirs.write_text("THEIRS = True\n")
    before = sorted(environment.packages.rglob("*"))
    done = environment.install()
    assert done.returncode != 0
    assert "expected to be the only distribution with a package 'ptycho'; received ptychopinn 1.2" in done.stderr
    assert theirs.read_text() == "THEIRS = True\n"
    assert sorted(environment.packages.rglob("*")) == before


def test_it_installs_where_there_is_no_other_and_is_refused_on_import_once_there_is(environment: Environment) -> None:
    done = environment.install()
    assert done.returncode == 0, done.stderr
    assert environment.run("-c", "import ptycho").returncode == 0
    installed = {path.name for path in environment.packages.iterdir()}
    assert installed == {"ptycho", "ptycho_torch", "lightning", "ptycho_core_ptychodus-0.1.0.dist-info"}
    assert environment.install().returncode == 0, "over itself"
    environment.publish()
    refused = environment.run("-c", "import ptycho")
    assert "received ptychopinn 1.2 beside it" in refused.stderr


def test_lightning_is_left_out_where_it_is_installed_and_a_second_ptycho_torch_is_refused(
    environment: Environment,
) -> None:
    environment.publish("lightning", "lightning")
    theirs = environment.packages / "lightning" / "__init__.py"
    theirs.write_text("THEIRS = True\n")
    done = environment.install()
    assert done.returncode == 0, done.stderr
    assert theirs.read_text() == "THEIRS = True\n"
    assert [path.name for path in (environment.packages / "lightning").iterdir()] == ["__init__.py"]
    environment.publish("ptychopinn-torch", "ptycho_torch")
    refused = environment.install()
    assert "a package 'ptycho_torch'; received ptychopinn-torch 1.2" in refused.stderr
