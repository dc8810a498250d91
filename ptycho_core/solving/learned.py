"""A network that was taught once as a prior: it takes out of a solved object what solving leaves (specs/prior.md)."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptycho_core.engine.protocol import Engine, ImageNetwork, Solver
from ptycho_core.models.prior import LearnedPrior, load_prior
from ptycho_core.models.tiles import whole
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.solving.features import outside, smoothed, view_of
from ptycho_core.solving.prior import Apply, Prior
from ptycho_core.vocabulary import OBJECT

SHIPPED = Path(__file__).parent / "prior.h5.zip"
ROUNDS = 2  # specs/solving.md, Prior: of `alternating`


def cleaned(
    network: ImageNetwork,
    prior: LearnedPrior,
    canvas: NDArray[np.complex64],
    counts: NDArray[np.float64],
    weight: float = 1.0,
) -> NDArray[np.complex64]:
    """The canvas with `weight` times the network's change, complex64 (H, W); smoothed where it is hardly lit.

    Raises DataError.
    """
    view = view_of(canvas, counts)
    change = whole(network, prior.table.block, prior.table.reach_px, view.maps)
    field = canvas + view.lit * view.mean * (change[..., 0] + 1j * change[..., 1])
    smooth = smoothed(field, counts)
    contrast = np.square(np.abs(field - smooth)[view.lit]).mean()
    kept = contrast * counts / (contrast * counts + 1)  # the noise of a pixel is 1 over its photons
    clean = np.where(view.lit, field, smooth + kept * (field - smooth))
    return np.asarray(canvas + weight * (clean - canvas), np.complex64)


def as_prior(load: Callable[[], LearnedPrior], rounds: int = 0) -> Prior:
    """A prior that is read when it is first used."""
    loaded = functools.cache(load)

    def build(engine: Engine, execution: ExecutionConfig) -> Apply:
        prior = loaded()
        network = functools.cache(
            lambda: engine.build_image_network(prior.table, None, prior.weights, execution)
        )  # once, when the run has come to it

        def apply(solver: Solver, weight: float, counts: NDArray[np.float64]) -> None:
            weights = dict(solver.weights())
            pairs = np.ascontiguousarray(weights[OBJECT], np.float32)
            field = cleaned(network(), prior, pairs.view(np.complex64)[..., 0], counts, weight)
            weights[OBJECT] = np.stack([field.real, field.imag], axis=-1)
            solver.load_weights(weights)

        return apply

    def suits(canvas: NDArray[np.complex64], counts: NDArray[np.float64]) -> str | None:
        return outside(view_of(canvas, counts).facts(), loaded().seen)

    return Prior((1.0,), build=build, each_sweep=False, rounds=rounds, suits=suits)


def shipped() -> LearnedPrior:
    """The prior of this package (docs/prior.md)."""
    return load_prior(SHIPPED)


def from_file(path: str | os.PathLike[str]) -> Prior:
    """A prior of one's own. Raises ArchiveError."""
    prior = load_prior(path)
    return as_prior(lambda: prior)


LEARNED = as_prior(shipped)
ALTERNATING = as_prior(shipped, ROUNDS)
