"""How long k processes take, predicted from what one takes and what a message costs, and checked on this machine.

    python benchmarks/scale_model.py --backend torch --processes 1 2 4
    python benchmarks/scale_model.py --backend torch --processes 2 --canvas
    python benchmarks/scale_model.py --plan

The model is one line: a step of k processes takes the longest share of the work of one, and one sum of b bytes:
time = share · work + L + b c. `work`, L and c are measured here, by processes that share the cores that there are: of
more processes than cores the work is divided among the cores. `--canvas` grows the object under the same patterns, to
where its sum passes a third of a step. `--plan` prints the paper plan of docs/scale.md, from
figures that are stated below.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

import numpy as np

from ptycho_core.engine.launched import place_of
from ptycho_core.engine.problem import Frames, Problem, Rates
from ptycho_core.engine.processes import ALONE, Processes, for_several
from ptycho_core.engine.registry import load_engine
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.solving.bands import SPARE

CPU = ExecutionConfig(accelerator="cpu")
N, FRAMES, SIDE, STEPS = 128, 64, 512, 5
SIDES = (256, 512, 768, 1024, 1536, 2048)
SIZES = (2**12, 2**22)

# -- the plan: 1e8 patterns of 256 x 256 on 64 GPUs, a canvas of 1e5 x 1e5 ---------------------------------------------

PATTERNS, PLAN_N, GPUS, CANVAS = 1e8, 256, 64, 1e10
PATTERN_S = 60e-6
"""Assumed for one GPU: two transforms of 256 x 256 and the passes between them, bound by its memory's 3 TB/s."""
NETWORK_BYTES_PER_S, STORAGE_BYTES_PER_S = 25e9, 100e9
"""Assumed: 200 Gbit/s from each GPU, and a parallel file system for all together."""
STEPS_PER_SWEEP, COMPLEX_BYTES = 32, 8


def work(backend: str, canvas: bool) -> None:
    """Measures in each process: the steps of a solve alone, two sizes of sums, and the steps together."""
    place = place_of(CPU)
    engine = load_engine(backend)
    processes: Processes = ALONE if place is None else engine.join(place, CPU)  # type: ignore[attr-defined]
    if canvas:
        grown(backend, engine, processes)
        return
    alone = steps(engine, ALONE) if processes.first else 0.0
    alone = float(processes.tell(alone))
    sums = [summing(processes, size) for size in SIZES]
    together = steps(engine, processes)
    if processes.first:
        per_byte = (sums[1] - sums[0]) / (4 * (SIZES[1] - SIZES[0]))
        latency = max(0.0, sums[0] - 4 * SIZES[0] * per_byte)
        size, cores = processes.size, len(os.sched_getaffinity(0))
        moved = COMPLEX_BYTES * (SIDE**2 + N**2)
        # Adam runs over the whole canvas in every process; it is small beside the frames here and counted with them.
        predicted = alone / min(size, cores) + (latency + moved * per_byte) * (size > 1)
        row = {"backend": backend, "processes": size, "one_s": alone, "latency_s": latency, "s_per_byte": per_byte}
        print(
            json.dumps({**row, "predicted_s": predicted, "measured_s": together, "load": os.getloadavg()[0]}),
            flush=True,
        )


