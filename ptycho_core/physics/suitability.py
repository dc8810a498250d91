"""Whether a scan suits a network and a way to train it: what is refused, and what is warned of."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.physics.illumination import Illumination, counts_per_frame, mean_frame_intensity
from ptycho_core.physics.weights import outside_centre_mask, probe_mask
from ptycho_core.scans.lengths import Lengths, Pair
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.model import GENERATORS
from ptycho_core.settings.training import TrainingConfig

log = logging.getLogger(__name__)

SYMMETRIC_PROBE = 0.9  # specs/physics.md, Ambiguity
SMALLEST_EXTENT_PX = 0.1  # specs/data.md, Groups
OTHER_PROBE = 0.7  # specs/physics.md, Scale
OTHER_PIXEL = 0.02  # specs/physics.md, Scale
SAME_DOSE = 0.1  # specs/physics.md, Scale
WIDE_PROBE = 0.2  # specs/model.md, Wide probes


def check_size(scan: Scan, N: int) -> None:
    """DataError unless the scan's patterns have the network's size, and its positions can be in pixels."""
    extent = float(np.ptp(scan.positions_px, axis=0).max())
    if len(scan) > 1 and 0 < extent < SMALLEST_EXTENT_PX:
        expected = "positions in pixels of the object grid"
        received, remedy = f"positions within {extent:g} px", "Convert metres to pixels."
        raise DataError(scan.source, "xcoords, ycoords", expected=expected, received=received, remedy=remedy)
    if scan.N != N:
        remedy = f"Crop or pad the patterns to {N} x {N}, or train with N = {scan.N}."
        expected = f"{N} x {N} patterns, as the model is configured"
        raise DataError(scan.source, "diff3d", expected=expected, received=f"{scan.N} x {scan.N}", remedy=remedy)


def warn_of_other_intensity(scan: Scan, trained_on: Illumination) -> None:
    """The network's input is scaled as in training: patterns of another intensity are outside what it has seen."""
    trained = trained_on.mean_intensity * int((~np.asarray(scan.bad_pixels)).sum())
    ratio = mean_frame_intensity(scan) / trained
    if not 0.1 < ratio < 10:
        log.warning(
            "%s: a frame's intensity is %.3g times that of the training scan. Check whether one of them holds counts "
            "and the other amplitudes (--measurement), or train on this dose.",
            scan.source,
            ratio,
        )


def warn_of_other_probe(scan: Scan, trained_on: Sequence[Illumination], *, used: bool = False) -> None:
    """A network has learned how some probes light an object: of another it knows nothing.

    used: it is given the scan's own probe, and has merely learned to correct what another leaves.
    """
    ours = np.asarray(scan.probe, np.complex128)
    theirs = [np.asarray(each.probe, np.complex128) for each in trained_on if each.probe.shape[1:] == ours.shape[1:]]
    if not scan.probe_known or not theirs:
        return
    if len(ours) not in map(len, theirs) and not used:
        log.warning(
            "%s: number of probe modes: %d here, %d in the training scan. The network has not seen such a probe: "
            "train on this scan, or solve it.",
            scan.source,
            len(ours),
            len(theirs[0]),
        )
        return
    alike = max(_overlap(ours, each) if used else _overlap(ours[:1], each[:1]) for each in theirs)
    if alike >= OTHER_PROBE:
        return
    if used:
        others = "another probe" if len(theirs) == 1 else f"{len(theirs)} other probes"
        log.warning(
            "%s: the network was trained with %s (overlap %.2f of 1); this scan's own is used, to whose "
            "errors it is new: compare the held-out misfit with that of a solve, or train on this scan.",
            scan.source,
            others,
            alike,
        )
        return
    log.warning(
        "%s: its probe differs from that of the training scan (overlap %.2f of 1), the only one the network knows: "
        "train on this scan, or solve it.",
        scan.source,
        alike,
    )


