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
from ptycho_core_torch.cuts import cut, place, slopes, whole_and_fraction, windows
from ptycho_core_torch.proximal import PROXIMAL_STEPS

STEP, FIRST, SECOND = "step", "first_moment", "second_moment"
CACHED_PIXELS, DEVICE_PIXELS = 2**17, 2**24
"""Pixels of the far fields that are worked on at a time, on a processor and on another device."""


@attrs.frozen(eq=False)
class Piece:
    """A few frames on the device: whole corners (B, 2), fractions (2, B, 1, 1), the rest (B, N, N) or (B, 1, 1)."""

    whole: Tensor
    fraction: Tensor
    amplitude: Tensor
    intensity: Tensor
    used: Tensor
    held: Tensor


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
        self.held = self._constant(~problem.bad_pixels & problem.held_out)
        self.cover: Tensor | None = None
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
        gradients = {OBJECT: torch.zeros_like(self.fields[OBJECT])}
        if rates.probe:
            gradients[PROBE] = torch.zeros_like(self.fields[PROBE])
        facts = []
        for piece in self._pieces(frames):
            result = self._forward(piece)
            facts.append(self._sums(piece, result))
            residual = self._residual(piece, result)
            if shifts:
                facts[-1] |= {"shift_px": self._shifts(piece, result, residual)}
            self._add_gradients(gradients, piece, result, residual)
        brightness = float(torch.linalg.vector_norm(self.fields[PROBE])) / self.problem.N
        self._adam(OBJECT, gradients[OBJECT], rates.object, self.cover)
        if rates.probe:
            self._adam(PROBE, gradients[PROBE], rates.probe * brightness)
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
            by_patches = self._add_gradients(gradients, piece, result, self._residual(piece, result))
            along = slopes(result.window, piece.fraction)
            by_positions.append(torch.stack([torch.sum((s.conj() * by_patches).real, dim=(1, 2)) for s in along], 1))
        arrays = {name: self._to_array(name, torch.view_as_real(gradient)) for name, gradient in gradients.items()}
        return {**arrays, "positions": torch.cat(by_positions).cpu().numpy()}

    def set_cover(self, cover: NDArray[np.floating]) -> None:
        check_cover(cover, self.problem.canvas.shape)
        self.cover = self._constant(cover)[..., None]

    @torch.no_grad()
    def rescale(self, counts: float) -> None:
        factor = float(np.sqrt(counts)) / float(torch.linalg.vector_norm(self.fields[PROBE]))
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
        pixels = CACHED_PIXELS if self.device.type == "cpu" else DEVICE_PIXELS
        size = max(1, pixels // self.problem.probe.size)
        for start in range(0, len(frames), size):
            part = slice(start, start + size)
            corners = torch.from_numpy(np.asarray(frames.corners_px[part], np.float64))
            whole, fraction = whole_and_fraction(corners, self.dtype)
            pattern = torch.from_numpy(np.asarray(frames.held_out[part], np.int64)).to(self.device)
            amplitude = torch.from_numpy(np.ascontiguousarray(frames.diffraction_amplitude[part]))
            yield Piece(
                whole.to(self.device),
                fraction.to(self.device),
                amplitude.to(self.device, self.dtype),
                self._constant(frames.intensity[part])[:, None, None],
                self.used.index_select(0, pattern),
                self.held.index_select(0, pattern),
            )

    def _forward(self, piece: Piece) -> Pass:
        window = windows(self.fields[OBJECT], piece.whole, self.problem.N)
        patches = cut(window, piece.fraction)
        far_field = torch.fft.fft2(self.fields[PROBE] * patches[:, None], norm="ortho")
        intensity = (far_field.real.square() + far_field.imag.square()).sum(dim=1) * piece.intensity
        return Pass(window, patches, far_field, intensity)

    def _residual(self, piece: Piece, result: Pass) -> Tensor:
        """c (B, K, N, N): what the exit waves lack, back from the detector."""
        per_count = 1 / self.problem.counts_per_intensity
        if self.problem.loss == "poisson":
            ratio = piece.amplitude.square() / (result.intensity + POISSON_FLOOR * per_count)
            excess = (ratio - 1).clamp_max(POISSON_LIMIT) / 2
        else:
            excess = piece.amplitude / torch.sqrt(result.intensity + AMPLITUDE_FLOOR * per_count) - 1
        return torch.fft.ifft2((excess * piece.used)[:, None] * result.far_field, norm="ortho")

    def _add_gradients(self, gradients: dict[str, Tensor], piece: Piece, result: Pass, residual: Tensor) -> Tensor:
        """Add the piece's to the gradients by object and, where it is there, probe; return those by its patches."""
        residual = residual * -piece.intensity[:, None]
        by_patches = (self.fields[PROBE].conj() * residual).sum(dim=1)
        place(gradients[OBJECT], by_patches, piece.whole, piece.fraction)
        if PROBE in gradients:
            gradients[PROBE] += (result.patches.conj()[:, None] * residual).sum(dim=0)
        return by_patches

    def _shifts(self, piece: Piece, result: Pass, residual: Tensor) -> Tensor:
        """(B, 2): the move of each position that explains its residual best, Gauss-Newton, a little damped."""
        probe = self.fields[PROBE]
        back = (probe.conj() * residual).sum(dim=1)
        light = (probe.real.square() + probe.imag.square()).sum(dim=0)
        x, y = slopes(result.window, piece.fraction)
        bx, by = (torch.sum((slope.conj() * back).real, dim=(1, 2)) for slope in (x, y))
        xx, yy = (torch.sum(light * (slope.conj() * slope).real, dim=(1, 2)) for slope in (x, y))
        xy = torch.sum(light * (x.conj() * y).real, dim=(1, 2))
        damping = SHIFT_DAMPING * (xx + yy) / 2 + torch.finfo(torch.float32).tiny
        xx, yy = xx + damping, yy + damping
        return torch.stack([yy * bx - xy * by, xx * by - xy * bx], dim=1) / (xx * yy - xy.square())[:, None]

    # -- inside ----------------------------------------------------------------------------------------------------

    def _sums(self, piece: Piece, result: Pass) -> dict[str, Tensor]:
        predicted = torch.sqrt(result.intensity)
        error, measured = (predicted - piece.amplitude).square(), piece.amplitude.square()
        bright, seen = _dot(result.intensity, piece.used), _dot(predicted * piece.amplitude, piece.used)
        return {
            "error": _dot(error, piece.used),
            "power": _dot(measured, piece.used),
            "held_error": _dot(error, piece.held),
            "held_power": _dot(measured, piece.held),
            "pixels": piece.used.sum(dim=(1, 2)),
            "held_pixels": piece.held.sum(dim=(1, 2)),
            "intensity_ratio": torch.where(bright > 0, seen / bright, 1).square(),
        }

    def _deviances(self, piece: Piece, result: Pass) -> dict[str, Tensor]:
        """Poisson deviances in counts (specs/physics.md, Losses: 2h)."""
        counts = self.problem.counts_per_intensity
        predicted, measured = (counts * result.intensity).clamp_min(INTENSITY_FLOOR), counts * piece.amplitude.square()
        ratio = torch.where(measured > 0, measured, predicted) / predicted
        deviance = 2 * (predicted - measured + measured * torch.log(ratio))
        return {
            "deviance": _dot(deviance, piece.used),
            "held_deviance": _dot(deviance, piece.held),
            "held_deviance_squares": _dot(deviance.square(), piece.held),
        }

    def _facts(self, frames: Frames, pieces: list[dict[str, Tensor]]) -> FrameFacts:
        """All facts of a batch in one way back from the device; NaN for those that were not asked for."""
        names = [name for name in pieces[0] if name != "shift_px"]
        columns = [torch.stack([piece[name] for name in names], dim=1) for piece in pieces]
        if "shift_px" in pieces[0]:
            columns = [torch.cat([c, piece["shift_px"]], dim=1) for c, piece in zip(columns, pieces, strict=True)]
        table = torch.cat(columns).cpu().numpy().astype(np.float64)
        known: dict[str, NDArray[np.float64]] = {name: table[:, i] for i, name in enumerate(names)}
        known["shift_px"] = table[:, len(names) :] if "shift_px" in pieces[0] else np.full((len(frames), 2), np.nan)
        unknown = np.full(len(frames), np.nan)
        return FrameFacts(**{field.name: known.get(field.name, unknown) for field in attrs.fields(FrameFacts)})

    def _adam(self, name: str, gradient: Tensor, rate: float, cover: Tensor | None = None) -> None:
        """Kingma & Ba, Adam, ICLR 2015, Algorithm 1, on real and imaginary parts."""
        if not rate:
            return
        self.steps[name] += 1
        correction1 = 1 - SOLVER_BETA1 ** self.steps[name]
        correction2 = float(np.sqrt(1 - SOLVER_BETA2 ** self.steps[name]))
        g = torch.view_as_real(gradient)
        self.first[name].lerp_(g, 1 - SOLVER_BETA1)
        self.second[name].mul_(SOLVER_BETA2).addcmul_(g, g, value=1 - SOLVER_BETA2)
        change = self.first[name] / (torch.sqrt(self.second[name]).div_(correction2).add_(ADAM_EPSILON))
        if cover is not None:
            change.mul_(cover)
        torch.view_as_real(self.fields[name]).sub_(change, alpha=rate / correction1)


def _dot(x: Tensor, weight: Tensor) -> Tensor:
    """Sum of x · weight over the pixels of each frame; both (B, N, N)."""
    return torch.linalg.vecdot(x.flatten(1), weight.flatten(1))
