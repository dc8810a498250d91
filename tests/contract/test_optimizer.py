"""Optimisers, clipping, accumulation and the physics weight are the reference's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import numpy as np
import pytest

from ptycho_core.batches.batch import Batch
from ptycho_core.engine.protocol import Engine
from ptycho_core.errors import ArchiveError
from tests.contract.cases import (
    Case,
    assert_arrays_close,
    assert_terms_close,
    build,
    build_reference,
    named_case,
)
from tests.contract.test_training_step import RATE, STEP_RTOL, assert_trains_as_the_reference

SETTINGS: dict[str, dict[str, Any]] = {
    "adam": {"adam_beta1": 0.8, "adam_beta2": 0.95, "weight_decay": 0.1},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1},
    "sgd": {"optimizer": "sgd", "momentum": 0.8, "weight_decay": 0.1},
    "sgd_without_momentum": {"optimizer": "sgd", "momentum": 0.0},
    "clipped_and_accumulated": {
        "accum_steps": 2,
        "weight_decay": 0.1,
        "gradient_clip_val": 1e-2,
        "gradient_clip_algorithm": "agc",
    },
}


def case_with(name: str = "short", **settings: Any) -> Case:
    case = named_case(name)
    return attrs.evolve(case, training=attrs.evolve(case.training, **settings))


def joined(one: Batch, other: Batch) -> Batch:
    """The groups of both."""
    together = {
        name: np.concatenate([getattr(one, name), getattr(other, name)])
        for name in ("diffraction_amplitude", "relative_offsets_px", "object_patches")
    }
    return attrs.evolve(one, **together)


@pytest.mark.parametrize("name", SETTINGS)
def test_steps_equal_the_reference(engine: Engine, name: str) -> None:
    """Two, the second from moments that are not 0; where batches are accumulated, the second of a smaller one alone."""
    case = case_with(**SETTINGS[name])
    accumulated = case.training.accum_steps > 1
    assert_trains_as_the_reference(engine, case, case.batches if accumulated else [case.batch] * 2, RATE)


@pytest.mark.parametrize("algorithm", ["norm", "value", "agc"])
def test_clipped_gradients_equal_the_reference(engine: Engine, algorithm: Any) -> None:
    case = case_with("everything", gradient_clip_val=1e-2, gradient_clip_algorithm=algorithm)
    actual, reference = (network.gradients(case.batch) for network in (build(engine, case), build_reference(case)))
    assert_arrays_close(actual, reference, 1e-10, "gradients")


@pytest.mark.parametrize("second", [1, 2], ids=["equal", "smaller"])
def test_accumulated_batches_are_one_batch(engine: Engine, second: int) -> None:
    """Each counts by its groups, also where one is smaller."""
    case = case_with(accum_steps=2, weight_decay=0.1, gradient_clip_val=1e-2)
    one, other = case.batches[0], case.batches[second]
    assert (len(one.diffraction_amplitude) == len(other.diffraction_amplitude)) == (second == 1)
    accumulated = build(engine, case)
    terms = accumulated.train_epoch([one, other], RATE)
    at_once = build_reference(case, training=attrs.evolve(case.training, accum_steps=1))
    assert_terms_close(terms, at_once.train_epoch([joined(one, other)], RATE), STEP_RTOL)
    assert_arrays_close(accumulated.weights(), at_once.weights(), STEP_RTOL)
    assert_arrays_close(accumulated.optimizer_state(), at_once.optimizer_state(), STEP_RTOL, "optimiser")


def test_nothing_is_left_of_a_window_that_was_interrupted(engine: Engine) -> None:
    case = case_with(accum_steps=2)

    def interrupted() -> Iterator[Batch]:
        yield case.batch
        raise KeyboardInterrupt

    network, reference = build(engine, case), build_reference(case)
    with pytest.raises(KeyboardInterrupt):
        network.train_epoch(interrupted(), RATE)
    assert_arrays_close(network.weights(), case.weights, 0.0)
    assert not any(np.any(array) for array in network.optimizer_state().values())
    for each in (network, reference):
        each.train_epoch([case.batch], RATE)
    assert_arrays_close(network.weights(), reference.weights(), STEP_RTOL)


def test_physics_weight_is_that_of_the_diffraction_losses(engine: Engine) -> None:
    case = case_with("all_terms", optimizer="sgd")
    network, reference = build(engine, case), build_reference(case)
    for weight in (0.3, 0.0):
        assert_terms_close(
            network.train_epoch([case.batch], RATE, weight),
            reference.train_epoch([case.batch], RATE, physics_weight=weight),
            STEP_RTOL,
        )
    assert_arrays_close(network.weights(), reference.weights(), STEP_RTOL)
    terms, training = reference.evaluate([case.batch]), case.training
    real_space = training.realspace_weight * terms["total_variation"]
    real_space += training.realspace_mae_weight * terms["realspace_mae"]
    without = network.train_epoch([case.batch], 0.0, 0.0)
    assert without["total"] == pytest.approx(terms["amplitude_mae"] + real_space, rel=STEP_RTOL)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_run_of_another_engine_goes_on(engine: Engine, name: str) -> None:
    case = case_with(**SETTINGS[name])
    reference = build_reference(case)
    reference.train_epoch([case.batch] * 2, RATE)
    network = build(engine, case, weights=reference.weights())
    network.load_optimizer_state(reference.optimizer_state())
    for each in (network, reference):
        each.train_epoch([case.batch], RATE)
    assert_arrays_close(network.weights(), reference.weights(), STEP_RTOL)
    assert_arrays_close(network.optimizer_state(), reference.optimizer_state(), STEP_RTOL, "optimiser")


def test_the_state_of_another_optimizer_is_refused(engine: Engine) -> None:
    kernel = "encoder/conv0/kernel"
    for own, other, missing, unexpected in (
        ("adam", "sgd", "first_moment", "momentum"),
        ("sgd", "adamw", "momentum", "second_moment"),
    ):
        network = build(engine, case_with(optimizer=own))  # type: ignore[arg-type]
        state = build_reference(case_with(optimizer=other)).optimizer_state()
        with pytest.raises(ArchiveError, match=f"missing .*{missing}/{kernel}.*unexpected .*{unexpected}/{kernel}"):
            network.load_optimizer_state(state)
        assert network.optimizer_state()["step"] == 0


def test_a_state_of_other_shapes_is_refused(engine: Engine) -> None:
    case = named_case("short")
    network = build(engine, case)
    state = dict(network.optimizer_state())
    name = "first_moment/probe/field"
    with pytest.raises(ArchiveError, match=rf"{name}: expected shape \(1, 32, 32, 2\); received \(2, 32, 32, 2\)"):
        network.load_optimizer_state({**state, name: np.concatenate([state[name]] * 2)})
