"""Which way round a detector is mounted: the eight orientations, ranked by how well patterns agree (specs/data.md,
Orientation).

Patterns are turned; positions and probe stay. For each orientation an object and a correction of the probe are fitted
to neighbouring patterns, and patterns left out of the fit are predicted. Overlapping patterns contradict one another
in a wrong orientation, so what is fitted to some does not predict the others.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from ptycho_core.errors import DataError
from ptycho_core.events import Count
from ptycho_core.scans.scan import Scan
from ptycho_core.scans.steps import Orient, Roll, Step

ORIENTATIONS = tuple(Orient(*flags) for flags in product((False, True), repeat=3))
"""As in `Orient`: transposed first, then rows, then columns reversed. The first one changes nothing."""

FEWEST_FRAMES = 16
SIDES = (64, 96, 128, 192, 256)
KEPT_POWER = 0.9  # detectors are cropped to the least of SIDES that keeps this part of the intensity
MOST_MODES = 3  # of the probe: the strongest
TESTED, INNER = 0.2, 0.6  # of the frames: left out of the fit, from those this near to the middle
PROBE_STEP = 0.2
STANDARD_ERRORS, LEAST_MARGIN = 3.0, 0.1  # specs/data.md, Orientation: below them two orientations are tied


@attrs.frozen
class OrientationScore:
    """One orientation of the patterns.

    score: 1 − Σ(|F(P·O)| − A)² / Σ(Ā − A)² over the good pixels of patterns that were not fitted, Ā the mean of the
        fitted ones: 1 is a perfect prediction, 0 one that knows nothing of a pattern's position.
    standard_error: of the score, from its scatter over those patterns.
    misfit: Σ(|F(P·O)| − A)² / ΣA² over the same patterns.
    """

    orientation: Orient
    score: float
    standard_error: float
    misfit: float


@attrs.frozen(kw_only=True)
class OrientationRanking:
    """The eight orientations, best first.

    margin, margin_error: score of the first less that of the second, and its standard error.
    tied: the orientations that fit as well as the first, itself included; all where none explains anything.
    reason: why they cannot be told apart, or None where `tied` is a single one.
    fitted, predicted: patterns; side: of the central part of the detector that was used, pixels.
    """

    scores: tuple[OrientationScore, ...]
    margin: float
    margin_error: float
    tied: tuple[Orient, ...]
    reason: str | None
    fitted: int
    predicted: int
    side: int

    @property
    def best(self) -> Orient | None:
        """The orientation that agrees with probe and positions; None where several do."""
        return self.tied[0] if len(self.tied) == 1 else None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is not finite is None."""
        ranked = [
            {
                **attrs.asdict(entry.orientation),
                "score": _finite(entry.score),
                "standard_error": _finite(entry.standard_error),
                "misfit": _finite(entry.misfit),
                "tied": len(self.tied) > 1 and entry.orientation in self.tied,
            }
            for entry in self.scores
        ]
        return {
            "best": None if self.best is None else attrs.asdict(self.best),
            "margin": _finite(self.margin),
            "margin_error": _finite(self.margin_error),
            "reason": self.reason,
            "fitted_patterns": self.fitted,
            "predicted_patterns": self.predicted,
            "side_px": self.side,
            "ranking": ranked,
        }

    def as_table(self) -> str:
        """The ranking as text, a line for each orientation, and the conclusion."""
        lines = [f"{'transpose':9} {'flip rows':9} {'flip columns':12} {'score':>8} {'±':>6} {'misfit':>8}"]
        for entry in self.scores:
            turn = entry.orientation
            flags = ("yes" if flag else "no" for flag in (turn.transpose, turn.flip_rows, turn.flip_columns))
            lines.append(
                "{:9} {:9} {:12} ".format(*flags)
                + f"{entry.score:8.3f} {entry.standard_error:6.3f} {entry.misfit:8.4f}"
                + (" tied" if len(self.tied) > 1 and turn in self.tied else "")
            )
        told = f"{describe(self.tied[0])}, by {self.margin:.3f} ± {self.margin_error:.3f} of score"
        lines.append(f"best: {told}" if self.reason is None else f"undecided: {self.reason}")
        return "\n".join(lines)


