"""Products with real matrices are the transforms of the published spectral convolutions."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ptycho_core.networks.ops import op_named
from ptycho_core.networks.spectral import from_modes, from_signed_modes, to_modes, to_signed_modes
from ptycho_core.networks.table import INPUT, TableBuilder

RNG = np.random.default_rng(0)


def published(x: NDArray[np.float64], weights: NDArray[np.complex128], modes: int, side: int) -> NDArray[np.float64]:
    """Li et al., ICLR 2021: of `rfft2` two corners of modes, each times its own weight, then `irfft2`."""
    coefficients = np.fft.rfft2(x, norm="forward")
    changed = np.zeros((side, side // 2 + 1), complex)
    changed[:modes, :modes] = coefficients[:modes, :modes] * weights[:modes]
    changed[-modes:, :modes] = coefficients[-modes:, :modes] * weights[modes:]
    return np.fft.irfft2(changed, s=(side, side), norm="forward")


@pytest.mark.parametrize("side", [24, 12, 48])
def test_maps_to_modes_and_back(side: int) -> None:
    modes, x = 5, RNG.normal(size=(24, 24))
    weights = RNG.normal(size=(10, 5)) + 1j * RNG.normal(size=(10, 5))
    parts = np.einsum("hw,pwk->hpk", x, to_modes(24, modes))
    parts = np.einsum("hpk,pqhj->qjk", parts, to_signed_modes(24, modes))
    changed = weights * (parts[0] + 1j * parts[1])
    parts = np.einsum("rjk,rshj->shk", np.stack([changed.real, changed.imag]), from_signed_modes(side, modes))
    given = np.einsum("shk,swk->hw", parts, from_modes(side, modes))
    np.testing.assert_allclose(given, published(x, weights, modes, side), atol=1e-14)


@pytest.mark.parametrize("op", ["spectral_conv", "factorised_spectral_conv"])
def test_more_modes_than_a_map_has_are_refused(op: str) -> None:
    table = TableBuilder(1)
    table.op("y", op, INPUT, out_channels=2, modes=9)
    whole = table.finish(amplitude="y", phase="y")
    assert whole.sizes(18)["y"] == 18
    with pytest.raises(ValueError, match="layer 'y': expected modes of at most half of 16 pixels; received 9"):
        whole.sizes(16)


def test_a_smaller_output_limits_the_modes_too() -> None:
    table = TableBuilder(1)
    table.spectral_conv("y", INPUT, 2, 5, scale=0.5)
    whole = table.finish(amplitude="y", phase="y")
    assert whole.sizes(20)["y"] == 10
    with pytest.raises(ValueError, match="at most half of 8 pixels; received 5"):
        whole.sizes(16)


def test_first_matrices_are_as_glorot_has_them_for_each_mode() -> None:
    table = TableBuilder(4)
    table.spectral_conv("y", INPUT, 8, 6)
    (layer,) = table.finish(amplitude="y", phase="y").layers
    assert layer.parameters == {"y/real": (12, 6, 4, 8), "y/imaginary": (12, 6, 4, 8)}
    draw = op_named("spectral_conv").initial["real"]
    assert callable(draw)
    drawn = draw(layer, layer.shapes["real"], np.random.default_rng(0))
    assert drawn.var() == pytest.approx(1 / (4 + 8), rel=0.05)
    assert np.abs(drawn).max() == pytest.approx(np.sqrt(3 / 12), rel=0.01)


def test_sides_of_strided_and_transposed_convolutions() -> None:
    table = TableBuilder(1)
    x = table.conv("down", INPUT, 2, stride=2, padding="reflect")
    table.gain("scaled", table.transposed_conv("up", x, 3), 0.1)
    whole = table.finish(amplitude="scaled", phase="scaled")
    assert whole.sizes(16) == {INPUT: 16, "down": 8, "up": 16, "scaled": 16}
    assert whole.parameters["up/kernel"] == (3, 3, 2, 3)
    with pytest.raises(ValueError, match="layer 'down': 'conv' has no reach that is known"):
        _ = whole.reach_px
    with pytest.raises(ValueError, match="layer 'z': expected padding = zeros or reflect; received wrap"):
        table.conv("z", x, 2, padding="wrap")
