"""Probe and data scale come with the batch: one network takes scans of several probes, doses and units."""

from __future__ import annotations

import gc
from typing import Any

import attrs
import numpy as np
import pytest
from numpy.typing import NDArray

from ptycho_core.batches.batch import Batch
from ptycho_core.engine.protocol import Engine
from ptycho_core.physics.illumination import Illumination
from ptycho_core.vocabulary import LOG_SCALE, PROBE
from tests.contract.cases import (
    GRADIENT_RTOL,
    Case,
    assert_arrays_close,
    assert_field_close,
    assert_terms_close,
    build,
    build_reference,
    make_probe,
    named_case,
)

RATE = 1e-3
STEP_RTOL = 1e-9


def in_another_unit(batch: Batch, factor: float) -> Batch:
    """The same measurement, its amplitudes times `factor`: a power of 2, which rounds nothing."""
    lit = batch.illumination
    return attrs.evolve(
        batch,
        diffraction_amplitude=batch.diffraction_amplitude * np.float32(factor),
        illumination=attrs.evolve(
            lit,
            probe=lit.probe * np.float32(factor),
            input_scale=lit.input_scale / factor,
            mean_intensity=lit.mean_intensity * factor**2,
            counts_per_intensity=lit.counts_per_intensity / factor**2,
        ),
    )


def batches_of_several_scans(case: Case) -> list[Batch]:
    """The batches of a case, each of another scan: another probe with other modes, another dose, another unit."""
    first, second, third = case.batches
    lit = case.illumination
    probe = make_probe(case.model.N, 3) * np.abs(lit.probe).max() * 0.7
    second = attrs.evolve(second, illumination=attrs.evolve(lit, probe=probe, mean_intensity=1.7 * lit.mean_intensity))
    scale = attrs.evolve(lit, input_scale=0.6 * lit.input_scale, counts_per_intensity=2.5 * lit.counts_per_intensity)
    return [first, second, attrs.evolve(third, illumination=scale), in_another_unit(first, 4.0)]


@pytest.mark.parametrize("name", ["given_probe", "merged"])
def test_one_training_takes_batches_of_several_illuminations(engine: Engine, name: str) -> None:
    """With "merged" one refined probe takes the place of all of them but in the merges."""
    case = named_case(name)
    batches = batches_of_several_scans(case)
    network, reference = build(engine, case), build_reference(case)
    for batch in batches:
        assert_terms_close(network.evaluate([batch]), reference.evaluate([batch]), 1e-12)
        assert_field_close(network.predict(batch), reference.predict(batch), 1.2e-7, "patches")
        assert_arrays_close(network.gradients(batch), reference.gradients(batch), GRADIENT_RTOL["64-true"], "gradients")
    assert_terms_close(network.train_epoch(batches, RATE), reference.train_epoch(batches, RATE), STEP_RTOL)
    assert_arrays_close(network.weights(), reference.weights(), STEP_RTOL)


@pytest.mark.parametrize("name", ["given_probe", "one_frame"])
def test_a_probe_is_a_weight_only_where_it_is_refined(engine: Engine, name: str) -> None:
    case = named_case(name)
    assert (PROBE in build(engine, case).weights()) == (name == "one_frame")
    for training in (None, attrs.evolve(case.training, probe_trainable=False)):
        weights = build(engine, case, training=training).weights()
        assert PROBE not in weights and LOG_SCALE in weights
        assert not any(key.startswith("data/") for key in weights)


def test_what_is_minimised_does_not_depend_on_the_unit(engine: Engine) -> None:
    case = named_case("given_probe")
    network, other = build(engine, case), in_another_unit(case.batch, 8.0)
    assert_terms_close(network.evaluate([other]), network.evaluate([case.batch]), 1e-12)
    assert_field_close(network.predict(other), network.predict(case.batch), 1.2e-7, "patches")
    assert_arrays_close(network.gradients(other), network.gradients(case.batch), 1e-9, "gradients")


def test_the_probe_of_a_batch_is_the_one_that_lights_it(engine: Engine) -> None:
    case = named_case("given_probe")
    network = build(engine, case)
    brighter = case.lit_by(probe=case.illumination.probe * np.float32(1.25))
    stronger = {**case.weights, LOG_SCALE: case.weights[LOG_SCALE] + np.log(1.25)}
    as_strong = build(engine, case, weights=stronger).evaluate([case.batch])
    assert_terms_close(network.evaluate([brighter.batch]), as_strong, 1e-7)  # the probe is rounded to float32
    assert network.evaluate([brighter.batch])["nll"] != pytest.approx(network.evaluate([case.batch])["nll"], rel=1e-3)


def test_an_illumination_is_not_taken_for_another_that_was_there_before(engine: Engine) -> None:
    """Made, used and dropped one after the other, new ones come to lie where old ones were."""
    case = named_case("given_probe")
    network, fresh = build(engine, case), build(engine, case)
    expected = {}
    for factor in (1.0, 1.5):
        batch = case.lit_by(probe=case.illumination.probe * np.float32(factor)).batch
        expected[factor] = fresh.evaluate([batch])["nll"]
    for factor in [1.0, 1.5] * 10:
        batch = case.lit_by(probe=case.illumination.probe * np.float32(factor)).batch
        assert network.evaluate([batch])["nll"] == expected[factor]
        del batch
        gc.collect(1)  # of all that this process holds it would take half a second


@attrs.frozen(eq=False, kw_only=True)
class Counting(Illumination):
    """Counts how often an engine asks for the probe that it brings to its device."""

    asked: list[None] = attrs.field(factory=list)

    @property
    def pairs(self) -> NDArray[np.floating]:
        self.asked.append(None)
        return super().pairs


def test_an_illumination_that_was_predicted_with_is_trained_with(engine: Engine) -> None:
    """What a framework makes outside its record of gradients may be of no use inside it."""
    case = named_case("given_probe")
    network, fresh = build(engine, case), build(engine, case)
    network.predict(case.batch)
    network.evaluate([case.batch])
    assert_terms_close(network.train_epoch(case.batches, RATE), fresh.train_epoch(case.batches, RATE), 1e-12)
    assert_arrays_close(network.weights(), fresh.weights(), STEP_RTOL)


def test_an_illumination_is_brought_to_the_device_once(engine: Engine) -> None:
    case = named_case("given_probe")
    facts: dict[str, Any] = attrs.asdict(case.illumination, recurse=False)
    lit = Counting(**facts)
    batches = [attrs.evolve(batch, illumination=lit) for batch in case.batches]
    network = build(engine, case)
    network.train_epoch(batches[:1], RATE)
    before = len(lit.asked)
    network.train_epoch(batches, RATE)
    network.evaluate(batches)
    network.predict(batches[0])
    assert before > 0
    assert len(lit.asked) == before


def test_a_batch_with_a_probe_of_another_size_is_refused() -> None:
    batch = named_case("given_probe").batch
    smaller = attrs.evolve(batch.illumination, probe=np.ones((1, 16, 16)))
    with pytest.raises(ValueError, match=r"batch: expected a probe \(modes, 32, 32\); received \(1, 16, 16\)"):
        attrs.evolve(batch, illumination=smaller)
