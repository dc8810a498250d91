"""Make `siemens_star_64.npz`, the real scan of the figures, and its reference from the file that the public has.

    python examples/make_siemens_star.py siemens-star-small.npz.bz2 siemens_star_64.npz

The file is in the repository AdvancedPhotonSource/tike, in `tests/data`, at commit 8e1f9372. Its detector is cropped to
the 64 × 64 pixels about the direct beam. Probe and object, `probeGuess` and `objectGuess`, are those of a solve that
begins with the probe of the file: a reference, no truth, with which `ptycho evaluate` compares (`--truth`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import attrs
import numpy as np

from ptycho_core import Scan, SolveConfig, load_scan, save_scan, solve


def main(published: Path, target: Path, backend: str = "auto", sweeps: int = 60) -> Scan:
    scan = load_scan(
        published,
        dataset="data",
        measurement="intensity",
        dc="corner",
        crop=64,
        positions="scan",
        position_order="yx",
        position_unit="px",
        probe="probe",
    )
    result = solve(scan, SolveConfig(backend=backend, sweeps=sweeps, modes="1", refine="probe", prior="none"))
    print(f"{len(scan)} patterns, R {result.R:.4f}, held-out misfit {result.H:.4f}")
    reference = attrs.evolve(
        scan,
        positions_px=scan.positions_px - np.asarray(result.origin_px),  # the object's pixel [0, 0] is at (0, 0)
        nominal_positions_px=None,
        probe=result.probe,
        object_field=result.object_field,
        metadata={"name": "siemens-star-small, 64 x 64 pixels", "source": published.name},
    )
    save_scan(target, reference)
    print(f"{target}: compare with it by: ptycho evaluate RESULT --truth {target}")
    return reference


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("published", type=Path)
    parser.add_argument("target", type=Path, nargs="?", default=Path("siemens_star_64.npz"))
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--sweeps", type=int, default=60)
    arguments = parser.parse_args()
    main(arguments.published, arguments.target, arguments.backend, arguments.sweeps)
