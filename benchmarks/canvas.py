"""The canvas network beside its own data steps and beside the solver: `python benchmarks/quality.py canvas`.

Trained for `epochs` of 64 groups of 16 on one scan, then used on an object of the same kind that it has not seen. Rows:
correlation with the truth; SSIM of amplitude and phase; the epoch that was best (0: the data steps alone); CPU time a
pattern of training and of prediction. The real star has no truth: R, correlation
with its iterative reference and, also of a part of its counts, with the solve of all.
`canvas-scans`: objects of two kinds under two probes. One model is trained on both, beside one for each; then, for
each, one for twice as long, and one for 3/16 of that from the start and from the model of the other; all see an unseen
object.
`canvas-synthetic`: trained on 40 simulated scans that differ in everything, by their counts and by their truth; then
used, as it is, under a measured probe that it has not seen, beside its data steps and some sweeps of the solver.
"""

from __future__ import annotations

import itertools
import time

import attrs
import numpy as np
from cases import STAR, WINDOW, XPP_PROBE, figures_of, require, window

from ptycho_core import (
    ModelConfig,
    Reconstruction,
    Scan,
    SolveConfig,
    TrainingConfig,
    fit,
    load_scan,
    reconstruct,
    simulate,
    solve,
)
from ptycho_core.models.model import Model
from ptycho_core.quality.metrics import complex_correlation
from ptycho_core.simulation.many import VARIED, varied
from ptycho_core.simulation.thinning import thinned

Row = list[object]
GROUPS = 64
MANY, GROUPS_EACH = 40, 8
"""Simulated scans of one training, and groups of each in an epoch."""
CASES = {
    "1e6 photons": {"photons": 1e6},
    "1e6 photons, 8 warm sweeps": {"photons": 1e6, "warm_sweeps": 8},
    "1e4 photons": {"photons": 1e4},
    "1e3 photons": {"photons": 1e3},
    "1e6 photons, step 16 px": {"photons": 1e6, "step_px": 16.0},
    "1e6 photons, step 24 px": {"photons": 1e6, "step_px": 24.0},
}
KINDS = {
    "star, measured probe": {"object": "siemens-star"},
    "lines, zone plate": {"object": "lines", "probe": "defocused-zone-plate"},
}


def rows(backend: str, epochs: int, only: str = "") -> list[Row]:
    found: list[Row] = []
    for case, settings in CASES.items():
        if only not in case:
            continue
        simulated = {name: value for name, value in settings.items() if name != "warm_sweeps"}
        seen, unseen = (
            simulate(object="siemens-star", probe=require(XPP_PROBE), positions=1000, seed=seed, **simulated)  # type: ignore[arg-type]
            for seed in (0, 1)
        )
        model, per_pattern = trained(seen, backend, epochs, warm_sweeps=int(settings.get("warm_sweeps", 0)))
        for name, each in (("trained", model), ("data steps alone", untrained(model))):
            began = time.process_time()
            result = reconstruct(unseen, each, backend=backend)
            spent = time.process_time() - began
            found += truth_rows(f"{case}, {name}", backend, epochs, result, unseen, per_pattern)
            predicted = 1e3 * result.seconds["predict"] / len(unseen)
            found.append([f"{case}, {name}", backend, epochs, "ms a pattern, prediction", predicted, spent])
        found.append([case, backend, epochs, "best epoch", model.best_epoch, per_pattern])
        solved = solve(unseen, SolveConfig(backend=backend))
        found += truth_rows(f"{case}, solved", backend, 20, solved, unseen, solved.seconds["total"])
    if only in "star":
        found += star(backend, epochs)
    return found


