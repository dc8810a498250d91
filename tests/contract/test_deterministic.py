"""The setting that changes the process for good, in a file of its own: run after all others, it disturbs none."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_core.engine.protocol import Engine
from ptycho_core.settings.execution import ExecutionConfig
from tests.contract.cases import build, named_case


@pytest.mark.last
@pytest.mark.field("execution.deterministic")
def test_deterministic_steps_are_the_same_to_the_last_bit(engine: Engine) -> None:
    case = named_case("spatial")
    execution = ExecutionConfig(accelerator="cpu", deterministic=True)
    runs = []
    for _ in range(2):
        network = engine.build(case.model, case.training, case.weights, execution)
        network.train_epoch([case.batch] * 3, 1e-2)
        runs.append(network.weights())
    for name, array in runs[0].items():
        np.testing.assert_array_equal(runs[1][name], array, err_msg=name)
    assert any((runs[0][name] != case.weights[name]).any() for name in runs[0])
    build(engine, case)  # not deterministic: switches it off again where the framework can
