"""What is known of objects beforehand, by name (specs/solving.md, Prior)."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.engine.protocol import Solver
from ptycho_core.errors import ConfigurationError

Apply = Callable[[Solver, float, NDArray[np.float64]], None]
"""Brings a solver's object nearer to what is known, by a weight, given the light (H, W) that fell on each pixel."""


@attrs.frozen
class Prior:
    """weights: those worth trying, in rising order. apply: called after each sweep."""

    weights: tuple[float, ...]
    apply: Apply


_PRIORS: dict[str, Prior] = {}
OURS = "ptycho_core.solving.variation"
"""The module that registers our own."""


def register_prior(name: str, *, weights: tuple[float, ...]) -> Callable[[Apply], Apply]:
    """Decorator: makes a prior available as `SolveConfig(prior=name)`."""

    def register(function: Apply) -> Apply:
        if name in _PRIORS or name in ("auto", "none"):
            raise ValueError(f"prior {name!r} is registered already")
        _PRIORS[name] = Prior(weights, function)
        return function

    return register


def prior_named(name: str) -> Prior:
    """The prior registered under `name`; ConfigurationError for an unknown one."""
    importlib.import_module(OURS)
    if name not in _PRIORS:
        known = ", ".join(["auto", "none", *sorted(_PRIORS)])
        remedy = "Set prior to one of these."
        raise ConfigurationError("SolveConfig", "prior", expected=f"one of {known}", received=repr(name), remedy=remedy)
    return _PRIORS[name]
