"""The accelerator of this machine: the PyTorch engine's results on it, and its times beside the processor's.

    python benchmarks/device.py            # under three minutes; needs the package and PyTorch, no data

Solver: gradients, facts, steps and the proximal step against the float64 reference, in both precisions; a sweep beside
the Fourier transforms alone; whole solves of a simulated star, held against its truth. Network: three epochs, and
prediction, in float32 and with layers in bfloat16, held against the processor's patches. Where no accelerator is there,
that is said, and the processor alone is measured. Exit status 1 where a result is wrong.

Steps and transforms take turns; medians of wall time, each measured when the device has done its work.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import torch
from cases import print_table
from ptycho_core_reference import ReferenceEngine
from ptycho_core_torch import TorchEngine
from ptycho_core_torch.engine import select_device
from solver_step import part

from ptycho_core import (
    ExecutionConfig,
    ModelConfig,
    Scan,
    SolveConfig,
    TrainingConfig,
    reconstruct,
    simulate,
    solve,
    train,
)
from ptycho_core.engine.problem import Frames, Problem, Rates
from ptycho_core.engine.protocol import Solver
from ptycho_core.quality.evaluation import evaluate
from ptycho_core.solving.problem import begun, scaled

RATES = Rates(object=0.05, probe=0.03)
TOLERANCE = {"64-true": 1e-10, "32-true": 1e-5}  # of the peak: specs/solving.md, Numerics
LOOSER = {"facts": 5, "moments after two steps": 100}
"""A deviance is what remains where large terms cancel; a moment's peak is small where the gradients change sign."""
BATCHES = 32
LEAST_CORRELATION, LARGEST_PATCH_ERROR = 0.99, {"32-true": 1e-4, "bf16-mixed": 0.1}
Row = list[object]


def problem_of(scan: Scan, modes: int = 1) -> tuple[Problem, Frames]:
    """What an engine is given for a scan, from a flat object."""
    task = begun(scan, SolveConfig(refine="probe"))
    weaker = scaled(scan, scan.probe[:1]) * 0.1 ** np.arange(modes)[:, None, None]
    everything = np.arange(len(scan))
    amplitude = np.asarray(scan.diffraction_amplitude[:], np.float32)
    frames = task.frames(everything, amplitude, scan.positions_px, np.ones(len(scan)))
    return task.problem(np.ones(task.shape, np.complex64), weaker.astype(np.complex64), "poisson"), frames


def started(problem: Problem, device: str, precision: str = "32-true") -> Solver:
    return TorchEngine().start_solver(problem, ExecutionConfig(accelerator=device, precision=precision))  # type: ignore[arg-type]


def peak_error(arrays: dict[str, Any], reference: dict[str, Any]) -> float:
    """The largest difference, of the peak of each array; NaN where the reference's is none are left out."""
    errors = []
    for name, expected in reference.items():
        if not np.isnan(expected).all():
            errors.append(np.abs(arrays[name] - expected).max() / max(np.abs(expected).max(), 1e-30))
    return float(max(errors))


# -- checks ------------------------------------------------------------------------------------------------------------


def checks(device: str) -> list[Row]:
    """Against the reference, on a few small frames with intensities of their own, three modes, two batches."""
    rows: list[Row] = []
    problem, frames = problem_of(simulate(N=32, positions=48, photons=4e3, bad_pixels=9, seed=3), modes=3)
    frames = attrs.evolve(frames, intensity=np.random.default_rng(0).uniform(0.5, 1.5, len(frames)).astype(np.float32))
    cover = np.random.default_rng(1).random(problem.canvas.shape).astype(np.float32)
    first, second = part(frames, np.arange(29)), part(frames, np.arange(29, 48))
    for precision, tolerance in TOLERANCE.items():
        solver = started(problem, device, precision)
        reference = ReferenceEngine().start_solver(problem, ExecutionConfig(accelerator="cpu"))
        found = {"gradients": (solver.gradients(first), reference.gradients(first))}
        found["facts"] = tuple(attrs.asdict(each.measure(first)) for each in (solver, reference))  # type: ignore[assignment]
        for each in (solver, reference):
            each.set_cover(cover)
        taken = [
            [attrs.asdict(each.step(x, RATES, shifts=True)) for x in (first, second)] for each in (solver, reference)
        ]
        found["facts and shifts of two steps"] = taken[0][0], taken[1][0]
        found["moments after two steps"] = solver.optimizer_state(), reference.optimizer_state()
        other = ReferenceEngine().start_solver(problem, ExecutionConfig(accelerator="cpu"))
        other.load_weights(solver.weights())
        for each in (solver, other):
            each.denoise(0.05)
        found["total variation"] = solver.weights(), other.weights()
        for name, (arrays, expected) in found.items():
            error, limit = peak_error(dict(arrays), dict(expected)), tolerance * LOOSER.get(name, 1)
            rows.append([device, precision, name, f"{error:.1e}", f"{limit:.0e}", "yes" if error <= limit else "NO"])
    return rows


# -- times -------------------------------------------------------------------------------------------------------------


