"""The NPZ contract (specs/data.md, NPZ) as a reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ptycho_core.contracts import Scan
from ptycho_core.frames import ArraySource, Frames
from ptycho_core.io.assembly import Pair, Stored, assemble
from ptycho_core.io.hdf5 import signature_of
from ptycho_core.io.npz import MAGIC, load_npz_scan
from ptycho_core.reading import ReadOptions

STATED = ("reader", "measurement")
LENGTHS = ("photon_energy_eV", "wavelength_m", "detector_distance_m", "detector_pixel_m", "object_pixel_m")


class NpzReader:
    name = "npz"
    description = "NPZ contract: diff3d, xcoords, ycoords, probeGuess"
    endings = (".npz",)

    def matches(self, path: Path) -> bool:
        """Any zip file and any array: its keys are looked at when it is read, and named where they are missing."""
        return signature_of(path).startswith((b"PK", MAGIC))

    def read(self, path: Path, options: ReadOptions) -> Scan:
        scan = load_npz_scan(path, measurement=options.measurement)
        if "reader" in scan.metadata:  # that of the file which this one was converted from
            object.__setattr__(scan, "metadata", {**scan.metadata, "reader": self.name})
        if options == ReadOptions(**{name: getattr(options, name) for name in STATED}):
            return scan
        amplitude = scan.diffraction_amplitude
        lazy = isinstance(amplitude, Frames)
        known = {key: _numbers(scan.metadata.get(key)) for key in LENGTHS}
        stored = Stored(
            path=path,
            reader=self.name,
            frames=amplitude.source if lazy else ArraySource(np.asarray(amplitude)),  # type: ignore[union-attr]
            key="diff3d",
            measurement=amplitude.measurement if isinstance(amplitude, Frames) else "amplitude",
            steps=amplitude.steps if isinstance(amplitude, Frames) else (),
            positions=scan.positions_px,
            unit="px",
            pixel_m=_pair(known["object_pixel_m"]),
            nominal_positions=scan.nominal_positions_px,
            scan_index=scan.scan_index,
            probe=scan.probe,
            object=scan.object_field,
            bad_pixels=scan.bad_pixels,
            energy_eV=_one(known["photon_energy_eV"]),
            wavelength_m=_one(known["wavelength_m"]),
            distance_m=_one(known["detector_distance_m"]),
            detector_pixel_m=_pair(known["detector_pixel_m"]),
            dose_known=scan.dose_known,
            metadata=scan.metadata,
        )
        return assemble(stored, options)


def _numbers(value: Any) -> tuple[float, ...]:
    """One number or a list of them, as a metadata value may be; empty for anything else."""
    values = value if isinstance(value, list) else [value]
    fits = all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in values)
    return tuple(map(float, values)) if fits else ()


def _one(numbers: tuple[float, ...]) -> float | None:
    return numbers[0] if len(numbers) == 1 else None


def _pair(numbers: tuple[float, ...]) -> Pair | None:
    return (numbers[0], numbers[1]) if len(numbers) == 2 else None
