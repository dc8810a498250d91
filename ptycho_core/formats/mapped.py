"""Any HDF5, NPZ, NPY, MATLAB or TIFF file whose parts are named by the user (specs/data.md, Mapped files)."""

from __future__ import annotations

from pathlib import Path

from ptycho_core.errors import DataError
from ptycho_core.io.assembly import Stored, assemble
from ptycho_core.io.gaps import check_complete
from ptycho_core.io.places import Place, Raster, patterns_of, place_of, series_of
from ptycho_core.scans.scan import Scan
from ptycho_core.scans.steps import Step
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.storage.hdf5 import is_hdf5, signature_of
from ptycho_core.storage.matlab5 import is_matlab5
from ptycho_core.storage.npz import MAGIC
from ptycho_core.storage.source import FrameSource
from ptycho_core.storage.stored import JoinedFrames
from ptycho_core.storage.tiff import TiffFrames, is_tiff


class MappedReader:
    name = "mapped"
    description = "HDF5, NPZ, NPY, MATLAB or TIFF whose parts are named: --dataset, --positions, --probe"
    endings = (".h5", ".hdf5", ".npz", ".npy", ".mat", ".tif", ".tiff")

    def matches(self, path: Path) -> bool:
        """Never by itself: nothing in such a file says what it holds."""
        return False

    def read(self, path: Path, options: ReadOptions) -> Scan:
        signature = signature_of(path)
        single = signature.startswith(MAGIC)
        if not (is_hdf5(path) or single or is_matlab5(path) or is_tiff(path) or signature.startswith(b"PK")):
            expected, received = "an HDF5, NPZ, NPY, MATLAB or TIFF file", f"a file that begins with {signature!r}"
            remedy = "Convert it to one of these."
            raise DataError(path, expected=expected, received=received, remedy=remedy)
        check_complete(path, options)
        frames, steps, raster = _patterns(path, options)
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
                raster=raster,
            ),
            options,
        )


def _patterns(path: Path, options: ReadOptions) -> tuple[FrameSource, tuple[Step, ...], Raster | None]:
    """Of the data set, the group of data sets or the series of files that is named."""
    text = options.dataset
    series = None if text is None else series_of(text, path)
    if series is not None:
        files, dataset = series
        if dataset is None and all(map(is_tiff, files)):
            return TiffFrames(files), (), None
        parts = [patterns_of(Place(file, dataset), options.follow_links) for file in files]
        return JoinedFrames([source for source, *_ in parts]), parts[0][1], None
    if text is not None and ":" in text and (place := place_of(text, path)).path.samefile(path):
        text = place.dataset  # the file is named with the data set
    return patterns_of(Place(path, text), options.follow_links)
