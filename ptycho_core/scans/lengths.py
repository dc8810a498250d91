"""What is known of an experiment's lengths (specs/data.md, Geometry)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from ptycho_core.scans.geometry import LARGEST, LEAST, electron_wavelength_m, object_pixel_m, photon_wavelength_m

Pair = tuple[float, float]
PAIRS = ("detector_pixel_m", "object_pixel_m")


@attrs.frozen
class Lengths:
    """Energies in eV, lengths in metres; None is not known. Pairs are (x, y).

    object_pixel_m: side of an object pixel; what a file states, or what follows from the others.
    """

    photon_energy_eV: float | None = None
    electron_energy_eV: float | None = None
    wavelength_m: float | None = None
    detector_distance_m: float | None = None
    detector_pixel_m: Pair | None = None
    object_pixel_m: Pair | None = None

    @classmethod
    def of(cls, metadata: Mapping[str, Any], N: int | None = None) -> Lengths:
        """From the metadata of a scan, or from what `as_dict` gave.

        N: pixels of a pattern; with it the object pixel is worked out where the metadata do not state it. A file may
        say anything: what is no positive length, or no pair of them, counts as not known.
        """
        known = cls(**{field.name: _length(metadata, field.name) for field in attrs.fields(cls)})
        wave, distance, side = known.wavelength, known.detector_distance_m, known.detector_pixel_m
        if known.object_pixel_m is not None or N is None or wave is None or distance is None or side is None:
            return known
        x, y = (object_pixel_m(wave, distance, N, length) for length in side)
        return attrs.evolve(known, object_pixel_m=(x, y))

    @property
    def wavelength(self) -> float | None:
        """λ in metres: as stated, or that of the stated energy."""
        if self.wavelength_m is not None:
            return self.wavelength_m
        if self.photon_energy_eV is not None:
            return photon_wavelength_m(self.photon_energy_eV)
        return None if self.electron_energy_eV is None else electron_wavelength_m(self.electron_energy_eV)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; pairs are lists."""
        return {name: list(value) if name in PAIRS and value else value for name, value in attrs.asdict(self).items()}


def _length(metadata: Mapping[str, Any], name: str) -> Any:
    value: Any = metadata.get(name)
    sides = value if name in PAIRS else [value]
    if (
        not isinstance(sides, list | tuple)
        or len(sides) != (2 if name in PAIRS else 1)
        or not all(map(_positive, sides))
    ):
        return None
    return (float(sides[0]), float(sides[1])) if name in PAIRS else float(sides[0])


def _positive(side: Any) -> bool:
    return isinstance(side, int | float) and not isinstance(side, bool) and LEAST <= side <= LARGEST
