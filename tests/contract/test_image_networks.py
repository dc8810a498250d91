"""A network that changes images gives the reference's maps, loss and gradients on every engine."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
from ptycho_core_reference import ReferenceEngine

from ptycho_core.engine.images import Images
from ptycho_core.engine.protocol import Engine, ImageNetwork
from ptycho_core.errors import ArchiveError, DataError
from ptycho_core.networks.initial import initial_weights
from ptycho_core.networks.unet import canvas_unet, first_weights
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.vocabulary import Weights
from tests.contract.cases import assert_arrays_close

TABLE = canvas_unet(3, (4, 6, 8))
TRAINING = TrainingConfig(gradient_clip_val=None)


def images(seed: int = 0) -> Images:
    rng = np.random.default_rng(seed)
    return Images(
        maps=rng.standard_normal((2, 24, 16, 3)).astype(np.float32),
        wanted=rng.standard_normal((2, 24, 16, 2)).astype(np.float32),
        weight=(rng.random((2, 24, 16)) < 0.8).astype(np.float32),
    )


def some_weights() -> Weights:
    return initial_weights(TABLE, np.random.default_rng(1))


def built(engine: Engine, weights: Weights, precision: str = "64-true") -> ImageNetwork:
    execution = ExecutionConfig(accelerator="cpu", precision=precision)  # type: ignore[arg-type]
    return engine.build_image_network(TABLE, TRAINING, weights, execution)


@pytest.mark.parametrize(("precision", "rtol"), [("64-true", 2e-7), ("32-true", 2e-6)])
def test_maps_are_those_of_the_reference(engine: Engine, precision: str, rtol: float) -> None:
    weights, maps = some_weights(), images().maps
    given = built(engine, weights, precision).run(maps)
    expected = built(ReferenceEngine(), weights).run(maps)
    assert given.dtype == np.float32 and given.shape == (2, 24, 16, 2)
    np.testing.assert_allclose(given, expected, rtol=0, atol=rtol * np.abs(expected).max())


def test_gradients_are_those_of_the_reference(engine: Engine) -> None:
    gradients = built(engine, some_weights()).gradients(images())
    assert all(np.any(gradient) for gradient in gradients.values())
    assert_arrays_close(gradients, built(ReferenceEngine(), some_weights()).gradients(images()), 1e-9, "gradients")


def test_gradients_are_those_of_the_loss(engine: Engine) -> None:
    weights, step = some_weights(), 1e-5
    gradient = built(engine, weights).gradients(images())
    along = {name: g / np.sqrt(sum(np.sum(each**2) for each in gradient.values())) for name, g in gradient.items()}
    ends = [
        built(engine, {name: weights[name].astype(np.float64) + sign * step * along[name] for name in weights})
        for sign in (1, -1)
    ]
    high, low = (end.train_step(images(), 0.0) for end in ends)
    assert (high - low) / (2 * step) == pytest.approx(sum(np.sum(gradient[n] * along[n]) for n in along), rel=1e-5)


def test_training_goes_on_from_the_state_of_another_network(engine: Engine) -> None:
    first = built(engine, some_weights())
    for seed in (1, 2):
        first.train_step(images(seed), 1e-3)
    weights, state = first.weights(), first.optimizer_state()
    second = built(engine, weights)
    second.load_optimizer_state(state)
    other = built(ReferenceEngine(), weights)
    other.load_optimizer_state(state)
    losses = [network.train_step(images(3), 1e-3) for network in (first, second, other)]
    assert losses[0] == losses[1] == pytest.approx(losses[2], rel=1e-9)
    assert_arrays_close(second.weights(), first.weights(), 0, "weights")
    assert_arrays_close(second.weights(), other.weights(), 1e-7, "weights")


def test_an_image_that_needs_no_change_and_pixels_without_weight_do_no_harm(engine: Engine) -> None:
    case = images()
    flat = attrs.evolve(case, wanted=np.zeros_like(case.wanted))
    network = built(engine, first_weights(TABLE, np.random.default_rng(0)))
    assert network.train_step(flat, 0.0) == 0
    assert network.train_step(case, 0.0) == pytest.approx(1, abs=1e-2)
    unseen = case.wanted.copy()
    unseen[case.weight == 0] = 1e3
    assert network.train_step(attrs.evolve(case, wanted=unseen), 0.0) == network.train_step(case, 0.0)


def test_what_does_not_fit_is_refused(engine: Engine) -> None:
    network, case = built(engine, some_weights()), images()
    with pytest.raises(DataError, match=r"maps: expected shape \(B, H, W, 3\).* multiples of 4; received \(2, 23"):
        network.run(case.maps[:, :23])
    with pytest.raises(DataError, match=r"wanted: expected shape \(2, 24, 16, 2\)"):
        network.train_step(attrs.evolve(case, wanted=case.wanted[..., :1]), 1e-3)
    with pytest.raises(ArchiveError, match=r"missing \['down0/conv0/bias'\]"):
        built(engine, {name: w for name, w in some_weights().items() if name != "down0/conv0/bias"})


def test_a_part_with_a_border_of_the_reach_is_the_whole(engine: Engine) -> None:
    maps = np.random.default_rng(4).standard_normal((1, 96, 112, 3)).astype(np.float32)
    network, border = built(engine, some_weights(), "32-true"), TABLE.reach_px
    assert (TABLE.block, border) == (4, 24)
    whole = network.run(maps)
    middle = network.run(maps[:, 8 : 8 + 24 + 48, 16 : 16 + 24 + 48])
    np.testing.assert_allclose(middle[:, 24:-24, 24:-24], whole[:, 32:56, 40:64], atol=1e-5)
    closer = network.run(maps[:, 20:92, 16 : 16 + 24 + 48])
    assert np.abs(closer[:, 12:36, 24:-24] - whole[:, 32:56, 40:64]).max() > 1e-4  # half of it is too little
