"""Solve a scan without a network, follow it sweep by sweep, and draw the object with its trust map.

    python examples/solve_a_scan.py                            # a small simulated scan, compared with the truth
    python examples/solve_a_scan.py siemens_star_64.npz        # yours; of this one it draws the picture of README.md

Probe, modes, intensities, positions and prior are refined where held-out pixels say that it helps.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ptycho_core import Reconstruction, SolveConfig, Solving, evaluate, load_scan, simulate
from ptycho_core.report.plots import plot_reconstruction


def main(scan_file: Path | None = None, backend: str = "auto", sweeps: int = 20) -> Reconstruction:
    if scan_file is None:
        scan = simulate(object="siemens-star", N=32, positions=200, photons=1e5, seed=1)
    else:
        scan = load_scan(scan_file)

    solving = Solving(scan, SolveConfig(backend=backend, sweeps=sweeps, split_half=True))
    for event in solving:  # leave the loop to stop; the last whole sweep is kept
        print(event.line)  # the payload of a SweepReport holds the object so far
    result = solving.result()
    result.save("solved")  # load_reconstruction("solved")
    plot_reconstruction(result, "solved/object.png", object_alone=True)

    assert result.frc is not None  # split_half
    print(f"R {result.R:.4f}, on held-out pixels {result.H:.4f}; resolution {result.frc.resolution(result.pixel_m)}")
    if scan.object_field is not None:
        print(evaluate(result, scan.object_field).table())
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", type=Path, nargs="?")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--sweeps", type=int, default=20)
    options = parser.parse_args()
    main(options.scan, options.backend, options.sweeps)
