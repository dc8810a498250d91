"""Solving, in figures: both engines, the settings stated in each row, and a simple rival beside what it is to beat.

    python benchmarks/solving.py step star simulated dose-1e4 positions probe large --backend torch --backend tensorflow

step: see benchmarks/solver_step.py.
star: the real Siemens star of benchmarks/quality.py; R and H, of used and of held-out pixels. simulated: a Siemens star
under a measured probe, 1000 random positions, 1e6 photons per frame; likeness to the truth. dose: three objects at 1e3,
1e4 and 1e5 photons per frame, with and without a prior. positions: the simulated scan with the position errors of LCLS
XPP run 1084, and with correct ones; what is left of the errors. probe: the probe unknown, on both stars and the
simulated scan; H over that with the file's probe. large: 100,000 frames of 64 x 64, mapped; time per frame and sweep
over that of 1000 frames, and memory.
The rival is ePIE (Maiden & Rodenburg, Ultramicroscopy 109, 1256), written here in a few lines of numpy: frame after
frame, whole pixels, one mode, step size 1 for the object and the probe. Seconds are wall time; `choices` is the time
before the first sweep.
"""

from __future__ import annotations

import argparse
import bz2
import functools
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import scipy
from cases import SHARED_DATA, STAR, XPP_PROBE, print_table, require
from numpy.typing import NDArray
from solver_step import STEP_HEADER, STEP_SCANS, step_row

from ptycho_core import Scan, SolveConfig, Solving, load_scan, simulate
from ptycho_core.quality.evaluation import Comparison, evaluate
from ptycho_core.reconstruction.result import Reconstruction
from ptycho_core.solving.problem import begun

Row = list[object]
HEADER = ("case", "backend", "settings", "figure", "value", "choices s", "sweeps s")
RAW_STAR = SHARED_DATA / "siemens_star" / "siemens-star-small.npz.bz2"


@attrs.frozen
class Solved:
    """choosing, sweeping: wall seconds before the first sweep, and of all sweeps."""

    result: Reconstruction
    choosing: float
    sweeping: float

    def row(self, case: str, backend: str, settings: str, figure: str, value: float | str) -> Row:
        """Printed at once, too, for a run that is cut short."""
        print(" ", case, backend, settings, figure, value, file=sys.stderr, flush=True)
        return [case, backend, settings, figure, value, round(self.choosing, 2), round(self.sweeping, 2)]


def solved(scan: Scan, backend: str, **settings: Any) -> Solved:
    """A whole solve; what is not set is not refined, and there is no prior."""
    settings = {"refine": "none", "modes": "1", "prior": "none", **settings}
    run = Solving(scan, SolveConfig(backend=backend, **settings))
    started = time.perf_counter()
    choosing = 0.0
    for event in run:
        if event.kind == "prepared":
            choosing = time.perf_counter() - started
    return Solved(run.result(), choosing, sum(row["seconds"] for row in run.history))


def compared(result: Reconstruction, scan: Scan) -> Comparison:
    assert scan.object_field is not None
    return evaluate(result, scan.object_field)


# -- the rival ---------------------------------------------------------------------------------------------------------


