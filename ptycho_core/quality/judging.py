"""A scan judged before anything runs: one table of findings for every command (specs/data.md, Findings)."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ptycho_core.physics.canvas import canvas_extent
from ptycho_core.quality.area import lit_width_px
from ptycho_core.quality.judging_lengths import judge_lengths, judge_units
from ptycho_core.scans.beam import beam_centroid
from ptycho_core.scans.findings import MOST_BAD, Finding, mask_finding, ranges
from ptycho_core.scans.outlying import DARK, HOT, empty_frames, hot_frames, steps_px, stray_frames
from ptycho_core.scans.scan import Scan

log = logging.getLogger(__name__)

# specs/data.md, Findings
CORNER = 0.5
OFF_CENTRE_PX, OFF_CENTRE = 1.5, 0.025
FAR_FIELD, UNLIKE = 0.85, 0.5
LARGEST_SPAN_PX, SMALLEST_SPAN_PX = 1e6, 0.1
INFLATED, INFLATED_PX = 10.0, 2**22
MOST_PARKED = 0.5
UNIT = ("position_unit", "position_scale")


def judge(scan: Scan) -> tuple[Finding, ...]:
    """All that is noticed about a scan, errors first; nothing is read again.

    Raises nothing: `checked` makes an error of the first one.
    """
    read = () if scan.noticed is None else scan.noticed.findings
    lengths = tuple(judge_lengths(scan))
    positions = () if lengths else _positions(scan)  # a wrong length has made their pixels wrong
    found = [*read, *_mask(scan), *_dose(scan), *lengths, *positions, *_beam(scan), *_probe(scan)]
    return tuple(sorted(found, key=lambda finding: finding.severity != "error"))


def checked(scan: Scan) -> Scan:
    """The scan, its warnings in the log. Raises DataError for the first finding that is an error."""
    for finding in judge(scan):
        if finding.severity == "error":
            raise finding.error(scan.source)
        log.warning("%s", Warned(finding, scan.source))
    return scan


class Warned:
    """A finding as an argument of a log message, so that a handler may name settings by their flags."""

    def __init__(self, finding: Finding, source: str) -> None:
        self.finding, self.source = finding, source

    def __str__(self) -> str:
        from ptycho_core.settings.fields import flag_of

        return self.finding.error(self.source).line(flag_of)


def _mask(scan: Scan) -> Iterator[Finding]:
    """Only of a scan of no file: what a file's mask hides is noticed while it is read, apart from padding."""
    bad = np.asarray(scan.bad_pixels)
    if scan.noticed is None and bad.mean() > MOST_BAD:
        yield mask_finding(int(bad.sum()), bad.size)


def _dose(scan: Scan) -> Iterator[Finding]:
    intensity = scan.statistics.frame_intensity
    empty, hot = empty_frames(intensity, counts=scan.dose_known), hot_frames(intensity, counts=scan.dose_known)
    if len(scan) == 1:
        yield Finding(
            severity="warning",
            what="patterns",
            expected="patterns that overlap",
            received="one pattern",
            remedy="Measure the object at positions that overlap.",
            count=1,
        )
    if len(empty):
        yield _frames(
            scan,
            empty,
            "empty patterns",
            f"at least {100 * DARK:g} % of the usual intensity",
            "less",
            "Leave them out",
            "drop_frames=empty",
        )
    if len(hot):
        yield _frames(
            scan,
            hot,
            "outliers",
            f"at most {HOT:g} times the usual intensity",
            "more",
            "Leave them out",
            "drop_frames=outliers",
        )


def _frames(
    scan: Scan,
    index: NDArray[np.int64],
    what: str,
    expected: str,
    received: str,
    remedy: str,
    *state: str,
    error: bool = False,
) -> Finding:
    numbers = index if scan.noticed is None else scan.noticed.frames[index]
    return Finding(
        severity="error" if error else "warning",
        what=what,
        expected=expected,
        received=f"{received} in {len(index)} of {len(scan)} patterns: {ranges(numbers)}",
        remedy=remedy,
        state=state,
        count=len(index),
        frames=tuple(int(number) for number in numbers),
    )


