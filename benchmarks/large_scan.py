"""A scan larger than memory: trained on and reconstructed from its file, and the resident memory that it takes.

    python benchmarks/large_scan.py --gib 20 --backend torch

The file is a stored NPZ of simulated 64 x 64 patterns: 4096 different ones of a Siemens star under a curved probe, on a
raster with a step of 4 px, repeated until the size is reached. A fresh process reads it, with nothing of it cached:
loaded (one pass that checks and measures every pattern), trained on for one epoch (--groups groups of gridsize 2), and
the region --region reconstructed.

Resident memory is that of the whole process, framework included, watched every 20 ms: RssAnon (its own memory) and
RssFile (mapped files: libraries, and patterns if they were mapped) apart. Pages that the kernel caches belong to nobody
and are not counted. --by mapping reads the patterns through a mapping of the file, for comparison.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from cases import print_table

N, STEP, DIFFERENT = 64, 4, 4096


def write_scan(path: Path, gib: float) -> None:
    """A stored NPZ of about `gib` GiB, written piece by piece."""
    from ptycho_core import simulate

    side = int(DIFFERENT**0.5)
    scan = simulate(object="siemens-star", N=N, positions=DIFFERENT, photons=1e6)
    count = int(gib * 2**30 / (N * N * 4)) // DIFFERENT * DIFFERENT or DIFFERENT
    tile, within = np.divmod(np.arange(count), DIFFERENT)
    row, column = np.divmod(within, side)
    tiles = int(np.ceil(np.sqrt(count / DIFFERENT)))
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "xcoords": ((tile % tiles) * side + column) * STEP + rng.uniform(-1, 1, count) + N,
        "ycoords": ((tile // tiles) * side + row) * STEP + rng.uniform(-1, 1, count) + N,
        "probeGuess": scan.probe[0],
        "_metadata": np.array(
            json.dumps({"axes": "frame, row, column", "measurement": "amplitude", "amplitude_unit": "sqrt(counts)"})
        ),
    }
    patterns = np.ascontiguousarray(scan.diffraction_amplitude[:], "<f4").data
    with zipfile.ZipFile(path, "w") as archive:
        for key, array in arrays.items():
            with archive.open(f"{key}.npy", "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        with archive.open("diff3d.npy", "w", force_zip64=True) as member:
            header = {"descr": "<f4", "fortran_order": False, "shape": (count, N, N)}
            np.lib.format.write_array_header_1_0(member, header)
            for _ in range(count // DIFFERENT):
                member.write(patterns)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def forget(path: Path) -> None:
    """Nothing of the file in the kernel's cache."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Memory:
    """Watches the resident memory of this process, MiB; each step's peak is kept apart."""

    def __init__(self) -> None:
        self.peaks: dict[str, dict[str, float]] = {}
        self._step, self._stop = "start", threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def step(self, name: str) -> None:
        self._look()
        self._step = name

    def done(self) -> None:
        self._look()
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self._look()

    def _look(self) -> None:
        status = Path("/proc/self/status").read_text()
        found = dict(
            line.split(":", 1) for line in status.splitlines() if line.startswith(("VmRSS", "RssAnon", "RssFile"))
        )
        peaks = self.peaks.setdefault(self._step, {})
        for name, value in found.items():
            peaks[name] = max(peaks.get(name, 0.0), int(value.split()[0]) / 1024)


def child(path: Path, backend: str, groups: int, region: float, mapped: bool) -> None:
    """All steps in this process; figures as JSON."""
    memory, seconds, rates = Memory(), {}, {}
    started = time.perf_counter()

    def end(step: str) -> float:
        nonlocal started
        seconds[step], started = time.perf_counter() - started, time.perf_counter()
        return seconds[step]

    memory.step("import")
    from ptycho_core import ExecutionConfig, InferenceConfig, ModelConfig, TrainingConfig, fit, load_scan, reconstruct
    from ptycho_core.engine.registry import load_engine
    from ptycho_core.storage import stored as sources

    load_engine(backend)
    end("import")
    if mapped:
        sources.MAPPED_BYTES = 2**60
    memory.step("load and check")
    scan = load_scan(path)
    rates["load and check"] = f"{len(scan) * N * N * 4 / end('load and check') / 1e9:.2f} GB/s"
    memory.step("train")
    config = TrainingConfig(
        model=ModelConfig(architecture="cnn", gridsize=2, n_filters_scale=1),
        backend=backend,
        nepochs=1,
        n_groups=groups,
        neighbor_count=7,
    )
    run = fit(scan, config)
    report = next(iter(run))
    end("train")
    rates["train"] = f"{report.patterns_per_second:.0f} patterns/s, loss {report.train['total']:.3f}"
    memory.step("reconstruct")
    assert run.model is not None
    low = scan.positions_px.min(axis=0)
    part = scan.subset((scan.positions_px < low + region).all(axis=1))
    result = reconstruct(
        part, run.model, config=InferenceConfig(neighbor_count=7), execution=ExecutionConfig(inference_batch_size=32)
    )
    end("reconstruct")
    height, width = result.object_field.shape
    rates["reconstruct"] = f"{result.patterns_per_second:.0f} patterns/s, {len(part)} frames, {width} x {height} px"
    memory.done()
    print(json.dumps({"peaks": memory.peaks, "seconds": seconds, "rates": rates, "frames": len(scan)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=20)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--groups", type=int, default=512, help="groups of the epoch")
    parser.add_argument("--region", type=float, default=256, help="side of the reconstructed region of positions, px")
    parser.add_argument("--by", choices=("position", "mapping"), default="position", help="how patterns are read")
    parser.add_argument("--file", type=Path, default=Path("large_scan.npz"), help="written if missing")
    parser.add_argument("--keep", action="store_true", help="do not delete the file")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.file, arguments.backend, arguments.groups, arguments.region, arguments.by == "mapping")
        return
    if not arguments.file.exists():
        started = time.perf_counter()
        write_scan(arguments.file, arguments.gib)
        print(f"written in {time.perf_counter() - started:.0f} s", flush=True)
    forget(arguments.file)
    done = subprocess.run([sys.executable, __file__, "--child", *sys.argv[1:]], stdout=subprocess.PIPE, check=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    size = arguments.file.stat().st_size
    print(f"{figures['frames']} patterns, {size / 2**30:.2f} GiB, engine {arguments.backend}, read by {arguments.by}")
    rows = [
        [
            step,
            f"{figures['seconds'].get(step, 0):.1f} s",
            figures["rates"].get(step, "–"),
            *(f"{peaks[name]:.0f} MiB" for name in ("VmRSS", "RssAnon", "RssFile")),
        ]
        for step, peaks in figures["peaks"].items()
        if step != "start"
    ]
    print_table(("step", "time", "rate", "peak resident", "of it its own", "of it files"), rows)
    if not arguments.keep:
        arguments.file.unlink()


if __name__ == "__main__":
    main()
