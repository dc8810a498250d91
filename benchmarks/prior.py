"""The learned prior beside no prior and total variation: `python benchmarks/quality.py prior` prints it.

unseen: a Siemens star, lines and dead leaves of seeds that the prior never saw, under the measured probe of LCLS XPP
run 1084, which it never saw either; 1000 random positions, 1e3 and 1e4 photons per frame. many: 1e5 and 1e6, the star.
real: the Siemens star of benchmarks/quality.py, its counts thinned to 1/300 and 1/30, against its full dose; and at
its full dose. Likeness: correlation over lit pixels with the truth, or with the full dose; TV (best) has the weight
that the truth would choose, all others know nothing of it. faint: phase disks of a radius of 3.5 px on a smooth object,
a kind that it never saw: how much of their contrast is left; how many are found, with at least half of their contrast;
how many of the places between them look like such a disk (invented). time: a pass over 500 x 500 pixels.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from cases import STAR, XPP_PROBE, require
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ptycho_core import Scan, SolveConfig, Solving, load_scan, simulate, solve
from ptycho_core.engine.registry import load_engine
from ptycho_core.models.prior import load_prior
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.simulation.thinning import thinned
from ptycho_core.solving.learned import SHIPPED, cleaned
from ptycho_core.solving.problem import begun

Row = list[object]
"""case, engine, sweeps, figure, value, seconds"""
TV_WEIGHTS = (0.02, 0.05, 0.1, 0.2)
SEED = 99991
PRIOR = ("none", "tv", "learned", "alternating", "auto")


@attrs.frozen
class Asked:
    """An engine, and how many sweeps a solve has."""

    backend: str
    sweeps: int


@attrs.frozen(eq=False)
class Solved:
    """canvas: all pixels of the object, 0 where not known. deviance: of held-out pixels."""

    canvas: NDArray[np.complex64]
    known: NDArray[np.bool_]
    deviance: float
    choices: dict[str, Any]
    seconds: float

    @property
    def chosen(self) -> str:
        """The prior that was used, and its weight."""
        return f"{self.choices['prior']} {self.choices['prior_weight'] or ''}".strip()


def solved(scan: Scan, asked: Asked, **settings: Any) -> Solved:
    """A whole solve; what is not set is not refined."""
    known = {"refine": "none", "modes": "1", "sweeps": asked.sweeps, "backend": asked.backend}
    run = Solving(scan, SolveConfig(**{**known, **settings}))
    for _ in run:
        pass
    result = run.result()
    assert result.known is not None and result.deviance is not None
    return Solved(result.object_field, result.known, result.deviance, dict(result.choices), result.seconds["total"])


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


def row(case: str, asked: Asked, figure: str, value: object, seconds: float = 0.0) -> Row:
    """Also printed at once: a whole table takes minutes."""
    print(f"  {case}, {asked.backend}: {figure} {value} ({seconds:.1f} s)", file=sys.stderr, flush=True)
    return [case, asked.backend, asked.sweeps, figure, value, seconds]


def beside_each_other(
    case: str, scan: Scan, truth: NDArray[np.complex64], asked: Asked, priors: tuple[str, ...] = PRIOR
) -> list[Row]:
    """Likeness and deviance with every prior, that of TV with the weight that the truth would choose."""
    lit = well_lit(light_of(scan)) & (truth != 0)
    rows: list[Row] = []
    for prior in priors:
        weights = TV_WEIGHTS if prior == "tv" else (None,)
        runs = [solved(scan, asked, prior=prior, prior_weight=weight) for weight in weights]
        likenesses = [likeness(run.canvas, truth, lit) for run in runs]
        best = int(np.argmax(likenesses))
        name = {"tv": f"{runs[best].chosen} (best by the truth)", "auto": f"auto: {runs[best].chosen}"}.get(
            prior, prior
        )
        rows.append(row(case, asked, f"likeness, {name}", likenesses[best], runs[best].seconds))
        rows.append(row(case, asked, f"held-out deviance, {name}", runs[best].deviance, runs[best].seconds))
    return rows


def simulated(kind: str, photons: float) -> Scan:
    return simulate(object=kind, probe=require(XPP_PROBE), positions=1000, photons=photons, seed=SEED)


def unseen(asked: Asked) -> list[Row]:
    rows: list[Row] = []
    for kind in ("siemens-star", "lines", "dead-leaves"):
        for photons in (1e3, 1e4):
            scan = simulated(kind, photons)
            rows += beside_each_other(f"{kind} {photons:.0e}", scan, on_canvas(scan), asked)
    return rows


def many(asked: Asked) -> list[Row]:
    rows: list[Row] = []
    for photons in (1e5, 1e6):
        scan = simulated("siemens-star", photons)
        rows += beside_each_other(f"siemens-star {photons:.0e}", scan, on_canvas(scan), asked)
    return rows


def real(asked: Asked) -> list[Row]:
    """All doses are solved with the probe that the full dose refines; the full dose's object has no prior."""
    scan = attrs.evolve(load_scan(require(STAR)), dose_known=True)
    refined = SolveConfig(refine="probe", modes="1", prior="none", sweeps=asked.sweeps, backend=asked.backend)
    scan = attrs.evolve(scan, probe=solve(scan, refined).probe)
    full = solved(scan, asked, prior="none")
    rows: list[Row] = []
    for part in (1 / 300, 1 / 30):
        fewer = thinned(scan, part, np.random.default_rng(SEED))
        rows += beside_each_other(f"real star 1/{1 / part:.0f}", fewer, full.canvas, asked)
    rows += beside_each_other("real star, full", scan, full.canvas, asked, ("none", "auto"))
    return rows


