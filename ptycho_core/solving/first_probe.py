"""A probe to begin with, where it is unknown or out of focus: a scan of its defocus, judged by held-out pixels.

The mean pattern tells how much light leaves the probe in each direction, but not its phase. What is unknown of most
probes is one number, the distance from the focus, which gives the phase a paraboloid (specs/solving.md, First probe).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.scans.scan import Scan
from ptycho_core.solving.choices import SIGNIFICANT, Candidate, Trial, margin, table
from ptycho_core.solving.problem import scaled
from ptycho_core.solving.run import Freedoms, State
from ptycho_core.solving.start import flat
from ptycho_core.solving.trials import Bench

SMALLEST, LARGEST, RATIO = 0.03, 0.3, 1.2  # specs/solving.md, First probe: radii of the probe, in units of N
PHASE_STEP, STEPS = 1.9, 5  # specs/solving.md, First probe: around a given probe, radians at the rms radius
NEIGHBOURS = 2  # candidates on either side that converge to the same probe
SWEEPS, SWEEPS_LARGE, LARGE = 4, 2, 128
LONGER = 4
ALIKE = 0.95  # overlap of two probes that are one
MOVES = 2.0  # specs/solving.md, First probe: standard errors that a move in its window has to bring
COARSEST = 16  # specs/solving.md, First probe: N over the first move of a probe in its window


@attrs.frozen(eq=False)
class ProbeCandidate:
    """name: in words. probe: complex64 (modes, N, N), in the scale of the scan."""

    name: str
    probe: NDArray[np.complex64]


def unknown(scan: Scan) -> list[ProbeCandidate]:
    """Probes that send the mean pattern out, from far before the focus to far behind it."""
    pattern = np.where(np.asarray(scan.bad_pixels), 0, scan.mean_pattern())
    amplitude = np.fft.ifftshift(np.sqrt(pattern))
    aperture = _rms_radius(amplitude**2)
    steps = math.floor(math.log(LARGEST / SMALLEST) / math.log(RATIO) + 1e-9)
    radii = [SMALLEST * scan.N * RATIO**step for step in range(steps + 1)]
    return [
        ProbeCandidate(f"radius {radius:+.1f} px", scaled(scan, _defocused(amplitude[None], radius / aperture)))
        for radius in (*(-radius for radius in reversed(radii)), 0.0, *radii)
    ]


def around(scan: Scan, probe: NDArray[np.complex64]) -> list[ProbeCandidate]:
    """The given probe (modes, N, N), defocused in either direction."""
    far = np.fft.fft2(np.fft.ifftshift(probe, axes=(-2, -1)))
    step = PHASE_STEP / (math.pi * _rms_radius(np.square(np.abs(far)).sum(axis=0)) ** 2)
    return [
        ProbeCandidate(f"defocus {number * step:+.1f} px²", scaled(scan, _defocused(far, number * step)))
        for number in range(-STEPS, STEPS + 1)
    ]


def sweeps_for(N: int) -> int:
    """Sweeps of each candidate: larger patterns tell more in each."""
    return SWEEPS if N < LARGE else SWEEPS_LARGE


def chosen_probe(
    bench: Bench, candidates: Sequence[ProbeCandidate], freedoms: Freedoms
) -> Generator[Trial, None, State]:
    """The candidate that the held-out pixels single out, as its trial left it; DataError with the table otherwise.

    The best is compared with the best of those that are not its neighbours, which come to the same probe. Where the
    two are close, both are carried on, until they differ or come to the same probe.
    """
    bench = bench.longer(sweeps_for(bench.task.N))
    tried: list[Candidate] = []
    refined: list[State] = []
    for candidate in candidates:
        result, state = bench.tried(candidate.name, flat(bench.task, candidate.probe), freedoms)
        tried.append(result)
        refined.append(state)
        yield _trial(result, math.nan, False)
    order = sorted(range(len(tried)), key=lambda place: tried[place].mean_deviance)
    best = order[0]
    rival = next(place for place in order if abs(place - best) > NEIGHBOURS)
    by = margin(tried[best], tried[rival])
    if by < SIGNIFICANT:
        longer = bench.longer(LONGER * bench.plan.sweeps)
        again = {}
        for place in (best, rival):
            name, begun = f"{tried[place].name}, longer", flat(bench.task, candidates[place].probe)
            again[place], state = longer.tried(name, begun, freedoms)
            refined[place] = state
        best, rival = sorted(again, key=lambda place: again[place].mean_deviance)
        by = margin(again[best], again[rival])
        decided = by >= SIGNIFICANT or overlap(refined[best].probe, refined[rival].probe) >= ALIKE
        for place in (best, rival):
            yield _trial(again[place], by if place == best else -by, place == best and decided)
        if not decided:
            rows = [_trial(tried[place], math.nan, place in (best, rival)) for place in range(len(tried))]
            remedy = "Give a probe (--probe FILE), check positions and orientation, or use more frames or photons."
            raise DataError(
                bench.task.scan.source,
                "probe",
                expected=f"one candidate ahead by {SIGNIFICANT:g} standard errors of its held-out deviance",
                received=f"{tried[best].name} and {tried[rival].name} {by:.1f} apart\n{table(rows)}\n",
                remedy=remedy,
            )
    else:
        yield _trial(tried[best], by, True)
    return refined[best]


def placed_probe(bench: Bench, begun: State, freedoms: Freedoms) -> Generator[Trial, None, NDArray[np.complex64]]:
    """The probe of a trial, moved by whole pixels to where its window cuts off least, as the held-out pixels tell.

    Patterns hardly tell where in its window a probe lies, since the object can move with it; but what lies beyond the
    window is lost. Where no move matters, it stays.
    """
    bench = bench.longer(sweeps_for(bench.task.N))
    best, state = bench.tried("place as found", begun, freedoms)
    yield _placing(best, math.nan, True)
    place, step = (0, 0), bench.task.N // COARSEST
    while step >= 1:
        matters = False
        for y, x in ((0, step), (step, 0)):
            before, begun_from = best, place
            for sign in (1, -1):
                there = begun_from[0] + sign * y, begun_from[1] + sign * x
                result, after = bench.tried(f"moved by {there[1]:+d}, {there[0]:+d} px", _moved(begun, there), freedoms)
                by = margin(result, before)
                matters |= abs(by) >= SIGNIFICANT
                better = by >= MOVES and result.mean_deviance < best.mean_deviance
                if better:
                    best, state, place = result, after, there
                yield _placing(result, by, better)
        step = step // 2 if matters else 0
    return state.probe


def _moved(state: State, place: tuple[int, int]) -> State:
    """The state with its probe moved by whole pixels (rows, columns) in its window, and the object with it."""
    return attrs.evolve(state, canvas=np.roll(state.canvas, place, (0, 1)), probe=np.roll(state.probe, place, (1, 2)))


def overlap(first: NDArray[np.complex64], second: NDArray[np.complex64]) -> float:
    """0 to 1: how much the first modes of two probes (modes, N, N) are alike, one moved by whole pixels to fit."""
    a, b = (np.fft.fft2(probe[0].astype(np.complex128)) for probe in (first, second))
    return float(np.abs(np.fft.ifft2(a * b.conj())).max() * a.size / np.linalg.norm(a) / np.linalg.norm(b))


def _placing(result: Candidate, by: float, kept: bool) -> Trial:
    return attrs.evolve(_trial(result, by, kept), question="place of the probe")


def _trial(result: Candidate, by: float, kept: bool) -> Trial:
    return Trial(
        question="first probe",
        candidate=result.name,
        deviance=result.mean_deviance,
        margin=by,
        kept=kept,
        facts=result.facts,
    )


def _defocused(far: NDArray[np.number], defocus_px2: float) -> NDArray[np.complex128]:
    """Far fields (modes, N, N), DC at [0, 0], → probes with their centre at [N/2, N/2], after Fresnel propagation.

    exp(−iπ d k²), k in cycles per pixel: d = λz in units of the pixel's square (Goodman, Fourier Optics, eq. 4-21).
    """
    k = np.fft.fftfreq(far.shape[-1])
    phase = np.exp(-1j * np.pi * defocus_px2 * (k[:, None] ** 2 + k**2))
    return np.fft.fftshift(np.fft.ifft2(far * phase), axes=(-2, -1))


def _rms_radius(power: NDArray[np.floating]) -> float:
    """Cycles per pixel; DC at [0, 0]."""
    k = np.fft.fftfreq(power.shape[-1])
    return math.sqrt(float((power * (k[:, None] ** 2 + k**2)).sum() / power.sum()))