def _positions(scan: Scan) -> Iterator[Finding]:
    positions, count = scan.positions_px, len(scan)
    if count < 2:
        return
    stray = stray_frames(positions, scan.N)
    usual = np.delete(positions, stray, axis=0)
    span, step = np.ptp(usual, axis=0).max(), float(np.median(steps_px(usual)))
    units = judge_units(scan, float(span), step)
    if units is not None:
        yield units
        return
    if len(stray):
        expected, received = "positions near each other", "stray ones"
        broken = np.ptp(positions, axis=0).max() > LARGEST_SPAN_PX or _inflated(positions, usual, scan.N)
        state = "drop_frames=stray"
        yield _frames(scan, stray, "stray positions", expected, received, "Leave them out", state, error=bool(broken))
    if span == 0:
        yield _placed("error", count, "positions that differ", f"all {count} at the same place", "Name the positions")
        return
    same = count - len(np.unique(np.round(positions, 3), axis=0))
    if same > MOST_PARKED * count:
        yield _placed("warning", same, "one pattern at each position", f"{same} of {count} at the position of another")
    elif scan.probe_known and step > (width := lit_width_px(scan.probe)):
        received = f"{step:.4g} px to the nearest neighbour (median): the patterns do not overlap"
        yield _placed(
            "warning", count, f"steps below the probe's width of {width:.3g} px", received, "Check their unit", UNIT
        )
    yield from _counted(positions)


def _inflated(positions: NDArray[np.float64], usual: NDArray[np.float64], N: int) -> bool:
    """Whether the canvas is large, and nearly all of it there for the stray positions alone."""
    whole, lit = (math.prod(canvas_extent(each, N)[1]) for each in (positions, usual))
    return whole > max(INFLATED_PX, INFLATED * lit)


def _counted(positions: NDArray[np.float64]) -> Iterator[Finding]:
    """The number of the frame taken for a coordinate: equal steps in one, and no such steps in the other."""
    if len(positions) < 10:
        return
    steps = np.diff(positions, axis=0)
    even = [bool(np.ptp(each) <= 1e-6 * abs(each.mean())) and bool(each.any()) for each in steps.T]
    still = [not each.any() for each in steps.T]
    if even[0] != even[1] and not any(still):
        axis = ("an x", "a y")[even.index(True)]
        received = f"{axis} that grows by {steps.T[even.index(True)][0]:.4g} px from pattern to pattern"
        yield _placed("warning", len(positions), "two coordinates", f"{received}: it may be the pattern number")


def _placed(
    severity: str,
    count: int,
    expected: str,
    received: str,
    remedy: str = "Name two other columns",
    state: tuple[str, ...] = ("positions",),
) -> Finding:
    return Finding(
        severity="error" if severity == "error" else "warning",
        what="positions",
        expected=expected,
        received=received,
        remedy=remedy,
        state=state,
        count=count,
    )


