"""A reference network: loss terms with their gradients, training steps, and the state in and out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs
import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from ptycho_core.batches.batch import Batch
from ptycho_core.engine.checks import check_border, check_weights, trainable_names
from ptycho_core.engine.losses import term_named
from ptycho_core.engine.objective import Objective
from ptycho_core.engine.processes import ALONE, Processes
from ptycho_core.engine.steps import LossMeans, windows
from ptycho_core.layouts import BCHW_TO_BHWC, BHWC_TO_BCHW, BHWC_TO_FRAMES, FRAMES_TO_BCHW
from ptycho_core.networks.ops import check_ops
from ptycho_core.networks.registry import build_table
from ptycho_core.physics.constants import DATA_STEP_FLOOR, LOSS_FLOOR, NOISE_LEVEL
from ptycho_core.physics.weights import canvas_border, lit_probe, merge_weight
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.vocabulary import LOG_SCALE, PROBE, Field, LossTerms, Weights
from ptycho_core_reference import losses
from ptycho_core_reference.ops import ENGINE, OPS, Back, pull_back, run_table
from ptycho_core_reference.optimizer import Optimizer
from ptycho_core_reference.physics import Array, ForwardModel, Placement
from ptycho_core_reference.steps import Scene, to_field, to_maps


class ReferenceNetwork:
    """Network protocol of specs/engine.md, in float64."""

    forward_model: type[ForwardModel] = ForwardModel
    processes: Processes = ALONE
    """Those that train it together, each with its share of every batch."""

    def __init__(self, model: ModelConfig, training: TrainingConfig | None, weights: Weights) -> None:
        self.model, self.training = model, training
        self.table = build_table(model)
        check_ops(self.table.layers, ENGINE, OPS)
        self.objective = None if training is None else Objective.of(training)
        self.trainable = trainable_names(self.table, training)
        self.means = LossMeans()
        self.physics = self.forward_model(model)
        check_weights(self.table, training, weights, model.N)
        self._start(weights)

    # -- state -----------------------------------------------------------------------------------------------------

    def weights(self) -> Weights:
        return {name: array.copy() for name, array in self.arrays.items()}

    def load_weights(self, weights: Weights) -> None:
        modes = len(self.arrays[PROBE]) if PROBE in self.arrays else None
        check_weights(self.table, self.training, weights, self.model.N, modes)
        self._start(weights)

    def _start(self, weights: Weights) -> None:
        self.arrays = {name: np.array(array, np.float64) for name, array in weights.items()}
        self.optimizer = Optimizer(self.training, {name: self.arrays[name] for name in self.trainable})

    def optimizer_state(self) -> Weights:
        return self.optimizer.state()

    def load_optimizer_state(self, state: Weights) -> None:
        self.optimizer.load_state(state)

    # -- work ------------------------------------------------------------------------------------------------------

    def train_epoch(self, batches: Iterable[Batch], learning_rate: float, physics_weight: float = 1.0) -> LossTerms:
        assert self.training is not None
        self.means = LossMeans()
        for window in windows(batches, self.training.accum_steps):
            mean: dict[str, Array] = {}
            groups = 0
            for batch in window:
                batch_terms, gradients = self._of_all(batch, physics_weight)
                count = len(batch) if batch.whole is None else batch.whole
                groups += count
                share = count / groups  # a running mean over the groups; the first batch is taken as it is
                mean = {name: mean[name] + share * (g - mean[name]) if mean else g for name, g in gradients.items()}
                self.means.add(count, batch_terms, batch.scan)
            self.optimizer.step(mean, learning_rate)
        return self.losses_so_far()

    def losses_so_far(self) -> LossTerms:
        return self.means.means()

    def evaluate(self, batches: Iterable[Batch]) -> LossTerms:
        means = LossMeans()
        for batch in batches:
            terms = self._terms(batch) if len(batch) else dict.fromkeys(self._names, 0.0)
            count = len(batch) if batch.whole is None else batch.whole
            means.add(count, {name: self._over_all(batch, value) for name, value in terms.items()}, batch.scan)
        return means.means()

    def predict(self, batch: Batch) -> NDArray[np.complex64]:
        return np.ascontiguousarray(rearrange(self._patches(batch), BCHW_TO_BHWC), dtype=np.complex64)

    def gradients(self, batch: Batch) -> Weights:
        return self.optimizer.clipped(self._terms_and_gradients(batch, physics_weight=1.0)[1])

    def run(self, batch: Batch) -> tuple[dict[str, Array], dict[str, Back]]:
        """Every layer's output for a batch, and every layer's way back; frame by frame unless the object is merged."""
        if self.table.canvas:
            return run_table(self.table, self.arrays, self._empty(batch), self.scene(batch))
        x = batch.illumination.input_scale * batch.diffraction_amplitude.astype(np.float64)
        return run_table(self.table, self.arrays, x if self.model.object_big else rearrange(x, BHWC_TO_FRAMES))

    def scene(self, batch: Batch) -> Scene:
        """What ops of the physics see of a batch."""
        probe, placement = self._probe(batch), self._placement(batch)
        light = lit_probe(batch.illumination.intensity, self.model)
        assert placement is not None
        return Scene(
            physics=self.physics,
            placement=placement,
            amplitude=self._amplitude(batch),
            good=(~batch.bad_pixels).astype(np.float64),
            probe=probe,
            light=self.physics.place(light.astype(np.complex128), placement).real,
            brightest=float(light.max()),
            floor=DATA_STEP_FLOOR * batch.illumination.mean_intensity,
            noise=NOISE_LEVEL - np.log10(2 * batch.illumination.counts_per_intensity * light.max()) / 2,
            by_probe=np.zeros_like(probe),
        )

    def predicted_intensity(self, batch: Batch) -> Array:
        """What the detector should have seen, (B, C, N, N), in the unit of the squared diffraction amplitude."""
        far_field = self._far_field(batch, self._merged(batch, self._patches(batch), self._placement(batch)))
        predicted: Array = self.physics.intensity(far_field) * np.exp(2 * self.arrays[LOG_SCALE])
        return predicted

    # -- inside ----------------------------------------------------------------------------------------------------

    def _maps(self, outputs: dict[str, Array]) -> tuple[Array, Array]:
        """The table's two outputs as patches (B, C, N, N), out of those of its layers."""
        pattern = BHWC_TO_BCHW if self.model.object_big else FRAMES_TO_BCHW
        first, second = (rearrange(outputs[name], pattern, c=self.model.channels) for name in self.table.outputs)
        return first, second

    def _field(self, first: Array, second: Array) -> Field:
        return first + 1j * second if self.table.real else self.physics.polar_to_field(first, second)

    def _patches(self, batch: Batch) -> Field:
        if self.table.canvas:
            return self._shown(self.run(batch)[0], batch)
        return self._field(*self._maps(self.run(batch)[0]))

    def _shown(self, outputs: dict[str, Array], batch: Batch) -> Field:
        """The canvas seen from each position of a batch, (B, C, N, N)."""
        placement = self._placement(batch)
        assert placement is not None
        return self.physics.extract(to_field(outputs[self.table.canvas]), placement)

    def _border(self, batch: Batch) -> int:
        return canvas_border(self.model.N, batch.canvas_padding_px, self.table.block)

    def _placement(self, batch: Batch) -> Placement | None:
        """Where the patches of each group lie on its canvas; None where nothing is merged."""
        if not self.model.merges and not self.table.canvas:
            return None
        check_border(batch)
        if self.table.canvas:
            return self.physics.placement(batch.relative_offsets_px, self._border(batch))
        return self.physics.placement(batch.relative_offsets_px, batch.canvas_padding_px)

    def _merged(self, batch: Batch, patches: Field, placement: Placement | None) -> Field:
        """What the patches (B, C, N, N) of each group say together, seen from each position."""
        if placement is None or self.table.canvas:
            return patches
        weight = merge_weight(batch.illumination.intensity, self.model)
        return self.physics.extract(self.physics.merge_group(patches, weight, placement), placement)

    def _probe(self, batch: Batch) -> Field:
        """Refined, or as it came with the batch."""
        if PROBE not in self.arrays:
            return batch.illumination.probe.astype(np.complex128)
        probe: Field = self.arrays[PROBE][..., 0] + 1j * self.arrays[PROBE][..., 1]
        return probe

    def _far_field(self, batch: Batch, patches: Field) -> Field:
        return self.physics.far_field(self.physics.exit_wave(patches, self._probe(batch)))

    @property
    def _names(self) -> tuple[str, ...]:
        assert self.objective is not None
        return ("total", *self.objective.terms)

    def _terms(self, batch: Batch) -> dict[str, float]:
        if self.table.canvas:
            patches = self._shown(self.run(batch.seen)[0], batch.compared)
            return self._loss(batch.compared, patches, 1.0)[0]
        return self._loss(batch, self._patches(batch), 1.0)[0]

    def _over_all(self, batch: Batch, own: Any) -> Any:
        """The mean over the groups of a batch, of which `own` is that over this process's share."""
        return own if batch.whole is None else self.processes.sum(np.asarray(batch.share * own))

    def _of_all(self, batch: Batch, physics_weight: float) -> tuple[dict[str, float], dict[str, Array]]:
        """Terms and gradients of a batch, of which this process may have but a share, or nothing."""
        if batch.whole is None:
            return self._terms_and_gradients(batch, physics_weight)
        terms: dict[str, float] = dict.fromkeys(self._names, 0.0)
        gradients = {name: np.zeros_like(self.arrays[name]) for name in self.trainable}
        if len(batch):
            terms, gradients = self._terms_and_gradients(batch, physics_weight)
        own = terms["total"]
        terms = {name: float(self._over_all(batch, value)) for name, value in terms.items()}
        factor = own / terms["total"] if self.table.canvas else 1.0  # of the logarithm of the whole batch's total
        return terms, {name: self._over_all(batch, factor * g) for name, g in gradients.items()}

    def _terms_and_gradients(self, batch: Batch, physics_weight: float) -> tuple[dict[str, float], dict[str, Array]]:
        """Loss terms of a batch, and the gradient of what is minimised by every trainable array."""
        assert self.objective is not None
        losses.check_gradients(self.objective)
        if self.table.canvas:
            return self._canvas_terms_and_gradients(batch, physics_weight)
        outputs, ways_back = self.run(batch)
        maps = self._maps(outputs)
        terms, by_patches, gradients = self._loss(batch, self._field(*maps), physics_weight)
        parts = by_patches.real, by_patches.imag
        by_maps = parts if self.table.real else self.physics.polar_gradient(by_patches, *maps)
        cotangents = {name: rearrange(g, BCHW_TO_BHWC) for name, g in zip(self.table.outputs, by_maps, strict=True)}
        if not self.model.object_big:
            cotangents = {name: rearrange(g, BHWC_TO_FRAMES) for name, g in cotangents.items()}
        gradients |= pull_back(self.table, ways_back, cotangents)
        return terms, {name: gradients[name] for name in self.trainable}

    def _canvas_terms_and_gradients(
        self, batch: Batch, physics_weight: float
    ) -> tuple[dict[str, float], dict[str, Array]]:
        """The same where the network gives a canvas: of the frames that are compared, through those that are seen."""
        seen, compared = batch.seen, batch.compared
        scene, placement = self.scene(seen), self._placement(compared)
        assert placement is not None
        outputs, ways_back = run_table(self.table, self.arrays, self._empty(batch), scene)
        terms, by_patches, gradients = self._loss(compared, self._shown(outputs, compared), physics_weight)
        by_canvas = to_maps(self.physics.place(by_patches, placement))
        gradients |= pull_back(self.table, ways_back, {self.table.canvas: by_canvas})
        if PROBE in gradients:
            gradients[PROBE] = gradients[PROBE] + to_maps(scene.by_probe)
        by_total = 1 / terms["total"] if terms["total"] > LOSS_FLOOR else 0.0  # minimised is the logarithm
        return terms, {name: by_total * gradients[name] for name in self.trainable}

    @staticmethod
    def _amplitude(batch: Batch) -> Array:
        """(B, C, N, N)."""
        amplitude: Array = rearrange(batch.diffraction_amplitude.astype(np.float64), BHWC_TO_BCHW)
        return amplitude

    def _empty(self, batch: Batch) -> Array:
        """The canvases that a table begins with."""
        side = self.model.N + 2 * self._border(batch)
        canvas = np.zeros((len(batch), side, side, 2))
        canvas[..., 0] = 1
        return canvas

    def _loss(
        self, batch: Batch, patches: Field, physics_weight: float
    ) -> tuple[dict[str, float], Field, dict[str, Array]]:
        """Loss terms of patches (B, C, N, N); the total's gradients by the patches, and by name for probe and scale."""
        assert self.objective is not None
        placement = self._placement(batch)
        patches = self._merged(batch, patches, placement)
        compared = losses.Compared(patches=patches)
        if self.table.canvas:
            compared = attrs.evolve(compared, lit=lit_probe(batch.illumination.intensity, self.model))
        if self.objective.compares("truth"):
            truth = self._truth(batch)
            if self.table.canvas:
                intensity, amplitude = self.physics.intensity(self._far_field(batch, truth)), self._amplitude(batch)
                measured = self.physics.measured_intensity(amplitude)
                truth = losses.in_scale(truth, intensity, measured, ~batch.bad_pixels)
            compared = attrs.evolve(compared, truth=truth)
        far_field = None
        if self.objective.compares("counts"):
            amplitude = self._amplitude(batch)
            counts = batch.illumination.counts_per_intensity
            factor = counts * np.exp(2 * self.arrays[LOG_SCALE])
            far_field = self._far_field(batch, patches)
            compared = attrs.evolve(
                compared,
                predicted=factor * self.physics.intensity(far_field),
                measured=counts * self.physics.measured_intensity(amplitude),
                good=~batch.bad_pixels,
                mean_counts=counts * batch.illumination.mean_intensity,
            )
        found = {name: losses.term(name, compared) for name in self.objective.terms}
        terms = {name: value for name, (value, _) in found.items()}
        terms = {"total": self.objective.total(terms, physics_weight), **terms}

        by_counts, by_patches = np.zeros(compared.predicted.shape), np.zeros_like(patches)
        for name, weight in self.objective.weights(physics_weight).items():
            gradient = found[name][1]
            if gradient is None:  # asked for the values alone
                continue
            if term_named(name).compares == "counts":
                by_counts = by_counts + weight * gradient
            else:
                by_patches = by_patches + weight * gradient
        gradients = {name: np.zeros_like(self.arrays[name]) for name in (PROBE, LOG_SCALE) if name in self.arrays}
        if far_field is not None:
            gradients[LOG_SCALE] = np.asarray(2 * np.sum(by_counts * compared.predicted))
            by_far_field = self.physics.intensity_gradient(by_counts * factor, far_field)
            by_exit_wave = self.physics.far_field_adjoint(by_far_field)
            more, by_probe = self.physics.exit_wave_gradient(by_exit_wave, patches, self._probe(batch))
            by_patches = by_patches + more
            gradients[PROBE] = np.stack([by_probe.real, by_probe.imag], axis=-1)
        if placement is not None and not self.table.canvas:
            by_canvas = self.physics.place(by_patches, placement)
            weight = merge_weight(batch.illumination.intensity, self.model)
            by_patches = self.physics.merge_adjoint(by_canvas, weight, placement)
        return terms, by_patches, gradients

    def _truth(self, batch: Batch) -> Field:
        assert batch.object_patches is not None
        truth: Field = rearrange(batch.object_patches.astype(np.complex128), BHWC_TO_BCHW)
        return truth
