"""The optimisers and the clipping of gradients before them (specs/physics.md, Optimiser)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ptycho_core.engine.checks import check_optimizer_state, optimizer_moments
from ptycho_core.engine.optimizers import OPTIMIZERS, Rule, Step
from ptycho_core.physics.constants import ADAM_EPSILON, AGC_FLOOR
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.vocabulary import Weights
from ptycho_core_reference.arrays import XP

Array = NDArray[np.float64]


class Optimizer:
    """Changes the arrays that it is given, in place; its moments begin at 0."""

    def __init__(self, training: TrainingConfig | None, arrays: Mapping[str, Array]) -> None:
        self.training, self.arrays = training, arrays
        self.steps = 0
        self.moments = {
            f"{moment}/{name}": np.zeros_like(array)
            for moment in optimizer_moments(training)
            for name, array in arrays.items()
        }

    def state(self) -> Weights:
        return {"step": np.asarray(float(self.steps)), **{name: array.copy() for name, array in self.moments.items()}}

    def load_state(self, state: Weights) -> None:
        check_optimizer_state(state, self.state())
        self.steps = int(state["step"])
        self.moments = {name: np.array(state[name], np.float64) for name in self.moments}

    def clipped(self, gradients: Mapping[str, Array]) -> dict[str, Array]:
        """The gradients, limited as configured."""
        assert self.training is not None
        return clip(gradients, self.arrays, self.training.gradient_clip_val, self.training.gradient_clip_algorithm)

    def step(self, gradients: Mapping[str, Array], learning_rate: float) -> None:
        """One step from the gradients as they are before clipping."""
        assert self.training is not None
        self.steps += 1
        for name, g in self.clipped(gradients).items():
            if not OPTIMIZERS.is_ours(self.training.optimizer):
                self._registered(name, g, learning_rate)
                continue
            decay = self.training.weight_decay if name.endswith("/kernel") else 0.0
            if self.training.optimizer == "adamw":
                self.arrays[name][...] -= learning_rate * decay * self.arrays[name]
            else:
                g = g + decay * self.arrays[name]
            change = self._momentum(name, g) if self.training.optimizer == "sgd" else self._adam(name, g)
            self.arrays[name][...] -= learning_rate * change

    def _registered(self, name: str, g: Array, learning_rate: float) -> None:
        """By an optimiser that a program brings along."""
        assert self.training is not None
        rule, optimiser = Rule.of(self.training), OPTIMIZERS.load(self.training.optimizer)
        step = Step(
            xp=XP,
            array=self.arrays[name],
            gradient=g,
            state={moment: self.moments[f"{moment}/{name}"] for moment in optimiser.state},
            rate=learning_rate,
            decay=rule.weight_decay if name.endswith("/kernel") else 0.0,
            rule=rule,
            corrected=lambda beta: 1 - beta**self.steps,
        )
        array, state = optimiser.step(step)
        kept = {moment: np.array(state[moment], np.float64) for moment in optimiser.state}
        self.arrays[name][...] = array
        for moment, value in kept.items():
            self.moments[f"{moment}/{name}"][...] = value

    def _adam(self, name: str, g: Array) -> Array:
        """Kingma & Ba, Adam, ICLR 2015, Algorithm 1: bias-corrected, epsilon outside the root."""
        assert self.training is not None
        beta1, beta2 = self.training.adam_beta1, self.training.adam_beta2
        first, second = self.moments[f"first_moment/{name}"], self.moments[f"second_moment/{name}"]
        first[...] = beta1 * first + (1 - beta1) * g
        second[...] = beta2 * second + (1 - beta2) * g**2
        mean, square = first / (1 - beta1**self.steps), second / (1 - beta2**self.steps)
        change: Array = mean / (np.sqrt(square) + ADAM_EPSILON)
        return change

    def _momentum(self, name: str, g: Array) -> Array:
        assert self.training is not None
        momentum = self.moments[f"momentum/{name}"]
        momentum[...] = self.training.momentum * momentum + g
        return momentum


def clip(
    gradients: Mapping[str, Array], arrays: Mapping[str, Array], limit: float | None, algorithm: str
) -> dict[str, Array]:
    """The gradients, limited: in their norm together, element by element, or unit by unit relative to the weights."""
    if limit is None:
        return dict(gradients)
    match algorithm:
        case "norm":
            norm = np.sqrt(sum(float(np.sum(g**2)) for g in gradients.values()))
            return {name: g * (limit / max(norm, limit)) for name, g in gradients.items()}
        case "value":
            return {name: np.clip(g, -limit, limit) for name, g in gradients.items()}
        case "agc":
            return {name: adaptively_clipped(name, g, arrays[name], limit) for name, g in gradients.items()}
    raise ValueError(f"this engine has no gradient_clip_algorithm {algorithm!r}")


def adaptively_clipped(name: str, g: Array, array: Array, limit: float) -> Array:
    """Brock et al., ICML 2021: a unit's gradient has at most `limit` times the norm of the unit's weights."""
    unit = tuple(range(g.ndim - 1)) if name.endswith("/kernel") else None  # an output channel, or all of the array
    norm = np.sqrt(np.sum(g**2, axis=unit, keepdims=True))
    largest = limit * np.maximum(np.sqrt(np.sum(array**2, axis=unit, keepdims=True)), AGC_FLOOR)
    result: Array = g * (largest / np.maximum(norm, largest))
    return result
