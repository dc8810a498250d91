"""What one engine writes, the other one reads, predicts with and trains on.

Each is compared with the reference by the contract tests; here only what passes from one to the other.
"""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_core.engine.protocol import Engine
from tests.contract.cases import (
    FORWARD_RTOL,
    GRADIENT_RTOL,
    assert_arrays_close,
    assert_field_close,
    assert_terms_close,
    build,
    named_case,
)

Pair = tuple[Engine, Engine]
RATE = 1e-3


@pytest.mark.parametrize("precision", FORWARD_RTOL)
@pytest.mark.parametrize("name", ["merged", "frames_alone", "cnn"])
def test_weights_of_one_engine_predict_the_same_on_the_other(pair: Pair, name: str, precision: str) -> None:
    case = named_case(name)
    one = build(pair[0], case, precision)
    one.train_epoch(case.batches, RATE)
    other = build(pair[1], case, precision, training=None, weights=one.weights())
    # Patches are handed out in complex64, whatever they are computed in.
    rtol = max(2 * FORWARD_RTOL[precision], 1.2e-7)
    assert_field_close(other.predict(case.batch), one.predict(case.batch), rtol, "patches")


@pytest.mark.parametrize("precision", GRADIENT_RTOL)
def test_gradients_are_the_same(pair: Pair, precision: str) -> None:
    case = named_case("everything")
    one, other = (build(engine, case, precision).gradients(case.batch) for engine in pair)
    assert_arrays_close(other, one, 2 * GRADIENT_RTOL[precision], "gradients")


@pytest.mark.parametrize("name", ["short", "all_terms", "supervised"])
def test_a_run_stopped_on_one_engine_goes_on_on_the_other(pair: Pair, name: str) -> None:
    """Two steps on one, weights and Adam's state handed over, the third on the other: the run of one engine alone."""
    case = named_case(name)
    whole = build(pair[0], case)
    whole.train_epoch(case.batches[:2], RATE)
    weights, state = whole.weights(), whole.optimizer_state()
    last = whole.train_epoch(case.batches[2:], RATE)

    resumed = build(pair[1], case)
    resumed.load_weights(weights)
    resumed.load_optimizer_state(state)
    assert_terms_close(resumed.train_epoch(case.batches[2:], RATE), last, 1e-9)
    assert_arrays_close(resumed.weights(), whole.weights(), 1e-9)
    assert_arrays_close(resumed.optimizer_state(), whole.optimizer_state(), 1e-9, "optimiser")


def test_a_float32_run_goes_on_on_the_other_engine(pair: Pair) -> None:
    case = named_case("short")
    whole = build(pair[0], case, "32-true")
    whole.train_epoch(case.batches[:2], RATE)
    resumed = build(pair[1], case, "32-true")
    resumed.load_weights(whole.weights())
    resumed.load_optimizer_state(whole.optimizer_state())
    last = whole.train_epoch(case.batches[2:], RATE)
    assert_terms_close(resumed.train_epoch(case.batches[2:], RATE), last, 1e-5)
    after = resumed.weights()
    for name, array in whole.weights().items():  # where a gradient is mere rounding, Adam's step may be any
        far = np.abs(after[name] - array) > 0.01 * RATE
        assert far.mean() < 0.01, f"{name}: {far.sum()} of {far.size} weights are further off than 1 % of a step"


def test_both_have_the_same_names_in_the_same_order(pair: Pair) -> None:
    case = named_case("everything")
    one, other = (build(engine, case) for engine in pair)
    assert sorted(one.weights()) == sorted(other.weights())
    assert list(one.gradients(case.batch)) == list(other.gradients(case.batch))
    assert sorted(one.optimizer_state()) == sorted(other.optimizer_state())
    assert set(one.evaluate([case.batch])) == set(other.evaluate([case.batch]))
