"""A reconstruction as files of other programs (specs/data.md, Image files)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import attrs
import numpy as np

from ptycho_core import __version__
from ptycho_core.errors import DataError
from ptycho_core.formats.images.cxi import write_cxi_image
from ptycho_core.formats.images.nexus import write_nexus
from ptycho_core.formats.images.ptychodus import write_product
from ptycho_core.formats.images.record import ObjectImage, known_pixel_m
from ptycho_core.formats.images.tiff import write_tiff
from ptycho_core.reconstruction.result import Reconstruction
from ptycho_core.scans.lengths import Lengths
from ptycho_core.storage.files import make_folder


@attrs.frozen
class ImageFormat:
    """name: of its file, in a folder that is named; None where it writes several. ending: of a file that is named.

    metres: whether it needs the size of an object pixel.
    """

    description: str
    name: str | None
    ending: str | None
    write: Callable[[Path, ObjectImage], Path | tuple[Path, ...]]
    metres: bool = False


IMAGE_FORMATS = {
    "tiff": ImageFormat("amplitude.tif, phase.tif and predicted_error.tif, for ImageJ", None, None, write_tiff),
    "cxi": ImageFormat(
        "CXI: probe and object images, positions", "reconstruction.cxi", ".cxi", write_cxi_image, metres=True
    ),
    "ptychodus": ImageFormat("product of Ptychodus", "product.h5", None, write_product, metres=True),
    "hdf5": ImageFormat("HDF5 with the names of NeXus", "reconstruction.h5", ".h5", write_nexus),
}


def write_reconstruction(
    path: str | os.PathLike[str], result: Reconstruction, formats: Iterable[str] | None = None
) -> tuple[Path, ...]:
    """Write `result` for other programs; returns the files written, each whole or not at all.

    path: a folder, created if missing, for any number of `formats` (keys of `IMAGE_FORMATS`) with their usual names;
    or, with `formats` left out or a single one that makes one file, that file. Its ending then tells the format: .cxi,
    .h5 or .hdf5. DataError for an unknown format, and for one that holds metres where the size of a pixel is not known;
    MissingExtraError for TIFF without tifffile.
    """
    target = Path(path)
    image = image_of(result)
    chosen = tuple(dict.fromkeys(formats)) if formats is not None else (_by_ending(target),)
    unknown = [name for name in chosen if name not in IMAGE_FORMATS]
    if unknown or not chosen:
        received = ", ".join(unknown) or "none"
        expected = f"some of the formats {', '.join(IMAGE_FORMATS)}"
        raise DataError(target, expected=expected, received=received, remedy="Name one of these.")
    if target.suffix and not target.is_dir():
        form = IMAGE_FORMATS[chosen[0]]
        if len(chosen) > 1 or form.name is None:
            expected, remedy = "a folder, for several files", "Name a folder, without an ending."
            raise DataError(target, expected=expected, received=target.name, remedy=remedy)
        make_folder(target.parent)
        return _paths(form.write(target, image))
    make_folder(target)
    written: list[Path] = []
    for form in (IMAGE_FORMATS[name] for name in chosen):
        written += _paths(form.write(target if form.name is None else target / form.name, image))
    return tuple(written)


def check_pixel_known(folder: Path, formats: Iterable[str], lengths: Lengths) -> None:
    """Before any work: DataError where one of the `formats` holds metres and the size of a pixel is not known."""
    for form in (IMAGE_FORMATS[name] for name in formats):
        if form.metres:
            known_pixel_m(lengths, folder / (form.name or ""))


def image_of(result: Reconstruction) -> ObjectImage:
    """What the writers need of a reconstruction: every frame once, and where the object is known."""
    frames = np.arange(len(result.positions_px)) if result.frames is None else result.frames
    indexes, rows = np.unique(frames, return_index=True)
    order = np.argsort(rows)
    losses = [row["R"] for row in result.history if isinstance(row.get("R"), float)]
    return ObjectImage(
        object_field=result.object_field,
        origin_px=result.origin_px,
        known=result.overlap_count > 0 if result.known is None else result.known,
        predicted_error=result.predicted_error,
        probe=result.probe,
        positions_px=result.positions_px[rows[order]],
        indexes=indexes[order],
        lengths=result.lengths,
        dose_known=bool(result.dose_known),
        title=f"reconstruction of {result.source or 'a scan'}",
        program="ptycho-core",
        version=__version__,
        losses=losses,
        facts=result.summary(),
    )


def _by_ending(target: Path) -> str:
    ending = {".hdf5": ".h5"}.get(target.suffix.lower(), target.suffix.lower())
    for name, form in IMAGE_FORMATS.items():
        if form.ending == ending:
            return name
    expected = f"one of the formats {', '.join(IMAGE_FORMATS)}, or the ending .cxi, .h5 or .hdf5"
    remedy = "State the format, or give the file one of these endings."
    raise DataError(target, expected=expected, received=f"the ending {target.suffix!r}", remedy=remedy)


def _paths(written: Path | tuple[Path, ...]) -> tuple[Path, ...]:
    return written if isinstance(written, tuple) else (written,)
