"""A network on its device: training steps, evaluation, prediction, and its state in and out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from engines.torch import losses, physics
from engines.torch.network import run_table
from engines.torch.weights import to_arrays, to_tensor, to_tensors
from ptycho_core.architecture import Weights, build_table
from ptycho_core.config import ModelConfig, TrainingConfig
from ptycho_core.contracts import Batch
from ptycho_core.engine import LossTerms, check_weights, mean_terms, trainable_names
from ptycho_core.layouts import ALONE_FIRST_TO_BCHW, BCHW_TO_ALONE_FIRST, BCHW_TO_BHWC, BHWC_TO_BCHW
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


class TorchNetwork:
    """Network protocol of specs/engine.md."""

    def __init__(
        self,
        model: ModelConfig,
        training: TrainingConfig | None,
        weights: Weights,
        *,
        device: torch.device,
        precision: str,
    ) -> None:
        self.model, self.training = model, training
        self.table = build_table(model)
        self.device = device
        self.dtype = torch.float64 if precision == "64-true" else torch.float32
        self.mixed = precision == "bf16-mixed"
        self.trainable = trainable_names(self.table, training)
        self.smoothing = None
        if model.gaussian_smoothing_sigma > 0:
            self.smoothing = self._constant(smoothing_matrix(model.N, model.gaussian_smoothing_sigma))
        self.probe_mask = self._constant(probe_mask(model.N))[..., None] if model.probe_mask else None
        self.load_weights(weights)

    # -- state ---------------------------------------------------------------------------------------------------

    def weights(self) -> Weights:
        return to_arrays(self.tensors)

    def load_weights(self, weights: Weights) -> None:
        check_weights(self.table, weights, self.model.N)
        self.tensors = to_tensors(weights, self.dtype, self.device)
        self.merge_weight = self._constant(merge_weight(np.asarray(weights[PROBE]), self.model))
        for name in self.trainable:
            self.tensors[name].requires_grad_()
        # Every default of this optimiser that matters is stated: specs/physics.md, Optimiser.
        self.optimizer = torch.optim.Adam(
            [self.tensors[name] for name in self.trainable] or [torch.zeros(())],
            lr=0.0,
            betas=(ADAM_BETA1, ADAM_BETA2),
            eps=ADAM_EPSILON,
            weight_decay=0.0,
            amsgrad=False,
            fused=self.device.type in ("cpu", "cuda"),
        )

    def optimizer_state(self) -> Weights:
        moments: dict[str, Tensor] = {}
        steps = 0
        for name in self.trainable:
            state = self.optimizer.state.get(self.tensors[name], {})
            steps = int(state.get("step", 0))
            moments[f"first_moment/{name}"] = state.get("exp_avg", torch.zeros_like(self.tensors[name]))
            moments[f"second_moment/{name}"] = state.get("exp_avg_sq", torch.zeros_like(self.tensors[name]))
        return {"step": np.asarray(float(steps)), **to_arrays(moments)}

    def load_optimizer_state(self, state: Weights) -> None:
        for name in self.trainable:
            moments = (state[f"{moment}/{name}"] for moment in ("first_moment", "second_moment"))
            first, second = (to_tensor(name, moment, self.dtype, self.device) for moment in moments)
            step = torch.tensor(float(state["step"]), dtype=torch.float32, device=self.device)
            self.optimizer.state[self.tensors[name]] = {"step": step, "exp_avg": first, "exp_avg_sq": second}

    # -- work ----------------------------------------------------------------------------------------------------

    def train_epoch(self, batches: Iterable[Batch], learning_rate: float) -> LossTerms:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        terms = []
        for batch in batches:
            batch_terms = self._backward(batch)
            self.optimizer.step()
            terms.append((len(batch), _detached(batch_terms)))
        return mean_terms(terms)

    def evaluate(self, batches: Iterable[Batch]) -> LossTerms:
        with torch.no_grad():
            return mean_terms([(len(batch), _detached(self._loss_terms(batch))) for batch in batches])

    def predict(self, batch: Batch) -> NDArray[np.complex64]:
        with torch.inference_mode():
            amplitude, phase = self._maps(self._amplitude(batch))
            patches = torch.polar(amplitude, phase)
            return rearrange(patches, BCHW_TO_BHWC).cpu().numpy().astype(np.complex64, copy=False)

    def gradients(self, batch: Batch) -> Weights:
        self._backward(batch)
        return to_arrays({name: self.tensors[name].grad for name in self.trainable})

    # -- inside --------------------------------------------------------------------------------------------------

    def _constant(self, array: NDArray[np.generic]) -> Tensor:
        return torch.tensor(array, dtype=self.dtype, device=self.device)

    def _amplitude(self, batch: Batch) -> Tensor:
        amplitude = torch.from_numpy(batch.diffraction_amplitude).to(self.device, self.dtype, non_blocking=True)
        return rearrange(amplitude, BHWC_TO_BCHW)

    def _maps(self, diffraction_amplitude: Tensor) -> tuple[Tensor, Tensor]:
        """Amplitude and phase patches (B, C, N, N) for measured amplitudes (B, C, N, N)."""
        x = self.tensors[INPUT_SCALE] * diffraction_amplitude
        channels = x.shape[1]
        if not self.model.object_big:
            x = rearrange(x, BCHW_TO_ALONE_FIRST)
        with torch.autocast(self.device.type, torch.bfloat16) if self.mixed else contextlib.nullcontext():
            maps = run_table(self.table, self.tensors, x)
        amplitude, phase = (m.to(self.dtype) for m in maps)
        if not self.model.object_big:
            amplitude, phase = (rearrange(m, ALONE_FIRST_TO_BCHW, c=channels) for m in (amplitude, phase))
        return amplitude, phase

    def _loss_terms(self, batch: Batch) -> dict[str, Tensor]:
        assert self.training is not None
        measured_amplitude = self._amplitude(batch)
        patches = physics.polar_to_field(*self._maps(measured_amplitude))
        terms: dict[str, Tensor] = {}
        if self.model.object_big and self.model.channels > 1:
            offsets = self._constant(batch.relative_offsets_px)
            placement = physics.placement_matrices(offsets, self.model.N, batch.canvas_padding_px)
            epsilon = MERGE_EPSILON[self.model.merge_weights]
            canvas = physics.merge_group(patches, self.merge_weight, placement, epsilon)
            merged = physics.extract_patches(canvas, placement)
        else:
            merged = patches

        if self.model.model_type == "supervised" or self.training.realspace_mae_weight > 0:
            truth = rearrange(batch.object_patches, BHWC_TO_BCHW)
            terms["realspace_mae"] = losses.complex_error(
                patches if self.model.model_type == "supervised" else merged,
                torch.stack([self._constant(truth.real), self._constant(truth.imag)]),
            )
        if self.model.model_type == "supervised":
            return {"total": terms["realspace_mae"], **terms}

        probe = self.tensors[PROBE] if self.probe_mask is None else self.tensors[PROBE] * self.probe_mask
        intensity = physics.far_field_intensity(merged, probe, self.smoothing)
        counts = self.tensors[COUNTS_PER_INTENSITY]
        predicted = counts * torch.exp(2 * self.tensors[LOG_SCALE]) * intensity
        measured = counts * measured_amplitude.square()
        good = self._constant(~batch.bad_pixels)
        mean_counts = counts * self.tensors[MEAN_INTENSITY]
        deviance = losses.masked_mean(losses.half_deviance(predicted, measured), good)
        terms["nll"] = deviance / mean_counts
        terms["reduced_deviance"] = 2 * deviance.detach()
        error = losses.masked_mean(losses.amplitude_error(predicted, measured), good)
        terms["amplitude_mae"] = error / torch.sqrt(mean_counts)
        total = self.training.nll_weight * terms["nll"] + self.training.mae_weight * terms["amplitude_mae"]
        if self.training.realspace_weight > 0:
            terms["total_variation"] = losses.total_variation(merged)
            total = total + self.training.realspace_weight * terms["total_variation"]
        if self.training.realspace_mae_weight > 0:
            total = total + self.training.realspace_mae_weight * terms["realspace_mae"]
        return {"total": total, **terms}

    def _backward(self, batch: Batch) -> dict[str, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        terms = self._loss_terms(batch)
        terms["total"].backward()
        for name in self.trainable:
            if self.tensors[name].grad is None:  # no loss term reaches it: its gradient is 0, not absent
                self.tensors[name].grad = torch.zeros_like(self.tensors[name])
        gradients = [self.tensors[name].grad for name in self.trainable]
        assert self.training is not None
        if self.training.gradient_clip_val is not None:
            limit = self.training.gradient_clip_val
            norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
            for gradient in gradients:
                gradient.mul_(limit / torch.clamp_min(norm, limit))
        return terms


def _detached(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: term.detach() for name, term in terms.items()}
