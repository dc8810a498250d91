"""What a solver computes, as graphs: forward model, gradients, facts, the step of Adam (specs/solving.md).

On a processor a graph is compiled (XLA): what lies between two Fourier transforms becomes one pass over the numbers.
Compiling takes a second or two, so graphs are shared by all solvers of one loss, and a batch is filled up to a size
that is compiled already.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ptycho_core.engine.problem import SolverLoss
from ptycho_core.engine.shared_rows import SharedRows
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
from ptycho_core.vocabulary import OBJECT, PROBE
from ptycho_core_tensorflow.cuts import cut, place, slopes, window_index, windows


class Trained(NamedTuple):
    """A field and the moments of its gradient, complex; the second moment's parts are those of the parts' squares."""

    field: tf.Tensor
    first: tf.Tensor
    second: tf.Tensor


class Fields(NamedTuple):
    """What stays as it is during a step.

    canvas: complex (H, W). probe: complex (K, N, N), times the checkerboard. good: (N, N) and used: (P, N, N), 1 or 0.
    counts: (), for each unit of intensity. floor: (), of the amplitude loss, in counts.
    """

    canvas: tf.Tensor
    probe: tf.Tensor
    good: tf.Tensor
    used: tf.Tensor
    counts: tf.Tensor
    floor: tf.Tensor


class Piece(NamedTuple):
    """A few frames, or a batch of pieces with an axis in front.

    whole: int64 (B, 2), [x, y]. fraction: (B, 2). amplitude: (B, N, N). intensity: (B,). pattern: int64 (B,).
    """

    whole: tf.Tensor
    fraction: tf.Tensor
    amplitude: tf.Tensor
    intensity: tf.Tensor
    pattern: tf.Tensor


class Pass(NamedTuple):
    """Index, windows (B, N + 1, N + 1), patches (B, N, N), far fields (B, K, N, N), I and used pixels (B, N, N)."""

    index: tf.Tensor
    window: tf.Tensor
    patches: tf.Tensor
    far_field: tf.Tensor
    intensity: tf.Tensor
    used: tf.Tensor


SUMS = ("error", "power", "intensity", "held_error", "held_power")
DEVIANCES = ("deviance", "held_deviance", "held_deviance_squares")
SHIFTS = ("shift_x", "shift_y")
"""Names of the sums over the pixels of each frame, in the order of the tables' columns."""


@functools.lru_cache(maxsize=32)
def graph(function: Callable[..., Any], compiled: bool, *settings: object) -> Any:
    """A function of this module with its first arguments, as a graph; the same one for the same arguments."""
    return tf.function(functools.partial(function, *settings), autograph=False, jit_compile=compiled)


def descend(
    loss: SolverLoss,
    names: tuple[str, ...],
    shifts: bool,
    state: dict[str, Trained],
    numbers: tf.Tensor,
    cover: tf.Tensor,
    good: tf.Tensor,
    used: tf.Tensor,
    counts: tf.Tensor,
    floor: tf.Tensor,
    batch: Piece,
) -> tuple[dict[str, Trained], tf.Tensor]:
    """The state after a step of Adam on what is named; table (pieces, columns, B) of SUMS and SHIFTS before it.

    numbers: (names, 2), of each the rate over 1 - β₁ᵗ, and √(1 - β₂ᵗ).
    """
    fields = Fields(state[OBJECT].field, state[PROBE].field, good, used, counts, floor)
    gradients, table = descent(loss, names, shifts, fields, batch)
    return stepped(names, state, gradients, numbers, cover), table


def descend_alone(
    loss: SolverLoss, names: tuple[str, ...], shifts: bool, shared: SharedRows, fields: Fields, batch: Piece
) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
    """The gradients of the frames of this process; what is summed of them over all; table.

    That is a vector of real and imaginary parts: those by the rows that are shared, then those by the probe.
    """
    gradients, table = descent(loss, names, shifts, fields, batch)
    gradients = {name: gradients[name] for name in names}
    parts = gradients | ({OBJECT: shared_of(shared, gradients[OBJECT])} if OBJECT in names else {})
    return gradients, tf.concat([tf.reshape(to_pairs(parts[name]), [-1]) for name in names], 0), table


