"""A product of Ptychodus: probe, positions and object in metres (specs/data.md, Ptychodus)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ptycho_core.formats.images.record import ObjectImage
from ptycho_core.storage.files import replacing


def write_product(path: Path, image: ObjectImage) -> Path:
    """What Ptychodus opens as a product, beside the diffraction file of the same scan; 0 is a length not known."""
    import h5py

    pixel = image.pixel_m(path)
    counts = float(np.square(np.abs(image.probe), dtype=np.float64).sum()) if image.dose_known else 0.0
    known = {
        "photon_energy_eV": image.energy_eV(),
        "detector_object_distance_m": image.lengths.detector_distance_m,
        "probe_photon_count": counts,
    }
    unknown = ("exposure_time_s", "mass_attenuation_m2_per_kg", "tomography_angle_deg")
    with replacing(path) as target, h5py.File(target, "w") as file:
        file.attrs["name"], file.attrs["comments"] = image.title, f"{image.program} {image.version}"
        for name in (*known, *unknown, "focus_object_distance_m", "tilt_angle_deg"):
            file.attrs[name] = float(known.get(name) or 0.0)
        file.attrs["far_field"] = True
        file["probe_position_indexes"] = image.indexes
        file["probe_position_x_m"], file["probe_position_y_m"] = image.positions_m(pixel).T
        file["probe"], file["object"] = image.probe[None], image.object_field[None]
        for name in ("probe", "object"):
            file[name].attrs["pixel_width_m"], file[name].attrs["pixel_height_m"] = pixel
        file["object"].attrs["center_x_m"] = file["object"].attrs["center_y_m"] = 0.0
        file["object_layer_spacing_m"] = np.zeros(0)
        file["loss_epochs"] = np.arange(1, len(image.losses) + 1)
        file["loss_values"] = np.asarray(image.losses, np.float64)
    return path
