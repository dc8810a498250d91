"""A solver on its device: steps on the object canvas and the probe, and its state in and out (specs/solving.md)."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import attrs
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

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
from ptycho_core_tensorflow.cuts import cut, place, slopes, whole_and_fraction, window_index, windows
from ptycho_core_tensorflow.proximal import PROXIMAL_STEPS

STEP, FIRST, SECOND = "step", "first_moment", "second_moment"
CACHED_PIXELS, DEVICE_PIXELS = 2**17, 2**24
"""Pixels of the far fields that are worked on at a time, on a processor and on another device."""


class Piece(NamedTuple):
    """A few frames: corners (B, 2) float64, amplitude (B, N, N), intensity (B,), pattern of held-out pixels (B,)."""

    corners_px: tf.Tensor
    amplitude: tf.Tensor
    intensity: tf.Tensor
    pattern: tf.Tensor


@attrs.frozen(eq=False)
class Pass:
    """What a forward pass leaves: windows (B, N + 1, N + 1, 2), patches, far fields (B, K, N, N), predicted I."""

    index: tf.Tensor
    fraction: tf.Tensor
    window: tf.Tensor
    patches: tf.Tensor
    far_field: tf.Tensor
    intensity: tf.Tensor


class TensorFlowSolver:
    """Solver protocol of specs/solving.md.

    Fields are kept as pairs of real numbers. The probe is kept times a checkerboard of 1 and -1: since N is even, that
    puts the centre of the detector where the Fourier transform has it, and no frame is ever shifted.
    """

    def __init__(self, problem: Problem, *, device: str, precision: str) -> None:
        self.problem = problem
        self.device = device
        self.dtype = tf.float64 if precision == "64-true" else tf.float32
        pixel = np.arange(problem.N)
        with tf.device(device):
            self.checkerboard = self._constant(1 - 2 * ((pixel[:, None] + pixel) % 2))[..., None]
            self.used = self._constant(~problem.bad_pixels & ~problem.held_out)
            self.held = self._constant(~problem.bad_pixels & problem.held_out)
            self.cover = tf.Variable(tf.ones((*problem.canvas.shape, 1), self.dtype))
            start = {OBJECT: problem.canvas, PROBE: problem.probe}
            pairs = {name: np.stack([field.real, field.imag], axis=-1) for name, field in start.items()}
            self.fields = {name: tf.Variable(self._to_tensor(name, field)) for name, field in pairs.items()}
            self.summed, self.first, self.second = (
                {name: tf.Variable(tf.zeros_like(field)) for name, field in self.fields.items()} for _ in range(3)
            )
        self.steps = dict.fromkeys(self.fields, 0)
        self._graphs: dict[tuple[object, ...], Any] = {}

    # -- state -----------------------------------------------------------------------------------------------------

    def weights(self) -> Weights:
        return {name: self._to_array(name, field) for name, field in self.fields.items()}

    def load_weights(self, weights: Weights) -> None:
        check_solver_weights(weights, self.weights())
        for name, field in self.fields.items():
            field.assign(self._to_tensor(name, weights[name]))
        self._reset_optimizer()

    def optimizer_state(self) -> Weights:
        steps = {f"{STEP}/{name}": np.asarray(float(count)) for name, count in self.steps.items()}
        first = {f"{FIRST}/{name}": self._to_array(name, moment) for name, moment in self.first.items()}
        second = {f"{SECOND}/{name}": np.array(moment.numpy()) for name, moment in self.second.items()}
        return {**steps, **first, **second}

    def load_optimizer_state(self, state: Weights) -> None:
        check_optimizer_state(state, self.optimizer_state())
        for name in self.fields:
            self.steps[name] = int(state[f"{STEP}/{name}"])
            self.first[name].assign(self._to_tensor(name, state[f"{FIRST}/{name}"]))
            self.second[name].assign(self._constant(state[f"{SECOND}/{name}"]))

    def _reset_optimizer(self) -> None:
        self.steps = dict.fromkeys(self.fields, 0)
        for moment in (*self.first.values(), *self.second.values()):
            moment.assign(tf.zeros_like(moment))

    def _to_array(self, name: str, pairs: tf.Tensor) -> NDArray[np.floating]:
        """Real and imaginary parts (..., 2), without the checkerboard of the probe's."""
        return np.array((pairs * self.checkerboard if name == PROBE else pairs).numpy())

    def _to_tensor(self, name: str, pairs: NDArray[np.floating]) -> tf.Tensor:
        """The inverse of `_to_array`."""
        tensor = self._constant(pairs)
        return tensor * self.checkerboard if name == PROBE else tensor

    def _constant(self, array: NDArray[np.generic]) -> tf.Tensor:
        with tf.device(self.device):
            return tf.cast(array, self.dtype)

    # -- work ------------------------------------------------------------------------------------------------------

    def step(self, frames: Frames, rates: Rates, *, shifts: bool = False) -> FrameFacts:
        with tf.device(self.device):
            trained = (OBJECT, PROBE) if rates.probe else (OBJECT,)
            self._clear(trained)
            descend = self._graph(self._descend, trained, shifts)
            facts = [descend(piece) for piece in self._pieces(frames)]
            brightness = tf.norm(self.fields[PROBE]) / self.problem.N
            one = self._constant(np.asarray(1.0))
            self._adam(OBJECT, rates.object, one)
            if rates.probe:
                self._adam(PROBE, rates.probe, brightness)
            return self._facts(frames, facts)

    def measure(self, frames: Frames, *, deviance: bool = True) -> FrameFacts:
        with tf.device(self.device):
            measure = self._graph(self._measure, deviance)
            return self._facts(frames, [measure(piece) for piece in self._pieces(frames)])

    def gradients(self, frames: Frames) -> Weights:
        with tf.device(self.device):
            self._clear((OBJECT, PROBE))
            by_positions = [self._by_positions(piece).numpy() for piece in self._pieces(frames)]
            arrays = {name: self._to_array(name, gradient) for name, gradient in self.summed.items()}
            return {**arrays, "positions": np.concatenate(by_positions)}

    def set_cover(self, cover: NDArray[np.floating]) -> None:
        check_cover(cover, self.problem.canvas.shape)
        self.cover.assign(self._constant(cover)[..., None])

    def rescale(self, counts: float) -> None:
        with tf.device(self.device):
            factor = self._constant(np.asarray(np.sqrt(counts))) / tf.norm(self.fields[PROBE])
            self.fields[PROBE].assign(self.fields[PROBE] * factor)
            self.fields[OBJECT].assign(self.fields[OBJECT] / factor)

    def denoise(self, weight: float, iterations: int = 30) -> None:
        self.apply("tv", weight=weight, iterations=iterations)

    def apply(self, name: str, **settings: Any) -> None:
        with tf.device(self.device):
            step = registered_step(PROXIMAL_STEPS, name)
            self.fields[OBJECT].assign(step(self.fields[OBJECT].value(), **settings))

    # -- physics ---------------------------------------------------------------------------------------------------

    def _pieces(self, frames: Frames) -> Iterator[Piece]:
        """The frames in pieces that stay in a processor's cache, or in larger ones on another device."""
        frames.check(self.problem)
        pixels = CACHED_PIXELS if self.device == "/CPU:0" else DEVICE_PIXELS
        size = max(1, pixels // self.problem.probe.size)
        for start in range(0, len(frames), size):
            part = slice(start, start + size)
            yield Piece(
                tf.convert_to_tensor(frames.corners_px[part], tf.float64),
                tf.convert_to_tensor(frames.diffraction_amplitude[part]),
                tf.convert_to_tensor(frames.intensity[part]),
                tf.convert_to_tensor(frames.held_out[part], tf.int64),
            )

    def _graph(self, method: Any, *arguments: object) -> Any:
        """The method as a graph for every number of frames: nothing is traced again from one batch to the next."""
        key = (method.__name__, *arguments)
        if key not in self._graphs:
            N = self.problem.N
            specs = Piece(
                tf.TensorSpec([None, 2], tf.float64),
                tf.TensorSpec([None, N, N], tf.float32),
                tf.TensorSpec([None], tf.float32),
                tf.TensorSpec([None], tf.int64),
            )
            bound = functools.partial(method, *arguments)
            self._graphs[key] = tf.function(bound, input_signature=[specs], autograph=False)
        return self._graphs[key]

    def _descend(self, trained: tuple[str, ...], shifts: bool, piece: Piece) -> dict[str, tf.Tensor]:
        """The facts of a piece; its gradients are added to the sums."""
        piece = self._cast(piece)
        result = self._forward(piece)
        residual = self._residual(piece, result)
        self._add_gradients(trained, piece, result, residual)
        found = {"shift_px": self._shifts(piece, result, residual)} if shifts else {}
        return {**self._sums(piece, result), **found}

    def _measure(self, deviance: bool, piece: Piece) -> dict[str, tf.Tensor]:
        piece = self._cast(piece)
        result = self._forward(piece)
        return {**self._sums(piece, result), **(self._deviances(piece, result) if deviance else {})}

    def _by_positions(self, piece: Piece) -> tf.Tensor:
        """Gradients (B, 2) by the positions; those by object and probe are added to the sums."""
        piece = self._cast(piece)
        result = self._forward(piece)
        by_patches = self._add_gradients((OBJECT, PROBE), piece, result, self._residual(piece, result))
        along = slopes(result.window, result.fraction)
        return tf.stack([tf.reduce_sum(slope * by_patches, axis=(1, 2, 3)) for slope in along], axis=1)

    def _cast(self, piece: Piece) -> Piece:
        amplitude, intensity = tf.cast(piece.amplitude, self.dtype), tf.cast(piece.intensity, self.dtype)
        return Piece(piece.corners_px, amplitude, intensity[:, None, None], piece.pattern)

    def _forward(self, piece: Piece) -> Pass:
        N = self.problem.N
        whole, fraction = whole_and_fraction(piece.corners_px, self.dtype)
        index = window_index(whole, self.problem.canvas.shape[1], N)
        window = windows(self.fields[OBJECT], index)
        patches = to_complex(cut(window, fraction))
        far_field = tf.signal.fft2d(to_complex(self.fields[PROBE]) * patches[:, None]) / N
        intensity = tf.reduce_sum(_square(far_field), axis=1) * piece.intensity
        return Pass(index, fraction, window, patches, far_field, intensity)

    def _residual(self, piece: Piece, result: Pass) -> tf.Tensor:
        """c (B, K, N, N): what the exit waves lack, back from the detector."""
        per_count = 1 / self.problem.counts_per_intensity
        if self.problem.loss == "poisson":
            ratio = tf.square(piece.amplitude) / (result.intensity + POISSON_FLOOR * per_count)
            excess = tf.minimum(ratio - 1, POISSON_LIMIT) / 2
        else:
            excess = piece.amplitude / tf.sqrt(result.intensity + AMPLITUDE_FLOOR * per_count) - 1
        excess = (excess * tf.gather(self.used, piece.pattern))[:, None] * self.problem.N
        return tf.signal.ifft2d(tf.complex(excess, tf.zeros_like(excess)) * result.far_field)

    def _add_gradients(self, trained: tuple[str, ...], piece: Piece, result: Pass, residual: tf.Tensor) -> tf.Tensor:
        """Add those of the piece by object and probe, as far as they are trained; return those by its patches."""
        weight = -piece.intensity[:, None]
        residual = residual * tf.complex(weight, tf.zeros_like(weight))
        by_patches = to_pairs(tf.reduce_sum(tf.math.conj(to_complex(self.fields[PROBE])) * residual, axis=1))
        placed = place(by_patches, result.index, result.fraction, self.problem.canvas.shape)
        self.summed[OBJECT].assign_add(placed)
        if PROBE in trained:
            by_probe = tf.reduce_sum(tf.math.conj(result.patches)[:, None] * residual, axis=0)
            self.summed[PROBE].assign_add(to_pairs(by_probe))
        return by_patches

    def _shifts(self, piece: Piece, result: Pass, residual: tf.Tensor) -> tf.Tensor:
        """(B, 2): the move of each position that explains its residual best, Gauss-Newton, a little damped."""
        back = to_pairs(tf.reduce_sum(tf.math.conj(to_complex(self.fields[PROBE])) * residual, axis=1))
        light = tf.reduce_sum(tf.square(self.fields[PROBE]), axis=(0, 3))[..., None]
        x, y = slopes(result.window, result.fraction)
        bx, by = (tf.reduce_sum(slope * back, axis=(1, 2, 3)) for slope in (x, y))
        xx, yy = (tf.reduce_sum(light * tf.square(slope), axis=(1, 2, 3)) for slope in (x, y))
        xy = tf.reduce_sum(light * x * y, axis=(1, 2, 3))
        damping = SHIFT_DAMPING * (xx + yy) / 2 + np.finfo(np.float32).tiny
        xx, yy = xx + damping, yy + damping
        return tf.stack([yy * bx - xy * by, xx * by - xy * bx], axis=1) / (xx * yy - tf.square(xy))[:, None]

    # -- inside ----------------------------------------------------------------------------------------------------

    def _clear(self, trained: tuple[str, ...]) -> None:
        for name in trained:
            self.summed[name].assign(tf.zeros_like(self.summed[name]))

    def _sums(self, piece: Piece, result: Pass) -> dict[str, tf.Tensor]:
        used, held = tf.gather(self.used, piece.pattern), tf.gather(self.held, piece.pattern)
        predicted = tf.sqrt(result.intensity)
        error, measured = tf.square(predicted - piece.amplitude), tf.square(piece.amplitude)
        bright, seen = _dot(result.intensity, used), _dot(predicted * piece.amplitude, used)
        return {
            "error": _dot(error, used),
            "power": _dot(measured, used),
            "held_error": _dot(error, held),
            "held_power": _dot(measured, held),
            "pixels": tf.reduce_sum(used, axis=(1, 2)),
            "held_pixels": tf.reduce_sum(held, axis=(1, 2)),
            "intensity_ratio": tf.square(tf.where(bright > 0, seen / bright, 1)),
        }

    def _deviances(self, piece: Piece, result: Pass) -> dict[str, tf.Tensor]:
        """Poisson deviances in counts (specs/physics.md, Losses: 2h)."""
        used, held = tf.gather(self.used, piece.pattern), tf.gather(self.held, piece.pattern)
        counts = self.problem.counts_per_intensity
        predicted = tf.maximum(counts * result.intensity, INTENSITY_FLOOR)
        measured = counts * tf.square(piece.amplitude)
        ratio = tf.where(measured > 0, measured, predicted) / predicted
        deviance = 2 * (predicted - measured + measured * tf.math.log(ratio))
        return {
            "deviance": _dot(deviance, used),
            "held_deviance": _dot(deviance, held),
            "held_deviance_squares": _dot(tf.square(deviance), held),
        }

    def _facts(self, frames: Frames, pieces: list[dict[str, tf.Tensor]]) -> FrameFacts:
        """All facts of a batch; NaN for those that were not asked for."""
        known = {name: np.concatenate([piece[name].numpy() for piece in pieces]) for name in pieces[0]}
        unknown = {"shift_px": np.full((len(frames), 2), np.nan)}
        names = [field.name for field in attrs.fields(FrameFacts)]
        missing = {name: unknown.get(name, np.full(len(frames), np.nan)) for name in names}
        return FrameFacts(**{name: np.asarray(known.get(name, missing[name]), np.float64) for name in names})

    def _adam(self, name: str, rate: float, unit: tf.Tensor) -> None:
        if not rate:
            return
        self.steps[name] += 1
        correction1 = 1 - SOLVER_BETA1 ** self.steps[name]
        correction2 = np.sqrt(1 - SOLVER_BETA2 ** self.steps[name])
        numbers = (self._constant(np.asarray(number)) for number in (rate / correction1, correction2))
        key = ("adam", name)
        if key not in self._graphs:
            self._graphs[key] = tf.function(functools.partial(self._adam_step, name), autograph=False)
        self._graphs[key](*numbers, unit)

    def _adam_step(self, name: str, rate: tf.Tensor, correction2: tf.Tensor, unit: tf.Tensor) -> None:
        """Kingma & Ba, Adam, ICLR 2015, Algorithm 1; the rate is over 1 - β₁ᵗ already."""
        g = self.summed[name]
        first = self.first[name].assign(SOLVER_BETA1 * self.first[name] + (1 - SOLVER_BETA1) * g)
        second = self.second[name].assign(SOLVER_BETA2 * self.second[name] + (1 - SOLVER_BETA2) * tf.square(g))
        change = rate * unit * first / (tf.sqrt(second) / correction2 + ADAM_EPSILON)
        self.fields[name].assign_sub(change * self.cover if name == OBJECT else change)


def to_complex(pairs: tf.Tensor) -> tf.Tensor:
    """Real and imaginary parts (..., 2) → complex (...)."""
    return tf.complex(pairs[..., 0], pairs[..., 1])


def to_pairs(field: tf.Tensor) -> tf.Tensor:
    return tf.stack([tf.math.real(field), tf.math.imag(field)], axis=-1)


def _square(field: tf.Tensor) -> tf.Tensor:
    """|z|²."""
    return tf.square(tf.math.real(field)) + tf.square(tf.math.imag(field))


def _dot(x: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Sum of x · weight over the pixels of each frame; both (B, N, N)."""
    return tf.reduce_sum(x * weight, axis=(1, 2))