def take_step(
    names: tuple[str, ...],
    shared: SharedRows,
    state: dict[str, Trained],
    numbers: tf.Tensor,
    cover: tf.Tensor,
    gradients: dict[str, tf.Tensor],
    message: tf.Tensor,
) -> dict[str, Trained]:
    """The state after a step along the gradients of `descend_alone`, with the sum of its messages in their place."""
    shapes = message_shapes(names, shared, state)
    parts = tf.split(message, [2 * math.prod(shape) for shape in shapes.values()])
    summed = {
        name: to_complex(tf.reshape(part, [*shape, 2]))
        for part, (name, shape) in zip(parts, shapes.items(), strict=True)
    }
    if OBJECT in names:
        summed[OBJECT] = with_shared(shared, gradients[OBJECT], summed[OBJECT])
    return stepped(names, state, summed, numbers, cover)


def message_shapes(names: tuple[str, ...], shared: SharedRows, state: dict[str, Trained]) -> dict[str, tuple[int, ...]]:
    """Of the complex parts of a message, by name."""
    shapes = {name: tuple(state[name].field.shape) for name in names}
    return shapes | ({OBJECT: shared.message_shape(shapes[OBJECT])} if OBJECT in names else {})


def shared_of(shared: SharedRows, field: tf.Tensor) -> tf.Tensor:
    """The shared rows of a canvas, 0 where others hold them."""

    def zeros(count: int) -> tf.Tensor:
        return tf.zeros([count if axis == shared.axis else side for axis, side in enumerate(field.shape)], field.dtype)

    parts, filled = [], 0
    for (own, _), (start, stop, there) in zip(shared.places, shared.held, strict=True):
        parts += [zeros(there - filled), field[own]]
        filled = there + stop - start
    return tf.concat([*parts, zeros(shared.count - filled)], shared.axis)


