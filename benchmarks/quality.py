"""Quality of reconstructions: real and simulated scans, both engines, the recipe stated in the output.

    python benchmarks/quality.py star-1 star-2 star-half simulated dose solve prior --backend torch --backend tensorflow

star-1, star-2: the real Siemens star, gridsize 1 and 2; complex correlation with its iterative reference over rows and
columns 50:190 (global phase removed). star-half: trained on the upper half of the positions, reported for each half.
simulated: a Siemens-star object under a measured probe, 1000 random positions, 1e6 photons per frame, and a second
object of the same kind that the network has not seen. dose: mean |object| of one scan at 1e4, 1e6 and 1e8 photons per
frame. solve: no network; the same star, and the unseen object, solved with the defaults; beside pty-chi, where it is
installed (benchmarks/pty_chi.py). prior: objects at few photons without a prior, with total variation and with the
learned one, and what is left of what is faint (benchmarks/prior.py); canvas: the canvas network on objects that it has
not seen, beside its own data steps and the solver (benchmarks/canvas.py); canvas-scans: two scans of two probes in one
training, and a model of one as the beginning for the other; canvas-synthetic: one model of 40 simulated
scans, as it is on others; generators: networks of other publications beside ours, in equal CPU time
(benchmarks/generators.py); picture: few_photons.png and unseen.png, in --out.
The star was measured at the Advanced Photon Source and comes with tike (tests/data/siemens-star-small.npz.bz2): central
64 x 64 pixels, square root of the counts, positions halved; the reference is 60 epochs of ePIE. The measured probe is
that of LCLS XPP run 1084. PTYCHO_SHARED_DATA names the folder that holds both.
Objects are kept in --out, so that engines run in separate calls are compared too.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import canvas as canvases
import generators as published
import numpy as np
import prior as priors
import pty_chi
from cases import STAR, WINDOW, XPP_PROBE, figures_of, print_table, require, window

from ptycho_core import (
    ModelConfig,
    Scan,
    SolveConfig,
    TrainingConfig,
    fit,
    load_scan,
    reconstruct,
    simulate,
)
from ptycho_core import solve as solve_scan
from ptycho_core.models.model import Model
from ptycho_core.quality.evaluation import evaluate
from ptycho_core.quality.metrics import complex_correlation
from ptycho_core.reconstruction.result import Reconstruction
from ptycho_core.report.plots import plot_beside

Row = list[object]


def run(scan: Scan, config: TrainingConfig) -> tuple[Model, float]:
    """The trained model and the seconds it took; a line for every epoch on stdout."""
    started = time.perf_counter()
    training = fit(scan, config)
    for report in training:
        print(
            f"  epoch {report.epoch}/{report.nepochs}  loss {report.train['total']:.5f}  {report.seconds:.1f} s",
            flush=True,
        )
    assert training.model is not None
    return training.model, time.perf_counter() - started


def star(backend: str, out: Path, gridsize: int, epochs: int) -> list[Row]:
    scan = load_scan(require(STAR))
    model = ModelConfig(architecture="cnn", gridsize=gridsize)
    config = TrainingConfig(model=model, backend=backend, nepochs=epochs, n_groups=len(scan))
    trained, seconds = run(scan, config)
    result = reconstruct(scan, trained, backend=backend)
    return star_rows(f"star, gridsize {gridsize}", f"star-{gridsize}", backend, out, scan, result, epochs, seconds)


def star_rows(
    case: str, kept: str, backend: str, out: Path, scan: Scan, result: Reconstruction, passes: int, seconds: float
) -> list[Row]:
    """Likeness to the iterative reference, and to the objects of other engines, which are kept under a name."""
    np.save(out / f"{kept}-{backend}.npy", window(result))
    assert scan.object_field is not None
    metrics = evaluate(result, scan.object_field).metrics
    figures = {
        "correlation": complex_correlation(window(result), scan.object_field[WINDOW, WINDOW]),
        "SSIM amplitude": metrics.amplitude.ssim,
        "SSIM phase": metrics.phase.ssim,
    }
    for other in sorted(out.glob(f"{kept}-*.npy")):
        if other.stem != f"{kept}-{backend}":
            figures[f"correlation with {other.stem}"] = complex_correlation(window(result), np.load(other))
    return [[case, backend, passes, name, value, seconds] for name, value in figures.items()]


def star_half(backend: str, out: Path, epochs: int) -> list[Row]:
    scan = load_scan(require(STAR))
    middle = float(np.median(scan.positions_px[:, 1]))
    upper = scan.subset(scan.positions_px[:, 1] < middle)
    model = ModelConfig(architecture="cnn")
    trained, seconds = run(upper, TrainingConfig(model=model, backend=backend, nepochs=epochs, n_groups=len(upper)))
    result = reconstruct(scan, trained, backend=backend)
    assert scan.object_field is not None
    # A frame of the upper half lights N/4 rows beyond the middle: the lower half begins below them.
    halves = {"upper half (trained)": slice(50, int(middle)), "lower half (unseen)": slice(int(middle) + 16, 190)}
    rows: list[Row] = []
    for name, half in halves.items():
        figure = complex_correlation(window(result, half), scan.object_field[half, WINDOW])
        rows.append(["star, half a scan", backend, epochs, f"correlation, {name}", figure, seconds])
    return rows


def two_scans(kind: str) -> tuple[Scan, Scan]:
    """One to train on, and one of another object."""
    seen, unseen = (
        simulate(object=kind, probe=require(XPP_PROBE), positions=1000, photons=1e6, seed=seed) for seed in (0, 1)
    )
    return seen, unseen


def trained_cnn(seen: Scan, backend: str, epochs: int) -> tuple[Model, float]:
    """The probe is wide, so nothing is padded; small batches reach a given quality in far fewer patterns."""
    model = ModelConfig(architecture="cnn", n_filters_scale=1, pad_object=False)
    return run(seen, TrainingConfig(model=model, backend=backend, nepochs=epochs, batch_size=4, n_groups=1000))


def simulated(backend: str, out: Path, epochs: int, kind: str = "siemens-star") -> list[Row]:
    seen, unseen = two_scans(kind)
    trained, seconds = trained_cnn(seen, backend, epochs)
    return [
        row
        for name, scan in (("trained on", seen), ("unseen", unseen))
        for row in truth_rows(kind, name, backend, scan, reconstruct(scan, trained, backend=backend), epochs, seconds)
    ]


def truth_rows(
    kind: str, name: str, backend: str, scan: Scan, result: Reconstruction, passes: int, seconds: float
) -> list[Row]:
    figures = figures_of(result, scan)
    case = f"simulated {kind}"
    return [[case, backend, passes, f"{figure}, {name}", value, seconds] for figure, value in figures.items()]


def solve(backend: str, out: Path, epochs: int, kind: str = "siemens-star") -> list[Row]:
    """`epochs` are sweeps; seconds are those of the whole solve, with its choices and its evidence."""
    config = SolveConfig(backend=backend, sweeps=epochs)
    measured = load_scan(require(STAR))
    result = solve_scan(measured, config)
    rows = star_rows("star, solved", "star-solved", backend, out, measured, result, epochs, result.seconds["total"])
    unseen = simulate(object=kind, probe=require(XPP_PROBE), positions=1000, photons=1e6, seed=1)
    solved = solve_scan(unseen, config)
    rows += truth_rows(kind, "solved", backend, unseen, solved, epochs, solved.seconds["total"])
    return rows + pty_chi.rows(backend)


def prior(backend: str, out: Path, epochs: int) -> list[Row]:
    return priors.rows(priors.Asked(backend, epochs))


def canvas(backend: str, out: Path, epochs: int) -> list[Row]:
    return canvases.rows(backend, epochs)


def canvas_scans(backend: str, out: Path, epochs: int) -> list[Row]:
    return canvases.several(backend, epochs)


def canvas_synthetic(backend: str, out: Path, epochs: int) -> list[Row]:
    return canvases.synthetic(backend, epochs)


def generators(backend: str, out: Path, **asked: Any) -> list[Row]:
    return published.rows(published.Asked(backend, **asked))


def picture(backend: str, out: Path, epochs: int) -> list[Row]:
    return priors.draw(priors.Asked(backend, epochs), out / "few_photons.png") + unseen_object(backend, out)


def unseen_object(backend: str, out: Path) -> list[Row]:
    """A picture of two networks, each a minute of CPU time in training, on an object that they have not seen."""
    seen, unseen = two_scans("siemens-star")
    networks = {"cnn": trained_cnn(seen, backend, 12), "canvas": canvases.trained(seen, backend, 13)}
    results = {name: reconstruct(unseen, model, backend=backend) for name, (model, _) in networks.items()}
    assert unseen.object_field is not None
    plot_beside(
        {name: evaluate(result, unseen.object_field) for name, result in results.items()},
        out / "unseen.png",
        origins_px={name: result.origin_px for name, result in results.items()},
        title="An object that the networks have not seen, and correlations with it",
    )
    return [
        row
        for name, result in results.items()
        for row in truth_rows("siemens-star", name, backend, unseen, result, 0, networks[name][1])
    ]


def dose(backend: str, out: Path, epochs: int) -> list[Row]:
    rows: list[Row] = []
    for photons in (1e4, 1e6, 1e8):
        scan = simulate(object="siemens-star", N=32, positions=600, photons=photons)
        model = ModelConfig(architecture="cnn", N=32, n_filters_scale=1)
        config = TrainingConfig(model=model, backend=backend, nepochs=epochs, batch_size=4, n_groups=600)
        trained, seconds = run(scan, config)
        result = reconstruct(scan, trained, backend=backend)
        comparison = evaluate(result, np.asarray(scan.object_field))
        mean = float(np.abs(result.object_field[comparison.compared]).mean())
        rows.append([f"dose {photons:.0e}", backend, epochs, "mean |object|", mean, seconds])
    return rows


CASES: dict[str, tuple[Callable[..., list[Row]], dict[str, Any]]] = {
    "star-1": (star, {"gridsize": 1, "epochs": 20}),
    "star-2": (star, {"gridsize": 2, "epochs": 12}),
    "star-half": (star_half, {"epochs": 12}),
    "simulated": (simulated, {"epochs": 12}),
    "dose": (dose, {"epochs": 20}),
    "solve": (solve, {"epochs": 20}),
    "prior": (prior, {"epochs": 20}),
    "canvas": (canvas, {"epochs": 13}),
    "canvas-scans": (canvas_scans, {"epochs": 8}),
    "canvas-synthetic": (canvas_synthetic, {"epochs": 6}),
    "generators": (generators, {"seconds": 120.0, "photons": 1e9, "only": ""}),
    "picture": (picture, {"epochs": 20}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", choices=list(CASES))
    parser.add_argument("--backend", action="append", required=True, help="engine; give it twice for both")
    parser.add_argument("--epochs", type=int, help="instead of each case's own")
    parser.add_argument("--seconds", type=float, help="of CPU time that each of the generators trains")
    parser.add_argument("--photons", type=float, help="of a pattern, of the generators")
    parser.add_argument("--only", help="one row of the generators, by its name")
    parser.add_argument("--out", type=Path, default=Path("benchmark-quality"), help="folder for objects and figures")
    arguments = parser.parse_args()
    stated = {key for key in ("epochs", "seconds", "photons", "only") if getattr(arguments, key) is not None}
    for name in arguments.cases:
        if unread := stated - set(CASES[name][1]):
            parser.error(f"{name} has no {', '.join(f'--{key}' for key in sorted(unread))}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for name in arguments.cases:
        function, settings = CASES[name]
        settings = {**settings, **{key: getattr(arguments, key) for key in stated}}
        for backend in arguments.backend:
            print(f"{name}, {backend}", flush=True)
            case_rows = function(backend, arguments.out, **settings)
            (arguments.out / f"{name}-{backend}.json").write_text(json.dumps(case_rows))
            rows += case_rows
    print_table(("case", "engine", "epochs or sweeps", "figure", "value", "training or solving, s"), rows)


if __name__ == "__main__":
    main()
