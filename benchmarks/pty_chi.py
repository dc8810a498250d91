"""Beside pty-chi, where it is installed (pip install ptychi): `python benchmarks/quality.py solve` prints it.

The real Siemens star, one mode, the probe refined, on one core, in one run. A frame in twenty is held out of both: H is
Σ(|F| − A)² / ΣA² over those frames, R over the others, both by the code below, so that both are judged alike. LSQML
(Odstrčil et al., Opt. Express 26, 3108) runs with each of a few settings and is judged after 1, 2, 5, 10, 20 and 50
epochs; its best H is what the solver has to reach, in the run with the fewest sweeps that does. A patch may be cut at a
sub-pixel place in either of two ways, by linear interpolation or in Fourier space, half a pixel either way: each object
is judged by the one that suits it best. Seconds are those of the epochs and sweeps alone.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import logging
import time
import warnings
from collections.abc import Iterator
from typing import Any

import attrs
import numpy as np
import scipy
from cases import STAR, require
from numpy.typing import NDArray

from ptycho_core import Scan, SolveConfig, Solving, load_scan
from ptycho_core.solving.problem import bounds

Row = list[object]
HELD_OUT, ROOM_PX = 20, 6
EPOCHS = (1, 2, 5, 10, 20, 50)
SWEEPS = (2, 3, 4, 5, 6, 8, 10, 14, 20)
SETTINGS: tuple[dict[str, Any], ...] = (
    {"batch": 64, "mode": "RANDOM", "momentum": 0.0},
    {"batch": 16, "mode": "RANDOM", "momentum": 0.0},
    {"batch": 64, "mode": "COMPACT", "momentum": 0.5},
)


@attrs.frozen
class Reached:
    """What a run came to, after how many passes and seconds."""

    name: str
    passes: int
    seconds: float
    R: float
    H: float


def rows(backend: str) -> list[Row]:
    """The best of LSQML, and the shortest solve that is as good; or that pty-chi is not installed."""
    case = "star, 1 mode, frames held out"
    if importlib.util.find_spec("ptychi") is None:
        return [[case, "pty-chi LSQML", "-", "not installed", "-", "-"]]
    scan, held = star()
    theirs = best_of_theirs()
    runs = list(solves(scan, held, backend))
    ours = next((run for run in runs if run.H <= theirs.H), runs[-1])
    return [
        [case, name, run.passes, figure, value, run.seconds]
        for name, run in ((theirs.name, theirs), (backend, ours))
        for figure, value in (("R", run.R), ("H", run.H))
    ] + [[case, backend, ours.passes, "pty-chi's seconds over these", theirs.seconds / ours.seconds, ours.seconds]]


def star() -> tuple[Scan, NDArray[np.bool_]]:
    """The scan, and which of its frames are held out."""
    scan = load_scan(require(STAR))
    held = np.zeros(len(scan), bool)
    held[np.random.default_rng(0).permutation(len(scan))[: len(scan) // HELD_OUT]] = True
    return scan, held


@functools.cache
def best_of_theirs() -> Reached:
    """The least H of every setting and number of epochs."""
    import torch

    torch.set_num_threads(1)
    return min((run for settings in SETTINGS for run in least_squares(*star(), **settings)), key=lambda run: run.H)


def solves(scan: Scan, held: NDArray[np.bool_], backend: str) -> Iterator[Reached]:
    """Annealed runs of more and more sweeps; one that is not counted goes first, for what is compiled."""
    used = scan.subset(~held)
    for sweeps in (1, *SWEEPS):
        run = Solving(used, SolveConfig(backend=backend, sweeps=sweeps, refine="probe", modes="1", prior="none"))
        sweep = [event for event in run if event.kind == "sweep"][-1]
        solved = sweep.payload  # with the faintly lit rim, which a result marks as not known
        state = solved.kept()
        R, H = judged(scan, held, state.canvas, state.probe[0], solved.origin_px)
        yield Reached(backend, sweeps, sum(row["seconds"] for row in run.history), R, H if sweeps > 1 else np.inf)


def least_squares(scan: Scan, held: NDArray[np.bool_], *, batch: int, mode: str, momentum: float) -> Iterator[Reached]:
    """LSQML with unit step sizes, after each of EPOCHS."""
    from ptychi import api
    from ptychi.api.task import PtychographyTask

    warnings.filterwarnings("ignore")
    logging.getLogger().setLevel(logging.ERROR)
    (x, y), shape = bounds(scan.positions_px, scan.N, ROOM_PX)
    places = (scan.positions_px[~held] - (x, y)).astype(np.float32)
    options = api.LSQMLOptions()
    options.reconstructor_options.default_device = api.Devices.CPU
    options.reconstructor_options.batch_size = batch
    options.reconstructor_options.batching_mode = getattr(api.BatchingModes, mode)
    options.reconstructor_options.momentum_acceleration_gain = momentum
    options.reconstructor_options.num_epochs = EPOCHS[-1]
    options.object_options.determine_position_origin_coords_by = api.ObjectPosOriginCoordsMethods.SPECIFIED
    options.object_options.position_origin_coords = np.zeros(2)
    task = PtychographyTask(
        options,
        diffraction_data=np.square(np.asarray(scan.diffraction_amplitude[:])[~held]),
        object_data=np.ones((1, *shape), np.complex64),
        probe_data=scan.probe[None, :1] / scan.N,  # its transforms are not normalised
        probe_position_x_px=places[:, 0],
        probe_position_y_px=places[:, 1],
    )
    seconds, done = 0.0, 0
    for epochs in EPOCHS:
        started = time.perf_counter()
        task.run(epochs - done)
        seconds, done = seconds + time.perf_counter() - started, epochs
        object_field = task.get_data_to_cpu("object", as_numpy=True)[0]
        probe = task.get_data_to_cpu("probe", as_numpy=True).reshape(-1, scan.N, scan.N)[0] * scan.N
        name = f"pty-chi LSQML, {mode.lower()} batches of {batch}, momentum {momentum:g}"
        yield Reached(name, epochs, seconds, *judged(scan, held, object_field, probe, (x, y)))
    task.__exit__(None, None, None)


def judged(
    scan: Scan,
    held: NDArray[np.bool_],
    object_field: NDArray[np.complexfloating],
    probe: NDArray[np.complexfloating],
    origin_px: tuple[float, float],
) -> tuple[float, float]:
    """R of the used frames and H of the held ones; of the six ways of cutting, by the one with the least R."""
    amplitude = np.fft.ifftshift(np.asarray(scan.diffraction_amplitude[:]), axes=(1, 2))
    found = []
    for fourier, offset in itertools.product((False, True), (0.0, -0.5, 0.5)):
        corners = scan.positions_px + offset - scan.N // 2 - np.asarray(origin_px)
        far = np.abs(scipy.fft.fft2(probe * patches(object_field, corners, scan.N, fourier), norm="ortho"))
        error, power = np.square(far - amplitude).sum(axis=(1, 2)), np.square(amplitude).sum(axis=(1, 2))
        found.append(tuple(float(error[part].sum() / power[part].sum()) for part in (~held, held)))
    return min(found)


def patches(
    object_field: NDArray[np.complexfloating], corners: NDArray[np.float64], N: int, fourier: bool
) -> NDArray[np.complexfloating]:
    """(M, N, N): cut out at sub-pixel places."""
    padded = np.pad(object_field, 2, mode="edge")
    whole = np.rint(corners) if fourier else np.floor(corners)
    part, size = corners - whole, N if fourier else N + 1
    rows, columns = (whole[:, axis].astype(int)[:, None] + 2 + np.arange(size) for axis in (1, 0))
    cut = padded[rows[:, :, None], columns[:, None, :]]
    x, y = (part[:, axis, None, None] for axis in (0, 1))
    if fourier:
        k = np.fft.fftfreq(N)
        ramp = np.exp(2j * np.pi * (x * k + y * k[:, None]))
        return scipy.fft.ifft2(scipy.fft.fft2(cut) * ramp)
    cut = cut[:, :-1] * (1 - y) + cut[:, 1:] * y
    return cut[:, :, :-1] * (1 - x) + cut[:, :, 1:] * x
