"""What a solve is about, made of a scan: its canvas, a probe in its scale, the pixels that are held out."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Generator

import attrs
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ptycho_core.batches.held_out import PATTERNS, held_out_patterns
from ptycho_core.batches.prefetch import prefetch
from ptycho_core.engine.problem import Frames, Problem
from ptycho_core.errors import ConfigurationError, DataError
from ptycho_core.physics.canvas import SMALL_CANVAS, SPARSEST, corners_on, summed_weight
from ptycho_core.physics.illumination import counts_per_frame, mean_frame_intensity
from ptycho_core.physics.suitability import check_size
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.fields import fields_of
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.solving.positions import reach_px
from ptycho_core.storage.memory import check_memory

log = logging.getLogger(__name__)

COVER_FLOOR = 1e-3  # specs/solving.md, Cover: ε
BYTES_PER_PIXEL = 240  # specs/solving.md, Memory: of the canvas: the steps of the solve, and the evidence of its result
BATCH_BYTES = 2**28  # specs/solving.md, Memory: largest batch of amplitudes


@attrs.frozen(eq=False, kw_only=True)
class Task:
    """A scan as it is solved: what stays the same whatever is tried.

    origin_px: coordinate [x, y] of pixel [0, 0] of the canvas; shape: (H, W) of it; room_px: around the patches.
    counts_per_intensity: counts in one unit of A².
    held_out: bool (PATTERNS, N, N); pattern: int64 (M,), which of them a frame uses.
    """

    scan: Scan
    origin_px: tuple[float, float]
    shape: tuple[int, int]
    room_px: int
    counts_per_intensity: float
    held_out: NDArray[np.bool_]
    pattern: NDArray[np.int64]

    @property
    def N(self) -> int:
        return self.scan.N

    def __len__(self) -> int:
        return len(self.scan)

    def problem(self, canvas: NDArray[np.complex64], probe: NDArray[np.complex64], loss: str) -> Problem:
        """What an engine begins with."""
        return Problem(
            canvas=canvas,
            probe=probe,
            bad_pixels=np.asarray(self.scan.bad_pixels),
            held_out=self.held_out,
            loss=loss,  # type: ignore[arg-type]
            counts_per_intensity=self.counts_per_intensity,
        )

    def corners_px(self, positions_px: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where the first pixels of patches lie on the canvas."""
        return corners_on(positions_px, self.N, self.origin_px)

    def frames(
        self,
        index: NDArray[np.int64],
        amplitude: NDArray[np.float32],
        positions_px: NDArray[np.float64],
        intensity: NDArray[np.float64],
    ) -> Frames:
        """The frames at `index`, of which everything else is given."""
        return Frames(
            diffraction_amplitude=amplitude,
            corners_px=self.corners_px(positions_px),
            intensity=intensity.astype(np.float32),
            held_out=self.pattern[index],
        )

    def gathered(
        self, batches: list[NDArray[np.int64]], workers: int
    ) -> Generator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Indices and amplitudes of each batch; read ahead by `workers` threads where they are not in memory.

        Handing a batch from thread to thread takes longer than copying it.
        """
        source = self.scan.diffraction_amplitude
        workers = 0 if isinstance(source, np.ndarray) else workers

        def reading(index: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
            return index, source[index]

        return prefetch((functools.partial(reading, index) for index in batches), workers)

    def light(self, probe: NDArray[np.complex64], positions_px: NDArray[np.float64]) -> NDArray[np.float64]:
        """(H, W): S = Σ|P|² placed at every position, in the unit of A²."""
        weight = np.square(np.abs(probe), dtype=np.float64).sum(axis=0)
        return summed_weight(positions_px, weight, origin_px=self.origin_px, shape=self.shape)


def cover_of(light: NDArray[np.float64], largest: float | None = None) -> NDArray[np.float32]:
    """(H, W) from 0 to 1: the part of a step that a pixel takes, by how much light fell on it, and on any at most."""
    return np.asarray(light / (light + COVER_FLOOR * (light.max() if largest is None else largest)), np.float32)


def begun(scan: Scan, config: SolveConfig) -> Task:
    """The task of a scan. DataError or ConfigurationError where the scan cannot be solved."""
    check_size(scan, scan.N)
    _check(scan, config)
    may_move = config.refined is None or "positions" in config.refined
    room = math.ceil(reach_px(config.position_error_px)) if may_move else 0
    origin, shape = bounds(scan.positions_px, scan.N, room)
    _check_canvas(scan, *shape)
    rng = np.random.default_rng([config.seed, 0])
    return Task(
        scan=scan,
        room_px=room,
        origin_px=origin,
        shape=shape,
        counts_per_intensity=counts_per_frame(scan, config.nphotons) / mean_frame_intensity(scan),
        held_out=held_out_patterns(scan.N, config.held_out, rng),
        pattern=rng.permutation(np.arange(len(scan)) % PATTERNS),
    )


def bounds(positions_px: NDArray[np.float64], N: int, room: int) -> tuple[tuple[float, float], tuple[int, int]]:
    """Origin [x, y] and shape (H, W) of a canvas that holds the patches with `room` pixels around them."""
    low = np.floor(positions_px.min(axis=0)) - N // 2 - room
    high = np.floor(positions_px.max(axis=0)) - N // 2 + N + 1 + room  # one more: a sub-pixel shift spills over
    width, height = (high - low).astype(int).tolist()
    return (float(low[0]), float(low[1])), (height, width)


def part(task: Task, index: NDArray[np.int64], *, same_canvas: bool = False) -> Task:
    """The task of some of the frames, on a canvas of their own unless it shall be the same."""
    scan = task.scan.subset(index)
    fewer = attrs.evolve(task, scan=scan, pattern=task.pattern[index])
    if same_canvas:
        return fewer
    origin, shape = bounds(scan.positions_px, scan.N, task.room_px)
    return attrs.evolve(fewer, origin_px=origin, shape=shape)


def in_the_middle(positions_px: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """The frames nearest to the middle of the scan, in its order."""
    middle = (positions_px.min(axis=0) + positions_px.max(axis=0)) / 2
    distance = np.linalg.norm(positions_px - middle, axis=1)
    return np.sort(np.argsort(distance, kind="stable")[:count])


def scaled(scan: Scan, probe: NDArray[np.complexfloating]) -> NDArray[np.complex64]:
    """A probe (modes, N, N) whose empty beam has a frame's mean intensity in its good pixels: |O| is 1 if clear."""
    beam = np.fft.fftshift(np.abs(np.fft.fft2(probe, norm="ortho")) ** 2, axes=(-2, -1)).sum(axis=0)
    lit = float(beam[~np.asarray(scan.bad_pixels)].sum())
    if not lit > 0:
        remedy = "Check that probe and patterns belong together, and the mask's sense."
        raise DataError(scan.source, "probe", expected="light in the good pixels", received="none", remedy=remedy)
    return np.asarray(probe * math.sqrt(mean_frame_intensity(scan) / lit), np.complex64)


