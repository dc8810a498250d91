"""A network on its device: training steps, evaluation, prediction, and its state in and out."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import attrs
import numpy as np
import tensorflow as tf
from einops import rearrange
from numpy.typing import NDArray

from ptycho_core.batches.batch import Batch
from ptycho_core.engine.checks import check_weights, trainable_names
from ptycho_core.engine.objective import Objective
from ptycho_core.engine.steps import LossMeans, windows
from ptycho_core.layouts import ALONE_LAST_TO_BHWC, BHWC_TO_BCHW, BHWC_TO_FRAMES
from ptycho_core.networks.ops import check_ops
from ptycho_core.networks.registry import build_table
from ptycho_core.physics.illumination import Illumination
from ptycho_core.physics.weights import MERGE_EPSILON, merge_weight, probe_mask, smoothing_matrix
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.vocabulary import LOG_SCALE, PROBE, LossTerms, Weights
from ptycho_core_tensorflow import losses, physics
from ptycho_core_tensorflow.ops import ENGINE, OPS, run_table
from ptycho_core_tensorflow.optimizer import Optimizer
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
    ) -> None:
        self.model, self.training = model, training
        self.table = build_table(model)
        check_ops(self.table.layers, ENGINE, OPS)
        self.device = device
        self.dtype = tf.float64 if precision == "64-true" else tf.float32
        self.layer_dtype = tf.bfloat16 if precision == "bf16-mixed" else self.dtype
        self.objective = None if training is None else Objective.of(training)
        self.trainable = trainable_names(self.table, training)
        self.means = LossMeans()
        self.smoothing = None
        if model.gaussian_smoothing_sigma > 0:
            self.smoothing = self._constant(smoothing_matrix(model.N, model.gaussian_smoothing_sigma))
        self.probe_mask = self._constant(probe_mask(model.N))[..., None] if model.probe_mask else None
        self._lit: weakref.WeakKeyDictionary[Illumination, physics.Light] = weakref.WeakKeyDictionary()
        check_weights(self.table, training, weights, model.N)
        with tf.device(self.device):
            self.tensors = to_tensors(weights, self.dtype)
            self.optimizer = Optimizer(training, {name: self.tensors[name] for name in self.trainable})
        self._graph_terms_and_gradients = tf.function(self._terms_and_gradients, autograph=False)
        self._graph_loss_terms = tf.function(self._loss_terms, autograph=False)
        self._graph_patches = tf.function(self._patches, autograph=False)

    # -- state ---------------------------------------------------------------------------------------------------

    def weights(self) -> Weights:
        return to_arrays(self.tensors)

    def load_weights(self, weights: Weights) -> None:
        modes = self.tensors[PROBE].shape[0] if PROBE in self.tensors else None
        check_weights(self.table, self.training, weights, self.model.N, modes)
        # A graph holds on to the variables that it was made with, so they are refilled, not replaced.
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
                    batch_terms, gradients = self._graph_terms_and_gradients(*self._arguments(batch), weight)
                    groups += len(batch)
                    share = len(batch) / groups  # a running mean over the groups; the first batch is taken as it is
                    mean = {name: mean[name] + share * (g - mean[name]) if mean else g for name, g in gradients.items()}
                    self.means.add(len(batch), batch_terms)
                self.optimizer.step(mean, rate)
        return self.losses_so_far()

    def losses_so_far(self) -> LossTerms:
        return self.means.means()

    def evaluate(self, batches: Iterable[Batch]) -> LossTerms:
        means = LossMeans()
        with tf.device(self.device):
            whole = self._constant(np.asarray(1.0))
            for batch in batches:
                means.add(len(batch), self._graph_loss_terms(*self._arguments(batch), whole))
        return means.means()

    def predict(self, batch: Batch) -> NDArray[np.complex64]:
        with tf.device(self.device):
            amplitude = self._constant(batch.diffraction_amplitude)
            patches = self._graph_patches(amplitude, self._light(batch.illumination))
            return patches.numpy().astype(np.complex64, copy=False)

    def gradients(self, batch: Batch) -> Weights:
        with tf.device(self.device):
            _, gradients = self._terms_and_gradients(*self._arguments(batch), self._constant(np.asarray(1.0)))
            return to_arrays(self.optimizer.clipped(gradients))

    # -- inside --------------------------------------------------------------------------------------------------

    def _constant(self, array: NDArray[np.generic]) -> tf.Tensor:
        with tf.device(self.device):
            return tf.cast(array, self.dtype)

    def _light(self, illumination: Illumination) -> physics.Light:
        """The illumination on this device, which it is brought to once."""
        if illumination not in self._lit:
            self._lit[illumination] = physics.Light(
                probe=self._constant(illumination.pairs),
                merge_weight=self._constant(merge_weight(illumination.intensity, self.model)),
                input_scale=self._constant(np.asarray(illumination.input_scale)),
                mean_intensity=self._constant(np.asarray(illumination.mean_intensity)),
                counts_per_intensity=self._constant(np.asarray(illumination.counts_per_intensity)),
            )
        return self._lit[illumination]

    def _arguments(self, batch: Batch) -> tuple[Any, ...]:
        """A batch as tensors; the canvas border stays a whole number, because shapes follow from it."""
        truth = batch.object_patches
        return (
            self._constant(batch.diffraction_amplitude),
            self._light(batch.illumination),
            self._constant(batch.relative_offsets_px),
            self._constant(~batch.bad_pixels),
            None if truth is None else self._constant(np.stack([truth.real, truth.imag])),
            batch.canvas_padding_px,
        )

    def _maps(self, diffraction_amplitude: tf.Tensor, light: physics.Light) -> tuple[tf.Tensor, tf.Tensor]:
        """Amplitude and phase patches (B, N, N, C) for measured amplitudes (B, N, N, C)."""
        x = light.input_scale * diffraction_amplitude
        channels = x.shape[-1]
        if not self.model.object_big:
            x = rearrange(x, BHWC_TO_FRAMES)
        maps = run_table(self.table, self.tensors, tf.cast(x, self.layer_dtype))
        amplitude, phase = (tf.cast(m, self.dtype) for m in maps)
        if not self.model.object_big:
            amplitude, phase = (rearrange(m, ALONE_LAST_TO_BHWC, c=channels) for m in (amplitude, phase))
        return amplitude, phase

    def _patches(self, diffraction_amplitude: tf.Tensor, light: physics.Light) -> tf.Tensor:
        amplitude, phase = self._maps(diffraction_amplitude, light)
        return tf.complex(amplitude * tf.cos(phase), amplitude * tf.sin(phase))

    def _loss_terms(
        self,
        measured_amplitude: tf.Tensor,
        light: physics.Light,
        offsets: tf.Tensor,
        good: tf.Tensor,
        truth: tf.Tensor | None,
        padding: int,
        physics_weight: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        assert self.objective is not None
        maps = (rearrange(m, BHWC_TO_BCHW) for m in self._maps(measured_amplitude, light))
        measured_amplitude = rearrange(measured_amplitude, BHWC_TO_BCHW)
        patches = physics.polar_to_field(*maps)
        if self.model.merges:
            placement = physics.placement_matrices(offsets, self.model.N, padding)
            epsilon = MERGE_EPSILON[self.model.merge_weights]
            canvas = physics.merge_group(patches, light.merge_weight, placement, epsilon)
            patches = physics.extract_patches(canvas, placement)
        compared = losses.Compared(patches=patches)
        if self.objective.compares("truth"):
            compared = attrs.evolve(
                compared, truth=tf.stack([rearrange(part, BHWC_TO_BCHW) for part in tf.unstack(truth)])
            )
        if self.objective.compares("counts"):
            probe = self.tensors.get(PROBE, light.probe)  # refined, or as it came with the batch
            probe = probe if self.probe_mask is None else probe * self.probe_mask
            intensity = physics.far_field_intensity(patches, tf.convert_to_tensor(probe), self.smoothing)
            counts = light.counts_per_intensity
            compared = attrs.evolve(
                compared,
                predicted=counts * tf.exp(2 * self.tensors[LOG_SCALE]) * intensity,
                measured=counts * tf.square(measured_amplitude),
                good=good,
                mean_counts=counts * light.mean_intensity,
            )
        terms = {name: losses.TERMS[name](compared) for name in self.objective.terms}
        return {"total": self.objective.total(terms, physics_weight), **terms}

    def _terms_and_gradients(self, *arguments: Any) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        parameters = {name: self.tensors[name] for name in self.trainable}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(parameters)
            terms = self._loss_terms(*arguments)
        # No loss term may reach a tensor: its gradient is 0, not absent.
        unconnected = tf.UnconnectedGradients.ZERO
        return terms, tape.gradient(terms["total"], parameters, unconnected_gradients=unconnected)
