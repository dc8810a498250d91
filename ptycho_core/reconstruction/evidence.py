"""What the patterns say of a reconstruction: misfit, bad frames, trust map (specs/data.md, Reconstruction)."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.batches.prefetch import prefetch
from ptycho_core.engine.problem import FrameFacts, Frames, Problem
from ptycho_core.engine.processes import ALONE, Processes, gathered_facts, never
from ptycho_core.engine.protocol import Engine, Solver
from ptycho_core.errors import Cancelled
from ptycho_core.physics.canvas import corners_on
from ptycho_core.physics.patches import extract_patches
from ptycho_core.quality.trust import SplitHalf, trust_map
from ptycho_core.reconstruction.result import Reconstruction
from ptycho_core.scans.lengths import Lengths
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.simulation import expected_intensity

log = logging.getLogger(__name__)

BATCH_FRAMES = 256
WORST = 4  # specs/data.md, Reconstruction: frames that are kept beside their model
SCALED_BY = 128
"""Frames, evenly drawn, whose intensities set the one factor of a network's object."""


def of_scan(scan: Scan) -> dict[str, Any]:
    """The fields of a `Reconstruction` that say which scan it is of."""
    return {
        "source": scan.source,
        "lengths": Lengths.of(scan.metadata, scan.N),
        "dose_known": scan.dose_known,
    }


def misfit(facts: FrameFacts) -> dict[str, Any]:
    """R, H, deviance and those of each frame, as fields of a `Reconstruction`.

    facts: of `Solver.measure`, with deviances, a row for each row of the positions. H is None where no pixel was held
    out, and the deviance is then that of all used pixels. Where the facts have no deviance it is None.
    """
    held, used = float(facts.held_pixels.sum()), float(facts.pixels.sum())
    pixels, deviance = (facts.held_pixels, facts.held_deviance) if held else (facts.pixels, facts.deviance)
    mean = float(deviance.sum()) / (held or used)
    if held:
        error = math.sqrt(max(float(facts.held_deviance_squares.sum()) / held - mean**2, 0.0) / held)
    else:  # neighbouring pixels of a frame deviate together where the model is wrong: by frames
        error = float(np.std(deviance)) * math.sqrt(len(facts)) / used
    return {
        "R": float(facts.error.sum() / facts.power.sum()),
        "H": float(facts.held_error.sum() / facts.held_power.sum()) if held else None,
        "deviance": mean if math.isfinite(mean) else None,
        "deviance_error": error if math.isfinite(mean) else None,
        "frame_R": _ratio(facts.error, facts.power),
        "frame_deviance": _ratio(deviance, pixels),
    }