def seconds(work: Callable[[], object], device: str) -> float:
    started = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def step_row(device: str, scan: Scan, modes: int, rounds: int = 9) -> Row:
    """A sweep, and the transforms of as many frames, forward and back, in pieces as large as suits them best."""
    problem, frames = problem_of(scan, modes)
    solver, order = started(problem, device), np.random.default_rng(0).permutation(len(scan))
    batches = [part(frames, np.sort(batch)) for batch in np.array_split(order, BATCHES)]
    N, sizes = scan.N, (8, 32, 128, 1024)
    fields = torch.randn(min(len(scan), 2048), modes, N, N, dtype=torch.complex64, device=select_device(device))

    def transforms(size: int) -> Callable[[], None]:
        def work() -> None:
            for x in fields.split(size):
                torch.fft.ifft2(torch.fft.fft2(x, norm="ortho"), norm="ortho")

        return work

    def sweep() -> None:
        for batch in batches:
            solver.step(batch, RATES)

    for work in (sweep, *map(transforms, sizes)):
        work()
    alone = {size: statistics.median(seconds(transforms(size), device) for _ in range(3)) for size in sizes}
    best = min(alone, key=lambda size: alone[size])
    taken = [
        (seconds(sweep, device) / len(scan), seconds(transforms(best), device) / len(fields)) for _ in range(rounds)
    ]
    each, transformed = (1e6 * statistics.median(times) for times in zip(*taken, strict=True))
    what = f"{len(scan)} frames of {N} x {N}, {modes} mode{'s' * (modes > 1)}"
    return [device, what, f"{each:.2f}", f"{transformed:.3f}", f"{statistics.median(a / b for a, b in taken):.1f}"]


def solve_rows(device: str, scan: Scan) -> list[Row]:
    """Twice: what a first solve takes more is the loading and compiling of code."""
    rows: list[Row] = []
    config = SolveConfig(backend="torch", refine="probe", modes="1", prior="none")
    for time_of_it in ("first", "second"):
        begin = time.perf_counter()
        result = solve(scan, config, execution=ExecutionConfig(accelerator=device))  # type: ignore[arg-type]
        taken = time.perf_counter() - begin
        correlation = evaluate(result, scan.object_field).metrics.correlation  # type: ignore[arg-type]
        right = "yes" if correlation >= LEAST_CORRELATION else "NO"
        rows.append([device, time_of_it, f"{taken:.2f}", result.R, result.H, f"{correlation:.4f}", right])
    return rows


def network_rows(device: str, scan: Scan) -> list[Row]:
    rows: list[Row] = []
    config = TrainingConfig(model=ModelConfig(architecture="cnn"), backend="torch", nepochs=3, n_groups=512)
    for precision in ("32-true", "bf16-mixed"):
        execution = ExecutionConfig(accelerator=device, precision=precision)  # type: ignore[arg-type]
        begin = time.perf_counter()
        model = train(scan, config, execution=execution)
        trained = time.perf_counter() - begin
        begin = time.perf_counter()
        there = reconstruct(scan, model, execution=execution)
        predicted = time.perf_counter() - begin
        here = reconstruct(scan, model, execution=ExecutionConfig(accelerator="cpu"))
        first, last = (row["total"] for row in (model.history[0], model.history[-1]))
        error = peak_error({"": there.object_field}, {"": here.object_field})
        right = "yes" if error <= LARGEST_PATCH_ERROR[precision] and last < first else "NO"
        rows.append([device, precision, f"{trained:.2f}", f"{predicted:.2f}", first, last, f"{error:.1e}", right])
    return rows


def main() -> None:
    devices: list[str] = [name for name in TorchEngine().describe().devices if name != "cpu"]
    if devices:
        print(f"PyTorch {torch.__version__} on {', '.join(devices)}: {accelerator(devices[0])}")
    else:
        print(f"PyTorch {torch.__version__} sees no accelerator here: what follows is the processor's")
    compared = [*devices, "cpu"]
    star = simulate(object="siemens-star", positions=1000, photons=1e6, seed=0)
    many = simulate(object="dead-leaves", positions=8000, photons=1e5, seed=1)
    tables: list[tuple[tuple[str, ...], list[Row]]] = [
        (("device", "precision", "solver beside the reference", "error", "at most", "right"), []),
        (("device", "a sweep in 32 batches", "step, µs per frame", "transforms, µs", "ratio"), []),
        (("device", "solve of 1000 frames, 20 sweeps", "seconds", "R", "H", "correlation with the truth", "right"), []),
        (("device", "network", "3 epochs, s", "prediction, s", "first loss", "last", "object beside cpu", "right"), []),
    ]
    for device in compared:
        tables[0][1].extend(checks(device))
        tables[1][1].extend(step_row(device, scan, modes) for scan, modes in ((star, 1), (star, 3), (many, 1)))
        tables[2][1].extend(solve_rows(device, star))
        if device != "cpu" or not devices:
            tables[3][1].extend(network_rows(device, star))
    for header, rows in tables:
        print()
        print_table(header, rows)
    sys.exit(int(any(row[-1] == "NO" for _, rows in tables for row in rows)))


def accelerator(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else device


if __name__ == "__main__":
    main()