def grown(backend: str, engine: object, processes: Processes) -> None:
    """Prints, for larger and larger objects, what of a step their sum takes."""
    pixels = FRAMES * N**2 / processes.size
    for side in SIDES:
        moved = COMPLEX_BYTES * (side**2 + N**2)
        summed, step = summing(processes, moved // 4), steps(engine, processes, side)
        row = {"backend": backend, "processes": processes.size, "side": side, "of_own_pixels": side**2 / pixels}
        row |= {"sum_s": summed, "step_s": step, "share": summed / step, "load": os.getloadavg()[0]}
        if processes.first:
            print(json.dumps(row), flush=True)


def summing(processes: Processes, size: int) -> float:
    array = np.ones(size, np.float32)
    processes.sum(array)
    times = []
    for _ in range(6 * STEPS):
        begun = time.perf_counter()
        processes.sum(array)
        times.append(time.perf_counter() - begun)
    return min(times)


def steps(engine: object, processes: Processes, side: int = SIDE) -> float:
    """Seconds of a step on object and probe."""
    rng = np.random.default_rng(0)
    problem = Problem(
        canvas=np.ones((side, side), np.complex64),
        probe=rng.normal(size=(1, N, N)).astype(np.complex64),
        bad_pixels=np.zeros((N, N), bool),
        held_out=rng.random((1, N, N)) < 0.05,
    )
    solver = engine.start_solver(problem, CPU, **for_several(engine, processes))  # type: ignore[attr-defined]
    own = processes.part.of(FRAMES)
    frames = Frames(
        diffraction_amplitude=rng.random((FRAMES, N, N)).astype(np.float32)[own],
        corners_px=rng.uniform(0, side - N - 1, (FRAMES, 2))[own],
        intensity=np.ones(FRAMES, np.float32)[own],
        held_out=np.zeros(FRAMES, np.int64)[own],
    )
    times = []
    for _ in range(6 * STEPS):
        begun = time.perf_counter()
        solver.step(frames, Rates(0.01, 0.01))
        times.append(time.perf_counter() - begun)
    return min(times)


def plan() -> str:
    """The rows of docs/scale.md."""
    counts = PATTERNS * PLAN_N**2 * 4
    own = PATTERNS / GPUS
    canvas, side = CANVAS * COMPLEX_BYTES, CANVAS**0.5
    sweep = own * PATTERN_S
    reduced = STEPS_PER_SWEEP * 2 * canvas
    rows_of_two = border(side)
    band = (side / GPUS + rows_of_two) * side * COMPLEX_BYTES
    message = (GPUS - 1) * rows_of_two * side * COMPLEX_BYTES
    neighbours = STEPS_PER_SWEEP * 2 * rows_of_two * side * COMPLEX_BYTES
    summed = STEPS_PER_SWEEP * 2 * message
    rows = [
        ("patterns, float32", f"{counts / 1e12:.1f} TB", f"{counts / GPUS / 1e12:.2f} TB", ""),
        ("read once", f"{counts / 1e12:.1f} TB", "", f"{counts / STORAGE_BYTES_PER_S / 60:.1f} min"),
        ("patterns of a sweep", f"{PATTERNS:.0e}", f"{own:.2e}", f"{sweep:.0f} s"),
        ("object, gradient, both moments", f"{4 * canvas / 1e9:.0f} GB", f"{4 * band / 1e9:.1f} GB", ""),
        ("rows of two bands, in one message", "", f"{message / 1e9:.1f} GB", ""),
        ("summed in a sweep", "", f"{summed / 1e12:.2f} TB", f"{summed / NETWORK_BYTES_PER_S:.0f} s"),
        (
            "if the whole object were summed",
            "",
            f"{reduced / 1e12:.2f} TB",
            f"{reduced / NETWORK_BYTES_PER_S:.0f} s",
        ),
        (
            "if neighbours alone exchanged",
            "",
            f"{neighbours / 1e9:.1f} GB",
            f"{neighbours / NETWORK_BYTES_PER_S:.1f} s",
        ),
    ]
    widest = third_of_a_step()
    lines = ["| what | all | a GPU | time |", "| --- | --- | --- | --- |"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    told = f"Summing passes a third of a step where the object is {widest:.0f} pixels wide."
    return "\n".join([*lines, "", told])


def border(side: float) -> float:
    """Rows that two neighbours have: those of one pattern, and of the frames to spare (specs/solving.md)."""
    spare = SPARE * PATTERNS / (2 * (PATTERNS / STEPS_PER_SWEEP) ** 0.5)
    return PLAN_N + 2 * spare / PATTERNS * side


def third_of_a_step() -> float:
    """Width of the object from which its sum takes more than a third of a step, at the patterns of the plan."""
    step = PATTERNS / GPUS / STEPS_PER_SWEEP * PATTERN_S
    pixels = step / 2 * NETWORK_BYTES_PER_S / (2 * COMPLEX_BYTES)
    return pixels / ((GPUS - 1) * border(CANVAS**0.5))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", action="append", default=[])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--canvas", action="store_true")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.plan:
        print(plan())
    for backend in asked.backend:
        if asked.worker:
            work(backend, asked.canvas)
            return
        for count in asked.processes:
            execution = ExecutionConfig(accelerator="cpu", devices=count)
            command = [sys.executable, __file__, "--worker", "--backend", backend, *["--canvas"] * asked.canvas]
            if code := load_engine(backend).launch(command, execution):  # type: ignore[attr-defined]
                sys.exit(code)


if __name__ == "__main__":
    main()
