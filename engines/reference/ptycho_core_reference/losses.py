"""Loss terms of specs/physics.md, Losses, each with its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.engine import losses
from ptycho_core.engine.losses import loss_function, term_named
from ptycho_core.engine.objective import Objective
from ptycho_core.errors import BackendError
from ptycho_core.physics.constants import INTENSITY_FLOOR, MODULUS_FLOOR
from ptycho_core.vocabulary import Field
from ptycho_core_reference.arrays import XP
from ptycho_core_reference.ops import ENGINE

Array = NDArray[np.float64]
NOTHING: Any = np.empty(0)


@attrs.frozen(eq=False, kw_only=True)
class Compared:
    """What the terms compare; empty is what no term of the objective does.

    patches, truth: (B, C, N, N). predicted, measured: counts (B, C, N, N). good: (N, N). mean_counts: of the training
    set, a good pixel. lit: (N, N), weights of pixels that are compared with a truth of any phase; empty where it is
    compared as it is.
    """

    patches: Field
    truth: Field = NOTHING
    predicted: Array = NOTHING
    measured: Array = NOTHING
    good: NDArray[np.bool_] = NOTHING
    mean_counts: float = 0.0
    lit: Array = NOTHING


def nll(of: Compared) -> tuple[float, Array]:
    deviance, g = masked_mean(*half_deviance(of.predicted, of.measured), of.good)
    return deviance / of.mean_counts, g / of.mean_counts


def reduced_deviance(of: Compared) -> tuple[float, Array]:
    deviance, g = masked_mean(*half_deviance(of.predicted, of.measured), of.good)
    return 2 * deviance, 2 * g


def amplitude_mae(of: Compared) -> tuple[float, Array]:
    error, g = masked_mean(*amplitude_error(of.predicted, of.measured), of.good)
    return error / np.sqrt(of.mean_counts), g / np.sqrt(of.mean_counts)


def total_variation(of: Compared) -> tuple[float, Field]:
    """Mean |difference| of neighbouring pixels along x plus along y."""
    patches = of.patches
    along_x, by_x = mean_modulus(patches[..., :, 1:] - patches[..., :, :-1])
    along_y, by_y = mean_modulus(patches[..., 1:, :] - patches[..., :-1, :])
    gradient = np.zeros_like(patches)
    gradient[..., :, 1:] += by_x
    gradient[..., :, :-1] -= by_x
    gradient[..., 1:, :] += by_y
    gradient[..., :-1, :] -= by_y
    return along_x + along_y, gradient


def realspace_mae(of: Compared) -> tuple[float, Field]:
    if not of.lit.size:
        return mean_modulus(of.patches - of.truth)
    error = of.patches - in_phase(of.truth, of.patches, of.lit)
    return mean_modulus(error, np.broadcast_to(of.lit / of.lit.mean(), error.shape))


Way = tuple[float, NDArray[Any] | None]
TERMS: dict[str, Callable[[Compared], Way]] = {
    term.__name__: term for term in (nll, reduced_deviance, amplitude_mae, total_variation, realspace_mae)
}
"""Each with its gradient: of those that compare counts by the predicted ones, of the others by the patches."""


def term(name: str, of: Compared) -> Way:
    """The value and the gradient of a term; no gradient where one is registered without.

    What is registered takes fields (B, C, N, N) as (2, B, C, N, N), real and imaginary part.
    """
    if name in TERMS:
        return TERMS[name](of)
    registered, own = term_named(name), {}
    for field in ("patches", "truth"):
        array = getattr(of, field)
        own[field] = np.stack([array.real, array.imag]) if array.size else None
    counts = {"predicted": of.predicted, "measured": of.measured, "good": of.good.astype(np.float64)}
    given = losses.Compared(xp=XP, **own, **counts, mean_counts=of.mean_counts, lit=of.lit if of.lit.size else None)
    if ENGINE in registered.functions:
        value, gradient = registered.functions[ENGINE](given)
        return float(value), gradient
    return float(loss_function(name, ENGINE, {})(given)), None


def check_gradients(objective: Objective) -> None:
    """BackendError where a term of the total is registered without a gradient for this engine."""
    for name in objective.configured:
        if name not in TERMS and ENGINE not in term_named(name).functions:
            remedy = f"Give register_loss engines={{{ENGINE!r}: …}}, or take another engine."
            expected = "a function of its value and gradient"
            raise BackendError(ENGINE, f"loss {name!r}", expected=expected, received="its value alone", remedy=remedy)


# -- what they are made of -----------------------------------------------------------------------------------------


def in_scale(truth: Field, of_truth: Array, measured: Array, good: NDArray[np.bool_]) -> Field:
    """The truth (B, C, N, N), each group's in the scale in which its intensities sum up to the measured ones."""
    shown, sought = ((good * x).sum(axis=(1, 2, 3), keepdims=True) for x in (of_truth, measured))
    scaled: Field = truth * np.sqrt(sought / np.maximum(shown, INTENSITY_FLOOR))
    return scaled


def in_phase(truth: Field, patches: Field, lit: Array) -> Field:
    """The truth (B, C, N, N), each group's turned as fits the patches best where they are lit; a constant turn."""
    alike = (lit * truth.conj() * patches).sum(axis=(1, 2, 3), keepdims=True)
    turned: Field = alike / np.maximum(np.abs(alike), MODULUS_FLOOR**2) * truth
    return turned


def masked_mean(x: Array, g: Array, good: NDArray[np.bool_]) -> tuple[float, Array]:
    """Mean over the good pixels of x (B, C, N, N), g its derivative per pixel; good (N, N)."""
    weight = good / (good.sum() * x.shape[0] * x.shape[1])
    return float((x * weight).sum()), g * weight


def half_deviance(predicted: Array, measured: Array) -> tuple[Array, Array]:
    """Poisson negative log likelihood without its constant, per pixel: I - n + n ln(n / I); and its derivative by I."""
    floored = np.maximum(predicted, INTENSITY_FLOOR)
    ratio = np.where(measured > 0, measured, floored) / floored
    value = floored - measured + measured * np.log(ratio)
    return value, (1 - measured / floored) * (predicted >= INTENSITY_FLOOR)


def amplitude_error(predicted: Array, measured: Array) -> tuple[Array, Array]:
    """| sqrt(I) - sqrt(n) |, per pixel, and its derivative by I."""
    amplitude = np.sqrt(np.maximum(predicted, INTENSITY_FLOOR))
    difference = amplitude - np.sqrt(measured)
    return np.abs(difference), np.sign(difference) / (2 * amplitude) * (predicted >= INTENSITY_FLOOR)


def mean_modulus(field: Field, weight: Array | float = 1.0) -> tuple[float, Field]:
    """Mean of weight · |z|, and its gradient, which exists at 0."""
    modulus = np.sqrt(field.real**2 + field.imag**2 + MODULUS_FLOOR**2)
    return float(np.mean(weight * (modulus - MODULUS_FLOOR))), weight * field / modulus / field.size