def with_evidence(
    result: Reconstruction,
    scan: Scan,
    rows: NDArray[np.int64],
    facts: FrameFacts,
    *,
    probe: NDArray[np.complex64] | None = None,
    counts_per_intensity: float = 1.0,
    halves: SplitHalf | None = None,
) -> Reconstruction:
    """`result` with its misfit, its trust map, a measured beside a modelled pattern, and what is known of the scan.

    rows: (P,), which frame of the scan each row of the positions is. facts: (P,), measured with everything as `result`
    has it. probe: what the object was lit with, where that is not the result's. counts_per_intensity: counts in one
    unit of A². halves: calibrate the trust map, and bring their Fourier ring correlation.
    """
    probe = result.probe if probe is None else probe
    fields = {**misfit(facts), **of_scan(scan), "frames": np.asarray(scan.scan_index)[rows]}
    trust = trust_map(
        positions_px=result.positions_px,
        probe=probe,
        origin_px=result.origin_px,
        shape=(result.object_field.shape[0], result.object_field.shape[1]),
        frame_deviance=fields["frame_deviance"],
        intensities=result.intensities,
        counts_per_intensity=counts_per_intensity,
        halves=halves,
    )
    example = int(np.argsort(fields["frame_R"])[len(rows) // 2])  # NaN goes last
    shown = np.array([example, *_worst(fields["frame_R"], fields["frames"])])
    factors = np.ones(len(shown)) if result.intensities is None else result.intensities[shown]
    patches = extract_patches(result.object_field, result.positions_px[shown], scan.N, result.origin_px)
    modelled = np.sqrt(factors[:, None, None] * expected_intensity(probe, patches)).astype(np.float32)
    amplitude = scan.diffraction_amplitude[rows[shown]]
    known = trust.known if result.known is None else trust.known & result.known
    return attrs.evolve(
        result,
        **fields,
        known=known,
        predicted_error=np.where(known, trust.predicted_error, np.float32(np.nan)),
        error_factor=trust.factor,
        error_factor_from=trust.factor_from,
        frc=result.frc if halves is None else halves.frc,
        measured_amplitude=amplitude[0],
        modelled_amplitude=modelled[0],
        pattern_frame=int(fields["frames"][example]),
        worst_measured=amplitude[1:],
        worst_modelled=modelled[1:],
        worst_frames=fields["frames"][shown[1:]],
    )


def _worst(figures: NDArray[np.float64], frames: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of the `WORST` frames of the largest figures, each frame once, the worst first."""
    known = np.flatnonzero(np.isfinite(figures))
    rows = known[np.argsort(-figures[known], kind="stable")]
    _, first = np.unique(frames[rows], return_index=True)
    return rows[np.sort(first)[:WORST]]


def measured(
    result: Reconstruction,
    scan: Scan,
    rows: NDArray[np.int64],
    engine: Engine,
    execution: ExecutionConfig,
    *,
    probe: NDArray[np.complex64] | None = None,
    counts_per_intensity: float = 1.0,
    should_stop: Callable[[], bool] = never,
    processes: Processes = ALONE,
) -> Reconstruction:
    """`with_evidence` of an object that was not solved for: every pattern is compared with its model.

    One factor on the intensities, that of most frames, is fitted first: a network's object and probe are known to a
    factor. An engine without a solver leaves the misfit unknown, and says so.
    """
    probe = result.probe if probe is None else probe
    start = getattr(engine, "start_solver", None)
    if start is None:
        log.warning("backend %s has no solver, which R and the trust map need: they are left out", engine.name)
        return attrs.evolve(result, **of_scan(scan), frames=np.asarray(scan.scan_index)[rows])
    problem = Problem(
        canvas=_roomy(result.object_field),
        probe=probe,
        bad_pixels=np.asarray(scan.bad_pixels),
        held_out=np.zeros((1, scan.N, scan.N), bool),
        counts_per_intensity=counts_per_intensity,
    )
    solver: Solver = start(problem, execution)
    # A frame may have several patches; it is measured once, at its place in the scan.
    frames, back = np.unique(rows, return_inverse=True)
    corners = corners_on(scan.positions_px[frames], scan.N, result.origin_px)

    def facts_of(chosen: NDArray[np.int64], factor: float, *, deviance: bool) -> FrameFacts:
        own = chosen[processes.part.of(len(chosen))]
        pieces = [own[start : start + BATCH_FRAMES] for start in range(0, len(own), BATCH_FRAMES)]
        source = scan.diffraction_amplitude
        reading = ((lambda piece=piece: (piece, source[frames[piece]])) for piece in pieces)
        facts = []
        with contextlib.closing(prefetch(reading, execution.num_workers)) as read:
            for piece, amplitude in read:
                if processes.size == 1 and should_stop():
                    raise Cancelled("stopped while the patterns were compared with their model")
                whole = np.r_[piece, np.repeat(piece[-1:], (1 << (len(piece) - 1).bit_length()) - len(piece))]
                batch = Frames(
                    diffraction_amplitude=np.concatenate([amplitude, amplitude[[-1] * (len(whole) - len(piece))]]),
                    corners_px=corners[whole],
                    intensity=np.full(len(whole), factor, np.float32),
                    held_out=np.zeros(len(whole), np.int64),
                )
                found = solver.measure(batch, deviance=deviance)
                facts.append(found.part(np.arange(len(piece))))
        return gathered_facts(processes, facts)

    everything = np.arange(len(frames))
    some = everything[:: max(1, len(frames) // SCALED_BY)]
    ratio = float(np.median(facts_of(some, 1.0, deviance=False).intensity_ratio))
    factor = ratio if math.isfinite(ratio) and ratio > 0 else 1.0
    facts = facts_of(everything, factor, deviance=True)
    each = facts.part(back)
    scaled = attrs.evolve(result, intensities=np.full(len(rows), factor))
    return with_evidence(scaled, scan, rows, each, probe=probe, counts_per_intensity=counts_per_intensity)


ROOM = 64


def _roomy(field: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """With zeros below and to the right, up to a multiple of `ROOM`, as batches are filled to powers of two: what an
    engine compiles for one size it keeps for good."""
    height, width = field.shape
    return np.pad(field, ((0, -height % ROOM), (0, -width % ROOM)))


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """NaN where there is nothing to divide by."""
    return np.asarray(np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0))
