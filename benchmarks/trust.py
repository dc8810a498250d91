"""The trust map of a solved object against its actual error, where the truth is known.

    python benchmarks/trust.py --backend torch --backend tensorflow

Simulated scans: a Siemens star under the measured probe of LCLS XPP run 1084, random positions, 1e4 and 1e6 photons per
frame. whole: as it is. thinned: a fifth of the frames left of the middle. misplaced: the positions of one corner off by
1.5 px RMS along x and along y, and not refined. For each: the rank correlation (Spearman) of predicted and actual error
over the known pixels; the area under the curve (AUC) of "error > 0.1" told by the prediction; the factor κ that split
halves give; actual over predicted RMS error of each fifth of the pixels by prediction; and the median deviance of the
frames that are misplaced beside that of the others. PTYCHO_SHARED_DATA names the folder that holds the probe.
"""

from __future__ import annotations

import argparse

import attrs
import numpy as np
from cases import XPP_PROBE, print_table, require
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.stats import rankdata, spearmanr

from ptycho_core import Reconstruction, Scan, SolveConfig, simulate, solve
from ptycho_core.quality.alignment import align
from ptycho_core.quality.trust import SMOOTHED_PX
from ptycho_core.quality.truth import Truth, on_grid

WRONG = 0.1
"""An error that a reader of the picture would want to know of; |object| is about 1."""


def cases(photons: float, frames: int) -> dict[str, tuple[Scan, NDArray[np.bool_]]]:
    """Scans by name, and which of their frames are misplaced."""
    whole = simulate(N=64, positions=frames, object="siemens-star", probe=require(XPP_PROBE), photons=photons, seed=0)
    x, y = whole.positions_px.T
    rng = np.random.default_rng(0)
    kept = (x > np.median(x)) | (rng.random(len(x)) < 0.2)
    corner = (x > np.quantile(x, 0.65)) & (y > np.quantile(y, 0.65))
    moved = whole.positions_px + 1.5 * rng.standard_normal((len(x), 2)) * corner[:, None]
    misplaced = attrs.evolve(whole, positions_px=moved, nominal_positions_px=None)
    none = np.zeros(len(x), bool)
    return {"whole": (whole, none), "thinned": (whole.subset(kept), none[kept]), "misplaced": (misplaced, corner)}


def actual_error(result: Reconstruction, scan: Scan) -> NDArray[np.float64]:
    """RMS over a Gaussian, as the map is; NaN where nothing is known."""
    assert scan.object_field is not None
    truth, covered = on_grid(Truth(object_field=scan.object_field), result)
    known = covered & np.isfinite(np.asarray(result.predicted_error))
    aligned = align(result.object_field, truth, known, max_shift_px=2.0)
    known &= aligned.mask
    power = gaussian_filter(np.where(known, np.abs(aligned.aligned - truth) ** 2, 0), SMOOTHED_PX)
    share = gaussian_filter(known + 0.0, SMOOTHED_PX)
    return np.where(known, np.sqrt(power / np.maximum(share, 1e-9)), np.nan)


def area_under_curve(told: NDArray[np.float64], wrong: NDArray[np.bool_]) -> float:
    """Chance that a wrong pixel is predicted worse than a right one; NaN where there are none of either."""
    count, others = int(wrong.sum()), int((~wrong).sum())
    if not count or not others:
        return float("nan")
    return float((rankdata(told)[wrong].sum() - count * (count + 1) / 2) / (count * others))


def row(name: str, photons: float, backend: str, scan: Scan, misplaced: NDArray[np.bool_], prior: str) -> list[object]:
    config = SolveConfig(backend=backend, refine="none", modes="1", prior=prior, split_half=True)
    result = solve(scan, config)
    error = actual_error(result, scan)
    inside = np.isfinite(error)
    found, told = error[inside], np.asarray(result.predicted_error, np.float64)[inside]
    fifths = [
        f"{np.sqrt(np.mean(found[part] ** 2) / np.mean(told[part] ** 2)):.2f}"
        for part in np.array_split(np.argsort(told), 5)
    ]
    frames = np.asarray(result.frame_deviance)
    bad = "–" if not misplaced.any() else f"{np.median(frames[misplaced]):.2f} / {np.median(frames[~misplaced]):.2f}"
    auc = area_under_curve(told, found > WRONG)
    return [
        f"{photons:.0e} {name}",
        backend,
        f"{np.sqrt(np.mean(found**2)):.4f}",
        f"{spearmanr(told, found)[0]:.3f}",
        "–" if np.isnan(auc) else f"{auc:.3f} ({100 * np.mean(found > WRONG):.0f} %)",
        f"{result.error_factor:.2f}",
        ", ".join(fifths),
        bad,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", action="append", help="torch (default), tensorflow, or both, one flag each")
    parser.add_argument("--photons", type=float, nargs="+", default=[1e4, 1e6])
    parser.add_argument("--prior", default="none", help="as of ptycho solve (default: none)")
    parser.add_argument("--frames", type=int, default=1000)
    options = parser.parse_args()
    header = [
        "case",
        "backend",
        "RMS error",
        "Spearman",
        f"AUC error > {WRONG} (share)",
        "κ",
        "actual / predicted",
        "deviance",
    ]
    rows = [
        row(name, photons, backend, scan, misplaced, options.prior)
        for backend in options.backend or ["torch"]
        for photons in options.photons
        for name, (scan, misplaced) in cases(photons, options.frames).items()
    ]
    print_table(header, rows)


if __name__ == "__main__":
    main()
