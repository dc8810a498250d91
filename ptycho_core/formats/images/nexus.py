"""HDF5 with the names of NeXus: NXdata with signal, axes and units (specs/data.md, Image files).

Names: https://manual.nexusformat.org, base classes NXentry, NXdata, NXprocess, NXbeam, NXdetector.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_core.formats.images.record import ObjectImage
from ptycho_core.storage.files import replacing

Axis = tuple[NDArray[np.floating], str]  # coordinates, unit


def write_nexus(path: Path, image: ObjectImage) -> Path:
    """Amplitude, phase, predicted error, complex object and probe, each an NXdata; positions, energy, program.

    Coordinates are those of the scan's positions: in metres where the size of a pixel is known, else in pixels.
    """
    import h5py

    pixel = image.lengths.object_pixel_m
    scale, unit = ((1.0, 1.0), "px") if pixel is None else (pixel, "m")
    (height, width), N, origin = image.object_field.shape, image.N, image.origin_px
    x, y = (
        ((start + np.arange(count)) * side, unit)
        for start, count, side in zip(origin, (width, height), scale, strict=True)
    )
    here, there = (((np.arange(N) - N // 2) * side, unit) for side in scale)
    modes = (np.arange(len(image.probe), dtype=np.float64), "")
    with replacing(path) as target, h5py.File(target, "w") as file:
        entry = _group(file, "entry", "NXentry", default="amplitude")
        file.attrs["NX_class"], file.attrs["default"] = "NXroot", "entry"
        entry["title"], entry["program_name"] = image.title, image.program
        entry["program_name"].attrs["version"] = image.version
        grid = {"y": y, "x": x}
        _data(entry, "amplitude", image.amplitude(), "", grid, "amplitude of the object")
        _data(entry, "phase", image.phase(), "rad", grid, "phase of the object")
        if image.predicted_error is not None:
            _data(entry, "predicted_error", image.predicted_error, "", grid, "predicted RMS error of the object")
        _data(entry, "object", image.object_field, "", grid, "complex object")
        entry["object/known"] = image.known
        root = "sqrt(photons)" if image.dose_known else "sqrt of the scan's unit of intensity"
        _data(entry, "probe", image.probe, root, {"mode": modes, "y": there, "x": here}, "modes of the probe")
        positions = _group(entry, "positions", "NXcollection")
        for name, values, side in zip("xy", image.positions_px.T, scale, strict=True):
            positions[name] = values * side
            positions[name].attrs["units"] = unit
        positions["frame"] = image.indexes
        _instrument(_group(entry, "instrument", "NXinstrument"), image)
        process = _group(entry, "reconstruction", "NXprocess")
        process["program"], process["version"] = image.program, image.version
        process["note"] = json.dumps(image.facts)
    return path


def _instrument(group: Any, image: ObjectImage) -> None:
    known = image.lengths
    beam, detector = _group(group, "beam", "NXbeam"), _group(group, "detector", "NXdetector")
    x, y = known.detector_pixel_m or (None, None)
    energy = known.photon_energy_eV or known.electron_energy_eV
    for owner, name, value, unit in (
        (beam, "incident_energy", energy, "eV"),
        (beam, "incident_wavelength", known.wavelength, "m"),
        (detector, "distance", known.detector_distance_m, "m"),
        (detector, "x_pixel_size", x, "m"),
        (detector, "y_pixel_size", y, "m"),
    ):
        if value is not None:
            owner[name] = value
            owner[name].attrs["units"] = unit


def _data(entry: Any, name: str, values: NDArray[Any], unit: str, axes: Mapping[str, Axis], title: str) -> None:
    group = _group(entry, name, "NXdata", signal="data")
    group.attrs["axes"] = list(axes)
    group["data"] = values
    group["data"].attrs["units"], group["data"].attrs["long_name"] = unit, title
    group["data"].attrs["interpretation"] = "image"
    for number, (axis, (coordinates, unit_of_axis)) in enumerate(axes.items()):
        group.attrs[f"{axis}_indices"] = number
        group[axis] = coordinates
        group[axis].attrs["units"] = unit_of_axis


def _group(parent: Any, name: str, kind: str, **attributes: str) -> Any:
    group = parent.create_group(name)
    for key, value in {"NX_class": kind, **attributes}.items():
        group.attrs[key] = value
    return group
