"""Each setting that concerns an engine changes, when it is changed, what it promises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
import pytest
from numpy.typing import NDArray

from ptycho_core.batches.batch import Batch
from ptycho_core.engine.protocol import Engine, Network
from ptycho_core.errors import ArchiveError, BackendError
from ptycho_core.physics.weights import outside_centre_mask, probe_mask
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.vocabulary import LOG_SCALE, PROBE, Weights
from tests.contract.cases import (
    Case,
    assert_arrays_close,
    assert_field_close,
    build,
    build_reference,
    expected,
    make_case,
    named_case,
    network_weights,
)

KERNEL, BIAS = "encoder/conv1/kernel", "encoder/conv1/bias"
RATE = 1e-2


def changed(name: str, **settings: Any) -> Case:
    """A case with other settings of its training."""
    case = named_case(name)
    return attrs.evolve(case, training=attrs.evolve(case.training, **settings))


def with_model(name: str, **settings: Any) -> Case:
    """A case with other settings of its model, and weights for it."""
    case = named_case(name)
    model = attrs.evolve(case.model, **settings)
    training = attrs.evolve(case.training, model=model, probe_trainable=model.model_type == "pinn")
    weights = {**case.weights, **network_weights(model, seed=3)}
    return attrs.evolve(case, model=model, training=training, weights=weights)


def gradients(engine: Engine, case: Case) -> Weights:
    return build(engine, case).gradients(case.batch)


def predicted(engine: Engine, case: Case) -> NDArray[np.complex64]:
    return build(engine, case).predict(case.batch)


def step(network: Network, batch: Batch, rate: float = RATE) -> dict[str, NDArray[Any]]:
    """What one step changes, by name."""
    before = network.weights()
    network.train_epoch([batch], rate)
    return {name: array - before[name] for name, array in network.weights().items()}


# -- model ---------------------------------------------------------------------------------------------------------


@pytest.mark.field("model.N")
def test_N_is_the_side_of_a_patch(engine: Engine) -> None:
    for N in (32, 48):
        assert predicted(engine, make_case(N=N, gridsize=1, probe_big=False, groups=1)).shape == (1, N, N, 1)


@pytest.mark.field("model.gridsize")
def test_gridsize_squared_patches_are_predicted_together(engine: Engine) -> None:
    for gridsize in (1, 2):
        case = make_case(gridsize=gridsize, probe_big=False, groups=1)
        assert predicted(engine, case).shape[-1] == gridsize**2


@pytest.mark.field("model.n_filters_scale")
def test_n_filters_scale_multiplies_the_width_of_every_layer(engine: Engine) -> None:
    single, double = (make_case(architecture="cnn", groups=1, n_filters_scale=scale) for scale in (1, 2))
    widths = build(engine, single).weights(), build(engine, double).weights()
    heads = tuple(f"{branch}/{part}/conv/bias" for branch in ("amplitude", "phase") for part in ("head", "outer"))
    for name in (name for name in widths[0] if name.endswith("/bias")):
        factor = 1 if name in heads else 2  # heads give as many maps as there are patches
        assert len(widths[1][name]) == factor * len(widths[0][name]), name
    with pytest.raises(ArchiveError):
        build(engine, double, weights=single.weights)


@pytest.mark.field("model.model_type")
def test_model_type_supervised_learns_from_the_truth_and_pinn_from_the_diffraction(engine: Engine) -> None:
    for model_type, learns_from_truth in (("supervised", True), ("pinn", False)):
        case = with_model("short", model_type=model_type)
        assert case.batch.object_patches is not None
        other = attrs.evolve(case.batch, object_patches=np.conj(case.batch.object_patches))
        network = build(engine, case)
        of_one, of_other = (network.gradients(batch)[KERNEL] for batch in (case.batch, other))
        assert learns_from_truth == (np.abs(of_other - of_one).max() > 1e-6 * np.abs(of_one).max())


@pytest.mark.field("model.amp_activation")
def test_amp_activation_is_the_function_of_the_amplitude_head(engine: Engine) -> None:
    x = -0.5
    sigmoid = 1 / (1 + np.exp(-x))
    values = {"sigmoid": sigmoid, "swish": x * sigmoid, "softplus": np.log1p(np.exp(x)), "relu": 0.0}
    for activation, value in values.items():
        case = flat(with_model("short", amp_activation=activation), {"amplitude/head/conv/bias": x})
        assert_field_close(predicted(engine, case)[:, 16, 16], np.full((2, 1), 1.5 * value), 1e-6, activation)


def flat(case: Case, biases: Mapping[str, float]) -> Case:
    """A network of zeros, but for these biases: it predicts the same everywhere."""
    weights = {name: np.zeros_like(array) if "conv" in name else array for name, array in case.weights.items()}
    weights |= {name: np.full_like(case.weights[name], value) for name, value in biases.items()}
    return attrs.evolve(case, weights=weights)


@pytest.mark.field("model.object_big")
def test_object_big_predicts_the_patches_of_a_group_from_all_its_patterns(engine: Engine) -> None:
    for name, together in (("merged", True), ("frames_alone", False)):
        case = named_case(name)
        brighter = case.batch.diffraction_amplitude.copy()
        brighter[..., 1] *= 2
        network = build(engine, case)
        other = network.predict(attrs.evolve(case.batch, diffraction_amplitude=brighter))
        assert together == bool((other != network.predict(case.batch))[..., 0].any())


@pytest.mark.field("model.probe_big", "model.pad_object")
def test_probe_big_and_pad_object_decide_what_is_predicted_outside_the_centre(engine: Engine) -> None:
    outside = outside_centre_mask(32).astype(bool)
    for settings, something in (
        ({"probe_big": True}, True),
        ({"probe_big": False}, False),
        ({"probe_big": False, "pad_object": False}, True),
    ):
        patches = predicted(engine, with_model("short", **settings))
        assert patches[:, ~outside].all()
        assert something == patches[:, outside].any()


@pytest.mark.field("model.probe_mask")
def test_probe_mask_leaves_no_light_outside_a_circle(engine: Engine) -> None:
    outside = probe_mask(32) == 0
    for masked in (True, False):
        by_probe = gradients(engine, with_model("merged", probe_mask=masked))[PROBE][0]
        assert masked == (not by_probe[outside].any())
        assert by_probe[~outside].any()


@pytest.mark.field("model.gaussian_smoothing_sigma")
def test_gaussian_smoothing_sigma_smooths_the_exit_wave(engine: Engine) -> None:
    """And with it the gradient by the probe."""

    def roughness(sigma: float) -> float:
        by_probe = gradients(engine, with_model("merged", gaussian_smoothing_sigma=sigma))[PROBE]
        return float(np.linalg.norm(np.diff(by_probe, axis=1)) / np.linalg.norm(by_probe))

    assert roughness(2.0) < roughness(1.0) < roughness(0.0)


@pytest.mark.field("model.architecture")
def test_architecture_is_another_network_with_other_weights(engine: Engine) -> None:
    small, cnn = named_case("short"), make_case(architecture="cnn", gridsize=1, groups=1)
    assert set(build(engine, cnn).weights()) == set(cnn.weights) != set(small.weights)
    with pytest.raises(ArchiveError, match="encoder/block0/conv0/kernel"):
        build(engine, cnn, weights=small.weights)


@pytest.mark.field("model.amplitude_ceiling")
def test_amplitude_ceiling_is_the_largest_amplitude(engine: Engine) -> None:
    case = make_case(architecture="cnn", gridsize=1, groups=1, probe_big=False, amplitude_ceiling=3.0)
    patches = predicted(engine, flat(case, {"amplitude/head/conv/bias": 40.0}))
    assert_field_close(patches[0, 8:24, 8:24, 0], np.full((16, 16), 3.0), 1e-6)


@pytest.mark.field("model.merge_weights")
def test_merge_weights_decide_which_pixels_of_a_patch_count(engine: Engine) -> None:
    outer = "phase/outer/conv/bias"
    of = {kind: gradients(engine, with_model("merged", merge_weights=kind)) for kind in ("probe", "uniform", "central")}
    assert not of["central"][outer].any()
    assert of["uniform"][outer].any()
    assert not np.allclose(of["probe"][outer], of["uniform"][outer], rtol=1e-3)


def assert_gates_halve(engine: Engine, field: str, layers: tuple[str, ...], factor: float) -> None:
    """Gates of zero weights are sigmoid(0): `factor` of what the convolutions `layers` give without them."""
    case = make_case(architecture="cnn", gridsize=1, groups=1, probe_big=False, **{field: True})
    plain = make_case(architecture="cnn", gridsize=1, groups=1, probe_big=False)
    gates = {name: np.zeros_like(array) for name, array in case.weights.items() if name not in plain.weights}
    assert gates
    scaled = {f"{layer}/{part}": factor * plain.weights[f"{layer}/{part}"] for layer in layers for part in PARTS}
    reference = build_reference(plain, weights={**plain.weights, **scaled}).predict(plain.batch)
    actual = build(engine, case, weights={**plain.weights, **gates}).predict(plain.batch)
    assert_field_close(actual, reference, 1.2e-7, field)


PARTS = ("kernel", "bias")
IN_ENCODER = ("encoder/block0/conv1", "encoder/block1/conv1")
IN_DECODERS = ("amplitude/block0/conv1", "phase/block0/conv1")


@pytest.mark.field("model.cbam_encoder")
def test_cbam_encoder_gates_every_block_of_the_encoder(engine: Engine) -> None:
    assert_gates_halve(engine, "cbam_encoder", IN_ENCODER, 0.25)


@pytest.mark.field("model.cbam_bottleneck")
def test_cbam_bottleneck_gates_what_both_decoders_see(engine: Engine) -> None:
    assert_gates_halve(engine, "cbam_bottleneck", IN_ENCODER[-1:], 0.25)


@pytest.mark.field("model.cbam_decoder")
def test_cbam_decoder_gates_every_block_of_the_decoders(engine: Engine) -> None:
    assert_gates_halve(engine, "cbam_decoder", IN_DECODERS, 0.25)


@pytest.mark.field("model.eca_encoder")
def test_eca_encoder_gates_every_block_of_the_encoder(engine: Engine) -> None:
    assert_gates_halve(engine, "eca_encoder", IN_ENCODER, 0.5)


@pytest.mark.field("model.eca_decoder")
def test_eca_decoder_gates_every_block_of_the_decoders(engine: Engine) -> None:
    assert_gates_halve(engine, "eca_decoder", IN_DECODERS, 0.5)


@pytest.mark.field("model.spatial_decoder")
def test_spatial_decoder_gates_every_block_of_the_decoders(engine: Engine) -> None:
    assert_gates_halve(engine, "spatial_decoder", IN_DECODERS, 0.5)


# -- losses --------------------------------------------------------------------------------------------------------


@pytest.mark.field("training.nll_weight", "training.mae_weight")
@pytest.mark.field("training.realspace_weight", "training.realspace_mae_weight")
def test_weights_of_the_losses_multiply_their_gradients(engine: Engine) -> None:
    """Of each loss alone: the total's gradient is their sum."""
    alone = {"nll_weight": 1.0, "mae_weight": 0.0, "realspace_weight": 0.0, "realspace_mae_weight": 0.0}
    nll = gradients(engine, changed("short", **alone))
    halved = gradients(engine, changed("short", **{**alone, "nll_weight": 0.5}))
    assert_arrays_close(halved, {name: g / 2 for name, g in nll.items()}, 1e-12)
    for field in ("mae_weight", "realspace_weight", "realspace_mae_weight"):
        some, twice = (
            {name: g - nll[name] for name, g in gradients(engine, changed("short", **{**alone, field: w})).items()}
            for w in (0.3, 0.6)
        )
        assert some[KERNEL].any(), field
        peak = np.abs(some[KERNEL]).max()
        assert np.abs(twice[KERNEL] - 2 * some[KERNEL]).max() < 1e-9 * max(peak, np.abs(nll[KERNEL]).max()), field


