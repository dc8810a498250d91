"""What is known of objects beforehand, by name (specs/solving.md, Prior)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.engine.protocol import Engine, Solver
from ptycho_core.errors import ConfigurationError
from ptycho_core.registry import Registry
from ptycho_core.settings.execution import ExecutionConfig

Apply = Callable[[Solver, float, NDArray[np.float64]], None]
"""Brings a solver's object nearer to what is known, by a weight, given the photons (H, W) that fell on each pixel."""
Build = Callable[[Engine, ExecutionConfig], Apply]
Suits = Callable[[NDArray[np.complex64], NDArray[np.float64]], str | None]
A = TypeVar("A", bound=Apply)


def _always(canvas: NDArray[np.complex64], counts: NDArray[np.float64]) -> str | None:
    return None


@attrs.frozen
class Prior:
    """weights: those worth trying, in rising order. apply: called after each sweep, or after the last one alone.

    build: makes `apply` for an engine, where it needs one. rounds: how often, after the last sweep, it meets the
    patterns in a few short sweeps and is applied once more.
    suits: of the canvas (H, W) after the last sweep and the photons on it, why the prior may not be used, or None.
    """

    weights: tuple[float, ...]
    apply: Apply | None = None
    build: Build | None = None
    each_sweep: bool = True
    rounds: int = 0
    suits: Suits = _always

    def __attrs_post_init__(self) -> None:
        if (self.apply is None) == (self.build is None):
            raise ValueError("a prior has either apply or build")

    def on(self, engine: Engine, execution: ExecutionConfig) -> Apply:
        """What is applied to the solvers of an engine."""
        if self.apply is not None:
            return self.apply
        assert self.build is not None
        return self.build(engine, execution)


PRIORS: Registry[Prior] = Registry(
    "prior",
    ("SolveConfig", "prior"),
    group="ptycho_core.priors",
    ours={
        "tv": "ptycho_core.solving.variation:TV",
        "learned": "ptycho_core.solving.learned:LEARNED",
        "alternating": "ptycho_core.solving.learned:ALTERNATING",
    },
    reserved=("auto", "none"),
)
"""An entry point is a `Prior`."""


def is_file(name: str) -> bool:
    """Whether a prior is meant by its file, or the folder of it."""
    return name not in PRIORS.reserved and PRIORS.find(name) is None and Path(name).exists()


def check_prior(name: str) -> None:
    """Refuse a name that is neither registered nor a file of a prior: ConfigurationError, ArchiveError."""
    if name not in PRIORS.reserved:
        prior_named(name)


def prior_named(name: str) -> Prior:
    """The registered prior of that name, or the one in that file."""
    if PRIORS.find(name) is None and len(Path(name).parts) > 1 and not Path(name).exists():
        remedy = f"Check the path, or name one: {', '.join(PRIORS.names())}."
        raise ConfigurationError(
            "SolveConfig", "prior", expected="a prior or its file", received=f"no such file: {name}", remedy=remedy
        )
    if is_file(name):
        from ptycho_core.solving.learned import from_file  # here, because it imports this

        return from_file(name)
    return PRIORS.load(name)


def register_prior(name: str, *, weights: tuple[float, ...], replace: bool = False) -> Callable[[A], A]:
    """Decorator: makes a prior available as `SolveConfig(prior=name)`.

    ConfigurationError for a name that is taken, unless `replace`.
    """

    def register(function: A) -> A:
        PRIORS.register(name, replace=replace)(Prior(weights, function))
        return function

    return register