def epie(
    scan: Scan, backend: str, sweeps: int, *, probe_step: float = 1.0
) -> tuple[Reconstruction, float, float, float]:
    """The object of ePIE (its canvas is a backend's), R, H of the solver's held-out pixels, seconds of the sweeps."""
    task = begun(scan, SolveConfig(refine="none", modes="1", prior="none"))
    N, probe = task.N, scan.probe[0].astype(np.complex64)
    object_field = np.ones(task.shape, np.complex64)
    corners = np.rint(task.corners_px(scan.positions_px)).astype(int)
    amplitude = np.fft.ifftshift(np.asarray(scan.diffraction_amplitude[:]), axes=(1, 2))
    used = np.fft.ifftshift(~task.held_out & ~np.asarray(scan.bad_pixels), axes=(1, 2))
    started = time.perf_counter()
    for sweep in range(sweeps):
        for frame in np.random.default_rng([0, sweep]).permutation(len(scan)):
            x, y = corners[frame]
            patch = object_field[y : y + N, x : x + N]
            far = scipy.fft.fft2(probe * patch, norm="ortho")
            wanted = amplitude[frame] / np.maximum(np.abs(far), 1e-6)
            change = scipy.fft.ifft2(far * np.where(used[task.pattern[frame]], wanted - 1, 0), norm="ortho")
            old = patch.copy()
            patch += np.conj(probe) / np.square(np.abs(probe)).max() * change
            probe = probe + probe_step * np.conj(old) / np.square(np.abs(old)).max() * change
    seconds = time.perf_counter() - started
    sums = np.zeros((2, 2))
    for frame in range(len(scan)):
        x, y = corners[frame]
        far = np.abs(scipy.fft.fft2(probe * object_field[y : y + N, x : x + N], norm="ortho"))
        for row, pixels in enumerate((used[task.pattern[frame]], ~used[task.pattern[frame]])):
            sums[row] += [
                np.square(far - amplitude[frame])[pixels].sum(dtype=np.float64),
                np.square(amplitude[frame])[pixels].sum(dtype=np.float64),
            ]
    R, H = (sums[:, 0] / sums[:, 1]).tolist()
    flat = solved(scan, backend, sweeps=1).result  # its canvas is the same
    return attrs.evolve(flat, object_field=object_field, probe=probe[None]), R, H, seconds


# -- real star ---------------------------------------------------------------------------------------------------------

ALL = {"modes": "3", "refine": "probe,positions,intensity"}


def star(backend: str) -> list[Row]:
    scan = load_scan(require(STAR))
    rows: list[Row] = []
    cases: list[tuple[str, dict[str, Any]]] = [
        ("1 mode, probe", {"refine": "probe"}),
        ("1 mode, probe, first step 0.1", {"refine": "probe", "object_rate": 0.1, "probe_rate": 0.1}),
        ("1 mode, probe, amplitude loss", {"refine": "probe", "loss": "amplitude"}),
        ("3 modes, probe, positions, intensity", ALL),
        ("auto", {"refine": "auto", "modes": "auto", "prior": "auto"}),
    ]
    for name, settings in cases:
        run = solved(scan, backend, **settings)
        for figure in ("R", "H"):
            rows.append(run.row("star", backend, name, figure, getattr(run.result, figure)))
    halves = solved(scan, backend, split_half=True, **ALL).result
    assert halves.frc is not None
    rows.append(["star", backend, cases[3][0], "split-half FRC 0.5, cycles/px", halves.frc.crossing_half, "", ""])
    return rows


def star_rival(backend: str) -> list[Row]:
    _, R, H, seconds = epie(load_scan(require(STAR)), backend, 20)
    return [["star", "ePIE", "20 sweeps", name, value, "", round(seconds, 2)] for name, value in (("R", R), ("H", H))]


def raw_star() -> Scan:
    """The star as it was measured, 128 x 128, with its unrefined probe."""
    with np.load(io.BytesIO(bz2.decompress(require(RAW_STAR).read_bytes()))) as file:
        counts = np.fft.fftshift(file["data"][0], axes=(1, 2))
        positions = file["scan"][0][:, ::-1].astype(np.float64)
        probe = file["probe"].reshape(1, 128, 128)
    return Scan(
        diffraction_amplitude=np.sqrt(np.maximum(counts, 0)).astype(np.float32),
        positions_px=positions - positions.min(axis=0) + 68,
        probe=probe.astype(np.complex64),
        dose_known=True,
        source=RAW_STAR.name,
    )


# -- simulated scans ---------------------------------------------------------------------------------------------------


def simulated_scan(photons: float = 1e6, kind: str = "siemens-star", seed: int = 1) -> Scan:
    return simulate(object=kind, probe=require(XPP_PROBE), positions=1000, photons=photons, seed=seed)


def simulated(backend: str) -> list[Row]:
    scan = simulated_scan()
    rows: list[Row] = []
    for name, settings in (("probe known", {}), ("probe refined", {"refine": "probe"})):
        run = solved(scan, backend, **settings)
        rows += _like(run, scan, "simulated 1e6", backend, name)
    return rows


def simulated_rival(backend: str) -> list[Row]:
    scan = simulated_scan()
    result, _, _, seconds = epie(scan, backend, 20, probe_step=0.0)
    return _like(Solved(result, 0.0, seconds), scan, "simulated 1e6", "ePIE", "probe known")


