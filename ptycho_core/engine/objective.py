"""What is minimised: the loss terms, what each of them compares and what it weighs (specs/physics.md, Losses).

It is said here and nowhere else. An engine computes the terms that an objective names, each by the function of that
name in its `losses.py`, and has `total` add them up.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from typing import Any

import attrs

from ptycho_core.engine.losses import TERMS, WEIGHTED, Compares, term_named
from ptycho_core.errors import ConfigurationError
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.settings.words import loss_weights
from ptycho_core.vocabulary import AUTO


@attrs.frozen
class Objective:
    """The loss of a configuration.

    terms: names of those that are computed and reported, "total" apart. configured: the weight of each that is in the
    total, under the whole physics weight.
    """

    terms: tuple[str, ...]
    configured: Mapping[str, float]

    @classmethod
    def of(cls, training: TrainingConfig) -> Objective:
        if training.model.model_type == "supervised":
            return cls(("realspace_mae",), {"realspace_mae": 1.0})
        weights = {name: getattr(training, term.setting) for name, term in TERMS.items() if term.setting is not None}
        terms = tuple(name for name, term in TERMS.items() if term.compares == "counts" or weights.get(name, 0) > 0)
        others = {_registered(name): weight for name, weight in loss_weights(training.loss_weights or "").items()}
        return cls((*terms, *others), {name: weights[name] for name in terms if name in weights} | others)

    def weights(self, physics_weight: Any = 1.0) -> dict[str, Any]:
        """Name → weight in the total. physics_weight: a number from 0 to 1, or an engine's tensor of one."""
        return {name: term_named(name).weight(weight, physics_weight) for name, weight in self.configured.items()}

    def total(self, terms: Mapping[str, Any], physics_weight: Any = 1.0) -> Any:
        """The weighted sum of the terms, of any type that can be added and multiplied by a number."""
        weights = self.weights(physics_weight)
        return functools.reduce(operator.add, (weight * terms[name] for name, weight in weights.items()))

    def compares(self, what: Compares) -> bool:
        """Whether a term compares that: an engine needs the forward model for counts alone, the truth for truth."""
        return any(term_named(name).compares == what for name in self.terms)


def _registered(name: str) -> str:
    """The name of a term beside ours, as it was written. ConfigurationError for one of ours, or an unknown one."""
    if name in TERMS:
        remedy = f"Set {TERMS[name].setting}." if TERMS[name].setting else "It is reported in any case."
        expected = "losses that a program has registered"
        raise ConfigurationError("TrainingConfig", WEIGHTED, expected=expected, received=repr(name), remedy=remedy)
    return term_named(name).name


def reported_terms(config: TrainingConfig) -> tuple[str, ...]:
    """The loss terms that an epoch reports under this configuration, "total" first."""
    return ("total", *Objective.of(config).terms)


def check_monitor(execution: ExecutionConfig, config: TrainingConfig) -> None:
    """Refuse a loss term to go by that the losses of this configuration do not have: ConfigurationError."""
    metric = execution.checkpoint_monitor_metric
    terms = reported_terms(config)
    if metric not in (AUTO, *terms):
        expected, remedy = f"one of {', '.join(terms)}", "Choose one of them, or give it a weight."
        raise ConfigurationError(
            "ExecutionConfig", "checkpoint_monitor_metric", expected=expected, received=repr(metric), remedy=remedy
        )
