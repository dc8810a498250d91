"""What is known of objects beforehand, by name (specs/solving.md, Prior)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.engine.protocol import Solver
from ptycho_core.registry import Registry

Apply = Callable[[Solver, float, NDArray[np.float64]], None]
"""Brings a solver's object nearer to what is known, by a weight, given the light (H, W) that fell on each pixel."""
A = TypeVar("A", bound=Apply)


@attrs.frozen
class Prior:
    """weights: those worth trying, in rising order. apply: called after each sweep."""

    weights: tuple[float, ...]
    apply: Apply


PRIORS: Registry[Prior] = Registry(
    "prior",
    ("SolveConfig", "prior"),
    group="ptycho_core.priors",
    ours={"tv": "ptycho_core.solving.variation:TV"},
    reserved=("auto", "none"),
)
"""An entry point is a `Prior`."""


def register_prior(name: str, *, weights: tuple[float, ...], replace: bool = False) -> Callable[[A], A]:
    """Decorator: makes a prior available as `SolveConfig(prior=name)`.

    ConfigurationError for a name that is taken, unless `replace`.
    """

    def register(function: A) -> A:
        PRIORS.register(name, replace=replace)(Prior(weights, function))
        return function

    return register
