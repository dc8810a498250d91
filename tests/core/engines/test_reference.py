"""The yardstick itself is held by finite differences, Parseval, adjoint identities and formulas written out."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
from numpy.typing import NDArray
from ptycho_core_reference import ForwardModel, ReferenceEngine, ReferenceNetwork, losses
from ptycho_core_reference.ops import ACTIVATIONS, OPS, convolution_gradients, convolve, run_table
from ptycho_core_reference.optimizer import clip

from ptycho_core.engine.protocol import Engine, Network
from ptycho_core.engine.registry import registered_engines
from ptycho_core.errors import BackendError
from ptycho_core.networks.ops import Layer, op_named
from ptycho_core.networks.table import INPUT, TableBuilder
from ptycho_core.physics.patches import extract_patches
from ptycho_core.physics.weights import MERGE_EPSILON
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.vocabulary import LOG_SCALE
from tests.contract.cases import CASES, Case, assert_field_close, named_case
from tests.networks import cnn

STEP = 3e-7
RNG_SEED = 11


def network_of(case: Case) -> ReferenceNetwork:
    return ReferenceNetwork(case.model, case.training, case.weights)


def slope(network: ReferenceNetwork, case: Case, direction: dict[str, NDArray[np.float64]]) -> float:
    """Central difference of the total loss along `direction`; merge weights stay as they are."""
    start = dict(network.arrays)
    values = []
    for sign in (1, -1):
        network.arrays = {**start, **{name: start[name] + sign * STEP * d for name, d in direction.items()}}
        values.append(network.evaluate([case.batch])["total"])
    network.arrays = start
    return (values[0] - values[1]) / (2 * STEP)


def assert_slopes_agree(network: ReferenceNetwork, case: Case, gradients: Any, direction: Any) -> None:
    length = np.sqrt(sum(np.sum(d**2) for d in direction.values()))
    direction = {name: d / length for name, d in direction.items()}
    expected = sum(float(np.sum(gradients[name] * d)) for name, d in direction.items())
    size = np.sqrt(sum(np.sum(gradients[name] ** 2) for name in direction))
    measured = slope(network, case, direction)
    allowed = 1e-6 * size + 2e-9  # the second: rounding of the loss, over the step
    assert abs(measured - expected) <= allowed, (
        f"along {sorted(direction)[:3]}…: finite difference {measured:.9g}, gradient {expected:.9g}, "
        f"difference {measured - expected:.1e}, allowed {allowed:.1e}"
    )


# -- gradients -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in CASES if name != "canvas"])
def test_gradients_are_the_slopes_of_the_loss(name: str) -> None:
    """Along a random direction and along the gradient, for each part of the network by itself."""
    case = named_case(name)
    network, rng = network_of(case), np.random.default_rng(RNG_SEED)
    gradients = network.gradients(case.batch)
    assert set(gradients) == set(network.trainable)
    parts = {key.partition("/")[0] for key in gradients}
    assert len(parts) >= 4 and LOG_SCALE.partition("/")[0] in parts
    for part in sorted(parts):
        names = [key for key in gradients if key.partition("/")[0] == part]
        assert_slopes_agree(network, case, gradients, {key: rng.normal(size=gradients[key].shape) for key in names})
        if any(gradients[key].any() for key in names):
            assert_slopes_agree(network, case, gradients, {key: gradients[key] for key in names})


@pytest.mark.parametrize("name", ["merged", "everything", "eca", "cbam", "spatial"])
def test_single_entries_of_every_gradient_are_slopes(name: str) -> None:
    case = named_case(name)
    network, rng = network_of(case), np.random.default_rng(RNG_SEED)
    gradients = network.gradients(case.batch)
    assert all(gradient.any() for gradient in gradients.values())
    for key, gradient in gradients.items():
        largest = int(np.abs(gradient).argmax())
        for index in {largest, int(rng.integers(gradient.size))}:
            entry = np.zeros(gradient.size)
            entry[index] = 1
            assert_slopes_agree(network, case, gradients, {key: entry.reshape(gradient.shape)})


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_derivatives_of_activations_are_slopes(activation: str) -> None:
    function, derivative = ACTIVATIONS[activation]
    x = np.concatenate([np.linspace(-30, 30, 60), [-700.0, 700.0]])  # an even number: none is 0, where relu has a kink
    step = 1e-5
    np.testing.assert_allclose(derivative(x), (function(x + step) - function(x - step)) / (2 * step), atol=1e-8)


def test_convolution_is_the_sum_over_its_window() -> None:
    rng = np.random.default_rng(RNG_SEED)
    x, kernel = rng.normal(size=(1, 5, 6, 2)), rng.normal(size=(3, 3, 2, 4))
    expected = np.zeros((1, 5, 6, 4))
    for i, j, di, dj in np.ndindex(5, 6, 3, 3):
        if 0 <= i + di - 1 < 5 and 0 <= j + dj - 1 < 6:
            expected[0, i, j] += x[0, i + di - 1, j + dj - 1] @ kernel[di, dj]
    np.testing.assert_allclose(convolve(x, kernel), expected, atol=1e-13)


@pytest.mark.parametrize("window", [(1, 1), (3, 3), (7, 7), (5, 1)])
def test_convolution_gradients_are_adjoints(window: tuple[int, int]) -> None:
    rng = np.random.default_rng(RNG_SEED)
    x, kernel, g = rng.normal(size=(2, 5, 6, 2)), rng.normal(size=(*window, 2, 4)), rng.normal(size=(2, 5, 6, 4))
    product = np.sum(convolve(x, kernel) * g)
    by_kernel, by_x = convolution_gradients(x, kernel, g)
    assert np.sum(x * by_x) == pytest.approx(product, rel=1e-12)
    assert np.sum(kernel * by_kernel) == pytest.approx(product, rel=1e-12)


OP_INPUTS: dict[str, tuple[dict[str, Any], list[tuple[int, ...]]]] = {
    "conv": ({"activation": "tanh", "kernel_size": 3, "stride": 1, "padding": "zeros"}, [(2, 6, 6, 3)]),
    "conv strided": ({"activation": "gelu", "kernel_size": 3, "stride": 2, "padding": "zeros"}, [(2, 6, 5, 3)]),
    "conv reflected": ({"activation": "tanh", "kernel_size": 3, "stride": 2, "padding": "reflect"}, [(2, 6, 6, 3)]),
    "max_pool": ({}, [(2, 6, 6, 3)]),
    "upsample": ({}, [(2, 4, 4, 3)]),
    "channels": ({"start": 1, "stop": 3}, [(2, 4, 4, 3)]),
    "pad": ({"width": 2}, [(2, 4, 4, 3)]),
    "outside_centre": ({}, [(2, 8, 8, 3)]),
    "add": ({}, [(2, 4, 4, 3), (2, 4, 4, 3)]),
    "concat": ({}, [(2, 4, 4, 3), (2, 4, 4, 2)]),
    "scale": ({"factor": -0.7}, [(2, 4, 4, 3)]),
    "activate": ({"activation": "sigmoid"}, [(2, 1, 1, 3)]),
    "global_mean": ({}, [(2, 4, 4, 3)]),
    "global_max": ({}, [(2, 4, 4, 3)]),
    "channel_max_mean": ({}, [(2, 4, 4, 3)]),
    "channel_conv": ({"kernel_size": 3}, [(2, 1, 1, 5)]),
    "multiply": ({}, [(2, 4, 4, 3), (2, 1, 1, 3)]),
    "multiply by one channel": ({}, [(2, 4, 4, 3), (2, 4, 4, 1)]),
    "transposed_conv": ({"activation": "tanh", "kernel_size": 3}, [(2, 4, 5, 3)]),
    "spectral_conv": ({"modes": 2, "scale": 1.0}, [(2, 6, 6, 3)]),
    "spectral_conv to a smaller map": ({"modes": 2, "scale": 0.5}, [(2, 8, 8, 3)]),
    "factorised_spectral_conv": ({"modes": 2}, [(2, 6, 6, 3)]),
    "instance_norm": ({"epsilon": 1e-5}, [(2, 4, 4, 3)]),
    "gain": ({"start": 0.1}, [(2, 4, 4, 3)]),
    "coordinates": ({}, [(2, 4, 4, 3)]),
}
"""Settings and shapes of the inputs: of every op of the reference, some of them in two ways."""
PARAMETERS: dict[str, dict[str, tuple[int, ...]]] = {
    **{op: {"kernel": (3, 3, 3, 4), "bias": (4,)} for op in ("conv", "transposed_conv")},
    "channel_conv": {"kernel": (3, 1, 1, 1)},
    "spectral_conv": dict.fromkeys(("real", "imaginary"), (4, 2, 3, 4)),
    "factorised_spectral_conv": dict.fromkeys(("real", "imaginary"), (2, 2, 3, 4)),
    "gain": {"gain": (3,)},
}


def test_every_op_is_held_to_its_slopes() -> None:
    """Those of the physics in test_reference_steps.py."""
    assert {name.split()[0] for name in OP_INPUTS} == {name for name in OPS if not op_named(name).sees_batch}


@pytest.mark.parametrize("name", OP_INPUTS)
def test_the_way_back_of_an_op_is_its_slope(name: str) -> None:
    """By every input and every parameter, which is also the adjoint where the op is linear."""
    op, (settings, shapes), rng = name.split()[0], OP_INPUTS[name], np.random.default_rng(RNG_SEED)
    parameters = {key: rng.normal(size=shape) for key, shape in PARAMETERS.get(op, {}).items()}
    arrays = [*(rng.normal(size=shape) for shape in shapes), *parameters.values()]

    def run(arrays: list[NDArray[np.float64]]) -> Any:
        return OPS[op](*arrays[: len(shapes)], **dict(zip(parameters, arrays[len(shapes) :], strict=True)), **settings)

    y, back = run(arrays)
    g = rng.normal(size=y.shape)
    gradients = back(g)
    assert len(gradients) == len(arrays)
    for number, gradient in enumerate(gradients):
        assert gradient.shape == arrays[number].shape
        direction = rng.normal(size=gradient.shape)
        ahead, behind = list(arrays), list(arrays)
        ahead[number], behind[number] = arrays[number] + 1e-6 * direction, arrays[number] - 1e-6 * direction
        measured = np.sum(g * (run(ahead)[0] - run(behind)[0])) / 2e-6
        assert np.sum(gradient * direction) == pytest.approx(measured, rel=1e-8)


def test_maxima_that_are_equal_share_the_gradient() -> None:
    x = np.zeros((1, 2, 2, 1))
    _, back = OPS["global_max"](x)
    np.testing.assert_array_equal(back(np.ones((1, 1, 1, 1)))[0], np.full_like(x, 0.25))


def test_a_channel_convolution_runs_along_the_channels() -> None:
    table = TableBuilder(4)
    table.channel_conv("y", INPUT, 3)
    x, kernel = np.array([1.0, 2.0, 4.0, 8.0]).reshape(1, 1, 1, 4), np.array([0.5, 1.0, 3.0]).reshape(3, 1, 1, 1)
    y = run_table(table.finish(amplitude="y", phase="y"), {"y/kernel": kernel}, x)[0]["y"]
    np.testing.assert_array_equal(y.ravel(), [7.0, 14.5, 29.0, 10.0])


def test_a_layer_that_leads_nowhere_has_gradient_zero() -> None:
    case = named_case("short")
    network = network_of(case)
    settings = {"activation": "linear", "kernel_size": 3, "stride": 1, "padding": "zeros"}
    idle = Layer("idle/conv", "conv", (INPUT,), (1,), 2, settings)
    network.table = attrs.evolve(network.table, layers=(*network.table.layers, idle))
    network.arrays |= {"idle/conv/kernel": np.ones((3, 3, 1, 2)), "idle/conv/bias": np.ones(2)}
    network.trainable = (*network.trainable, "idle/conv/kernel")
    assert "idle/conv" in run_table(network.table, network.arrays, case.batch.diffraction_amplitude)[0]
    assert not network.gradients(case.batch)["idle/conv/kernel"].any()


# -- physics -------------------------------------------------------------------------------------------------------


def random_field(rng: np.random.Generator, *shape: int) -> NDArray[np.complex128]:
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def inner(a: NDArray[Any], b: NDArray[Any]) -> float:
    """The real inner product of complex arrays as pairs of real ones."""
    return float(np.vdot(a, b).real)


def offsets_px(rng: np.random.Generator, groups: int, channels: int) -> NDArray[np.float64]:
    return rng.uniform(-3, 3, (groups, 1, 2, channels))


def test_far_field_keeps_the_power() -> None:
    field = random_field(np.random.default_rng(RNG_SEED), 2, 3, 2, 16, 16)
    model = ForwardModel(cnn(N=16))
    power = np.sum(np.abs(model.far_field(field)) ** 2, axis=(-2, -1))
    np.testing.assert_allclose(power, np.sum(np.abs(field) ** 2, axis=(-2, -1)), rtol=1e-12)


def test_far_field_is_the_fourier_sum_with_its_origin_in_the_centre() -> None:
    N = 16
    field = random_field(np.random.default_rng(RNG_SEED), N, N)
    r, k = np.arange(N), np.arange(N) - N // 2
    matrix = np.exp(-2j * np.pi * np.outer(k, r) / N) / np.sqrt(N)
    np.testing.assert_allclose(ForwardModel(cnn(N=N)).far_field(field), matrix @ field @ matrix.T, atol=1e-12)


def test_far_field_adjoint_is_its_adjoint() -> None:
    rng = np.random.default_rng(RNG_SEED)
    field, g = random_field(rng, 3, 16, 16), random_field(rng, 3, 16, 16)
    model = ForwardModel(cnn(N=16))
    assert inner(model.far_field(field), g) == pytest.approx(inner(field, model.far_field_adjoint(g)), rel=1e-12)


def test_merge_group_is_adjoint_of_extract_patches() -> None:
    """But for its weights: a merge with weight 1, times what it divides by, against `extract`."""
    rng = np.random.default_rng(RNG_SEED)
    model = ForwardModel(cnn(N=16, gridsize=2, merge_weights="uniform"))
    placement, weight = model.placement(offsets_px(rng, 2, 4), 5), np.ones((16, 16))
    patches, canvas = random_field(rng, 2, 4, 16, 16), random_field(rng, 2, 26, 26)
    placed = model.merge_group(patches, weight, placement) * model.summed_weight(weight, placement)
    np.testing.assert_allclose(placed, model.place(patches, placement), atol=1e-12)
    assert inner(placed, canvas) == pytest.approx(inner(patches, model.extract(canvas, placement)), rel=1e-12)


@pytest.mark.parametrize("merge_weights", MERGE_EPSILON)
def test_merge_adjoint_is_adjoint_of_merge_group(merge_weights: Any) -> None:
    rng = np.random.default_rng(RNG_SEED)
    model = ForwardModel(cnn(N=16, gridsize=2, merge_weights=merge_weights))
    placement, weight = model.placement(offsets_px(rng, 2, 4), 5), rng.uniform(0.1, 1, (16, 16))
    patches, g = random_field(rng, 2, 4, 16, 16), random_field(rng, 2, 26, 26)
    left = inner(model.merge_group(patches, weight, placement), g)
    assert left == pytest.approx(inner(patches, model.merge_adjoint(g, weight, placement)), rel=1e-12)


def test_a_truth_is_compared_in_any_phase_where_light_falls_and_its_gradient_is_the_difference_quotient() -> None:
    rng = np.random.default_rng(3)
    patches, truth, lit = random_field(rng, 2, 3, 8, 8), random_field(rng, 2, 3, 8, 8), rng.uniform(0, 1, (8, 8))
    lit[:3] = 0
    turns = np.exp(1j * np.array([0.3, -2.0]))[:, None, None, None]
    shown = turns * truth + (lit == 0) * patches
    assert losses.realspace_mae(losses.Compared(patches=shown, truth=truth, lit=lit))[0] < 1e-12
    value, gradient = losses.realspace_mae(losses.Compared(patches=patches, truth=truth, lit=lit))
    turned = losses.in_phase(truth, patches, lit)
    assert value == pytest.approx(np.mean(lit * np.abs(patches - turned)) / lit.mean(), rel=1e-5)
    known = turned - patches
    for angle in (-0.01, 0.01):  # no other turn is nearer
        other = np.exp(1j * angle) * turned - patches
        assert np.all((lit * np.abs(other) ** 2).sum((1, 2, 3)) > (lit * np.abs(known) ** 2).sum((1, 2, 3)))
    change = random_field(rng, 2, 3, 8, 8)
    above, below = (
        losses.mean_modulus(patches + step * change - turned, lit / lit.mean())[0] for step in (1e-5, -1e-5)
    )
    assert inner(gradient, change) == pytest.approx((above - below) / 2e-5, rel=1e-7)
    nothing, _ = losses.realspace_mae(losses.Compared(patches=patches, truth=0 * truth, lit=lit))
    assert nothing == pytest.approx(np.mean(lit * np.abs(patches)) / lit.mean(), rel=1e-5)


def test_a_truth_is_compared_in_the_scale_that_was_measured_at_good_pixels() -> None:
    rng = np.random.default_rng(4)
    truth, of_truth = random_field(rng, 2, 3, 8, 8), rng.uniform(0, 9, (2, 3, 8, 8))
    good = rng.random((8, 8)) > 0.4
    measured = np.where(good, np.array([4.0, 0.25])[:, None, None, None] * of_truth, 1e6)
    scaled = losses.in_scale(truth, of_truth, measured, good)
    np.testing.assert_allclose(scaled, np.array([2, 0.5])[:, None, None, None] * truth, rtol=1e-12)


def test_a_canvas_is_seen_as_patches_are_cut_from_an_object() -> None:
    """The offsets' sign, their order of x and y and the centre of a patch are those of the data contract."""
    N, padding = 16, 6
    rng = np.random.default_rng(RNG_SEED)
    object_field = random_field(rng, 60, 70).astype(np.complex64)
    positions = np.array([[30.3, 24.9], [33.7, 22.1], [28.6, 27.2], [31.4, 29.8]])
    positions += np.array([31, 26]) - positions.mean(axis=0)
    centre = positions.mean(axis=0, keepdims=True)
    canvas = extract_patches(object_field, centre, N + 2 * padding)
    relative_offsets = -(positions - centre).T[None, None]
    model = ForwardModel(cnn(N=N, gridsize=2))
    seen = model.extract(canvas.astype(np.complex128), model.placement(relative_offsets, padding))
    assert_field_close(seen[0], extract_patches(object_field, positions, N), 1e-6, "patches")


