"""The optimisers and the clipping of gradients before them (specs/physics.md, Optimiser)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from ptycho_core.engine.checks import check_optimizer_state, optimizer_moments
from ptycho_core.engine.optimizers import OPTIMIZERS, Optimiser, Rule, Step
from ptycho_core.physics.constants import AGC_FLOOR
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.vocabulary import Weights
from ptycho_core_tensorflow.arrays import XP
from ptycho_core_tensorflow.weights import to_arrays


class Optimizer:
    """Changes the variables that it is given, in place; its moments begin at 0."""

    def __init__(self, training: TrainingConfig | None, tensors: Mapping[str, tf.Variable]) -> None:
        self.rule = None if training is None else Rule.of(training)
        self.optimiser = None if training is None else OPTIMIZERS.load(training.optimizer)
        self.tensors = tensors
        self.steps = tf.Variable(0, dtype=tf.float64)
        self.moments = {
            f"{moment}/{name}": tf.Variable(tf.zeros_like(tensor), trainable=False)
            for moment in optimizer_moments(training)
            for name, tensor in tensors.items()
        }

    def state(self) -> Weights:
        return {"step": np.asarray(float(self.steps)), **to_arrays(self.moments)}

    def load_state(self, state: Weights) -> None:
        check_optimizer_state(state, self.state())
        self.steps.assign(float(state["step"]))
        for name, moment in self.moments.items():
            moment.assign(tf.cast(state[name], moment.dtype))

    def reset(self) -> None:
        for variable in (self.steps, *self.moments.values()):
            variable.assign(tf.zeros_like(variable))

    def clipped(self, gradients: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The gradients, limited as configured."""
        assert self.rule is not None
        return clip(gradients, self.tensors, self.rule)

    def step(self, gradients: Mapping[str, tf.Tensor], learning_rate: tf.Tensor) -> None:
        """One step from the gradients as they are before clipping."""
        assert self.rule is not None and self.optimiser is not None
        graph_step(self.rule, self.optimiser)(self.tensors, self.steps, self.moments, dict(gradients), learning_rate)


@functools.lru_cache(maxsize=16)
def graph_step(rule: Rule, optimiser: Optimiser) -> Any:
    """`change` by a rule as a graph, which all optimisers of that rule share (`forward.py`)."""
    return tf.function(functools.partial(change, rule, optimiser), autograph=False)


def change(
    rule: Rule,
    optimiser: Optimiser,
    tensors: Mapping[str, tf.Variable],
    steps: tf.Variable,
    moments: Mapping[str, tf.Variable],
    gradients: Mapping[str, tf.Tensor],
    learning_rate: tf.Tensor,
) -> None:
    """Step the variables and the moments, in place."""
    steps.assign_add(1)
    for name, gradient in clip(gradients, tensors, rule).items():
        kept = {moment.removesuffix(f"/{name}"): moment for moment in moments if moment.endswith(f"/{name}")}

        def corrected(beta: float, dtype: tf.DType = gradient.dtype) -> tf.Tensor:
            # In float64, because these cancel. A Python number would be made float32.
            return tf.cast(1 - tf.constant(beta, tf.float64) ** steps, dtype)

        step = Step(
            xp=XP,
            array=tensors[name].value(),
            gradient=gradient,
            state={moment: moments[where].value() for moment, where in kept.items()},
            rate=learning_rate,
            decay=rule.weight_decay if name.endswith("/kernel") else 0.0,
            rule=rule,
            corrected=corrected,
        )
        array, state = optimiser.step(step)
        tensors[name].assign(array)
        for moment, where in kept.items():
            moments[where].assign(state[moment])


def clip(gradients: Mapping[str, tf.Tensor], tensors: Mapping[str, tf.Tensor], rule: Rule) -> dict[str, tf.Tensor]:
    """The gradients, limited: in their norm together, element by element, or unit by unit relative to the weights."""
    limit, algorithm = rule.gradient_clip_val, rule.gradient_clip_algorithm
    if limit is None:
        return dict(gradients)
    match algorithm:
        case "norm":
            norm = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(g)) for g in gradients.values()]))
            return {name: g * (limit / tf.maximum(norm, limit)) for name, g in gradients.items()}
        case "value":
            return {name: tf.clip_by_value(g, -limit, limit) for name, g in gradients.items()}
        case "agc":
            return {name: adaptively_clipped(name, g, tensors[name], limit) for name, g in gradients.items()}
    raise ValueError(f"this engine has no gradient_clip_algorithm {algorithm!r}")


def adaptively_clipped(name: str, g: tf.Tensor, tensor: tf.Tensor, limit: float) -> tf.Tensor:
    """Brock et al., ICML 2021: a unit's gradient has at most `limit` times the norm of the unit's weights."""
    unit = (0, 1, 2) if name.endswith("/kernel") else None  # an output channel, which comes last, or all of the array
    norm = tf.sqrt(tf.reduce_sum(tf.square(g), axis=unit, keepdims=True))
    largest = limit * tf.maximum(tf.sqrt(tf.reduce_sum(tf.square(tensor), axis=unit, keepdims=True)), AGC_FLOOR)
    return g * (largest / tf.maximum(norm, largest))
