"""What only one framework can get wrong, and no test of both engines alike would notice."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import pytest

from ptycho_core.errors import BackendError
from ptycho_core.settings.execution import ExecutionConfig
from tests.contract.backends import engine_or_skip
from tests.contract.cases import build, named_case


def test_tensorflow_makes_a_graph_once_for_every_rate_and_physics_weight() -> None:
    """And for every network of one configuration, however many there are."""
    engine, case = engine_or_skip("tensorflow"), named_case("short")
    from ptycho_core_tensorflow.forward import shared_forward
    from ptycho_core_tensorflow.optimizer import graph_step

    shared_forward.cache_clear()
    graph_step.cache_clear()
    for _ in range(2):
        network: Any = build(engine, case)
        for rate, weight in ((1e-3, 1.0), (5e-4, 0.5), (2e-4, 0.0)):
            network.train_epoch([case.batch], rate, weight)
    graphs = (
        network.forward.graph_terms_and_gradients,
        graph_step(network.optimizer.rule, network.optimizer.optimiser),
    )
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


def test_tensorflow_is_refused_in_a_process_forked_from_one_that_has_used_it(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, case = engine_or_skip("tensorflow"), named_case("short")
    build(engine, case)
    monkeypatch.setattr("os.getpid", lambda: -1)
    with pytest.raises(BackendError, match=r"forked from .* by spawn or forkserver"):
        build(engine, case)


@pytest.mark.parametrize(("level", "shown"), [("3", "kept\n"), ("0", "I0000 00:00:1 port.cc] a note\nkept\n")])
def test_tensorflows_first_lines_are_shown_to_who_asks_for_them(
    level: str, shown: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    engine_or_skip("tensorflow")
    from ptycho_core_tensorflow.starting import without_chatter

    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)
    with without_chatter():
        os.write(2, b"I0000 00:00:1 port.cc] a note\nkept\n")
    assert capfd.readouterr().err == shown


def test_tensorflow_comes_without_keras_which_is_there_for_who_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    engine_or_skip("tensorflow")
    import tensorflow
    from ptycho_core_tensorflow.starting import LEGACY, without_keras

    monkeypatch.delenv(LEGACY, raising=False)
    with monkeypatch.context() as first:
        first.delitem(sys.modules, "tensorflow")
        with without_keras():
            assert os.environ[LEGACY] == "1"  # a package that is not installed: nothing is imported
        assert LEGACY not in os.environ
        first.setenv(LEGACY, "0")
        with without_keras():
            assert os.environ[LEGACY] == "0", "who has chosen has their choice"
    with without_keras():
        assert LEGACY not in os.environ, "too late"
    assert tensorflow.keras.__version__.startswith("3.")


@pytest.mark.parametrize("name", ["torch", "tensorflow"])
def test_softplus_is_no_line_yet_where_float64_still_sees_it(name: str) -> None:
    """A framework takes the line from a threshold on, which may be too low."""
    engine_or_skip(name)
    x = np.linspace(15.0, 37.0, 50)
    if name == "torch":
        import torch
        from ptycho_core_torch.ops import ACTIVATIONS

        soft = ACTIVATIONS["softplus"](torch.from_numpy(x)).numpy()
    else:
        import tensorflow as tf
        from ptycho_core_tensorflow.ops import ACTIVATIONS as ACTIVATIONS_TF

        soft = ACTIVATIONS_TF["softplus"](tf.constant(x)).numpy()
    np.testing.assert_allclose(soft, np.logaddexp(0, x), rtol=4e-16)


def test_tensorflow_makes_few_graphs_for_batches_of_any_length() -> None:
    """Each is kept for good: of scans of many lengths it would be one for every last batch."""
    engine, case = engine_or_skip("tensorflow"), named_case("short")
    from ptycho_core_tensorflow.forward import shared_forward

    shared_forward.cache_clear()
    network: Any = build(engine, case)
    count = len(case.batch)
    whole = network.predict(case.batch)
    for length in range(1, count + 1):
        (part, *_) = case.batch.parts(length)
        np.testing.assert_allclose(network.predict(part), whole[:length], rtol=1e-5, atol=1e-6)
    traced = network.forward.graph_patches.experimental_get_tracing_count()
    assert traced <= 1 + np.ceil(np.log2(max(count, 2)) / 2)
