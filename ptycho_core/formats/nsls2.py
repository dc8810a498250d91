"""NSLS-II: amplitudes in `diffamp`, positions in `points` (specs/data.md, NSLS-II)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ptycho_core.errors import DataError
from ptycho_core.io.assembly import Stored, assemble
from ptycho_core.scans.scan import Scan
from ptycho_core.scans.steps import fftshift
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.storage.hdf5 import HDF5File, has_datasets

PATTERNS, POINTS = "diffamp", "points"


class NslsReader:
    name = "nsls2"
    description = "NSLS-II: an HDF5 file with diffamp and points"
    endings = (".h5", ".hdf5")

    def matches(self, path: Path) -> bool:
        return has_datasets(path, PATTERNS, POINTS)

    def read(self, path: Path, options: ReadOptions) -> Scan:
        with HDF5File(path) as file:
            frames = file.frames(PATTERNS)
            positions = None
            if options.positions is None:
                positions = np.asarray(file.array(POINTS, what="(2, M) micrometres"), np.float64)
                if positions.shape != (2, frames.shape[0]):
                    expected, received = f"(2, {frames.shape[0]}) micrometres", f"shape {positions.shape}"
                    remedy, state = "Name the positions", ("positions",)
                    raise DataError(path, POINTS, expected=expected, received=received, remedy=remedy, state=state)
            wavelength_nm, side_um = file.number("lambda_nm"), file.number("ccd_pixel_um")
            angle = file.number("angle")
            stored = Stored(
                path=path,
                reader=self.name,
                frames=frames,
                key=PATTERNS,
                measurement="amplitude",
                steps=(fftshift(frames.shape[1:]),),
                positions=None if positions is None else positions.T * 1e-6,
                unit="m",
                wavelength_m=wavelength_nm * 1e-9 if wavelength_nm else None,
                distance_m=file.number("z_m") or None,
                detector_pixel_m=(side_um * 1e-6, side_um * 1e-6) if side_um else None,
                metadata={} if angle is None else {"tomography_angle_deg": angle},
            )
        return assemble(stored, options)
