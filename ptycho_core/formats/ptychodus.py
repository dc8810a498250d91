"""Ptychodus: the pair of a diffraction and a product file (specs/data.md, Ptychodus)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.io.assembly import Pair, Stored, assemble, missing
from ptycho_core.scans.findings import ranges
from ptycho_core.scans.geometry import middle_px
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.storage.hdf5 import HDF5File, is_hdf5

log = logging.getLogger(__name__)

DIFFRACTION, PRODUCT = "diffraction", "product"
MARKS = {
    DIFFRACTION: ("patterns", "indexes"),
    PRODUCT: ("probe_position_indexes", "probe_position_x_m", "probe_position_y_m"),
}
ENERGY = ("photon_energy_eV", "probe_energy_eV")
DISTANCE = ("detector_object_distance_m", "detector_distance_m")
FACTS = {
    "exposure_time_s": ("exposure_time_s",),
    "probe_photon_count": ("probe_photon_count",),
    "mass_attenuation_m2_per_kg": ("mass_attenuation_m2_per_kg", "mass_attenuation_m2_kg"),
    "tomography_angle_deg": ("tomography_angle_deg",),
    "tilt_angle_deg": ("tilt_angle_deg",),
    "focus_object_distance_m": ("focus_object_distance_m",),
}
PLACEHOLDER, ORIGIN = "placeholder", "origin_px"
"""Attributes that our writer gives an object that is none: Ptychodus needs one in every product."""
ARBITRARY = "arbitrary_unit"
"""Attribute that our writers give patterns whose unit is not photons."""
ENDINGS = (".h5", ".hdf5")
MOST_BESIDE = 200


class PtychodusReader:
    name = "ptychodus"
    description = "Ptychodus: diffraction.h5 and product.h5, either named"
    endings = ENDINGS

    def matches(self, path: Path) -> bool:
        return kind_of_file(path) is not None

    def read(self, path: Path, options: ReadOptions) -> Scan:
        kind = kind_of_file(path)
        if kind is None:
            with HDF5File(path) as file:
                received = "; ".join(file.contents()[:12]) or "no data sets"
                remedy = "Name a file that Ptychodus wrote, or another reader."
                expected = f"a data set {' or '.join(m[0] for m in MARKS.values())}"
                raise DataError(file.path, expected=expected, received=received, remedy=remedy)
        other = self._companion(path, kind, options)
        pair = (path, other) if kind == DIFFRACTION else (other, path)
        with HDF5File(pair[0]) as diffraction, HDF5File(pair[1]) as product:
            stored = _stored(path, diffraction, product)
        return assemble(stored, options)

    def _companion(self, path: Path, kind: str, options: ReadOptions) -> Path:
        wanted = PRODUCT if kind == DIFFRACTION else DIFFRACTION
        expected = f"the {wanted} file that belongs to this {kind} file"
        if options.companion is not None:
            if kind_of_file(options.companion) != wanted:
                raise missing(path, None, "companion", expected, f"{options.companion}, which is none")
            return options.companion
        usual = path.with_name(path.name.replace(kind, wanted))
        if usual != path and kind_of_file(usual) == wanted:
            return usual
        beside = [other for other in sorted(path.parent.iterdir()) if other.suffix in ENDINGS and other != path]
        found = [other for other in beside[:MOST_BESIDE] if kind_of_file(other) == wanted]
        if not found and usual != path and is_hdf5(usual):
            with HDF5File(usual):  # says what is wrong where it cannot be opened
                pass
        if len(found) != 1:
            raise missing(
                path, None, "companion", expected, ", ".join(other.name for other in found) or "none beside it"
            )
        log.info("%s: read with %s beside it", path, found[0].name)
        return found[0]


def kind_of_file(path: Path) -> str | None:
    """DIFFRACTION or PRODUCT, by the data sets in it; None for another file."""
    if not is_hdf5(path):
        return None
    try:
        with HDF5File(path) as file:
            return next((kind for kind, marks in MARKS.items() if all(map(file.is_dataset, marks))), None)
    except DataError:
        return None


def _stored(path: Path, diffraction: HDF5File, product: HDF5File) -> Stored:
    patterns = diffraction.frames("patterns")
    keys = _vector(diffraction, "indexes", "iu")
    if len(keys) != patterns.shape[0]:
        expected, received = f"{patterns.shape[0]} entries, one per pattern", str(len(keys))
        raise DataError(diffraction.path, "indexes", expected=expected, received=received, remedy="Name another file.")
    names = MARKS[PRODUCT]
    indexes = _vector(product, names[0], "iu")
    x, y = (_vector(product, name, "iuf") for name in names[1:])
    if not len(indexes) == len(x) == len(y):
        received = f"{len(indexes)}, {len(x)} and {len(y)}"
        raise DataError(
            product.path, ", ".join(names), expected="equal lengths", received=received, remedy="Name another file."
        )
    own, x, y = _averaged(product, indexes, x, y)
    indexes, x, y = _between(keys, own, x, y)
    frames, rows = pair_indexes(diffraction, product, keys, indexes)
    filled = np.flatnonzero(np.isin(indexes[rows], own, invert=True))
    if len(filled):
        log.warning(
            "%s: %d patterns have no position of their own: theirs lie between those before and after. Leave them out: "
            "--drop-frames %s",
            product.path,
            len(filled),
            ranges(filled),
        )
    shape = product.find("object").shape if product.is_dataset("object") else None
    if shape is None or len(shape) < 2:
        expected = "(layers, H, W) complex numbers"
        raise DataError(product.path, "object", expected=expected, received=shape, remedy="Write the product again.")
    height, width = shape[-2:]
    pixel = _pair(product, "object", "pixel_width_m", "pixel_height_m")
    centre = _pair(product, "object", "center_x_m", "center_y_m") or (0.0, 0.0)
    if pixel is None:
        expected, remedy = "the side of an object pixel", "Write the product again."
        raise DataError(product.path, "object@pixel_width_m", expected=expected, received="none", remedy=remedy)
    corner: Pair = (0.0, 0.0)
    placeholder = product.attribute("object", PLACEHOLDER)
    if placeholder:
        corner = _pair(product, "object", f"{ORIGIN}_x", f"{ORIGIN}_y") or corner
    return Stored(
        path=path,
        reader=PtychodusReader.name,
        frames=patterns,
        key="patterns",
        measurement="intensity",
        index=None if len(frames) == len(keys) and (frames == np.arange(len(keys))).all() else frames,
        positions=np.stack([x, y], axis=1)[rows],
        unit="m",
        pixel_m=pixel,
        origin=centre,
        dose_known=not diffraction.attribute("patterns", ARBITRARY),
        origin_px=middle_px((height, width), patterns.shape[1:], corner),
        scan_index=indexes[rows],
        probe=product.optional("probe", lambda name: product.array(name, kinds="biufc", what="a complex probe")),
        object=None if placeholder else product.array("object", kinds="biufc", what="a complex object"),
        bad_pixels=diffraction.optional("bad_pixels", diffraction.array),
        energy_eV=_known(product.attribute("/", *ENERGY)),
        distance_m=_known(product.attribute("/", *DISTANCE)),
        detector_pixel_m=_pair(diffraction, "patterns", "detector_pixel_width_m", "detector_pixel_height_m"),
        metadata=_facts(product),
    )


def _vector(file: HDF5File, name: str, kinds: str) -> NDArray[Any]:
    values = file.array(name, kinds=kinds, what="(M,) numbers")
    if values.ndim != 1:
        raise DataError(
            file.path, name, expected="(M,) numbers", received=f"shape {values.shape}", remedy="Name another file."
        )
    return values.astype(np.int64) if "f" not in kinds else values.astype(np.float64)


def _pair(file: HDF5File, item: str, x: str, y: str) -> Pair | None:
    first, second = file.attribute(item, x), file.attribute(item, y)
    return None if first is None or second is None else (first, second)


def _averaged(
    product: HDF5File, indexes: NDArray[Any], x: NDArray[Any], y: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """One position for each index: the mean of those that a fly scan has recorded during a pattern."""
    each, place, counts = np.unique(indexes, return_inverse=True, return_counts=True)
    if len(each) == len(indexes) or not indexes.any():
        return indexes, x, y
    log.warning(
        "%s: %d positions of %d patterns: those of one pattern are averaged", product.path, len(indexes), len(each)
    )
    mean_x, mean_y = (np.bincount(place, np.asarray(values, np.float64)) / counts for values in (x, y))
    return each, mean_x, mean_y


def _between(
    keys: NDArray[Any], indexes: NDArray[Any], x: NDArray[Any], y: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """With a position for each pattern between others that has none: on the line between its neighbours."""
    if not indexes.any():  # none, or they are paired in their order
        return indexes, x, y
    lacking = np.isin(keys, indexes, invert=True) & (keys > indexes.min()) & (keys < indexes.max()) & (keys >= 0)
    if not lacking.any():
        return indexes, x, y
    order = np.argsort(indexes)
    new = np.union1d(indexes, keys[lacking])
    filled_x, filled_y = (np.interp(new, indexes[order], np.asarray(values, np.float64)[order]) for values in (x, y))
    return new, filled_x, filled_y


def _known(value: float | None) -> float | None:
    """Ptychodus writes 0 for what it does not know."""
    return value or None


def _facts(product: HDF5File) -> dict[str, Any]:
    facts: dict[str, Any] = {key: product.text("/", key) for key in ("name", "comments")}
    facts |= {key: product.attribute("/", *names) for key, names in FACTS.items()}
    return {key: value for key, value in facts.items() if value}


def pair_indexes(
    diffraction: HDF5File, product: HDF5File, keys: NDArray[np.int64], indexes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(frame, row of the product) of every position that has a pattern, in the product's order.

    keys: (M,), of the patterns; indexes: of the positions; the files are for messages. Raises DataError.
    """
    if len(indexes) == len(keys) > 1 and not indexes.any():
        log.warning("%s: all indexes are 0: positions and patterns are paired in their order", product.path)
        return np.arange(len(keys)), np.arange(len(keys))
    known = keys[keys >= 0]
    if len(known) < len(keys):
        log.warning("%s: %d patterns of negative index are left out", diffraction.path, len(keys) - len(known))
        frames, rows = pair_indexes(diffraction, product, known, indexes)
        return np.flatnonzero(keys >= 0)[frames], rows
    for file, name, values in ((diffraction, "indexes", keys), (product, "probe_position_indexes", indexes)):
        if len(np.unique(values)) != len(values):
            numbers, counts = np.unique(values, return_counts=True)
            received = f"index {numbers[counts.argmax()]} for {counts.max()}"
            raise DataError(
                file.path, name, expected="every index once", received=received, remedy="Name another file."
            )
    order = np.argsort(keys)
    places = np.searchsorted(keys, indexes, sorter=order).clip(max=max(len(keys) - 1, 0))
    frames = order[places] if len(keys) else np.zeros(0, np.int64)
    rows = np.flatnonzero(keys[frames] == indexes) if len(keys) else np.zeros(0, np.int64)
    if len(rows) == 0:
        expected, received = "indexes of the diffraction file", "none of them"
        remedy = "Name the files that belong together."
        raise DataError(product.path, "probe_position_indexes", expected=expected, received=received, remedy=remedy)
    for what, number in (("positions", len(indexes)), ("patterns", len(keys))):
        if number > len(rows):
            log.warning(
                "%s: %d of %d %s have no partner and are left out", product.path, number - len(rows), number, what
            )
    return frames[rows], rows
