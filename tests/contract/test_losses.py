"""Every loss term is the reference's, and means what specs/physics.md says."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
from numpy.typing import NDArray
from ptycho_core_reference import ReferenceNetwork

from ptycho_core.batches.batch import Batch
from ptycho_core.engine.protocol import Engine
from ptycho_core.vocabulary import LOG_SCALE, PROBE
from tests.contract.cases import (
    ALL_TERMS,
    FORWARD_RTOL,
    IN_PRECISION,
    Case,
    assert_arrays_close,
    assert_terms_close,
    build,
    build_reference,
    expected,
    make_case,
    named_case,
)


def blind(case: Case) -> Case:
    """The case with a network that does not see its input: what it predicts no longer depends on the data."""
    return case.lit_by(input_scale=0.0)


def measuring(batch: Batch, diffraction_amplitude: NDArray[Any]) -> Batch:
    return attrs.evolve(batch, diffraction_amplitude=diffraction_amplitude.astype(np.float32))


def given(case: Case, probe: NDArray[Any]) -> Case:
    """The case with this probe, which is not refined."""
    weights = {name: array for name, array in case.weights.items() if name != PROBE}
    training = attrs.evolve(case.training, probe_trainable=False)
    return attrs.evolve(case.lit_by(probe=probe), training=training, weights=weights)


@pytest.mark.parametrize(("name", "precision"), IN_PRECISION)
def test_loss_terms_equal_the_reference(engine: Engine, precision: str, name: str) -> None:
    case = named_case(name)
    terms = build(engine, case, precision).evaluate([case.batch])
    assert_terms_close(terms, expected(name).terms, FORWARD_RTOL[precision])


def test_loss_terms_are_means_over_groups(engine: Engine) -> None:
    case = named_case("merged")
    network = build(engine, case)
    each = [network.evaluate([batch]) for batch in case.batches]
    sizes = np.array([len(batch) for batch in case.batches])
    assert len(set(sizes)) > 1, "the last batch should be smaller"
    means = {name: float(sizes @ [terms[name] for terms in each] / sizes.sum()) for name in each[0]}
    assert_terms_close(network.evaluate(iter(case.batches)), means, 1e-12)


def test_bad_pixels_do_not_matter(engine: Engine) -> None:
    case = blind(named_case("bad_pixels"))
    bad = case.batch.bad_pixels
    amplitude = case.batch.diffraction_amplitude.copy()
    amplitude[:, bad] = 1e4
    network = build(engine, case)
    assert bad.any()
    assert_terms_close(network.evaluate([measuring(case.batch, amplitude)]), network.evaluate([case.batch]), 1e-12)
    with_rubbish = network.gradients(measuring(case.batch, amplitude))
    assert_arrays_close(with_rubbish, network.gradients(case.batch), 1e-12, "gradients")


def test_good_pixels_matter(engine: Engine) -> None:
    case = blind(named_case("bad_pixels"))
    row, column = np.argwhere(~case.batch.bad_pixels)[0]
    amplitude = case.batch.diffraction_amplitude.copy()
    amplitude[0, row, column, 0] += 10
    network = build(engine, case)
    assert network.evaluate([measuring(case.batch, amplitude)])["nll"] > network.evaluate([case.batch])["nll"]


@pytest.mark.parametrize("name", ["merged", "one_frame", "everything"])
def test_a_perfect_prediction_has_no_loss(engine: Engine, name: str) -> None:
    case = blind(named_case(name))
    reference = ReferenceNetwork(case.model, case.training, case.weights)
    amplitude = np.sqrt(reference.predicted_intensity(case.batch))
    terms = build(engine, case).evaluate([measuring(case.batch, np.moveaxis(amplitude, 1, -1))])
    assert abs(terms["nll"]) < 1e-12, terms  # the amplitude is rounded to float32, its square enters
    assert terms["amplitude_mae"] < 1e-6, terms


def test_frames_without_counts_have_a_finite_loss(engine: Engine) -> None:
    case = named_case("merged")
    amplitude = case.batch.diffraction_amplitude.copy()
    amplitude[0] = 0
    batch = measuring(case.batch, amplitude)
    network, reference = build(engine, case), build_reference(case)
    assert_terms_close(network.evaluate([batch]), reference.evaluate([batch]), 1e-12)
    assert_arrays_close(network.gradients(batch), reference.gradients(batch), 1e-10, "gradients")


def test_modes_add_incoherently(engine: Engine) -> None:
    """A probe P is as good as two modes, 0.6 P and 0.8 i P."""
    case = named_case("one_frame")
    probe = case.weights[PROBE][0].astype(np.float64)
    turned = np.stack([-probe[..., 1], probe[..., 0]], axis=-1)
    split = attrs.evolve(case, weights={**case.weights, PROBE: np.stack([0.6 * probe, 0.8 * turned])})
    assert_terms_close(
        build(engine, split).evaluate([case.batch]), build(engine, case).evaluate([case.batch]), rtol=1e-12
    )
    (mode,) = case.illumination.probe.astype(np.complex128)
    whole, split = (given(case, probe) for probe in (mode[None], np.stack([0.6 * mode, 0.8j * mode])))
    assert_terms_close(
        build(engine, split).evaluate([split.batch]), build(engine, whole).evaluate([whole.batch]), rtol=1e-12
    )


def test_log_scale_multiplies_the_amplitude(engine: Engine) -> None:
    case = named_case("one_frame")
    stronger = {**case.weights, PROBE: case.weights[PROBE].astype(np.float64) * np.exp(0.25)}
    scaled = {**case.weights, LOG_SCALE: case.weights[LOG_SCALE].astype(np.float64) + 0.25}
    of_stronger, of_scaled = (
        build(engine, attrs.evolve(case, weights=weights)).evaluate([case.batch]) for weights in (stronger, scaled)
    )
    assert_terms_close(of_scaled, of_stronger, 1e-12)


def test_a_wider_canvas_changes_nothing(engine: Engine) -> None:
    case = make_case(training=ALL_TERMS)
    wider = attrs.evolve(case.batch, canvas_padding_px=case.batch.canvas_padding_px + 5)
    network = build(engine, case)
    assert_terms_close(network.evaluate([wider]), network.evaluate([case.batch]), 1e-12)


def test_groups_without_offsets_are_merged(engine: Engine) -> None:
    case = named_case("merge_uniform")
    batch = attrs.evolve(case.batch, relative_offsets_px=np.zeros_like(case.batch.relative_offsets_px))
    assert_terms_close(build(engine, case).evaluate([batch]), build_reference(case).evaluate([batch]), 1e-12)
