"""The learned prior, in figures: beside no prior and total variation, both engines.

    python benchmarks/prior.py unseen many real faint time --backend torch --backend tensorflow

unseen: a Siemens star, lines and dead leaves of seeds that the prior never saw, under the measured probe of LCLS XPP
run 1084, which it never saw either; 1000 random positions, 1e3 and 1e4 photons per frame. many: 1e5 and 1e6, the star.
real: the Siemens star of benchmarks/quality.py, its counts thinned to 1/300 and 1/30, against its full dose; and at
its full dose. Likeness: correlation over lit pixels with the truth, or with the full dose; TV (best) has the weight
that the truth would choose, all others know nothing of it. faint: what is left of phase disks of a radius of 3.5 px on
a smooth object, a kind that it never saw. time: a pass over 500 x 500 pixels.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
from cases import STAR, XPP_PROBE, print_table, require
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ptycho_core import Scan, SolveConfig, Solving, load_scan, simulate
from ptycho_core.engine.registry import load_engine
from ptycho_core.models.prior import load_prior
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.simulation.thinning import thinned
from ptycho_core.solving.learned import SHIPPED, cleaned
from ptycho_core.solving.problem import begun

Row = list[object]
HEADER = ("case", "backend", "prior", "likeness", "held-out deviance", "kept")
TV_WEIGHTS = (0.02, 0.05, 0.1, 0.2)
SEED = 99991
PRIOR = ("none", "tv", "learned", "alternating", "auto")


@attrs.frozen(eq=False)
class Solved:
    """canvas: all pixels of the object, 0 where not known. deviance: of held-out pixels."""

    canvas: NDArray[np.complex64]
    known: NDArray[np.bool_]
    deviance: float
    choices: dict[str, Any]


def solved(scan: Scan, backend: str, **settings: Any) -> Solved:
    """A whole solve; what is not set is not refined."""
    run = Solving(scan, SolveConfig(**{"refine": "none", "modes": "1", "backend": backend, **settings}))
    for _ in run:
        pass
    result = run.result()
    assert result.known is not None and result.deviance is not None
    return Solved(result.object_field, result.known, result.deviance, dict(result.choices))


def likeness(one: NDArray[np.complex64], other: NDArray[np.complex64], lit: NDArray[np.bool_]) -> float:
    """Modulus of the correlation over lit pixels; 1 where one is a multiple of the other and a constant."""
    a, b = (field[lit] - field[lit].mean() for field in (one, other))
    return float(abs(np.vdot(a, b)) / (np.linalg.norm(a) * np.linalg.norm(b)))


def light_of(scan: Scan) -> NDArray[np.float64]:
    task = begun(scan, SolveConfig(refine="none", prior="none"))
    return task.light(scan.probe, scan.positions_px) * task.counts_per_intensity


def well_lit(light: NDArray[np.float64]) -> NDArray[np.bool_]:
    return light > 0.5 * np.median(light[light > 0.05 * light.max()])


def on_canvas(scan: Scan) -> NDArray[np.complex64]:
    """The true object on the canvas of a solve."""
    task = begun(scan, SolveConfig(refine="none", prior="none"))
    assert scan.object_field is not None
    truth = np.zeros(task.shape, np.complex64)
    left, top = (round(edge) for edge in task.origin_px)
    part = scan.object_field[max(0, top) :, max(0, left) :][: task.shape[0], : task.shape[1]]
    y, x = max(0, -top), max(0, -left)
    truth[y : y + part.shape[0], x : x + part.shape[1]] = part[: task.shape[0] - y, : task.shape[1] - x]
    return truth


def beside_each_other(
    case: str, scan: Scan, truth: NDArray[np.complex64], backend: str, priors: tuple[str, ...] = PRIOR
) -> list[Row]:
    """A row for every prior, that of TV with the weight that the truth would choose."""
    lit = well_lit(light_of(scan)) & (truth != 0)
    rows: list[Row] = []

    def told(name: str, run: Solved) -> Row:
        chosen = f"{run.choices['prior']} {run.choices['prior_weight'] or ''}".strip()
        row: Row = [case, backend, name, likeness(run.canvas, truth, lit), run.deviance, chosen]
        print(" ", *row, file=sys.stderr, flush=True)
        return row

    for prior in priors:
        if prior == "tv":
            tried = [told(f"tv {w}", solved(scan, backend, prior="tv", prior_weight=w)) for w in TV_WEIGHTS]
            best = max(tried, key=lambda row: float(str(row[3])))
            rows.append([case, backend, "tv (best by the truth)", *best[3:]])
        else:
            rows.append(told(prior, solved(scan, backend, prior=prior)))
    return rows


def simulated(kind: str, photons: float) -> Scan:
    return simulate(object=kind, probe=require(XPP_PROBE), positions=1000, photons=photons, seed=SEED)


def unseen(backend: str) -> list[Row]:
    rows: list[Row] = []
    for kind in ("siemens-star", "lines", "dead-leaves"):
        for photons in (1e3, 1e4):
            scan = simulated(kind, photons)
            rows += beside_each_other(f"{kind} {photons:.0e}", scan, on_canvas(scan), backend)
    return rows


def many(backend: str) -> list[Row]:
    rows: list[Row] = []
    for photons in (1e5, 1e6):
        scan = simulated("siemens-star", photons)
        rows += beside_each_other(f"siemens-star {photons:.0e}", scan, on_canvas(scan), backend)
    return rows


def real(backend: str) -> list[Row]:
    """Of each dose both probes are the file's; the full dose's object is solved without a prior."""
    scan = attrs.evolve(load_scan(require(STAR)), dose_known=True)
    full = solved(scan, backend, prior="none")
    rows: list[Row] = []
    for part in (1 / 300, 1 / 30):
        fewer = thinned(scan, part, np.random.default_rng(SEED))
        rows += beside_each_other(f"real star 1/{1 / part:.0f}", fewer, full.canvas, backend)
    rows += beside_each_other("real star, full", scan, full.canvas, backend, ("none", "auto"))
    return rows


# -- what is faint -----------------------------------------------------------------------------------------------------

FAINT = (0.02, 0.04, 0.08, 0.16, 0.32, 0.64)


def faint_object(side: int = 420) -> tuple[NDArray[np.complex64], list[tuple[int, int, float]]]:
    """A smooth phase with disks, and (row, column, phase) of each."""
    rows, columns = np.mgrid[:side, :side]
    smooth = gaussian_filter(np.random.default_rng(3).normal(size=(side, side)), 14)
    phase, disks = 0.4 * smooth / np.abs(smooth).max(), []
    for i in range(6):
        for j, strength in enumerate(FAINT):
            y, x = 90 + i * 42, 90 + j * 42
            phase = phase + strength * (np.hypot(rows - y, columns - x) < 3.5)
            disks.append((y, x, strength))
    return (0.9 * np.exp(1j * phase)).astype(np.complex64), disks


def contrasts(
    canvas: NDArray[np.complex64], disks: list[tuple[int, int, float]], lit: NDArray[np.bool_], corner: tuple[int, int]
) -> list[float]:
    """Mean phase of the disks of each strength above that of the rings around them; `corner`: of the canvas."""
    found: dict[float, list[float]] = {strength: [] for strength in FAINT}
    radius = np.hypot(*np.mgrid[-10:11, -10:11])
    ring = (radius > 5) & (radius < 9)
    for row, column, strength in disks:
        y, x = row - corner[0], column - corner[1]
        inside = 12 < y < canvas.shape[0] - 12 and 12 < x < canvas.shape[1] - 12
        part = slice(y - 10, y + 11), slice(x - 10, x + 11)
        if inside and lit[part].all():
            angle = np.angle(canvas[part] * np.exp(-1j * np.angle(canvas[part][ring].mean())))
            found[strength].append(float(angle[radius < 3].mean() - angle[ring].mean()))
    return [float(np.mean(values)) if values else float("nan") for values in found.values()]


def faint(backend: str) -> list[Row]:
    field, disks = faint_object()
    rows: list[Row] = []
    for photons in (1e3, 1e4, 1e5):
        scan = simulate(object=field, positions=1400, seed=5, probe=require(XPP_PROBE), photons=photons)
        assert scan.object_field is not None
        task = begun(scan, SolveConfig(refine="none", prior="none"))
        lit = well_lit(light_of(scan))
        cut = [(have - want) // 2 for have, want in zip(field.shape, scan.object_field.shape, strict=True)]
        corner = cut[0] + round(task.origin_px[1]), cut[1] + round(task.origin_px[0])
        rows.append([f"{photons:.0e}", backend, "truth", *contrasts(on_canvas(scan), disks, lit, corner), ""])
        for name, settings in (
            ("none", {"prior": "none"}),
            ("tv 0.05", {"prior": "tv", "prior_weight": 0.05}),
            ("tv 0.1", {"prior": "tv", "prior_weight": 0.1}),
            ("learned", {"prior": "learned"}),
            ("alternating", {"prior": "alternating"}),
            ("auto", {"prior": "auto"}),
        ):
            run = solved(scan, backend, **settings)
            name = f"auto: {run.choices['prior']}" if name == "auto" else name
            rows.append([f"{photons:.0e}", backend, name, *contrasts(run.canvas, disks, lit, corner), run.deviance])
            print(" ", *rows[-1], file=sys.stderr, flush=True)
    return rows


FAINT_HEADER = ("photons", "backend", "prior", *(f"{strength} rad" for strength in FAINT), "held-out deviance")


# -- time --------------------------------------------------------------------------------------------------------------


def timed(backend: str) -> list[Row]:
    prior = load_prior(SHIPPED)
    rng = np.random.default_rng(0)
    canvas = (1 + 0.1 * rng.standard_normal((500, 500, 2)).astype(np.float32).view(np.complex64)[..., 0]).astype(
        np.complex64
    )
    counts = np.full((500, 500), 1e3)
    network = load_engine(backend).build_image_network(
        prior.table, None, prior.weights, ExecutionConfig(accelerator="cpu")
    )
    seconds = []
    for _ in range(4):
        begun_at = time.perf_counter()
        cleaned(network, prior, canvas, counts)
        seconds.append(time.perf_counter() - begun_at)
    return [[backend, seconds[0], min(seconds[1:])]]


CASES: dict[str, tuple[Callable[[str], list[Row]], tuple[str, ...]]] = {
    "unseen": (unseen, HEADER),
    "many": (many, HEADER),
    "real": (real, HEADER),
    "faint": (faint, FAINT_HEADER),
    "time": (timed, ("backend", "first pass, s", "later ones, s")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", choices=[*CASES])
    parser.add_argument("--backend", action="append", help="engine; may be given again", required=True)
    parser.add_argument("--threads", type=int, default=1, help="of the engine")
    asked = parser.parse_args()
    for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ[variable] = str(asked.threads)
    for case in asked.cases:
        work, header = CASES[case]
        print_table(header, [row for backend in asked.backend for row in work(backend)])


if __name__ == "__main__":
    main()
