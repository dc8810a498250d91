"""Initial weights of a table, drawn from a seed."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ptycho_core.networks.table import Table


def initial_weights(table: Table, rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    """Glorot-uniform kernels and zero biases, drawn in the order of the table (Glorot & Bengio, AISTATS 2010)."""
    weights: dict[str, NDArray[np.float32]] = {}
    for name, shape in table.parameters.items():
        if name.endswith("/kernel"):
            *window, channels_in, channels_out = shape
            limit = math.sqrt(6 / (math.prod(window) * (channels_in + channels_out)))
            weights[name] = rng.uniform(-limit, limit, shape).astype(np.float32)
        else:
            weights[name] = np.zeros(shape, np.float32)
    return weights
