"""Loss terms: what there is, what each compares, and those that are written once for every engine.

One of your own is a function of what is compared, in whatever file you like (specs/physics.md, Losses):

    @register_loss("log_error", formula="mean((ln(1 + I) − ln(1 + n))²)")
    def log_error(of: Compared) -> Any:
        xp = of.xp  # the functions of `Arrays`, on the arrays of whichever engine asks
        return of.mean(xp.square(xp.log(1 + of.predicted) - xp.log(1 + of.measured)))

Its weight is `TrainingConfig(loss_weights="log_error=0.5")`; it is reported, logged and monitored as `log_error`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, Protocol, TypeVar, get_args

import attrs

from ptycho_core.errors import BackendError, ConfigurationError
from ptycho_core.physics.constants import INTENSITY_FLOOR, MODULUS_FLOOR
from ptycho_core.registry import Registry, faults_of
from ptycho_core.vocabulary import LOSS_TERMS

Compares = Literal["counts", "object", "truth"]
LossFunction = Callable[[Any], Any]
F = TypeVar("F", bound=LossFunction)


# -- what a term is given ------------------------------------------------------------------------------------------


class Arrays(Protocol):
    """Functions that every engine has for its own arrays, which also add, subtract, multiply, divide and are sliced.

    axis: a number or several; None is all. `constant`: the same values, through which no gradient flows.
    """

    def abs(self, x: Any) -> Any: ...
    def exp(self, x: Any) -> Any: ...
    def log(self, x: Any) -> Any: ...
    def sqrt(self, x: Any) -> Any: ...
    def square(self, x: Any) -> Any: ...
    def sign(self, x: Any) -> Any: ...
    def maximum(self, x: Any, least: Any) -> Any: ...
    def minimum(self, x: Any, most: Any) -> Any: ...
    def where(self, condition: Any, x: Any, y: Any) -> Any: ...
    def sum(self, x: Any, axis: int | tuple[int, ...] | None = None) -> Any: ...
    def mean(self, x: Any, axis: int | tuple[int, ...] | None = None) -> Any: ...
    def constant(self, x: Any) -> Any: ...


@attrs.frozen(eq=False, kw_only=True)
class Compared:
    """What the terms compare, as arrays of an engine; None is what no term of the objective does.

    xp: the functions for them. patches, truth: (2, B, C, N, N), real and imaginary part. predicted, measured: counts
    (B, C, N, N). good: (N, N), 1 or 0. mean_counts: (), of the training set, a good pixel. lit: (N, N), weights of
    pixels that are compared with a truth of any phase; None where it is compared as it is.
    """

    xp: Arrays
    patches: Any
    truth: Any = None
    predicted: Any = None
    measured: Any = None
    good: Any = None
    mean_counts: Any = None
    lit: Any = None

    def mean(self, x: Any) -> Any:
        """Over the good pixels of x (B, C, N, N)."""
        return self.xp.sum(self.xp.mean(x * self.good, axis=(0, 1))) / self.xp.sum(self.good)

    @functools.cached_property
    def floored(self) -> Any:
        """I⁺, the predicted counts, with no gradient below the floor."""
        return self.xp.maximum(self.predicted, INTENSITY_FLOOR)

    @functools.cached_property
    def deviance(self) -> Any:
        """Half of it, a mean over the good pixels: I⁺ − n + n ln(n / I⁺); 0 for a perfect fit."""
        ratio = self.xp.where(self.measured > 0, self.measured, self.floored) / self.floored
        return self.mean(self.floored - self.measured + self.measured * self.xp.log(ratio))

    def modulus(self, field: Any) -> Any:
        """|z| of a field (2, …), with a gradient at 0."""
        squares = self.xp.sum(self.xp.square(field), axis=0)
        return self.xp.sqrt(squares + MODULUS_FLOOR**2) - MODULUS_FLOOR


# -- what a term is ------------------------------------------------------------------------------------------------


@attrs.frozen
class Term:
    """A loss term. formula: as in specs/physics.md, Losses.

    compares: predicted and measured counts; pixels of the merged patches with each other; or patches with the truth.
    setting: the field of `TrainingConfig` that is its weight in the total; None where it is reported alone.
    first: its weight at physics weight 0; None where no physics weight has a part in it.
    function: what computes it from a `Compared`; None where each engine has its own. functions: engine → its own.
    """

    name: str
    formula: str
    compares: Compares
    setting: str | None = None
    first: float | None = None
    function: LossFunction | None = attrs.field(default=None, repr=False)
    functions: Mapping[str, LossFunction] = attrs.field(factory=dict, repr=False)

    def weight(self, configured: float, physics_weight: Any) -> Any:
        """In the total: a number, or whatever kind of number the physics weight is."""
        if self.first is None:
            return configured
        return physics_weight * configured + (1 - physics_weight) * self.first


WEIGHTED = "loss_weights"
LOSSES: Registry[Term] = Registry(
    "loss",
    ("TrainingConfig", WEIGHTED),
    group="ptycho_core.losses",
    reserved=get_args(LOSS_TERMS),
    make=lambda function: function.term,
)
"""Terms beside ours, by name: what `loss_weights` names."""


def register_loss(
    name: str,
    *,
    compares: Compares = "counts",
    formula: str = "",
    engines: Mapping[str, LossFunction] = MappingProxyType({}),
    replace: bool = False,
) -> Callable[[F], F]:
    """Decorator: makes a function of a `Compared` a loss term, whose weight is `loss_weights="name=0.1"`.

    It gives a number, as an array of the engine, from which gradients flow. compares: "counts" (predicted and measured;
    its weight rises with the physics weight), "object" (the patches alone) or "truth". engines: functions for single
    engines in its place, by the engine's name; one for "reference" gives the value, and its gradient by the predicted
    counts, or as ∂L/∂Re z + i ∂L/∂Im z by the patches. ConfigurationError for a name that is taken, unless `replace`.
    """

    def take(function: F) -> F:
        first = 0.0 if compares == "counts" else None
        term = Term(name, formula, compares, WEIGHTED, first, function, dict(engines))
        function.term = term  # type: ignore[attr-defined]
        return LOSSES.register(name, replace=replace)(function)

    return take


def term_named(name: str) -> Term:
    """One of ours, or one that is registered. ConfigurationError for an unknown one."""
    return TERMS[name] if name in TERMS else LOSSES.load(name)


def loss_function(name: str, engine: str, own: Mapping[str, LossFunction]) -> LossFunction:
    """What computes a term in an engine. own: those that are written in it. BackendError where there is none."""
    term = term_named(name)
    found = own.get(name) if name in TERMS else term.functions.get(engine)
    found = found or term.function
    if found is None:
        remedy = f"Give register_loss a function, or one for {engine!r} in `engines`."
        raise BackendError(engine, f"loss {name!r}", expected="a function of it", received="none", remedy=remedy)
    return found if name in TERMS else _Brought(term.name, found)


@attrs.frozen
class _Brought:
    """The function of a loss that a program brings along, which gives a number or is refused."""

    name: str
    function: LossFunction

    def __call__(self, of: Any) -> Any:
        what, expected = f"loss {self.name!r}", "a number, as an array of the engine"
        with faults_of(what, expected, WEIGHTED):
            value = self.function(of)
        shape = getattr(value, "shape", () if isinstance(value, (int, float)) else None)
        if shape is None or tuple(shape) != ():
            received = type(value).__name__ if shape is None else f"an array of shape {tuple(shape)}"
            remedy = "Return a mean, such as of.mean(…) or xp.mean(…)."
            raise ConfigurationError(what, expected=expected, received=received, remedy=remedy, setting=WEIGHTED)
        return value


# -- ours ----------------------------------------------------------------------------------------------------------


def nll(of: Compared) -> Any:
    return of.deviance / of.mean_counts


def reduced_deviance(of: Compared) -> Any:
    return 2 * of.xp.constant(of.deviance)


def amplitude_mae(of: Compared) -> Any:
    xp = of.xp
    return of.mean(xp.abs(xp.sqrt(of.floored) - xp.sqrt(of.measured))) / xp.sqrt(of.mean_counts)


def total_variation(of: Compared) -> Any:
    """Mean |difference| of neighbouring pixels along x plus along y."""
    along_x = of.patches[..., :, 1:] - of.patches[..., :, :-1]
    along_y = of.patches[..., 1:, :] - of.patches[..., :-1, :]
    return of.xp.mean(of.modulus(along_x)) + of.xp.mean(of.modulus(along_y))


TERMS = {
    term.name: term
    for term in (
        Term("nll", "mean(h) / n̄", "counts", "nll_weight", 0.0, nll),
        Term("reduced_deviance", "2 · mean(h)", "counts", function=reduced_deviance),
        Term("amplitude_mae", "mean(abs(√I⁺ − √n)) / √n̄", "counts", "mae_weight", 1.0, amplitude_mae),
        Term(
            "total_variation",
            "mean(abs(∂x O')) + mean(abs(∂y O'))",
            "object",
            "realspace_weight",
            function=total_variation,
        ),
        Term("realspace_mae", "mean(abs(O' − truth))", "truth", "realspace_mae_weight"),
    )
}
"""Every loss term of ours, in the order in which they are reported and added up."""
