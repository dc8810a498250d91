"""A step from equal state is an equal step, and a run that stops goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import numpy as np
import pytest

from ptycho_core.batches.batch import Batch
from ptycho_core.engine.protocol import Engine, Network
from ptycho_core.errors import DataError
from ptycho_core.physics.constants import ADAM_EPSILON
from ptycho_core.vocabulary import LOG_SCALE, PROBE, Weights
from tests.contract.cases import (
    Case,
    assert_arrays_close,
    assert_field_close,
    assert_terms_close,
    build,
    build_reference,
    named_case,
)

RATE = 1e-3
STEP_RTOL = 1e-9
"""In float64: Adam divides by the gradient's size, and so enlarges what rounding does to a small one."""


def run(network: Network, batches: Any, *rates: float) -> tuple[list[Any], Weights, Weights]:
    """The loss terms of one epoch for each rate, then weights and optimiser state."""
    return [network.train_epoch(batches, rate) for rate in rates], network.weights(), network.optimizer_state()


def assert_trains_as_the_reference(engine: Engine, case: Case, batches: Any, *rates: float) -> None:
    terms, weights, state = run(build(engine, case), batches, *rates)
    reference_terms, reference_weights, reference_state = run(build_reference(case), batches, *rates)
    for actual, reference in zip(terms, reference_terms, strict=True):
        assert_terms_close(actual, reference, STEP_RTOL)
    assert_arrays_close(weights, reference_weights, STEP_RTOL)
    assert_arrays_close(state, reference_state, STEP_RTOL, "optimiser")


@pytest.mark.parametrize("name", ["merged", "one_frame", "everything", "supervised", "cnn"])
def test_one_step_equals_the_reference(engine: Engine, name: str) -> None:
    case = named_case(name)
    assert_trains_as_the_reference(engine, case, [case.batch], RATE)


@pytest.mark.parametrize("name", ["merged", "everything", "supervised"])
def test_three_steps_equal_the_reference(engine: Engine, name: str) -> None:
    case = named_case(name)
    assert_trains_as_the_reference(engine, case, case.batches, RATE)


def test_terms_of_an_epoch_are_those_before_each_step(engine: Engine) -> None:
    case = named_case("short")
    network = build(engine, case)
    before = network.evaluate([case.batch])
    assert_terms_close(network.train_epoch([case.batch], RATE), before, 1e-12)
    assert network.evaluate([case.batch])["total"] < before["total"]


def test_losses_so_far_are_those_of_the_batches_that_are_done(engine: Engine) -> None:
    case = named_case("merged")
    assert len(case.batches) > 1
    of_the_first = [
        build(engine, case).train_epoch(case.batches[:count], RATE) for count in range(1, len(case.batches))
    ]
    network = build(engine, case)
    assert network.losses_so_far() == {}
    seen: list[Any] = []

    def watched() -> Iterator[Batch]:
        for batch in case.batches:
            seen.append(network.losses_so_far())
            yield batch

    whole = network.train_epoch(watched(), RATE)
    assert network.losses_so_far() == whole
    network.evaluate(case.batches[:1])
    assert network.losses_so_far() == whole
    assert seen[0] == {}
    for count, terms in enumerate(seen):  # an engine may take a batch before the one before it is done
        assert not terms or any(terms == pytest.approx(done, rel=1e-12) for done in of_the_first[:count]), count
    again = network.train_epoch(case.batches[:1], RATE)
    assert network.losses_so_far() == again


def test_float32_steps_follow_the_reference(engine: Engine) -> None:
    case = named_case("merged")
    terms, weights, _ = run(build(engine, case, "32-true"), case.batches, RATE)
    reference_terms, reference_weights, _ = run(build_reference(case), case.batches, RATE)
    assert_terms_close(terms[0], reference_terms[0], 1e-5)
    for name, array in reference_weights.items():  # where a gradient is mere rounding, Adam's step may be any
        far = np.abs(weights[name] - array) > 0.01 * RATE
        assert far.mean() < 0.01, f"{name}: {far.sum()} of {far.size} weights are further off than 1 % of a step"


def test_float32_step_is_adam_of_the_gradient(engine: Engine) -> None:
    """The first step is lr · g / (|g| + ε)."""
    case = named_case("short")
    network = build(engine, case, "32-true")
    gradients = network.gradients(case.batch)
    rate = 0.5  # large, so that rounding of the weights is small beside the step
    network.train_epoch([case.batch], rate)
    after = network.weights()
    for name, gradient in gradients.items():
        g = gradient.astype(np.float64)
        clear = np.abs(g) > 1e-2 * np.abs(g).max()  # well above its rounding
        step = (case.weights[name] - after[name]) / rate
        assert_field_close(step[clear], (g / (np.abs(g) + ADAM_EPSILON))[clear], 3e-6, f"step of {name}")


def test_learning_rate_is_honoured(engine: Engine) -> None:
    case = named_case("short")
    assert_trains_as_the_reference(engine, case, [case.batch], 1e-3, 5e-4, 0.0)
    network = build(engine, case)
    network.train_epoch([case.batch], 0.0)
    assert_arrays_close(network.weights(), case.weights, 0.0)


@pytest.mark.parametrize("limit", [1e-3, 1e6])
def test_gradients_are_clipped_together(engine: Engine, limit: float) -> None:
    case = named_case("short")
    case = attrs.evolve(case, training=attrs.evolve(case.training, gradient_clip_val=limit))
    assert_trains_as_the_reference(engine, case, case.batches, RATE)
    gradients = build(engine, case).gradients(case.batch)
    norm = np.sqrt(sum(np.sum(array**2) for array in gradients.values()))
    unclipped = build(engine, named_case("short")).gradients(case.batch)
    full = np.sqrt(sum(np.sum(array**2) for array in unclipped.values()))
    assert 1e-3 < full < 1e6
    assert norm == pytest.approx(min(limit, full), rel=1e-12)


