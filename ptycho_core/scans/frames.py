"""Patterns that stay where they are stored until they are asked for (specs/data.md, Frames).

A `Frames` is a source of stored patterns, what they measure, and the steps from a stored pattern to an amplitude:

    Frames(source, measurement="intensity", steps=(fftshift(source.shape), centred(source.shape, 64), Bin(2)))

`frames[index]` are amplitudes, float32 (k, N, N), always a new array.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.scans.steps import Bin, Blank, Level, Step
from ptycho_core.storage.source import FrameSource, fits_in_memory, frames_of_a_block
from ptycho_core.vocabulary import Measurement


@attrs.frozen(eq=False)
class Together:
    """How processes share a pass over patterns.

    own: this one's of so many. total: sums an array over all of them. told: the number that each of them has.
    """

    own: Callable[[int], slice]
    total: Callable[[NDArray[Any]], NDArray[Any]]
    told: Callable[[float], list[float]]


_TOGETHER: ContextVar[Together | None] = ContextVar("together", default=None)


@contextlib.contextmanager
def passes_shared(together: Together) -> Iterator[None]:
    """In the block, processes that make the same scans share the passes over their patterns: each reads its own."""
    token = _TOGETHER.set(together)
    try:
        yield
    finally:
        _TOGETHER.reset(token)


@attrs.frozen(eq=False)
class Statistics:
    """What one pass over the patterns of a scan tells, float64; amplitudes in the scan's unit.

    frame_intensity: (M,), Σ A² of each pattern over its good pixels.
    mean_pattern: (N, N), mean of A² over the patterns, bad pixels too; None for a part of a scan.
    lowest, largest: amplitudes; one of them is not finite where any amplitude is not.
    """

    frame_intensity: NDArray[np.float64]
    mean_pattern: NDArray[np.float64] | None
    lowest: float
    largest: float

    def subset(self, index: NDArray[np.int64]) -> Statistics:
        """Of the patterns at `index`; lowest and largest stay bounds."""
        return attrs.evolve(self, frame_intensity=self.frame_intensity[index], mean_pattern=None)


class Watch:
    """What a pass over stored patterns notices before anything is done to them.

    level: value from which on a pixel counts as saturated; None: none does. bad: (H, W), not looked at.
    saturated: int64 (H, W), in how many patterns each good pixel is. full: frames in which any is. hidden: the sum of
    what the bad pixels hold, without values that are saturated, negative or not finite.
    """

    def __init__(self, bad: NDArray[np.bool_], level: float | None) -> None:
        self.level, self.bad = level, bad
        self.saturated = np.zeros(bad.shape, np.int64)
        self.full, self.hidden, self._done = 0, 0.0, 0
        self._any_bad = bool(bad.any())

    def add(self, block: NDArray[Any]) -> None:
        if self._any_bad:
            values = block[:, self.bad].astype(np.float64)
            known = np.isfinite(values) & (values > 0) & (values < (np.inf if self.level is None else self.level))
            self.hidden += float(values[known].sum())
        if self.level is None or block.max(initial=0) < self.level:
            return
        high = (block >= self.level) & ~self.bad
        self.saturated += high.sum(axis=0)
        self.full += int(high.any(axis=(1, 2)).sum())

    def sum_over(self, total: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        """With what other processes have noticed in their patterns."""
        self.saturated = total(self.saturated)
        self.full, self.hidden = int(total(np.array([self.full]))[0]), float(total(np.array([self.hidden]))[0])


class Frames:
    """Amplitudes float32 (M, N, N) of stored patterns; nothing is read before it is asked for.

    source: where the patterns are. measurement: what they hold; the root of intensities is taken last, and where counts
    are added (`Bin`) amplitudes are squared first. steps: applied in order. name, key: the file and the data set, for
    messages. saturation: stored value from which on a pixel counts as saturated; unless stated the largest one of an
    integer type. watched: what the last whole pass has noticed. Indexed by integers, booleans or a slice it gives a new
    array, by one integer one pattern. It can be pickled, and read from any thread.
    """

    def __init__(
        self,
        source: FrameSource,
        *,
        measurement: Measurement = "amplitude",
        steps: Iterable[Step] = (),
        name: str | os.PathLike[str] = "scan",
        key: str | None = None,
        index: NDArray[np.int64] | None = None,
        saturation: float | None = None,
    ) -> None:
        self.source, self.measurement, self.steps = source, measurement, tuple(steps)
        self.name, self.key = os.fspath(name), key
        self._index = index
        if source.dtype.kind not in "biuf":
            expected, received = "real numbers", f"dtype {source.dtype}"
            raise DataError(self.name, self.key, expected=expected, received=received, remedy="Convert the patterns.")
        height, width = source.shape[1:]
        for step in self.steps:
            height, width = step.shape(height, width)
        self.shape = (source.shape[0] if index is None else len(index), height, width)
        self._measured: tuple[bytes, Statistics] | None = None
        self.saturation = _largest(source.dtype) if saturation is None else saturation
        self.watched: Watch | None = None

    dtype = np.dtype(np.float32)
    ndim = 3

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all amplitudes, were they in memory."""
        return self.size * self.dtype.itemsize

    @property
    def bad_pixels(self) -> NDArray[np.bool_]:
        """(N, N), true = bad: what `Blank` marked and what lies outside the detector, after all steps."""
        bad = np.zeros(self.source.shape[1:], bool)
        for step in self.steps:
            bad = step.mask(bad)
        return np.ascontiguousarray(bad)

    def __getitem__(self, index: Any) -> NDArray[np.float32]:
        chosen = _integers(index, len(self))
        if not chosen.size:
            return np.empty((0, *self.shape[1:]), self.dtype)
        if self._index is not None:
            chosen = self._index[chosen]
        amplitude = self._amplitude(self.source.read(chosen if chosen.ndim else chosen[None]))
        return amplitude if chosen.ndim else np.asarray(amplitude[0])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All of it in memory."""
        empty = np.empty((0, *self.shape[1:]), self.dtype)
        return np.concatenate([empty, *self.blocks()], dtype=dtype)

    def select(self, index: NDArray[Any] | slice) -> Frames:
        """The patterns chosen by integers, booleans or a slice, in that order, as lazy as these."""
        chosen = _integers(index, len(self))
        part = Frames(
            self.source,
            measurement=self.measurement,
            steps=self.steps,
            name=self.name,
            key=self.key,
            index=chosen if self._index is None else self._index[chosen],
            saturation=self.saturation,
        )
        if self._measured is not None:
            bad, statistics = self._measured
            part._measured = bad, statistics.subset(chosen)
        return part

    def turned(self, steps: Iterable[Step]) -> Frames:
        """These patterns after further steps, as lazy as these."""
        more = (*self.steps, *steps)
        return Frames(
            self.source,
            measurement=self.measurement,
            steps=more,
            name=self.name,
            key=self.key,
            index=self._index,
            saturation=self.saturation,
        )

    @property
    def whole_numbers(self) -> bool:
        """Whether `counts` are known exactly: stored as integers, and nothing but moved and added since."""
        stored = self.measurement == "intensity" and self.source.dtype.kind in "iu"
        return stored and not any(isinstance(step, Level) for step in self.steps)

    def counts(self) -> Iterator[NDArray[Any]]:
        """As `blocks`, before the root: the counts themselves, where they are `whole_numbers`."""
        for values in self._stored_blocks():
            for step in self.steps:
                values = step.apply(values)
            yield values

    def _stored_blocks(self) -> Iterator[NDArray[Any]]:
        count = frames_of_a_block(self.source)
        if self._index is None:
            yield from self.source.blocks(count)
            return
        for start in range(0, len(self), count):
            yield self.source.read(self._index[start : start + count])

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """All amplitudes in order, in pieces of about `BLOCK_BYTES` stored bytes."""
        watch = Watch(self._blank, self.saturation)
        for block in self._stored_blocks():
            watch.add(block)
            if self._must_not_be_negative:
                self._check_sign(block)
            yield self._amplitude(block)
        self.watched = watch

    def measure(self, bad_pixels: NDArray[np.bool_]) -> Statistics:
        """One pass over all patterns; the result is kept, so that the same mask needs no second one."""
        mask = bad_pixels.tobytes()
        if self._measured is None or self._measured[0] != mask:
            together = _TOGETHER.get()
            if together is None or not getattr(self.source, "whole_in_parts", False):
                self._measured = mask, measure(self.blocks(), self.shape, bad_pixels)
            else:
                self._measured = mask, self._measured_by(together, bad_pixels)
        return self._measured[1]

    def _measured_by(self, together: Together, bad_pixels: NDArray[np.bool_]) -> Statistics:
        """`measure` by several processes, each of which reads its share."""
        watch, tally = Watch(self._blank, self.saturation), Tally(self.shape, bad_pixels)
        own, count = together.own(len(self)), frames_of_a_block(self.source)
        for start in range(own.start, own.stop, count):
            rows = np.arange(start, min(start + count, own.stop))
            block = self.source.read(rows if self._index is None else self._index[rows])
            watch.add(block)
            if self._must_not_be_negative:
                self._check_sign(block)
            tally.add(self._amplitude(block), start)
        tally.sum_over(together)
        watch.sum_over(together.total)
        self.watched = watch
        return tally.statistics()

    def close(self) -> None:
        """Give back the file, for these patterns and every part of them."""
        self.source.close()

    @property
    def _blank(self) -> NDArray[np.bool_]:
        """(H, W) of the stored patterns: pixels that the first steps mark, before any that moves them."""
        bad = np.zeros(self.source.shape[1:], bool)
        for step in self.steps:
            if isinstance(step, Blank) and step.bad.shape == bad.shape:
                bad |= step.bad
            elif not isinstance(step, Level):
                break
        return bad

    @property
    def _must_not_be_negative(self) -> bool:
        """A root or a square is taken, after which a negative value no longer shows."""
        transformed = self.measurement == "intensity" or any(isinstance(step, Bin) for step in self.steps)
        return transformed and self.source.dtype.kind in "if"

    def _amplitude(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Steps and root, on an array that nobody else holds."""
        if values.dtype == np.float32 and self.measurement == "amplitude" and not self.steps:
            return values
        counts = self.measurement == "intensity"
        for step in self.steps:
            if isinstance(step, Bin) and not counts:
                values, counts = np.square(values, dtype=np.float32), True
            values = step.apply(values)
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is refused where the scan is made
            return np.sqrt(values, dtype=np.float32, order="C") if counts else np.ascontiguousarray(values, np.float32)

    def _check_sign(self, values: NDArray[Any]) -> None:
        """DataError for a negative value; blank pixels may hold anything."""
        for step in self.steps:
            if isinstance(step, Bin):
                break
            values = step.apply(values.copy() if isinstance(step, Blank | Level) else values)
        lowest = values.min(initial=0)
        if lowest < 0:
            what = "counts" if self.measurement == "intensity" else "amplitudes"
            remedy = "Cut what a background subtraction left below 0, or mark pixels that are negative as bad"
            raise DataError(
                self.name,
                self.key,
                expected=f"{what} >= 0",
                received=f"a minimum of {lowest:g}",
                remedy=remedy,
                state=("clip_negative", "mask=negative"),
            )


