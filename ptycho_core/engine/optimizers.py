"""Optimisers by name, written once for every engine (specs/physics.md, Optimiser).

One of your own is a function of one array's step, which keeps no state but what it returns:

    @register_optimizer("lion", state=("momentum",))
    def lion(at: Step) -> tuple[Any, dict[str, Any]]:
        rule, momentum = at.rule, at.state["momentum"]
        direction = at.xp.sign(rule.adam_beta1 * momentum + (1 - rule.adam_beta1) * at.gradient)
        kept = rule.adam_beta2 * momentum + (1 - rule.adam_beta2) * at.gradient
        return at.array - at.rate * (direction + at.decay * at.array), {"momentum": kept}

Then `TrainingConfig(optimizer="lion")` trains with it, and a run resumes with its state, on any engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import attrs

from ptycho_core.engine.losses import Arrays
from ptycho_core.errors import ConfigurationError
from ptycho_core.physics.constants import ADAM_EPSILON
from ptycho_core.registry import Registry, faults_of
from ptycho_core.settings.training import TrainingConfig


class Rule(NamedTuple):
    """What a step is made for, beside the shapes of its arrays: fields of a training configuration."""

    optimizer: str
    weight_decay: float
    adam_beta1: float
    adam_beta2: float
    momentum: float
    gradient_clip_val: float | None
    gradient_clip_algorithm: str

    @classmethod
    def of(cls, training: TrainingConfig) -> Rule:
        return cls(*(getattr(training, name) for name in cls._fields))


@attrs.frozen(eq=False, kw_only=True)
class Step:
    """What an optimiser knows of one array, as arrays of an engine.

    xp: the functions for them. array: θ. gradient: g, clipped. state: what it returned the last time, by name; 0 at
    first. rate: the learning rate. decay: λ, `weight_decay` for a kernel and 0 for every other array. rule: the
    settings. corrected: β → 1 − βᵗ, t the number of the step from 1, worked out in float64.
    """

    xp: Arrays
    array: Any
    gradient: Any
    state: Mapping[str, Any]
    rate: Any
    decay: float
    rule: Rule
    corrected: Callable[[float], Any]


Update = Callable[[Step], tuple[Any, Mapping[str, Any]]]
"""A step → the array after it, and its state."""
U = TypeVar("U", bound=Update)


@attrs.frozen
class Optimiser:
    """Names of what it keeps for every trainable array, each an array of the same shape, and its step."""

    name: str
    state: tuple[str, ...]
    update: Update

    def step(self, at: Step) -> tuple[Any, Mapping[str, Any]]:
        """The array after a step, and its state. ConfigurationError where `update` gives anything else."""
        kept = ", ".join(f"{name!r}: …" for name in self.state)
        what, expected = f"optimizer {self.name!r}", f"(array, {{{kept}}})"
        with faults_of(what, expected, "optimizer"):
            array, state = self.update(at)
            given = {"array": array, **{name: state[name] for name in self.state}}
        for name, value in given.items():
            shape = tuple(getattr(value, "shape", ()))
            if shape != tuple(at.array.shape):
                wanted, received = f"arrays of the shape {tuple(at.array.shape)}", f"{name} of {shape}"
                remedy = "Return every one in the shape of at.array."
                raise ConfigurationError(what, expected=wanted, received=received, remedy=remedy, setting="optimizer")
        return array, state


OPTIMIZERS: Registry[Optimiser] = Registry(
    "optimizer",
    ("TrainingConfig", "optimizer"),
    group="ptycho_core.optimizers",
    ours={name: f"ptycho_core.engine.optimizers:{name}" for name in ("adam", "adamw", "sgd")},
    make=lambda update: update.optimiser,
)


def stateful(name: str, *state: str) -> Callable[[U], U]:
    """Decorator: what an optimiser keeps, and what it is called; without registering it."""

    def keep(update: U) -> U:
        update.optimiser = Optimiser(name, state, update)  # type: ignore[attr-defined]
        return update

    return keep


def register_optimizer(name: str, *, state: tuple[str, ...] = (), replace: bool = False) -> Callable[[U], U]:
    """Decorator: makes a function of a `Step` available as `TrainingConfig(optimizer=name)` in every engine.

    It returns the array after the step, and for every name of `state` what the next one is given; these begin at 0, are
    saved in checkpoints as `name/array`, and go from one engine to another. ConfigurationError for a name that is
    taken, unless `replace`.
    """

    def take(update: U) -> U:
        return OPTIMIZERS.register(name, replace=replace)(stateful(name, *state)(update))

    return take


# -- ours ----------------------------------------------------------------------------------------------------------


@stateful("adam", "first_moment", "second_moment")
def adam(at: Step) -> tuple[Any, Mapping[str, Any]]:
    """Kingma & Ba, Adam, ICLR 2015, Algorithm 1: bias-corrected, epsilon outside the root."""
    return _adam(at, at.array, at.gradient + at.decay * at.array if at.decay else at.gradient)


@stateful("adamw", "first_moment", "second_moment")
def adamw(at: Step) -> tuple[Any, Mapping[str, Any]]:
    """Loshchilov & Hutter, ICLR 2019: the decay apart from the moments."""
    return _adam(at, at.array - at.rate * at.decay * at.array if at.decay else at.array, at.gradient)


@stateful("sgd", "momentum")
def sgd(at: Step) -> tuple[Any, Mapping[str, Any]]:
    gradient = at.gradient + at.decay * at.array if at.decay else at.gradient
    momentum = at.rule.momentum * at.state["momentum"] + gradient
    return at.array - at.rate * momentum, {"momentum": momentum}


def _adam(at: Step, array: Any, gradient: Any) -> tuple[Any, Mapping[str, Any]]:
    beta1, beta2, xp = at.rule.adam_beta1, at.rule.adam_beta2, at.xp
    first = beta1 * at.state["first_moment"] + (1 - beta1) * gradient
    second = beta2 * at.state["second_moment"] + (1 - beta2) * xp.square(gradient)
    change = (first / at.corrected(beta1)) / (xp.sqrt(second) / xp.sqrt(at.corrected(beta2)) + ADAM_EPSILON)
    return array - at.rate * change, {"first_moment": first, "second_moment": second}
