"""A solver on its device: steps on the object canvas and the probe, and its state in and out (specs/solving.md)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho_core.engine.checks import check_cover, check_optimizer_state, check_solver_weights, registered_step
from ptycho_core.engine.problem import FrameFacts, Frames, Problem, Rates
from ptycho_core.engine.processes import ALONE, Processes
from ptycho_core.engine.shared_rows import SharedRows
from ptycho_core.engine.steps import frame_facts
from ptycho_core.physics.constants import SOLVER_BETA1, SOLVER_BETA2
from ptycho_core.vocabulary import OBJECT, PROBE, Weights
from ptycho_core_tensorflow.descent import (
    DEVIANCES,
    SHIFTS,
    SUMS,
    Fields,
    Piece,
    Trained,
    descend,
    descend_alone,
    descent,
    differentiate,
    graph,
    measure,
    message_shapes,
    take_step,
    to_complex,
    to_pairs,
)
from ptycho_core_tensorflow.processes import reduced
from ptycho_core_tensorflow.proximal import PROXIMAL_STEPS

STEP, FIRST, SECOND = "step", "first_moment", "second_moment"
CACHED_PIXELS, DEVICE_PIXELS = 2**17, 2**24
"""Pixels of the far fields that are worked on at a time, on a processor and on another device."""


class TensorFlowSolver:
    """Solver protocol of specs/solving.md.

    The probe is kept times a checkerboard of 1 and -1: since N is even, that puts the centre of the detector where the
    Fourier transform has it, and no frame is ever shifted.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        device: str,
        precision: str,
        processes: Processes = ALONE,
        shared: SharedRows | None = None,
    ) -> None:
        """processes: those that take steps together, each on its share of the frames.

        shared: the rows of the canvas that others of them hold, too; None: all of them.
        """
        self.problem, self.processes = problem, processes
        self.shared = shared or SharedRows.all_of(problem.canvas.shape)
        self.device = device
        self.compiled = device == "/CPU:0"
        self.dtype = tf.float64 if precision == "64-true" else tf.float32
        self.rooms: list[int] = []
        self.graphs: dict[tuple[object, ...], Any] = {}
        pixel = np.arange(problem.N)
        nothing = np.zeros((1, problem.N, problem.N))  # a last pattern, of frames that fill up a batch
        self.checkerboard = self._constant(1 - 2 * ((pixel[:, None] + pixel) % 2))[..., None]
        self.good = self._constant(~problem.bad_pixels)
        self.used = self._constant(np.concatenate([~problem.bad_pixels & ~problem.held_out, nothing]))
        self.counts = self._constant(np.asarray(problem.counts_per_intensity))
        self.floor = self._constant(np.asarray(problem.amplitude_floor))
        self.cover = self._constant(np.ones(problem.canvas.shape))
        start = {OBJECT: problem.canvas, PROBE: problem.probe}
        self._load({name: np.stack([field.real, field.imag], axis=-1) for name, field in start.items()})

    # -- state -----------------------------------------------------------------------------------------------------

    def weights(self) -> Weights:
        return {name: self._to_array(name, state.field) for name, state in self.state.items()}

    def load_weights(self, weights: Weights) -> None:
        check_solver_weights(weights, self.weights())
        self._load(weights)

    def optimizer_state(self) -> Weights:
        steps = {f"{STEP}/{name}": np.asarray(float(count)) for name, count in self.steps.items()}
        first = {f"{FIRST}/{name}": self._to_array(name, state.first) for name, state in self.state.items()}
        second = {f"{SECOND}/{name}": np.array(to_pairs(state.second).numpy()) for name, state in self.state.items()}
        return {**steps, **first, **second}

    def load_optimizer_state(self, state: Weights) -> None:
        check_optimizer_state(state, self.optimizer_state())
        for name, kept in self.state.items():
            self.steps[name] = int(state[f"{STEP}/{name}"])
            first = self._to_tensor(name, state[f"{FIRST}/{name}"])
            second = to_complex(self._constant(state[f"{SECOND}/{name}"]))
            self.state[name] = Trained(kept.field, first, second)

    def _load(self, weights: Weights) -> None:
        with tf.device(self.device):
            fields = {name: self._to_tensor(name, weights[name]) for name in (OBJECT, PROBE)}
            zeros = {name: tf.zeros_like(field) for name, field in fields.items()}
            self.state = {name: Trained(field, zeros[name], zeros[name]) for name, field in fields.items()}
        self.steps = dict.fromkeys(self.state, 0)

    def _to_array(self, name: str, field: tf.Tensor) -> NDArray[np.floating]:
        """Real and imaginary parts (..., 2), without the checkerboard of the probe's."""
        pairs = to_pairs(field)
        return np.array((pairs * self.checkerboard if name == PROBE else pairs).numpy())

    def _to_tensor(self, name: str, pairs: NDArray[np.floating]) -> tf.Tensor:
        """The inverse of `_to_array`."""
        tensor = self._constant(pairs)
        return to_complex(tensor * self.checkerboard if name == PROBE else tensor)

    def _constant(self, array: NDArray[np.generic]) -> tf.Tensor:
        with tf.device(self.device):
            return tf.cast(array, self.dtype)

    # -- work ------------------------------------------------------------------------------------------------------

    def step(self, frames: Frames, rates: Rates, *, shifts: bool = False) -> FrameFacts:
        trained = {name: rate for name, rate in ((OBJECT, rates.object), (PROBE, rates.probe)) if rate}
        if self.processes.size > 1:
            return self._shared_step(frames, trained, shifts)
        with tf.device(self.device):
            pieces = self._pieces(frames)
            numbers = np.array([self._count(name, rate) for name, rate in trained.items()]).reshape(-1, 2)
            constants = self._constant(numbers), self.cover, self.good, self.used, self.counts, self.floor
            settings = self.problem.loss, tuple(trained), shifts
            self.state, table = self._run(descend, settings, self.state, *constants, pieces)
            return self._facts(frames, table, SUMS + SHIFTS * shifts)

    def measure(self, frames: Frames, *, deviance: bool = True) -> FrameFacts:
        with tf.device(self.device):
            table = self._run(measure, (deviance,), self._fields(), self._pieces(frames))
            return self._facts(frames, table, SUMS + DEVIANCES * deviance)

    def gradients(self, frames: Frames, *, object_only: bool = False) -> Weights:
        loss, fields, pieces = self.problem.loss, self._fields(), self._pieces(frames)
        with tf.device(self.device):
            if object_only:
                found, _ = self._run(descent, (loss, (OBJECT,), False), fields, pieces)
                return {OBJECT: self._to_array(OBJECT, found[OBJECT])}
            found, table = self._run(differentiate, (loss,), fields, pieces)
            arrays = {name: self._to_array(name, gradient) for name, gradient in found.items()}
            return {**arrays, "positions": _by_frame(table)[: len(frames)]}

    def set_cover(self, cover: NDArray[np.floating]) -> None:
        check_cover(cover, self.problem.canvas.shape)
        self.cover = self._constant(cover)

    def rescale(self, counts: float) -> None:
        with tf.device(self.device):
            probe, canvas = self.state[PROBE].field, self.state[OBJECT].field
            factor = tf.cast(np.sqrt(counts) / tf.norm(to_pairs(probe)), probe.dtype)
            self._replace(OBJECT, canvas / factor)
            self._replace(PROBE, probe * factor)

    def denoise(self, weight: float, iterations: int = 30) -> None:
        self.apply("tv", weight=weight, iterations=iterations)

    def apply(self, name: str, **settings: Any) -> None:
        with tf.device(self.device):
            self._replace(OBJECT, registered_step(PROXIMAL_STEPS, name)(self.state[OBJECT].field, **settings))

    # -- inside ----------------------------------------------------------------------------------------------------

    def _shared_step(self, frames: Frames, trained: dict[str, float], shifts: bool) -> FrameFacts:
        """A step whose gradients are summed over the processes before it is taken."""
        names = tuple(trained)
        with tf.device(self.device):
            numbers = self._constant(np.array([self._count(*item) for item in trained.items()]).reshape(-1, 2))
            if len(frames):
                settings = self.problem.loss, names, shifts, self.shared
                gradients, message, table = self._run(descend_alone, settings, self._fields(), self._pieces(frames))
                facts = self._facts(frames, table, SUMS + SHIFTS * shifts)
            else:
                gradients = {name: tf.zeros_like(self.state[name].field) for name in names}
                shapes = message_shapes(names, self.shared, self.state).values()
                message = tf.zeros([2 * sum(map(math.prod, shapes))], self.dtype)
                columns = SUMS + SHIFTS * shifts
                facts = frame_facts(self.problem, frames, columns, np.zeros((len(columns), 0)))
            if message.shape[0]:
                message = reduced(self.processes, message)
            taken = graph(take_step, self.compiled, names, self.shared)
            self.state = taken(self.state, numbers, self.cover, gradients, message)
            return facts

    def _run(self, function: Callable[..., Any], settings: tuple[object, ...], *arguments: Any) -> Any:
        """A function of `descent`. Its graphs are kept by what differs from call to call, the shape of the pieces.

        TensorFlow's own search among them takes a tenth of the time of a step.
        """
        key = (function, settings, tuple(arguments[-1].amplitude.shape))
        if key not in self.graphs:
            made = graph(function, self.compiled, *settings)
            self.graphs[key] = made.get_concrete_function(*arguments)
        return self.graphs[key](*arguments)

    def _fields(self) -> Fields:
        return Fields(self.state[OBJECT].field, self.state[PROBE].field, self.good, self.used, self.counts, self.floor)

    def _replace(self, name: str, field: tf.Tensor) -> None:
        self.state[name] = self.state[name]._replace(field=field)

    def _count(self, name: str, rate: float) -> tuple[float, float]:
        """Count a step; the rate over 1 - β₁ᵗ, and √(1 - β₂ᵗ)."""
        self.steps[name] += 1
        t = self.steps[name]
        return rate / (1 - SOLVER_BETA1**t), float(np.sqrt(1 - SOLVER_BETA2**t))

    def _pieces(self, frames: Frames) -> Piece:
        """The frames as pieces that stay in a processor's cache, or larger ones on another device, (pieces, B, …).

        Filled up, with frames that have no pixel, to a number that graphs have been made for, if one is near.
        """
        frames.check(self.problem)
        pixels = CACHED_PIXELS if self.compiled else DEVICE_PIXELS
        largest, count = max(1, pixels // self.problem.probe.size), len(frames)
        room = next((room for room in self.rooms if count <= room <= 4 * count), None)
        if room is None:
            pieces = -(-count // largest)
            room = pieces * -(-count // pieces)
            self.rooms = sorted([*self.rooms, room])
        pieces = -(-room // largest)

        def pieced(array: NDArray[Any], dtype: tf.DType, filling: float = 0) -> tf.Tensor:
            array = array.astype(dtype.as_numpy_dtype, copy=False)
            if room > count:
                more = np.full((room - count, *array.shape[1:]), filling, array.dtype)
                array = np.concatenate([array, more])
            return tf.constant(array.reshape(pieces, room // pieces, *array.shape[1:]))

        whole = np.floor(frames.corners_px)
        return Piece(
            pieced(whole, tf.int64),
            pieced(frames.corners_px - whole, self.dtype),
            pieced(frames.diffraction_amplitude, self.dtype),
            pieced(frames.intensity, self.dtype, 1),
            pieced(frames.held_out, tf.int64, len(self.problem.held_out)),
        )

    def _facts(self, frames: Frames, table: tf.Tensor, names: tuple[str, ...]) -> FrameFacts:
        """The facts of a batch from its table, which comes from the device at once."""
        columns = _by_frame(table)[: len(frames)].T
        return frame_facts(self.problem, frames, names, columns)


def _by_frame(table: tf.Tensor) -> NDArray[np.floating]:
    """(pieces, columns, B) → (frames, columns)."""
    array = table.numpy()
    return np.moveaxis(array, 1, 2).reshape(-1, array.shape[1])
