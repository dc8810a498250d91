"""The solver in float64, one formula of specs/solving.md after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.engine.checks import check_cover, check_optimizer_state, check_solver_weights, registered_step
from ptycho_core.engine.problem import FrameFacts, Frames, Problem, Rates
from ptycho_core.engine.processes import ALONE, Processes
from ptycho_core.engine.shared_rows import SharedRows
from ptycho_core.engine.steps import frame_facts
from ptycho_core.physics.constants import (
    ADAM_EPSILON,
    INTENSITY_FLOOR,
    POISSON_CHANCE,
    POISSON_FACTOR,
    POISSON_FLOOR,
    SHIFT_DAMPING,
    SOLVER_BETA1,
    SOLVER_BETA2,
)
from ptycho_core.vocabulary import OBJECT, PROBE, Field, Weights

Array = NDArray[np.float64]
SUMS = ("error", "power", "intensity", "held_error", "held_power")
STEP, FIRST, SECOND = "step", "first_moment", "second_moment"


@attrs.frozen(eq=False)
class Pass:
    """What a forward pass leaves: patches (B, N, N), exit waves' far fields (B, K, N, N), predicted I (B, N, N)."""

    patches: Field
    far_field: Field
    intensity: Array


class ReferenceSolver:
    """Solver protocol of specs/solving.md."""

    processes: Processes = ALONE
    """Those that take steps together, each on its share of the frames."""
    shared: SharedRows | None = None
    """The rows of the canvas that others of them hold, too; all of them where nothing is said."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.good = ~problem.bad_pixels
        self.fields: dict[str, Field] = {
            OBJECT: problem.canvas.astype(np.complex128),
            PROBE: problem.probe.astype(np.complex128),
        }
        self.cover: Array = np.ones(problem.canvas.shape)
        self.steps: dict[str, int] = {}
        self.moments: dict[str, Array] = {}
        self._reset_optimizer()

    # -- state -----------------------------------------------------------------------------------------------------

    def weights(self) -> Weights:
        return {name: to_pairs(field) for name, field in self.fields.items()}

    def load_weights(self, weights: Weights) -> None:
        check_solver_weights(weights, self.weights())
        self.fields = {name: from_pairs(weights[name]) for name in self.fields}
        self._reset_optimizer()

    def optimizer_state(self) -> Weights:
        steps = {f"{STEP}/{name}": np.asarray(float(count)) for name, count in self.steps.items()}
        return {**steps, **{name: array.copy() for name, array in self.moments.items()}}

    def load_optimizer_state(self, state: Weights) -> None:
        check_optimizer_state(state, self.optimizer_state())
        self.steps = {name: int(state[f"{STEP}/{name}"]) for name in self.steps}
        self.moments = {name: np.array(state[name], np.float64) for name in self.moments}

    def _reset_optimizer(self) -> None:
        self.steps = dict.fromkeys(self.fields, 0)
        self.moments = {
            f"{moment}/{name}": np.zeros((*field.shape, 2))
            for moment in (FIRST, SECOND)
            for name, field in self.fields.items()
        }

    # -- work ------------------------------------------------------------------------------------------------------

    def step(self, frames: Frames, rates: Rates, *, shifts: bool = False) -> FrameFacts:
        frames.check(self.problem, shared=self.processes.size > 1)
        if len(frames):
            facts = self._facts(frames, self.forward(frames), shifts=shifts)
            gradients = self.gradients(frames)
        else:
            columns = SUMS + ("shift_x", "shift_y") * shifts
            facts = frame_facts(self.problem, frames, columns, np.zeros((len(columns), 0)))
            gradients = {name: np.zeros_like(to_pairs(field)) for name, field in self.fields.items()}
        if self.processes.size > 1:
            rows = self.shared or SharedRows.all_of(self.problem.canvas.shape)
            gradients[OBJECT] = rows.summed(gradients[OBJECT], self.processes.sum)
            gradients[PROBE] = self.processes.sum(gradients[PROBE])
        probe = self.fields[PROBE]
        brightness = np.sqrt(np.mean(np.sum(np.abs(probe) ** 2, axis=0)))
        self._adam(OBJECT, gradients[OBJECT], rates.object * self.cover[..., None])
        self._adam(PROBE, gradients[PROBE], rates.probe * brightness)
        return facts

    def measure(self, frames: Frames, *, deviance: bool = True) -> FrameFacts:
        frames.check(self.problem)
        return self._facts(frames, self.forward(frames), deviance=deviance)

    def gradients(self, frames: Frames, *, object_only: bool = False) -> dict[str, Array]:
        frames.check(self.problem)
        result = self.forward(frames)
        c = self.residual(frames, result)
        weighted = frames.intensity.astype(np.float64)[:, None, None, None] * c
        by_patches = -np.sum(np.conj(self.fields[PROBE]) * weighted, axis=1)
        by_probe = -np.sum(np.conj(result.patches)[:, None] * weighted, axis=0)
        slopes = self.slopes(frames)
        by_positions = np.stack([np.sum((np.conj(s) * by_patches).real, axis=(1, 2)) for s in slopes], axis=1)
        by_canvas = self.place(by_patches, frames.corners_px)
        others = {} if object_only else {PROBE: to_pairs(by_probe), "positions": by_positions}
        return {OBJECT: to_pairs(by_canvas), **others}

    def set_cover(self, cover: NDArray[np.floating]) -> None:
        check_cover(cover, self.cover.shape)
        self.cover = np.array(cover, np.float64)

    def rescale(self, counts: float) -> None:
        factor = np.sqrt(counts / np.sum(np.abs(self.fields[PROBE]) ** 2))
        self.fields = {OBJECT: self.fields[OBJECT] / factor, PROBE: self.fields[PROBE] * factor}

    def denoise(self, weight: float, iterations: int = 30) -> None:
        self.apply("tv", weight=weight, iterations=iterations)

    def apply(self, name: str, **settings: Any) -> None:
        self.fields[OBJECT] = registered_step(PROXIMAL_STEPS, name)(self.fields[OBJECT], **settings)

    # -- physics ---------------------------------------------------------------------------------------------------

    def forward(self, frames: Frames) -> Pass:
        patches = self.cut(frames.corners_px)
        far_field = self.far_field(self.fields[PROBE] * patches[:, None])
        intensity = np.sum(np.abs(far_field) ** 2, axis=1) * frames.intensity.astype(np.float64)[:, None, None]
        return Pass(patches, far_field, intensity)

    def cut(self, corners_px: Array) -> Field:
        """Patches (B, N, N) of the canvas, bilinear."""
        (x0, x1), (y0, y1) = shares(corners_px)
        upper_left, upper_right, lower_left, lower_right = self.windows(corners_px)
        return y0 * (x0 * upper_left + x1 * upper_right) + y1 * (x0 * lower_left + x1 * lower_right)

    def slopes(self, frames: Frames) -> tuple[Field, Field]:
        """Derivatives of the patches by the position's x and y, from the cut itself."""
        (x0, x1), (y0, y1) = shares(frames.corners_px)
        upper_left, upper_right, lower_left, lower_right = self.windows(frames.corners_px)
        along_x = y0 * (upper_right - upper_left) + y1 * (lower_right - lower_left)
        along_y = x0 * (lower_left - upper_left) + x1 * (lower_right - upper_right)
        return along_x, along_y

    def place(self, patches: Field, corners_px: Array) -> Field:
        """The adjoint of `cut`: patches (B, N, N) added up on a canvas of zeros."""
        N = self.problem.N
        canvas: Field = np.zeros(self.problem.canvas.shape, np.complex128)
        (x0, x1), (y0, y1) = shares(corners_px)
        for b, (x, y) in enumerate(np.floor(corners_px).astype(np.int64).tolist()):
            canvas[y : y + N, x : x + N] += (y0 * x0)[b] * patches[b]
            canvas[y : y + N, x + 1 : x + 1 + N] += (y0 * x1)[b] * patches[b]
            canvas[y + 1 : y + 1 + N, x : x + N] += (y1 * x0)[b] * patches[b]
            canvas[y + 1 : y + 1 + N, x + 1 : x + 1 + N] += (y1 * x1)[b] * patches[b]
        return canvas

    def windows(self, corners_px: Array) -> list[Field]:
        """The four whole-pixel patches (B, N, N) that surround each patch: upper and lower, left and right."""
        N, whole = self.problem.N, np.floor(corners_px).astype(np.int64).tolist()
        canvas = self.fields[OBJECT]
        return [
            np.stack([canvas[y + down : y + down + N, x + right : x + right + N] for x, y in whole])
            for down in (0, 1)
            for right in (0, 1)
        ]

    def far_field(self, exit_wave: Field) -> Field:
        return np.fft.fftshift(np.fft.fft2(exit_wave, norm="ortho"), axes=(-2, -1))

    def far_field_adjoint(self, wave: Field) -> Field:
        return np.fft.ifft2(np.fft.ifftshift(wave, axes=(-2, -1)), norm="ortho")

    def used(self, frames: Frames) -> NDArray[np.bool_]:
        """(B, N, N): neither bad nor held out."""
        return self.good & ~self.problem.held_out[frames.held_out]

    def residual(self, frames: Frames, result: Pass) -> Field:
        """c (B, K, N, N): what the exit waves lack, back from the detector."""
        measured = frames.diffraction_amplitude.astype(np.float64)
        per_count = 1 / self.problem.counts_per_intensity
        if self.problem.loss == "poisson":
            floored = result.intensity + POISSON_FLOOR * per_count
            believed = np.minimum(measured**2, POISSON_FACTOR * floored + POISSON_CHANCE * per_count)
            excess = (believed / floored - 1) / 2
        else:
            excess = measured / np.sqrt(result.intensity + self.problem.amplitude_floor * per_count) - 1
        excess = np.where(self.used(frames), excess, 0)
        return self.far_field_adjoint(excess[:, None] * result.far_field)

    def shifts(self, frames: Frames, result: Pass) -> Array:
        """(B, 2): the move of each position that explains its residual best, Gauss-Newton, a little damped."""
        back = np.sum(np.conj(self.fields[PROBE]) * self.residual(frames, result), axis=1)
        light = np.sum(np.abs(self.fields[PROBE]) ** 2, axis=0)
        slopes = self.slopes(frames)
        b = np.stack([np.sum((np.conj(s) * back).real, axis=(1, 2)) for s in slopes], axis=1)
        matrix = np.stack([[np.sum(light * (np.conj(s) * t).real, axis=(1, 2)) for s in slopes] for t in slopes])
        xx, yy, xy = matrix[0, 0], matrix[1, 1], matrix[0, 1]
        damping = SHIFT_DAMPING * (xx + yy) / 2 + np.finfo(np.float32).tiny
        xx, yy = xx + damping, yy + damping
        determinant = xx * yy - xy**2
        step: Array = (
            np.stack([yy * b[:, 0] - xy * b[:, 1], xx * b[:, 1] - xy * b[:, 0]], axis=1) / determinant[:, None]
        )
        return step

    # -- inside ----------------------------------------------------------------------------------------------------

    def _facts(self, frames: Frames, result: Pass, *, deviance: bool = False, shifts: bool = False) -> FrameFacts:
        measured, predicted = frames.diffraction_amplitude.astype(np.float64), result.intensity
        used, held = self.used(frames), self.good & self.problem.held_out[frames.held_out]
        error = (np.sqrt(predicted) - measured) ** 2
        unknown = np.full(len(frames), np.nan)
        counted = self._deviance(predicted, measured**2) if deviance else np.full(error.shape, np.nan)

        def total(x: Array, where: NDArray[np.bool_]) -> Array:
            summed: Array = np.sum(x, axis=(1, 2), where=where)
            return summed

        return FrameFacts(
            error=total(error, used),
            power=total(measured**2, used),
            intensity=total(predicted, used),
            held_error=total(error, held),
            held_power=total(measured**2, held),
            deviance=total(counted, used) if deviance else unknown,
            held_deviance=total(counted, held) if deviance else unknown,
            held_deviance_squares=total(counted**2, held) if deviance else unknown,
            pixels=used.sum(axis=(1, 2), dtype=np.float64),
            held_pixels=held.sum(axis=(1, 2), dtype=np.float64),
            shift_px=self.shifts(frames, result) if shifts else np.full((len(frames), 2), np.nan),
        )

    def _deviance(self, predicted: Array, measured: Array) -> Array:
        """Poisson deviance of every pixel, in counts (specs/physics.md, Losses: 2h)."""
        counts = self.problem.counts_per_intensity
        predicted, measured = np.maximum(counts * predicted, INTENSITY_FLOOR), counts * measured
        ratio = np.where(measured > 0, measured, predicted) / predicted
        deviance: Array = 2 * (predicted - measured + measured * np.log(ratio))
        return deviance

    def _adam(self, name: str, gradient: Array, rate: Array | float) -> None:
        """Kingma & Ba, Adam, ICLR 2015, Algorithm 1, on real and imaginary parts."""
        if not np.any(rate):
            return
        self.steps[name] += 1
        first, second = self.moments[f"{FIRST}/{name}"], self.moments[f"{SECOND}/{name}"]
        first[...] = SOLVER_BETA1 * first + (1 - SOLVER_BETA1) * gradient
        second[...] = SOLVER_BETA2 * second + (1 - SOLVER_BETA2) * gradient**2
        mean, square = first / (1 - SOLVER_BETA1 ** self.steps[name]), second / (1 - SOLVER_BETA2 ** self.steps[name])
        self.fields[name] = self.fields[name] - from_pairs(rate * mean / (np.sqrt(square) + ADAM_EPSILON))