def _like(run: Solved, scan: Scan, case: str, backend: str, settings: str) -> list[Row]:
    metrics = compared(run.result, scan).metrics
    figures = {"correlation": metrics.correlation_before_alignment, "SSIM of the amplitude": metrics.amplitude.ssim}
    return [run.row(case, backend, settings, name, value) for name, value in figures.items()]


DOSES = {"dose-1e3": 1e3, "dose-1e4": 1e4, "dose-1e5": 1e5}
DOSE_OBJECTS = ("siemens-star", "lines", "dead-leaves")


def dose(backend: str, photons: float) -> list[Row]:
    rows: list[Row] = []
    for kind in DOSE_OBJECTS:
        scan = simulated_scan(photons, kind)
        case = f"{kind}, {photons:.0e} photons"
        for prior in ("none", "auto"):
            run = solved(scan, backend, prior=prior)
            name = (
                "no prior"
                if prior == "none"
                else f"prior auto: {run.result.choices['prior']} {run.result.choices['prior_weight'] or ''}"
            )
            against = compared(run.result, scan)
            image, truth = (np.abs(field[against.compared]) for field in (run.result.object_field, against.truth))
            # of the true probe, whose light the solver's has but for noise: so amplitudes can be compared as they are
            scale = np.linalg.norm(run.result.probe) / np.linalg.norm(scan.probe)
            rows.append(run.row(case, backend, name, "correlation", against.metrics.correlation_before_alignment))
            rows.append(
                run.row(case, backend, name, "mean amplitude / truth", float(scale * image.mean() / truth.mean()))
            )
    return rows


# -- positions ---------------------------------------------------------------------------------------------------------


def xpp_errors(count: int) -> NDArray[np.float64]:
    """(count, 2): refined positions of LCLS XPP run 1084 less the nominal ones, without their mean."""
    with np.load(require(XPP_PROBE)) as file:
        pairs = [file[f"{axis}coords"] - file[f"{axis}coords_start"] for axis in "xy"]
    errors = np.stack(pairs, axis=1)[:count]
    return errors - errors.mean(axis=0)


def positions(backend: str) -> list[Row]:
    scan = simulated_scan()
    errors = xpp_errors(len(scan))
    rows: list[Row] = []
    for case, wrong, sweeps, refine in (
        ("positions off by XPP's errors", errors, 40, "none"),
        ("positions off by XPP's errors", errors, 40, "positions"),
        ("positions off by XPP's errors", errors, 40, "probe,positions"),
        ("correct positions", np.zeros_like(errors), 20, "positions"),
    ):
        run = solved(attrs.evolve(scan, positions_px=scan.positions_px + wrong), backend, refine=refine, sweeps=sweeps)
        left = run.result.positions_px - scan.positions_px
        length = np.linalg.norm(left - np.median(left, axis=0), axis=1)
        name = f"{sweeps} sweeps, refine {refine}"
        rows.append(run.row(case, backend, name, "RMS error left, px", float(np.sqrt(np.square(length).mean()))))
        rows.append(run.row(case, backend, name, "largest error left, px", float(length.max())))
    return rows


# -- unknown probe -----------------------------------------------------------------------------------------------------


def probe(backend: str) -> list[Row]:
    rows: list[Row] = []
    for case, scan in (
        ("star", load_scan(require(STAR))),
        ("raw star 128", raw_star()),
        ("simulated 1e6", simulated_scan()),
    ):
        known = solved(scan, backend, refine="probe")
        unknown = solved(
            attrs.evolve(scan, probe=np.ones_like(scan.probe)), backend, refine="probe", first_probe="auto"
        )
        assert known.result.H is not None and unknown.result.H is not None
        trial = next(row for row in unknown.result.choices["tried"] if row["kept"])
        found = f"first probe auto: {trial['candidate']}, ahead by {trial['margin']:.0f} standard errors"
        rows.append(known.row(case, backend, "probe of the file", "H", known.result.H))
        rows.append(unknown.row(case, backend, found, "H", unknown.result.H))
        rows.append(unknown.row(case, backend, found, "H / H of the file's", unknown.result.H / known.result.H))
    return rows


# -- a large scan ------------------------------------------------------------------------------------------------------

