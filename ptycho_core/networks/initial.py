"""Initial weights of a table, drawn from a seed."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ptycho_core.networks.ops import op_named
from ptycho_core.networks.table import Table


def initial_weights(table: Table, rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    """Glorot-uniform kernels, drawn in the order of the table (Glorot & Bengio, AISTATS 2010); those of `zeros` are 0.

    Those of `faint` are a quarter. Biases of `ones` are 1. Other parameters begin with what their op says, 0 as a rule.
    """
    weights: dict[str, NDArray[np.float32]] = {}
    for layer in table.layers:
        for name, shape in layer.parameters.items():
            parameter = name.rpartition("/")[2]
            if parameter == "kernel":
                *window, channels_in, channels_out = shape
                limit = math.sqrt(6 / (math.prod(window) * (channels_in + channels_out))) * _part(layer.name, table)
                weights[name] = rng.uniform(-limit, limit, shape).astype(np.float32)
            else:
                usual = 1.0 if parameter == "bias" and layer.name in table.ones else 0.0
                first = op_named(layer.op).initial.get(parameter, usual)
                weights[name] = np.full(shape, first(layer, shape, rng) if callable(first) else first, np.float32)
    return weights


def _part(layer: str, table: Table) -> float:
    """Of Glorot's limits, those of a layer's kernel."""
    if layer in table.zeros:
        return 0.0
    return 0.25 if layer in table.faint else 1.0  # specs/model.md, Initial weights
