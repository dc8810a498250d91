"""A network that changes images, on its device: its pass, its training step, its state in and out (specs/prior.md)."""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from ptycho_core.engine.checks import check_layers
from ptycho_core.engine.images import Images, check_maps
from ptycho_core.layouts import BCHW_TO_BHWC, BHWC_TO_BCHW
from ptycho_core.networks.ops import check_ops
from ptycho_core.networks.table import Table
from ptycho_core.physics.constants import IMAGE_LOSS_FLOOR
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.vocabulary import Weights
from ptycho_core_torch.ops import ENGINE, OPS, run_table
from ptycho_core_torch.optimizer import Optimizer
from ptycho_core_torch.weights import to_arrays, to_tensors


class TorchImageNetwork:
    """ImageNetwork protocol of specs/prior.md."""

    def __init__(
        self,
        table: Table,
        training: TrainingConfig | None,
        weights: Weights,
        *,
        device: torch.device,
        precision: str,
    ) -> None:
        check_ops(table.layers, ENGINE, OPS)
        check_layers(table, weights)
        self.table, self.training, self.device = table, training, device
        self.dtype = torch.float64 if precision == "64-true" else torch.float32
        self.tensors = to_tensors(weights, self.dtype, device)
        trained = {} if training is None else self.tensors
        for tensor in trained.values():
            tensor.requires_grad_()
        self.optimizer = Optimizer(training, trained)

    # -- state -----------------------------------------------------------------------------------------------------

    def weights(self) -> Weights:
        return to_arrays(self.tensors)

    def optimizer_state(self) -> Weights:
        return self.optimizer.state()

    def load_optimizer_state(self, state: Weights) -> None:
        self.optimizer.load_state(state)

    # -- work ------------------------------------------------------------------------------------------------------

    def run(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        check_maps(maps, self.table)
        with torch.inference_mode():
            result = rearrange(self._run(maps), BCHW_TO_BHWC)
        return np.ascontiguousarray(result.cpu().numpy(), np.float32)

    def train_step(self, images: Images, learning_rate: float) -> float:
        loss, gradients = self._loss_and_gradients(images)
        self.optimizer.step(gradients, learning_rate)
        return float(loss)

    def gradients(self, images: Images) -> Weights:
        return to_arrays(self.optimizer.clipped(self._loss_and_gradients(images)[1]))

    # -- inside ----------------------------------------------------------------------------------------------------

    def _run(self, maps: NDArray[np.float32]) -> Tensor:
        """The two maps (B, 2, H, W)."""
        x = rearrange(torch.from_numpy(np.ascontiguousarray(maps)).to(self.device, self.dtype), BHWC_TO_BCHW)
        return torch.cat(run_table(self.table, self.tensors, x), dim=1)

    def _loss_and_gradients(self, images: Images) -> tuple[Tensor, dict[str, Tensor]]:
        images.check(self.table)
        for tensor in self.tensors.values():
            tensor.grad = None
        wanted = rearrange(torch.from_numpy(images.wanted).to(self.device, self.dtype), BHWC_TO_BCHW)
        weight = torch.from_numpy(images.weight).to(self.device, self.dtype)
        loss = relative_error(self._run(images.maps), wanted, weight)
        loss.backward()
        found = {name: tensor.grad for name, tensor in self.tensors.items()}
        return loss.detach(), {
            name: torch.zeros_like(self.tensors[name]) if g is None else g for name, g in found.items()
        }


def relative_error(given: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """Mean over the images of Σ w|given - wanted|² / (Σ w|wanted|² + floor · Σ w); maps (B, 2, H, W), w (B, H, W)."""
    error = (weight * (given - wanted).square().sum(dim=1)).sum(dim=(1, 2))
    before = (weight * wanted.square().sum(dim=1)).sum(dim=(1, 2))
    return (error / (before + IMAGE_LOSS_FLOOR * weight.sum(dim=(1, 2)))).mean()
