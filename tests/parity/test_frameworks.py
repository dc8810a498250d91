"""What only one framework can get wrong, and no test of both engines alike would notice."""

from __future__ import annotations

import pytest

from ptycho_core.settings.execution import ExecutionConfig
from tests.contract.backends import engine_or_skip
from tests.contract.cases import build, named_case


def test_tensorflow_makes_a_graph_once_for_every_rate_and_physics_weight() -> None:
    case = named_case("short")
    network = build(engine_or_skip("tensorflow"), case)
    for rate, weight in ((1e-3, 1.0), (5e-4, 0.5), (2e-4, 0.0)):
        network.train_epoch([case.batch], rate, weight)
    graphs = (network._graph_terms_and_gradients, network.optimizer._graph_step)  # type: ignore[attr-defined]
    assert [graph.experimental_get_tracing_count() for graph in graphs] == [1, 1]


@pytest.mark.parametrize("then", [True, False])
def test_pytorch_is_as_deterministic_as_the_last_network_asks_for(then: bool) -> None:
    engine = engine_or_skip("torch")
    import torch

    case = named_case("short")
    for deterministic in (not then, then):
        execution = ExecutionConfig(accelerator="cpu", deterministic=deterministic)
        engine.build(case.model, case.training, case.weights, execution)
    assert torch.are_deterministic_algorithms_enabled() == then
    build(engine, case)  # off again