@pytest.mark.field("training.probe_trainable", "training.intensity_scale_trainable")
def test_only_what_is_trainable_changes(engine: Engine) -> None:
    for trainable in (True, False):
        case = changed("short", probe_trainable=trainable, intensity_scale_trainable=trainable)
        change = step(build(engine, case), case.batch)
        assert (PROBE in change) == change[LOG_SCALE].any() == trainable
        assert not trainable or change[PROBE].any()
        assert change[KERNEL].any()


# -- optimiser -----------------------------------------------------------------------------------------------------


@pytest.mark.field("training.optimizer")
def test_optimizer_turns_a_gradient_into_a_step(engine: Engine) -> None:
    """A first step of adam has the rate's size, one of sgd the gradient's; how adamw differs: weight_decay."""
    case = changed("short", optimizer="sgd")
    network = build(engine, case)
    g = network.gradients(case.batch)[KERNEL]
    assert_field_close(step(network, case.batch)[KERNEL], -RATE * g, 1e-9, "step of sgd")
    change = step(build(engine, named_case("short")), case.batch)[KERNEL]
    assert_field_close(change, -RATE * g / (np.abs(g) + 1e-8), 1e-9, "step of adam")


@pytest.mark.field("training.momentum")
def test_momentum_repeats_a_part_of_the_last_step(engine: Engine) -> None:
    case = changed("short", optimizer="sgd", momentum=0.6)
    network = build(engine, case)
    first, second = (step(network, case.batch, 1e-7)[KERNEL] for _ in range(2))
    assert_field_close(second, 1.6 * first, 1e-4, "second step")


