"""Kills one of several processes of a training, at random moments, and looks at what is left.

    python benchmarks/kill_ranks.py --kills 20 --backend torch --backend tensorflow

Every run goes on from the checkpoint of the one that was killed before it. After each kill: the command ends within
30 s, with an error and a message that names the process, and the checkpoint is whole. At the end the run goes on
undisturbed, and is compared, to the last bit, with one that was never disturbed. Exit code 1 on any failure.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ptycho_core.formats.convert import save_scan
from ptycho_core.models.checkpoint import CHECKPOINT_NAME, load_checkpoint
from ptycho_core.models.model import load_model
from ptycho_core.simulation import simulate

NETWORK = ("--architecture", "cnn", "--n-filters-scale", "1", "--gridsize", "1")
SETTINGS = (*NETWORK, "--n-groups", "32", "--batch-size", "8", "--scheduler", "Default")
LIMIT_S, PATIENCE_S = 30, 240


def command(folder: Path, backend: str, epochs: int, *more: str) -> list[str]:
    fixed = ("--out", str(folder), "--backend", backend, "--devices", "2", "--nepochs", str(epochs))
    return [sys.executable, "-m", "ptycho_core", "train", *fixed, *more]


def children_of(process: int) -> list[int]:
    """Its processes that train, by rank as far as they have begun."""
    found = {}
    for each in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((each / "stat").read_text().rpartition(")")[2].split()[1])
            environment = (each / "environ").read_bytes().split(b"\0")
        except (OSError, ValueError):
            continue
        if parent == process:
            for word in environment:
                if word.startswith(b"RANK="):
                    found[int(word[5:])] = int(each.name)
                elif word.startswith(b"TF_CONFIG="):
                    found[int(word.rpartition(b": ")[2].rstrip(b"} "))] = int(each.name)
    return [found[rank] for rank in sorted(found)]


def killed(folder: Path, backend: str, scan: Path, rng: random.Random) -> list[str]:
    """What was wrong about one kill."""
    file = folder / CHECKPOINT_NAME
    begun = file.stat().st_mtime_ns if file.exists() else None
    more = ("--resume",) if begun else (str(scan), *SETTINGS)
    run = subprocess.Popen(command(folder, backend, 10**5, *more), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and not (file.exists() and file.stat().st_mtime_ns != begun):
        time.sleep(0.05)
    time.sleep(rng.random())
    children = children_of(run.pid)
    if len(children) != 2:
        run.kill()
        return [f"{len(children)} processes"]
    rank = rng.randrange(2)
    os.kill(children[rank], signal.SIGKILL)
    at = time.monotonic()
    try:
        text = run.communicate(timeout=LIMIT_S)[1].decode()
    except subprocess.TimeoutExpired:
        run.kill()
        return [f"not ended after {LIMIT_S} s"]
    faults = []
    if run.returncode == 0 or f"process {rank + 1} of 2 was ended by SIGKILL" not in text:
        faults.append(f"exit code {run.returncode}: {text[-300:]}")
    if "Traceback" in text:
        faults.append(f"a traceback: {text[-600:]}")
    done = load_checkpoint(file)
    load_model(folder)
    print(
        f"{backend}: process {rank + 1} killed, ended after {time.monotonic() - at:.1f} s, {len(done.history)} epochs",
        flush=True,
    )
    return faults


def compared(one: Path, other: Path) -> list[str]:
    ours, theirs = load_checkpoint(one), load_checkpoint(other)
    faults = [name for name, array in ours.weights.items() if not np.array_equal(array, theirs.weights[name])]
    return (
        faults
        if len(ours.history) == len(theirs.history)
        else [f"{len(ours.history)} and {len(theirs.history)} epochs"]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--backend", action="append", required=True)
    asked = parser.parse_args()
    faults = []
    with tempfile.TemporaryDirectory() as place:
        scan = Path(place) / "scan.npz"
        save_scan(scan, simulate(N=32, positions=100, step_px=4, seed=1))
        for backend in asked.backend:
            folder, rng = Path(place) / backend, random.Random(1)
            for _ in range(asked.kills):
                faults += [f"{backend}: {fault}" for fault in killed(folder, backend, scan, rng)]
            epochs = len(load_checkpoint(folder).history) + 2
            subprocess.run(command(folder, backend, epochs, "--resume"), check=True, capture_output=True)
            whole = Path(place) / f"{backend}-whole"
            subprocess.run(command(whole, backend, epochs, str(scan), *SETTINGS), check=True, capture_output=True)
            differ = compared(folder, whole)
            print(
                f"{backend}: after {epochs} epochs {'other weights' if differ else 'the same weights, to the last bit'}"
            )
            faults += [f"{backend}: {name} differs" for name in differ]
    for fault in faults:
        print(fault)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
