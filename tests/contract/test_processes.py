"""Several processes compute what one computes, to rounding (specs/engine.md, Several processes)."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho_core.engine.protocol import Engine
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.vocabulary import Weights
from tests.contract.process_cases import alone, differences

PAIR = (("cnn", "32-true"), ("canvas", "64-true"), ("stepped", "64-true"))


@pytest.fixture
def sharing(engine: Engine) -> Any:
    if not hasattr(engine, "join"):
        pytest.skip(f"{engine.name} works alone")
    return engine


@functools.cache
def of_one(engine: Engine, work: str, precision: str) -> Weights:
    return alone(engine, work, precision)


def test_two_processes_of_the_framework_make_what_one_makes(sharing: Any, tmp_path: Path) -> None:
    """Of 4 groups or frames, and of 1: one of them has nothing then."""
    works = [f"{work}:{precision}" for work, precision in PAIR]
    command = [sys.executable, "-m", "tests.contract.pair", sharing.name, str(tmp_path), *works]
    assert sharing.launch(command, ExecutionConfig(accelerator="cpu", devices=2)) == 0
    for work, precision in PAIR:
        both = [dict(np.load(tmp_path / f"{work}-{precision}-{rank}.npz")) for rank in (0, 1)]
        assert differences(both[0], of_one(sharing, work, precision), precision) == [], (work, precision)
        for name, array in both[0].items():
            np.testing.assert_array_equal(both[1][name], array, err_msg=f"{work} {precision} {name}")
