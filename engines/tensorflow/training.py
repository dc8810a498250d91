"""A network on its device: training steps, evaluation, prediction, and its state in and out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf
from einops import rearrange
from numpy.typing import NDArray

from engines.tensorflow import losses, physics
from engines.tensorflow.network import run_table
from engines.tensorflow.weights import to_arrays, to_tensors
from ptycho_core.architecture import Weights, build_table
from ptycho_core.config import ModelConfig, TrainingConfig
from ptycho_core.contracts import Batch
from ptycho_core.engine import LossTerms, check_weights, mean_terms, trainable_names
from ptycho_core.layouts import ALONE_LAST_TO_BHWC, BHWC_TO_BCHW, BHWC_TO_FRAMES
from ptycho_core.physics import (
    ADAM_BETA1,
    ADAM_BETA2,
    ADAM_EPSILON,
    COUNTS_PER_INTENSITY,
    INPUT_SCALE,
    LOG_SCALE,
    MEAN_INTENSITY,
    MERGE_EPSILON,
    PROBE,
    merge_weight,
    probe_mask,
    smoothing_matrix,
)


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
        self.device = device
        self.dtype = tf.float64 if precision == "64-true" else tf.float32
        self.layer_dtype = tf.bfloat16 if precision == "bf16-mixed" else self.dtype
        self.trainable = trainable_names(self.table, training)
        self.smoothing = None
        if model.gaussian_smoothing_sigma > 0:
            self.smoothing = self._constant(smoothing_matrix(model.N, model.gaussian_smoothing_sigma))
        self.probe_mask = self._constant(probe_mask(model.N))[..., None] if model.probe_mask else None
        check_weights(self.table, weights, model.N)
        zeros = {name: np.zeros_like(weights[name]) for name in self.trainable}
        with tf.device(self.device):
            self.tensors = to_tensors(weights, self.dtype)
            self.merge_weight = tf.Variable(merge_weight(np.asarray(weights[PROBE]), model), dtype=self.dtype)
            self.first_moment, self.second_moment = to_tensors(zeros, self.dtype), to_tensors(zeros, self.dtype)
            self.step = tf.Variable(0, dtype=tf.float64)
        self._train_step = tf.function(self._eager_train_step, autograph=False)
        self._graph_loss_terms = tf.function(self._loss_terms, autograph=False)
        self._graph_patches = tf.function(self._patches, autograph=False)

    # -- state ---------------------------------------------------------------------------------------------------

    def weights(self) -> Weights:
        return to_arrays(self.tensors)

    def load_weights(self, weights: Weights) -> None:
        check_weights(self.table, weights, self.model.N)
        # A graph holds on to the variables that it was made with: they are filled anew, not replaced.
        for name, tensor in self.tensors.items():
            tensor.assign(self._constant(weights[name]))
        self.merge_weight.assign(self._constant(merge_weight(np.asarray(weights[PROBE]), self.model)))
        for moment in (*self.first_moment.values(), *self.second_moment.values(), self.step):
            moment.assign(tf.zeros_like(moment))

    def optimizer_state(self) -> Weights:
        first = {f"first_moment/{name}": moment for name, moment in self.first_moment.items()}
        second = {f"second_moment/{name}": moment for name, moment in self.second_moment.items()}
        return {"step": np.asarray(float(self.step)), **to_arrays(first), **to_arrays(second)}

    def load_optimizer_state(self, state: Weights) -> None:
        for name in self.trainable:
            self.first_moment[name].assign(self._constant(state[f"first_moment/{name}"]))
            self.second_moment[name].assign(self._constant(state[f"second_moment/{name}"]))
        self.step.assign(float(state["step"]))

    # -- work ----------------------------------------------------------------------------------------------------

    def train_epoch(self, batches: Iterable[Batch], learning_rate: float) -> LossTerms:
        rate = self._constant(np.asarray(learning_rate))
        with tf.device(self.device):
            return mean_terms([(len(batch), self._train_step(*self._arguments(batch), rate)) for batch in batches])

    def evaluate(self, batches: Iterable[Batch]) -> LossTerms:
        with tf.device(self.device):
            return mean_terms([(len(batch), self._graph_loss_terms(*self._arguments(batch))) for batch in batches])

    def predict(self, batch: Batch) -> NDArray[np.complex64]:
        with tf.device(self.device):
            patches = self._graph_patches(self._constant(batch.diffraction_amplitude))
            return patches.numpy().astype(np.complex64, copy=False)

    def gradients(self, batch: Batch) -> Weights:
        with tf.device(self.device):
            _, gradients = self._loss_and_gradients(*self._arguments(batch))
            return to_arrays(dict(zip(self.trainable, gradients, strict=True)))

    # -- inside --------------------------------------------------------------------------------------------------

    def _constant(self, array: NDArray[np.generic]) -> tf.Tensor:
        with tf.device(self.device):
            return tf.cast(array, self.dtype)

    def _arguments(self, batch: Batch) -> tuple[tf.Tensor | int | None, ...]:
        """A batch as tensors; the canvas border stays a whole number, because shapes follow from it."""
        truth = batch.object_patches
        return (
            self._constant(batch.diffraction_amplitude),
            self._constant(batch.relative_offsets_px),
            self._constant(~batch.bad_pixels),
            None if truth is None else self._constant(np.stack([truth.real, truth.imag])),
            batch.canvas_padding_px,
        )

    def _maps(self, diffraction_amplitude: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Amplitude and phase patches (B, N, N, C) for measured amplitudes (B, N, N, C)."""
        x = self.tensors[INPUT_SCALE] * diffraction_amplitude
        channels = x.shape[-1]
        if not self.model.object_big:
            x = rearrange(x, BHWC_TO_FRAMES)
        maps = run_table(self.table, self.tensors, tf.cast(x, self.layer_dtype))
        amplitude, phase = (tf.cast(m, self.dtype) for m in maps)
        if not self.model.object_big:
            amplitude, phase = (rearrange(m, ALONE_LAST_TO_BHWC, c=channels) for m in (amplitude, phase))
        return amplitude, phase

    def _patches(self, diffraction_amplitude: tf.Tensor) -> tf.Tensor:
        amplitude, phase = self._maps(diffraction_amplitude)
        return tf.complex(amplitude * tf.cos(phase), amplitude * tf.sin(phase))

    def _loss_terms(
        self, measured_amplitude: tf.Tensor, offsets: tf.Tensor, good: tf.Tensor, truth: tf.Tensor | None, padding: int
    ) -> dict[str, tf.Tensor]:
        assert self.training is not None
        maps = (rearrange(m, BHWC_TO_BCHW) for m in self._maps(measured_amplitude))
        measured_amplitude = rearrange(measured_amplitude, BHWC_TO_BCHW)
        patches = physics.polar_to_field(*maps)
        terms: dict[str, tf.Tensor] = {}
        if self.model.object_big and self.model.channels > 1:
            placement = physics.placement_matrices(offsets, self.model.N, padding)
            epsilon = MERGE_EPSILON[self.model.merge_weights]
            canvas = physics.merge_group(patches, self.merge_weight, placement, epsilon)
            merged = physics.extract_patches(canvas, placement)
        else:
            merged = patches

        if self.model.model_type == "supervised" or self.training.realspace_mae_weight > 0:
            terms["realspace_mae"] = losses.complex_error(
                patches if self.model.model_type == "supervised" else merged,
                tf.stack([rearrange(part, BHWC_TO_BCHW) for part in tf.unstack(truth)]),
            )
        if self.model.model_type == "supervised":
            return {"total": terms["realspace_mae"], **terms}

        probe = self.tensors[PROBE] if self.probe_mask is None else self.tensors[PROBE] * self.probe_mask
        intensity = physics.far_field_intensity(merged, tf.convert_to_tensor(probe), self.smoothing)
        counts = self.tensors[COUNTS_PER_INTENSITY]
        predicted = counts * tf.exp(2 * self.tensors[LOG_SCALE]) * intensity
        measured = counts * tf.square(measured_amplitude)
        mean_counts = counts * self.tensors[MEAN_INTENSITY]
        deviance = losses.masked_mean(losses.half_deviance(predicted, measured), good)
        terms["nll"] = deviance / mean_counts
        terms["reduced_deviance"] = 2 * tf.stop_gradient(deviance)
        error = losses.masked_mean(losses.amplitude_error(predicted, measured), good)
        terms["amplitude_mae"] = error / tf.sqrt(mean_counts)
        total = self.training.nll_weight * terms["nll"] + self.training.mae_weight * terms["amplitude_mae"]
        if self.training.realspace_weight > 0:
            terms["total_variation"] = losses.total_variation(merged)
            total = total + self.training.realspace_weight * terms["total_variation"]
        if self.training.realspace_mae_weight > 0:
            total = total + self.training.realspace_mae_weight * terms["realspace_mae"]
        return {"total": total, **terms}

    def _loss_and_gradients(self, *arguments: Any) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
        assert self.training is not None
        parameters = [self.tensors[name] for name in self.trainable]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(parameters)
            terms = self._loss_terms(*arguments)
        gradients = tape.gradient(terms["total"], parameters, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        if self.training.gradient_clip_val is not None:
            limit = tf.constant(self.training.gradient_clip_val, self.dtype)
            norm = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(g)) for g in gradients]))
            gradients = [gradient * (limit / tf.maximum(norm, limit)) for gradient in gradients]
        return terms, gradients

    def _eager_train_step(self, *arguments: Any) -> dict[str, tf.Tensor]:
        *batch, rate = arguments
        terms, gradients = self._loss_and_gradients(*batch)
        # Keras's own Adam puts epsilon elsewhere: specs/physics.md, Optimiser.
        self.step.assign_add(1)
        # In float64: 1 - beta^step cancels. A Python number would be made float32.
        beta1, beta2 = (tf.constant(beta, tf.float64) for beta in (ADAM_BETA1, ADAM_BETA2))
        correction1 = tf.cast(1 - beta1**self.step, self.dtype)
        correction2 = tf.cast(tf.sqrt(1 - beta2**self.step), self.dtype)
        for name, gradient in zip(self.trainable, gradients, strict=True):
            first, second = self.first_moment[name], self.second_moment[name]
            first.assign(ADAM_BETA1 * first + (1 - ADAM_BETA1) * gradient)
            second.assign(ADAM_BETA2 * second + (1 - ADAM_BETA2) * tf.square(gradient))
            change = (first / correction1) / (tf.sqrt(second) / correction2 + ADAM_EPSILON)
            self.tensors[name].assign_sub(rate * change)
        return terms
