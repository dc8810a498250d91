"""Makes the learned prior again from nothing, by the commands of docs/prior.md, and measures it.

    python benchmarks/make_prior.py OUT

360 scans are simulated into OUT/scans, a prior is trained from them into OUT/prior, and the unseen objects of
`benchmarks/quality.py prior` are solved with it. Takes some 35 minutes on two cores. Rows: likeness and held-out
deviance, `learned` and `alternating`, to be held beside those of the table in docs/prior.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import prior
from cases import print_table

from ptycho_core.solving import learned

PRIORS = ("learned", "alternating")


def ptycho(*arguments: str) -> float:
    """Runs a command; its seconds."""
    begun_at = time.perf_counter()
    subprocess.run([sys.executable, "-m", "ptycho_core", *arguments], check=True)
    return time.perf_counter() - begun_at


def measured(path: Path, backend: str) -> list[prior.Row]:
    """With the prior in a file in place of that of the package."""
    learned.SHIPPED = path  # before it is first read
    asked = prior.Asked(backend, 20)
    rows: list[prior.Row] = []
    for kind in ("siemens-star", "lines", "dead-leaves"):
        for photons in (1e3, 1e4):
            scan = prior.simulated(kind, photons)
            rows += prior.beside_each_other(f"{kind} {photons:.0e}", scan, prior.on_canvas(scan), asked, PRIORS)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="new folder")
    parser.add_argument("--backend", default="torch", help="engine that trains and solves")
    parser.add_argument("--many", default="360", help="scans; what is not listed here is for `ptycho train-prior`")
    arguments, more = parser.parse_known_args()
    arguments.out.mkdir()
    scans, made = str(arguments.out / "scans"), arguments.out / "prior"
    simulating = ptycho("simulate", scans, "--many", arguments.many, "--positions", "400")
    training = ptycho("train-prior", scans, "--out", str(made), "--backend", arguments.backend, *more)
    print(f"simulated in {simulating:.0f} s, solved and trained in {training:.0f} s", flush=True)
    print_table(
        ("case", "engine", "sweeps", "figure", "value", "s"), measured(made / "prior.h5.zip", arguments.backend)
    )


if __name__ == "__main__":
    main()
