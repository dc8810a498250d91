"""Energies, lengths and positions that no instrument has, with the factor that would fit (specs/data.md, Findings)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs
import scipy  # its submodules load on first use

from ptycho_core.quality.area import lit_width_px
from ptycho_core.scans.findings import Finding
from ptycho_core.scans.lengths import Lengths
from ptycho_core.scans.scan import Scan

SMALLEST_SPAN_PX, LARGEST_SPAN_PX = 0.1, 1e6
FAR_STEP = 10.0
"""Patterns of which no step consists, whatever the scan: beyond it a factor is looked for."""


@attrs.frozen
class Limit:
    """What an instrument may have. slips: factor → how it comes about; option: that states the value."""

    low: float
    high: float
    unit: str
    option: str
    slips: Mapping[float, str]


_J = scipy.constants.e
LIMITS = {
    "photon_energy_eV": Limit(
        10.0, 1e6, "eV", "energy_eV", {1e3: "keV", _J: "eV instead of joules", 1e3 * _J: "keV instead of joules"}
    ),
    "electron_energy_eV": Limit(100.0, 3e6, "eV", "voltage_kV", {1e3: "keV", 1e-3: "meV"}),
    "wavelength_m": Limit(3e-13, 2e-5, "m", "wavelength_m", {1e-10: "Å", 1e-9: "nm", 1e-6: "µm", 1e-3: "mm"}),
    "detector_distance_m": Limit(1e-5, 1e3, "m", "distance_m", {1e-3: "mm", 1e-2: "cm", 1e-6: "µm"}),
    "detector_pixel_m": Limit(1e-7, 1e-2, "m", "detector_pixel_m", {1e-6: "µm", 1e-3: "mm"}),
}
OBJECT_PIXEL = Limit(1e-12, 1e-3, "m", "", {})
POSITION_SLIPS = {1e-6: "µm", 1e-3: "mm", 1e-9: "nm", 1e-10: "Å", 1e-2: "cm", 1e-12: "pm", 1e3: "km", 1e6: "Mm"}


def judge_lengths(scan: Scan) -> Iterator[Finding]:
    """An error for each energy or length that is out of range; the first of them has made the others wrong."""
    known = Lengths.of(scan.metadata, scan.N)
    for name, limit in LIMITS.items():
        value = getattr(known, name)
        sides = value if isinstance(value, tuple) else (value,)
        wrong = next((side for side in sides if side is not None and not limit.low <= side <= limit.high), None)
        if wrong is not None:
            yield _out_of_range(name, float(wrong), limit)
            return
    sides = known.object_pixel_m or ()
    wrong = next((side for side in sides if not OBJECT_PIXEL.low <= side <= OBJECT_PIXEL.high), None)
    if wrong is not None:
        yield Finding(
            severity="error",
            what="object_pixel_m",
            expected="1 pm to 1 mm",
            received=f"{wrong:.4g} m",
            remedy="Check energy, distance and detector pixel, and state the one that is wrong",
            state=("energy_eV", "distance_m", "detector_pixel_m"),
        )


def _out_of_range(name: str, value: float, limit: Limit) -> Finding:
    remedy, state = "State the true value", (limit.option,)
    for factor, unit in limit.slips.items():
        fitting = value * factor
        if limit.low <= fitting <= limit.high:
            shown = fitting / 1e3 if limit.option == "voltage_kV" else fitting
            remedy = f"If it is in {unit}" if len(unit) <= 3 else f"If the file has {unit}"
            remedy, state = f"{remedy} (a factor of {factor:.6g}), state it", (f"{limit.option}={shown:.6g}",)
            break
    expected = f"{limit.low:g} to {limit.high:g} {limit.unit}"
    return Finding(severity="error", what=name, expected=expected, received=f"{value:.6g}", remedy=remedy, state=state)


def judge_units(scan: Scan, span: float, step: float) -> Finding | None:
    """Positions, px, that are too far apart or too near for their unit: span of those that are not stray, median step.

    The factor that would fit brings the step below the width of the probe and above a fiftieth of it.
    """
    far = span > LARGEST_SPAN_PX or step > FAR_STEP * scan.N
    near = 0 < span < SMALLEST_SPAN_PX
    if not far and not near:
        return None
    width = lit_width_px(scan.probe) if scan.probe_known else scan.N / 2
    pixel = Lengths.of(scan.metadata, scan.N).object_pixel_m
    slips = POSITION_SLIPS if pixel is not None else {}
    fitting = next(
        (factor for factor in slips if width / 50 < step * factor < 1.5 * width and (factor < 1) == far), None
    )
    if fitting is None and far and span <= LARGEST_SPAN_PX:
        return None
    remedy = "State their unit"
    state: tuple[str, ...] = ("position_unit", "position_scale")
    if fitting is not None:
        remedy = f"If they are in {slips[fitting]}, state the factor"
        state = (f"position_scale={fitting:g}",)
    elif near and pixel is None:
        remedy, state = "If they are in metres, name them and their unit", ("positions", "position_unit=m")
    received = f"steps of {step:.4g} px (median), a span of {span:.4g} px"
    expected = f"positions in pixels of the object grid, over {SMALLEST_SPAN_PX:g} to {LARGEST_SPAN_PX:g} px"
    return Finding(
        severity="error",
        what="positions",
        expected=expected,
        received=received,
        remedy=remedy,
        state=state,
        count=len(scan),
    )
