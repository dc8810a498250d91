"""What such a file is made of, and the lengths in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.scans.geometry import middle_px, photon_energy_eV, positions_px_to_m
from ptycho_core.scans.lengths import Lengths
from ptycho_core.settings.fields import flag_of


@attrs.frozen(eq=False, kw_only=True)
class ObjectImage:
    """An object with its probe and positions.

    object_field: complex64 (H, W); its pixel [0, 0] is at the coordinate origin_px = (x, y).
    known: bool (H, W), where it means something. predicted_error: float32 (H, W), RMS, NaN where not known, or None.
    probe: complex64 (modes, N, N). positions_px: float64 (M, 2), [x, y] of patch centres; indexes: int64 (M,), the
    numbers of their frames, each once. dose_known: whether |probe|² is in photons.
    losses: of each pass over the data, in order. facts: plain values, for the record.
    """

    object_field: NDArray[np.complex64]
    origin_px: tuple[float, float]
    known: NDArray[np.bool_]
    predicted_error: NDArray[np.float32] | None
    probe: NDArray[np.complex64]
    positions_px: NDArray[np.float64]
    indexes: NDArray[np.int64]
    lengths: Lengths
    dose_known: bool
    title: str
    program: str
    version: str
    losses: Sequence[float] = ()
    facts: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def N(self) -> int:
        return int(self.probe.shape[-1])

    def amplitude(self) -> NDArray[np.float32]:
        """(H, W): |O|; NaN where it is not known."""
        return np.where(self.known, np.abs(self.object_field), np.nan).astype(np.float32)

    def phase(self) -> NDArray[np.float32]:
        """(H, W): arg O in rad, from −π to π; NaN where it is not known."""
        return np.where(self.known, np.angle(self.object_field), np.nan).astype(np.float32)

    def pixel_m(self, path: Path) -> tuple[float, float]:
        """(x, y), sides of an object pixel, as `known_pixel_m`."""
        return known_pixel_m(self.lengths, path)

    def energy_eV(self) -> float | None:
        """Of photons of this wavelength, where it is known: what the formats ask for, also of electrons."""
        known = self.lengths
        if known.photon_energy_eV is not None or known.wavelength is None:
            return known.photon_energy_eV
        return photon_energy_eV(known.wavelength)

    def positions_m(self, pixel_m: tuple[float, float]) -> NDArray[np.float64]:
        """(M, 2), [x, y]: the middle of each patch in metres from the middle of the object (specs/data.md, Writers)."""
        middle = middle_px(self.object_field.shape, (self.N, self.N), self.origin_px)
        return positions_px_to_m(self.positions_px, pixel_m, origin_m=(0.0, 0.0), origin_px=middle)


def known_pixel_m(lengths: Lengths, path: Path) -> tuple[float, float]:
    """(x, y), sides of an object pixel. DataError where they are not known: `path` is to hold metres."""
    if lengths.object_pixel_m is None:
        flags = ", ".join(map(flag_of, ("energy_eV", "distance_m", "detector_pixel_m")))
        remedy = f"State {flags} when the scan is read, or write NPZ, TIFF or HDF5."
        expected = "the size of an object pixel, because this format holds metres"
        raise DataError(path, "object_pixel_m", expected=expected, received="none", remedy=remedy)
    return lengths.object_pixel_m