def describe(orientation: Orient) -> str:
    """In words: "as stored", or "transpose, flip rows"."""
    flags = attrs.asdict(orientation)
    return ", ".join(name.replace("_", " ") for name, flag in flags.items() if flag) or "as stored"


def about_the_centre(orientation: Orient, side: int) -> tuple[Step, ...]:
    """Steps that turn patterns of `side` × `side` pixels and leave DC at pixel [side // 2, side // 2].

    Where the side is even, a flip alone would move it by one pixel.
    """
    if side % 2 or not (orientation.flip_rows or orientation.flip_columns):
        return (orientation,)
    return orientation, Roll(int(orientation.flip_rows), int(orientation.flip_columns))


def combined(first: Orient, then: Orient) -> Orient:
    """One orientation for two, one after the other: a file read in one and then found to need another."""
    rows, columns = first.flip_rows, first.flip_columns
    if then.transpose:
        rows, columns = columns, rows
    return Orient(first.transpose ^ then.transpose, rows ^ then.flip_rows, columns ^ then.flip_columns)


def rank_orientations(
    scan: Scan,
    *,
    frames: int = 150,
    sweeps: int = 10,
    seed: int = 0,
    progress: Count | None = None,
) -> OrientationRanking:
    """How well patterns, positions and probe agree with the patterns turned each of eight ways, best first.

    frames: how many, nearest to the middle of the scan; a fifth of them is predicted, not fitted. sweeps: of the fit.
    seed: of the choice and the order of frames. progress: called with the sweeps done and their number.

    The fit is ePIE (Maiden and Rodenburg, Ultramicroscopy 109, 1256, 2009) of one object and one probe for each
    orientation, from |O| = 1 and the given probe, on the central part of the detector. The two orientations that
    differ by both flips fit alike, with O and P conjugated, unless the given probe tells: one of flat phase does not,
    and then they are tied. DataError: fewer than 16 patterns, or a probe that sends no light into the part used.
    """
    if len(scan) < FEWEST_FRAMES:
        remedy = "Give a longer scan; its orientation must be known otherwise."
        expected = f"at least {FEWEST_FRAMES} patterns"
        raise DataError(scan.source, "diffraction_amplitude", expected=expected, received=len(scan), remedy=remedy)
    chosen = _middle(scan.positions_px, max(frames, FEWEST_FRAMES))
    amplitude = scan.diffraction_amplitude[np.sort(chosen)][np.argsort(np.argsort(chosen))]  # files like sorted indices
    assert scan.bad_pixels is not None
    side = _enough_pixels(amplitude, scan.bad_pixels)
    kept = max(FEWEST_FRAMES, min(len(chosen), math.ceil(frames * (SIDES[0] / max(side, SIDES[0])) ** 2)))
    chosen, central = chosen[:kept], slice(scan.N // 2 - side // 2, scan.N // 2 - side // 2 + side)
    amplitude, good = amplitude[:kept, central, central], ~scan.bad_pixels[central, central]
    if not (amplitude * good).any():
        remedy = "Check the centre of the patterns, and that the mask is True where a pixel is bad."
        expected = "some counts in good pixels"
        raise DataError(scan.source, "diffraction_amplitude", expected=expected, received="zeros only", remedy=remedy)

    rng = np.random.default_rng(seed)
    tested = rng.choice(math.ceil(INNER * kept), math.ceil(TESTED * kept), replace=False)
    fitted = np.setdiff1d(np.arange(kept), tested)
    fit = _Fit(_turned(amplitude * good), _turned(good[None])[0], scan.positions_px[chosen] * (side / scan.N))
    fit.start_from(_band_limited(scan, central, amplitude, good))
    for sweep in range(sweeps):
        for frame in rng.permutation(fitted):
            fit.update(frame, probe_step=PROBE_STEP if sweep else 0.0)
        if progress is not None:
            progress(sweep + 1, sweeps)
    residual = np.array([fit.residual(frame) for frame in tested], np.float64)
    ignorant = np.square(fit.amplitude[tested] - fit.amplitude[fitted].mean(axis=0), dtype=np.float64).sum(axis=(2, 3))
    power = float(np.square(amplitude[tested] * good, dtype=np.float64).sum())
    return _ranked(residual, ignorant[:, 0], power, len(fitted), side)


class _Fit:
    """Eight objects and probes, one for each orientation of the patterns, updated together."""

    def __init__(self, amplitude: NDArray[np.float32], good: NDArray[np.bool_], positions: NDArray[np.float64]) -> None:
        """amplitude: (M, 8, n, n), good: (8, n, n), both with DC at [0, 0]; positions: (M, 2), pixels of side n."""
        self.amplitude, self.good = amplitude, good
        side = amplitude.shape[-1]
        whole = np.rint(positions)
        corners = (whole - whole.min(axis=0)).astype(int)
        width, height = corners.max(axis=0) + side
        self.windows = [(..., slice(y, y + side), slice(x, x + side)) for x, y in corners.tolist()]
        self.object = np.ones((len(ORIENTATIONS), 1, height, width), np.complex64)
        frequency = -2j * np.pi * fft.fftfreq(side)
        x, y = (np.exp(frequency * part[:, None]) for part in (positions - whole).T)
        self.moves = (y[:, :, None] * x[:, None, :]).astype(np.complex64)  # of the probe, by fractions of a pixel

    def start_from(self, probe: NDArray[np.complex128]) -> None:
        """probe: (modes, n, n)."""
        transformed = fft.fft2(probe).astype(np.complex64)
        self.probe = np.repeat(transformed[None], len(ORIENTATIONS), axis=0)  # (8, modes, n, n), its Fourier transform

    def update(self, frame: int, *, probe_step: float) -> None:
        """One step of ePIE in every orientation; several modes share the correction (Thibault and Menzel, 2013)."""
        patch, probe, wave, modelled = self._predicted(frame)
        missing = self._missing(frame, modelled)
        change = fft.ifft2(wave * (missing / np.maximum(modelled, 1e-6 * modelled.max()))[:, None], norm="ortho")
        before = patch.copy()
        patch += (probe.conj() * change).sum(axis=1, keepdims=True) / _peak(_intensity(probe))[:, None]
        if probe_step:
            correction = before.conj() * change / _peak(np.abs(before) ** 2)
            self.probe += probe_step * fft.fft2(correction) * self.moves[frame].conj()

    def residual(self, frame: int) -> NDArray[np.float32]:
        """(8,): Σ(|F(P·O)| − A)² over the good pixels."""
        *_, modelled = self._predicted(frame)
        return np.asarray(np.square(self._missing(frame, modelled)).sum(axis=(1, 2)))

    def _predicted(self, frame: int) -> tuple[NDArray[np.complex64], ...]:
        """Object patch (8, 1, n, n), a view; probe at its place and far field (8, modes, n, n); amplitude (8, n, n)."""
        patch = self.object[self.windows[frame]]
        probe = fft.ifft2(self.probe * self.moves[frame])
        wave = fft.fft2(probe * patch, norm="ortho")
        return patch, probe, wave, np.sqrt(_intensity(wave))

    def _missing(self, frame: int, modelled: NDArray[Any]) -> NDArray[np.float32]:
        return np.asarray((self.amplitude[frame] - modelled) * self.good)


def _middle(positions: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """The `count` positions nearest to the median, nearest first."""
    distance = np.hypot(*(positions - np.median(positions, axis=0)).T)
    return np.argsort(distance, kind="stable")[:count]


def _enough_pixels(amplitude: NDArray[np.float32], bad: NDArray[np.bool_]) -> int:
    """Side of the least central square that holds KEPT_POWER of the intensity of the good pixels."""
    N = int(amplitude.shape[-1])
    pattern = np.square(amplitude, dtype=np.float64).sum(axis=0) * ~bad
    for side in SIDES:
        central = slice(N // 2 - side // 2, N // 2 - side // 2 + side)
        if side < N and pattern[central, central].sum() >= KEPT_POWER * pattern.sum():
            return side
    return N


def _turned(patterns: NDArray[Any]) -> NDArray[Any]:
    """(M, n, n) → (M, 8, n, n): in every orientation about DC, which goes to pixel [0, 0]."""
    turned = []
    for orientation in ORIENTATIONS:
        values = patterns
        for step in about_the_centre(orientation, patterns.shape[-1]):
            values = step.apply(values)
        turned.append(fft.ifftshift(values, axes=(-2, -1)))
    return np.stack(turned, axis=1)


def _band_limited(
    scan: Scan, central: slice, amplitude: NDArray[np.float32], good: NDArray[np.bool_]
) -> NDArray[np.complex128]:
    """The probe (modes, n, n) with only the frequencies of the central pixels, scaled to the intensity in them."""
    strongest = np.argsort(-np.square(np.abs(scan.probe)).sum(axis=(1, 2)), kind="stable")[:MOST_MODES]
    far = fft.fftshift(fft.fft2(scan.probe[strongest].astype(np.complex128), norm="ortho"), axes=(-2, -1))
    far = far[:, central, central]
    beam = (np.abs(far) ** 2 * good).sum()
    if not beam > 0:
        remedy = "Check that probe and patterns belong together, and that the mask is True where a pixel is bad."
        expected = "some light in the good pixels of the detector"
        raise DataError(scan.source, "probe", expected=expected, received="none", remedy=remedy)
    far *= np.sqrt(np.square(amplitude * good, dtype=np.float64).sum() / len(amplitude) / beam)
    # From the middle of N pixels to that of n; nothing to do where both are even.
    side, N = far.shape[-1], scan.N
    shift = np.exp(2j * np.pi * (np.arange(side) - side // 2) * (N // 2 / N - (side // 2) / side))
    return np.asarray(fft.ifft2(fft.ifftshift(far * shift[:, None] * shift, axes=(-2, -1)), norm="ortho"))


def _ranked(
    residual: NDArray[np.float64], ignorant: NDArray[np.float64], power: float, fitted: int, side: int
) -> OrientationRanking:
    """residual: (tested, 8); ignorant: (tested,), of the mean pattern in its place; power: their ΣA²."""
    residual = np.where(np.isfinite(residual), residual, np.inf)
    count, least = len(residual), np.finfo(np.float64).tiny
    total = max(float(ignorant.sum()), least)
    left = residual.sum(axis=0)

    def error(differences: NDArray[np.float64]) -> float:
        """Standard error of their sum, as a score."""
        return float(np.std(differences, ddof=1) * math.sqrt(count) / total)

    entries = []
    for orientation, sum_, parts in zip(ORIENTATIONS, left.tolist(), residual.T, strict=True):
        diverged = math.isinf(sum_)
        scatter = math.inf if diverged else error(parts - sum_ / total * ignorant)
        entries.append(OrientationScore(orientation, 1 - sum_ / total, scatter, sum_ / power if power else math.nan))
    order = sorted(range(len(entries)), key=lambda place: -entries[place].score)  # stable: as stored comes first
    scores = tuple(entries[place] for place in order)
    best = residual[:, order[0]]

    def behind(place: int) -> tuple[float, float]:
        if math.isinf(left[place]):
            return math.inf, 0.0
        return (left[place] - left[order[0]]) / total, error(residual[:, place] - best)

    needed = LEAST_MARGIN * scores[0].score
    equal = [
        place for place in range(len(entries)) if (gap := behind(place))[0] <= max(needed, STANDARD_ERRORS * gap[1])
    ]
    margin, margin_error = behind(order[1]) if not math.isinf(left[order[0]]) else (math.nan, math.nan)
    reason = None
    if not scores[0].score > STANDARD_ERRORS * scores[0].standard_error:
        equal = list(range(len(entries)))
        reason = (
            "no orientation predicts a pattern better than the mean of the others. The overlap or the counts are too "
            "small, the positions are not those of the patterns, or the probe is far from the true one"
        )
    elif len(equal) > 1:
        reason = f"{' and '.join(describe(ORIENTATIONS[place]) for place in equal)} fit alike"
        if len(equal) == 2 and equal[0] ^ equal[1] == 3:  # they differ by both flips
            reason += ". They differ by both flips, which a probe of flat phase cannot tell"
    return OrientationRanking(
        scores=scores,
        margin=margin,
        margin_error=margin_error,
        tied=tuple(ORIENTATIONS[place] for place in equal),
        reason=reason,
        fitted=fitted,
        predicted=count,
        side=side,
    )


def _intensity(waves: NDArray[np.complex64]) -> NDArray[np.float32]:
    """(8, modes, n, n) → (8, n, n)."""
    return np.asarray((np.square(waves.real) + np.square(waves.imag)).sum(axis=1))


def _peak(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The largest of the last two axes, never 0."""
    return np.asarray(np.maximum(values.max(axis=(-2, -1), keepdims=True), np.finfo(np.float32).tiny))


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