@pytest.mark.field("training.adam_beta1", "training.adam_beta2")
def test_adam_beta1_and_beta2_are_what_the_moments_keep(engine: Engine) -> None:
    """With little memory, a second step forgets the first gradient."""
    case = changed("short", adam_beta1=0.0, adam_beta2=0.0)
    network = build(engine, case)
    step(network, case.batch)
    g = network.gradients(case.batch)[KERNEL]
    clear = np.abs(g) > 1e-3 * np.abs(g).max()
    change = step(network, case.batch)[KERNEL]
    assert_field_close(change[clear], -RATE * np.sign(g[clear]), 1e-3, "second step")
    usual = build(engine, named_case("short"))
    step(usual, case.batch)
    assert np.abs(step(usual, case.batch)[KERNEL][clear] + RATE * np.sign(g[clear])).max() > 0.1 * RATE


@pytest.mark.field("training.weight_decay")
def test_weight_decay_pulls_kernels_towards_zero(engine: Engine) -> None:
    """And nothing else; of adamw by λ times the rate."""
    case = changed("short", optimizer="adamw", weight_decay=0.5)
    network = build(engine, case)
    g = network.gradients(case.batch)
    change = step(network, case.batch)
    for name, pull in ((KERNEL, 0.5), (BIAS, 0.0), (PROBE, 0.0), (LOG_SCALE, 0.0)):
        adam = -RATE * g[name] / (np.abs(g[name]) + 1e-8)
        assert_field_close(
            change[name], adam - RATE * pull * case.weights[name].astype(np.float64), 1e-9, f"step of {name}"
        )


