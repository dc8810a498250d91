"""TIFF as ImageJ reads it: 32-bit floats with the pixel size and its unit (specs/data.md, Image files)."""

from __future__ import annotations

from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

from ptycho_core.errors import DataError, MissingExtraError
from ptycho_core.formats.images.record import ObjectImage
from ptycho_core.storage.files import replacing

LARGEST_BYTES = 2**32 - 2**20
"""ImageJ reads no BigTIFF: of one image, with some room for its tags."""


def write_tiff(folder: Path, image: ObjectImage) -> tuple[Path, ...]:
    """`amplitude.tif`, `phase.tif` and, where there is one, `predicted_error.tif`; either all are written or none."""
    try:
        import tifffile
    except ModuleNotFoundError as error:
        if error.name != "tifffile":
            raise
        raise MissingExtraError.of("TIFF", "tifffile", "tiff") from error
    pictures = {"amplitude": image.amplitude(), "phase": image.phase(), "predicted_error": image.predicted_error}
    if 4 * image.object_field.size > LARGEST_BYTES:
        height, width = image.object_field.shape
        remedy = "Write HDF5 instead, which ImageJ reads through its HDF5 plugin."
        expected = f"an image of at most {LARGEST_BYTES} bytes"
        raise DataError(folder, "amplitude.tif", expected=expected, received=f"{height} x {width} px", remedy=remedy)
    pixel = image.lengths.object_pixel_m
    units = {"amplitude": "none", "phase": "rad, from −π to π", "predicted_error": "that of the amplitude"}
    scale = {} if pixel is None else {"resolution": tuple(1e-9 / side for side in pixel)}
    with ExitStack() as stack:
        written = []
        for name, picture in pictures.items():
            if picture is None:
                continue
            path = folder / f"{name}.tif"
            file = stack.enter_context(replacing(path))
            packed = BytesIO()  # tifffile asks a file for its name, which this one has not got yet
            info = [
                f"{name} of {image.title}",
                f"unit: {units[name]}; NaN where it is not known",
                f"pixel [0, 0] is at x = {image.origin_px[0]:g}, y = {image.origin_px[1]:g} px of the scan's positions",
                "the size of a pixel is not known" if pixel is None else f"pixel: {pixel[0]:.6g} x {pixel[1]:.6g} m",
                f"{image.program} {image.version}",
            ]
            described = {"Info": "\n".join(info), **({} if pixel is None else {"unit": "nm"})}
            tifffile.imwrite(packed, picture, imagej=True, metadata=described, **scale)
            file.write(packed.getbuffer())
            file.flush()  # all that can fail, before any of them takes its name
            written.append(path)
    return tuple(written)
