"""From a stored file to a scan: choosing a reader, assembling what it found."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Unpack

from ptycho_core.io.readers import read_scan
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.explained import takes_fields_of
from ptycho_core.settings.fields import from_mapping, to_mapping
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.settings.stated import ReadSettings


@takes_fields_of(ReadOptions)
def load_scan(
    path: str | os.PathLike[str], options: ReadOptions | None = None, **settings: Unpack[ReadSettings]
) -> Scan:
    """The scan in the file `path`; its format is recognised by content.

    options, settings: what the file does not say, such as `measurement="intensity"`, `crop=64` or `probe="probe.npy"`:
    the fields of `ReadOptions`; `help(ReadOptions.crop)` explains one. A setting overrides the same field of `options`.
    Raises DataError that names file, key, expected, received and a remedy.

    >>> from ptycho_core import save_scan, simulate
    >>> save_scan("scan.npz", simulate(N=32, positions=10))
    >>> load_scan("scan.npz", crop=16).diffraction_amplitude.shape
    (10, 16, 16)
    """
    if settings:
        stated = {} if options is None else to_mapping(options)
        options = from_mapping(ReadOptions, {**stated, **settings})
    return read_scan(Path(path), options or ReadOptions())
