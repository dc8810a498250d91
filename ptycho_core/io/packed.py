"""Files packed as a whole (gzip, bzip2, xz): unpacked once, within bounds, into a temporary folder."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ptycho_core.errors import DataError
from ptycho_core.scans.frames import Frames
from ptycho_core.scans.scan import Scan
from ptycho_core.storage.files import LARGE_BYTES, LARGEST_RATIO
from ptycho_core.storage.hdf5 import signature_of

OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
PIECE = 2**20
BROKEN = (OSError, EOFError, ValueError, MemoryError, zlib.error, lzma.LZMAError)
"""MemoryError: an xz file states how much it takes to unpack it."""


def is_packed(path: Path) -> bool:
    return signature_of(path).startswith(tuple(OPENERS))


@contextmanager
def unpacked(path: Path) -> Iterator[tuple[Path, Callable[[Scan], Scan]]]:
    """The unpacked file, and what has to be done with a scan that was read from it.

    The temporary folder is removed at the end, or with the scan's patterns where these stay in the file.
    """
    folder = tempfile.TemporaryDirectory(prefix="ptycho-")
    kept = False

    def keep(scan: Scan) -> Scan:
        nonlocal kept
        object.__setattr__(scan, "source", str(path))
        if isinstance(scan.diffraction_amplitude, Frames):
            weakref.finalize(scan.diffraction_amplitude.source, folder.cleanup)
            kept = True
        return scan

    try:
        plain = Path(folder.name) / (path.stem or "scan")
        _unpack(path, plain)
        yield plain, keep
    finally:
        if not kept:
            folder.cleanup()


def _unpack(path: Path, plain: Path) -> None:

    opener = next(opener for mark, opener in OPENERS.items() if signature_of(path).startswith(mark))
    packed = path.stat().st_size
    limit = max(LARGE_BYTES, LARGEST_RATIO * packed)
    free = shutil.disk_usage(plain.parent).free
    done = 0
    try:
        with opener(path, "rb") as source, plain.open("wb") as target:
            while piece := source.read(PIECE):
                done += len(piece)
                if done > limit:
                    received = f"more than {done // 2**20} MiB in {packed} bytes"
                    remedy = "Unpack it yourself if it is one."
                    raise DataError(path, expected="a packed measurement", received=received, remedy=remedy)
                if done > free:
                    remedy = "Free some space, or name another folder in TMPDIR."
                    received = f"{free // 2**20} MiB free in {plain.parent}"
                    raise DataError(path, expected="space to unpack it", received=received, remedy=remedy)
                target.write(piece)
    except BROKEN as error:
        raise DataError(
            path, expected="a readable packed file", received=error, remedy="It is truncated or damaged: copy it again."
        ) from error
