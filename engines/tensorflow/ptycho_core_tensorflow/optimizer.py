"""The optimisers and the clipping of gradients before them (specs/physics.md, Optimiser)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from ptycho_core.engine.checks import check_optimizer_state, optimizer_moments
from ptycho_core.physics.constants import ADAM_EPSILON, AGC_FLOOR
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.vocabulary import Weights
from ptycho_core_tensorflow.weights import to_arrays


class Optimizer:
    """Changes the variables that it is given, in place; its moments begin at 0."""

    def __init__(self, training: TrainingConfig | None, tensors: Mapping[str, tf.Variable]) -> None:
        self.training, self.tensors = training, tensors
        self.steps = tf.Variable(0, dtype=tf.float64)
        self.moments = {
            f"{moment}/{name}": tf.Variable(tf.zeros_like(tensor), trainable=False)
            for moment in optimizer_moments(training)
            for name, tensor in tensors.items()
        }
        self._graph_step = tf.function(self._eager_step, autograph=False)

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
        assert self.training is not None
        return clip(gradients, self.tensors, self.training.gradient_clip_val, self.training.gradient_clip_algorithm)

    def step(self, gradients: Mapping[str, tf.Tensor], learning_rate: tf.Tensor) -> None:
        """One step from the gradients as they are before clipping."""
        self._graph_step(dict(gradients), learning_rate)

    def _eager_step(self, gradients: dict[str, tf.Tensor], learning_rate: tf.Tensor) -> None:
        assert self.training is not None
        self.steps.assign_add(1)
        corrections = self._corrections()
        for name, gradient in self.clipped(gradients).items():
            tensor = self.tensors[name]
            if self.training.weight_decay > 0 and name.endswith("/kernel"):
                if self.training.optimizer == "adamw":
                    tensor.assign_sub(learning_rate * self.training.weight_decay * tensor)
                else:
                    gradient = gradient + self.training.weight_decay * tensor
            sgd = self.training.optimizer == "sgd"
            change = self._momentum(name, gradient) if sgd else self._adam(name, gradient, corrections)
            tensor.assign_sub(learning_rate * change)

    def _corrections(self) -> tuple[tf.Tensor, tf.Tensor]:
        """1 - β₁ᵗ and √(1 - β₂ᵗ)."""
        assert self.training is not None
        # In float64, because these cancel. A Python number would be made float32.
        beta1, beta2 = (tf.constant(beta, tf.float64) for beta in (self.training.adam_beta1, self.training.adam_beta2))
        return 1 - beta1**self.steps, tf.sqrt(1 - beta2**self.steps)

    def _adam(self, name: str, gradient: tf.Tensor, corrections: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """Keras's own Adam puts epsilon elsewhere."""
        assert self.training is not None
        beta1, beta2 = self.training.adam_beta1, self.training.adam_beta2
        first, second = self.moments[f"first_moment/{name}"], self.moments[f"second_moment/{name}"]
        first.assign(beta1 * first + (1 - beta1) * gradient)
        second.assign(beta2 * second + (1 - beta2) * tf.square(gradient))
        correction1, correction2 = (tf.cast(correction, gradient.dtype) for correction in corrections)
        return (first / correction1) / (tf.sqrt(second) / correction2 + ADAM_EPSILON)

    def _momentum(self, name: str, gradient: tf.Tensor) -> tf.Tensor:
        assert self.training is not None
        momentum = self.moments[f"momentum/{name}"]
        return momentum.assign(self.training.momentum * momentum + gradient)


def clip(
    gradients: Mapping[str, tf.Tensor], tensors: Mapping[str, tf.Tensor], limit: float | None, algorithm: str
) -> dict[str, tf.Tensor]:
    """The gradients, limited: in their norm together, element by element, or unit by unit relative to the weights."""
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
