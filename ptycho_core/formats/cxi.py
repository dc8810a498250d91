"""CXI, the format of the Coherent X-ray Imaging Data Bank (specs/data.md, CXI)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import scipy  # its submodules load on first use
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.formats.ptychodus import ARBITRARY, DIFFRACTION, PRODUCT, pair_indexes
from ptycho_core.io.assembly import Pair, Stored, assemble
from ptycho_core.scans.geometry import middle_px
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.storage.hdf5 import HDF5File, is_hdf5

log = logging.getLogger(__name__)

ENTRY = "/entry_1"
DETECTOR = f"{ENTRY}/instrument_1/detector_1"
SOURCE = f"{ENTRY}/instrument_1/source_1"
PATTERNS = (f"{ENTRY}/data_1/data", f"{DETECTOR}/data")
TRANSLATIONS = (
    f"{ENTRY}/data_1/translation",
    f"{ENTRY}/sample_1/geometry_1/translation",
    f"{ENTRY}/sample_1/geometry/translation",
    f"{DETECTOR}/translation",
)
PROBES = (f"{SOURCE}/illumination", f"{ENTRY}/image_1/data")
OBJECT = f"{ENTRY}/image_2/data"
EXTRA = f"{ENTRY}/ptychodus"
"""Where Ptychodus, and our writer, put what CXI has no place for."""
SIGNAL = 0x1000
"""Bit of a CXI mask that marks a pixel with signal: not a fault."""


class CxiReader:
    name = "cxi"
    description = "CXI: entry_1 with patterns, translations, energy, distance"
    endings = (".cxi",)

    def matches(self, path: Path) -> bool:
        if not is_hdf5(path):
            return False
        try:
            with HDF5File(path) as file:
                return file.first(*PATTERNS) is not None
        except DataError:
            return False

    def read(self, path: Path, options: ReadOptions) -> Scan:
        with HDF5File(path, options.follow_links) as file:
            other = options.companion or _companion(file)
            if other is None:
                stored = _stored(path, file, file, options)
            else:
                with HDF5File(other) as product:
                    stored = _stored(path, file, product, options)
        return assemble(stored, options)


def _companion(file: HDF5File) -> Path | None:
    """The product that Ptychodus wrote beside a file of patterns alone."""
    other = file.path.with_name(file.path.name.replace(DIFFRACTION, PRODUCT))
    alone = file.first(*TRANSLATIONS) is None
    return other if alone and other != file.path and is_hdf5(other) else None


def _stored(path: Path, file: HDF5File, product: HDF5File, options: ReadOptions) -> Stored:
    """file: detector and source; product: positions, probe and object, the same file unless there are two."""
    key = file.first(*PATTERNS) or PATTERNS[0]
    frames = file.frames(key)
    count = frames.shape[0]
    energy_J = _energy_J(file) or _energy_J(product)
    origin, origin_px, object_pixel = _own_grid(product, frames.shape[1:])
    if options.dark is None and file.is_dataset(dark := f"{DETECTOR}/data_dark"):
        log.warning("%s: %s is not subtracted (--dark %s)", path, dark, dark)
    positions = None if options.positions is not None else _positions(product, file)
    index = product.optional(f"{EXTRA}/probe_position_indexes", lambda name: product.array(name, kinds="iu"))
    chosen = None
    if product is not file and positions is not None and index is not None and index.shape == positions.shape[:1]:
        chosen, rows = pair_indexes(file, product, np.arange(count), index.astype(np.int64))
        positions, index, count = positions[rows], index[rows], len(chosen)
    return Stored(
        path=path,
        reader=CxiReader.name,
        frames=frames,
        key=key,
        measurement="intensity",
        index=chosen,
        positions=positions,
        unit="m",
        pixel_m=object_pixel,
        origin=origin,
        origin_px=origin_px,
        dose_known=not file.attribute(key, ARBITRARY),
        scan_index=index if index is not None and index.shape == (count,) else None,
        probe=_probe(product, frames.shape[1:]),
        object=_object(product),
        bad_pixels=_bad_pixels(file),
        energy_eV=energy_J / scipy.constants.e if energy_J else None,  # 0 stands for unknown
        wavelength_m=file.number(f"{SOURCE}/wavelength", unit="m") or None,
        distance_m=file.number(f"{DETECTOR}/distance", unit="m")
        or product.number(f"{DETECTOR}/distance", unit="m")
        or None,
        detector_pixel_m=_pair(file, f"{DETECTOR}/x_pixel_size", f"{DETECTOR}/y_pixel_size"),
        metadata={**_facts(file), **_facts(product)},
    )


def _positions(file: HDF5File, detector: HDF5File) -> NDArray[np.float64] | None:
    """(M, 2) metres along the detector's columns and rows.

    CXI holds the place of the sample, and the directions of the detector's axes: usually down and, seen with the beam,
    to the right, which are −y and −x. The probe is at minus the sample's place: column +x, row +y.
    """
    name = file.first(*TRANSLATIONS)
    if name is None:
        return None
    places = np.asarray(file.array(name, what="(M, 2) or (M, 3) metres"), np.float64) * file.factor(name, "m")
    if places.ndim != 2 or places.shape[1] not in (2, 3):
        expected, received, remedy = "(M, 2) or (M, 3) metres", f"shape {places.shape}", "Name other positions."
        raise DataError(file.path, name, expected=expected, received=received, remedy=remedy, state=("positions",))
    basis = detector.optional(f"{DETECTOR}/basis_vectors", detector.array)
    rows, columns = np.array([0.0, -1.0, 0.0]), np.array([-1.0, 0.0, 0.0])
    if basis is not None:
        axes = np.asarray(basis, np.float64)
        axes = axes[0] if axes.ndim == 3 and len(axes) else axes
        axes = axes.T if axes.shape == (3, 2) else axes
        if axes.shape == (2, 3) and np.isfinite(axes).all() and axes.any(axis=1).all():
            rows, columns = axes / np.linalg.norm(axes, axis=1, keepdims=True)
        else:
            log.warning("%s: %s/basis_vectors of shape %s is not used", detector.path, DETECTOR, basis.shape)
    probe = -np.pad(places, ((0, 0), (0, 3 - places.shape[1])))
    return np.stack([probe @ columns, probe @ rows], axis=1)


def _bad_pixels(file: HDF5File) -> NDArray[np.bool_] | None:
    name = f"{DETECTOR}/mask"
    mask = file.optional(name, lambda key: file.array(key, kinds="biuf"))
    if mask is None:
        return None
    if mask.dtype.kind == "f":
        mask = np.nan_to_num(mask, nan=1).astype(np.int64)
    bad = (mask.astype(np.uint64) & np.uint64(~SIGNAL & 0xFFFFFFFFFFFFFFFF)) != 0
    return np.asarray(bad.any(axis=0) if bad.ndim == 3 else bad)


def _probe(file: HDF5File, shape: tuple[int, ...]) -> NDArray[Any] | None:
    """The illumination, or the first image where it is a complex wave of the patterns' size."""
    for name in PROBES:
        probe = file.optional(name, lambda key: file.array(key, kinds="biufc", what="a complex probe"))
        if probe is not None and probe.dtype.kind == "c" and probe.ndim >= 2 and probe.shape[-2:] == tuple(shape):
            return probe
    return None


