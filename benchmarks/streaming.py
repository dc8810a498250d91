"""Patterns and patches of large scans: gathered, cut and placed in bounded memory, beside the machine's own limit.

    python benchmarks/streaming.py

Gathering: 100,000 patterns of 64 x 64 in a stored NPZ file (1.6 GB, cached by the kernel), groups of gridsize 2 in
random order, in this thread and ahead in another as in training; once through a mapping, as files of this size are,
and once by position, as larger ones are. Its limit is a copy of the same bytes from one large array to another, before
and after each repeat. Placing and cutting: sub-pixel positions; memory is what is allocated besides the canvas.
Medians of the time that passed and of the processor time of this process; where others use the machine, too, the second
and its ratio say what a free one takes.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
from cases import print_table
from large_scan import write_scan
from numpy.typing import NDArray

from ptycho_core import Scan, load_scan
from ptycho_core.batches.groups import Groups, draw_groups
from ptycho_core.batches.prefetch import Share, gathered
from ptycho_core.physics.canvas import ObjectCanvas
from ptycho_core.physics.illumination import Illumination
from ptycho_core.physics.patches import extract_patches
from ptycho_core.storage import stored as sources

N = 64
WHERE = ("in this thread", "ahead, in a thread", "ahead, in two threads")
Row = list[object]


Times = NDArray[np.float64]


def timed(function: Callable[[], object]) -> Times:
    """Seconds that passed, and seconds of this process's processor time."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return np.array([time.perf_counter() - wall, time.process_time() - cpu])


def median(times: list[Times]) -> Times:
    return np.asarray(np.median(times, axis=0))


def row(what: str, times: Times, rate: str, memory: str = "–", limit: str = "–", ratio: str = "–") -> Row:
    return [what, f"{times[0]:.2f} s", f"{times[1]:.2f} s", rate, limit, ratio, memory]


def gathering_rows(scan: Scan, repeats: int) -> list[Row]:
    source = np.ones(2**27, np.float32)
    target = np.empty_like(source)
    np.copyto(target, source)
    groups = draw_groups(
        scan.positions_px, np.random.default_rng(0), gridsize=2, n_groups=len(scan) // 4, neighbor_count=7
    )
    order = np.random.default_rng(1).permutation(len(groups))
    moved = groups.indices.size * N * N * 4
    rows, normally = [], sources.MAPPED_BYTES
    for way, sources.MAPPED_BYTES in (("mapped", normally), ("by position", -1)):
        for workers, batch in itertools.product((0, 1, 2), (16, 64)):
            gather(groups, scan, batch, order, workers)
            times, copies = [], []
            for _ in range(repeats):
                copies.append(timed(lambda: np.copyto(target, source)) * moved / source.nbytes)
                times.append(timed(lambda: gather(groups, scan, batch, order, workers)))  # noqa: B023
                copies.append(timed(lambda: np.copyto(target, source)) * moved / source.nbytes)
            took, copied = median(times), median(copies)
            rows.append(
                row(
                    f"an epoch's batches of {batch}, {way}, {WHERE[workers]}",
                    took,
                    f"{moved / took[0] / 1e9:.2f} GB/s",
                    limit=f"memory copy {moved / copied[0] / 1e9:.2f} GB/s",
                    ratio=f"{copied[0] / took[0]:.2f}, {copied[1] / took[1]:.2f}",
                )
            )
    sources.MAPPED_BYTES = normally
    return rows


def gather(groups: Groups, scan: Scan, size: int, order: NDArray[np.int64], workers: int) -> None:
    lit = Illumination.of(scan, nphotons=1e9)
    share = Share(groups=groups, scan=scan, illumination=lit, canvas_padding_px=16, order=order)
    for _ in gathered([share], size, workers=workers):
        pass


def random_positions(count: int) -> NDArray[np.float64]:
    """As dense as a scan with a step of 4 px, in the order of its rows."""
    side = 4 * count**0.5
    positions = np.random.default_rng(0).uniform(N, N + side, (count, 2))
    return positions[np.lexsort((positions[:, 0], positions[:, 1] // 4))]


def reassembly_rows(repeats: int) -> list[Row]:
    rng, rows = np.random.default_rng(0), []
    patches = (rng.random((128, N, N)) + 1j * rng.random((128, N, N))).astype(np.complex64)
    y, x = np.mgrid[:N, :N] - N / 2
    weights = {"probe": np.exp(-(x**2 + y**2) / (2 * (N / 6) ** 2)), "uniform": np.ones((N, N))}
    for count in (10_000, 100_000):
        ordered = random_positions(count)
        for order in ("in scan order", "in random order"):
            where = ordered if order == "in scan order" else rng.permutation(ordered)
            for name, weight in weights.items():

                def place(canvas: ObjectCanvas, where: NDArray[np.float64] = where) -> None:
                    for start in range(0, len(where), len(patches)):
                        positions = where[start : start + len(patches)]
                        canvas.add(patches[: len(positions)], positions)
                    canvas.object_field()
                    canvas.overlap_count  # noqa: B018

                took = median([timed(lambda: place(ObjectCanvas(where, weight))) for _ in range(repeats)])  # noqa: B023
                tracemalloc.start()
                canvas = ObjectCanvas(where, weight)
                held, _ = tracemalloc.get_traced_memory()
                place(canvas)
                _, peak = tracemalloc.get_traced_memory()
                tracemalloc.stop()
                rows.append(
                    row(
                        f"reassembly of {count:,} patches, {name}, {order}",
                        took,
                        f"{count / took[0]:.0f} patches/s",
                        f"{(peak - held) / 1e6:.0f} MB besides the canvas of {held / 1e6:.0f} MB",
                    )
                )
    return rows


def truth_row(repeats: int) -> Row:
    rng = np.random.default_rng(0)
    field = (rng.random((2000, 2000)) + 1j * rng.random((2000, 2000))).astype(np.complex64)
    where = rng.uniform(40, 1960, (10_000, 4, 2))

    def cut() -> None:
        for start in range(0, len(where), 16):
            extract_patches(field, where[start : start + 16].reshape(-1, 2), N)

    took = median([timed(cut) for _ in range(repeats)])
    tracemalloc.start()
    cut()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    rate = f"{where.shape[0] * where.shape[1] / took[0]:.0f} patches/s"
    return row("ground truth of 10,000 groups of 4, batches of 16", took, rate, f"{peak / 1e6:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the file is written")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "scan.npz"
        write_scan(path, 100_000 * N * N * 4 / 2**30 + 0.05)
        rows = gathering_rows(load_scan(path), arguments.repeats)
    rows += [*reassembly_rows(arguments.repeats), truth_row(arguments.repeats)]
    print_table(("step", "time", "processor time", "rate", "limit in the same run", "ratios", "memory"), rows)


if __name__ == "__main__":
    main()
