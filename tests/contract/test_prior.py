"""The prior of the package is the same image, and learning the same prior, on every engine."""

from __future__ import annotations

import functools

import numpy as np
from ptycho_core_reference import ReferenceEngine

from ptycho_core.engine.protocol import Engine
from ptycho_core.models.prior import LearnedPrior
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.prior import PriorConfig
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.simulation import simulate
from ptycho_core.solving.learned import cleaned, shipped
from ptycho_core.solving.lessons import Lesson, with_truth
from ptycho_core.solving.teaching import Teaching
from tests.contract.cases import assert_arrays_close

EXECUTION = ExecutionConfig(accelerator="cpu")
EXACT = ExecutionConfig(accelerator="cpu", precision="64-true")


@functools.cache
def lesson() -> Lesson:
    scan = simulate(N=16, positions=60, step_px=4, object="cells", photons=1e3, seed=5)
    config = SolveConfig(refine="none", modes="1", prior="none", sweeps=3)
    return with_truth(scan, config, ReferenceEngine(), EXECUTION)


def test_the_prior_of_the_package_is_the_same_image(engine: Engine) -> None:
    prior, solved = shipped(), lesson()
    images = []
    for each in (engine, ReferenceEngine()):
        network = each.build_image_network(prior.table, None, prior.weights, EXECUTION)
        images.append(cleaned(network, prior, solved.canvas, solved.counts.astype(np.float64)))
    assert np.abs(images[1] - solved.canvas).max() > 0.05
    np.testing.assert_allclose(images[0], images[1], rtol=0, atol=1e-5 * np.abs(images[1]).max())


def test_learning_goes_on_in_another_engine_to_rounding(engine: Engine) -> None:
    lessons = [[lesson()]]
    config = PriorConfig(epochs=2, steps=2, batch_size=2, crop_px=32, widths="3,4", learning_rate=1e-3)

    def taught(one: Engine, other: Engine) -> LearnedPrior:
        run = Teaching(lessons, config, one, EXACT)
        next(iter(run))
        rest = Teaching(lessons, config, other, EXACT, resume=run.checkpoint())
        assert len(list(rest)) == 1
        return rest.prior

    expected = taught(ReferenceEngine(), ReferenceEngine())
    for one, other in ((engine, ReferenceEngine()), (ReferenceEngine(), engine)):
        assert_arrays_close(taught(one, other).weights, expected.weights, 1e-6, "weights")
