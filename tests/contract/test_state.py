"""Weights go in and come out as they are, under their canonical names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ptycho_core.engine.protocol import Engine
from ptycho_core.errors import ArchiveError
from ptycho_core.vocabulary import LOG_SCALE, PROBE
from tests.contract.cases import PRECISIONS, assert_field_close, build, build_reference, expected, named_case

KERNEL = "encoder/conv0/kernel"


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["merged", "two_modes", "cnn"])
def test_weights_come_back_exactly(engine: Engine, name: str, precision: str) -> None:
    case = named_case(name)
    weights = build(engine, case, precision).weights()
    assert sorted(weights) == sorted(case.weights)
    for key, array in case.weights.items():
        assert isinstance(weights[key], np.ndarray), f"{key} is a {type(weights[key])}"
        assert weights[key].shape == array.shape, key
        np.testing.assert_array_equal(weights[key], array, err_msg=key)


def test_weights_that_are_loaded_are_the_ones_used(engine: Engine) -> None:
    case = named_case("short")
    rng = np.random.default_rng(0)
    other = {name: (array * rng.uniform(0.9, 1.1)).astype(np.float32) for name, array in case.weights.items()}
    network = build(engine, case)
    network.predict(case.batch)  # nothing of the first weights may be remembered
    network.evaluate([case.batch])
    network.load_weights(other)
    reference = build_reference(case, weights=other)
    assert_field_close(network.predict(case.batch), reference.predict(case.batch), 1.2e-7, "patches")
    assert network.evaluate([case.batch])["total"] == pytest.approx(
        reference.evaluate([case.batch])["total"], rel=1e-12
    )
    for key, array in other.items():
        np.testing.assert_array_equal(network.weights()[key], array, err_msg=key)


def test_weights_are_copies(engine: Engine) -> None:
    case = named_case("short")
    given = {name: array.copy() for name, array in case.weights.items()}
    network = build(engine, case, "32-true", weights=given)
    for array in (*given.values(), *network.weights().values()):
        array[...] = np.nan
    for key, array in case.weights.items():
        np.testing.assert_array_equal(network.weights()[key], array, err_msg=key)
    before = network.weights()
    network.train_epoch([case.batch], 1e-3)
    np.testing.assert_array_equal(before[KERNEL], case.weights[KERNEL])


def without(weights: Any) -> Any:
    return {name: array for name, array in weights.items() if name != KERNEL}


def with_nan(weights: Any) -> Any:
    array = weights[KERNEL].copy()
    array[0, 0, 0, 0] = np.nan
    return {**weights, KERNEL: array}


DAMAGE: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "missing": (KERNEL, without),
    "unexpected": ("encoder/conv9/kernel", lambda weights: {**weights, "encoder/conv9/kernel": np.zeros(3)}),
    "transposed": (KERNEL, lambda weights: {**weights, KERNEL: weights[KERNEL].transpose(3, 2, 0, 1)}),
    "not_finite": (KERNEL, with_nan),
    "probe_without_modes": (PROBE, lambda weights: {**weights, PROBE: weights[PROBE][0]}),
    "scale_not_a_scalar": (LOG_SCALE, lambda weights: {**weights, LOG_SCALE: np.zeros(1)}),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_load_weights_refuses_what_does_not_fit(engine: Engine, kind: str) -> None:
    case = named_case("short")
    name, damage = DAMAGE[kind]
    network = build(engine, case)
    with pytest.raises(ArchiveError, match=name):
        network.load_weights(damage(case.weights))
    np.testing.assert_array_equal(network.predict(case.batch), build(engine, case).predict(case.batch))
    with pytest.raises(ArchiveError, match=name):
        build(engine, case, weights=damage(case.weights))


def test_another_number_of_modes_takes_another_network(engine: Engine) -> None:
    case = named_case("short")
    network = build(engine, case)
    two = {**case.weights, PROBE: np.concatenate([case.weights[PROBE]] * 2)}
    with pytest.raises(ArchiveError, match=rf"{PROBE}: expected shape \(1, 32, 32, 2\); received \(2, 32, 32, 2\)"):
        network.load_weights(two)
    np.testing.assert_array_equal(network.weights()[PROBE], case.weights[PROBE])
    np.testing.assert_array_equal(build(engine, case, weights=two).weights()[PROBE], two[PROBE])


def test_weights_in_float64_are_taken_in_full(engine: Engine) -> None:
    case = named_case("one_frame")
    finer = {name: array.astype(np.float64) * (1 + 1e-9) for name, array in case.weights.items()}
    network, reference = build(engine, case, weights=finer), build_reference(case, weights=finer)
    for key, array in finer.items():
        np.testing.assert_array_equal(network.weights()[key], array, err_msg=key)
    total = network.evaluate([case.batch])["total"]
    assert total == pytest.approx(reference.evaluate([case.batch])["total"], rel=1e-12)
    assert total != pytest.approx(expected("one_frame").terms["total"], rel=1e-12)
