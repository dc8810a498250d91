"""Teach a prior on your own good scans, without ground truth, and solve a scan of few photons with it.

    python examples/teach_a_prior.py                       # two simulated scans stand in for yours
    python examples/teach_a_prior.py good_scans/ new.h5    # a folder of scans in photons, and one that has few

Each good scan is solved with all of its photons and again with a part of them; a small network learns what the missing
photons leave in the object. On the command line: `ptycho train-prior good_scans/ --from-scans --out my_prior`, then
`ptycho solve new.h5 --prior my_prior`. The prior of the package learned from simulated scans of many kinds; one of your
own knows your objects and your probe, and nothing else.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import attrs

from ptycho_core import Reconstruction, SolveConfig, evaluate, load_scan, save_scan, simulate, solve
from ptycho_core.runs.console import Output
from ptycho_core.runs.train_prior import train_prior_into
from ptycho_core.settings.prior import PriorConfig


def stand_ins(folder: Path) -> Path:
    """Two good scans as they are measured, without their truth, in `folder`; and a third of few photons, with it."""
    folder.mkdir()
    for seed in (1, 2):
        scan = simulate(object="dead-leaves", N=32, positions=100, photons=2e5, seed=seed)
        save_scan(folder / f"good-{seed}.npz", attrs.evolve(scan, object_field=None))
    new = Path("new.npz")
    save_scan(new, simulate(object="dead-leaves", N=32, positions=100, photons=5e3, seed=3))
    return new


def main(
    folder: Path | None = None,
    new: Path | None = None,
    backend: str = "auto",
    epochs: int = 20,
    steps: int = 30,
    sweeps: int = 20,
    widths: str = "16,32,64",
) -> dict[str, Reconstruction]:
    if folder is None or new is None:
        folder = Path("good_scans")
        new = stand_ins(folder)

    settings = PriorConfig(
        scans_dir=folder,
        from_scans=True,
        backend=backend,
        epochs=epochs,
        steps=steps,
        sweeps=sweeps,
        widths=widths,
        crop_px=64,
    )
    taught = train_prior_into(Path("my_prior"), settings, output=Output())
    if taught.stop is not None:
        raise taught.stop

    scan = load_scan(new)
    results = {}
    for prior in ("none", "my_prior"):
        config = SolveConfig(backend=backend, sweeps=sweeps, refine="none", modes="1", prior=prior)
        result = results[prior] = solve(scan, config)
        line = f"prior {prior}: held-out deviance {result.deviance:.4f}"
        if scan.object_field is not None:
            line += f", correlation with the truth {evaluate(result, scan.object_field).metrics.correlation:.3f}"
        print(line)
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("new", type=Path, nargs="?")
    parser.add_argument("--backend", default="auto")
    options = parser.parse_args()
    main(options.folder, options.new, options.backend)
