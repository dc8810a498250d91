"""The optimisers and the clipping of gradients before them (specs/physics.md, Optimiser)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.adamw import adamw

from ptycho_core.engine.checks import check_optimizer_state, optimizer_moments
from ptycho_core.engine.optimizers import OPTIMIZERS, Rule, Step
from ptycho_core.physics.constants import ADAM_EPSILON, AGC_FLOOR
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.vocabulary import Weights
from ptycho_core_torch.arrays import XP
from ptycho_core_torch.weights import to_arrays, to_tensor


class Optimizer:
    """Changes the tensors that it is given, in place; its moments begin at 0."""

    def __init__(self, training: TrainingConfig | None, tensors: Mapping[str, Tensor]) -> None:
        self.training, self.tensors = training, tensors
        self.steps = 0
        self.moments = {
            f"{moment}/{name}": torch.zeros_like(tensor, requires_grad=False)
            for moment in optimizer_moments(training)
            for name, tensor in tensors.items()
        }
        # Of each tensor, where it is, as the framework's Adam counts them.
        self.counts = {
            name: torch.zeros((), dtype=torch.float32, device=tensor.device) for name, tensor in tensors.items()
        }

    def state(self) -> Weights:
        return {"step": np.asarray(float(self.steps)), **to_arrays(self.moments)}

    def load_state(self, state: Weights) -> None:
        check_optimizer_state(state, self.state())
        self.steps = int(state["step"])
        for name, moment in self.moments.items():
            moment.copy_(to_tensor(name, state[name], moment.dtype, moment.device))
        for count in self.counts.values():
            count.fill_(self.steps)

    def clipped(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The gradients, limited as configured."""
        assert self.training is not None
        return clip(gradients, self.tensors, self.training.gradient_clip_val, self.training.gradient_clip_algorithm)

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor], learning_rate: float) -> None:
        """One step from the gradients as they are before clipping."""
        self.steps += 1
        gradients = self.clipped(gradients)
        if self.training is not None and self.training.optimizer in ("adam", "adamw"):
            self._adam_step(gradients, learning_rate)
        else:
            self._own_step(gradients, learning_rate)

    def _adam_step(self, gradients: Mapping[str, Tensor], learning_rate: float) -> None:
        """Every default of this framework's own that matters is stated: specs/physics.md, Optimiser.

        As functions, because the classes import its compiler, which takes as long as the framework itself.
        """
        assert self.training is not None
        change = adamw if self.training.optimizer == "adamw" else adam
        kernels = [name for name in self.tensors if name.endswith("/kernel")]
        others = [name for name in self.tensors if not name.endswith("/kernel")]
        for names, weight_decay in ((kernels, self.training.weight_decay), (others, 0.0)):
            change(
                [self.tensors[name] for name in names],
                [gradients[name] for name in names],
                [self.moments[f"first_moment/{name}"] for name in names],
                [self.moments[f"second_moment/{name}"] for name in names],
                [],
                [self.counts[name] for name in names],
                lr=learning_rate,
                beta1=self.training.adam_beta1,
                beta2=self.training.adam_beta2,
                eps=ADAM_EPSILON,
                weight_decay=weight_decay,
                amsgrad=False,
                maximize=False,
                fused=all(self.tensors[name].device.type in ("cpu", "cuda") for name in names),
            )

    def _own_step(self, gradients: Mapping[str, Tensor], learning_rate: float) -> None:
        """By an optimiser that is written once for all engines."""
        assert self.training is not None
        rule, optimiser = Rule.of(self.training), OPTIMIZERS.load(self.training.optimizer)
        for name, gradient in gradients.items():
            tensor = self.tensors[name]
            step = Step(
                xp=XP,
                array=tensor,
                gradient=gradient,
                state={moment: self.moments[f"{moment}/{name}"] for moment in optimiser.state},
                rate=learning_rate,
                decay=rule.weight_decay if name.endswith("/kernel") else 0.0,
                rule=rule,
                corrected=lambda beta: torch.as_tensor(1 - beta**self.steps, dtype=gradient.dtype),  # noqa: B023
            )
            array, state = optimiser.step(step)
            tensor.copy_(array)
            for moment in optimiser.state:
                self.moments[f"{moment}/{name}"].copy_(state[moment])


def clip(
    gradients: Mapping[str, Tensor], tensors: Mapping[str, Tensor], limit: float | None, algorithm: str
) -> dict[str, Tensor]:
    """The gradients, limited: in their norm together, element by element, or unit by unit relative to the weights."""
    if limit is None:
        return dict(gradients)
    match algorithm:
        case "norm":
            norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients.values()]))
            return {name: g * (limit / torch.clamp_min(norm, limit)) for name, g in gradients.items()}
        case "value":
            return {name: torch.clamp(g, -limit, limit) for name, g in gradients.items()}
        case "agc":
            return {name: adaptively_clipped(name, g, tensors[name], limit) for name, g in gradients.items()}
    raise ValueError(f"this engine has no gradient_clip_algorithm {algorithm!r}")


def adaptively_clipped(name: str, g: Tensor, tensor: Tensor, limit: float) -> Tensor:
    """Brock et al., ICML 2021: a unit's gradient has at most `limit` times the norm of the unit's weights."""
    unit = (1, 2, 3) if name.endswith("/kernel") else None  # an output channel, which comes first, or all of the array
    norm = torch.linalg.vector_norm(g, dim=unit, keepdim=True)
    largest = limit * torch.linalg.vector_norm(tensor.detach(), dim=unit, keepdim=True).clamp_min(AGC_FLOOR)
    return g * (largest / torch.maximum(norm, largest))
