"""What a solver is given and returns (specs/solving.md): numpy arrays and plain numbers, no framework."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Literal, get_args

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.physics.constants import AMPLITUDE_FLOOR

SolverLoss = Literal["poisson", "amplitude"]


@attrs.frozen(eq=False, kw_only=True)
class Problem:
    """What one solve is about, but for the frames. Raises DataError where the arrays do not fit each other.

    canvas: complex64 (H, W), the object to begin with.
    probe: complex64 (K, N, N), N even, square root of the unit of the frames' intensity.
    bad_pixels: bool (N, N), true = bad.
    held_out: bool (P, N, N), true = held out; each frame uses one of these patterns.
    loss: the rule of the residual. counts_per_intensity: counts in one unit of A²; 1 where A² is in counts.
    amplitude_floor: counts, added to the predicted ones in the residual of the amplitude loss.
    """

    canvas: NDArray[np.complex64]
    probe: NDArray[np.complex64]
    bad_pixels: NDArray[np.bool_]
    held_out: NDArray[np.bool_]
    loss: SolverLoss = "poisson"
    counts_per_intensity: float = 1.0
    amplitude_floor: float = AMPLITUDE_FLOOR

    @property
    def N(self) -> int:
        return int(self.probe.shape[-1])

    @functools.cached_property
    def pixels(self) -> NDArray[np.float64]:
        """(2, P): how many pixels are used, and how many are held out and not bad, by pattern."""
        good = ~self.bad_pixels
        return np.array([np.count_nonzero(good & x, axis=(1, 2)) for x in (~self.held_out, self.held_out)], np.float64)

    def __attrs_post_init__(self) -> None:
        N = self.N
        _expect(self.probe.ndim == 3 and N % 2 == 0, "probe", "shape (modes, N, N), N even", self.probe.shape)
        _expect(self.probe.shape[1] == N, "probe", "shape (modes, N, N), N even", self.probe.shape)
        larger = self.canvas.ndim == 2 and min(self.canvas.shape) > N
        _expect(larger, "canvas", f"two axes of more than N = {N} pixels", self.canvas.shape)
        _expect(self.bad_pixels.shape == (N, N), "bad_pixels", f"shape {(N, N)}", self.bad_pixels.shape)
        fits = self.held_out.ndim == 3 and self.held_out.shape[1:] == (N, N) and len(self.held_out) > 0
        _expect(fits, "held_out", f"shape (patterns, {N}, {N})", self.held_out.shape)
        for name, field in (("canvas", self.canvas), ("probe", self.probe)):
            _expect(np.isfinite(field).all(), name, "finite numbers", "NaN or infinity")
        for name, mask in (("bad_pixels", self.bad_pixels), ("held_out", self.held_out)):
            _expect(mask.dtype == np.bool_, name, "bool", mask.dtype)
        _expect(bool(np.any(self.probe)), "probe", "a number other than 0", "zeros alone")
        _expect(self.loss in get_args(SolverLoss), "loss", " or ".join(get_args(SolverLoss)), repr(self.loss))
        positive = np.isfinite(self.counts_per_intensity) and self.counts_per_intensity > 0
        _expect(positive, "counts_per_intensity", "a positive number", self.counts_per_intensity)


@attrs.frozen(eq=False, kw_only=True)
class Frames:
    """One batch of frames.

    diffraction_amplitude: float32 (B, N, N), DC at [N/2, N/2]; finite, at bad pixels too.
    corners_px: float64 (B, 2), canvas coordinate [x, y] of patch pixel [0, 0]: position - N/2 - origin of the canvas.
    intensity: float32 (B,), positive; 1 where it is not refined.
    held_out: int64 (B,), which pattern of `Problem.held_out` a frame uses.
    """

    diffraction_amplitude: NDArray[np.float32]
    corners_px: NDArray[np.float64]
    intensity: NDArray[np.float32]
    held_out: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.corners_px)

    def check(self, problem: Problem, *, shared: bool = False) -> None:
        """Refuse frames that do not fit the problem, or lie outside its canvas: DataError.

        shared: whether they are one process's share of a batch, which may have none.
        """
        if shared and not len(self):
            return
        B, N, patterns = len(self), problem.N, len(problem.held_out)
        height, width = problem.canvas.shape
        for name, shape in (("diffraction_amplitude", (B, N, N)), ("corners_px", (B, 2)), ("intensity", (B,))):
            received = getattr(self, name).shape
            _expect(B > 0 and received == shape, name, "shape {}, B > 0", received, shape)
        known = self.held_out.shape == (B,) and self.held_out.min() >= 0 and self.held_out.max() < patterns
        _expect(known, "held_out", "(B,) numbers from 0 to {}", self.held_out, patterns - 1)
        low, high = self.corners_px.min(axis=0), self.corners_px.max(axis=0)
        inside = low[0] >= 0 and low[1] >= 0 and high[0] < width - N and high[1] < height - N
        _expect(inside, "corners_px", "x from 0 to below {}, y from 0 to below {}", (low, high), width - N, height - N)


@attrs.frozen
class Rates:
    """Step sizes of one step, times the schedule; 0 leaves an array, its moments and its count of steps as they are.

    object: absolute. probe: in units of the root mean square over the pixels of the modes together.
    """

    object: float
    probe: float = 0.0


@attrs.frozen(eq=False, kw_only=True)
class FrameFacts:
    """Sums over the pixels of each frame before a step; float64 (B,), in the order of the frames.

    Used pixels are neither bad nor held out; held-out pixels that are bad are not counted. In the unit of A²:
    error, held_error: sum of (sqrt(I) - A)². power, held_power: sum of A². intensity: sum of I over used pixels.
    In counts, NaN from `step`: deviance, held_deviance: sum of d = twice the `h` of specs/physics.md, Losses;
    held_deviance_squares: sum of d².
    pixels, held_pixels: their numbers.
    shift_px: (B, 2), [x, y], Gauss-Newton step to be added to the position; NaN where it was not asked for.
    """

    error: NDArray[np.float64]
    power: NDArray[np.float64]
    intensity: NDArray[np.float64]
    held_error: NDArray[np.float64]
    held_power: NDArray[np.float64]
    deviance: NDArray[np.float64]
    held_deviance: NDArray[np.float64]
    held_deviance_squares: NDArray[np.float64]
    pixels: NDArray[np.float64]
    held_pixels: NDArray[np.float64]
    shift_px: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.error)

    @property
    def intensity_ratio(self) -> NDArray[np.float64]:
        """(B,) (sum of A sqrt(I) / sum of I)² over used pixels, the factor on the frame's present intensity."""
        seen = (self.intensity + self.power - self.error) / 2  # since the error is the sum of I - 2 A sqrt(I) + A²
        return np.divide(seen, self.intensity, out=np.ones_like(seen), where=self.intensity > 0) ** 2

    def part(self, index: NDArray[np.int64]) -> FrameFacts:
        """Of some of the frames, in that order."""
        return FrameFacts(**{field.name: getattr(self, field.name)[index] for field in attrs.fields(FrameFacts)})

    @classmethod
    def columns(cls) -> int:
        """Of a `table`."""
        return len(attrs.fields(cls)) + 1

    def table(self) -> NDArray[np.float64]:
        """(B, columns): all of them, the shifts as two."""
        return np.column_stack([getattr(self, field.name) for field in attrs.fields(FrameFacts)])

    @classmethod
    def of_table(cls, table: NDArray[np.float64]) -> FrameFacts:
        """The inverse of `table`."""
        *others, shifts = (field.name for field in attrs.fields(cls))
        return cls(**dict(zip(others, table.T, strict=False)), **{shifts: table[:, -2:]})

    @classmethod
    def join(cls, parts: Iterable[FrameFacts]) -> FrameFacts:
        """The facts of several batches as one, in their order."""
        parts = list(parts)
        return cls(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in attrs.fields(cls)})


def _expect(fits: object, name: str, expected: str, received: object, *numbers: object) -> None:
    """DataError unless it fits; what is expected is put into words only then."""
    if not fits:
        remedy = "Correct what the solver is given."
        raise DataError("solver", name, expected=expected.format(*numbers), received=received, remedy=remedy)