LARGE, SMALL, DIFFERENT = 100_000, 1000, 1000


def write_large(folder: Path) -> Path:
    """An NPZ, not packed: 1000 different patterns on a raster of step 8 px, again and again."""
    path = folder / "large.npz"
    scan = simulate(object="siemens-star", N=64, positions=DIFFERENT, photons=1e6)
    side = int(np.ceil(np.sqrt(LARGE)))
    y, x = np.divmod(np.arange(LARGE), side)
    patterns = np.asarray(scan.diffraction_amplitude[:])
    described = {"axes": "frame, row, column", "measurement": "amplitude", "amplitude_unit": "sqrt(counts)"}
    np.savez(
        path,
        diff3d=np.concatenate([patterns] * (LARGE // DIFFERENT)),
        xcoords=8.0 * x + 32,
        ycoords=8.0 * y + 32,
        probeGuess=scan.probe[0],
        _metadata=np.array(json.dumps(described)),
    )
    return path


def child(path: Path, backend: str, frames: int) -> None:
    """Two sweeps of the first frames; the seconds of the faster one, per frame, and the most memory, GiB."""
    scan = load_scan(path)
    scan = scan.subset(slice(0, frames)) if frames < len(scan) else scan
    run = Solving(scan, SolveConfig(backend=backend, sweeps=2, refine="none", modes="1", prior="none"))
    over, most = threading.Event(), [0.0]

    def watch() -> None:
        while not over.wait(0.02):
            most[0] = max(most[0], own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in run:
        pass
    over.set()
    watcher.join()
    seconds = min(row["seconds"] for row in run.history) / frames
    print(json.dumps({"seconds": seconds, "memory": most[0], "canvas": run._task.shape, "R": run.history[-1]["R"]}))


def own_memory() -> float:
    """GiB of this process but for mapped files, whose pages the system takes back whenever it needs them."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) / 2**20


def large(backend: str) -> list[Row]:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        path = write_large(Path(folder))
        found: dict[int, dict[str, Any]] = {}
        for frames in (SMALL, LARGE):
            command = [sys.executable, __file__, "child", "--path", str(path), "--backend", backend]
            answer = subprocess.run([*command, "--frames", str(frames)], stdout=subprocess.PIPE, text=True, check=True)
            found[frames] = json.loads(answer.stdout.splitlines()[-1])
            row = found[frames]
            case, settings = f"{frames} frames", "2 sweeps, the faster one"
            rows.append([case, backend, settings, "us per frame and sweep", 1e6 * row["seconds"], "", ""])
            height, width = row["canvas"]
            beyond = row["memory"] - 8 * 8 * height * width / 2**30
            rows.append([case, backend, settings, "most memory, GiB", row["memory"], "", ""])
            rows.append([case, backend, settings, f"beyond 8 canvases of {width} x {height}", beyond, "", ""])
        ratio = found[LARGE]["seconds"] / found[SMALL]["seconds"]
        rows.append([f"{LARGE} frames", backend, settings, f"time per frame over that of {SMALL}", ratio, "", ""])
    return rows


def step(backend: str) -> list[Row]:
    return [step_row(name, backend, modes) for name in STEP_SCANS for modes in (1, 3)]


CASES: dict[str, Callable[[str], list[Row]]] = {
    "step": step,
    "star": star,
    "simulated": simulated,
    **{name: functools.partial(dose, photons=photons) for name, photons in DOSES.items()},
    "positions": positions,
    "probe": probe,
    "large": large,
}
RIVALS: dict[str, Callable[[str], list[Row]]] = {"star": star_rival, "simulated": simulated_rival}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", choices=[*CASES, "child"])
    parser.add_argument("--backend", action="append", help="engine; may be given again", required=True)
    parser.add_argument("--no-rival", action="store_true", help="without ePIE")
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--frames", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.cases == ["child"]:
        child(asked.path, asked.backend[0], asked.frames)
        return
    for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ[variable] = "1"
    for case in asked.cases:
        rows = [row for backend in asked.backend for row in CASES[case](backend)]
        rows += RIVALS[case](asked.backend[0]) if case in RIVALS and not asked.no_rival else []
        print_table(STEP_HEADER if case == "step" else HEADER, rows)


if __name__ == "__main__":
    main()