def test_a_merge_of_patches_that_agree_gives_the_object_back() -> None:
    N, padding = 16, 6
    rng = np.random.default_rng(RNG_SEED)
    canvas = random_field(rng, 1, N + 2 * padding, N + 2 * padding)
    model = ForwardModel(cnn(N=N, gridsize=2, merge_weights="uniform"))
    whole = np.array([[2, -3, 1, 0], [-1, 4, 0, -3]], dtype=np.float64)[None, None]
    placement = model.placement(whole, padding)
    merged = model.merge_group(model.extract(canvas, placement), np.ones((N, N)), placement)
    lit = model.place(np.ones((1, 4, N, N), complex), placement).real > 0.5
    np.testing.assert_allclose(merged[lit], canvas[lit], rtol=2e-6)  # the epsilon of the merge


def test_exit_wave_gradient_is_adjoint_in_patches_and_probe() -> None:
    rng = np.random.default_rng(RNG_SEED)
    model = ForwardModel(cnn(N=16, probe_mask=True, gaussian_smoothing_sigma=0.9))
    patches, probe, g = (
        random_field(rng, 2, 3, 16, 16),
        random_field(rng, 2, 16, 16),
        random_field(rng, 2, 3, 2, 16, 16),
    )
    by_patches, by_probe = model.exit_wave_gradient(g, patches, probe)
    product = inner(model.exit_wave(patches, probe), g)
    assert inner(patches, by_patches) == pytest.approx(product, rel=1e-12)
    assert inner(probe, by_probe) == pytest.approx(product, rel=1e-12)


