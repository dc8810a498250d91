"""PtyLab: intensities in `ptychogram`, positions in `encoder` (specs/data.md, PtyLab)."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from ptycho_core.errors import DataError
from ptycho_core.io.assembly import Stored, assemble
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.storage.hdf5 import HDF5File, has_datasets

log = logging.getLogger(__name__)

PATTERNS, ENCODER, DISTANCE = "ptychogram", "encoder", "zo"


class PtyLabReader:
    name = "ptylab"
    description = "PtyLab: an HDF5 file with ptychogram and encoder"
    endings = (".hdf5", ".h5")

    def matches(self, path: Path) -> bool:
        return has_datasets(path, PATTERNS, ENCODER, DISTANCE)  # Fourier ptychography has zled for zo

    def read(self, path: Path, options: ReadOptions) -> Scan:
        with HDF5File(path) as file:
            frames = file.frames(PATTERNS)
            positions = None
            if options.positions is None:
                positions = np.asarray(file.array(ENCODER, what="(M, 2) metres"), np.float64)
                if positions.ndim != 2 or positions.shape[1] != 2:
                    expected, received = f"({frames.shape[0]}, 2) metres", f"shape {positions.shape}"
                    remedy, state = "Name the positions", ("positions",)
                    raise DataError(path, ENCODER, expected=expected, received=received, remedy=remedy, state=state)
            side, diameter = file.number("dxd", unit="m"), file.number("entrancePupilDiameter", unit="m")
            if file.number("orientation"):
                log.warning("%s: orientation is not applied: state how the detector is turned", path)
            if options.dark is None and file.is_dataset("background"):
                log.warning("%s: background is not subtracted (--dark background)", path)
            stored = Stored(
                path=path,
                reader=self.name,
                frames=frames,
                key=PATTERNS,
                measurement="intensity",
                positions=None if positions is None else positions[:, ::-1],
                unit="m",
                wavelength_m=file.number("wavelength", unit="m") or None,
                distance_m=file.number(DISTANCE, unit="m") or None,
                detector_pixel_m=(side, side) if side else None,
                metadata={} if diameter is None else {"entrance_pupil_diameter_m": diameter},
            )
        return assemble(stored, options)
