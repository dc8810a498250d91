"""Quality of reconstructions: real and simulated scans, both engines, the recipe stated in the output.

    python benchmarks/quality.py star-1 star-2 star-half simulated dose --backend torch --backend tensorflow

star-1, star-2: the real Siemens star, gridsize 1 and 2; complex correlation with its iterative reference over rows and
columns 50:190 (global phase removed). star-half: trained on the upper half of the positions, reported for each half.
simulated: a Siemens-star object under a measured probe, 1000 random positions, 1e6 photons per frame, and a second
object of the same kind that the network has not seen. dose: mean |object| of one scan at 1e4, 1e6 and 1e8 photons per
frame.
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

import numpy as np
from cases import STAR, XPP_PROBE, print_table, require
from numpy.typing import NDArray

from ptycho_core import ModelConfig, Scan, TrainingConfig, fit, load_scan, reconstruct, simulate
from ptycho_core.models.model import Model
from ptycho_core.quality.evaluation import evaluate
from ptycho_core.quality.metrics import complex_correlation
from ptycho_core.reconstruction.result import Reconstruction

WINDOW = slice(50, 190)
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


def window(result: Reconstruction, rows: slice = WINDOW) -> NDArray[np.complex64]:
    """Rows and columns of the object grid, whatever the canvas."""
    x, y = (int(origin) for origin in result.origin_px)
    return result.object_field[rows.start - y : rows.stop - y, WINDOW.start - x : WINDOW.stop - x]


def star(backend: str, out: Path, gridsize: int, epochs: int) -> list[Row]:
    scan = load_scan(require(STAR))
    model = ModelConfig(gridsize=gridsize)
    config = TrainingConfig(model=model, backend=backend, nepochs=epochs, n_groups=len(scan))
    trained, seconds = run(scan, config)
    result = reconstruct(scan, trained, backend=backend)
    np.save(out / f"star-{gridsize}-{backend}.npy", window(result))
    assert scan.object_field is not None
    reference = scan.object_field[WINDOW, WINDOW]
    rows: list[Row] = [
        [
            f"star, gridsize {gridsize}",
            backend,
            epochs,
            "correlation",
            complex_correlation(window(result), reference),
            seconds,
        ]
    ]
    comparison = evaluate(result, scan.object_field)
    rows += [
        [f"star, gridsize {gridsize}", backend, epochs, f"SSIM {name}", quality.ssim, seconds]
        for name, quality in (("amplitude", comparison.metrics.amplitude), ("phase", comparison.metrics.phase))
    ]
    for other in sorted(out.glob(f"star-{gridsize}-*.npy")):
        if other.stem != f"star-{gridsize}-{backend}":
            agreement = complex_correlation(window(result), np.load(other))
            rows.append(
                [f"star, gridsize {gridsize}", backend, epochs, f"correlation with {other.stem}", agreement, seconds]
            )
    return rows


def star_half(backend: str, out: Path, epochs: int) -> list[Row]:
    scan = load_scan(require(STAR))
    middle = float(np.median(scan.positions_px[:, 1]))
    upper = scan.subset(scan.positions_px[:, 1] < middle)
    trained, seconds = run(upper, TrainingConfig(backend=backend, nepochs=epochs, n_groups=len(upper)))
    result = reconstruct(scan, trained, backend=backend)
    assert scan.object_field is not None
    # A frame of the upper half lights N/4 rows beyond the middle: the lower half begins below them.
    halves = {"upper half (trained)": slice(50, int(middle)), "lower half (unseen)": slice(int(middle) + 16, 190)}
    rows: list[Row] = []
    for name, half in halves.items():
        figure = complex_correlation(window(result, half), scan.object_field[half, WINDOW])
        rows.append(["star, half a scan", backend, epochs, f"correlation, {name}", figure, seconds])
    return rows


def simulated(backend: str, out: Path, epochs: int, kind: str = "siemens-star") -> list[Row]:
    seen, unseen = (
        simulate(object=kind, probe=require(XPP_PROBE), positions=1000, photons=1e6, seed=seed) for seed in (0, 1)
    )
    # The probe is wide, so nothing is padded; small batches reach a given quality in far fewer patterns.
    model = ModelConfig(n_filters_scale=1, pad_object=False)
    trained, seconds = run(
        seen, TrainingConfig(model=model, backend=backend, nepochs=epochs, batch_size=4, n_groups=1000)
    )
    rows: list[Row] = []
    for name, scan in (("trained on", seen), ("unseen", unseen)):
        assert scan.object_field is not None
        metrics = evaluate(reconstruct(scan, trained, backend=backend), scan.object_field).metrics
        case = f"simulated {kind}"
        rows.append([case, backend, epochs, f"correlation, {name}", metrics.correlation_before_alignment, seconds])
        rows.append([case, backend, epochs, f"SSIM amplitude, {name}", metrics.amplitude.ssim, seconds])
        rows.append([case, backend, epochs, f"SSIM phase, {name}", metrics.phase.ssim, seconds])
    return rows


def dose(backend: str, out: Path, epochs: int) -> list[Row]:
    rows: list[Row] = []
    for photons in (1e4, 1e6, 1e8):
        scan = simulate(object="siemens-star", N=32, positions=600, photons=photons)
        model = ModelConfig(N=32, n_filters_scale=1)
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
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", choices=list(CASES))
    parser.add_argument("--backend", action="append", required=True, help="engine; give it twice for both")
    parser.add_argument("--epochs", type=int, help="instead of each case's own")
    parser.add_argument("--out", type=Path, default=Path("benchmark-quality"), help="folder for objects and figures")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for name in arguments.cases:
        function, settings = CASES[name]
        if arguments.epochs:
            settings = {**settings, "epochs": arguments.epochs}
        for backend in arguments.backend:
            print(f"{name}, {backend}", flush=True)
            case_rows = function(backend, arguments.out, **settings)
            (arguments.out / f"{name}-{backend}.json").write_text(json.dumps(case_rows))
            rows += case_rows
    print_table(("case", "engine", "epochs", "figure", "value", "training s"), rows)


if __name__ == "__main__":
    main()
