"""Engines made of the reference with one fault each, which the contract tests must notice.

Each is a factory for `pytest tests/contract --engine tests.meta.faults:<name>`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray
from ptycho_core_reference import ForwardModel, ReferenceEngine, ReferenceNetwork
from ptycho_core_reference.physics import Array, Placement
from ptycho_core_reference.solving import Pass, ReferenceSolver

from ptycho_core.batches.batch import Batch
from ptycho_core.engine.problem import FrameFacts, Frames, Rates
from ptycho_core.engine.protocol import EngineInfo
from ptycho_core.engine.steps import LossMeans
from ptycho_core.vocabulary import Field, LossTerms


def engine_with(
    forward_model: type[ForwardModel] = ForwardModel,
    network: type[ReferenceNetwork] = ReferenceNetwork,
    solver: type[ReferenceSolver] = ReferenceSolver,
) -> type[ReferenceEngine]:
    class FaultyNetwork(network):  # type: ignore[misc, valid-type]
        pass

    class FaultyEngine(ReferenceEngine):
        pass

    FaultyNetwork.forward_model = forward_model
    FaultyEngine.network = FaultyNetwork
    FaultyEngine.solver = solver
    return FaultyEngine


class _AxesSwapped(ForwardModel):
    def placement(self, relative_offsets_px: NDArray[np.floating], padding: int) -> Placement:
        x, y = super().placement(relative_offsets_px, padding)
        return y, x


class _NoShift(ForwardModel):
    def far_field(self, exit_wave: Field) -> Field:
        return np.fft.fft2(exit_wave, norm="ortho")

    def far_field_adjoint(self, g: Field) -> Field:
        return np.fft.ifft2(g, norm="ortho")


class _ChannelsTransposed(ForwardModel):
    """Offsets of a group column by column, its patches row by row."""

    def placement(self, relative_offsets_px: NDArray[np.floating], padding: int) -> Placement:
        side = round(relative_offsets_px.shape[-1] ** 0.5)
        order = np.arange(side**2).reshape(side, side).T.ravel()
        return super().placement(relative_offsets_px[..., order], padding)


class _ConjugatedGradient(ForwardModel):
    """The other convention, ∂L/∂Re z - i ∂L/∂Im z."""

    def exit_wave_gradient(self, g: Field, patches: Field, probe: Field) -> tuple[Field, Field]:
        by_patches, by_probe = super().exit_wave_gradient(g, patches, probe)
        return by_patches.conj(), by_probe.conj()


class _HalfPixelShift(ForwardModel):
    def placement(self, relative_offsets_px: NDArray[np.floating], padding: int) -> Placement:
        return super().placement(relative_offsets_px + 0.5, padding)


class _AmplitudeForIntensity(ForwardModel):
    def measured_intensity(self, diffraction_amplitude: Array) -> Array:
        return diffraction_amplitude


class _PatchesTransposed(ReferenceNetwork):
    def predict(self, batch: Batch) -> NDArray[np.complex64]:
        return super().predict(batch).swapaxes(1, 2)


class _GradientsOfTheBatchBefore(ReferenceNetwork):
    """State that is left over from an earlier call."""

    def gradients(self, batch: Batch) -> Any:
        gradients = super().gradients(batch)
        left_over = getattr(self, "left_over", {})
        self.left_over = gradients
        return {name: array + left_over.get(name, 0) for name, array in gradients.items()}


class _DecaysEverything(ReferenceNetwork):
    """Weight decay of biases, probe and scale, too."""

    def train_epoch(self, batches: Iterable[Batch], learning_rate: float, physics_weight: float = 1.0) -> LossTerms:
        terms = super().train_epoch(batches, learning_rate, physics_weight)
        assert self.training is not None
        for name in self.trainable:
            if not name.endswith("/kernel"):
                self.arrays[name][...] *= 1 - learning_rate * self.training.weight_decay
        return terms


class _StepsAtEveryBatch(ReferenceNetwork):
    def train_epoch(self, batches: Iterable[Batch], learning_rate: float, physics_weight: float = 1.0) -> LossTerms:
        means = LossMeans()
        for batch in batches:
            means.add(len(batch), super().train_epoch([batch], learning_rate, physics_weight))
        return means.means()


class _NeverBeginsItsLossesAgain(ReferenceNetwork):
    """The losses so far are those of all epochs."""

    def train_epoch(self, batches: Iterable[Batch], learning_rate: float, physics_weight: float = 1.0) -> LossTerms:
        before = self.means
        terms = super().train_epoch(batches, learning_rate, physics_weight)
        self.means.merge(before)
        return terms


class _ForgetsThePhysicsWeight(ReferenceNetwork):
    def train_epoch(self, batches: Iterable[Batch], learning_rate: float, physics_weight: float = 1.0) -> LossTerms:
        return super().train_epoch(batches, learning_rate)


class _KeptInFloat32(ReferenceNetwork):
    """Computes in float64 all the same; only what it hands out is float32."""

    def weights(self) -> Any:
        return {name: array.astype(np.float32) for name, array in super().weights().items()}

    def gradients(self, batch: Batch) -> Any:
        return {name: array.astype(np.float32) for name, array in super().gradients(batch).items()}

    def optimizer_state(self) -> Any:
        state = super().optimizer_state()
        return {name: array if name == "step" else array.astype(np.float32) for name, array in state.items()}


class _SolverAxesSwapped(ReferenceSolver):
    """Corners are [y, x], as far as the canvas goes."""

    def windows(self, corners_px: Array) -> list[Field]:
        return super().windows(self.swapped(corners_px))

    def place(self, patches: Field, corners_px: Array) -> Field:
        return super().place(patches, self.swapped(corners_px))

    def swapped(self, corners_px: Array) -> Array:
        height, width = self.problem.canvas.shape
        return np.minimum(corners_px[:, ::-1], [width - self.problem.N - 1, height - self.problem.N - 1])


class _SolverConjugatedGradient(ReferenceSolver):
    def gradients(self, frames: Frames) -> Any:
        return {
            name: array * [1, -1] if name.endswith("/field") else array
            for name, array in super().gradients(frames).items()
        }


class _SolverSeesHeldOut(ReferenceSolver):
    def used(self, frames: Frames) -> NDArray[np.bool_]:
        return np.broadcast_to(self.good, frames.diffraction_amplitude.shape)


class _SolverWithoutCentre(ReferenceSolver):
    def far_field(self, exit_wave: Field) -> Field:
        return np.fft.fft2(exit_wave, norm="ortho")

    def far_field_adjoint(self, wave: Field) -> Field:
        return np.fft.ifft2(wave, norm="ortho")


class _SolverShiftsBackwards(ReferenceSolver):
    def shifts(self, frames: Frames, result: Pass) -> Array:
        return -super().shifts(frames, result)


class _SolverForgetsCover(ReferenceSolver):
    def set_cover(self, cover: NDArray[np.floating]) -> None:
        pass


class _SolverSharesItsSteps(ReferenceSolver):
    """One count of steps, of an array that stays as it is too."""

    def step(self, frames: Frames, rates: Rates, *, shifts: bool = False) -> FrameFacts:
        facts = super().step(frames, rates, shifts=shifts)
        self.steps = dict.fromkeys(self.steps, max(self.steps.values()))
        return facts


class claims_float32(engine_with(network=_KeptInFloat32)):  # type: ignore[misc]
    def describe(self) -> EngineInfo:
        return attrs.evolve(super().describe(), precisions=("32-true",))


sound = engine_with()
axes_swapped = engine_with(_AxesSwapped)
no_fftshift = engine_with(_NoShift)
channels_transposed = engine_with(_ChannelsTransposed)
conjugated_gradient = engine_with(_ConjugatedGradient)
half_pixel_shift = engine_with(_HalfPixelShift)
amplitude_for_intensity = engine_with(_AmplitudeForIntensity)
patches_transposed = engine_with(network=_PatchesTransposed)
gradients_add_up = engine_with(network=_GradientsOfTheBatchBefore)
decays_everything = engine_with(network=_DecaysEverything)
steps_at_every_batch = engine_with(network=_StepsAtEveryBatch)
never_begins_its_losses_again = engine_with(network=_NeverBeginsItsLossesAgain)
forgets_the_physics_weight = engine_with(network=_ForgetsThePhysicsWeight)
solver_axes_swapped = engine_with(solver=_SolverAxesSwapped)
solver_conjugated_gradient = engine_with(solver=_SolverConjugatedGradient)
solver_sees_held_out = engine_with(solver=_SolverSeesHeldOut)
solver_without_centre = engine_with(solver=_SolverWithoutCentre)
solver_shifts_backwards = engine_with(solver=_SolverShiftsBackwards)
solver_forgets_cover = engine_with(solver=_SolverForgetsCover)
solver_shares_its_steps = engine_with(solver=_SolverSharesItsSteps)

NOTICED_BY = {
    "axes_swapped": "test_gradients",
    "no_fftshift": "test_gradients",
    "channels_transposed": "test_gradients",
    "conjugated_gradient": "test_gradients",
    "half_pixel_shift": "test_gradients",
    "amplitude_for_intensity": "test_gradients",
    "patches_transposed": "test_predict",
    "gradients_add_up": "test_gradients",
    "decays_everything": "test_optimizer",
    "steps_at_every_batch": "test_optimizer",
    "never_begins_its_losses_again": "test_training_step",
    "forgets_the_physics_weight": "test_optimizer",
    "solver_axes_swapped": "test_solving",
    "solver_conjugated_gradient": "test_solving",
    "solver_sees_held_out": "test_solving",
    "solver_without_centre": "test_solving",
    "solver_shifts_backwards": "test_solving",
    "solver_forgets_cover": "test_solving",
    "solver_shares_its_steps": "test_solving",
}
"""Each fault, and the file of the suite that is there to notice it."""
