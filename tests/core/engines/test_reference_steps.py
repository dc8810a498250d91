"""Data steps of the reference: what they minimise, what they leave alone, and their gradients by finite differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import numpy as np
import pytest
from numpy.typing import NDArray
from ptycho_core_reference import ReferenceNetwork, losses, steps
from ptycho_core_reference.ops import OPS
from ptycho_core_reference.steps import Scene, data_step, in_gauge, to_field, to_maps, warm_sweeps

from ptycho_core.vocabulary import PROBE, Field
from tests.contract.cases import Case, named_case

STEP = 1e-6


@pytest.fixture(scope="module")
def case() -> Case:
    return named_case("canvas")


@pytest.fixture(scope="module")
def network(case: Case) -> ReferenceNetwork:
    return ReferenceNetwork(case.model, case.training, case.weights)


@pytest.fixture
def scene(case: Case, network: ReferenceNetwork) -> Scene:
    return network.scene(case.batch.seen)


def canvas_like(scene: Scene) -> Field:
    """Smooth, and nowhere the empty canvas."""
    rng = np.random.default_rng(3)
    canvas: Field = 1 + 0.2 * (rng.normal(size=scene.light.shape) + 1j * rng.normal(size=scene.light.shape))
    return canvas


@pytest.fixture
def constants_stay(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """What no gradient flows through keeps the values of the first pass; the call that is returned begins another."""
    known: list[Any] = []
    place: Iterator[Any] | None = None

    def kept(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*inputs: Any, **settings: Any) -> Any:
            if place is not None:
                return next(place)
            known.append(function(*inputs, **settings))
            return known[-1]

        return call

    def again() -> None:
        nonlocal place
        place = iter(known)

    monkeypatch.setattr(steps, "gauge", kept(steps.gauge))
    monkeypatch.setattr(losses, "in_scale", kept(losses.in_scale))
    monkeypatch.setattr(losses, "in_phase", kept(losses.in_phase))
    monkeypatch.setitem(OPS, "warm_sweeps", kept(OPS["warm_sweeps"]))
    return again


def test_gradients_are_the_slopes_of_the_loss(
    case: Case, network: ReferenceNetwork, constants_stay: Callable[[], None]
) -> None:
    """Of its logarithm: of every block and of the probe, along a random direction and along the gradient."""
    gradients = network.gradients(case.batch)
    start, rng = dict(network.arrays), np.random.default_rng(5)
    for part in ("block0/", "block1/", PROBE):
        names = [name for name in gradients if name.startswith(part)]
        size = np.sqrt(sum(np.sum(gradients[name] ** 2) for name in names))
        for direction in ({name: rng.normal(size=start[name].shape) for name in names}, gradients):
            length = np.sqrt(sum(np.sum(direction[name] ** 2) for name in names))
            losses = []
            for sign in (1, -1):
                moved = {name: start[name] + sign * STEP / length * direction[name] for name in names}
                network.arrays = {**start, **moved}
                constants_stay()
                losses.append(np.log(network.evaluate([case.batch])["total"]))
            network.arrays = start
            expected = sum(np.sum(gradients[name] * direction[name]) for name in names) / length
            measured = (losses[0] - losses[1]) / (2 * STEP)
            assert abs(measured - expected) <= 1e-6 * size, (part, measured, expected, size)


def test_a_data_step_is_the_minimum_of_what_it_says(case: Case, network: ReferenceNetwork) -> None:
    """Σ |P O' - ψ'|² + ε p₀ |O' - O|², where frames lie at whole pixels; in every direction it rises."""
    offsets = np.rint(case.batch.relative_offsets_px)
    plain = attrs.evolve(case.lit_by(probe=case.illumination.probe).batch, relative_offsets_px=offsets)
    scene = network.scene(plain.seen)
    scene.probe, scene.good = plain.illumination.probe.astype(complex), np.ones_like(scene.good)
    canvas, epsilon, physics = canvas_like(scene), 0.1, scene.physics
    stepped = to_field(data_step(to_maps(canvas), scene=scene, epsilon=epsilon)[0][..., :2])
    waves = physics.extract(canvas, scene.placement)[:, :, None] * scene.probe
    far_field = physics.far_field(waves)
    measured = far_field * (scene.amplitude / np.sqrt(physics.intensity(far_field) + scene.floor))[:, :, None]
    wanted = physics.far_field_adjoint(measured)

    def cost(other: Field) -> float:
        error = physics.extract(other, scene.placement)[:, :, None] * scene.probe - wanted
        change = epsilon * scene.brightest * np.sum(np.abs(other - canvas) ** 2)
        return float(np.sum(np.abs(error) ** 2) + change)

    rng, least = np.random.default_rng(2), cost(stepped)
    for _ in range(5):
        direction = 1e-3 * (rng.normal(size=canvas.shape) + 1j * rng.normal(size=canvas.shape))
        ahead, behind = cost(stepped + direction), cost(stepped - direction)
        assert min(ahead, behind) > least
        assert ahead - behind == pytest.approx(0, abs=1e-9 * least)


def test_bad_pixels_have_no_say(case: Case, scene: Scene) -> None:
    canvas, bad = to_maps(canvas_like(scene)), case.batch.bad_pixels
    before, _ = data_step(canvas, scene=scene, epsilon=0.1)
    scene.amplitude[..., bad] = 1e3
    after, _ = data_step(canvas, scene=scene, epsilon=0.1)
    assert bad.any()
    np.testing.assert_array_equal(before, after)


def test_a_warm_sweep_without_momentum_is_a_data_step(scene: Scene) -> None:
    canvas = to_maps(canvas_like(scene))
    swept, back = warm_sweeps(canvas, scene=scene, sweeps=1, epsilon=0.1, momentum=0.0)
    np.testing.assert_allclose(swept, data_step(canvas, scene=scene, epsilon=0.1)[0][..., :2], rtol=1e-12)
    assert not np.any(back(np.ones_like(swept))[0])


def test_a_view_is_blind_to_phase_and_scale(scene: Scene) -> None:
    stepped, _ = data_step(to_maps(canvas_like(scene)), scene=scene, epsilon=0.1)
    turned = stepped.copy()
    for part in (slice(0, 2), slice(2, 4)):
        turned[..., part] = to_maps(1.7 * np.exp(0.6j) * to_field(stepped[..., part]))
    np.testing.assert_allclose(in_gauge(turned, scene=scene)[0], in_gauge(stepped, scene=scene)[0], atol=1e-12)


def test_an_untrained_network_is_its_data_steps(case: Case, network: ReferenceNetwork) -> None:
    """Its last kernels are 0 (specs/model.md, The canvas architecture)."""
    heads = [name for name in network.arrays if "/head/" in name]
    assert len(heads) == 2 * case.model.canvas_blocks
    empty = ReferenceNetwork(
        case.model,
        case.training,
        {name: array * (name not in heads) for name, array in case.weights.items()},
    )
    batch = attrs.evolve(case.batch, held_out=None)
    scene = empty.scene(batch)
    canvas: NDArray[np.float64] = np.zeros((*scene.light.shape, 2))
    canvas[..., 0] = 1
    canvas, _ = warm_sweeps(canvas, scene=scene, sweeps=case.model.warm_sweeps, epsilon=0.01, momentum=0.7)
    for _ in range(case.model.canvas_blocks):
        canvas = data_step(canvas, scene=scene, epsilon=0.1)[0][..., :2]
    patches = np.moveaxis(scene.physics.extract(to_field(canvas), scene.placement), 1, 3)
    np.testing.assert_allclose(empty.predict(batch), patches, atol=1e-6)