@pytest.mark.field("training.learning_rate")
def test_learning_rate_is_the_size_of_a_step(engine: Engine) -> None:
    case = changed("short", optimizer="sgd")
    network = build(engine, case)
    small = step(network, case.batch, 1e-3)
    network.load_weights(case.weights)
    large = step(network, case.batch, 3e-3)
    assert_field_close(large[KERNEL], 3 * small[KERNEL], 1e-9, "step")


@pytest.mark.field("training.gradient_clip_val", "training.gradient_clip_algorithm")
def test_gradient_clip_val_limits_what_gradient_clip_algorithm_names(engine: Engine) -> None:
    limit, full = 1e-3, expected("short").gradients
    of = {
        algorithm: gradients(engine, changed("short", gradient_clip_val=limit, gradient_clip_algorithm=algorithm))
        for algorithm in ("norm", "value", "agc")
    }
    norm = np.sqrt(sum(np.sum(g**2) for g in full.values()))
    assert norm > limit
    assert_arrays_close(of["norm"], {name: g * limit / norm for name, g in full.items()}, 1e-9, "norm")
    assert_arrays_close(of["value"], {name: np.clip(g, -limit, limit) for name, g in full.items()}, 1e-9, "value")
    units = np.linalg.norm(of["agc"][KERNEL].reshape(-1, 6), axis=0)
    weights = np.linalg.norm(named_case("short").weights[KERNEL].reshape(-1, 6).astype(np.float64), axis=0)
    unclipped = np.linalg.norm(full[KERNEL].reshape(-1, 6), axis=0)
    np.testing.assert_allclose(units, np.minimum(unclipped, limit * weights), rtol=1e-9)
    assert (unclipped > limit * weights).any()


@pytest.mark.field("training.accum_steps")
def test_accum_steps_batches_make_one_step(engine: Engine) -> None:
    case = changed("short", accum_steps=2)
    network = build(engine, case)
    network.train_epoch([case.batch] * 3, RATE)
    assert network.optimizer_state()["step"] == 2  # of two, and of the one that is left


# -- execution -----------------------------------------------------------------------------------------------------


@pytest.mark.field("execution.accelerator")
def test_accelerator_is_one_that_is_there(engine: Engine) -> None:
    case, devices = named_case("short"), engine.describe().devices
    there = {"auto", *devices, *(["gpu"] if len(devices) > 1 else [])}
    for name in ("auto", "cpu", "gpu", "cuda", "mps"):
        execution = ExecutionConfig(accelerator=name)  # type: ignore[arg-type]
        if name in there:
            engine.build(case.model, case.training, case.weights, execution)
        else:
            with pytest.raises(BackendError, match=f"accelerator must be .*cpu; got '{name}'"):
                engine.build(case.model, case.training, case.weights, execution)


@pytest.mark.field("execution.precision")
def test_precision_is_that_of_the_gradients(engine: Engine) -> None:
    case, reference = named_case("short"), expected("short").gradients[KERNEL]
    for precision, smallest, largest in (("64-true", 0, 1e-10), ("32-true", 1e-9, 1e-5), ("bf16-mixed", 1e-4, 0.2)):
        if precision in engine.describe().precisions:
            actual = build(engine, case, precision).gradients(case.batch)[KERNEL]
            error = np.abs(actual - reference).max() / np.abs(reference).max()
            assert smallest <= error <= largest, f"{precision}: {error}"
