"""A torch.nn.Module as a layer (specs/model.md, Networks of one framework)."""

from __future__ import annotations

from torch import Tensor
from torch.func import functional_call

from ptycho_core.errors import ConfigurationError
from ptycho_core.networks.own import OwnNetwork
from ptycho_core.registry import faults_of


def run_module(x: Tensor, *, own: OwnNetwork, **parameters: Tensor) -> Tensor:
    """Maps (B, C, N, N) → (B, 2C, N, N), with these parameters in place of the module's."""
    with faults_of(f"architecture {own.place!r}", "a network that computes its maps"):
        y: Tensor = functional_call(own.module, parameters, (x,))
    batch, channels, *sides = x.shape
    expected, received = (batch, 2 * channels, *sides), tuple(y.shape)
    if expected != received:
        remedy = "Return amplitude, then phase, of every pattern: (B, 2C, N, N) for (B, C, N, N)."
        raise ConfigurationError(f"architecture {own.place!r}", expected=expected, received=received, remedy=remedy)
    return y
