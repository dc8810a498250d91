"""A reconstruction held against a known object, on the reconstruction's grid (specs/physics.md, Metrics)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho_core.errors import DataError
from ptycho_core.quality.alignment import Alignment, align
from ptycho_core.quality.area import bounding_box, scanned_area
from ptycho_core.quality.frc import FRC, frc
from ptycho_core.quality.metrics import (
    FLAT,
    Image,
    Mask,
    check_pair,
    complex_correlation,
    mae,
    ms_ssim,
    mse,
    psnr,
    ssim,
)
from ptycho_core.quality.truth import Imaged, Truth, as_truth, on_grid, search

SURE, BETTER = 0.9, 0.05  # specs/physics.md, Metrics: correlations that decide where a truth lies


@attrs.frozen(eq=False, kw_only=True)
class Quality:
    """One real image (amplitude, or phase in rad) against its truth, inside the mask.

    data_range: the truth's peak-to-peak, in the image's unit; what PSNR (dB), SSIM and MS-SSIM refer to.
    frc: of the two images. A metric that cannot be computed is NaN and has an entry in `reasons`.
    """

    mae: float
    mse: float
    data_range: float
    psnr_db: float
    ssim: float
    ms_ssim: float
    frc: FRC
    reasons: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: numbers, None for NaN or infinity, and the reasons."""
        names = ("mae", "mse", "data_range", "psnr_db", "ssim", "ms_ssim")
        numbers = {name: _json_number(getattr(self, name)) for name in names}
        return {**numbers, "frc_crossing": _json_number(self.frc.crossing_half), "reasons": dict(self.reasons)}


@attrs.frozen(eq=False, kw_only=True)
class Evaluation:
    """A reconstruction against a truth.

    correlation_before_alignment: `complex_correlation` in the mask as given, blind to the global phase only.
    correlation: the same after alignment. frc: of the aligned complex fields.
    """

    correlation_before_alignment: float
    correlation: float
    frc: FRC
    alignment: Alignment
    amplitude: Quality
    phase: Quality
    reasons: Mapping[str, str]

    def as_dict(self, pixel_m: tuple[float, float] | None = None) -> dict[str, Any]:
        """For JSON: plain numbers, lists and text; NaN becomes None and keeps its reason. Arrays are left out."""
        alignment = self.alignment
        return {
            "correlation_before_alignment": _json_number(self.correlation_before_alignment),
            "correlation": _json_number(self.correlation),
            "frc_crossing": _json_number(self.frc.crossing_half),
            "resolution": self.frc.as_dict(pixel_m),
            "reasons": dict(self.reasons),
            "alignment": {
                "global_phase_rad": alignment.global_phase_rad,
                "amplitude_scale": alignment.amplitude_scale,
                "phase_ramp_rad_per_px": list(alignment.phase_ramp_rad_per_px),
                "shift_px": list(alignment.shift_px),
                "pixels_compared": int(alignment.mask.sum()),
                "reason": alignment.reason,
            },
            "amplitude": self.amplitude.as_dict(),
            "phase": self.phase.as_dict(),
        }


