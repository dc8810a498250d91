"""The gradient by every trainable array is the reference's."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest

from ptycho_core.engine.protocol import Engine
from ptycho_core.vocabulary import LOG_SCALE, PROBE
from tests.contract.cases import (
    ATTENTION,
    GRADIENT_RTOL,
    IN_PRECISION,
    assert_arrays_close,
    build,
    build_reference,
    expected,
    make_case,
    named_case,
)


@pytest.mark.parametrize(("name", "precision"), IN_PRECISION)
def test_gradients_equal_the_reference(engine: Engine, precision: str, name: str) -> None:
    case = named_case(name)
    assert_arrays_close(
        build(engine, case, precision).gradients(case.batch), expected(name).gradients, GRADIENT_RTOL[precision]
    )


@pytest.mark.parametrize(
    "settings", [{"N": 64, "gridsize": 1, **ATTENTION}, {"N": 96, "gridsize": 2}], ids=["N64_attention", "N96"]
)
def test_gradients_of_a_deeper_cnn_equal_the_reference(engine: Engine, settings: dict[str, Any]) -> None:
    case = make_case(architecture="cnn", groups=1, **settings)
    actual = build(engine, case).gradients(case.batch)
    assert_arrays_close(actual, build_reference(case).gradients(case.batch), GRADIENT_RTOL["64-true"])


def test_gradients_leave_the_network_as_it_is(engine: Engine) -> None:
    case = named_case("merged")
    network = build(engine, case)
    network.gradients(case.batch)
    weights, state = network.weights(), network.optimizer_state()
    assert all(np.array_equal(weights[name], array) for name, array in case.weights.items())
    assert not any(np.any(array) for array in state.values())


def test_gradients_of_two_batches_do_not_add_up(engine: Engine) -> None:
    case = named_case("merged")
    network = build(engine, case)
    network.gradients(case.batches[1])
    assert_arrays_close(network.gradients(case.batch), expected("merged").gradients, GRADIENT_RTOL["64-true"])


def test_supervised_loss_does_not_touch_the_scale(engine: Engine) -> None:
    case = named_case("supervised")
    assert build(engine, case).gradients(case.batch)[LOG_SCALE] == 0


@pytest.mark.parametrize(("probe_trainable", "scale_trainable"), [(False, True), (True, False), (False, False)])
def test_only_trainable_arrays_have_gradients(engine: Engine, probe_trainable: bool, scale_trainable: bool) -> None:
    case = named_case("merged")
    pairs = np.asarray(case.weights[PROBE])
    case = case.lit_by(probe=pairs[..., 0] + 1j * pairs[..., 1])  # the same light, refined or not
    training = attrs.evolve(case.training, probe_trainable=probe_trainable, intensity_scale_trainable=scale_trainable)
    gradients = build(engine, case, training=training).gradients(case.batch)
    chosen = build_reference(case).gradients(case.batch)
    assert np.any(chosen[PROBE]) and np.any(chosen[LOG_SCALE])
    fixed = {name for name, trained in ((PROBE, probe_trainable), (LOG_SCALE, scale_trainable)) if not trained}
    kept = {name: array for name, array in chosen.items() if name not in fixed}
    assert_arrays_close(gradients, kept, GRADIENT_RTOL["64-true"])
