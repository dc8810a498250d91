"""Which way round the patterns are: each of eight ways is solved for a few sweeps, and held-out pixels decide."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.scans.frames import Frames
from ptycho_core.scans.orientation import ORIENTATIONS, about_the_centre, describe
from ptycho_core.scans.scan import Scan
from ptycho_core.scans.steps import Orient
from ptycho_core.solving.choices import SIGNIFICANT, Candidate, Trial, margin, table
from ptycho_core.solving.first_probe import ProbeCandidate, unknown
from ptycho_core.solving.problem import Task, scaled
from ptycho_core.solving.run import Freedoms
from ptycho_core.solving.start import flat
from ptycho_core.solving.trials import Bench

SWEEPS = 3  # specs/solving.md, Orientation
AS_READ = ORIENTATIONS[0]


def turned(scan: Scan, orientation: Orient) -> Scan:
    """The scan with its patterns and their bad pixels turned; positions and probe stay."""
    if orientation == AS_READ:
        return scan
    steps = about_the_centre(orientation, scan.N)
    amplitude = scan.diffraction_amplitude
    bad = np.asarray(scan.bad_pixels)
    for step in steps:
        bad = step.mask(bad)
    if isinstance(amplitude, Frames):
        turned_amplitude: NDArray[np.float32] | Frames = amplitude.turned(steps)
    else:
        turned_amplitude = amplitude
        for step in steps:
            turned_amplitude = step.apply(turned_amplitude)
        turned_amplitude = np.ascontiguousarray(turned_amplitude)
    return attrs.evolve(scan, diffraction_amplitude=turned_amplitude, bad_pixels=np.ascontiguousarray(bad))


def turned_task(task: Task, orientation: Orient) -> Task:
    """The task with its patterns turned; the held-out pixels with them, so that every orientation has the same."""
    held_out = task.held_out
    for step in () if orientation == AS_READ else about_the_centre(orientation, task.N):
        held_out = step.apply(held_out)
    return attrs.evolve(task, scan=turned(task.scan, orientation), held_out=np.ascontiguousarray(held_out))


def chosen_orientation(bench: Bench, freedoms: Freedoms, *, probe_unknown: bool) -> Generator[Trial, None, Orient]:
    """The orientation that the held-out pixels single out; DataError with the table where they do not.

    Where the probe is unknown, each orientation is tried with each candidate for it. Patterns turned by half are those
    of the conjugate of object and probe, so that half of the orientations are left, of which the first is taken.
    """
    bench = bench.longer(SWEEPS)
    tried: list[tuple[Orient, Candidate]] = []
    for orientation in ORIENTATIONS:
        if probe_unknown and orientation.flip_rows:
            continue  # as the same with both flips the other way
        task = turned_task(bench.task, orientation)
        turned_bench = attrs.evolve(bench, task=task)
        best = None
        for candidate in _probes(task.scan, probe_unknown):
            result, _ = turned_bench.tried(describe(orientation), flat(task, candidate.probe), freedoms)
            if best is None or result.mean_deviance < best.mean_deviance:
                best = result
        assert best is not None
        tried.append((orientation, best))
        yield _trial(best, math.nan, False)
    tried.sort(key=lambda entry: entry[1].mean_deviance)
    (first, best), (second, rival) = tried[:2]
    by = margin(best, rival)
    if not by >= SIGNIFICANT:
        rows = [_trial(entry, margin(best, entry) if entry is not best else math.nan, False) for _, entry in tried]
        remedy = "Turn the patterns as the instrument does (--transpose, --flip-rows, --flip-columns)."
        raise DataError(
            bench.task.scan.source,
            "orientation",
            expected=f"one orientation ahead by {SIGNIFICANT:g} standard errors of its held-out deviance",
            received=f"{describe(first)} and {describe(second)} {by:.1f} apart\n{table(rows)}\n",
            remedy=remedy,
        )
    yield _trial(best, by, True)
    return first


def _probes(scan: Scan, probe_unknown: bool) -> Sequence[ProbeCandidate]:
    return unknown(scan) if probe_unknown else [ProbeCandidate("given", scaled(scan, scan.probe))]


def _trial(result: Candidate, by: float, kept: bool) -> Trial:
    return Trial(
        question="orientation",
        candidate=result.name,
        deviance=result.mean_deviance,
        margin=by,
        kept=kept,
        facts=result.facts,
    )