# -- losses and optimiser ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["merged", "one_frame", "everything"])
def test_a_perfect_prediction_has_no_deviance(name: str) -> None:
    case = named_case(name)
    predicted = network_of(case).predicted_intensity(case.batch)
    value, derivative = losses.half_deviance(predicted, predicted)
    assert np.abs(value).max() <= 1e-12 * predicted.max()
    assert np.abs(derivative).max() == 0


def test_half_deviance_is_the_likelihood_ratio() -> None:
    measured = np.array([0.0, 1.0, 2.0, 5.0])
    predicted = np.array([0.7, 0.7, 3.0, 5.0])
    likelihood = np.array([0.7, 0.7, 3 - 2 * np.log(3), 5 - 5 * np.log(5)])
    perfect = np.array([0.0, 1.0, 2 - 2 * np.log(2), 5 - 5 * np.log(5)])
    likelihood[1] -= np.log(0.7)
    np.testing.assert_allclose(losses.half_deviance(predicted, measured)[0], likelihood - perfect, atol=1e-14)


def test_total_variation_of_a_ramp_is_its_slope() -> None:
    y, x = np.mgrid[:8, :8]
    ramp = (0.3 * x + 0.4j * y)[None, None]
    assert losses.total_variation(losses.Compared(patches=ramp))[0] == pytest.approx(0.7, abs=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_optimisers_are_those_of_the_papers(optimizer: Any) -> None:
    """A kernel decays, a bias does not."""
    case = named_case("short")
    own = {"momentum": 0.8} if optimizer == "sgd" else {"adam_beta1": 0.7, "adam_beta2": 0.9}
    network = network_of(
        attrs.evolve(case, training=attrs.evolve(case.training, optimizer=optimizer, weight_decay=0.1, **own))
    )
    rate = 1e-2
    for name, decay in (("encoder/conv0/kernel", 0.1), ("encoder/conv0/bias", 0.0)):
        network.load_weights(case.weights)
        theta, m, v = case.weights[name].astype(np.float64), 0.0, 0.0
        for t in range(1, 4):
            g = network.gradients(case.batch)[name]
            if optimizer == "adamw":
                theta = theta - rate * decay * theta
            else:
                g = g + decay * theta
            if optimizer == "sgd":
                v = 0.8 * v + g
                theta = theta - rate * v
            else:
                m, v = 0.7 * m + 0.3 * g, 0.9 * v + 0.1 * g**2
                theta = theta - rate * (m / (1 - 0.7**t)) / (np.sqrt(v / (1 - 0.9**t)) + 1e-8)
            network.train_epoch([case.batch], rate)
            np.testing.assert_allclose(network.weights()[name], theta, rtol=1e-12)


def test_training_lowers_the_loss() -> None:
    case = named_case("everything")
    network = network_of(case)
    before = network.evaluate(case.batches)["total"]
    for _ in range(5):
        network.train_epoch(case.batches, 2e-3)
    assert network.evaluate(case.batches)["total"] < before


def test_clipping_limits_the_norm_and_keeps_the_direction() -> None:
    gradients = {"a": np.array([3.0, 0.0]), "b": np.array([[4.0]])}
    clipped = clip(gradients, gradients, 0.5, "norm")
    np.testing.assert_allclose(clipped["a"], [0.3, 0])
    np.testing.assert_allclose(clipped["b"], [[0.4]])
    assert clip(gradients, gradients, 5.1, "norm")["b"] == 4
    assert clip(gradients, gradients, None, "norm") == gradients


def test_clipping_by_value_limits_every_element() -> None:
    clipped = clip({"a": np.array([3.0, -0.2, -5.0])}, {}, 0.5, "value")
    np.testing.assert_array_equal(clipped["a"], [0.5, -0.2, -0.5])


def test_adaptive_clipping_is_by_unit_relative_to_its_weights() -> None:
    """A kernel's unit is an output channel; what is 0 counts as 1e-3."""
    weights = {"x/kernel": np.zeros((1, 1, 2, 2)), "x/bias": np.array([3.0, 4.0])}
    weights["x/kernel"][0, 0, :, 1] = 6.0, 8.0
    gradients = {"x/kernel": np.zeros((1, 1, 2, 2)), "x/bias": np.array([0.0, 2.0])}
    gradients["x/kernel"][0, 0] = [[0.3, 0.3], [0.4, 0.4]]
    clipped = clip(gradients, weights, 0.1, "agc")
    np.testing.assert_allclose(clipped["x/kernel"][0, 0], [[0.6e-4, 0.3], [0.8e-4, 0.4]], rtol=1e-12)
    np.testing.assert_allclose(clipped["x/bias"], [0.0, 0.5], rtol=1e-12)


# -- protocol ------------------------------------------------------------------------------------------------------


def test_reference_has_the_protocols_methods_and_is_not_registered() -> None:
    assert isinstance(ReferenceEngine(), Engine)
    assert isinstance(network_of(named_case("short")), Network)
    assert "reference" not in registered_engines()


def test_reference_runs_on_the_cpu_only() -> None:
    case = named_case("short")
    with pytest.raises(BackendError, match="cuda"):
        ReferenceEngine().build(case.model, None, case.weights, ExecutionConfig(accelerator="cuda"))
