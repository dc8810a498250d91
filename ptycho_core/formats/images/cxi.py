"""CXI with a reconstruction: probe and object as images, positions, energy (specs/data.md, CXI)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import scipy  # its submodules load on first use
from numpy.typing import NDArray

from ptycho_core.formats import cxi
from ptycho_core.formats.images.record import ObjectImage
from ptycho_core.storage.files import replacing

INVALID = 0x1  # CXI 1.6, table 7: a pixel that means nothing


def write_cxi_image(path: Path, image: ObjectImage) -> Path:
    """`image_1`: the probe's modes; `image_2`: the object, with a mask of what is not known; no patterns.

    Ptychodus opens it as a product, and our reader takes it as the companion of a file of patterns.
    """
    import h5py

    pixel = image.pixel_m(path)
    known, entry = image.lengths, cxi.ENTRY
    with replacing(path) as target, h5py.File(target, "w") as file:
        file["cxi_version"], file["number_of_entries"] = 160, 1
        file[f"{entry}/title"] = image.title
        for name, value in (
            (f"{cxi.SOURCE}/energy", image.energy_eV()),
            (f"{cxi.SOURCE}/wavelength", known.wavelength),
            (f"{cxi.DETECTOR}/distance", known.detector_distance_m),
        ):
            if value is not None:
                file[name] = value * scipy.constants.e if name.endswith("energy") else value
        if known.detector_pixel_m is not None:
            file[f"{cxi.DETECTOR}/x_pixel_size"], file[f"{cxi.DETECTOR}/y_pixel_size"] = known.detector_pixel_m
        file[f"{entry}/sample_1/geometry_1/translation"] = np.pad(image.positions_m(pixel), ((0, 0), (0, 1)))
        file[f"{entry}/data_1/translation"] = h5py.SoftLink(f"{entry}/sample_1/geometry_1/translation")
        _image(file, f"{entry}/image_1", image.probe[None], "coherent:incoherent:y:x", pixel)
        _image(file, f"{entry}/image_2", image.object_field[None], "layer:y:x", pixel)
        file[f"{entry}/image_2/mask"] = np.where(image.known, 0, INVALID).astype(np.uint32)[None]
        file[f"{cxi.SOURCE}/illumination"] = h5py.SoftLink(f"{entry}/image_1/data")
        file[f"{entry}/process_1/program"], file[f"{entry}/process_1/version"] = image.program, image.version
        file[f"{entry}/process_1/note"] = json.dumps(image.facts)
        extra = file.create_group(cxi.EXTRA)
        extra["probe_position_indexes"] = image.indexes
        for item in ("probe", "object"):
            extra[f"{item}_pixel_width_m"], extra[f"{item}_pixel_height_m"] = pixel
        extra["object_center_x_m"] = extra["object_center_y_m"] = 0.0
    return path


def _image(file: Any, name: str, data: NDArray[Any], axes: str, pixel: tuple[float, float]) -> None:
    file[f"{name}/data"] = data
    file[f"{name}/data"].attrs["axes"] = axes
    file[f"{name}/data_type"], file[f"{name}/data_space"] = "amplitude", "real"
    height, width = data.shape[-2:]
    file[f"{name}/image_size"] = np.array([pixel[0] * width, pixel[1] * height, 0.0])
