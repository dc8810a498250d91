"""NeXus with a detector: Eiger masters with links to their data files, NXmx (specs/data.md, NeXus)."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.io.assembly import Pair, Stored, assemble
from ptycho_core.io.places import by_number
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.settings.words import frame_list
from ptycho_core.storage.hdf5 import HDF5File, is_hdf5
from ptycho_core.storage.source import FrameSource
from ptycho_core.storage.stored import JoinedFrames

log = logging.getLogger(__name__)

ENTRIES = ("entry", "entry1", "entry_1")
PARTS = "data_"
DETECTOR = "instrument/detector"
MASKS = ("pixel_mask", "detectorSpecific/pixel_mask")
ANGSTROM_M = 1e-10


class NexusReader:
    name = "nexus"
    description = "NeXus: an Eiger master with its data files, NXmx; positions and probe are named"
    endings = (".h5", ".nxs")

    def matches(self, path: Path) -> bool:
        if not is_hdf5(path):
            return False
        try:
            with HDF5File(path) as file:
                return _entry(file) is not None
        except DataError:
            return False

    def read(self, path: Path, options: ReadOptions) -> Scan:
        with HDF5File(path, options.follow_links) as file:
            entry = _entry(file)
            if entry is None:
                expected, received = f"{ENTRIES[0]}/data and {ENTRIES[0]}/{DETECTOR}", "other groups"
                remedy = "Name the data set of the patterns"
                raise DataError(
                    path, expected=expected, received=received, remedy=remedy, state=("dataset", "positions", "probe")
                )
            unwritten = options.drop_frames is not None and "unwritten" in frame_list(options.drop_frames)[1]
            frames, key = _frames(file, entry, unwritten)
            detector = f"{entry}/{DETECTOR}"
            stored = Stored(
                path=path,
                reader=self.name,
                frames=frames,
                key=key,
                measurement="intensity",
                bad_pixels=_bad_pixels(file, detector),
                energy_eV=file.number(f"{entry}/instrument/beam/incident_energy", unit="eV"),
                wavelength_m=_wavelength(file, entry),
                distance_m=file.number(f"{detector}/detector_distance", f"{detector}/distance", unit="m"),
                detector_pixel_m=_pixel(file, detector),
                metadata={"name": title} if (title := file.text(f"{entry}/title")) else {},
            )
        return assemble(stored, options)


def _entry(file: HDF5File) -> str | None:
    """The entry with patterns, or links to them, and a detector."""
    for entry in ENTRIES:
        if f"{entry}/{DETECTOR}" in file and _parts(file, entry):
            return entry
    return None


def _parts(file: HDF5File, entry: str) -> list[str]:
    """`data`, or `data_000001` …, in the order of their numbers; where they lead is not looked at."""
    keys = file.keys(f"{entry}/data")
    parts = sorted((key for key in keys if key.startswith(PARTS) and key[len(PARTS) :].isdecimal()), key=by_number)
    return [f"{entry}/data/{key}" for key in parts or [key for key in keys if key == "data"]]


def _frames(file: HDF5File, entry: str, unwritten: bool) -> tuple[FrameSource, str]:
    """unwritten: a data file that is not there yet, and those after it, are left out."""
    parts = _parts(file, entry)
    if unwritten:
        there = list(itertools.takewhile(file.has_file, parts))
        if 0 < len(there) < len(parts):
            log.info("%s: %d of %d data files are there", file.path, len(there), len(parts))
            parts = there
    sources = [file.frames(part) for part in parts]
    return (sources[0], parts[0]) if len(sources) == 1 else (JoinedFrames(sources), f"{entry}/data/{PARTS}*")


def _bad_pixels(file: HDF5File, detector: str) -> NDArray[np.bool_] | None:
    """Where any bit of the mask is set; of several modules or thresholds in any."""
    name = file.first(*(f"{detector}/{mask}" for mask in MASKS))
    if name is None:
        return None
    bad = file.array(name, kinds="biu") != 0
    return np.asarray(bad if bad.ndim == 2 else bad.any(axis=tuple(range(bad.ndim - 2))))


def _wavelength(file: HDF5File, entry: str) -> float | None:
    """In metres; angstroms where the file names no unit, as NXbeam has it."""
    name = file.first(f"{entry}/instrument/beam/incident_wavelength", f"{entry}/sample/beam/incident_wavelength")
    if name is None:
        return None
    named = bool(file.text(name, "units"))
    value = file.number(name, unit="m" if named else None)
    return value if named or value is None else value * ANGSTROM_M


def _pixel(file: HDF5File, detector: str) -> Pair | None:
    x, y = (file.number(f"{detector}/{axis}_pixel_size", unit="m") for axis in "xy")
    return None if x is None else (x, x if y is None else y)
