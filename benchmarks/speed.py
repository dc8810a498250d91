"""Speed of each step beside the machine's own limit, measured in the same run.

    python benchmarks/speed.py --backend torch --backend tensorflow

Training step and prediction are held against a large float32 matrix product in the same framework (N = 64, gridsize 2,
n_filters_scale 2, batch 16 unless set); reconstruction against prediction alone; gathering of batches against a copy of
the same bytes; a cold start is a fresh process up to the end of its first training step. Medians; machines are noisy,
so compare the ratios.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
from cases import print_table

from ptycho_core import ExecutionConfig, InferenceConfig, ModelConfig, Scan, TrainingConfig, reconstruct, simulate
from ptycho_core.batches.groups import Groups, draw_groups
from ptycho_core.batches.neighbours import largest_reach_px
from ptycho_core.engine.protocol import Network
from ptycho_core.engine.registry import load_engine
from ptycho_core.models.model import Model
from ptycho_core.networks.initial import initial_weights
from ptycho_core.networks.registry import build_table
from ptycho_core.networks.table import Table
from ptycho_core.physics.illumination import Illumination
from ptycho_core.vocabulary import LOG_SCALE

MATRIX = 2048
Row = list[object]


def median_seconds(function: Callable[[], object], repeats: int) -> float:
    """Median of `repeats` calls after one that is not counted."""
    function()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def matrix_rate(backend: str, repeats: int) -> float:
    """FLOP/s of a float32 product of two 2048 × 2048 matrices in the engine's framework."""
    a, b = (np.random.default_rng(seed).standard_normal((MATRIX, MATRIX), np.float32) for seed in (0, 1))
    if backend == "torch":
        import torch

        x, y = torch.from_numpy(a), torch.from_numpy(b)
        seconds = median_seconds(lambda: torch.matmul(x, y), repeats)
    else:
        import tensorflow as tf

        u, v = tf.constant(a), tf.constant(b)
        seconds = median_seconds(lambda: tf.matmul(u, v).numpy(), repeats)
    return 2 * MATRIX**3 / seconds


def network_flop(table: Table, N: int) -> float:
    """Floating-point operations of one forward pass of one group: two for every multiply-add of a convolution."""
    sizes = table.sizes(N)
    flop = 0.0
    for layer in table.layers:
        if layer.op == "conv":
            flop += 2 * math.prod(layer.shapes["kernel"]) * sizes[layer.name] ** 2
    return flop


def build(backend: str, scan: Scan, config: TrainingConfig) -> tuple[Network, Model, Groups, int]:
    table = build_table(config.model)
    weights = {**initial_weights(table, np.random.default_rng(0)), LOG_SCALE: np.zeros((), np.float32)}
    engine = load_engine(backend)
    network = engine.build(config.model, config, weights, ExecutionConfig())
    grid, neighbours = config.model.gridsize, config.neighbor_count
    groups = draw_groups(
        scan.positions_px, np.random.default_rng(0), gridsize=grid, n_groups=len(scan), neighbor_count=neighbours
    )
    reach = largest_reach_px(scan.positions_px, channels=grid**2, neighbor_count=neighbours)
    weights |= Illumination.of(scan, nphotons=config.nphotons).arrays()
    model = Model(config=config, weights=weights, history=[], engine=engine.describe(), best_epoch=1, backend=backend)
    return network, model, groups, reach