def shares(corners_px: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """((left, right), (upper, lower)) shares of a patch pixel in the canvas pixels around it, (B, 1, 1) each."""
    fraction = corners_px - np.floor(corners_px)
    x, y = fraction[:, 0, None, None], fraction[:, 1, None, None]
    return (1 - x, x), (1 - y, y)


def to_pairs(field: Field) -> Array:
    """Complex (...) → real and imaginary part (..., 2)."""
    return np.stack([field.real, field.imag], axis=-1)


def from_pairs(pairs: NDArray[np.floating]) -> Field:
    return pairs[..., 0].astype(np.float64) + 1j * pairs[..., 1]


def total_variation(canvas: Field, *, weight: float, iterations: int) -> Field:
    """argmin over u of ‖u - canvas‖²/2 + weight · TV(u), by Chambolle's dual iteration (J. Math. Imaging Vis. 20, 89).

    TV(u) is the sum over pixels of the length of (∂x Re, ∂y Re, ∂x Im, ∂y Im), forward differences, 0 at the far edge.
    """
    dual = np.zeros((2, *canvas.shape), np.complex128)
    smooth = canvas
    for _ in range(iterations if weight > 0 else 0):
        slope = forward_differences(smooth)
        length = np.sqrt(np.sum(np.abs(slope) ** 2, axis=0))
        dual = (dual - slope / 4) / (1 + length / (4 * weight))
        smooth = canvas - divergence(dual)
    return smooth


def forward_differences(field: Field) -> Field:
    """(2, H, W): along y and x; 0 in the last row and column."""
    along_y, along_x = np.zeros_like(field), np.zeros_like(field)
    along_y[:-1] = field[1:] - field[:-1]
    along_x[:, :-1] = field[:, 1:] - field[:, :-1]
    return np.stack([along_y, along_x])


def divergence(dual: Field) -> Field:
    """Minus the adjoint of `forward_differences`, of what is 0 in the last row and column as those are."""
    along_y, along_x = dual
    total: Field = along_y + along_x
    total[1:] -= along_y[:-1]
    total[:, 1:] -= along_x[:, :-1]
    return total


PROXIMAL_STEPS: dict[str, Callable[..., Field]] = {"tv": total_variation}
"""canvas (H, W) and settings → canvas (H, W), by name; one more is one more entry."""