@attrs.frozen(eq=False, kw_only=True)
class Comparison:
    """The metrics, and the fields that they compare: complex (H, W), aligned, and the area compared, bool (H, W).

    share: of the scanned area, that was compared. moved_px: (x, y), by which the truth lies further than its origin
    says; found by search where it is not (0, 0). correlation_at_origin: aligned, where its origin says; None without
    such a search, NaN where the two do not overlap there. doubt: why the truth may lie elsewhere after all, as the end
    of a sentence, or None.
    """

    metrics: Evaluation
    estimate: NDArray[np.complex128]
    truth: NDArray[np.complex64]
    compared: NDArray[np.bool_]
    share: float
    moved_px: tuple[int, int] = (0, 0)
    correlation_at_origin: float | None = None
    doubt: str | None = None
    pixel_m: tuple[float, float] | None = None

    def __repr__(self) -> str:
        metrics = self.metrics
        ssim = f"SSIM {metrics.amplitude.ssim:.4f} of the amplitude, {metrics.phase.ssim:.4f} of the phase"
        doubt = "" if self.doubt is None else ", the origins may differ"
        return f"Comparison(correlation {metrics.correlation:.4f}, {ssim}, {100 * self.share:.3g} % compared{doubt})"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a report; what could not be computed is None and its reason is kept."""
        at_origin = self.correlation_at_origin
        place = {
            "share_compared": self.share,
            "moved_px": list(self.moved_px),
            "correlation_at_origin": None if at_origin is None else _json_number(at_origin),
            "place_in_doubt": self.doubt,
        }
        return {**self.metrics.as_dict(self.pixel_m), **place}

    def warning(self) -> str:
        """The doubt as a sentence."""
        shown = f"where the origin of the truth says, the correlation is {self.metrics.correlation:.4f}"
        return f"the origins may differ: {shown}, and {self.doubt}"

    def table(self) -> str:
        """The figures as text, a line for amplitude and one for phase."""
        lines = [
            f"compared: {100 * self.share:.3g} % of the scanned area, {int(self.compared.sum())} pixels",
            f"complex correlation {self.metrics.correlation_before_alignment:.4f} (global phase removed), "
            f"{self.metrics.correlation:.4f} (aligned)",
            f"resolution (FRC 0.5): {self.metrics.frc.describe(self.pixel_m)}",
            f"{'':10} {'MAE':>9} {'PSNR dB':>9} {'range':>9} {'SSIM':>9} {'FRC 0.5 crossing':>18}",
        ]
        if self.correlation_at_origin is not None:
            x, y = self.moved_px
            there = self.correlation_at_origin
            told = "they do not overlap" if math.isnan(there) else f"the correlation is {there:.4f}"
            lines.insert(
                1, f"the origins differ: the truth was found {x:+d}, {y:+d} px (x, y) from its own, where {told}"
            )
        if self.doubt is not None:
            lines.insert(1, self.warning())
        for name, quality in (("amplitude", self.metrics.amplitude), ("phase", self.metrics.phase)):
            figures = (quality.mae, quality.psnr_db, quality.data_range, quality.ssim)
            lines.append(
                f"{name:10} "
                + " ".join(f"{figure:9.4f}" for figure in figures)
                + f" {quality.frc.crossing_half:9.4f} cycles/px"
            )
            shown = ("psnr_db", "ssim", "frc_crossing")
            lines += [f"{'':10} {metric}: {reason}" for metric, reason in quality.reasons.items() if metric in shown]
        return "\n".join(lines)


def evaluate(
    reconstruction: Imaged, truth: Truth | Imaged | NDArray[Any], *, pixel_m: tuple[float, float] | None = None
) -> Comparison:
    """Metrics inside the scanned area: the positions' hull shrunk by a quarter of a patch, where both are known.

    truth: a `Truth`, another reconstruction, or an array whose pixel [0, 0] is at coordinate (0, 0). Where its origin
    gives a correlation below 0.9 it is searched for in the whole of the other (`truth.search`), and taken where it is
    found if that is better by 0.05; where no place stands out, if one alone gives 0.9. Otherwise the comparison at the
    origin has a `doubt`. pixel_m: (x, y), sides of an object pixel, for the resolution in metres. DataError
    when the two overlap neither by their origins nor by the search.
    """
    known = as_truth(truth)
    shape, origin = reconstruction.object_field.shape, reconstruction.origin_px
    area = scanned_area(reconstruction.positions_px, reconstruction.probe.shape[-1], shape, origin)
    if reconstruction.known is not None:
        area &= reconstruction.known
    stated = _placed(reconstruction, known, area, (0, 0), pixel_m)
    at_origin = math.nan if stated is None else stated.metrics.correlation
    if stated is not None and (math.isnan(at_origin) or at_origin >= SURE):
        return stated
    searched = search(known, reconstruction, area)
    tried = [(place, _placed(reconstruction, known, area, place, pixel_m)) for place in searched.places]
    found = _best([each for place, each in tried if each is not None and place != (0, 0)], clear=searched.clear)
    if found is not None and (stated is None or found.metrics.correlation > at_origin + BETTER):
        return attrs.evolve(found, correlation_at_origin=at_origin)
    if stated is None:
        expected = "an object that overlaps the scanned area, by its origin or by search"
        received = f"shape {known.object_field.shape} from {known.origin_px}"
        remedy = "Check that both are on the same pixel grid."
        raise DataError(known.source, "objectGuess", expected=expected, received=received, remedy=remedy)
    return stated if searched.clear else attrs.evolve(stated, doubt=searched.reason)


def _best(found: list[Comparison], *, clear: bool) -> Comparison | None:
    """The comparison at the place that a search gave; of several places, one that alone makes the two alike."""
    if clear or not found:
        return found[0] if found else None
    best, *others = sorted(found, key=lambda each: -each.metrics.correlation)
    alone = all(best.metrics.correlation > other.metrics.correlation + BETTER for other in others)
    return best if alone and best.metrics.correlation >= SURE else None


def _placed(
    image: Imaged, truth: Truth, area: Mask, moved_px: tuple[int, int], pixel_m: tuple[float, float] | None
) -> Comparison | None:
    """The comparison with the truth moved from its origin; None where the two do not overlap there."""
    field, inside = on_grid(truth, image, moved_px)
    if not (area & inside).any():
        return None
    metrics = evaluate_fields(image.object_field, field, area & inside)
    compared = metrics.alignment.mask
    return Comparison(
        metrics=metrics,
        estimate=metrics.alignment.aligned,
        truth=field,
        compared=compared,
        share=float(compared.sum() / area.sum()),
        moved_px=moved_px,
        pixel_m=pixel_m,
    )


def evaluate_fields(estimate: ArrayLike, truth: ArrayLike, mask: ArrayLike | None = None) -> Evaluation:
    """Every metric of `estimate` against `truth` inside the mask, after `align`.

    estimate, truth: complex (H, W) on the same grid; mask: bool (H, W), usually `scanned_area`, default everywhere.
    Phase images: the wrapped difference from the truth, less its mean, is added to the truth's phase, which
    is counted from its minimum (SSIM is not blind to an offset). A truth that winds beyond 2π keeps its own wraps.
    DataError as in `align`; what merely cannot be computed (an image too small, a flat truth) is NaN with a reason.
    """
    first, second, inside = check_pair("evaluate_fields", estimate, truth, mask)
    alignment = align(first, second, inside)
    box = bounding_box(alignment.mask)
    found, target, compared = alignment.aligned[box], second[box], alignment.mask[box]
    before, after = complex_correlation(first, second, inside), complex_correlation(found, target, compared)
    curve = frc(found, target, compared)
    flat = "a field is flat inside the mask"
    reasons = {
        "correlation_before_alignment": flat if math.isnan(before) else None,
        "correlation": flat if math.isnan(after) else None,
        "frc_crossing": curve.reason,
    }
    round_off = FLAT * float(np.abs(target[compared]).max())
    return Evaluation(
        correlation_before_alignment=before,
        correlation=after,
        frc=curve,
        alignment=alignment,
        amplitude=_quality(np.abs(found), np.abs(target), compared, round_off),
        phase=_quality(*_phase_images(found, target, compared), compared, FLAT),
        reasons={name: reason for name, reason in reasons.items() if reason},
    )


def _phase_images(estimate: Image, truth: Image, inside: Mask) -> tuple[Image, Image]:
    """Phases in rad on one branch: the truth from its minimum in the mask, the estimate beside it."""
    centre = np.exp(-1j * np.angle(truth[inside].sum()))
    found, target = (np.angle(field * centre + 0.0) for field in (estimate, truth))  # + 0.0: angle(-0) would be π
    difference = np.angle(np.exp(1j * (found - target)))
    target = target - target[inside].min()
    return target + difference - difference[inside].mean(), target


def _quality(estimate: Image, truth: Image, inside: Mask, round_off: float) -> Quality:
    """All metrics of a real image; less variation than `round_off`, in its unit, counts as none."""
    estimate, truth = (
        np.full_like(image, image[inside].mean()) if np.ptp(image[inside]) <= round_off else image
        for image in (estimate, truth)
    )
    data_range = float(np.ptp(truth[inside]))
    curve = frc(estimate, truth, inside)
    reasons = {"frc_crossing": curve.reason} if curve.reason else {}
    scores = {}
    for name, metric in (("psnr_db", psnr), ("ssim", ssim), ("ms_ssim", ms_ssim)):
        try:
            scores[name] = metric(estimate, truth, data_range, inside)
        except DataError as error:
            scores[name], reasons[name] = math.nan, str(error)
    if math.isinf(scores["psnr_db"]):
        reasons["psnr_db"] = "infinite: the two images are equal inside the mask"
    return Quality(
        mae=mae(estimate, truth, inside),
        mse=mse(estimate, truth, inside),
        data_range=data_range,
        **scores,
        frc=curve,
        reasons=reasons,
    )


def _json_number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
