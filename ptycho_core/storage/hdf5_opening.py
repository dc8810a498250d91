"""How HDF5 files are opened: without a lock, also while a program writes them (specs/data.md, HDF5)."""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

IN_USE = ("already open for write", "h5clear", "not able to set", "file consistency flags", "SWMR")


def opened(path: Path) -> Any:
    """The h5py.File, read-only. No lock is taken: a writer is never shut out, and no lock service is needed.

    A file that a program writes in SWMR mode is read as it writes it. Raises what h5py raises.
    """
    import h5py

    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        if any(words in str(error) for words in IN_USE):
            with suppress(OSError, ValueError):
                return h5py.File(path, "r", locking=False, swmr=True)
        raise


def remedy_of(path: Path, reason: str) -> str:
    """What can be done about a file that cannot be read."""
    if any(words in reason for words in IN_USE):
        mend = f"h5clear -s {shlex.quote(str(path))}"
        return f"Wait until the program that writes it has closed it; where that has crashed, mend the file: {mend}"
    return "It is truncated or damaged, still being written, or of a kind that is not read: copy it again."
