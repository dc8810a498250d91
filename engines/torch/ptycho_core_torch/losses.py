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
    or 0. mean_counts: (), of the training set, a good pixel. lit: (N, N), weights of pixels that are compared with a
    truth of any phase; None where it is compared as it is.
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
    if of.lit is None:
        return modulus(of.patches - of.truth).mean()
    return (of.lit * modulus(of.patches - in_phase(of.truth, of.patches, of.lit))).mean() / of.lit.mean()


TERMS: dict[str, Callable[[Compared], Tensor]] = {
    term.__name__: term for term in (nll, reduced_deviance, amplitude_mae, total_variation, realspace_mae)
}


# -- what they are made of -----------------------------------------------------------------------------------------


def in_scale(truth: Tensor, of_truth: Tensor, measured: Tensor, good: Tensor) -> Tensor:
    """The truth (2, B, C, N, N), each group's in the scale in which its intensities sum up to the measured ones."""
    shown, sought = ((good * x).sum(dim=(1, 2, 3)) for x in (of_truth, measured))
    return truth * torch.sqrt(sought / shown.clamp_min(INTENSITY_FLOOR))[:, None, None, None]


def in_phase(truth: Tensor, patches: Tensor, lit: Tensor) -> Tensor:
    """The truth (2, B, C, N, N), each group's turned as fits the patches best where they are lit; a constant turn."""
    known, shown = torch.complex(*truth), torch.complex(*patches.detach())
    alike = (lit * known.conj() * shown).sum(dim=(1, 2, 3), keepdim=True)
    turned = alike / alike.abs().clamp_min(MODULUS_FLOOR**2) * known
    return torch.stack([turned.real, turned.imag])


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