class Tally:
    """Statistics in the making, of amplitudes (M, N, N) that come in pieces. bad_pixels: (N, N).

    Pieces in any order, or in tallies that are merged, give the same statistics to the rounding of float64 sums.
    """

    def __init__(self, shape: tuple[int, int, int], bad_pixels: NDArray[np.bool_]) -> None:
        self.shape = shape
        self._good = (~bad_pixels).ravel().astype(np.float64)
        self._intensity, self._known = np.zeros(shape[0]), np.zeros(shape[0], bool)
        self._pattern = np.zeros(math.prod(shape[1:]))
        self._lowest, self._largest = np.inf, -np.inf

    def add(self, block: NDArray[np.float32], first: int = 0) -> None:
        """Patterns (k, N, N), the first of which is number `first` of the scan; each is added once."""
        self._count(np.s_[first : first + len(block)], len(block))
        flat = block.reshape(len(block), len(self._pattern))
        piece = max(1, 2**16 // flat.shape[1])  # small enough for the caches
        squared = np.empty((piece, flat.shape[1]))
        for start in range(0, len(flat), piece):
            part = flat[start : start + piece]
            self._limit(part.min(), part.max())
            square = squared[: len(part)]
            with np.errstate(over="ignore", invalid="ignore"):
                np.copyto(square, part)
                np.multiply(square, square, out=square)
                np.matmul(square, self._good, out=self._intensity[first + start : first + start + len(part)])
                self._pattern += square.sum(axis=0)

    def merge(self, other: Tally) -> None:
        """The patterns of another tally of the same scan. Raises ValueError for one that is in both."""
        self._count(other._known, int(other._known.sum()))
        self._intensity[other._known] = other._intensity[other._known]
        self._pattern += other._pattern
        self._limit(other._lowest, other._largest)

    def sum_over(self, together: Together) -> None:
        """`merge` the tallies of other processes, of other patterns."""
        total = together.total
        known = total(self._known.astype(np.int32))
        if known.max(initial=0) > 1:
            raise ValueError("patterns that several processes have added")
        self._known = known > 0
        self._intensity, self._pattern = total(self._intensity), total(self._pattern)
        lowest, largest = together.told(float(self._lowest)), together.told(float(self._largest))
        self._limit(np.min(lowest), np.max(largest))  # which keep NaN

    def statistics(self) -> Statistics:
        """Of the whole scan. Raises ValueError where a pattern has not been added."""
        if not self._known.all():
            raise ValueError(f"{self._known.sum()} of {self.shape[0]} patterns")
        mean = (self._pattern / max(self.shape[0], 1)).reshape(self.shape[1:])
        return Statistics(self._intensity, mean, float(self._lowest), float(self._largest))

    def _count(self, frames: Any, count: int) -> None:
        known = self._known[frames]
        if known.any() or (isinstance(frames, slice) and len(known) != count):
            raise ValueError("patterns that are known already, or beyond the scan")
        self._known[frames] = True

    def _limit(self, lowest: float, largest: float) -> None:
        self._lowest, self._largest = np.minimum(self._lowest, lowest), np.maximum(self._largest, largest)  # keep NaN


def measure(
    blocks: Iterable[NDArray[np.float32]], shape: tuple[int, int, int], bad_pixels: NDArray[np.bool_]
) -> Statistics:
    """Statistics of amplitudes (M, N, N) that come in pieces, in their order; bad_pixels: (N, N)."""
    tally, done = Tally(shape, bad_pixels), 0
    for block in blocks:
        tally.add(block, done)
        done += len(block)
    return tally.statistics()


EXACT_ROOT = 2.0**11
"""Amplitude below which its square in float32 tells the count: √n is known to n · 2⁻²³."""


def in_memory(frames: Frames) -> NDArray[np.float32] | Frames:
    """Few patterns as an array; many as they are, and counts so large that their roots do not tell them."""
    if not fits_in_memory(frames.shape):
        return frames
    amplitude = np.asarray(frames)
    return frames if frames.whole_numbers and amplitude.max(initial=0) >= EXACT_ROOT else amplitude


def _largest(dtype: np.dtype[Any]) -> float | None:
    """The largest value of an integer type, which a detector writes for whatever is more, and for a dead pixel."""
    return float(np.iinfo(dtype).max) if dtype.kind in "iu" else None


def _integers(index: Any, length: int) -> NDArray[np.int64]:
    """An index as integers in 0 … length − 1, checked as numpy does."""
    if isinstance(index, slice):
        return np.arange(*index.indices(length))
    array = np.asarray(index)
    if array.dtype == bool:
        if array.shape != (length,):
            raise IndexError(f"a boolean index of shape {array.shape} for {length} patterns")
        return np.flatnonzero(array)
    if array.ndim > 1 or (array.size and array.dtype.kind not in "iu"):
        raise IndexError(f"patterns are indexed by one integer, an array of them, booleans or a slice, not {index!r}")
    array = array.astype(np.int64, copy=False)
    if array.size and array.view(np.uint64).max() >= length:  # one look finds negative ones, too
        if array.min() < -length or array.max() >= length:
            raise IndexError(f"index {array.min()} … {array.max()} is out of range for {length} patterns")
        array = np.where(array < 0, array + length, array)
    return array
