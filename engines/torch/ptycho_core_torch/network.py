"""A network on its device: training steps, evaluation, prediction, and its state in and out."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable

import attrs
import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from ptycho_core.batches.batch import Batch
from ptycho_core.engine.checks import check_border, check_weights, trainable_names
from ptycho_core.engine.losses import Compared, loss_function
from ptycho_core.engine.objective import Objective
from ptycho_core.engine.processes import ALONE, Processes
from ptycho_core.engine.steps import LossMeans, windows
from ptycho_core.layouts import ALONE_FIRST_TO_BCHW, BCHW_TO_ALONE_FIRST, BCHW_TO_BHWC, BHWC_TO_BCHW
from ptycho_core.networks.ops import check_ops
from ptycho_core.networks.registry import build_table
from ptycho_core.physics.constants import LOSS_FLOOR
from ptycho_core.physics.illumination import Illumination
from ptycho_core.physics.weights import (
    MERGE_EPSILON,
    canvas_border,
    lit_probe,
    merge_weight,
    probe_mask,
    smoothing_matrix,
)
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.vocabulary import LOG_SCALE, PROBE, LossTerms, Weights
from ptycho_core_torch import losses, physics
from ptycho_core_torch.arrays import XP
from ptycho_core_torch.ops import ENGINE, OPS, run_table
from ptycho_core_torch.optimizer import Optimizer
from ptycho_core_torch.placement import placement_at
from ptycho_core_torch.processes import reduced
from ptycho_core_torch.steps import Scene
from ptycho_core_torch.weights import to_arrays, to_tensors


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
        processes: Processes = ALONE,
    ) -> None:
        """processes: those that train it together, each with its share of every batch."""
        self.model, self.training, self.processes = model, training, processes
        self.table = build_table(model)
        check_ops(self.table.layers, ENGINE, OPS)
        self.device = device
        self.dtype = torch.float64 if precision == "64-true" else torch.float32
        self.mixed = precision == "bf16-mixed"
        self.objective = None if training is None else Objective.of(training)
        self.trainable = trainable_names(self.table, training)
        self.means = LossMeans()
        self.smoothing = None
        if model.gaussian_smoothing_sigma > 0:
            self.smoothing = self._constant(smoothing_matrix(model.N, model.gaussian_smoothing_sigma))
        self.probe_mask = self._constant(probe_mask(model.N))[..., None] if model.probe_mask else None
        self._lit: weakref.WeakKeyDictionary[Illumination, physics.Light] = weakref.WeakKeyDictionary()
        check_weights(self.table, training, weights, model.N)
        self._start(weights)

    # -- state ---------------------------------------------------------------------------------------------------

    def weights(self) -> Weights:
        return to_arrays(self.tensors)

    def load_weights(self, weights: Weights) -> None:
        modes = self.tensors[PROBE].shape[0] if PROBE in self.tensors else None
        check_weights(self.table, self.training, weights, self.model.N, modes)
        self._start(weights)

    def _start(self, weights: Weights) -> None:
        self.tensors = to_tensors(weights, self.dtype, self.device)
        for name in self.trainable:
            self.tensors[name].requires_grad_()
        self.optimizer = Optimizer(self.training, {name: self.tensors[name] for name in self.trainable})

    def optimizer_state(self) -> Weights:
        return self.optimizer.state()

    def load_optimizer_state(self, state: Weights) -> None:
        self.optimizer.load_state(state)

    # -- work ----------------------------------------------------------------------------------------------------

    def train_epoch(self, batches: Iterable[Batch], learning_rate: float, physics_weight: float = 1.0) -> LossTerms:
        assert self.training is not None
        self.means = LossMeans()
        for window in windows(batches, self.training.accum_steps):
            mean: dict[str, Tensor] = {}
            groups = 0
            for batch in window:
                batch_terms, gradients = self._of_all(batch, physics_weight)
                count = len(batch) if batch.whole is None else batch.whole
                groups += count
                share = count / groups  # a running mean over the groups; the first batch is taken as it is
                mean = {name: torch.lerp(mean[name], g, share) if mean else g for name, g in gradients.items()}
                self.means.add(count, batch_terms, batch.scan)
            self.optimizer.step(mean, learning_rate)
        return self.losses_so_far()

    def losses_so_far(self) -> LossTerms:
        return self.means.means()

    def evaluate(self, batches: Iterable[Batch]) -> LossTerms:
        means = LossMeans()
        with torch.no_grad():
            for batch in batches:
                if batch.whole is None:
                    means.add(len(batch), self._loss_terms(batch, physics_weight=1.0), batch.scan)
                else:
                    terms = self._loss_terms(batch, physics_weight=1.0) if len(batch) else {}
                    means.add(batch.whole, self._summed(batch, terms, {})[0], batch.scan)
        return means.means()

    def predict(self, batch: Batch) -> NDArray[np.complex64]:
        with torch.inference_mode():
            if self.table.canvas:
                patches = torch.complex(*self._canvas_patches(attrs.evolve(batch, held_out=None)))
            else:
                maps = self._maps(self._amplitude(batch), self._light(batch.illumination))
                patches = torch.complex(*maps) if self.table.real else torch.polar(*maps)
            return rearrange(patches, BCHW_TO_BHWC).cpu().numpy().astype(np.complex64, copy=False)

    def gradients(self, batch: Batch) -> Weights:
        return to_arrays(self.optimizer.clipped(self._terms_and_gradients(batch, physics_weight=1.0)[1]))

    # -- inside --------------------------------------------------------------------------------------------------

    def _constant(self, array: NDArray[np.generic]) -> Tensor:
        return torch.tensor(array, dtype=self.dtype, device=self.device)

    def _amplitude(self, batch: Batch) -> Tensor:
        amplitude = torch.from_numpy(batch.diffraction_amplitude).to(self.device, self.dtype, non_blocking=True)
        return rearrange(amplitude, BHWC_TO_BCHW)

    def _light(self, illumination: Illumination) -> physics.Light:
        """The illumination on this device, which it is brought to once."""
        if illumination not in self._lit:
            with torch.inference_mode(False):  # what is made in that mode is refused where gradients are recorded
                self._lit[illumination] = physics.Light(
                    probe=self._constant(illumination.pairs),
                    merge_weight=self._constant(merge_weight(illumination.intensity, self.model)),
                    lit=self._constant(lit_probe(illumination.intensity, self.model)),
                    input_scale=self._constant(np.asarray(illumination.input_scale)),
                    mean_intensity=self._constant(np.asarray(illumination.mean_intensity)),
                    counts_per_intensity=self._constant(np.asarray(illumination.counts_per_intensity)),
                )
        return self._lit[illumination]

    def _maps(self, diffraction_amplitude: Tensor, light: physics.Light) -> tuple[Tensor, Tensor]:
        """The table's two outputs as patches (B, C, N, N), for measured amplitudes (B, C, N, N)."""
        x = light.input_scale * diffraction_amplitude
        channels = x.shape[1]
        if not self.model.object_big:
            x = rearrange(x, BCHW_TO_ALONE_FIRST)
        with torch.autocast(self.device.type, torch.bfloat16) if self.mixed else contextlib.nullcontext():
            maps = run_table(self.table, self.tensors, x)
        first, second = (m.to(self.dtype) for m in maps)
        if not self.model.object_big:
            first, second = (rearrange(m, ALONE_FIRST_TO_BCHW, c=channels) for m in (first, second))
        return first, second

    def _probe(self, light: physics.Light) -> Tensor:
        """Refined, or as it came with the batch; within the mask."""
        probe = self.tensors.get(PROBE, light.probe)
        return probe if self.probe_mask is None else probe * self.probe_mask

    def _canvas_patches(self, batch: Batch) -> Tensor:
        """What the canvases of the frames that are seen show at the places of those that are compared."""
        check_border(batch)
        seen, light = batch.seen, self._light(batch.illumination)
        border = canvas_border(self.model.N, batch.canvas_padding_px, self.table.block)
        placement = placement_at(self._constant(seen.relative_offsets_px), self.model.N, border)
        scene = Scene.of(
            placement,
            amplitude=self._amplitude(seen),
            good=self._constant(~batch.bad_pixels),
            probe=self._probe(light),
            lit=light.lit,
            mean_intensity=light.mean_intensity,
            counts_per_intensity=light.counts_per_intensity,
        )
        with torch.autocast(self.device.type, torch.bfloat16) if self.mixed else contextlib.nullcontext():
            (canvas,) = run_table(self.table, self.tensors, scene.empty(), scene)
        compared = batch.compared
        if compared is not seen:
            offsets = self._constant(compared.relative_offsets_px)
            placement = placement_at(offsets, self.model.N, border)
        return placement.extract(canvas.to(self.dtype).movedim(1, 0))

    def _loss_terms(self, batch: Batch, physics_weight: float) -> dict[str, Tensor]:
        assert self.objective is not None
        light = self._light(batch.illumination)
        if self.table.canvas:
            patches, batch = self._canvas_patches(batch), batch.compared
            measured_amplitude = self._amplitude(batch)
        else:
            measured_amplitude = self._amplitude(batch)
            maps = self._maps(measured_amplitude, light)
            patches = torch.stack(maps) if self.table.real else physics.polar_to_field(*maps)
        if self.model.merges and not self.table.canvas:
            check_border(batch)
            offsets = self._constant(batch.relative_offsets_px)
            placement = placement_at(offsets, self.model.N, batch.canvas_padding_px)
            epsilon = MERGE_EPSILON[self.model.merge_weights]
            canvas = physics.merge_group(patches, light.merge_weight, placement, epsilon)
            patches = placement.extract(canvas)
        compared = Compared(xp=XP, patches=patches, lit=light.lit if self.table.canvas else None)
        if self.objective.compares("truth"):
            parts = rearrange(batch.object_patches, BHWC_TO_BCHW)
            truth = torch.stack([self._constant(parts.real), self._constant(parts.imag)])
            if self.table.canvas:
                with torch.no_grad():
                    intensity = physics.far_field_intensity(truth, self._probe(light), self.smoothing)
                good = self._constant(~batch.bad_pixels)
                truth = losses.in_scale(truth, intensity, measured_amplitude.square(), good)
            compared = attrs.evolve(compared, truth=truth)
        if self.objective.compares("counts"):
            intensity = physics.far_field_intensity(patches, self._probe(light), self.smoothing)
            counts = light.counts_per_intensity
            compared = attrs.evolve(
                compared,
                predicted=counts * torch.exp(2 * self.tensors[LOG_SCALE]) * intensity,
                measured=counts * measured_amplitude.square(),
                good=self._constant(~batch.bad_pixels),
                mean_counts=counts * light.mean_intensity,
            )
        terms = {name: loss_function(name, ENGINE, losses.TERMS)(compared) for name in self.objective.terms}
        return {"total": self.objective.total(terms, physics_weight), **terms}

    def _of_all(self, batch: Batch, physics_weight: float) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Terms and gradients of a batch, of which this process may have but a share, or nothing."""
        if batch.whole is None:
            return self._terms_and_gradients(batch, physics_weight)
        own = self._terms_and_gradients(batch, physics_weight, minimised=False) if len(batch) else ({}, {})
        zeros = {name: torch.zeros_like(self.tensors[name]) for name in self.trainable}
        terms, gradients = self._summed(batch, own[0], own[1] or zeros)
        if self.table.canvas:  # of the logarithm of the whole batch's total
            total = terms["total"]
            factor = torch.where(total >= LOSS_FLOOR, 1 / total.clamp_min(LOSS_FLOOR), 0)
            gradients = {name: factor * g for name, g in gradients.items()}
        return terms, gradients

    @torch.no_grad()
    def _summed(
        self, batch: Batch, terms: dict[str, Tensor], gradients: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Means over the groups of all processes; no terms where this one has no group."""
        assert self.objective is not None
        names = ("total", *self.objective.terms)
        nothing = torch.zeros((), dtype=self.dtype, device=self.device)
        numbers = torch.stack([terms.get(name, nothing) for name in names]).mul_(batch.share)
        gradients = {name: g.mul_(batch.share) for name, g in gradients.items()}
        reduced(self.processes, [numbers, *gradients.values()])
        return dict(zip(names, numbers, strict=True)), gradients

    def _terms_and_gradients(
        self, batch: Batch, physics_weight: float, *, minimised: bool = True
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """minimised: the gradients are those of what is minimised, not of the total."""
        for name in self.trainable:
            self.tensors[name].grad = None
        terms = self._loss_terms(batch, physics_weight)
        total = terms["total"]
        (total.clamp_min(LOSS_FLOOR).log() if self.table.canvas and minimised else total).backward()
        # No loss term may reach a tensor: its gradient is 0, not absent.
        found = {name: self.tensors[name].grad for name in self.trainable}
        gradients = {name: torch.zeros_like(self.tensors[name]) if g is None else g for name, g in found.items()}
        return {name: term.detach() for name, term in terms.items()}, gradients