# -- what is faint -----------------------------------------------------------------------------------------------------

FAINT = (0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
APART = 42


def faint_object(side: int = 420) -> tuple[NDArray[np.complex64], list[tuple[int, int, float]]]:
    """A smooth phase with disks, and (row, column, phase) of each."""
    rows, columns = np.mgrid[:side, :side]
    smooth = gaussian_filter(np.random.default_rng(3).normal(size=(side, side)), 14)
    phase, disks = 0.4 * smooth / np.abs(smooth).max(), []
    for i in range(6):
        for j, strength in enumerate(FAINT):
            y, x = 90 + i * APART, 90 + j * APART
            phase = phase + strength * (np.hypot(rows - y, columns - x) < 3.5)
            disks.append((y, x, strength))
    return (0.9 * np.exp(1j * phase)).astype(np.complex64), disks


def contrast_at(canvas: NDArray[np.complex64], lit: NDArray[np.bool_], y: int, x: int) -> float:
    """Mean phase of a disk above that of the ring around it; NaN where a pixel is not lit."""
    if not (10 <= y < canvas.shape[0] - 10 and 10 <= x < canvas.shape[1] - 10):
        return float("nan")
    part = slice(y - 10, y + 11), slice(x - 10, x + 11)
    if not lit[part].all():
        return float("nan")
    radius = np.hypot(*np.mgrid[-10:11, -10:11])
    ring = (radius > 5) & (radius < 9)
    angle = np.angle(canvas[part] * np.exp(-1j * np.angle(canvas[part][ring].mean())))
    return float(angle[radius < 3].mean() - angle[ring].mean())


def faint_rows(
    case: str,
    asked: Asked,
    name: str,
    run: Solved,
    truth: NDArray[np.complex64],
    lit: NDArray[np.bool_],
    disks: list[tuple[int, int, float]],
) -> list[Row]:
    """Of each strength: contrast left, found, invented. disks: row and column on the canvas."""

    def excess(y: int, x: int) -> float:
        return contrast_at(run.canvas, lit, y, x) - contrast_at(truth, lit, y, x)

    between = np.array([excess(y + APART // 2, x + APART // 2) for y, x, _ in disks])
    between = between[~np.isnan(between)]
    rows: list[Row] = []
    for strength in FAINT:
        left = strength + np.array([excess(y, x) for y, x, s in disks if s == strength])
        left = left[~np.isnan(left)]
        found = f"{(left >= strength / 2).sum()} of {len(left)}"
        invented = f"{(between >= strength / 2).sum()} of {len(between)}"
        value = f"{left.mean() / strength:.2f} ± {left.std() / strength:.2f}; {found}; {invented}"
        rows.append(row(case, asked, f"{strength} rad, {name}: contrast left; found; invented", value, run.seconds))
    return [*rows, row(case, asked, f"held-out deviance, {name}", run.deviance, run.seconds)]


def faint(asked: Asked) -> list[Row]:
    field, disks = faint_object()
    rows: list[Row] = []
    for photons in (1e3, 1e4, 1e5):
        scan = simulate(object=field, positions=1400, seed=5, probe=require(XPP_PROBE), photons=photons)
        assert scan.object_field is not None
        task = begun(scan, SolveConfig(refine="none", prior="none"))
        lit, truth = well_lit(light_of(scan)), on_canvas(scan)
        cut = [(have - want) // 2 for have, want in zip(field.shape, scan.object_field.shape, strict=True)]
        corner = cut[0] + round(task.origin_px[1]), cut[1] + round(task.origin_px[0])
        placed = [(y - corner[0], x - corner[1], strength) for y, x, strength in disks]
        for name, settings in (
            ("none", {"prior": "none"}),
            ("tv 0.05", {"prior": "tv", "prior_weight": 0.05}),
            ("tv 0.1", {"prior": "tv", "prior_weight": 0.1}),
            ("learned", {"prior": "learned"}),
            ("alternating", {"prior": "alternating"}),
            ("auto", {"prior": "auto"}),
        ):
            run = solved(scan, asked, **settings)
            name = f"auto: {run.chosen}" if name == "auto" else name
            rows += faint_rows(f"faint {photons:.0e}", asked, name, run, truth, lit, placed)
    return rows


# -- time --------------------------------------------------------------------------------------------------------------


def timed(asked: Asked) -> list[Row]:
    prior = load_prior(SHIPPED)
    rng = np.random.default_rng(0)
    canvas = (1 + 0.1 * rng.standard_normal((500, 500, 2)).astype(np.float32).view(np.complex64)[..., 0]).astype(
        np.complex64
    )
    counts = np.full((500, 500), 1e3)
    network = load_engine(asked.backend).build_image_network(
        prior.table, None, prior.weights, ExecutionConfig(accelerator="cpu")
    )
    seconds = []
    for _ in range(4):
        begun_at = time.perf_counter()
        cleaned(network, prior, canvas, counts)
        seconds.append(time.perf_counter() - begun_at)
    case = "500 x 500 pixels"
    return [
        row(case, asked, "first pass, s", seconds[0], seconds[0]),
        row(case, asked, "later passes, s", min(seconds[1:]), min(seconds[1:])),
    ]


# -- a picture ---------------------------------------------------------------------------------------------------------


def draw(asked: Asked, path: Path) -> list[Row]:
    """Amplitude and phase of dead leaves at 1e3 photons per frame: no prior, TV, learned, the truth."""
    from ptycho_core.report.plots.drawing import new_figure, save

    scan = simulated("dead-leaves", 1e3)
    truth = on_canvas(scan)
    lit = well_lit(light_of(scan)) & (truth != 0)
    runs = {"no prior": "none", "total variation": "tv", "learned": "alternating"}
    images, rows = {}, []
    for name, prior in runs.items():
        weight = 0.2 if prior == "tv" else None
        run = solved(scan, asked, prior=prior, prior_weight=weight)
        factor = np.vdot(run.canvas[lit], truth[lit]) / np.square(np.abs(run.canvas[lit])).sum()
        alike = likeness(run.canvas, truth, lit)
        images[f"{name}, {alike:.2f}"] = factor * run.canvas
        rows.append(row("picture", asked, f"likeness, {prior} {weight or ''}", alike, run.seconds))
    images["truth"] = truth
    inner = tuple(slice(side // 2 - 80, side // 2 + 80) for side in truth.shape)
    figure = new_figure(8, 4.3)
    axes = figure.subplots(2, len(images))
    for column, (name, image) in enumerate(images.items()):
        for axis, part, limits in ((axes[0][column], np.abs, (0.3, 1.1)), (axes[1][column], np.angle, (-0.2, 1.0))):
            axis.imshow(part(image[inner]), cmap="gray", vmin=limits[0], vmax=limits[1])
            axis.set_axis_off()
        axes[0][column].set_title(name)
    save(figure, path)
    return rows


def rows(asked: Asked) -> list[Row]:
    """The whole table of one engine."""
    return [each for case in (unseen, real, many, faint, timed) for each in case(asked)]
