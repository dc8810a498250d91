"""From one scan file to another (specs/data.md, Writers)."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from ptycho_core.errors import DataError
from ptycho_core.events import Count
from ptycho_core.formats.npz import save_npz_scan
from ptycho_core.formats.writers import pair_of, write_cxi, write_ptychodus
from ptycho_core.io.assembly import UNKNOWN_PROBE
from ptycho_core.io.places import place_of
from ptycho_core.io.readers import read_known
from ptycho_core.scans.frames import Frames
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.storage.files import check_other_files

log = logging.getLogger(__name__)

NPZ, PTYCHODUS, CXI = "npz", "ptychodus", "cxi"
ENDINGS = {".npz": NPZ, ".h5": PTYCHODUS, ".hdf5": PTYCHODUS, "": PTYCHODUS, ".cxi": CXI}
FORMATS = {
    NPZ: "NPZ contract, one file",
    PTYCHODUS: "Ptychodus diffraction.h5 and product.h5: a folder, or either file",
    CXI: "CXI, one file",
}


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    options: ReadOptions | None = None,
    *,
    format: str | None = None,
    progress: Count | None = None,
) -> tuple[Path, ...]:
    """Read `source` as `options` state and write it to `target`; returns the files written.

    format: a key of `FORMATS`; unset, by the ending of `target`. progress: called with (frames written, frames in all).
    Patterns are copied in blocks, whatever the size of the scan. Raises DataError.
    """
    path, out = Path(source), Path(target)
    kind = format_of(out, format)
    written = pair_of(out) if kind == PTYCHODUS else (out,)
    options = options or ReadOptions()
    for read in _files_read(path, options):
        check_other_files(read, *written)
    scan = read_known(path, options)
    try:
        return write_scan(out, scan, format=kind, progress=progress)
    finally:
        if isinstance(scan.diffraction_amplitude, Frames):
            scan.diffraction_amplitude.close()


def _files_read(path: Path, options: ReadOptions) -> set[Path]:
    """The scan's file and those that the options name."""
    probe = None if options.probe == UNKNOWN_PROBE else options.probe
    named = (options.positions, probe, options.object, options.bad_pixels)
    pair = {options.companion} if options.companion else set()
    return {path, *pair, *(place_of(text, path).path for text in named if text)}


def write_scan(
    target: Path, scan: Scan, *, format: str | None = None, progress: Count | None = None
) -> tuple[Path, ...]:
    """Write a scan in the stated format, or in that of the ending; returns the files written. Raises DataError."""
    kind = format_of(target, format)
    if kind == PTYCHODUS:
        scan.check_probe()  # which a product has
        return write_ptychodus(target, scan, progress)
    if kind == CXI:
        return (write_cxi(target, scan, progress),)
    save_npz_scan(target, scan)
    if progress is not None:
        progress(len(scan), len(scan))
    return (target,)


def format_of(target: Path, format: str | None = None) -> str:
    """The format that is stated, or that of the ending. Raises DataError."""
    kind = format or (PTYCHODUS if target.is_dir() else ENDINGS.get(target.suffix.lower()))
    if kind not in FORMATS:
        received = format or f"the ending {target.suffix!r}"
        remedy = "State the format, or give the target one of the endings .npz, .h5, .cxi."
        expected = f"one of the formats {', '.join(FORMATS)}"
        raise DataError(target, expected=expected, received=received, remedy=remedy)
    return kind


def targets_of(target: Path, format: str | None = None) -> tuple[Path, ...]:
    """The files that a scan written to `target` is: of no known ending, the NPZ contract's. Raises DataError."""
    known = format is not None or target.is_dir() or target.suffix.lower() in ENDINGS
    return pair_of(target) if known and format_of(target, format) == PTYCHODUS else (target,)


def save_scan(path: str | os.PathLike[str], scan: Scan, *, format: str | None = None) -> None:
    """Write a scan, whole or not at all.

    format: "npz", "ptychodus" or "cxi"; unset: by the ending (.h5, .hdf5, .cxi), and the NPZ contract for any other.
    """
    target = Path(path)
    write_scan(target, scan, format=format or (ENDINGS.get(target.suffix.lower()) if target.suffix else None) or "npz")
