"""From a stored file to a scan: choosing a reader, assembling what it found."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ptycho_core.io.readers import read_scan
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.fields import from_mapping, to_mapping
from ptycho_core.settings.reading import ReadOptions


def load_scan(path: str | os.PathLike[str], options: ReadOptions | None = None, **settings: Any) -> Scan:
    """The scan in the file `path`; its format is recognised by content.

    options, settings: what the file does not say, such as `measurement="intensity"`, `crop=64` or `probe="probe.npy"`:
    the fields of `ReadOptions`. A setting overrides the same field of `options`. Raises DataError that names file,
    key, expected, received and a remedy.
    """
    if settings:
        stated = {} if options is None else to_mapping(options)
        options = from_mapping(ReadOptions, {**stated, **settings})
    return read_scan(Path(path), options or ReadOptions())
