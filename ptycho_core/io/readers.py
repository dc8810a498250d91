"""Readers of scan files and the choice between them (specs/data.md, Readers).

A reader is a class with no arguments, registered under the entry-point group `ptycho_core.readers`. It recognises a
file by content, never by name alone, and is imported when it is used.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import attrs

from ptycho_core.errors import DataError
from ptycho_core.io.assembly import UNKNOWN_PROBE
from ptycho_core.io.gaps import HOW, gaps_of
from ptycho_core.io.packed import is_packed, unpacked
from ptycho_core.io.places import patterns_in
from ptycho_core.registry import Registry
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.storage.files import UNREADABLE
from ptycho_core.storage.hdf5 import HDF5File, is_hdf5, signature_of
from ptycho_core.storage.matlab5 import is_matlab5, mat_names
from ptycho_core.storage.npz import MAGIC, npz_members
from ptycho_core.storage.tiff import is_tiff

log = logging.getLogger(__name__)

MAPPED = "mapped"
TAKEN_BY = {"dataset": (MAPPED,), "companion": ("ptychodus", "cxi", "shelves")}
"""Options that only these of our readers have a use for."""


class Reader(Protocol):
    """One format.

    name: as in `--reader NAME`. description: a few words for a list. endings: that its files usually have, a hint only.
    """

    name: str
    description: str
    endings: tuple[str, ...]

    def matches(self, path: Path) -> bool:
        """Whether the content of the file is of this format; cheap, and False for whatever cannot be read."""
        ...

    def read(self, path: Path, options: ReadOptions) -> Scan:
        """The scan, its metadata as plain values. Raises DataError that names file, key, expected and received."""
        ...


READERS: Registry[Reader] = Registry(
    "reader",
    ("ReadOptions", "reader"),
    group="ptycho_core.readers",
    ours={
        "npz": "ptycho_core.formats.npz:NpzReader",
        "ptychodus": "ptycho_core.formats.ptychodus:PtychodusReader",
        "cxi": "ptycho_core.formats.cxi:CxiReader",
        "ptyd": "ptycho_core.formats.ptyd:PtydReader",
        "shelves": "ptycho_core.formats.shelves:ShelvesReader",
        "nsls2": "ptycho_core.formats.nsls2:NslsReader",
        "ptylab": "ptycho_core.formats.ptylab:PtyLabReader",
        "nexus": "ptycho_core.formats.nexus:NexusReader",
        "mapped": "ptycho_core.formats.mapped:MappedReader",
    },
    make=lambda cls: cls(),
)
"""Ours, as pyproject.toml registers them: found even where the package was not installed again."""


def choose_reader(path: Path, options: ReadOptions) -> Reader:
    """The reader that is stated, or the one whose format the content has.

    A stated `dataset` is read by "mapped". Raises DataError for a file of no known format, or of several,
    ConfigurationError for a reader that is not there or broken.
    """
    if options.reader is not None:
        return READERS.load(options.reader)
    if options.dataset is not None:
        return READERS.load(MAPPED)
    named = options.positions is not None or options.scan_step is not None
    if named and signature_of(path).startswith(MAGIC):  # one array, which is then the patterns
        return READERS.load(MAPPED)
    found = [reader for name, reader in READERS.load_all() if _matches(name, reader, path)]
    if not found and named and (is_matlab5(path) or is_tiff(path) or (is_hdf5(path) and _has_patterns(path))):
        return READERS.load(MAPPED)  # its parts are named, and its patterns are those of three axes or more
    if [reader.name for reader in found] == ["npz"] and _is_of_no_contract(path, named):
        return READERS.load(MAPPED)
    if len(found) == 1:
        log.debug("%s: read by %r", path, found[0].name)
        return found[0]
    if not found and is_hdf5(path):
        with HDF5File(path):  # says what is wrong where it cannot be opened
            pass
    names = ", ".join(reader.name for reader in found) or ", ".join(READERS.names())
    holds, which = f"It holds: {describe_contents(path)}. ", f"State which of {names} it is"
    if found:
        expected, received = "a file of one format", f"the marks of {names}"
        raise DataError(path, expected=expected, received=received, remedy=f"{holds}{which}.", state=("reader",))
    gaps = tuple(gap.stated for gap in gaps_of(path, options))
    remedy = f"{holds}{HOW if gaps else ''}{which}, or name the parts of a file of another kind."
    state = ("reader", *(gaps or ("dataset", "positions", "probe")))
    raise DataError(path, expected="a scan of a known format", received="another file", remedy=remedy, state=state)


def _has_patterns(path: Path) -> bool:
    """Whether an HDF5 file holds one data set that may be patterns."""
    with HDF5File(path) as file:
        return len(patterns_in(file)) == 1


def _is_of_no_contract(path: Path, named: bool) -> bool:
    """Whether an NPZ file lacks the contract's patterns and holds one array of real numbers that may be patterns.

    Where its parts are not named, it has none of the contract's keys at all.
    """
    if not signature_of(path).startswith(b"PK"):
        return False
    members = npz_members(path)
    deep = [member for member in members.values() if len(member.shape) > 2 and member.dtype.kind in "biuf"]
    keys = {"diff3d", "diffraction"} | (set() if named else {"xcoords", "ycoords", "probeGuess"})
    return not keys & set(members) and len(deep) == 1


def _matches(name: str, reader: Reader, path: Path) -> bool:
    try:
        return reader.matches(path)
    except Exception as error:
        if READERS.is_ours(name):
            raise
        READERS.warn(name, error)
        return False


def read_scan(path: Path, options: ReadOptions) -> Scan:
    """The scan in a file, packed (gzip, bzip2) or not."""
    if os.path.isfile(pair := path / "diffraction.h5"):  # a folder as `convert` writes it
        path = pair
    if not os.path.isfile(path):  # as Path.is_file, but no error where it cannot be looked at
        received = (
            "a folder" if os.path.isdir(path) else "a pipe or a device" if os.path.exists(path) else "no such file"
        )
        remedy = "Name a file in it." if os.path.isdir(path) else "Check the path."
        raise DataError(path, expected="a scan file", received=received, remedy=remedy)
    if is_packed(path):
        with unpacked(path) as (plain, keep):
            if is_packed(plain):  # there are files that unpack to themselves
                received, remedy = "one that is packed twice", "Unpack it yourself."
                raise DataError(path, expected="a packed scan", received=received, remedy=remedy)
            try:
                scan = read_scan(plain, options)
            except DataError as error:
                raise error.renamed(plain, path) from error
            return keep(scan)
    try:
        reader = choose_reader(path, options)
        for option, names in TAKEN_BY.items():
            if getattr(options, option) is not None and READERS.is_ours(reader.name) and reader.name not in names:
                expected = f"no {option} for the reader {reader.name!r}"
                remedy = f"Leave it out; {' and '.join(names)} can use it."
                received = getattr(options, option)
                raise DataError(path, expected=expected, received=received, remedy=remedy)
        if options.companion is not None and not os.path.isfile(options.companion):
            received = f"{options.companion}, which is {'none' if os.path.exists(options.companion) else 'not there'}"
            remedy = "Name the other file of the pair."
            raise DataError(path, "companion", expected="a file", received=received, remedy=remedy)
        return reader.read(path, options)
    except DataError as error:
        if str(path) in (error.source, *error.places):
            raise
        raise error.placed(path) from error


def read_known(path: Path, options: ReadOptions) -> Scan:
    """As `read_scan`; a file that holds no probe gives a scan whose probe is unknown, where none is named."""
    try:
        return read_scan(path, options)
    except DataError as error:
        if error.state != ("probe",) or options.probe is not None:
            raise
        log.warning("%s: no probe in the file, which only a solve can do without.", path)
        return read_scan(path, attrs.evolve(options, probe=UNKNOWN_PROBE))


def describe_contents(path: Path, most: int = 12) -> str:
    """What a file holds, in one line."""
    try:
        if is_hdf5(path):
            with HDF5File(path) as file:
                return _some(file.contents(), most) or "an HDF5 file without data sets"
        if is_matlab5(path):
            return _some((f"{name} {shape}" for name, shape in mat_names(path).items()), most) or "no arrays"
        if signature_of(path).startswith(b"PK"):
            members = npz_members(path).values()
            return _some((f"{m.key} {m.shape} {m.dtype}" for m in members), most) or "a zip file without arrays"
    except (DataError, *UNREADABLE) as error:
        reason = error.received if isinstance(error, DataError) else error
        return f"nothing that can be read ({str(reason)[:200]})"
    if signature_of(path).startswith(MAGIC):
        return "a single array (NPY)"
    if is_tiff(path):
        return "pictures (TIFF), whose parts have to be named"
    return f"{path.stat().st_size} bytes of another kind, beginning with {signature_of(path)!r}"


def _some(lines: Iterable[str], most: int) -> str:
    lines = list(lines)
    return "; ".join(lines[:most]) + (f"; and {len(lines) - most} more" if len(lines) > most else "")
