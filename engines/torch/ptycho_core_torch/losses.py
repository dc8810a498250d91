"""Loss terms of specs/physics.md, Losses, that are written in this framework: those of complex numbers.

The others stand once in ptycho_core/engine/losses.py.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ptycho_core.engine.losses import Compared
from ptycho_core.physics.constants import INTENSITY_FLOOR, MODULUS_FLOOR


def realspace_mae(of: Compared) -> Tensor:
    if of.lit is None:
        return of.modulus(of.patches - of.truth).mean()
    return (of.lit * of.modulus(of.patches - in_phase(of.truth, of.patches, of.lit))).mean() / of.lit.mean()


TERMS: dict[str, Callable[[Compared], Tensor]] = {"realspace_mae": realspace_mae}


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
