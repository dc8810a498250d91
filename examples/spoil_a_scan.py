"""Spoil a scan in thirteen ways, and see what each does to the image: the pictures of docs/bad_image.md.

    python examples/spoil_a_scan.py docs/why

Each is solved for the object alone, so that nothing mends what was spoiled; docs/bad_image.md says what does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from ptycho_core import Reconstruction, Scan, SolveConfig, simulate, solve
from ptycho_core.quality.ramp import flattened
from ptycho_core.report.plots import save_image

SCAN: dict[str, Any] = {"object": "siemens-star", "N": 64, "positions": 150, "photons": 1e6, "step_px": 7, "seed": 2}
SIDE = 200
"""Pixels of a picture, about."""
Spoil = Callable[[Scan], Scan]


def patterns(change: Callable[[Any], Any]) -> Spoil:
    return lambda scan: attrs.evolve(scan, diffraction_amplitude=change(scan.diffraction_amplitude[:]))


def positions(change: Callable[[Any], Any]) -> Spoil:
    """The reference object goes: it lies where the true positions are."""
    return lambda scan: attrs.evolve(scan, positions_px=change(scan.positions_px), object_field=None)


def probe(change: Callable[[Any], Any]) -> Spoil:
    return lambda scan: attrs.evolve(scan, probe=change(scan.probe))


def again(**changes: Any) -> Spoil:
    return lambda scan: simulate(**{**SCAN, "positions": len(scan), "N": scan.N, **changes})


def unmarked(scan: Scan) -> Scan:
    hot = again(bad_pixels=60)(scan)
    return attrs.evolve(hot, bad_pixels=None)


def first_mode(scan: Scan) -> Scan:
    several = again(modes=4)(scan)
    return attrs.evolve(several, probe=several.probe[:1])


def with_errors(places: Any) -> Any:
    return places + np.random.default_rng(0).normal(0, 2.5, places.shape)


def with_background(amplitude: Any) -> Any:
    """A tenth of the counts comes from elsewhere and falls everywhere alike."""
    counts = amplitude**2
    return np.sqrt(counts + 0.1 * counts.mean(axis=(1, 2), keepdims=True))


FAULTS: dict[str, Spoil] = {
    "good": lambda scan: scan,
    "flipped": patterns(lambda amplitude: amplitude[:, ::-1]),
    "order": positions(lambda places: places[:, ::-1]),
    "sign": positions(lambda places: places * [-1, 1]),
    "scale": positions(lambda places: places * 1.15),
    "jitter": positions(with_errors),
    "centre": patterns(lambda amplitude: np.roll(amplitude, (2, 3), axis=(1, 2))),
    "root": patterns(np.sqrt),
    "background": patterns(with_background),
    "hot": unmarked,
    "probe": probe(np.conj),
    "modes": first_mode,
    "photons": again(photons=300),
    "sparse": again(step_px=22, positions=40),
}
"""Name of the picture → what is done to the scan."""


def main(folder: Path, sweeps: int = 15, backend: str = "auto", **changes: Any) -> dict[str, Reconstruction]:
    """The pictures, as `<name>.png`, of the phase without its ramp; the results by name."""
    scan, results = simulate(**{**SCAN, **changes}), {}
    config = SolveConfig(backend=backend, sweeps=sweeps, modes="1", refine="none", prior="none")
    for name, spoil in FAULTS.items():
        result = results[name] = solve(spoil(scan), config)
        known = np.ones(result.object_field.shape, bool) if result.known is None else result.known
        phase = np.angle(flattened(result.object_field, known).field)
        low, high = np.percentile(phase[known], (2, 98))
        shown = np.where(known, np.clip(phase, low, high), low)
        rows, columns = (
            slice(np.flatnonzero(lit)[0], np.flatnonzero(lit)[-1] + 1) for lit in (known.any(1), known.any(0))
        )
        zoom = max(1, SIDE // (rows.stop - rows.start))
        save_image(np.kron(shown[rows, columns], np.ones((zoom, zoom))), folder / f"{name}.png", "cividis")
        print(f"{name}: R {result.R:.4f}, H {result.H:.4f}")
    return results


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("why"))