def batch_count(scan: Scan, wanted: int) -> int:
    """Batches of a sweep: as many as wanted, more where one would be above `BATCH_BYTES`; no more than frames."""
    return min(len(scan), max(wanted, math.ceil(4 * len(scan) * scan.N**2 / BATCH_BYTES)))


def _check(scan: Scan, config: SolveConfig) -> None:
    count, modes = len(scan), config.mode_count or 1
    usual = fields_of(SolveConfig)["batches"].default
    if count < config.batches == usual:
        log.info("%s: %d batches per sweep, one for each pattern, in place of %d", scan.source, count, usual)
    elif count < config.batches:
        remedy = f"Set batches to {count} or less."
        raise ConfigurationError(
            "SolveConfig",
            "batches",
            expected=f"at most {count}, the frames of {scan.source}",
            received=config.batches,
            remedy=remedy,
        )
    if modes > count:
        raise ConfigurationError(
            "SolveConfig",
            "modes",
            expected=f"at most {count}, the frames of {scan.source}",
            received=modes,
            remedy="Lower modes.",
        )
    if scan.N % 2:
        remedy = f"Crop or pad the patterns to {scan.N + 1} x {scan.N + 1} (--crop, --pad)."
        raise DataError(
            scan.source,
            "diff3d",
            expected="an even number of pixels in either direction",
            received=f"{scan.N} x {scan.N}",
            remedy=remedy,
        )
    if count > 1:
        nearest = cKDTree(scan.positions_px).query(scan.positions_px, k=2)[0][:, 1]
        typical = float(np.median(nearest))
        if typical >= scan.N:
            remedy = "Check the unit of the positions (--position-unit) and that they are those of these patterns."
            raise DataError(
                scan.source,
                "xcoords, ycoords",
                expected=f"patches of {scan.N} px that overlap",
                received=f"a median distance of {typical:.4g} px to the nearest position",
                remedy=remedy,
            )


def _check_canvas(scan: Scan, height: int, width: int) -> None:
    pixels = height * width
    if pixels > max(SMALL_CANVAS, len(scan) * scan.N**2 / SPARSEST):
        remedy = "Give positions in pixels of the object grid, not in a finer unit, and drop stray ones."
        expected = "positions whose patches cover 1/1000 of their bounding box"
        received = f"{len(scan)} patches of {scan.N} x {scan.N} on {width} x {height} pixels"
        raise DataError(scan.source, "positions", expected=expected, received=received, remedy=remedy)
    remedy = "Solve a part of the scan, or bin the patterns (--bin), which makes object pixels larger."
    what = f"{width} x {height} object pixels"
    check_memory(pixels * BYTES_PER_PIXEL, scan.source, "positions", what=what, remedy=remedy)
