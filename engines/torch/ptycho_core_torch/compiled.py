"""Steps on a processor, compiled with Numba: what lies between two Fourier transforms is one pass over a frame.

A step does what `descent.descend` and `descent.adam_step` do, in a third of the time. Compiling takes some seconds,
once: the code is kept on the disk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptycho_core.engine.problem import Frames
from ptycho_core.physics.constants import (
    ADAM_EPSILON,
    POISSON_CHANCE,
    POISSON_FACTOR,
    POISSON_FLOOR,
    SOLVER_BETA1,
    SOLVER_BETA2,
)
from ptycho_core.vocabulary import OBJECT, PROBE
from ptycho_core_torch.descent import SHIFTS, SUMS, Fields, Rule, Trained, gauss_newton
from ptycho_core_torch.processes import Message

PIECE_PIXELS = 2**17
"""Pixels of the far fields that are worked on at a time: few enough to stay in a processor's cache."""

BLOCK = 1024
"""Pixels of a frame that are summed in the frames' own precision, and of which a loop makes one pass."""

Field = NDArray[np.complexfloating]
Numbers = NDArray[np.floating]
Index = NDArray[np.int64]
Table = NDArray[np.float64]


class CompiledSteps:
    """The steps of a solver on its fields and moments, which stay where they are."""

    def __init__(
        self, rule: Rule, fields: Fields, state: Mapping[str, Trained], message: Message | None = None
    ) -> None:
        """message: in which the gradients of several processes are summed."""
        self.poisson = rule.loss == "poisson"
        self.floor = (POISSON_FLOOR if self.poisson else rule.amplitude_floor) / rule.counts_per_intensity
        self.chance = POISSON_CHANCE / rule.counts_per_intensity
        self.canvas, self.probe, *self.masks = (x.numpy() for x in fields)
        self.flat = {name: [x.view(-1).numpy() for x in trained] for name, trained in state.items()}
        self.gradients = {OBJECT: np.empty_like(self.canvas), PROBE: np.empty_like(self.probe)}
        self.message, self.zero = message, False
        self.number = self.masks[0].dtype
        self.same = np.ones(1, self.number)
        modes, N, _ = self.probe.shape
        size = max(1, PIECE_PIXELS // self.probe.size)
        self.patches = np.empty((size, N, N), self.probe.dtype)
        # PyTorch's own memory, which begins where a cache line does: transforms of others may differ in the last bit
        self.exit_waves = torch.empty((size, modes, N, N), dtype=fields.probe.dtype)

    def step(self, frames: Frames, numbers: Mapping[str, tuple[float, float]], cover: Tensor, shifts: bool) -> Table:
        """A step of Adam on what is named, with the numbers of `descent.adam_step`; the table of `descent.descend`."""
        table = self.descend(frames, PROBE in numbers, shifts)
        if self.message is not None:
            by_canvas, by_probe = (torch.from_numpy(self.gradients[name]) for name in (OBJECT, PROBE))
            self.message.sum(by_canvas, by_probe if PROBE in numbers else None)
        brightness = math.sqrt(np.vdot(self.probe, self.probe).real) / self.probe.shape[-1]
        for name, (rate, correction) in numbers.items():
            factor, unit = (self.same, brightness) if name == PROBE else (cover.numpy().reshape(-1), 1.0)
            adam(*self.flat[name], self.gradients[name].reshape(-1), factor, unit * rate * correction, correction)
        self.zero = OBJECT in numbers  # `adam` leaves 0 behind, which spares the next step a pass
        return table

    def by_object(self, frames: Frames) -> Tensor:
        """The gradient by the object, until the next one is asked for."""
        self.descend(frames, False, False)
        return torch.from_numpy(self.gradients[OBJECT])

    def descend(self, frames: Frames, with_probe: bool, shifts: bool) -> Table:
        """Sum the gradients, that by the probe only where asked for; table (columns, frames) of SUMS and SHIFTS."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # others, which short transforms leave waiting, get in the way of what lies between
        try:
            return self._descend(frames, with_probe, shifts)
        finally:
            torch.set_num_threads(threads)

    def _descend(self, frames: Frames, with_probe: bool, shifts: bool) -> Table:
        patches, exit_waves = self.patches, self.exit_waves
        size, N, _ = patches.shape
        amplitude = np.ascontiguousarray(frames.diffraction_amplitude, self.number)
        corners = np.ascontiguousarray(frames.corners_px, np.float64)
        intensity, pattern = np.asarray(frames.intensity, self.number), np.asarray(frames.held_out, np.int64)
        if not self.zero:  # after a step that was interrupted, too
            for gradient in self.gradients.values():
                gradient.fill(0)
        self.zero = False
        by_canvas, by_probe = self.gradients[OBJECT], self.gradients[PROBE][: None if with_probe else 0]
        by_patches = np.empty((size if shifts else 0, N, N), self.probe.dtype)
        table = np.empty((len(SUMS) + len(SHIFTS) * shifts, len(frames)))
        for start in range(0, len(frames), size):
            part = slice(start, start + size)
            waves = exit_waves[: len(frames) - start]
            cut_and_expose(self.canvas, corners[part], self.probe, patches, waves.numpy())
            far_field = torch.fft.fft2(waves, norm="ortho")
            measured = amplitude[part], intensity[part], pattern[part]
            compare(self.poisson, self.floor, self.chance, far_field.numpy(), *measured, *self.masks, table[:, part])
            residual = torch.fft.ifft2(far_field, norm="ortho").numpy()
            place(residual, self.probe, patches, corners[part], by_canvas, by_probe, by_patches)
            if shifts:
                table[len(SUMS) :, part] = self._shifts(corners[part], intensity[part], by_patches)
        return table

    def _shifts(self, corners: Table, intensity: Numbers, by_patches: Field) -> list[Table]:
        found = np.empty((5, len(corners)))
        light = np.square(np.abs(self.probe)).sum(axis=0).repeat(2, axis=1)
        sum_slopes(self.canvas, corners, light, by_patches, found)
        found[:2] /= intensity  # a step of the exit wave, not of the loss
        return gauss_newton(*found)


def kernel(function: Callable[..., None]) -> Callable[..., None]:
    """Compiled for the types it is called with. Sums may be taken in another order; nothing else is given for speed."""
    options: dict[str, Any] = {"fastmath": {"contract", "reassoc", "nsz"}, "error_model": "numpy", "nogil": True}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # there is no folder that can be written to, to keep the code in
        return numba.njit(**options)(function)


# -- kernels -----------------------------------------------------------------------------------------------------------
#
# What a loop reads is read before it writes, and real and imaginary parts are 2i and 2i + 1: then the compiler works on
# 8 or 16 numbers at a time.


@kernel
def cut_and_expose(canvas: Field, corners: Table, probe: Field, patches: Field, exit_waves: Field) -> None:
    """Patches (B, N, N) of the canvas, bilinear, from the corners (B, 2), [x, y], on; exit waves (B, K, N, N)."""
    N, real = probe.shape[1], canvas.real.dtype
    flat, numbers = canvas.view(real), patches.view(real)
    for b in range(len(corners)):
        left, top = math.floor(corners[b, 0]), math.floor(corners[b, 1])
        x, y = real.type(corners[b, 0] - left), real.type(corners[b, 1] - top)
        for r in range(N):
            before, after = flat[top + r, 2 * left :], flat[top + r + 1, 2 * left :]
            row, patch = numbers[b, r], patches[b, r]
            for i in range(2 * N):
                upper = before[i] + x * (before[i + 2] - before[i])
                lower = after[i] + x * (after[i + 2] - after[i])
                row[i] = upper + y * (lower - upper)
            for k in range(len(probe)):
                light, wave = probe[k, r], exit_waves[b, k, r]
                for i in range(N):
                    wave[i] = patch[i] * light[i]


@kernel
def compare(
    poisson: bool,
    floor: float,
    chance: float,
    far_field: Field,
    amplitude: Numbers,
    intensity: Numbers,
    pattern: Index,
    used: Numbers,
    held: Index,
    counted: Numbers,
    table: Table,
) -> None:
    """Far fields (B, K, N, N) times -s · e; SUMS (5, B) before that."""
    count, modes, N, _ = far_field.shape
    number, pixels = amplitude.dtype.type, N * N
    numbers = far_field.reshape(count, modes, pixels).view(amplitude.dtype)
    amplitudes, masks = amplitude.reshape(count, pixels), used.reshape(len(used), pixels)
    zero, one, half, least = number(0), number(1), number(0.5), number(floor)
    factor, more = number(POISSON_FACTOR), number(chance)
    predicted, excess = np.empty(pixels, amplitude.dtype), np.empty(BLOCK, amplitude.dtype)
    for b in range(count):
        s = intensity[b]
        table[:5, b] = 0
        for start in range(0, pixels, BLOCK):
            stop = min(start + BLOCK, pixels)
            row, measured, good = predicted[start:stop], amplitudes[b, start:stop], masks[pattern[b], start:stop]
            for k in range(modes):
                field, first = numbers[b, k, 2 * start : 2 * stop], k == 0
                for i in range(stop - start):
                    real, imaginary = field[2 * i], field[2 * i + 1]
                    row[i] = (zero if first else row[i]) + s * (real * real + imaginary * imaginary)
            error, power, bright = zero, zero, zero
            for i in range(stop - start):
                distance = math.sqrt(row[i]) - measured[i]
                error += good[i] * distance * distance
                power += good[i] * measured[i] * measured[i]
                bright += good[i] * row[i]
            table[0, b] += error
            table[1, b] += power
            table[2, b] += bright
            if poisson:
                for i in range(stop - start):
                    floored = row[i] + least
                    believed = min(measured[i] * measured[i], factor * floored + more)
                    excess[i] = -s * good[i] * half * (believed / floored - one)
            else:
                for i in range(stop - start):
                    excess[i] = -s * good[i] * (measured[i] / math.sqrt(row[i] + least) - one)
            for k in range(modes):
                field = numbers[b, k, 2 * start : 2 * stop]
                for i in range(stop - start):
                    real, imaginary, share = field[2 * i], field[2 * i + 1], excess[i]
                    field[2 * i] = real * share
                    field[2 * i + 1] = imaginary * share
        chosen, counts, there = held[pattern[b]], counted[pattern[b]], amplitudes[b]
        for j in range(len(chosen)):
            distance = math.sqrt(predicted[chosen[j]]) - there[chosen[j]]
            table[3, b] += counts[j] * distance * distance
            table[4, b] += counts[j] * there[chosen[j]] * there[chosen[j]]


@kernel
def place(
    residual: Field,
    probe: Field,
    patches: Field,
    corners: Table,
    by_canvas: Field,
    by_probe: Field,
    by_patches: Field,
) -> None:
    """Add residuals (B, K, N, N) times the conjugate of the probe to `by_canvas`, by the adjoint of the cut, and times
    that of the patches to `by_probe` (K, N, N), unless it is empty. `by_patches` (B, N, N), unless empty, is set.
    """
    count, modes, N, _ = residual.shape
    real = by_canvas.real.dtype
    flat, bordered = by_canvas.view(real), np.zeros((N + 2, N + 2), residual.dtype)
    numbers, zero = bordered.view(real), residual.dtype.type(0)
    for b in range(count):
        for r in range(N):
            total, patch = bordered[r + 1, 1 : N + 1], patches[b, r]
            for k in range(modes):
                wave, light, first = residual[b, k, r], probe[k, r], k == 0
                for i in range(N):
                    total[i] = (zero if first else total[i]) + wave[i] * np.conj(light[i])
            for k in range(len(by_probe)):
                wave, gradient = residual[b, k, r], by_probe[k, r]
                for i in range(N):
                    gradient[i] += wave[i] * np.conj(patch[i])
            if len(by_patches) > 0:
                by_patches[b, r] = total
        left, top = math.floor(corners[b, 0]), math.floor(corners[b, 1])
        x, y = real.type(corners[b, 0] - left), real.type(corners[b, 1] - top)
        for r in range(N + 1):
            before, after, target = numbers[r], numbers[r + 1], flat[top + r, 2 * left :]
            for i in range(2 * (N + 1)):
                upper = before[i + 2] + x * (before[i] - before[i + 2])
                lower = after[i + 2] + x * (after[i] - after[i + 2])
                target[i] += lower + y * (upper - lower)


@kernel
def sum_slopes(canvas: Field, corners: Table, light: Numbers, by_patches: Field, found: Table) -> None:
    """What Gauss-Newton steps of the positions are made of, (5, B): bx, by, xx, yy, xy of `descent.gauss_newton`.

    light: (N, 2N), Σ|P|² of every pixel twice.
    """
    N, real = len(light), light.dtype
    flat, gradients = canvas.view(real), by_patches.view(real)
    zero = real.type(0)
    for b in range(len(corners)):
        left, top = math.floor(corners[b, 0]), math.floor(corners[b, 1])
        x, y = real.type(corners[b, 0] - left), real.type(corners[b, 1] - top)
        found[:, b] = 0
        for r in range(N):
            upper, lower = flat[top + r, 2 * left :], flat[top + r + 1, 2 * left :]
            gradient, lit = gradients[b, r], light[r]
            bx, by, xx, yy, xy = zero, zero, zero, zero, zero
            for i in range(2 * N):
                before, after = upper[i + 2] - upper[i], lower[i + 2] - lower[i]
                along_x, along_y = before + y * (after - before), lower[i] - upper[i] + x * (after - before)
                bx -= along_x * gradient[i]
                by -= along_y * gradient[i]
                xx += lit[i] * along_x * along_x
                yy += lit[i] * along_y * along_y
                xy += lit[i] * along_x * along_y
            found[0, b] += bx
            found[1, b] += by
            found[2, b] += xx
            found[3, b] += yy
            found[4, b] += xy


@kernel
def adam(
    field: Field, first: Numbers, second: Numbers, gradient: Field, factor: Numbers, rate: float, correction: float
) -> None:
    """Kingma & Ba, Adam, ICLR 2015, Algorithm 1, on flat arrays; a factor for two numbers each, or one for all.

    The gradient is 0 afterwards.
    """
    number, fields, gradients = factor.dtype.type, field.view(factor.dtype), gradient.view(factor.dtype)
    new1, new2 = number(1 - SOLVER_BETA1), number(1 - SOLVER_BETA2)
    step, small, each, zero = number(rate), number(ADAM_EPSILON * correction), len(factor) > 1, number(0)
    for i in range(len(field)):
        real, imaginary = 2 * i, 2 * i + 1
        g, h, share = gradients[real], gradients[imaginary], step * factor[i if each else 0]
        m, n = first[real] + new1 * (g - first[real]), first[imaginary] + new1 * (h - first[imaginary])
        v, w = second[real] + new2 * (g * g - second[real]), second[imaginary] + new2 * (h * h - second[imaginary])
        first[real], first[imaginary], second[real], second[imaginary] = m, n, v, w
        gradients[real], gradients[imaginary] = zero, zero
        a, b = math.sqrt(v) + small, math.sqrt(w) + small
        share /= a * b  # one division for two numbers
        fields[real] -= share * b * m
        fields[imaginary] -= share * a * n


@kernel
def dual_iteration(
    image: Numbers, smooth: Numbers, dual_y: Numbers, dual_x: Numbers, weight: float, iterations: int
) -> None:
    """`proximal.total_variation` of real and imaginary parts (H, 2W); `smooth` is the image before, the duals are 0."""
    height, width = image.shape
    number = image.dtype.type
    step, factor, one = number(0.25), number(0.25 / weight), number(1)
    slope_y, slope_x, share = np.zeros(width, image.dtype), np.zeros(width, image.dtype), np.empty(width, image.dtype)
    for _ in range(iterations):
        for r in range(height):
            row, below, along_y, along_x = smooth[r], smooth[min(r + 1, height - 1)], dual_y[r], dual_x[r]
            for i in range(width):
                slope_y[i] = below[i] - row[i]
            for i in range(width - 2):
                slope_x[i] = row[i + 2] - row[i]
            for i in range(width // 2):
                a, b, c, d = slope_y[2 * i], slope_y[2 * i + 1], slope_x[2 * i], slope_x[2 * i + 1]
                shorter = one / (one + factor * math.sqrt(a * a + b * b + c * c + d * d))
                share[2 * i], share[2 * i + 1] = shorter, shorter
            for i in range(width):
                y, x = along_y[i], along_x[i]
                along_y[i] = (y - step * slope_y[i]) * share[i]
                along_x[i] = (x - step * slope_x[i]) * share[i]
        for r in range(height):
            given, row, along_y, along_x = image[r], smooth[r], dual_y[r], dual_x[r]
            for i in range(width):
                row[i] = given[i] - along_y[i] - along_x[i]
            for i in range(2, width):
                row[i] += along_x[i - 2]
            if r > 0:
                above = dual_y[r - 1]
                for i in range(width):
                    row[i] += above[i]


def total_variation(canvas: Tensor, *, weight: float, iterations: int) -> Tensor:
    """`proximal.total_variation`."""
    image = torch.view_as_real(canvas).flatten(1).numpy()
    smooth, duals = image.copy(), np.zeros((2, *image.shape), image.dtype)
    if weight > 0:
        dual_iteration(image, smooth, *duals, weight, iterations)
    return torch.view_as_complex(torch.from_numpy(smooth).unflatten(1, (-1, 2)))


PROXIMAL_STEPS: dict[str, Callable[..., Tensor]] = {"tv": total_variation}
"""Those of `proximal` that are compiled."""
