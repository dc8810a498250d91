"""Objects whose total variation is small (specs/solving.md, Prior)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptycho_core.engine.protocol import Solver
from ptycho_core.solving.prior import Prior


def less_variation(solver: Solver, weight: float, light: NDArray[np.float64]) -> None:
    """The engine's proximal step of total variation, real and imaginary part together, on its own device."""
    solver.denoise(weight)


TV = Prior((0.02, 0.05, 0.1, 0.2), less_variation)
