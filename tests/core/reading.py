"""What tests of readers have in common: loading a scan file, changing it, and what a refusal says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import pytest

from ptycho_core import load_scan
from ptycho_core.errors import DataError
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.fields import flag_of
from tests.core.scan_files import ScanFile


def load(file: ScanFile, **changes: Any) -> Scan:
    return load_scan(file.path, **{**file.settings, **changes})


def refusal(file: ScanFile | Path, **changes: Any) -> str:
    """The message of the command line, whose file is named, without it."""
    file = ScanFile(file) if isinstance(file, Path) else file
    with pytest.raises(DataError) as caught:
        load(file, **changes)
    message = caught.value.line(flag_of)
    assert str(file.path.parent) in message and "expected" in message and "received" in message, message
    return message.replace(f"{file.path.parent}/", "")


def put(path: Path, name: str, value: Any) -> None:
    with h5py.File(path, "r+") as file:
        if name in file:
            del file[name]
        if value is not None:
            file[name] = value
