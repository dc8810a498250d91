"""Kills solves, reconstructions and conversions at random moments, and looks at what is left.

    python benchmarks/kill_others.py --kills 90

They run on the core's float64 reference, in forks that have everything imported, as fast as they can. After every
SIGKILL the checkpoint of a solve is loaded and no older than before, and the next process goes on from it; a
reconstruction, a CXI file and both files of a Ptychodus pair are there as a whole. At the end the solve that was killed
is compared, to the last bit, with one of as many sweeps that was not. Exit code 1 on any failure.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from kill import Tally, end, fork, phase_of, small_run
from ptycho_core_reference import ReferenceEngine

from ptycho_core.errors import PtychoError
from ptycho_core.formats.convert import convert, save_scan
from ptycho_core.io import load_scan
from ptycho_core.models.model import load_model
from ptycho_core.reconstruction import prepare as reconstruction
from ptycho_core.reconstruction.result import load_reconstruction
from ptycho_core.runs.reconstruct import reconstruct_into
from ptycho_core.runs.solve import solve_into
from ptycho_core.runs.train import train_into
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.simulation import simulate
from ptycho_core.solving import loop
from ptycho_core.solving.checkpoint import SOLVING_NAME, load_solve_checkpoint
from ptycho_core.solving.loop import Solving

SWEEPS = 5000
"""More than a solve lives for."""
RESULTS = {"solving": SOLVING_NAME, "reconstructing": "reconstruction.npz", "converting": "product.h5"}
METRES = ReadOptions(energy_eV=8000.0, distance_m=1.0, detector_pixel_m=75e-6)
CONFIG = SolveConfig(sweeps=SWEEPS, batches=2, modes="1", refine="probe", prior="none")


def scan_of(seed: int = 0) -> Scan:
    return simulate(N=16, positions=12, step_px=3, photons=1e5, seed=seed)


def solve_on(folder: Path) -> None:
    resume = load_solve_checkpoint(folder) if (folder / SOLVING_NAME).exists() else None
    solve_into(folder, scan_of(), CONFIG, resume=resume)


def solved(folder: Path) -> int:
    """The sweeps that are done."""
    return load_solve_checkpoint(folder).sweep if (folder / SOLVING_NAME).exists() else 0


def same_solve(folder: Path) -> bool:
    killed = load_solve_checkpoint(folder)
    run = Solving(scan_of(), CONFIG)
    for event in run:
        if event.kind == "sweep" and event.done == killed.sweep:
            break
    whole = run.checkpoint()
    return all(np.array_equal(whole.weights[name], array) for name, array in killed.weights.items())


def reconstruct_on(folder: Path) -> None:
    model = load_model(folder.parent / "model")
    for seed in itertools.count():
        reconstruct_into(folder, scan_of(seed), model)


def reconstructed(folder: Path) -> int:
    if (folder / "reconstruction.npz").exists():
        assert np.isfinite(load_reconstruction(folder).object_field).all()
    return 0


def convert_on(folder: Path) -> None:
    while True:
        for target in ("scan.cxi", "pair"):
            convert(folder.parent / "scan.npz", folder / target, METRES)


def converted(folder: Path) -> int:
    source = load_scan(folder.parent / "scan.npz")
    for target in ("scan.cxi", "pair/diffraction.h5"):
        if (folder / target).exists():
            read = load_scan(folder / target)
            if not np.array_equal(read.diffraction_amplitude, source.diffraction_amplitude):
                raise PtychoError(f"{folder / target}: other patterns")
    return 0


def kill(
    part: str, work: Callable[[Path], None], look: Callable[[Path], int], kills: int, at: Path, tally: Tally
) -> None:
    """Start, wait, kill, look; over and over."""
    folder, done = at / part, 0
    folder.mkdir()
    for number in range(kills):
        child = fork(work, folder)
        time.sleep(random.uniform(0, 1.2 if number % 5 else 0.1))
        alive = child.is_alive()
        end(child)
        if not alive:
            tally.failures.append(f"{part}, kill {number}: it had ended by itself")
        phase = phase_of(folder, "working")
        try:
            after, whole = look(folder), True
            if after < done:
                tally.failures.append(f"{part}, kill {number}: sweep {after} after sweep {done}")
            done = after
        except (PtychoError, OSError, AssertionError) as error:
            whole = False
            tally.failures.append(f"{part}, kill {number}, {phase}: {error}")
        tally.killed(part, phase, whole)
    if not any(path.is_file() for path in folder.rglob(RESULTS[part])):
        tally.failures.append(f"{part}: nothing was ever written")
    if part == "solving":
        same = same_solve(folder)
        tally.same[part] = f"{done} sweeps, " + ("the same to the last bit" if same else "different")
        if not same:
            tally.failures.append(f"{part}: other weights than those of a run that was not killed")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=90, help="in all, a third for each work")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    asked = parser.parse_args()
    random.seed(asked.seed)
    logging.disable(logging.WARNING)
    loop.load_engine = lambda backend: ReferenceEngine()  # type: ignore[assignment]
    reconstruction.find_engine = lambda backend: ReferenceEngine  # type: ignore[assignment]
    tally, begun = Tally(), time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        at = Path(place)
        save_scan(at / "scan.npz", scan_of())
        _, config = small_run(scale=1, nepochs=1)
        train_into(at / "model", scan_of(), config)
        works = (("solving", solve_on, solved), ("reconstructing", reconstruct_on, reconstructed))
        for part, work, look in (*works, ("converting", convert_on, converted)):
            kill(part, work, look, max(1, asked.kills // 3), at, tally)
    print(tally.table())
    print(f"{time.monotonic() - begun:.0f} s")
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