def check_same_probe(scan: Scan, first: Scan, architecture: str) -> None:
    """DataError for a probe that differs from that of the first scan, for a network that is not given it."""
    ours, theirs = (np.asarray(each.probe, np.complex128) for each in (scan, first))
    alike = _overlap(ours, theirs)
    if len(ours) == len(theirs) and alike >= OTHER_PROBE:
        return
    expected = f"the probe of {first.source}, as architecture = {architecture} sees none and learns one alone"
    received = (
        f"{len(ours)} modes, {len(theirs)} there" if len(ours) != len(theirs) else f"an overlap of {alike:.2f} of 1"
    )
    remedy = "Train with architecture = canvas, which is given each scan's own, or on this scan by itself."
    raise DataError(scan.source, "probeGuess", expected=expected, received=received, remedy=remedy)


def _overlap(first: NDArray[np.complex128], second: NDArray[np.complex128]) -> float:
    """Of two probes (modes, N, N), 0 to 1; modes that one of them lacks have none."""
    common = min(len(first), len(second))
    product = np.vdot(first[:common], second[:common])
    return float(abs(product)) / float(np.linalg.norm(first) * np.linalg.norm(second) or 1)


def warn_of_other_pixel(scan: Scan, trained_on_m: Sequence[Pair | None]) -> None:
    """A network has learned in pixels: of another size they hold other features, and another curvature of the probe.

    trained_on_m: side of the object pixels of each scan; None where that is not known.
    """
    here = Lengths.of(scan.metadata, scan.N).object_pixel_m
    known = [pixel for pixel in trained_on_m if pixel is not None]
    if here is None or not known or any(np.allclose(here, pixel, rtol=OTHER_PIXEL, atol=0) for pixel in known):
        return
    there = " or ".join("{:.4g} x {:.4g} nm".format(*(1e9 * side for side in pixel)) for pixel in known[:3])
    log.warning(
        "%s: object pixels of %.4g x %.4g nm here, %s in the training scan. Crop or pad the patterns so "
        "that they agree (--crop, --pad), or train on this scan.",
        scan.source,
        *(1e9 * side for side in here),
        there,
    )


def report_dose(scan: Scan, config: TrainingConfig) -> None:
    counts = counts_per_frame(scan, config.nphotons)
    if not scan.dose_known:
        log.info("%s: dose unknown; nphotons = %g is taken as the mean photons per frame", scan.source, counts)
        return
    log.info("%s: %.4g photons per frame on average", scan.source, counts)
    stated = config.nphotons
    if stated != attrs.fields(TrainingConfig).nphotons.default and not math.isclose(stated, counts, rel_tol=SAME_DOSE):
        log.warning("nphotons = %g is stated, %.3g were measured; the measured dose is used", stated, counts)


def warn_if_wide(scan: Scan, config: TrainingConfig) -> None:
    """With pad_object, four channels alone predict the object outside the centre (specs/model.md, Wide probes)."""
    intensity = np.square(np.abs(scan.probe)).sum(axis=0)
    if config.model.probe_mask:
        intensity = intensity * probe_mask(scan.N)
    outside = float((intensity * outside_centre_mask(scan.N)).sum() / intensity.sum())
    if config.model.pad_object and config.model.architecture not in GENERATORS and outside > WIDE_PROBE:
        log.warning(
            "%s: %.0f %% of the probe's intensity is outside the central N/2 square, where pad_object leaves the "
            "network little to predict with. Training without pad_object (--no-pad-object) converges faster here.",
            scan.source,
            100 * outside,
        )


def warn_if_ambiguous(scan: Scan, config: TrainingConfig) -> None:
    """A symmetric probe of flat phase lights an object and its conjugate mirror image alike (specs/physics.md)."""
    mirrored = np.roll(scan.probe[:, ::-1, ::-1], (1, 1), axis=(1, 2))  # about pixel [N/2, N/2]
    symmetry = np.abs(np.sum(scan.probe * mirrored, axis=(1, 2))).sum() / np.sum(np.abs(scan.probe) ** 2)
    alone = config.model.gridsize == 1 or not config.model.object_big
    if symmetry > SYMMETRIC_PROBE and alone and config.model.model_type == "pinn":
        log.warning(
            "%s: the probe is symmetric with a flat phase (%.2f of 1): single patterns cannot tell an object from its "
            "conjugate mirror image. Use gridsize 2 with object_big, or a curved probe.",
            scan.source,
            symmetry,
        )