def several(backend: str, epochs: int) -> list[Row]:
    """Two scans in one training beside one of its own for each; and the model of the other as a beginning."""
    scans = {
        name: [
            simulate(**{"probe": require(XPP_PROBE), "positions": 1000, "photons": 1e6, "seed": seed, **settings})  # type: ignore[arg-type]
            for seed in (0, 1)
        ]
        for name, settings in KINDS.items()
    }
    short, long = max(1, 3 * epochs // 8), 2 * epochs
    seen = [pair[0] for pair in scans.values()]
    together = trained(seen, backend, epochs)
    alone = {name: trained(pair[0], backend, epochs) for name, pair in scans.items()}
    found: list[Row] = []
    for name, (own, unseen) in scans.items():
        (other,) = (model for kind, (model, _) in alone.items() if kind != name)
        for way, passes, (model, cost) in (
            ("alone", epochs, alone[name]),
            ("two scans in one training", epochs, together),
            ("alone", long, trained(own, backend, long)),
            ("alone", short, trained(own, backend, short)),
            ("from the model of the other", short, trained(own, backend, short, begin_from=other)),
            ("the model of the other, as it is", 0, (other, 0.0)),
        ):
            result = reconstruct(unseen, model, backend=backend)
            found += truth_rows(f"{name}, {way}", backend, passes, result, unseen, cost)
            seconds = cost * passes * GROUPS * model.config.model.channels / 1e3
            what = "best epoch; CPU s a scan"
            found.append([f"{name}, {way}", backend, passes, what, f"{model.best_epoch}; {seconds:.1f}", cost])
    return found


def synthetic(backend: str, epochs: int) -> list[Row]:
    """One model of many simulated scans, on scans of another probe; and how many sweeps of the solver that is worth."""
    scans = [
        simulate(positions=400, **drawn)  # type: ignore[arg-type]
        for drawn in varied(MANY, VARIED, N=64)
    ]
    models = {
        f"trained by {what}{', 8 warm sweeps' * (warm > 0)}": trained(
            scans, backend, epochs, groups=GROUPS_EACH, model_type=kind, warm_sweeps=warm
        )
        for kind, what, warm in (("pinn", "counts", 0), ("supervised", "truth", 0), ("pinn", "counts", 8))
    }
    found: list[Row] = []
    for kind, photons in itertools.product(("siemens-star", "lines", "dead-leaves"), (1e3, 1e4, 1e6)):
        unseen = simulate(object=kind, probe=require(XPP_PROBE), positions=1000, photons=photons, seed=1)
        case = f"{kind}, {photons:.0e}"
        for name, (model, cost) in models.items():
            result = reconstruct(unseen, model, backend=backend)
            found += truth_rows(f"{case}, {name}", backend, model.best_epoch, result, unseen, cost)
            if name.startswith("trained by counts"):
                result = reconstruct(unseen, untrained(model), backend=backend)
                steps = name.replace("trained by counts", "data steps alone")
                found += truth_rows(f"{case}, {steps}", backend, 0, result, unseen, 0.0)
        for sweeps in (1, 2, 5, 10, 20):
            plain = SolveConfig(backend=backend, sweeps=sweeps, modes="1", refine="none", prior="none")
            solved = solve(unseen, plain)
            found += truth_rows(f"{case}, solved", backend, sweeps, solved, unseen, solved.seconds["total"])
    return found


def star(backend: str, epochs: int) -> list[Row]:
    """The real star as it is, then thinned: likeness to the solve of its full dose."""
    scan = attrs.evolve(load_scan(require(STAR)), dose_known=True)
    assert scan.object_field is not None
    known, full = scan.object_field[WINDOW, WINDOW], solve(scan, SolveConfig(backend=backend))
    cases = {
        "real star": (scan, 0),
        "real star, 8 warm sweeps": (scan, 8),
        "real star 1/30": (thinned(scan, 1 / 30, np.random.default_rng(0)), 0),
        "real star 1/300": (thinned(scan, 1 / 300, np.random.default_rng(0)), 0),
    }
    found: list[Row] = []
    for case, (each, warm) in cases.items():
        model, cost = trained(each, backend, epochs, warm_sweeps=warm)
        results = {
            "trained": reconstruct(each, model, backend=backend),
            "data steps alone": reconstruct(each, untrained(model), backend=backend),
            "solved": solve(each, SolveConfig(backend=backend)),
        }
        for name, result in results.items():
            for figure, value in (
                ("correlation with the iterative reference", complex_correlation(window(result), known)),
                ("correlation with the solve of the full dose", complex_correlation(window(result), window(full))),
                ("R", result.R),
            ):
                found.append([f"{case}, {name}", backend, epochs, figure, value, cost])
        found.append([case, backend, epochs, "best epoch", model.best_epoch, cost])
    return found


def trained(
    scan: Scan | list[Scan],
    backend: str,
    epochs: int,
    begin_from: Model | None = None,
    groups: int = GROUPS,
    **model: int | str,
) -> tuple[Model, float]:
    """The model, and ms of CPU time a pattern, judging included."""
    config = TrainingConfig(
        model=ModelConfig(architecture="canvas", **model),  # type: ignore[arg-type]
        backend=backend,
        nepochs=epochs,
        batch_size=1,
        n_groups=groups,
    )
    run = fit(scan, config, begin_from=begin_from)
    began = time.process_time()
    for report in run:
        print(f"  epoch {report.epoch}  {report.message}", flush=True)
    assert run.model is not None
    return run.model, 1e3 * (time.process_time() - began) / (epochs * run.patterns_per_epoch)


def untrained(model: Model) -> Model:
    """The same network with what its heads add left out."""
    weights = {name: np.zeros_like(a) if "/head/" in name else a for name, a in model.weights.items()}
    return attrs.evolve(model, weights=weights)


def truth_rows(case: str, backend: str, passes: int, result: Reconstruction, scan: Scan, cost: float) -> list[Row]:
    return [[case, backend, passes, figure, value, cost] for figure, value in figures_of(result, scan).items()]
