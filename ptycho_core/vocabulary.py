"""Words that every floor shares: canonical names of weights, loss terms, kinds of measurement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:  # the command line's help does without numpy
    import numpy as np
    from numpy.typing import NDArray

Measurement = Literal["amplitude", "intensity"]

Weights: TypeAlias = "Mapping[str, NDArray[np.floating]]"
"""Canonical name → array, such as "encoder/block0/conv0/kernel" (kh, kw, in, out)."""

Field: TypeAlias = "NDArray[np.complex128]"
"""An object, a patch, a probe or a wave, as it is computed with."""

LOSS_TERMS = Literal["total", "nll", "reduced_deviance", "amplitude_mae", "total_variation", "realspace_mae"]
"""Names of specs/physics.md, Losses."""

MONITORED = Literal["auto", "total", "nll", "reduced_deviance", "amplitude_mae", "total_variation", "realspace_mae"]
"""What may choose the best weights: a loss term, or what suits the network."""

AUTO = "auto"

LossTerms = Mapping[str, float]
"""Mean over the groups of an epoch of every loss term of specs/physics.md, Losses, by name; always with "total"."""

TOTAL = "total"

OBJECT = "object/field"  # (H, W, 2): real and imaginary part; a solver's
PROBE = "probe/field"  # (modes, N, N, 2): real and imaginary part
LOG_SCALE = "intensity/log_scale"  # (): predicted amplitude is multiplied by exp of it
INPUT_SCALE = "data/input_scale"  # (): k, network input = k · amplitude
MEAN_INTENSITY = "data/mean_intensity"  # (): of the training set, a good pixel
COUNTS_PER_INTENSITY = "data/counts_per_intensity"  # (): 1 where the dose is known


def of_scan(number: int, name: str) -> str:
    """The name of a loss term or an array that is of one of several scans, counted from 1: "scan2/total"."""
    return f"scan{number}/{name}"
