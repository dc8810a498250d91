"""Several processes compute what one computes, to rounding (specs/engine.md, Several processes)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ptycho_core.engine.protocol import Engine
from ptycho_core.vocabulary import Weights
from tests.contract.process_cases import DIES, differences

WORKS = {"cnn": "32-true", "canvas": "64-true", "stepped": "64-true"}


@pytest.fixture(scope="module")
def pair(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two processes that have done everything (tests.contract.pair)."""
    if not hasattr(engine, "join"):
        pytest.skip(f"{engine.name} works alone")
    folder = tmp_path_factory.mktemp("pair")
    works = [f"{work}:{precision}" for work, precision in WORKS.items()]
    done = subprocess.run([sys.executable, "-m", "tests.contract.pair", engine.name, folder, *works], timeout=120)
    assert done.returncode == DIES
    return folder


def arrays(file: Path) -> Weights:
    return dict(np.load(file))


@pytest.mark.parametrize("work", WORKS)
def test_two_processes_make_what_one_makes(pair: Path, work: str) -> None:
    """Of 2 groups or 4 frames, and of 1: one of them has nothing then."""
    theirs, ours = arrays(pair / f"{work}-0.npz"), arrays(pair / f"{work}-alone.npz")
    assert differences(theirs, ours, WORKS[work]) == []


@pytest.mark.parametrize("work", WORKS)
def test_both_processes_have_the_same_bits(pair: Path, work: str) -> None:
    first, second = (arrays(pair / f"{work}-{rank}.npz") for rank in (0, 1))
    assert sorted(first) == sorted(second)
    for name, array in first.items():
        np.testing.assert_array_equal(second[name], array, err_msg=name)


def test_a_process_that_ends_is_an_error_of_the_other(pair: Path) -> None:
    error = (pair / "error").read_text()
    assert "process 1 of 2: expected the other processes of the run; received one that has ended" in error
    assert "Graph execution error" not in error