@pytest.mark.parametrize(("probe_trainable", "scale_trainable"), [(True, False), (False, True)])
def test_only_trainable_arrays_change(engine: Engine, probe_trainable: bool, scale_trainable: bool) -> None:
    case = named_case("short")
    training = attrs.evolve(case.training, probe_trainable=probe_trainable, intensity_scale_trainable=scale_trainable)
    network = build(engine, case, training=training)
    network.train_epoch(case.batches, RATE)
    after, state = network.weights(), network.optimizer_state()
    changed = {name for name, array in after.items() if not np.array_equal(array, case.weights[name])}
    layers = {name for name in case.weights if name.endswith(("/kernel", "/bias"))}
    trained = layers | ({PROBE} if probe_trainable else set()) | ({LOG_SCALE} if scale_trainable else set())
    assert changed == trained
    assert set(state) == {"step"} | {
        f"{moment}/{name}" for moment in ("first_moment", "second_moment") for name in trained
    }


@pytest.mark.parametrize("name", ["short", "supervised", "merged"])
def test_a_run_that_stops_goes_on(engine: Engine, name: str) -> None:
    """With "merged" the probe is refined, and merge weights stay those of the probe that the run began with."""
    case = named_case(name)
    whole = build(engine, case)
    whole.train_epoch(case.batches[:2], RATE)
    weights, state = whole.weights(), whole.optimizer_state()
    assert state["step"].shape == ()
    assert state["step"].dtype == np.float64
    assert state["step"] == 2
    rest = whole.train_epoch(case.batches[2:], RATE)

    resumed = build(engine, case)
    resumed.load_weights(weights)
    resumed.load_optimizer_state(state)
    assert_terms_close(resumed.train_epoch(case.batches[2:], RATE), rest, 1e-12)
    assert_arrays_close(resumed.weights(), whole.weights(), 1e-12)
    assert_arrays_close(resumed.optimizer_state(), whole.optimizer_state(), 1e-12, "optimiser")


def test_optimizer_state_starts_at_nothing(engine: Engine) -> None:
    case = named_case("short")
    network = build(engine, case)
    assert not any(np.any(array) for array in network.optimizer_state().values())
    network.train_epoch(case.batches, RATE)
    network.load_weights(case.weights)
    assert not any(np.any(array) for array in network.optimizer_state().values())


def test_optimizer_state_is_a_copy(engine: Engine) -> None:
    case = named_case("short")
    network, untouched = build(engine, case), build(engine, case)
    for each in (network, untouched):
        each.train_epoch([case.batch], RATE)
    for array in network.optimizer_state().values():
        array[...] = np.nan
    given = {name: array.copy() for name, array in untouched.optimizer_state().items()}
    network.load_optimizer_state(given)
    for array in given.values():
        array[...] = np.nan
    assert_arrays_close(network.optimizer_state(), untouched.optimizer_state(), 0.0, "optimiser")


def test_merge_weights_stay_while_the_probe_is_trained(engine: Engine) -> None:
    """They follow the probe of the batch, which is the one that the run began with."""
    case = named_case("merged")
    moved, reference = build(engine, case), build_reference(case)
    for network in (moved, reference):
        network.train_epoch([case.batch] * 2, 0.05)
    assert_terms_close(moved.evaluate([case.batch]), reference.evaluate([case.batch]), STEP_RTOL)
    loaded = build(engine, case)
    loaded.load_weights(moved.weights())
    assert_terms_close(loaded.evaluate([case.batch]), moved.evaluate([case.batch]), 1e-12)
    fresh = build(engine, case, weights=moved.weights())
    assert_terms_close(fresh.evaluate([case.batch]), moved.evaluate([case.batch]), 1e-12)
    pairs = moved.weights()[PROBE]
    other = case.lit_by(probe=pairs[..., 0] + 1j * pairs[..., 1])
    assert fresh.evaluate([other.batch])["nll"] != pytest.approx(fresh.evaluate([case.batch])["nll"], rel=1e-9)


def test_batches_are_taken_once_and_in_order(engine: Engine) -> None:
    case = named_case("short")
    taken = []

    def one_by_one() -> Iterator[Batch]:
        for number, batch in enumerate(case.batches):
            taken.append(number)
            yield batch

    once, reference = build(engine, case), build_reference(case)
    terms = once.train_epoch(one_by_one(), RATE)
    assert taken == list(range(len(case.batches)))
    assert_terms_close(terms, reference.train_epoch(case.batches, RATE), STEP_RTOL)


def test_an_exception_of_the_batches_passes_through(engine: Engine) -> None:
    class Stop(Exception):
        pass

    case = named_case("short")

    def interrupted() -> Iterator[Batch]:
        yield case.batch
        raise Stop

    network = build(engine, case)
    with pytest.raises(Stop):
        network.train_epoch(interrupted(), RATE)
    assert np.isfinite(network.evaluate([case.batch])["total"])


def test_a_border_that_its_offsets_overrun_is_refused(engine: Engine) -> None:
    """A canvas that does not hold its patches would make a loss of another object, without a word."""
    case = named_case("merged")
    tight = attrs.evolve(case.batch, canvas_padding_px=int(np.abs(case.batch.relative_offsets_px).max()) - 1)
    network = build(engine, case)
    for step in (network.evaluate, lambda batches: network.train_epoch(batches, 1e-3, 1.0)):
        with pytest.raises(DataError, match="canvas_padding_px: expected at least"):
            step([tight])
