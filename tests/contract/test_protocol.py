"""What an engine says about itself, and the shapes and kinds of what it returns."""

from __future__ import annotations

import json

import attrs
import numpy as np
import pytest

from ptycho_core.engine.protocol import CHANGES, PROTOCOL, Engine, EngineInfo, Network
from ptycho_core.errors import BackendError
from ptycho_core.settings.execution import ExecutionConfig
from tests.contract.cases import FORWARD_RTOL, PRECISIONS, assert_field_close, build, expected, named_case


def test_engine_and_network_have_the_protocols_methods(engine: Engine) -> None:
    assert isinstance(engine, Engine)
    assert isinstance(build(engine, named_case("merged")), Network)


def test_an_engine_is_written_for_this_door(engine: Engine) -> None:
    assert engine.protocol == PROTOCOL
    assert PROTOCOL in CHANGES


def test_describe_gives_plain_values(engine: Engine) -> None:
    info = engine.describe()
    assert isinstance(info, EngineInfo)
    assert info.name == engine.name
    json.dumps(attrs.asdict(info))
    for text in (info.name, info.framework, info.version, *info.devices, *info.precisions):
        assert type(text) is str
        assert text
    assert set(info.devices) <= {"cpu", "cuda", "mps"}
    assert "cpu" in info.devices
    assert set(info.precisions) <= {"32-true", "64-true", "bf16-mixed"}
    assert "64-true" in info.precisions


def test_an_accelerator_that_is_not_there_is_refused(engine: Engine) -> None:
    case = named_case("merged")
    absent = [name for name in ("cuda", "mps") if name not in engine.describe().devices]
    assert absent, "no machine has both"
    for name in absent:
        execution = ExecutionConfig(accelerator=name)  # type: ignore[arg-type]
        with pytest.raises(BackendError, match=name):
            engine.build(case.model, case.training, case.weights, execution)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["merged", "frames_alone", "one_frame"])
def test_patches_are_complex64_channels_last(engine: Engine, name: str, precision: str) -> None:
    case = named_case(name)
    network = build(engine, case, precision)
    for batch in case.batches:
        patches = network.predict(batch)
        assert isinstance(patches, np.ndarray)
        assert patches.dtype == np.complex64
        assert patches.shape == batch.diffraction_amplitude.shape
        assert np.isfinite(patches).all()


def test_predict_needs_no_training_configuration(engine: Engine) -> None:
    case = named_case("merged")
    network = build(engine, case, training=None)
    assert_field_close(network.predict(case.batch), expected("merged").patches, 1.2e-7, "patches")
    assert network.optimizer_state()["step"] == 0


def test_predict_uses_amplitude_and_input_scale_alone_where_the_table_sees_no_more(engine: Engine) -> None:
    case = named_case("merged")
    other = attrs.evolve(case.illumination, probe=2 * case.illumination.probe, mean_intensity=3.0)
    bare = attrs.evolve(
        case.batch,
        relative_offsets_px=np.zeros_like(case.batch.relative_offsets_px),
        canvas_padding_px=0,
        illumination=other,
        object_patches=None,
    )
    network = build(engine, case)
    np.testing.assert_array_equal(network.predict(bare), network.predict(case.batch))


def test_patches_of_a_smaller_batch_are_the_same_patches(engine: Engine) -> None:
    case = named_case("merged")
    alone = attrs.evolve(
        case.batch,
        diffraction_amplitude=case.batch.diffraction_amplitude[1:],
        relative_offsets_px=case.batch.relative_offsets_px[1:],
        object_patches=None,
    )
    network = build(engine, case, "32-true")
    together = network.predict(case.batch)
    assert_field_close(network.predict(alone), together[1:], FORWARD_RTOL["32-true"], "patches")


def test_predict_and_evaluate_change_nothing(engine: Engine) -> None:
    case = named_case("short")
    network = build(engine, case)
    first = network.predict(case.batch)
    network.evaluate(case.batches)
    np.testing.assert_array_equal(network.predict(case.batch), first)
    for key, array in case.weights.items():
        np.testing.assert_array_equal(network.weights()[key], array, err_msg=key)
    assert not any(np.any(array) for array in network.optimizer_state().values())


def test_truth_is_not_needed_where_no_term_uses_it(engine: Engine) -> None:
    case = named_case("short")
    batch = attrs.evolve(case.batch, object_patches=None)
    network = build(engine, case)
    assert network.evaluate([batch]) == network.evaluate([case.batch])


def test_loss_terms_are_plain_floats(engine: Engine) -> None:
    case = named_case("all_terms")
    network = build(engine, case, "32-true")
    for terms in (network.evaluate([case.batch]), network.train_epoch([case.batch], 1e-3)):
        assert {type(value) for value in terms.values()} == {float}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_weights_leave_in_the_precision_they_are_kept_in(engine: Engine, precision: str) -> None:
    if precision not in engine.describe().precisions:
        pytest.skip(f"{engine.name} has no {precision}")
    case = named_case("short")
    network = build(engine, case, precision)
    kept = np.float64 if precision == "64-true" else np.float32
    arrays = {**network.weights(), **network.optimizer_state(), **network.gradients(case.batch)}
    assert {name: array.dtype for name, array in arrays.items() if array.dtype != kept and name != "step"} == {}


def test_networks_of_one_engine_do_not_share_state(engine: Engine) -> None:
    case = named_case("short")
    one, other = build(engine, case), build(engine, case)
    one.train_epoch(case.batches, 1e-2)
    for key, array in case.weights.items():
        np.testing.assert_array_equal(other.weights()[key], array, err_msg=key)
    assert_field_close(other.predict(case.batch), expected("short").patches, 1.2e-7, "patches")
