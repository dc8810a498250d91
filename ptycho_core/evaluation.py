"""A reconstruction held against a known object, on the reconstruction's grid (specs/physics.md, Metrics)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError, explain
from ptycho_core.io.npz import read_npz
from ptycho_core.metrics import Evaluation, evaluate_fields, scanned_area
from ptycho_core.reconstruction import Reconstruction


@attrs.frozen(eq=False, kw_only=True)
class Truth:
    """A known object: complex64 (H, W); its pixel [0, 0] is at the coordinate origin_px = (x, y)."""

    object_field: NDArray[np.complex64]
    origin_px: tuple[float, float] = (0.0, 0.0)
    source: str = "truth"


@attrs.frozen(eq=False, kw_only=True)
class Comparison:
    """The metrics, and the fields that they compare: complex (H, W), aligned, and the area compared, bool (H, W)."""

    metrics: Evaluation
    estimate: NDArray[np.complex128]
    truth: NDArray[np.complex64]
    compared: NDArray[np.bool_]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a report; what could not be computed is None and its reason is kept."""
        return self.metrics.as_dict()

    def table(self) -> str:
        """The figures as text, a line for amplitude and one for phase."""
        lines = [
            f"complex correlation {self.metrics.correlation_before_alignment:.4f} (global phase removed), "
            f"{self.metrics.correlation:.4f} (aligned)",
            f"{'':10} {'MAE':>9} {'PSNR dB':>9} {'range':>9} {'SSIM':>9} {'FRC 0.5 crossing':>18}",
        ]
        for name, quality in (("amplitude", self.metrics.amplitude), ("phase", self.metrics.phase)):
            figures = (quality.mae, quality.psnr_db, quality.data_range, quality.ssim)
            lines.append(
                f"{name:10} "
                + " ".join(f"{figure:9.4f}" for figure in figures)
                + f" {quality.frc.crossing_half:9.4f} cycles/px"
            )
            lines += [f"{'':10} {metric}: {reason}" for metric, reason in quality.reasons.items()]
        return "\n".join(lines)


def load_truth(path: str | os.PathLike[str]) -> Truth:
    """The object in an NPZ file: `objectGuess` of a scan, or `object` with `origin_px` of a reconstruction."""
    file = Path(path)
    arrays = read_npz(file)
    key = next((name for name in ("objectGuess", "object") if name in arrays), None)
    if key is None or arrays[key].ndim != 2:
        received = f"the keys {', '.join(sorted(arrays))}" if key is None else f"shape {arrays[key].shape}"
        remedy = "Give a file with the true object."
        expected = "a complex object (H, W)"
        raise DataError(explain(file, key or "objectGuess", expected=expected, received=received, remedy=remedy))
    x, y = arrays["origin_px"] if key == "object" and "origin_px" in arrays else (0.0, 0.0)
    return Truth(object_field=arrays[key].astype(np.complex64), origin_px=(float(x), float(y)), source=str(file))


def evaluate(reconstruction: Reconstruction, truth: Truth | NDArray[Any]) -> Comparison:
    """Metrics inside the scanned area: the positions' hull shrunk by a quarter of a patch.

    truth: a `Truth`, or an array whose pixel [0, 0] is at coordinate (0, 0). DataError when the two do not overlap.
    """
    known = truth if isinstance(truth, Truth) else Truth(object_field=np.asarray(truth, np.complex64))
    field, inside = _on_grid(known, reconstruction)
    shape, origin = reconstruction.object_field.shape, reconstruction.origin_px
    area = scanned_area(reconstruction.positions_px, reconstruction.probe.shape[-1], shape, origin) & inside
    if not area.any():
        expected = "an object that overlaps the scanned area"
        received = f"shape {known.object_field.shape} from {known.origin_px}"
        remedy = "Check that both are on the same pixel grid."
        raise DataError(explain(known.source, "objectGuess", expected=expected, received=received, remedy=remedy))
    metrics = evaluate_fields(reconstruction.object_field, field, area)
    return Comparison(metrics=metrics, estimate=metrics.alignment.aligned, truth=field, compared=metrics.alignment.mask)


def _on_grid(truth: Truth, reconstruction: Reconstruction) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
    """The truth on the reconstruction's canvas, and where it is known. Both grids are whole pixels apart."""
    height, width = reconstruction.object_field.shape
    left, top = (round(r - t) for r, t in zip(reconstruction.origin_px, truth.origin_px, strict=True))
    field = np.zeros((height, width), np.complex64)
    inside = np.zeros((height, width), bool)
    rows = slice(max(0, -top), max(0, min(height, truth.object_field.shape[0] - top)))
    columns = slice(max(0, -left), max(0, min(width, truth.object_field.shape[1] - left)))
    cut = truth.object_field[rows.start + top : rows.stop + top, columns.start + left : columns.stop + left]
    if cut.size:
        field[rows, columns], inside[rows, columns] = cut, True
    return field, inside
