"""Many scans that differ: what one is drawn with, a function of its number and a seed (specs/prior.md, Scans)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import ConfigurationError
from ptycho_core.simulation.objects import OBJECT_KINDS
from ptycho_core.simulation.probes import defocused_gaussian, defocused_zone_plate, disk

Drawn = dict[str, Any]


def _object(rng: np.random.Generator, N: int) -> Drawn:
    return {"object": str(rng.choice(list(OBJECT_KINDS)))}


def _probe(rng: np.random.Generator, N: int) -> Drawn:
    return {"probe": drawn_probe(N, rng)}


def _photons(rng: np.random.Generator, N: int) -> Drawn:
    return {"photons": float(10 ** rng.uniform(2, 6.5))}


def _step(rng: np.random.Generator, N: int) -> Drawn:
    return {"step_px": float(N * rng.uniform(1 / 12, 1 / 5))}


def _amplitude(rng: np.random.Generator, N: int) -> Drawn:
    return {"amplitude_range": (float(rng.uniform(0.3, 0.98)), 1.0)}


def _phase(rng: np.random.Generator, N: int) -> Drawn:
    return {"phase_range": (0.0, float(10 ** rng.uniform(-1.3, 0.4)))}


VARIED: dict[str, Callable[[np.random.Generator, int], Drawn]] = {
    "object": _object,
    "probe": _probe,
    "photons": _photons,
    "step": _step,
    "amplitude": _amplitude,
    "phase": _phase,
}
"""What may differ from scan to scan, and the arguments of `simulate` that it draws."""


def drawn_probe(N: int, rng: np.random.Generator) -> NDArray[np.complex64]:
    """A probe of one of our kinds, of any width and curvature that suits N; complex64 (N, N), Σ|P|² = 1."""
    kind = rng.integers(4)
    if kind == 0:
        field = disk(N, diameter=rng.uniform(0.3, 0.6), edge_px=rng.uniform(1, 4))
    elif kind == 1:
        field = defocused_gaussian(N, width=rng.uniform(0.08, 0.16), aperture=rng.uniform(0.05, 0.18))
    else:
        field = defocused_zone_plate(
            N,
            diameter=rng.uniform(0.3, 0.55),
            aperture=rng.uniform(0.1, 0.2),
            central_stop=rng.uniform(0.2, 0.5),
        )
    return np.asarray(field / np.linalg.norm(field), np.complex64)


def varied(many: int, vary: Collection[str], *, N: int, seed: int = 0) -> Iterator[Drawn]:
    """Arguments of `simulate` for each of `many` scans: those that differ, and a seed of its own.

    vary: some of `VARIED`. What a scan is drawn with follows from seed and number, so more scans leave the first as
    they are, and one thing that varies leaves the others. Raises ConfigurationError for another name.
    """
    if unknown := [name for name in vary if name not in VARIED]:
        expected, remedy = f"some of {', '.join(VARIED)}", "Separate them by commas."
        raise ConfigurationError("simulation", "vary", expected=expected, received=unknown[0], remedy=remedy)
    for number in range(many):
        drawn: Drawn = {"seed": int(np.random.default_rng([seed, number]).integers(2**31))}
        for place, (name, draw) in enumerate(VARIED.items(), 1):
            if name in vary:
                drawn |= draw(np.random.default_rng([seed, number, place]), N)
        yield drawn
