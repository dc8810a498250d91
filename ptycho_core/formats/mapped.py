"""Any HDF5, NPZ or NPY file whose parts are named by the user (specs/data.md, Mapped files)."""

from __future__ import annotations

from pathlib import Path

from ptycho_core.errors import DataError
from ptycho_core.io.assembly import Stored, assemble
from ptycho_core.io.places import Place, patterns_of
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.storage.hdf5 import is_hdf5, signature_of
from ptycho_core.storage.npz import MAGIC


class MappedReader:
    name = "mapped"
    description = "HDF5, NPZ or NPY whose parts are named: --dataset, --positions, --probe"
    endings = (".h5", ".hdf5", ".npz", ".npy")

    def matches(self, path: Path) -> bool:
        """Never by itself: nothing in such a file says what it holds."""
        return False

    def read(self, path: Path, options: ReadOptions) -> Scan:
        signature = signature_of(path)
        single = signature.startswith(MAGIC)
        if not (is_hdf5(path) or single or signature.startswith(b"PK")):
            expected, received = "an HDF5, NPZ or NPY file", f"a file that begins with {signature!r}"
            remedy = "Convert it to one of these."
            raise DataError(path, expected=expected, received=received, remedy=remedy)
        frames, steps = patterns_of(Place(path, options.dataset))
        # Whole numbers can only be counts; what else the patterns are has to be stated.
        measurement = "intensity" if frames.dtype.kind in "biu" else None
        return assemble(
            Stored(
                path=path,
                reader=self.name,
                frames=frames,
                key=options.dataset,
                measurement=measurement,  # type: ignore[arg-type]
                steps=steps,
            ),
            options,
        )
