"""Scans in metres, as Ptychodus and CXI store them (specs/data.md, Ptychodus)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.scans.geometry import (
    middle_px,
    object_pixel_m,
    photon_energy_eV,
    photon_wavelength_m,
    positions_px_to_m,
)
from ptycho_core.scans.scan import Scan

log = logging.getLogger(__name__)

MOST_PIXELS = 2**28


@attrs.frozen(eq=False)
class Metres:
    """Lengths of a scan. Pairs are [x, y].

    canvas: (H, W) of the object, or of the rectangle that the patches cover where the scan has none; its pixel [0, 0]
    is at the coordinate `corner_px`, its middle at 0 m: the position of a patch about it is `middle_px`.
    """

    energy_eV: float
    distance_m: float
    detector_pixel_m: tuple[float, float]
    object_pixel_m: tuple[float, float]
    canvas: tuple[int, int]
    corner_px: tuple[float, float]
    middle_px: tuple[float, float]
    positions_m: NDArray[np.float64]


def metres_of(path: Path, scan: Scan) -> Metres:
    """From the scan's metadata, which a reader or its options filled. DataError naming the option that is missing."""
    energy = _number(scan, "photon_energy_eV")
    wavelength = _number(scan, "wavelength_m")
    if energy is None and wavelength is not None:
        energy = photon_energy_eV(wavelength)
        log.info("%s: the wavelength is written as that of photons of %.6g eV", path, energy)
    if energy is None:
        raise _missing(path, "photon_energy_eV", "energy_eV")
    distance = _number(scan, "detector_distance_m")
    if distance is None:
        raise _missing(path, "detector_distance_m", "distance_m")
    detector = _pair(scan, "detector_pixel_m")
    if detector is None:
        raise _missing(path, "detector_pixel_m", "detector_pixel_m")
    side = _pair(scan, "object_pixel_m")
    if side is None:
        known = photon_wavelength_m(energy) if wavelength is None else wavelength
        side = (
            object_pixel_m(known, distance, scan.N, detector[0]),
            object_pixel_m(known, distance, scan.N, detector[1]),
        )
    canvas, corner = _canvas(path, scan)
    middle = middle_px(canvas, (scan.N, scan.N), corner)
    positions = positions_px_to_m(scan.positions_px, side, origin_m=(0.0, 0.0), origin_px=middle)
    return Metres(energy, distance, detector, side, canvas, corner, middle, positions)


def _canvas(path: Path, scan: Scan) -> tuple[tuple[int, int], tuple[float, float]]:
    if scan.object_field is not None:
        height, width = scan.object_field.shape
        return (height, width), (0.0, 0.0)
    low, high = np.floor(scan.positions_px.min(axis=0)), np.floor(scan.positions_px.max(axis=0))
    width, height = (int(length) for length in high - low + scan.N + 1)
    if width * height > MOST_PIXELS:
        expected, received = f"patches on an object of at most {MOST_PIXELS} pixels", f"{height} x {width}"
        remedy = "Check the unit of the positions."
        raise DataError(path, "positions_px", expected=expected, received=received, remedy=remedy)
    x, y = low - scan.N // 2
    return (height, width), (float(x), float(y))


def _missing(path: Path, key: str, option: str) -> DataError:
    remedy = "State it when the scan is read."
    expected = f"{key} in the scan's metadata, because this format holds metres"
    return DataError(path, expected=expected, received="none", remedy=remedy, state=(option,))


def _number(scan: Scan, key: str) -> float | None:
    value: Any = scan.metadata.get(key)
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < np.inf
    return float(value) if usable else None


def _pair(scan: Scan, key: str) -> tuple[float, float] | None:
    value: Any = scan.metadata.get(key)
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return None
    usable = all(isinstance(side, (int, float)) and 0 < side < np.inf for side in value)
    return (float(value[0]), float(value[1])) if usable else None