def engine_rows(backend: str, scan: Scan, config: TrainingConfig, repeats: int) -> list[Row]:
    network, model, groups, reach = build(backend, scan, config)
    size = config.batch_size
    batches = list(groups.batches(scan, size, illumination=model.illumination, canvas_padding_px=reach))
    batches = batches[: len(scan) // size]
    flop = network_flop(build_table(config.model), config.model.N) * size
    step = median_seconds(lambda: network.train_epoch(batches[:1], 1e-4), repeats)
    before = matrix_rate(backend, repeats)
    predict = median_seconds(lambda: network.predict(batches[0]), repeats)
    limit = statistics.median([before, matrix_rate(backend, repeats)])

    execution = ExecutionConfig(inference_batch_size=size)
    alone, whole = [], []
    for _ in range(3):
        started = time.perf_counter()
        for batch in batches:
            network.predict(batch)
        alone.append((time.perf_counter() - started) / sum(map(len, batches)))
        result = reconstruct(scan, model, config=InferenceConfig(), execution=execution)
        whole.append(result.seconds["total"] / len(groups))
    ratio = statistics.median(w / a for w, a in zip(whole, alone, strict=True))
    pattern = config.model.channels
    return [
        row(
            backend,
            "training step",
            step,
            f"{3 * flop / step / 1e9:.0f} GFLOP/s",
            f"matrix product {limit / 1e9:.0f} GFLOP/s",
            3 * flop / step / limit,
        ),
        row(
            backend,
            "prediction, per batch",
            predict,
            f"{flop / predict / 1e9:.0f} GFLOP/s",
            f"matrix product {limit / 1e9:.0f} GFLOP/s",
            flop / predict / limit,
        ),
        row(
            backend,
            "reconstruction, per group",
            statistics.median(whole),
            f"{pattern / statistics.median(whole):.0f} patterns/s",
            f"prediction alone {statistics.median(alone) * 1e3:.2f} ms",
            ratio,
        ),
    ]


def row(backend: str, what: str, seconds: float, rate: str, limit: str, ratio: float | None) -> Row:
    return [backend, what, f"{seconds * 1e3:.2f} ms", rate, limit, "–" if ratio is None else f"{ratio:.2f}"]


def core_rows(scan: Scan, repeats: int) -> list[Row]:
    """Grouping, gathering and reassembly do without an engine."""
    from ptycho_core.physics.canvas import ObjectCanvas

    rng = np.random.default_rng(0)
    # Many times what caches hold, so that frames come from memory, as in a copy of the same bytes.
    frames = np.tile(scan.diffraction_amplitude, (max(1, 2**28 // scan.diffraction_amplitude.nbytes), 1, 1))
    large = Scan(diffraction_amplitude=frames, positions_px=rng.uniform(0, 1000, (len(frames), 2)), probe=scan.probe)
    groups = draw_groups(large.positions_px, rng, gridsize=2, n_groups=len(large) // 4, neighbor_count=4)
    lit = Illumination.of(large, nphotons=1e9)

    def gather() -> None:
        for _ in groups.batches(large, 16, illumination=lit, canvas_padding_px=0):
            pass

    moved = groups.indices.size * frames[0].nbytes
    source = np.ones(moved // 4, np.float32)
    target = np.empty_like(source)
    gathered, copied = median_seconds(gather, repeats), median_seconds(lambda: np.copyto(target, source), repeats)
    patches = np.ones((1000, 64, 64), np.complex64)
    where = rng.uniform(32, 500, (1000, 2))

    def reassemble() -> None:
        canvas = ObjectCanvas(where, np.ones((64, 64)))
        for start in range(0, 1000, 32):
            canvas.add(patches[start : start + 32], where[start : start + 32])

    placed = median_seconds(reassemble, repeats)
    return [
        *(grouping_row(what, points) for points in (100_000, 1_000_000) for what in GROUPING),
        row(
            "core",
            f"gathering {moved / 1e6:.0f} MB of batches",
            gathered,
            f"{moved / gathered / 1e9:.2f} GB/s",
            f"memory copy {moved / copied / 1e9:.2f} GB/s",
            copied / gathered,
        ),
        row("core", "reassembly of 1,000 sub-pixel patches", placed, f"{1000 / placed:.0f} patches/s", "–", None),
    ]


GROUPING = {
    "groups of 4": "draw_groups(p, np.random.default_rng(0), gridsize=2, n_groups=None, neighbor_count=7)",
    "largest reach": "largest_reach_px(p, channels=4, neighbor_count=7)",
}


def grouping_row(what: str, points: int) -> Row:
    """Median of 5 in a fresh process, so that its peak memory less what it held before is the step's own."""
    code = (
        "import statistics, timeit; import numpy as np;"
        "from ptycho_core.batches.groups import draw_groups;"
        "from ptycho_core.batches.neighbours import largest_reach_px;"
        f"step = lambda p: {GROUPING[what]};"
        # Not getrusage: its peak is handed down by the parent, which may have held far more.
        "status = lambda: open('/proc/self/status').read();"
        "peak = lambda: int(status().split('VmHWM:')[1].split()[0]) / 1024;"
        f"p = np.random.default_rng(0).uniform(0, 10 * {points} ** 0.5, ({points}, 2));"
        "step(p[:1000]); before = peak();"
        "seconds = statistics.median(timeit.repeat(lambda: step(p), number=1, repeat=5));"
        "print(seconds, peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, megabytes = map(float, done.stdout.split())
    rate = f"{points / seconds / 1e6:.2f} M points/s"
    return row("core", f"{what} from {points:,} points", seconds, rate, f"peak memory {megabytes:.0f} MB", None)


def cold_start_row(backend: str) -> Row:
    """A fresh process: imports, a simulated scan of 16 frames, one training step."""
    code = (
        "import time; t = time.perf_counter();"
        "from ptycho_core import ModelConfig, TrainingConfig, fit, simulate;"
        "s = simulate(positions=16);"
        "model = ModelConfig(architecture='cnn', gridsize=2);"
        f"c = TrainingConfig(model=model, backend={backend!r}, nepochs=1, n_groups=16);"
        "next(iter(fit(s, c))); print(time.perf_counter() - t)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return row(backend, "cold start to the end of the first step", float(done.stdout), "–", "–", None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", action="append", required=True, help="engine; give it twice for both")
    parser.add_argument("--N", type=int, default=64)
    parser.add_argument("--gridsize", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    scan = simulate(N=arguments.N, positions=512)
    config = TrainingConfig(
        model=ModelConfig(architecture="cnn", N=arguments.N, gridsize=arguments.gridsize), n_groups=512
    )
    rows = core_rows(scan, arguments.repeats)
    for backend in arguments.backend:
        rows += engine_rows(backend, scan, config, arguments.repeats)
        rows.append(cold_start_row(backend))
    print_table(("part", "step", "median", "rate", "limit in the same run", "ratio"), rows)


if __name__ == "__main__":
    main()