def _beam(scan: Scan) -> Iterator[Finding]:
    good, N = ~np.asarray(scan.bad_pixels), scan.N
    pattern = scan.mean_pattern() * good
    if good.mean() < 1 - MOST_BAD and not _padded(scan):
        return  # which is a finding of its own
    if _in_corner(pattern):
        yield Finding(
            severity="warning",
            what="direct beam",
            expected="the middle of the patterns",
            received=f"{100 * _corner_share(pattern):.3g} % of the intensity in the corners",
            remedy="If it is stored in the corner, say so",
            state=("dc=corner",),
        )
        return
    row, column = beam_centroid(pattern, good)
    middle: tuple[float, float] = (N // 2, N // 2)
    if scan.probe_known:  # its far field may itself be beside the middle
        middle = beam_centroid((np.abs(far_field(scan.probe)) ** 2).sum(axis=0), np.ones((N, N), bool))
    off = max(abs(row - middle[0]), abs(column - middle[1]))
    if off > max(OFF_CENTRE_PX, OFF_CENTRE * N):
        beam = None if scan.noticed is None else scan.noticed.stored_pixel(row - middle[0], column - middle[1])
        stated = () if beam is None else (f"centre_row={beam[0]}", f"centre_column={beam[1]}")
        yield Finding(
            severity="warning",
            what="direct beam",
            expected=f"row {middle[0]:.4g}, column {middle[1]:.4g} of {N} x {N}",
            received=f"a centroid at row {row:.4g}, column {column:.4g}",
            remedy="Have the centre found, or state it",
            state=("centre=auto", *stated),
        )


def _padded(scan: Scan) -> bool:
    """Whether most pixels are bad and nothing was said of it: they lie outside the detector, as they should."""
    found = () if scan.noticed is None else scan.noticed.findings
    return scan.noticed is not None and not any(finding.what in ("bad pixels", "crop") for finding in found)


def _corner_share(pattern: NDArray[np.float64]) -> float:
    """Part of the intensity that is nearer to a corner than to the middle, along both axes."""
    total = pattern.sum()
    return _central_share(np.fft.ifftshift(pattern)) if total > 0 else 0.0


def _central_share(pattern: NDArray[np.float64]) -> float:
    N = len(pattern)
    part = slice(N // 4, N // 4 + max(1, N // 2))
    return float(pattern[part, part].sum() / pattern.sum())


def _in_corner(pattern: NDArray[np.float64]) -> bool:
    if not pattern.any():
        return False
    corner = _corner_share(pattern)
    return corner > CORNER and corner > 2 * _central_share(pattern)


def _probe(scan: Scan) -> Iterator[Finding]:
    if not scan.probe_known:
        return
    probe = scan.probe
    if _in_corner((np.abs(probe) ** 2).sum(axis=0)):
        received, remedy = "most of its intensity in the corners", "If it is stored that way, say so"
        yield _of_probe("a probe in the middle of its array", received, remedy, "probe_origin=corner")
        return
    if not probe.imag.any():
        expected, received = "a complex probe", "a real one"
        if len(probe) == 2:
            received += " with two modes, which may be the real and imaginary parts of one"
            yield _of_probe(expected, received, "If they are, say so", "probe_parts=real-imaginary")
        else:
            yield _of_probe(
                expected, f"{received}: its phase is 0", "Name another probe, or have it estimated", "probe=auto"
            )
    good = ~np.asarray(scan.bad_pixels)
    if good.mean() < 1 - MOST_BAD and not _padded(scan):
        return
    pattern = np.sqrt(np.maximum(scan.mean_pattern() * good, 0))
    pattern = np.minimum(pattern, np.quantile(pattern[good], 1 - max(1e-3, 4 / pattern.size)))  # no bright beam
    far = _alike(pattern, np.sqrt((np.abs(far_field(probe)) ** 2).sum(axis=0)))
    near = _alike(pattern, np.sqrt((np.abs(probe) ** 2).sum(axis=0)))
    if near > FAR_FIELD and far < near - 0.2:
        received = (
            f"one that looks like the mean pattern itself ({near:.2f} of 1), while its far field does not ({far:.2f})"
        )
        remedy = "If it is the wave at the detector, say so"
        yield _of_probe("a probe at the object", received, remedy, "probe_plane=far")
    elif far < UNLIKE and not _in_corner(pattern):
        received = f"one whose far field does not look like the mean pattern ({far:.2f} of 1)"
        yield _of_probe("the probe of this scan", received, "Name another probe, or have it estimated", "probe=auto")


def _of_probe(expected: str, received: str, remedy: str, *state: str) -> Finding:
    return Finding(severity="warning", what="probe", expected=expected, received=received, remedy=remedy, state=state)


def far_field(probe: NDArray[np.complexfloating]) -> NDArray[np.complex128]:
    """The wave (modes, N, N) at the detector, DC at [N // 2, N // 2]."""
    axes = (-2, -1)
    wave = np.asarray(probe, np.complex128)
    return np.asarray(np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(wave, axes), norm="ortho"), axes))


def _alike(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Correlation of two amplitudes, 0 … 1."""
    norm = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / norm if norm else 0.0


def table(findings: Sequence[Finding]) -> str:
    """A line for each finding, or that there is none."""
    from ptycho_core.settings.fields import flag_of

    if not findings:
        return "findings: none"
    lines = [f"{finding.severity.upper():7}  {finding.error('').line(flag_of)[2:]}" for finding in findings]
    return "\n".join(["findings:", *lines])