def _own_grid(file: HDF5File, patch: tuple[int, ...]) -> tuple[Pair, Pair, Pair | None]:
    """Origin in metres and in pixels, and side of an object pixel, where Ptychodus or we wrote the file."""
    pixel = _pair(file, f"{EXTRA}/object_pixel_width_m", f"{EXTRA}/object_pixel_height_m")
    centre = _pair(file, f"{EXTRA}/object_center_x_m", f"{EXTRA}/object_center_y_m")
    image = file.find(OBJECT)
    if pixel is None or centre is None or not file.is_dataset(OBJECT) or image.ndim < 2:
        origin_px = _pair(file, f"{EXTRA}/origin_px_x", f"{EXTRA}/origin_px_y") or (0.0, 0.0)
        return centre or (0.0, 0.0), origin_px, pixel
    return centre, middle_px(image.shape[-2:], patch), pixel


def _object(file: HDF5File) -> NDArray[Any] | None:
    """Only where the file says where it lies."""
    if not file.is_dataset(f"{EXTRA}/object_center_x_m"):
        return None
    return file.optional(OBJECT, lambda name: file.array(name, kinds="biufc", what="a complex object"))


def _energy_J(file: HDF5File) -> float | None:
    """In joules, as CXI has it, unless the file names another unit."""
    name = f"{SOURCE}/energy"
    named = bool(file.is_dataset(name) and file.text(name, "units"))
    energy = file.number(name, unit="eV" if named else None)
    return energy * scipy.constants.e if named and energy is not None else energy


def _pair(file: HDF5File, x: str, y: str) -> Pair | None:
    first, second = file.number(x, unit="m"), file.number(y, unit="m")
    return None if first is None or second is None else (first, second)


def _facts(file: HDF5File) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": file.text(f"{ENTRY}/title") or file.text(f"{ENTRY}/sample_1/name"),
        "comments": file.text(f"{ENTRY}/experiment_description"),
        "start_time": file.text(f"{ENTRY}/start_time"),
        "exposure_time_s": file.number(f"{EXTRA}/exposure_time_s"),
        "probe_photon_count": file.number(f"{EXTRA}/probe_photon_count"),
        "tomography_angle_deg": file.number(f"{EXTRA}/tomography_angle_deg"),
    }
    return {key: value for key, value in facts.items() if value}
