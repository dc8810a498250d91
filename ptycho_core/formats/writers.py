"""Writers of Ptychodus and CXI files, in blocks, whole or not at all (specs/data.md, Writers).

progress is told (frames done, frames in all); what it raises stops the writing and leaves nothing behind.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import scipy  # its submodules load on first use
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.events import Count
from ptycho_core.formats import cxi
from ptycho_core.formats.ptychodus import ARBITRARY, DIFFRACTION, FACTS, ORIGIN, PLACEHOLDER, PRODUCT
from ptycho_core.io.metres import Metres, metres_of
from ptycho_core.scans.counts import counts_type, intensity_blocks
from ptycho_core.scans.scan import Scan
from ptycho_core.storage.files import check_space, make_folder, replacing

log = logging.getLogger(__name__)


def write_ptychodus(path: Path, scan: Scan, progress: Count | None = None) -> tuple[Path, Path]:
    """diffraction.h5 and product.h5 in the folder `path`; or the file `path` and its partner beside it.

    The name of such a file holds "diffraction" or "product". Returns both paths.
    """
    pair = pair_of(path)
    metres = metres_of(path, scan)
    if path.suffix == "":
        make_folder(path)
    index = unique_index(scan)
    import h5py

    # Both are whole before either takes its name: of the new patterns and an old product nobody could make a scan.
    with replacing(pair[0]) as diffraction, replacing(pair[1]) as product:
        with h5py.File(diffraction, "w") as file:
            file.create_dataset("indexes", data=index)
            patterns = _patterns(file, "patterns", scan, progress)
            width, height = metres.detector_pixel_m
            patterns.attrs["detector_pixel_width_m"], patterns.attrs["detector_pixel_height_m"] = width, height
            file.create_dataset("bad_pixels", data=scan.bad_pixels)
        with h5py.File(product, "w") as file:
            _product(file, scan, metres, index)
    return pair


def pair_of(path: Path) -> tuple[Path, Path]:
    """(diffraction, product) that `path` names. Raises DataError."""
    if path.is_dir() or path.suffix == "":
        return path / f"{DIFFRACTION}.h5", path / f"{PRODUCT}.h5"
    for kind, other in ((DIFFRACTION, PRODUCT), (PRODUCT, DIFFRACTION)):
        if kind in path.name:
            partner = path.with_name(path.name.replace(kind, other))
            return (path, partner) if kind == DIFFRACTION else (partner, path)
    remedy = "Ptychodus wants two files: their names tell which is which."
    expected = "a folder, or a file name with 'diffraction' or 'product' in it"
    raise DataError(path, expected=expected, received=path.name, remedy=remedy)


def write_cxi(path: Path, scan: Scan, progress: Count | None = None) -> Path:
    """One CXI file: patterns, translations, energy, distance, mask and, where they are known, probe and object."""
    metres = metres_of(path, scan)
    width, height = metres.detector_pixel_m
    with _hdf5(path) as file:
        file["cxi_version"] = 160
        file["number_of_entries"] = 1
        file[f"{cxi.SOURCE}/energy"] = metres.energy_eV * scipy.constants.e
        file[f"{cxi.DETECTOR}/distance"] = metres.distance_m
        file[f"{cxi.DETECTOR}/x_pixel_size"], file[f"{cxi.DETECTOR}/y_pixel_size"] = width, height
        file[f"{cxi.DETECTOR}/basis_vectors"] = np.array([[0.0, -height, 0.0], [-width, 0.0, 0.0]])
        file[f"{cxi.DETECTOR}/mask"] = np.asarray(scan.bad_pixels, np.uint32)
        _patterns(file, f"{cxi.DETECTOR}/data", scan, progress)
        file[f"{cxi.ENTRY}/data_1/data"] = _soft(f"{cxi.DETECTOR}/data")
        places = np.pad(metres.positions_m, ((0, 0), (0, 1)))
        file[f"{cxi.ENTRY}/sample_1/geometry_1/translation"] = places
        file[f"{cxi.ENTRY}/data_1/translation"] = _soft(f"{cxi.ENTRY}/sample_1/geometry_1/translation")
        if scan.probe_known:
            _image(file, f"{cxi.ENTRY}/image_1", scan.probe[None], "coherent:incoherent:y:x")
            file[f"{cxi.SOURCE}/illumination"] = _soft(f"{cxi.ENTRY}/image_1/data")
        if scan.object_field is not None:
            _image(file, f"{cxi.ENTRY}/image_2", scan.object_field[None], "layer:y:x")
        for key, name in (("name", "title"), ("comments", "experiment_description"), ("start_time", "start_time")):
            if isinstance(scan.metadata.get(key), str):
                file[f"{cxi.ENTRY}/{name}"] = scan.metadata[key]
        extra = file.create_group(cxi.EXTRA)
        for key in ("exposure_time_s", "probe_photon_count", "tomography_angle_deg"):
            if isinstance(scan.metadata.get(key), (int, float)):
                extra[key] = float(scan.metadata[key])
        extra["probe_position_indexes"] = scan.scan_index
        for item in ("probe", "object"):
            extra[f"{item}_pixel_width_m"], extra[f"{item}_pixel_height_m"] = metres.object_pixel_m
        extra["object_center_x_m"] = extra["object_center_y_m"] = 0.0
        if scan.object_field is None:
            extra["origin_px_x"], extra["origin_px_y"] = metres.middle_px
    return path


def _product(file: Any, scan: Scan, metres: Metres, index: NDArray[np.int64]) -> None:
    known = {key: scan.metadata.get(key) for key in FACTS}
    if known["probe_photon_count"] is None and scan.dose_known:
        known["probe_photon_count"] = float(scan.statistics.frame_intensity.mean())
    for key, value in known.items():
        file.attrs[key] = float(value) if isinstance(value, (int, float)) else 0.0  # which is "unknown" there
    name, comments = (scan.metadata.get(key) for key in ("name", "comments"))
    file.attrs["name"] = name if isinstance(name, str) else Path(scan.source).stem
    file.attrs["comments"] = comments if isinstance(comments, str) else ""
    file.attrs["detector_object_distance_m"] = metres.distance_m
    file.attrs["photon_energy_eV"] = metres.energy_eV
    file.attrs["far_field"] = True
    file["probe_position_indexes"] = index
    file["probe_position_x_m"], file["probe_position_y_m"] = metres.positions_m.T
    file["probe"] = scan.probe[None]
    shape = (1, *metres.canvas)
    if scan.object_field is None:
        # Of the values only the shape matters; they are not stored.
        item = file.create_dataset("object", shape, np.complex64, fillvalue=np.complex64(1))
        item.attrs[PLACEHOLDER] = 1
        item.attrs[f"{ORIGIN}_x"], item.attrs[f"{ORIGIN}_y"] = metres.corner_px
    else:
        item = file.create_dataset("object", data=scan.object_field[None])
    item.attrs["center_x_m"] = item.attrs["center_y_m"] = 0.0
    for data in (file["probe"], item):
        data.attrs["pixel_width_m"], data.attrs["pixel_height_m"] = metres.object_pixel_m
    file["object_layer_spacing_m"] = np.zeros(0)
    file["loss_epochs"], file["loss_values"] = np.zeros(0, np.int64), np.zeros(0)


def _patterns(file: Any, name: str, scan: Scan, progress: Count | None) -> Any:
    """Intensities, block by block: whole numbers as such, so that no digit is lost, others as float32."""
    dtype = counts_type(scan)
    count = len(scan)
    check_space(Path(file.filename).parent, dtype.itemsize * scan.diffraction_amplitude.size)
    data = file.create_dataset(name, scan.diffraction_amplitude.shape, dtype)
    if not scan.dose_known:
        data.attrs[ARBITRARY] = 1
    done = 0
    for block in intensity_blocks(scan, dtype):
        data[done : done + len(block)] = block
        done += len(block)
        if progress is not None:
            progress(done, count)
    return data


def unique_index(scan: Scan) -> NDArray[np.int64]:
    """The scan's own indexes, or 0 … M − 1 where they cannot distinguish the frames."""
    index = np.asarray(scan.scan_index)
    if len(np.unique(index)) == len(index) and index.min() >= 0:
        return index
    log.warning("%s: scan_index is not unique: frames are numbered from 0", scan.source)
    return np.arange(len(index))


def _image(file: Any, name: str, data: NDArray[Any], axes: str) -> None:
    file[f"{name}/data"] = data
    file[f"{name}/data"].attrs["axes"] = axes
    file[f"{name}/data_type"], file[f"{name}/data_space"] = "amplitude", "real"


def _soft(name: str) -> Any:
    import h5py

    return h5py.SoftLink(name)


@contextmanager
def _hdf5(path: Path) -> Iterator[Any]:
    import h5py

    with replacing(path) as target, h5py.File(target, "w") as file:
        yield file
