"""Readers and writers of scan files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ptycho_core.contracts import Scan
from ptycho_core.fields import from_mapping, to_mapping
from ptycho_core.io.convert import ENDINGS, write_scan
from ptycho_core.io.convert import convert as convert
from ptycho_core.io.readers import read_scan
from ptycho_core.reading import ReadOptions


def load_scan(path: str | os.PathLike[str], options: ReadOptions | None = None, **settings: Any) -> Scan:
    """The scan in the file `path`; its format is told by the content.

    options, settings: what the file does not say, such as `measurement="intensity"`, `crop=64` or `probe="probe.npy"`:
    the fields of `ReadOptions`. A setting goes before the same field of `options`. Raises DataError that names file,
    key, expected, received and a remedy.
    """
    if settings:
        stated = {} if options is None else to_mapping(options)
        options = from_mapping(ReadOptions, {**stated, **settings})
    return read_scan(Path(path), options or ReadOptions())


def save_scan(path: str | os.PathLike[str], scan: Scan, *, format: str | None = None) -> None:
    """Write a scan, whole or not at all.

    format: "npz", "ptychodus" or "cxi"; unset: by the ending (.h5, .hdf5, .cxi), and the NPZ contract for any other.
    """
    target = Path(path)
    write_scan(target, scan, format=format or (ENDINGS.get(target.suffix.lower()) if target.suffix else None) or "npz")
