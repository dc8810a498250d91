"""A network on its device: training steps, evaluation, prediction, and its state in and out."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf
from einops import rearrange
from numpy.typing import NDArray

from ptycho_core.batches.batch import Batch
from ptycho_core.engine.checks import check_border, check_weights
from ptycho_core.engine.processes import ALONE, Processes
from ptycho_core.engine.steps import LossMeans, windows
from ptycho_core.layouts import BCHW_TO_BHWC
from ptycho_core.networks.ops import check_ops
from ptycho_core.networks.registry import build_table
from ptycho_core.physics.illumination import Illumination
from ptycho_core.physics.weights import lit_probe, merge_weight
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.vocabulary import PROBE, LossTerms, Weights
from ptycho_core_tensorflow import physics
from ptycho_core_tensorflow.forward import Recipe, shared_forward
from ptycho_core_tensorflow.ops import ENGINE, OPS
from ptycho_core_tensorflow.optimizer import Optimizer
from ptycho_core_tensorflow.processes import reduced
from ptycho_core_tensorflow.weights import to_arrays, to_tensors


class TensorFlowNetwork:
    """Network protocol of specs/engine.md."""

    def __init__(
        self,
        model: ModelConfig,
        training: TrainingConfig | None,
        weights: Weights,
        *,
        device: str,
        precision: str,
        processes: Processes = ALONE,
    ) -> None:
        """processes: those that train it together, each with its share of every batch."""
        self.model, self.training, self.processes = model, training, processes
        self.table = build_table(model)
        check_ops(self.table.layers, ENGINE, OPS)
        self.device = device
        self.forward = shared_forward(Recipe(self.table, model, training, device, precision))
        self.dtype = self.forward.dtype
        self.means = LossMeans()
        self._lit: weakref.WeakKeyDictionary[Illumination, physics.Light] = weakref.WeakKeyDictionary()
        check_weights(self.table, training, weights, model.N)
        with tf.device(self.device):
            self.tensors = to_tensors(weights, self.dtype)
            self.optimizer = Optimizer(training, {name: self.tensors[name] for name in self.forward.trainable})

    # -- state ---------------------------------------------------------------------------------------------------

    def weights(self) -> Weights:
        return to_arrays(self.tensors)

    def load_weights(self, weights: Weights) -> None:
        modes = self.tensors[PROBE].shape[0] if PROBE in self.tensors else None
        check_weights(self.table, self.training, weights, self.model.N, modes)
        for name, tensor in self.tensors.items():
            tensor.assign(self._constant(weights[name]))
        self.optimizer.reset()

    def optimizer_state(self) -> Weights:
        return self.optimizer.state()

    def load_optimizer_state(self, state: Weights) -> None:
        with tf.device(self.device):
            self.optimizer.load_state(state)

    # -- work ----------------------------------------------------------------------------------------------------

    def train_epoch(self, batches: Iterable[Batch], learning_rate: float, physics_weight: float = 1.0) -> LossTerms:
        assert self.training is not None
        self.means = LossMeans()
        with tf.device(self.device):
            # Tensors, because a graph is traced again for every new Python number.
            rate, weight = self._constant(np.asarray(learning_rate)), self._constant(np.asarray(physics_weight))
            for window in windows(batches, self.training.accum_steps):
                mean: dict[str, tf.Tensor] = {}
                groups = 0
                for batch in window:
                    batch_terms, gradients = self._of_all(batch, weight)
                    count = len(batch) if batch.whole is None else batch.whole
                    groups += count
                    share = count / groups  # a running mean over the groups; the first batch is taken as it is
                    mean = {name: mean[name] + share * (g - mean[name]) if mean else g for name, g in gradients.items()}
                    self.means.add(count, batch_terms, batch.scan)
                self.optimizer.step(mean, rate)
        return self.losses_so_far()

    def losses_so_far(self) -> LossTerms:
        return self.means.means()

    def evaluate(self, batches: Iterable[Batch]) -> LossTerms:
        means = LossMeans()
        with tf.device(self.device):
            whole = self._constant(np.asarray(1.0))
            for batch in batches:
                if batch.whole is None:
                    terms = self.forward.graph_loss_terms(*self._arguments(batch), whole)
                    means.add(len(batch), terms, batch.scan)
                else:
                    packed = self._packed(self.forward.graph_packed_terms, batch, whole, len(self.forward.terms))
                    terms = dict(zip(self.forward.terms, tf.unstack(packed), strict=True))
                    means.add(batch.whole, terms, batch.scan)
        return means.means()

    def predict(self, batch: Batch) -> NDArray[np.complex64]:
        with tf.device(self.device):
            if self.table.canvas:
                return self._predict_on_canvas(batch)
            amplitude = self._constant(_filled(batch.diffraction_amplitude))
            patches = self.forward.graph_patches(self.tensors, amplitude, self._light(batch.illumination))
            return patches.numpy().astype(np.complex64, copy=False)[: len(batch)]

    def gradients(self, batch: Batch) -> Weights:
        with tf.device(self.device):
            _, gradients = self.forward.terms_and_gradients(*self._arguments(batch), self._constant(np.asarray(1.0)))
            return to_arrays(self.optimizer.clipped(gradients))

    # -- inside --------------------------------------------------------------------------------------------------

    def _of_all(self, batch: Batch, weight: tf.Tensor) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        """Terms and gradients of a batch, of which this process may have but a share, or nothing."""
        if batch.whole is None:
            terms, gradients = self.forward.graph_terms_and_gradients(*self._arguments(batch), weight)
            return terms, gradients
        length = len(self.forward.terms) + sum(
            self.tensors[name].shape.num_elements() for name in self.forward.trainable
        )
        packed = self._packed(self.forward.graph_packed, batch, weight, length)
        terms, gradients = self.forward.graph_unpacked(self.tensors, packed)
        return terms, gradients

    def _packed(self, graph: Any, batch: Batch, weight: tf.Tensor, length: int) -> tf.Tensor:
        """What a graph makes of this process's share, nothing of an empty one, summed over the processes."""
        if len(batch):
            own = graph(self._constant(np.asarray(batch.share)), *self._arguments(batch), weight)
        else:
            own = tf.zeros([length], self.dtype)
        return reduced(self.processes, own)

    def _predict_on_canvas(self, batch: Batch) -> NDArray[np.complex64]:
        check_border(batch)
        parts = self.forward.graph_canvas_patches(
            self.tensors,
            self._constant(batch.diffraction_amplitude),
            self._light(batch.illumination),
            self._constant(batch.relative_offsets_px),
            self._constant(~batch.bad_pixels),
            batch.canvas_padding_px,
        ).numpy()
        return np.ascontiguousarray(rearrange(parts[0] + 1j * parts[1], BCHW_TO_BHWC), np.complex64)

    def _constant(self, array: NDArray[np.generic]) -> tf.Tensor:
        with tf.device(self.device):
            return tf.cast(array, self.dtype)

    def _light(self, illumination: Illumination) -> physics.Light:
        """The illumination on this device, which it is brought to once."""
        if illumination not in self._lit:
            self._lit[illumination] = physics.Light(
                probe=self._constant(illumination.pairs),
                merge_weight=self._constant(merge_weight(illumination.intensity, self.model)),
                lit=self._constant(lit_probe(illumination.intensity, self.model)),
                input_scale=self._constant(np.asarray(illumination.input_scale)),
                mean_intensity=self._constant(np.asarray(illumination.mean_intensity)),
                counts_per_intensity=self._constant(np.asarray(illumination.counts_per_intensity)),
            )
        return self._lit[illumination]

    def _arguments(self, batch: Batch) -> tuple[Any, ...]:
        """Variables and a batch as tensors; the canvas border stays a whole number, because shapes follow from it."""
        seen = None
        if self.table.canvas:
            check_border(batch)
            shown, batch = batch.seen, batch.compared
            seen = self._constant(shown.diffraction_amplitude), self._constant(shown.relative_offsets_px)
        truth = batch.object_patches
        if self.model.merges:
            check_border(batch)
        return (
            self.tensors,
            self._constant(batch.diffraction_amplitude),
            self._light(batch.illumination),
            self._constant(batch.relative_offsets_px),
            self._constant(~batch.bad_pixels),
            None if truth is None else self._constant(np.stack([truth.real, truth.imag])),
            batch.canvas_padding_px,
            seen,
        )


def _filled(patterns: NDArray[np.float32]) -> NDArray[np.float32]:
    """With repeats of the last one up to a power of four: each size is a graph of its own, which is kept for good."""
    count = len(patterns)
    more = (1 << 2 * (((count - 1).bit_length() + 1) // 2)) - count
    return np.concatenate([patterns, np.repeat(patterns[-1:], more, axis=0)]) if more else patterns
