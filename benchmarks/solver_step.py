"""A step of the solver beside what it cannot do without; `python benchmarks/solving.py step` prints it.

A sweep over the real Siemens star (516 frames of 64 x 64) and over simulated scans of 1,000 frames (64 x 64 and 128 x
128), in 32 batches, the probe refined, beside the Fourier transforms of as many frames, forward and back, orthonormal,
in the same framework and precision, in pieces as large as suits them best. Sweeps and transforms take turns; CPU time
of one thread, medians, after sweeps that are not counted. Machines are noisy: compare the ratios.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import attrs
import numpy as np
from cases import STAR, require
from numpy.typing import NDArray

from ptycho_core import ExecutionConfig, Scan, load_scan, simulate
from ptycho_core.engine.problem import Frames, Problem, Rates
from ptycho_core.engine.protocol import Solver
from ptycho_core.engine.registry import load_engine

BATCHES, PATTERNS, HELD_OUT, MARGIN_PX = 32, 16, 0.03, 6
PIECES = (4, 8, 16, 32, 64, 128, 516)
ROUNDS = 15
Row = list[object]
STEP_SCANS: dict[str, Callable[[], Scan]] = {
    "star, 516 of 64": lambda: load_scan(require(STAR)),
    "simulated, 1,000 of 64": lambda: simulate(N=64, positions=1000, photons=1e6, seed=0),
    "simulated, 1,000 of 128": lambda: simulate(N=128, positions=1000, photons=1e6, seed=0),
}
STEP_HEADER = ("scan", "engine", "modes", "step, per frame", "transforms alone", "in pieces of", "ratio")


def star_solver(backend: str, scan: Scan, modes: int, rng: np.random.Generator) -> tuple[Solver, list[Frames]]:
    """A solver of the scan from a flat object, and the batches of one sweep."""
    N, frames = scan.diffraction_amplitude.shape[-1], len(scan)
    low = np.floor(scan.positions_px.min(axis=0)) - N // 2 - MARGIN_PX
    width, height = (np.ceil(scan.positions_px.max(axis=0)) + N // 2 + MARGIN_PX + 1 - low).astype(int)
    weaker = 0.1 ** np.arange(modes)[:, None, None]
    problem = Problem(
        canvas=np.ones((height, width), np.complex64),
        probe=(scan.probe[:1] * weaker).astype(np.complex64),
        bad_pixels=np.zeros((N, N), bool),
        held_out=rng.random((PATTERNS, N, N)) < HELD_OUT,
    )
    everything = Frames(
        diffraction_amplitude=scan.diffraction_amplitude,
        corners_px=scan.positions_px - N / 2 - low,
        intensity=np.ones(frames, np.float32),
        held_out=rng.integers(0, PATTERNS, frames),
    )
    solver = load_engine(backend).start_solver(problem, ExecutionConfig(accelerator="cpu"))
    return solver, [part(everything, chosen) for chosen in np.array_split(rng.permutation(frames), BATCHES)]


def part(frames: Frames, which: NDArray[np.int64]) -> Frames:
    return Frames(**{field.name: getattr(frames, field.name)[which] for field in attrs.fields(Frames)})


def transforms(backend: str, fields: NDArray[np.complex64], piece: int) -> Callable[[], object]:
    """Forward and inverse transforms of all fields, (frames, modes, N, N), some at a time."""
    starts = range(0, len(fields), piece)
    if backend == "torch":
        import torch

        pieces = [torch.from_numpy(fields[start : start + piece]) for start in starts]
        return lambda: for_each(pieces, lambda x: torch.fft.ifft2(torch.fft.fft2(x, norm="ortho"), norm="ortho"))
    import tensorflow as tf

    N = fields.shape[-1]
    there_and_back = tf.function(lambda x: tf.signal.ifft2d(tf.signal.fft2d(x) / N) * N, jit_compile=True)
    constants = [tf.constant(fields[start : start + piece]) for start in starts]
    return lambda: for_each(constants, there_and_back)


def for_each(pieces: Iterable[Any], work: Callable[[Any], object]) -> None:
    """No result is kept."""
    for piece in pieces:
        work(piece)


def seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def step_row(name: str, backend: str, modes: int, rounds: int = ROUNDS) -> Row:
    scan, rng = STEP_SCANS[name](), np.random.default_rng(0)
    solver, batches = star_solver(backend, scan, modes, rng)
    pairs = rng.normal(size=(len(scan), modes, *scan.diffraction_amplitude.shape[1:], 2)).astype(np.float32)
    alone = {piece: transforms(backend, pairs.view(np.complex64)[..., 0], piece) for piece in PIECES}

    def sweep() -> None:
        for frames in batches:
            solver.step(frames, Rates(object=0.01, probe=0.01))

    def median_of(work: Callable[[], object], repeats: int) -> float:
        return statistics.median(seconds(work) for _ in range(repeats))

    for work in (sweep, sweep, *alone.values()):
        work()
    best = min(PIECES, key=lambda piece: median_of(alone[piece], 3))
    taken = [(seconds(sweep), seconds(alone[best])) for _ in range(rounds)]
    ratio = statistics.median(a / b for a, b in taken)
    each, transformed = (statistics.median(times) / len(scan) * 1e6 for times in zip(*taken, strict=True))
    return [name, backend, modes, f"{each:.1f} µs", f"{transformed:.1f} µs", f"{best} frames", f"{ratio:.2f}"]
