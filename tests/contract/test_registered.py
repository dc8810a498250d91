"""Losses and optimisers that a program brings along compute the same on every engine, with gradients that are slopes.

Those of `examples/own_loss_and_optimizer.py`, or of `pytest tests/contract --plugin MODULE`.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest

from ptycho_core.engine.losses import LOSSES, register_loss
from ptycho_core.engine.optimizers import OPTIMIZERS, register_optimizer
from ptycho_core.engine.protocol import Engine
from ptycho_core.errors import ConfigurationError
from tests.contract.cases import (
    Case,
    assert_arrays_close,
    assert_terms_close,
    build,
    build_reference,
    named_case,
)
from tests.contract.conftest import loaded_plugins
from tests.examples import load_example

if not loaded_plugins():
    load_example("own_loss_and_optimizer")
REGISTERED = tuple(name for name in LOSSES.names() if not LOSSES.is_ours(name))
RULES = tuple(name for name in OPTIMIZERS.names() if not OPTIMIZERS.is_ours(name))
RTOL, SLOPE_RTOL, STEP, RATE = 1e-10, 1e-5, 1e-6, 1e-3


def case_with(**changes: Any) -> Case:
    case = named_case("short")
    return attrs.evolve(case, training=attrs.evolve(case.training, **changes))


@pytest.mark.skipif(not REGISTERED, reason="no loss is registered")
@pytest.mark.field("training.loss_weights")
def test_registered_losses_have_their_value_their_weight_and_their_slope(engine: Engine) -> None:
    """The value is that of numpy in float64; the slope along a random direction that of the values."""
    weights = {name: 0.5 / number for number, name in enumerate(REGISTERED, 1)}
    case = case_with(loss_weights=",".join(f"{name}={weight!r}" for name, weight in weights.items()))
    network, reference = build(engine, case), build_reference(case)
    terms = network.evaluate([case.batch])
    assert_terms_close(terms, reference.evaluate([case.batch]), RTOL)
    without = build_reference(case, training=attrs.evolve(case.training, loss_weights=None)).evaluate([case.batch])
    weighed = sum(weight * terms[name] for name, weight in weights.items())
    assert terms["total"] == pytest.approx(without["total"] + weighed, rel=RTOL)

    if engine.name == "reference":
        return  # it has their values alone
    gradients, rng = network.gradients(case.batch), np.random.default_rng(0)
    start = {name: np.asarray(array, np.float64) for name, array in network.weights().items()}
    direction = {name: rng.normal(size=array.shape) for name, array in gradients.items()}
    slope = sum(float(np.sum(gradients[name] * direction[name])) for name in gradients)
    totals = []
    for step in (STEP, -STEP):
        moved = {name: array + step * direction.get(name, 0) for name, array in start.items()}
        totals.append(build_reference(case, weights=moved).evaluate([case.batch])["total"])
    assert slope == pytest.approx((totals[0] - totals[1]) / (2 * STEP), rel=SLOPE_RTOL)


@pytest.mark.parametrize("name", RULES)
def test_a_registered_optimizer_steps_as_the_reference_and_its_state_goes_on(engine: Engine, name: str) -> None:
    case = case_with(optimizer=name, weight_decay=0.1)
    network, reference = build(engine, case), build_reference(case)
    for each in (network, reference):
        each.train_epoch([case.batch], RATE)
    assert_arrays_close(network.weights(), reference.weights(), RTOL)
    assert_arrays_close(network.optimizer_state(), reference.optimizer_state(), RTOL, "optimiser")
    kept = OPTIMIZERS.load(name).state
    assert {key.partition("/")[0] for key in network.optimizer_state()} == {"step", *kept}
    resumed = build(engine, case, weights=reference.weights())
    resumed.load_optimizer_state(reference.optimizer_state())
    for each in (resumed, reference):
        each.train_epoch([case.batch], RATE)
    assert_arrays_close(resumed.weights(), reference.weights(), RTOL)


def raises(at: Any) -> Any:
    raise KeyError("nowhere")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (raises, r"expected a number, .* received KeyError: 'nowhere' \(test_registered\.py, line \d+\)"),
        (lambda of: of.predicted, r"received an array of shape \(.+\)\. Return a mean"),
        (lambda of: "1", "received str"),
    ],
)
def test_a_loss_that_fails_or_gives_no_number_is_one_line(
    engine: Engine, wrong: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOSSES, "_registered", {})
    register_loss("wrong")(wrong)
    case = case_with(loss_weights="wrong=1")
    with pytest.raises(ConfigurationError, match="loss 'wrong': .*" + words):
        build(engine, case).evaluate([case.batch])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (raises, r"expected \(array, \{'kept': …\}\); received KeyError: 'nowhere' \(test_registered\.py, line"),
        (lambda at: (at.array, {}), "received KeyError: 'kept'"),
        (
            lambda at: (at.xp.sum(at.array), {"kept": at.array}),
            r"received array of \(\)\. Return every one in the shape",
        ),
        (lambda at: at.array, "expected"),
    ],
)
def test_an_optimizer_that_fails_or_changes_a_shape_is_one_line(
    engine: Engine, wrong: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OPTIMIZERS, "_registered", {})
    register_optimizer("wrong", state=("kept",))(wrong)
    case = case_with(optimizer="wrong")
    with pytest.raises(ConfigurationError, match="optimizer 'wrong': .*" + words) as caught:
        build(engine, case).train_epoch([case.batch], RATE)
    assert "\n" not in str(caught.value)
