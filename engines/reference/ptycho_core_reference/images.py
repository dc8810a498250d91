"""A network that changes images: its pass, its training step, its state in and out (specs/prior.md)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptycho_core.engine.checks import check_layers
from ptycho_core.engine.images import Images, check_maps
from ptycho_core.networks.ops import check_ops
from ptycho_core.networks.table import Table
from ptycho_core.physics.constants import IMAGE_LOSS_FLOOR
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.vocabulary import Weights
from ptycho_core_reference.ops import ENGINE, OPS, Array, pull_back, run_table
from ptycho_core_reference.optimizer import Optimizer


class ReferenceImageNetwork:
    """ImageNetwork protocol of specs/prior.md, in float64."""

    def __init__(self, table: Table, training: TrainingConfig | None, weights: Weights) -> None:
        check_ops(table.layers, ENGINE, OPS)
        check_layers(table, weights)
        self.table, self.training = table, training
        self.arrays = {name: np.array(array, np.float64) for name, array in weights.items()}
        self.optimizer = Optimizer(training, {} if training is None else self.arrays)

    # -- state -----------------------------------------------------------------------------------------------------

    def weights(self) -> Weights:
        return {name: array.copy() for name, array in self.arrays.items()}

    def optimizer_state(self) -> Weights:
        return self.optimizer.state()

    def load_optimizer_state(self, state: Weights) -> None:
        self.optimizer.load_state(state)

    # -- work ------------------------------------------------------------------------------------------------------

    def run(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        check_maps(maps, self.table)
        outputs, _ = run_table(self.table, self.arrays, maps.astype(np.float64))
        return np.concatenate([outputs[name] for name in self._heads], axis=3).astype(np.float32)

    def train_step(self, images: Images, learning_rate: float) -> float:
        loss, gradients = self._loss_and_gradients(images)
        self.optimizer.step(gradients, learning_rate)
        return loss

    def gradients(self, images: Images) -> Weights:
        return self.optimizer.clipped(self._loss_and_gradients(images)[1])

    # -- inside ----------------------------------------------------------------------------------------------------

    @property
    def _heads(self) -> tuple[str, str]:
        return self.table.amplitude, self.table.phase

    def _loss_and_gradients(self, images: Images) -> tuple[float, dict[str, Array]]:
        images.check(self.table)
        outputs, ways_back = run_table(self.table, self.arrays, images.maps.astype(np.float64))
        given = np.concatenate([outputs[name] for name in self._heads], axis=3)
        loss, by_given = relative_error(given, images.wanted.astype(np.float64), images.weight.astype(np.float64))
        cotangents = dict(zip(self._heads, np.split(by_given, 2, axis=3), strict=True))
        return loss, pull_back(self.table, ways_back, cotangents)


def relative_error(given: Array, wanted: Array, weight: Array) -> tuple[float, Array]:
    """Mean over the images of Σ w|given - wanted|² / (Σ w|wanted|² + floor · Σ w), and its gradient by `given`.

    given, wanted: (B, H, W, 2); weight: (B, H, W).
    """
    error = (weight * np.square(given - wanted).sum(axis=3)).sum(axis=(1, 2))
    before = (weight * np.square(wanted).sum(axis=3)).sum(axis=(1, 2))
    scale = before + IMAGE_LOSS_FLOOR * weight.sum(axis=(1, 2))
    gradient = 2 * weight[..., None] * (given - wanted) / (len(given) * scale[:, None, None, None])
    return float((error / scale).mean()), gradient
