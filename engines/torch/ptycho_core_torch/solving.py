"""A solver on its device: steps on the object canvas and the probe, and its state in and out (specs/solving.md)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptycho_core.engine.checks import check_cover, check_optimizer_state, check_solver_weights, registered_step
from ptycho_core.engine.problem import FrameFacts, Frames, Problem, Rates
from ptycho_core.engine.steps import frame_facts, held_pixels
from ptycho_core.physics.constants import (
    ADAM_EPSILON,
    AMPLITUDE_FLOOR,
    INTENSITY_FLOOR,
    POISSON_FLOOR,
    POISSON_LIMIT,
    SHIFT_DAMPING,
    SOLVER_BETA1,
    SOLVER_BETA2,
)
from ptycho_core.vocabulary import OBJECT, PROBE, Weights
from ptycho_core_torch.cuts import cut, place, slopes, windows
from ptycho_core_torch.proximal import PROXIMAL_STEPS

STEP, FIRST, SECOND = "step", "first_moment", "second_moment"
CACHED_PIXELS, DEVICE_PIXELS = 2**17, 2**24
"""Pixels of the far fields that are worked on at a time, on a processor and on another device."""
BLOCK = 2**17
"""Numbers that Adam works on at a time."""


@attrs.frozen(eq=False)
class Piece:
    """A few frames on the device, or a batch of them.

    whole: int64 (B, 2), [x, y]. fraction: (2, B, 1, 1, 1), of x and y. amplitude: (B, N, N). intensity: (B, 1, 1), or
    None where all are 1. pattern: int64 (B,).
    """

    whole: Tensor
    fraction: Tensor
    amplitude: Tensor
    intensity: Tensor | None
    pattern: Tensor

    def __getitem__(self, part: slice) -> Piece:
        intensity = None if self.intensity is None else self.intensity[part]
        return Piece(self.whole[part], self.fraction[:, part], self.amplitude[part], intensity, self.pattern[part])


@attrs.frozen(eq=False)
class Pass:
    """What a forward pass leaves: windows (B, N + 1, N + 1), patches, far fields (B, K, N, N), predicted I."""

    window: Tensor
    patches: Tensor
    far_field: Tensor
    intensity: Tensor


class TorchSolver:
    """Solver protocol of specs/solving.md.

    The probe is kept times a checkerboard of 1 and -1: since N is even, that puts the centre of the detector where the
    Fourier transform has it, and no frame is ever shifted.
    """

    def __init__(self, problem: Problem, *, device: torch.device, precision: str) -> None:
        self.problem = problem
        self.device = device
        self.dtype = torch.float64 if precision == "64-true" else torch.float32
        self.complex = torch.complex128 if precision == "64-true" else torch.complex64
        pixel = torch.arange(problem.N, device=device)
        self.checkerboard = (1 - 2 * ((pixel[:, None] + pixel) % 2)).to(self.dtype)
        self.used = self._constant(~problem.bad_pixels & ~problem.held_out)
        held, counted = held_pixels(problem)
        self.held, self.counted = torch.from_numpy(held).to(device), self._constant(counted)
        self.cover = torch.ones((*problem.canvas.shape, 2), dtype=self.dtype, device=device)
        self.fields = {
            OBJECT: torch.tensor(problem.canvas, dtype=self.complex, device=device),
            PROBE: torch.tensor(problem.probe, dtype=self.complex, device=device) * self.checkerboard,
        }
        self._reset_optimizer()

    # -- state -----------------------------------------------------------------------------------------------------

    def weights(self) -> Weights:
        return {name: self._to_array(name, torch.view_as_real(field)) for name, field in self.fields.items()}

    def load_weights(self, weights: Weights) -> None:
        check_solver_weights(weights, self.weights())
        for name, field in self.fields.items():
            torch.view_as_real(field).copy_(self._to_tensor(name, weights[name]))
        self._reset_optimizer()

    def optimizer_state(self) -> Weights:
        steps = {f"{STEP}/{name}": np.asarray(float(count)) for name, count in self.steps.items()}
        first = {f"{FIRST}/{name}": self._to_array(name, moment) for name, moment in self.first.items()}
        second = {f"{SECOND}/{name}": np.array(moment.cpu().numpy()) for name, moment in self.second.items()}
        return {**steps, **first, **second}

    def load_optimizer_state(self, state: Weights) -> None:
        check_optimizer_state(state, self.optimizer_state())
        for name in self.fields:
            self.steps[name] = int(state[f"{STEP}/{name}"])
            self.first[name].copy_(self._to_tensor(name, state[f"{FIRST}/{name}"]))
            self.second[name].copy_(self._constant(state[f"{SECOND}/{name}"]))

    def _reset_optimizer(self) -> None:
        self.steps = dict.fromkeys(self.fields, 0)
        self.first = {name: torch.zeros_like(torch.view_as_real(field)) for name, field in self.fields.items()}
        self.second = {name: torch.zeros_like(moment) for name, moment in self.first.items()}

    def _to_array(self, name: str, pairs: Tensor) -> NDArray[np.floating]:
        """Real and imaginary parts (..., 2), without the checkerboard of the probe's."""
        return np.array((pairs * self.checkerboard[..., None] if name == PROBE else pairs).cpu().numpy())

    def _to_tensor(self, name: str, pairs: NDArray[np.floating]) -> Tensor:
        """The inverse of `_to_array`."""
        tensor = self._constant(pairs)
        return tensor * self.checkerboard[..., None] if name == PROBE else tensor

    def _constant(self, array: NDArray[np.generic]) -> Tensor:
        return torch.tensor(array, dtype=self.dtype, device=self.device)

    # -- work ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, frames: Frames, rates: Rates, *, shifts: bool = False) -> FrameFacts:
        trained = (OBJECT, PROBE) if rates.probe else (OBJECT,)
        gradients = {name: torch.zeros_like(self.fields[name]) for name in trained}
        facts = []
        for piece in self._pieces(frames):
            result = self._forward(piece)
            facts.append(self._sums(piece, result))
            by_patches = self._add_gradients(gradients, piece, result)
            if shifts:
                facts[-1] |= self._shifts(piece, result, by_patches)
        brightness = torch.linalg.vector_norm(torch.view_as_real(self.fields[PROBE])) / self.problem.N
        self._adam(OBJECT, gradients[OBJECT], rates.object, self.cover)
        if rates.probe:
            self._adam(PROBE, gradients[PROBE], rates.probe, brightness)
        return self._facts(frames, facts)

    @torch.no_grad()
    def measure(self, frames: Frames, *, deviance: bool = True) -> FrameFacts:
        facts = []
        for piece in self._pieces(frames):
            result = self._forward(piece)
            facts.append(self._sums(piece, result) | (self._deviances(piece, result) if deviance else {}))
        return self._facts(frames, facts)

    @torch.no_grad()
    def gradients(self, frames: Frames) -> Weights:
        gradients = {name: torch.zeros_like(field) for name, field in self.fields.items()}
        by_positions = []
        for piece in self._pieces(frames):
            result = self._forward(piece)
            by_patches = self._add_gradients(gradients, piece, result)
            along = slopes(result.window, piece.fraction)
            by_positions.append(torch.stack([_dot(slope, by_patches) for slope in along], dim=1))
        arrays = {name: self._to_array(name, torch.view_as_real(gradient)) for name, gradient in gradients.items()}
        return {**arrays, "positions": torch.cat(by_positions).cpu().numpy()}

    def set_cover(self, cover: NDArray[np.floating]) -> None:
        check_cover(cover, self.problem.canvas.shape)
        self.cover = self._constant(np.repeat(cover[..., None], 2, axis=-1))

    @torch.no_grad()
    def rescale(self, counts: float) -> None:
        factor = float(np.sqrt(counts)) / torch.linalg.vector_norm(torch.view_as_real(self.fields[PROBE]))
        self.fields[PROBE].mul_(factor)
        self.fields[OBJECT].div_(factor)

    def denoise(self, weight: float, iterations: int = 30) -> None:
        self.apply("tv", weight=weight, iterations=iterations)

    @torch.no_grad()
    def apply(self, name: str, **settings: Any) -> None:
        self.fields[OBJECT].copy_(registered_step(PROXIMAL_STEPS, name)(self.fields[OBJECT], **settings))

    # -- physics ---------------------------------------------------------------------------------------------------

    def _pieces(self, frames: Frames) -> Iterator[Piece]:
        """The frames in pieces that stay in a processor's cache, or in larger ones on another device."""
        frames.check(self.problem)
        floor = np.floor(frames.corners_px)
        fraction = np.ascontiguousarray((frames.corners_px - floor).T)[..., None, None, None]
        alike = bool((frames.intensity == 1).all())
        batch = Piece(
            torch.from_numpy(floor.astype(np.int64)).to(self.device),
            self._constant(fraction),
            torch.from_numpy(np.ascontiguousarray(frames.diffraction_amplitude)).to(self.device, self.dtype),
            None if alike else self._constant(frames.intensity[:, None, None]),
            torch.from_numpy(np.ascontiguousarray(frames.held_out, np.int64)).to(self.device),
        )
        pixels = CACHED_PIXELS if self.device.type == "cpu" else DEVICE_PIXELS
        size = max(1, pixels // self.problem.probe.size)
        return (batch[start : start + size] for start in range(0, len(frames), size))

    def _forward(self, piece: Piece) -> Pass:
        window = windows(self.fields[OBJECT], piece.whole, self.problem.N)
        patches = cut(window, piece.fraction)
        far_field = torch.fft.fft2(patches[:, None] * self.fields[PROBE], norm="ortho")
        squares = _over_modes(torch.view_as_real(far_field).square())
        intensity = squares[..., 0] + squares[..., 1]
        return Pass(window, patches, far_field, intensity if piece.intensity is None else intensity * piece.intensity)

    def _add_gradients(self, gradients: dict[str, Tensor], piece: Piece, result: Pass) -> Tensor:
        """Add the piece's to the gradients by object and, where it is there, probe. The far fields are used up.

        Returned are the gradients by its patches, (B, N, N, 2).
        """
        residual = torch.fft.ifft2(result.far_field.mul_(self._excess(piece, result)[:, None]), norm="ortho")
        count, _, N, _ = residual.shape
        bordered = residual.new_zeros(count, N + 2, N + 2)
        by_patches = bordered[:, 1:-1, 1:-1]
        for mode, probe in zip(residual.unbind(1), self.fields[PROBE].conj_physical(), strict=True):
            by_patches.addcmul_(mode, probe)
        place(gradients[OBJECT], bordered, piece.whole, piece.fraction)
        if PROBE in gradients:
            gradients[PROBE] += residual.mul_(result.patches.conj_physical()[:, None]).sum(dim=0)
        return torch.view_as_real(by_patches)

    def _excess(self, piece: Piece, result: Pass) -> Tensor:
        """-s · e (B, N, N): how much too large the far field is, of the field itself; 0 where a pixel is not used."""
        weight = self.used.index_select(0, piece.pattern).neg_()
        if piece.intensity is not None:
            weight.mul_(piece.intensity)
        per_count = 1 / self.problem.counts_per_intensity
        if self.problem.loss == "poisson":
            ratio = piece.amplitude.square().div_(result.intensity + POISSON_FLOOR * per_count)
            return ratio.clamp_max_(1 + POISSON_LIMIT).sub_(1).mul_(weight).div_(2)
        ratio = piece.amplitude / torch.sqrt(result.intensity + AMPLITUDE_FLOOR * per_count)
        return ratio.sub_(1).mul_(weight)

    def _shifts(self, piece: Piece, result: Pass, by_patches: Tensor) -> dict[str, Tensor]:
        """The move of each position that explains its residual best, Gauss-Newton, a little damped."""
        light = torch.view_as_real(self.fields[PROBE]).square().sum(dim=(0, 3))[..., None]
        x, y = slopes(result.window, piece.fraction)
        bx, by = -_dot(x, by_patches), -_dot(y, by_patches)
        if piece.intensity is not None:  # a step of the exit wave, whose weight in the loss this is
            bx, by = bx / piece.intensity[:, 0, 0], by / piece.intensity[:, 0, 0]
        lit_x, lit_y = light * x, light * y
        xx, yy, xy = _dot(lit_x, x), _dot(lit_y, y), _dot(lit_x, y)
        damping = SHIFT_DAMPING * (xx + yy) / 2 + torch.finfo(torch.float32).tiny
        xx, yy = xx + damping, yy + damping
        determinant = xx * yy - xy.square()
        return {"shift_x": (yy * bx - xy * by) / determinant, "shift_y": (xx * by - xy * bx) / determinant}

    # -- inside ----------------------------------------------------------------------------------------------------

    def _sums(self, piece: Piece, result: Pass) -> dict[str, Tensor]:
        used = self.used.index_select(0, piece.pattern)
        error, measured = torch.sqrt(result.intensity).sub_(piece.amplitude).square_(), piece.amplitude.square()
        return {
            "error": _dot(error, used),
            "power": _dot(measured, used),
            "intensity": _dot(result.intensity, used),
            "held_error": self._held(piece, error),
            "held_power": self._held(piece, measured),
        }

    def _deviances(self, piece: Piece, result: Pass) -> dict[str, Tensor]:
        """Poisson deviances in counts (specs/physics.md, Losses: 2h)."""
        counts = self.problem.counts_per_intensity
        predicted, measured = (counts * result.intensity).clamp_min(INTENSITY_FLOOR), counts * piece.amplitude.square()
        ratio = torch.where(measured > 0, measured, predicted) / predicted
        deviance = 2 * (predicted - measured + measured * torch.log(ratio))
        return {
            "deviance": _dot(deviance, self.used.index_select(0, piece.pattern)),
            "held_deviance": self._held(piece, deviance),
            "held_deviance_squares": self._held(piece, deviance.square()),
        }

    def _held(self, piece: Piece, x: Tensor) -> Tensor:
        """Sum of x (B, N, N) over the held-out pixels of each frame."""
        pixels = x.flatten(1).gather(1, self.held.index_select(0, piece.pattern))
        return _dot(pixels, self.counted.index_select(0, piece.pattern))

    def _facts(self, frames: Frames, pieces: list[dict[str, Tensor]]) -> FrameFacts:
        """The facts of a batch from the sums of its pieces, which come from the device together."""
        table = torch.cat([torch.stack(list(piece.values())) for piece in pieces], dim=1).cpu().numpy()
        return frame_facts(self.problem, frames, dict(zip(pieces[0], table, strict=True)))

    def _adam(self, name: str, gradient: Tensor, rate: float, factor: Tensor) -> None:
        """Kingma & Ba, Adam, ICLR 2015, Algorithm 1, on real and imaginary parts; the step is multiplied by factor.

        Block by block, so that each of the passes finds its numbers in a processor's cache. The gradient is used up.
        """
        if not rate:
            return
        self.steps[name] += 1
        correction1 = 1 - SOLVER_BETA1 ** self.steps[name]
        correction2 = float(np.sqrt(1 - SOLVER_BETA2 ** self.steps[name]))
        arrays = [torch.view_as_real(x) for x in (self.fields[name], gradient)]
        arrays += [self.first[name], self.second[name], factor.expand_as(arrays[0])]
        rows = max(1, BLOCK * len(gradient) // arrays[0].numel())
        for field, g, first, second, share in zip(*(array.split(rows) for array in arrays), strict=True):
            first.lerp_(g, 1 - SOLVER_BETA1)
            second.lerp_(g.square_(), 1 - SOLVER_BETA2)
            change = torch.sqrt(second, out=g).add_(ADAM_EPSILON * correction2)
            torch.div(first, change, out=change)
            field.addcmul_(change, share, value=-rate * correction2 / correction1)


def _over_modes(x: Tensor) -> Tensor:
    """The sum over the modes, axis 1; without work where there is one."""
    return x[:, 0] if x.shape[1] == 1 else x.sum(dim=1)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    """Sum of x · y over all numbers of each frame."""
    return torch.linalg.vecdot(x.flatten(1), y.flatten(1))
