"""What `examples/` shows works, on every engine that is installed."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_core.engine.registry import is_installed, registered_engines
from tests.examples import load_example


def test_an_op_and_a_network_of_ones_own_train_alike_on_every_engine(capsys: pytest.CaptureFixture[str]) -> None:
    installed = sorted(name for name in registered_engines() if is_installed(name))
    if not installed:
        pytest.skip("no engine is installed")
    objects = load_example("own_op_and_network").main()
    assert sorted(objects) == installed
    printed = capsys.readouterr().out
    for name in installed:
        first, second = (
            float(line.rpartition("loss ")[2]) for line in printed.splitlines() if line.startswith(f"{name}: ")
        )
        assert second < 0.5 * first
        assert np.isfinite(objects[name]).all() and objects[name].std() > 0.01
