"""What a solver computes: forward model, gradients, facts, the step of Adam (specs/solving.md).

These are passes over all numbers of a piece, on any device. On a processor `compiled` does the same in fewer of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ptycho_core.engine.problem import SolverLoss
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
from ptycho_core_torch.cuts import cut, place, slopes, windows

BLOCK = 2**17
"""Numbers that Adam works on at a time."""


class Rule(NamedTuple):
    """What is fitted, counts in one unit of intensity, and the floor of the amplitude loss, in counts."""

    loss: SolverLoss
    counts_per_intensity: float
    amplitude_floor: float


class Trained(NamedTuple):
    """A field, complex, and the moments of its gradient, real and imaginary part (..., 2)."""

    field: Tensor
    first: Tensor
    second: Tensor


class Fields(NamedTuple):
    """What stays as it is during a step.

    canvas: complex (H, W). probe: complex (K, N, N), times the checkerboard. used: (P, N, N), 1 or 0. held: int64
    (P, most), flat indices of held-out pixels that are not bad, and counted: which of them count, 1 or 0.
    """

    canvas: Tensor
    probe: Tensor
    used: Tensor
    held: Tensor
    counted: Tensor


class Piece(NamedTuple):
    """A few frames on the device.

    whole: int64 (B, 2), [x, y]. fraction: (2, B, 1, 1, 1), of x and y. amplitude: (B, N, N). intensity: (B, 1, 1).
    pattern: int64 (B,).
    """

    whole: Tensor
    fraction: Tensor
    amplitude: Tensor
    intensity: Tensor
    pattern: Tensor


class Pass(NamedTuple):
    """Windows (B, N + 1, N + 1), patches (B, N, N), far fields (B, K, N, N), I and used pixels (B, N, N)."""

    window: Tensor
    patches: Tensor
    far_field: Tensor
    intensity: Tensor
    used: Tensor


SUMS = ("error", "power", "intensity", "held_error", "held_power")
DEVIANCES = ("deviance", "held_deviance", "held_deviance_squares")
SHIFTS = ("shift_x", "shift_y")
"""Names of the sums over the pixels of each frame, in the order of the tables' columns."""


def descend(
    rule: Rule, with_probe: bool, shifts: bool, fields: Fields, batch: Sequence[Piece]
) -> tuple[dict[str, Tensor], Tensor]:
    """Gradients by name, that by the probe only where asked for; table (columns, frames) of SUMS and SHIFTS."""
    by_canvas, by_probe = torch.zeros_like(fields.canvas), torch.zeros_like(fields.probe) if with_probe else None
    tables = [fields.used.new_zeros(len(SUMS) + len(SHIFTS) * shifts, 0)]  # of no frame, where there is none
    for piece in batch:
        result = forward(fields, piece)
        columns = sums(fields, piece, result)
        by_patches = add_gradients(rule, fields, piece, result, by_canvas, by_probe)
        shifted = find_shifts(fields, piece, result.window, by_patches) if shifts else []
        tables.append(torch.stack(columns + shifted))
    return {OBJECT: by_canvas} | ({} if by_probe is None else {PROBE: by_probe}), torch.cat(tables, dim=1)


def differentiate(rule: Rule, fields: Fields, batch: Sequence[Piece]) -> tuple[dict[str, Tensor], Tensor]:
    """Gradients by name; table (2, frames) of those by the positions."""
    by_canvas, by_probe, tables = torch.zeros_like(fields.canvas), torch.zeros_like(fields.probe), []
    for piece in batch:
        result = forward(fields, piece)
        by_patches = add_gradients(rule, fields, piece, result, by_canvas, by_probe)
        along = slopes(result.window, piece.fraction)
        tables.append(torch.stack([dot(slope, by_patches) for slope in along]))
    return {OBJECT: by_canvas, PROBE: by_probe}, torch.cat(tables, dim=1)


def measure(rule: Rule, deviance: bool, fields: Fields, batch: Sequence[Piece]) -> Tensor:
    """Table (columns, frames) of SUMS and, where asked for, DEVIANCES."""
    tables = []
    for piece in batch:
        result = forward(fields, piece)
        columns = sums(fields, piece, result) + (deviances(rule, fields, piece, result) if deviance else [])
        tables.append(torch.stack(columns))
    return torch.cat(tables, dim=1)


def forward(fields: Fields, piece: Piece) -> Pass:
    window = windows(fields.canvas, piece.whole, fields.probe.shape[-1])
    patches = cut(window, piece.fraction)
    far_field = torch.fft.fft2(patches[:, None] * fields.probe, norm="ortho")
    squares = over_modes(torch.view_as_real(far_field).square())
    intensity = (squares[..., 0] + squares[..., 1]).mul_(piece.intensity)
    return Pass(window, patches, far_field, intensity, fields.used.index_select(0, piece.pattern))


