"""Loss terms of specs/physics.md, Losses: the same numbers as every other engine's for the same batch."""

from __future__ import annotations

import functools
from collections.abc import Callable

import attrs
import torch
from torch import Tensor

from ptycho_core.physics.constants import INTENSITY_FLOOR, MODULUS_FLOOR


@attrs.frozen(eq=False, kw_only=True)
class Compared:
    """What the terms compare; None is what no term of the objective does.

    patches, truth: (2, B, C, N, N), real and imaginary part. predicted, measured: counts (B, C, N, N). good: (N, N), 1
    or 0. mean_counts: (), of the training set, a good pixel. lit: (N, N), weights of the factor that fits the truth to
    the patches of each group; None where it is compared as it is.
    """

    patches: Tensor
    truth: Tensor | None = None
    predicted: Tensor | None = None
    measured: Tensor | None = None
    good: Tensor | None = None
    mean_counts: Tensor | None = None
    lit: Tensor | None = None

    @functools.cached_property
    def deviance(self) -> Tensor:
        """Half of it, a mean over the good pixels."""
        return masked_mean(half_deviance(self.predicted, self.measured), self.good)


def nll(of: Compared) -> Tensor:
    return of.deviance / of.mean_counts


def reduced_deviance(of: Compared) -> Tensor:
    return 2 * of.deviance.detach()


def amplitude_mae(of: Compared) -> Tensor:
    return masked_mean(amplitude_error(of.predicted, of.measured), of.good) / torch.sqrt(of.mean_counts)


def total_variation(of: Compared) -> Tensor:
    """Mean |difference| of neighbouring pixels along x plus along y."""
    along_x = of.patches[..., :, 1:] - of.patches[..., :, :-1]
    along_y = of.patches[..., 1:, :] - of.patches[..., :-1, :]
    return modulus(along_x).mean() + modulus(along_y).mean()


def realspace_mae(of: Compared) -> Tensor:
    error = of.patches - of.truth if of.lit is None else error_in_gauge(of.truth, of.patches, of.lit)
    return modulus(error).mean()


TERMS: dict[str, Callable[[Compared], Tensor]] = {
    term.__name__: term for term in (nll, reduced_deviance, amplitude_mae, total_variation, realspace_mae)
}


# -- what they are made of -----------------------------------------------------------------------------------------


def error_in_gauge(truth: Tensor, patches: Tensor, lit: Tensor) -> Tensor:
    """Patches minus the truth times the complex factor that fits it to them, over its modulus: of any scale the same.

    All (2, B, C, N, N); a factor for each group.
    """
    known, shown = torch.complex(*truth), torch.complex(*patches)
    each = {"dim": (1, 2, 3), "keepdim": True}
    bright = (lit * known.abs().square()).sum(**each).clamp(min=MODULUS_FLOOR**2 * lit.sum())
    factor = (lit * known.conj() * shown).sum(**each) / bright
    size = factor.abs()
    error = (shown - factor * known) / torch.where(size > MODULUS_FLOOR, size, 1)
    return torch.stack([error.real, error.imag])


def masked_mean(x: Tensor, good: Tensor) -> Tensor:
    """Mean over the good pixels of x (B, C, N, N); good (N, N), 1 or 0."""
    return (x * good).mean(dim=(0, 1)).sum() / good.sum()


def half_deviance(predicted: Tensor, measured: Tensor) -> Tensor:
    """Poisson negative log likelihood without its constant, per pixel: I - n + n ln(n / I); 0 for a perfect fit."""
    predicted = predicted.clamp_min(INTENSITY_FLOOR)
    ratio = torch.where(measured > 0, measured, predicted) / predicted
    return predicted - measured + measured * torch.log(ratio)


def amplitude_error(predicted: Tensor, measured: Tensor) -> Tensor:
    """| sqrt(I) - sqrt(n) |, per pixel; predicted and measured counts."""
    return torch.abs(torch.sqrt(predicted.clamp_min(INTENSITY_FLOOR)) - torch.sqrt(measured))


def modulus(field: Tensor) -> Tensor:
    """|z| of a field (2, …), with a gradient at 0."""
    return torch.sqrt(field.square().sum(dim=0) + MODULUS_FLOOR**2) - MODULUS_FLOOR
