"""PtychoShelves and fold_slice: patterns in `dp`, positions in a file beside (specs/data.md, PtychoShelves)."""

from __future__ import annotations

import logging
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.io.assembly import Stored, assemble, missing
from ptycho_core.io.places import Place, read_place
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.storage.hdf5 import HDF5File, is_hdf5

log = logging.getLogger(__name__)

PATTERNS = ("dp", "dps")
COLUMNS = "ppX", "ppY"
TABLE = "probe_positions_0"
ENDINGS = (".hdf5", ".h5")
MOST_BESIDE = 200


class ShelvesReader:
    name = "shelves"
    description = "PtychoShelves / fold_slice: data_roi…_dp.hdf5 and a file of positions"
    endings = ENDINGS

    def matches(self, path: Path) -> bool:
        if not is_hdf5(path):
            return False
        try:
            with HDF5File(path) as file:
                return file.first(*PATTERNS) is not None
        except DataError:
            return False

    def read(self, path: Path, options: ReadOptions) -> Scan:
        with HDF5File(path) as file:
            key = file.first(*PATTERNS) or PATTERNS[0]
            frames = file.frames(key)
            beside = path if _has_positions(file) else None
        stored = Stored(path=path, reader=self.name, frames=frames, key=key, measurement="intensity", unit="m")
        return assemble(self._with_parameters(stored, beside, options), options)

    def _with_parameters(self, stored: Stored, own: Path | None, options: ReadOptions) -> Stored:
        """With positions, wavelength and object pixel of the file of parameters."""
        path = options.companion or own or self._beside(stored.path)
        if path is None:
            if options.positions is not None:
                return stored
            raise missing(stored.path, None, "companion", "a file of positions (ppX, ppY)", "none beside it")
        if not is_hdf5(path):
            table = read_place(Place(path, None), "companion", table=True)
            return attrs.evolve(stored, positions=_pairs(path, "positions", table, stored.frames.shape[0]))
        with HDF5File(path) as file:
            positions = None if options.positions is not None else _positions(file, stored.frames.shape[0])
            side, angle = file.number("dx"), file.number("angle")
            return attrs.evolve(
                stored,
                positions=positions,
                wavelength_m=file.number("lambda"),
                pixel_m=None if side is None else (side, side),
                metadata={} if angle is None else {"tomography_angle_deg": angle},
            )

    def _beside(self, path: Path) -> Path | None:
        usual = path.with_name(path.stem.removesuffix("_dp") + "_para" + path.suffix)
        if usual != path and usual.is_file():
            return usual
        others = [other for other in sorted(path.parent.iterdir()) if other.suffix in ENDINGS and other != path]
        found = []
        for other in others[:MOST_BESIDE]:
            try:
                if is_hdf5(other):
                    with HDF5File(other) as file:
                        found += [other] if _has_positions(file) else []
            except DataError:
                continue
        if len(found) > 1:
            received = ", ".join(other.name for other in found)
            raise missing(path, None, "companion", "the file of its positions", received)
        if found:
            log.info("%s: positions from %s beside it", path, found[0].name)
        return found[0] if found else None


def _has_positions(file: HDF5File) -> bool:
    return all(map(file.is_dataset, COLUMNS)) or file.is_dataset(TABLE)


def _positions(file: HDF5File, count: int) -> NDArray[np.float64]:
    if all(map(file.is_dataset, COLUMNS)):
        x, y = (np.asarray(file.array(name), np.float64).reshape(-1) for name in COLUMNS)
        if len(x) != len(y):
            received = f"{len(x)} and {len(y)}"
            remedy = "Name another file."
            raise DataError(file.path, ", ".join(COLUMNS), expected="equal lengths", received=received, remedy=remedy)
        return np.stack([x, y], axis=1)
    return _pairs(file.path, TABLE, file.array(TABLE, what="positions"), count)


def _pairs(path: Path, name: str, values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """(M, 2) [x, y]; (2, M) as MATLAB's column order leaves it."""
    values = np.asarray(values, np.float64)
    pairs = values.T if values.ndim == 2 and values.shape[0] == 2 and values.shape[1] == count != 2 else values
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        expected, received, remedy = f"({count}, 2) metres", f"shape {values.shape}", "Name another file."
        raise DataError(path, name, expected=expected, received=received, remedy=remedy)
    return pairs
