"""A network that changes images, on its device: its pass, its training step, its state in and out (specs/prior.md)."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho_core.engine.checks import check_layers
from ptycho_core.engine.images import Images, check_maps
from ptycho_core.networks.ops import check_ops
from ptycho_core.networks.table import Table
from ptycho_core.physics.constants import IMAGE_LOSS_FLOOR
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.vocabulary import Weights
from ptycho_core_tensorflow.ops import ENGINE, OPS, run_table
from ptycho_core_tensorflow.optimizer import Optimizer
from ptycho_core_tensorflow.weights import to_arrays, to_tensors


class TensorFlowImageNetwork:
    """ImageNetwork protocol of specs/prior.md."""

    def __init__(
        self,
        table: Table,
        training: TrainingConfig | None,
        weights: Weights,
        *,
        device: str,
        precision: str,
    ) -> None:
        check_ops(table.layers, ENGINE, OPS)
        check_layers(table, weights)
        self.table, self.training, self.device = table, training, device
        self.dtype = tf.float64 if precision == "64-true" else tf.float32
        with tf.device(device):
            self.tensors = to_tensors(weights, self.dtype)
            self.optimizer = Optimizer(training, {} if training is None else self.tensors)
        self._graph_loss_and_gradients = tf.function(self._loss_and_gradients, autograph=False)

    # -- state -----------------------------------------------------------------------------------------------------

    def weights(self) -> Weights:
        return to_arrays(self.tensors)

    def optimizer_state(self) -> Weights:
        return self.optimizer.state()

    def load_optimizer_state(self, state: Weights) -> None:
        with tf.device(self.device):
            self.optimizer.load_state(state)

    # -- work ------------------------------------------------------------------------------------------------------

    def run(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Without a graph: canvases have any shape, and one would be traced for each."""
        check_maps(maps, self.table)
        with tf.device(self.device):
            result = self._run(tf.cast(maps, self.dtype))
        return np.array(result.numpy(), np.float32)

    def train_step(self, images: Images, learning_rate: float) -> float:
        with tf.device(self.device):
            loss, gradients = self._graph_loss_and_gradients(*self._arguments(images))
            self.optimizer.step(gradients, tf.cast(learning_rate, self.dtype))
        return float(loss)

    def gradients(self, images: Images) -> Weights:
        with tf.device(self.device):
            return to_arrays(self.optimizer.clipped(self._graph_loss_and_gradients(*self._arguments(images))[1]))

    # -- inside ----------------------------------------------------------------------------------------------------

    def _arguments(self, images: Images) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        images.check(self.table)
        return (
            tf.cast(images.maps, self.dtype),
            tf.cast(images.wanted, self.dtype),
            tf.cast(images.weight, self.dtype),
        )

    def _run(self, maps: tf.Tensor) -> tf.Tensor:
        """The two maps (B, H, W, 2)."""
        return tf.concat(run_table(self.table, self.tensors, maps), 3)

    def _loss_and_gradients(
        self, maps: tf.Tensor, wanted: tf.Tensor, weight: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.tensors)
            loss = relative_error(self._run(maps), wanted, weight)
        return loss, tape.gradient(loss, self.tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def relative_error(given: tf.Tensor, wanted: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Mean over the images of Σ w|given - wanted|² / (Σ w|wanted|² + floor · Σ w); maps (B, H, W, 2), w (B, H, W)."""
    error = tf.reduce_sum(weight * tf.reduce_sum(tf.square(given - wanted), axis=3), axis=(1, 2))
    before = tf.reduce_sum(weight * tf.reduce_sum(tf.square(wanted), axis=3), axis=(1, 2))
    return tf.reduce_mean(error / (before + IMAGE_LOSS_FLOOR * tf.reduce_sum(weight, axis=(1, 2))))
