"""A solver on its device: steps on the object canvas and the probe, and its state in and out (specs/solving.md)."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptycho_core.engine.checks import check_cover, check_optimizer_state, check_solver_weights, registered_step
from ptycho_core.engine.problem import FrameFacts, Frames, Problem, Rates
from ptycho_core.engine.processes import ALONE, Processes
from ptycho_core.engine.shared_rows import SharedRows
from ptycho_core.engine.steps import frame_facts, held_pixels
from ptycho_core.physics.constants import SOLVER_BETA1, SOLVER_BETA2
from ptycho_core.vocabulary import OBJECT, PROBE, Weights
from ptycho_core_torch.descent import (
    DEVIANCES,
    SHIFTS,
    SUMS,
    Fields,
    Piece,
    Rule,
    Trained,
    adam_step,
    descend,
    differentiate,
    measure,
)
from ptycho_core_torch.processes import Message
from ptycho_core_torch.proximal import PROXIMAL_STEPS

log = logging.getLogger(__name__)

STEP, FIRST, SECOND = "step", "first_moment", "second_moment"
CACHED_PIXELS, DEVICE_PIXELS = 2**17, 2**24
"""Pixels of the far fields that are worked on at a time, on a processor and on another device."""


class TorchSolver:
    """Solver protocol of specs/solving.md.

    The probe is kept times a checkerboard of 1 and -1: since N is even, that puts the centre of the detector where the
    Fourier transform has it, and no frame is ever shifted.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        device: torch.device,
        precision: str,
        compiled: bool | None = None,
        processes: Processes = ALONE,
        shared: SharedRows | None = None,
    ) -> None:
        """compiled: whether steps are compiled; None: where they can be. processes: those that take steps together.

        shared: the rows of the canvas that others of them hold, too; None: all of them.
        """
        self.problem, self.processes = problem, processes
        self.shared = shared or SharedRows.all_of(problem.canvas.shape)
        self.device = device
        self.dtype = torch.float64 if precision == "64-true" else torch.float32
        self.number = np.dtype(np.float64 if precision == "64-true" else np.float32)
        self.rule = Rule(problem.loss, problem.counts_per_intensity, problem.amplitude_floor)
        self.compiles = can_compile(device) if compiled is None else compiled
        pixel = torch.arange(problem.N, device=device)
        self.checkerboard = (1 - 2 * ((pixel[:, None] + pixel) % 2)).to(self.dtype)[..., None]
        self.used = self._constant(~problem.bad_pixels & ~problem.held_out)
        held, counted = held_pixels(problem)
        self.held, self.counted = torch.from_numpy(held).to(device), self._constant(counted)
        self.cover = self._constant(np.ones(problem.canvas.shape))
        start = {OBJECT: problem.canvas, PROBE: problem.probe}
        self._load({name: np.stack([field.real, field.imag], axis=-1) for name, field in start.items()})

    # -- state -----------------------------------------------------------------------------------------------------

    def weights(self) -> Weights:
        return {name: self._to_array(name, torch.view_as_real(state.field)) for name, state in self.state.items()}

    def load_weights(self, weights: Weights) -> None:
        check_solver_weights(weights, self.weights())
        self._load(weights)

    def optimizer_state(self) -> Weights:
        steps = {f"{STEP}/{name}": np.asarray(float(count)) for name, count in self.steps.items()}
        first = {f"{FIRST}/{name}": self._to_array(name, state.first) for name, state in self.state.items()}
        second = {f"{SECOND}/{name}": np.array(state.second.cpu().numpy()) for name, state in self.state.items()}
        return {**steps, **first, **second}

    def load_optimizer_state(self, state: Weights) -> None:
        check_optimizer_state(state, self.optimizer_state())
        for name, kept in self.state.items():
            self.steps[name] = int(state[f"{STEP}/{name}"])
            kept.first.copy_(self._to_tensor(name, state[f"{FIRST}/{name}"]))
            kept.second.copy_(self._constant(state[f"{SECOND}/{name}"]))

    def _load(self, weights: Weights) -> None:
        pairs = {name: self._to_tensor(name, weights[name]) for name in (OBJECT, PROBE)}
        self.state = {
            name: Trained(torch.view_as_complex(field), torch.zeros_like(field), torch.zeros_like(field))
            for name, field in pairs.items()
        }
        self.steps = dict.fromkeys(self.state, 0)
        fields = self._fields()
        self.message = None
        if self.processes.size > 1:
            self.message = Message(self.processes, self.shared, fields.canvas, fields.probe)
        self.compiled, self.proximal_steps = None, PROXIMAL_STEPS
        if self.compiles:
            from ptycho_core_torch import compiled  # here, because Numba takes a second to import

            self.compiled = compiled.CompiledSteps(self.rule, fields, self.state, self.message)
            self.proximal_steps = PROXIMAL_STEPS | compiled.PROXIMAL_STEPS

    def _to_array(self, name: str, pairs: Tensor) -> NDArray[np.floating]:
        """Real and imaginary parts (..., 2), without the checkerboard of the probe's."""
        return np.array((pairs * self.checkerboard if name == PROBE else pairs).cpu().numpy())

    def _to_tensor(self, name: str, pairs: NDArray[np.floating]) -> Tensor:
        """The inverse of `_to_array`."""
        tensor = self._constant(pairs)
        return tensor * self.checkerboard if name == PROBE else tensor

    def _constant(self, array: NDArray[np.generic]) -> Tensor:
        return torch.tensor(array, dtype=self.dtype, device=self.device)

    # -- work ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, frames: Frames, rates: Rates, *, shifts: bool = False) -> FrameFacts:
        trained = {name: rate for name, rate in ((OBJECT, rates.object), (PROBE, rates.probe)) if rate}
        numbers = {name: self._count(name, rate) for name, rate in trained.items()}
        if self.compiled is None:
            table = self._descend(frames, numbers, shifts)
        else:
            frames.check(self.problem, shared=self.processes.size > 1)
            table = self.compiled.step(frames, numbers, self.cover, shifts)
        return self._facts(frames, table, SUMS + SHIFTS * shifts)

    @torch.no_grad()
    def measure(self, frames: Frames, *, deviance: bool = True) -> FrameFacts:
        table = measure(self.rule, deviance, self._fields(), self._pieces(frames))
        return self._facts(frames, table.cpu().numpy(), SUMS + DEVIANCES * deviance)

    @torch.no_grad()
    def gradients(self, frames: Frames, *, object_only: bool = False) -> Weights:
        if object_only and self.compiled is not None:
            frames.check(self.problem)
            return {OBJECT: self._to_array(OBJECT, torch.view_as_real(self.compiled.by_object(frames)))}
        if object_only:
            found, table = descend(self.rule, False, False, self._fields(), self._pieces(frames))
        else:
            found, table = differentiate(self.rule, self._fields(), self._pieces(frames))
        arrays = {name: self._to_array(name, torch.view_as_real(gradient)) for name, gradient in found.items()}
        return arrays if object_only else {**arrays, "positions": table.T.cpu().numpy()}

    def set_cover(self, cover: NDArray[np.floating]) -> None:
        check_cover(cover, self.problem.canvas.shape)
        self.cover = self._constant(cover)

    @torch.no_grad()
    def rescale(self, counts: float) -> None:
        probe, canvas = self.state[PROBE].field, self.state[OBJECT].field
        factor = float(np.sqrt(counts)) / torch.linalg.vector_norm(torch.view_as_real(probe))
        probe.mul_(factor)
        canvas.div_(factor)

    def denoise(self, weight: float, iterations: int = 30) -> None:
        self.apply("tv", weight=weight, iterations=iterations)

    @torch.no_grad()
    def apply(self, name: str, **settings: Any) -> None:
        canvas = self.state[OBJECT].field
        canvas.copy_(registered_step(self.proximal_steps, name)(canvas, **settings))

    # -- inside ----------------------------------------------------------------------------------------------------

    def _fields(self) -> Fields:
        return Fields(self.state[OBJECT].field, self.state[PROBE].field, self.used, self.held, self.counted)

    def _descend(
        self, frames: Frames, numbers: Mapping[str, tuple[float, float]], shifts: bool
    ) -> NDArray[np.floating]:
        """The table of a step, which is taken."""
        fields = self._fields()
        pieces = self._pieces(frames, shared=self.processes.size > 1)
        gradients, table = descend(self.rule, PROBE in numbers, shifts, fields, pieces)
        if self.message is not None:
            self.message.sum(gradients[OBJECT], gradients.get(PROBE))
        brightness = torch.linalg.vector_norm(torch.view_as_real(fields.probe)) / self.problem.N
        factors = {OBJECT: self.cover, PROBE: brightness}
        for name, (rate, correction) in numbers.items():
            adam_step(self.state[name], gradients[name], rate, correction, factors[name])
        return table.cpu().numpy()

    def _count(self, name: str, rate: float) -> tuple[float, float]:
        """Count a step; the rate over 1 - β₁ᵗ, and √(1 - β₂ᵗ)."""
        self.steps[name] += 1
        t = self.steps[name]
        return rate / (1 - SOLVER_BETA1**t), float(np.sqrt(1 - SOLVER_BETA2**t))

    def _pieces(self, frames: Frames, *, shared: bool = False) -> list[Piece]:
        """The frames in pieces that stay in a processor's cache, or in larger ones on another device."""
        frames.check(self.problem, shared=shared)
        if not len(frames):
            return []
        pixels = CACHED_PIXELS if self.device.type == "cpu" else DEVICE_PIXELS
        size = max(1, pixels // self.problem.probe.size)
        whole, real = np.floor(frames.corners_px), self.number
        fraction = self._to_device((frames.corners_px - whole).T, real)[..., None, None, None].split(size, dim=1)
        others = (
            self._to_device(whole, np.int64).split(size),
            self._to_device(frames.diffraction_amplitude, real).split(size),
            self._to_device(frames.intensity[:, None, None], real).split(size),
            self._to_device(frames.held_out, np.int64).split(size),
        )
        return [Piece(a, b, *rest) for a, b, *rest in zip(others[0], fraction, *others[1:], strict=True)]

    def _to_device(self, array: NDArray[Any], dtype: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, dtype)).to(self.device)

    def _facts(self, frames: Frames, table: NDArray[np.floating], names: tuple[str, ...]) -> FrameFacts:
        """The facts of a batch from its table, which comes from the device at once."""
        return frame_facts(self.problem, frames, names, table)


def can_compile(device: torch.device) -> bool:
    """Whether steps on this device are compiled: on a processor where Numba is installed."""
    if device.type != "cpu":
        return False
    installed = importlib.util.find_spec("numba") is not None
    if not installed:
        log.info("Numba is not installed; with it (pip install 'ptycho-core[fast]') a step takes a third of the time")
    return installed
