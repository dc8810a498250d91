"""Generators of other publications, as tables."""

from __future__ import annotations

import math
from pathlib import Path

import attrs
import numpy as np
import pytest

from ptycho_core.networks.initial import initial_weights
from ptycho_core.networks.registry import build_table
from ptycho_core.settings.model import GENERATORS, ModelConfig

SPEC = (Path(__file__).parents[3] / "specs" / "model.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("gridsize", [1, 2])
def test_they_give_real_and_imaginary_part_of_every_pattern(name: str, gridsize: int) -> None:
    table = build_table(ModelConfig(architecture=name, N=32, gridsize=gridsize))
    assert table.outputs == (table.real, table.imaginary) == ("real", "imaginary")
    channels, sides = {layer.name: layer.out_channels for layer in table.layers}, table.sizes(32)
    assert {(channels[output], sides[output]) for output in table.outputs} == {(gridsize**2, 32)}


@pytest.mark.parametrize("name", GENERATORS)
def test_the_numbers_of_weights_are_those_of_the_specification(name: str) -> None:
    table = build_table(ModelConfig(architecture=name, N=128))
    count = sum(math.prod(shape) for shape in table.parameters.values())
    assert f"- `{name}` ({count:,}" in SPEC


@pytest.mark.parametrize("name", GENERATORS)
def test_untrained_they_show_a_nearly_clear_object(name: str) -> None:
    table = build_table(ModelConfig(architecture=name, N=16, n_filters_scale=1))
    weights, plain = (
        initial_weights(each, np.random.default_rng(0)) for each in (table, attrs.evolve(table, faint=()))
    )
    for head in table.outputs:
        np.testing.assert_array_equal(weights[f"{head}/kernel"], plain[f"{head}/kernel"] / 4)
    assert (weights["real/bias"], weights["imaginary/bias"]) == (1, 0)
    assert not any(array.any() for key, array in weights.items() if key.endswith("/bias") and key != "real/bias")
