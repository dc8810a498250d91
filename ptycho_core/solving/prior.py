"""What a prior is: something known of objects beforehand, applied in a run of sweeps (specs/solving.md, Prior)."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.engine.protocol import Engine, Solver
from ptycho_core.settings.execution import ExecutionConfig

Apply = Callable[[Solver, float, NDArray[np.float64]], None]
"""Brings a solver's object nearer to what is known, by a weight, given the photons (H, W) that fell on each pixel."""
Build = Callable[[Engine, ExecutionConfig], Apply]
Suits = Callable[[NDArray[np.complex64], NDArray[np.float64]], str | None]


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
