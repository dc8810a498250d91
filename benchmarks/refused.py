"""How long a command takes to refuse a misspelt setting beside a large scan: the whole process, interpreter included.

    python benchmarks/refused.py --gib 20

The scan is an HDF5 file of that size whose patterns are a hole (nothing is written to the disk); it is removed at the
end. Each command runs --times times; times are medians. Wall time is the time that passed, processor time what the
process itself took, as on a free machine; where others use the machine, too, the two are far apart.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from cases import print_table

N = 64
REFUSED = (
    ["train", "--backend", "tensorlfow"],
    ["train", "--backend", "torch", "--architecture", "cnnn"],
    ["train", "--backend", "tensorflow", "--architecture", "cnnn"],
    ["train", "--backend", "torch", "--batch-size", "12"],
    ["train", "--backend", "tensorflow", "--checkpoint-monitor-metric", "realspace_mae"],
    ["train", "--backend", "torch", "--out", "{scan}/out"],
    ["solve", "--backend", "tensorlfow"],
    ["solve", "--backend", "torch", "--modes", "nine"],
)


def write_scan(path: Path, gib: float) -> None:
    """Patterns float32 (M, N, N) that take place in the file and none on the disk, with positions and probe."""
    count = int(gib * 2**30 / (4 * N * N))
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple((count, N, N))
        h5py.h5d.create(file.id, b"patterns", h5py.h5t.IEEE_F32LE, space, properties)
        file["positions"] = np.random.default_rng(0).uniform(0, 1000, (count, 2))
        file["probe"] = np.ones((N, N), np.complex64)


def processor_seconds() -> float:
    """Of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=20)
    parser.add_argument("--times", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scan = Path(folder) / "scan.h5"
        write_scan(scan, asked.gib)
        size, taken = scan.stat().st_size / 2**30, scan.stat().st_blocks * 512 / 2**20
        print(f"{size:.1f} GiB, {taken:.1f} MiB on the disk")
        reading = ["--dataset", "patterns", "--positions", "positions", "--position-unit", "px", "--probe", "probe"]
        reading += ["--measurement", "intensity"]
        rows = []
        for arguments in REFUSED:
            given = [argument.format(scan=scan) for argument in arguments]
            command = [sys.executable, "-m", "ptycho_core", given[0], str(scan), *reading, *given[1:]]
            wall, processor = [], []
            for _ in range(asked.times):
                started, used = time.perf_counter(), processor_seconds()
                done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
                wall.append(time.perf_counter() - started)
                processor.append(processor_seconds() - used)
                if done.returncode != 2 or "Error: " not in done.stderr:
                    raise SystemExit(f"{given}: exit code {done.returncode}: {done.stderr}")
            message = done.stderr.partition("Error: ")[2].strip().replace(str(scan), "scan.h5")
            medians = [f"{statistics.median(times):.2f}" for times in (wall, processor)]
            rows.append([" ".join(arguments), *medians, f"{min(wall):.2f}–{max(wall):.2f}", message[:60]])
        print_table(["ptycho … scan.h5 …", "wall, s", "processor, s", "range of wall, s", "refused with"], rows)


if __name__ == "__main__":
    main()