def with_shared(shared: SharedRows, field: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """The canvas with the shared rows in their place."""
    before, parts, done = (slice(None),) * shared.axis, [], 0
    for (_, there), (start, stop, _) in zip(shared.places, shared.held, strict=True):
        parts += [field[(*before, slice(done, start))], rows[there]]
        done = stop
    return tf.concat([*parts, field[(*before, slice(done, None))]], shared.axis)


def descent(
    loss: SolverLoss, names: tuple[str, ...], shifts: bool, fields: Fields, batch: Piece
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Gradients by name; table (pieces, columns, B) of SUMS and SHIFTS."""

    def work(piece: Piece, by_canvas: tf.Tensor, by_probe: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        result = forward(fields, piece)
        columns = sums(fields, piece, result)
        with_probe = PROBE in names
        by_canvas, by_probe, by_patches = add_gradients(loss, with_probe, fields, piece, result, by_canvas, by_probe)
        return by_canvas, by_probe, columns + (find_shifts(fields, piece, result, by_patches) if shifts else [])

    by_canvas, by_probe, table = over_pieces(work, len(SUMS) + len(SHIFTS) * shifts, fields, batch)
    return {OBJECT: by_canvas, PROBE: by_probe}, table


def stepped(
    names: tuple[str, ...],
    state: dict[str, Trained],
    gradients: dict[str, tf.Tensor],
    numbers: tf.Tensor,
    cover: tf.Tensor,
) -> dict[str, Trained]:
    """The state after a step of Adam on what is named."""
    probe = state[PROBE].field
    brightness = tf.sqrt(tf.reduce_sum(square(probe))) / probe.shape[-1]
    factors = {OBJECT: cover, PROBE: brightness}
    for i, name in enumerate(names):
        rate, correction = numbers[i, 0] * factors[name], numbers[i, 1]
        state = {**state, name: adam_step(state[name], gradients[name], rate, correction)}
    return state


def differentiate(loss: SolverLoss, fields: Fields, batch: Piece) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Gradients by name; table (pieces, 2, B) of those by the positions."""

    def work(piece: Piece, by_canvas: tf.Tensor, by_probe: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        result = forward(fields, piece)
        by_canvas, by_probe, by_patches = add_gradients(loss, True, fields, piece, result, by_canvas, by_probe)
        return by_canvas, by_probe, [dot(slope, by_patches) for slope in slopes(result.window, piece.fraction)]

    by_canvas, by_probe, table = over_pieces(work, 2, fields, batch)
    return {OBJECT: by_canvas, PROBE: by_probe}, table


def measure(deviance: bool, fields: Fields, batch: Piece) -> tf.Tensor:
    """Table (pieces, columns, B) of SUMS and, where asked for, DEVIANCES."""

    def work(piece: Piece, by_canvas: tf.Tensor, by_probe: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        result = forward(fields, piece)
        columns = sums(fields, piece, result) + (deviances(fields, piece, result) if deviance else [])
        return by_canvas, by_probe, columns

    return over_pieces(work, len(SUMS) + len(DEVIANCES) * deviance, fields, batch)[2]


def over_pieces(
    work: Callable[..., tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]], columns: int, fields: Fields, batch: Piece
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """One piece after the other, each in a processor's cache: gradients add up, columns become a table."""
    pieces, count, _, _ = batch.amplitude.shape
    dtype = batch.amplitude.dtype

    def one(
        k: tf.Tensor, by_canvas: tf.Tensor, by_probe: tf.Tensor, table: tf.TensorArray
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.TensorArray]:
        by_canvas, by_probe, found = work(Piece(*(x[k] for x in batch)), by_canvas, by_probe)
        return k + 1, by_canvas, by_probe, table.write(k, tf.stack(found))

    flat = tf.zeros([fields.canvas.shape.num_elements()], fields.canvas.dtype)
    table = tf.TensorArray(dtype, size=pieces, element_shape=[columns, count])
    start = (tf.constant(0), flat, tf.zeros_like(fields.probe), table)
    _, by_canvas, by_probe, table = tf.while_loop(lambda k, *_: k < pieces, one, start, maximum_iterations=pieces)
    return tf.reshape(by_canvas, fields.canvas.shape), by_probe, table.stack()


def forward(fields: Fields, piece: Piece) -> Pass:
    N = fields.probe.shape[-1]
    index = window_index(piece.whole, fields.canvas.shape[1], N)
    window = windows(fields.canvas, index)
    patches = cut(window, piece.fraction)
    far_field = tf.signal.fft2d(fields.probe * patches[:, None]) / N
    intensity = tf.reduce_sum(square(far_field), axis=1) * piece.intensity[:, None, None]
    return Pass(index, window, patches, far_field, intensity, tf.gather(fields.used, piece.pattern))


def add_gradients(
    loss: SolverLoss,
    with_probe: bool,
    fields: Fields,
    piece: Piece,
    result: Pass,
    by_canvas: tf.Tensor,
    by_probe: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The gradients with the piece's added, and those by its patches (B, N, N)."""
    N = fields.probe.shape[-1]
    residual = tf.signal.ifft2d(as_complex(excess(loss, fields, piece, result))[:, None] * result.far_field) * N
    by_patches = tf.reduce_sum(tf.math.conj(fields.probe) * residual, axis=1)
    by_canvas = place(by_canvas, by_patches, result.index, piece.fraction)
    if with_probe:
        by_probe += tf.reduce_sum(tf.math.conj(result.patches)[:, None] * residual, axis=0)
    return by_canvas, by_probe, by_patches


def excess(loss: SolverLoss, fields: Fields, piece: Piece, result: Pass) -> tf.Tensor:
    """-s · e (B, N, N): how much too large the far field is, of the field itself; 0 where a pixel is not used."""
    per_count = 1 / fields.counts
    if loss == "poisson":
        floored = result.intensity + POISSON_FLOOR * per_count
        believed = tf.minimum(tf.square(piece.amplitude), POISSON_FACTOR * floored + POISSON_CHANCE * per_count)
        lack = (believed / floored - 1) / 2
    else:
        lack = piece.amplitude / tf.sqrt(result.intensity + fields.floor * per_count) - 1
    return -lack * result.used * piece.intensity[:, None, None]


def find_shifts(fields: Fields, piece: Piece, result: Pass, by_patches: tf.Tensor) -> list[tf.Tensor]:
    """The move of each position that explains its residual best, Gauss-Newton, a little damped."""
    light = tf.sqrt(tf.reduce_sum(square(fields.probe), axis=0))
    along = slopes(result.window, piece.fraction)
    bx, by = (-dot(slope, by_patches) / piece.intensity for slope in along)  # a step of the exit wave, not of the loss
    x, y = (as_complex(light) * slope for slope in along)
    xx, yy, xy = dot(x, x), dot(y, y), dot(x, y)
    damping = SHIFT_DAMPING * (xx + yy) / 2 + np.finfo(np.float32).tiny
    xx, yy = xx + damping, yy + damping
    determinant = xx * yy - tf.square(xy)
    return [(yy * bx - xy * by) / determinant, (xx * by - xy * bx) / determinant]


def sums(fields: Fields, piece: Piece, result: Pass) -> list[tf.Tensor]:
    """SUMS."""
    error, measured = tf.square(tf.sqrt(result.intensity) - piece.amplitude), tf.square(piece.amplitude)
    held = fields.good - result.used
    of_used = [total(x * result.used) for x in (error, measured, result.intensity)]
    return of_used + [total(x * held) for x in (error, measured)]


def deviances(fields: Fields, piece: Piece, result: Pass) -> list[tf.Tensor]:
    """DEVIANCES: Poisson, in counts (specs/physics.md, Losses: 2h)."""
    counts = fields.counts
    predicted = tf.maximum(counts * result.intensity, INTENSITY_FLOOR)
    measured = counts * tf.square(piece.amplitude)
    ratio = tf.where(measured > 0, measured, predicted) / predicted
    deviance = 2 * (predicted - measured + measured * tf.math.log(ratio))
    held = fields.good - result.used
    return [total(deviance * result.used), total(deviance * held), total(tf.square(deviance) * held)]


def adam_step(state: Trained, gradient: tf.Tensor, rate: tf.Tensor, correction: tf.Tensor) -> Trained:
    """Kingma & Ba, Adam, ICLR 2015, Algorithm 1, on real and imaginary parts; numbers as in `descend`."""
    first, second = state.first, state.second
    squares = tf.complex(tf.square(tf.math.real(gradient)), tf.square(tf.math.imag(gradient)))
    first, second = (
        SOLVER_BETA1 * first + (1 - SOLVER_BETA1) * gradient,
        SOLVER_BETA2 * second + (1 - SOLVER_BETA2) * squares,
    )
    change = (
        rate * part(first) / (tf.sqrt(part(second)) / correction + ADAM_EPSILON)
        for part in (tf.math.real, tf.math.imag)
    )
    return Trained(state.field - tf.complex(*change), first, second)


def to_complex(pairs: tf.Tensor) -> tf.Tensor:
    """Real and imaginary parts (..., 2) → complex (...)."""
    return tf.complex(pairs[..., 0], pairs[..., 1])


def to_pairs(field: tf.Tensor) -> tf.Tensor:
    return tf.stack([tf.math.real(field), tf.math.imag(field)], axis=-1)


def as_complex(x: tf.Tensor) -> tf.Tensor:
    return tf.complex(x, tf.zeros_like(x))


def square(field: tf.Tensor) -> tf.Tensor:
    """|z|²."""
    return tf.square(tf.math.real(field)) + tf.square(tf.math.imag(field))


def total(x: tf.Tensor) -> tf.Tensor:
    """Sum over the pixels of each frame.

    Rows as a product, because a compiled sum adds number after number; those of the rows in float64 for that reason.
    """
    rows = tf.linalg.matvec(x, tf.ones([x.shape[-1]], x.dtype))
    return tf.cast(tf.reduce_sum(tf.cast(rows, tf.float64), axis=1), x.dtype)


def dot(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Re Σ conj(x) · y over the pixels of each frame."""
    return total(tf.math.real(x) * tf.math.real(y) + tf.math.imag(x) * tf.math.imag(y))