def add_gradients(
    rule: Rule, fields: Fields, piece: Piece, result: Pass, by_canvas: Tensor, by_probe: Tensor | None
) -> Tensor:
    """Add the piece's gradients. The far fields are used up. Returned are those by its patches (B, N, N, 2)."""
    residual = torch.fft.ifft2(result.far_field.mul_(excess(rule, piece, result)[:, None]), norm="ortho")
    count, _, N, _ = residual.shape
    bordered = residual.new_zeros(count, N + 2, N + 2)
    by_patches = bordered[:, 1:-1, 1:-1]
    for mode, probe in zip(residual.unbind(1), fields.probe.conj_physical(), strict=True):
        by_patches.addcmul_(mode, probe)
    place(by_canvas, bordered, piece.whole, piece.fraction)
    if by_probe is not None:
        by_probe += residual.mul_(result.patches.conj_physical()[:, None]).sum(dim=0)
    return torch.view_as_real(by_patches)


def excess(rule: Rule, piece: Piece, result: Pass) -> Tensor:
    """-s · e (B, N, N): how much too large the far field is, of the field itself; 0 where a pixel is not used."""
    weight = -piece.intensity * result.used
    per_count = 1 / rule.counts_per_intensity
    if rule.loss == "poisson":
        floored = result.intensity + POISSON_FLOOR * per_count
        believed = torch.minimum(piece.amplitude.square(), POISSON_FACTOR * floored + POISSON_CHANCE * per_count)
        return believed.div_(floored).sub_(1).mul_(weight).div_(2)
    ratio = piece.amplitude / torch.sqrt(result.intensity + rule.amplitude_floor * per_count)
    return ratio.sub_(1).mul_(weight)


def find_shifts(fields: Fields, piece: Piece, window: Tensor, by_patches: Tensor) -> list[Tensor]:
    """The move of each position that explains its residual best, Gauss-Newton, a little damped."""
    light = torch.view_as_real(fields.probe).square().sum(dim=(0, 3))[..., None]
    x, y = slopes(window, piece.fraction)
    bx, by = (-dot(slope, by_patches) / piece.intensity[:, 0, 0] for slope in (x, y))  # of the exit wave, not the loss
    lit_x, lit_y = light * x, light * y
    return gauss_newton(bx, by, dot(lit_x, x), dot(lit_y, y), dot(lit_x, y))


def gauss_newton(bx: Any, by: Any, xx: Any, yy: Any, xy: Any) -> list[Any]:
    """The moves along x and y from sums (B,) over the pixels of each frame, tensors or arrays."""
    damping = SHIFT_DAMPING * (xx + yy) / 2 + torch.finfo(torch.float32).tiny
    xx, yy = xx + damping, yy + damping
    determinant = xx * yy - xy**2
    return [(yy * bx - xy * by) / determinant, (xx * by - xy * bx) / determinant]


def sums(fields: Fields, piece: Piece, result: Pass) -> list[Tensor]:
    """SUMS."""
    error, measured = torch.sqrt(result.intensity).sub_(piece.amplitude).square_(), piece.amplitude.square()
    of_used = [dot(x, result.used) for x in (error, measured, result.intensity)]
    return of_used + [over_held(fields, piece, x) for x in (error, measured)]


def deviances(rule: Rule, fields: Fields, piece: Piece, result: Pass) -> list[Tensor]:
    """DEVIANCES: Poisson, in counts (specs/physics.md, Losses: 2h)."""
    counts = rule.counts_per_intensity
    predicted = (counts * result.intensity).clamp_min(INTENSITY_FLOOR)
    measured = counts * piece.amplitude.square()
    ratio = torch.where(measured > 0, measured, predicted) / predicted
    deviance = 2 * (predicted - measured + measured * torch.log(ratio))
    held = [over_held(fields, piece, x) for x in (deviance, deviance.square())]
    return [dot(deviance, result.used), *held]


def adam_step(state: Trained, gradient: Tensor, rate: float, correction: float, factor: Tensor) -> None:
    """Kingma & Ba, Adam, ICLR 2015, Algorithm 1, on real and imaginary parts; the step is multiplied by factor.

    rate: over 1 - β₁ᵗ. correction: √(1 - β₂ᵗ). factor: of every pixel of the field. Block by block, so that each of the
    passes finds its numbers in a processor's cache. The gradient is used up.
    """
    pairs = [torch.view_as_real(x) for x in (state.field, gradient)] + [state.first, state.second]
    arrays = [*pairs, factor[..., None].expand_as(state.first)]
    rows = max(1, BLOCK * len(gradient) // state.first.numel())
    for field, g, first, second, share in zip(*(array.split(rows) for array in arrays), strict=True):
        first.lerp_(g, 1 - SOLVER_BETA1)
        second.lerp_(g.square_(), 1 - SOLVER_BETA2)
        change = torch.sqrt(second, out=g).add_(ADAM_EPSILON * correction)
        torch.div(first, change, out=change)
        field.addcmul_(change, share, value=-rate * correction)


def over_modes(x: Tensor) -> Tensor:
    """The sum over the modes, axis 1; without work where there is one."""
    return x[:, 0] if x.shape[1] == 1 else x.sum(dim=1)


def over_held(fields: Fields, piece: Piece, x: Tensor) -> Tensor:
    """Sum of x (B, N, N) over the held-out pixels of each frame."""
    pixels = x.flatten(1).gather(1, fields.held.index_select(0, piece.pattern))
    return dot(pixels, fields.counted.index_select(0, piece.pattern))


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Sum of x · y over all numbers of each frame."""
    return torch.linalg.vecdot(x.flatten(1), y.flatten(1))
