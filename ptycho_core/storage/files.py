"""Files that are there whole or not at all."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ptycho_core.errors import DataError

UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What the reading of a damaged zip file raises; RuntimeError: a member that is encrypted or of an unknown kind."""
DAMAGED_HDF5 = (
    OSError,
    EOFError,
    LookupError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    SystemError,
)
"""What h5py raises for a file that is damaged or holds types that numpy has not; OverflowError and SystemError where
its C code meets a number that is none of Python's."""
BROKEN_HEADER = (ValueError, TypeError, SyntaxError, tokenize.TokenError)
"""What numpy raises for the header of an array that is damaged, or of Python objects."""
PARTIAL = ".partial"
"""How the name of a file ends that is not whole yet; a writer that is killed leaves it behind."""
COMPRESSION = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The methods that our files and numpy's have; of others the errors are not known."""
DIRECTORY_LIMIT = 2**20  # specs/archive.md, Limits


@contextmanager
def opened_zip(raw: io.RawIOBase | io.BytesIO) -> Iterator[zipfile.ZipFile]:
    """The zip file in a stream, which is closed with it. BadZipFile for a directory of more than the limit.

    zipfile makes an object of every entry, before anybody can count them, and takes memory for as many bytes as an
    entry says that it has: BadZipFile where they are more than the file's.
    """
    with _DirectoryFirst(raw) as file, zipfile.ZipFile(file) as archive:
        file.limit = None
        length = file.seek(0, os.SEEK_END)
        for entry in archive.infolist():
            if entry.compress_size > length:
                raise zipfile.BadZipFile(f"an entry of {entry.compress_size} bytes in a file of {length}")
        yield archive


class _DirectoryFirst(io.BufferedReader):
    """A file of which no more than the limit is read at once, until the zip directory is."""

    limit: int | None = DIRECTORY_LIMIT

    def read(self, size: int | None = -1, /) -> bytes:
        if self.limit is None:
            return super().read(size)
        whole = size is None or size < 0
        content = super().read(self.limit + 1 if whole else min(size or 0, self.limit + 1))
        if len(content) > self.limit:
            raise zipfile.BadZipFile(f"a directory of more than {self.limit} bytes")
        return content


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A binary file to write that becomes `path` when the block ends well: written beside, flushed to disk, renamed.

    What was written can be read again, as HDF5 does. When the block raises, nothing is left and an existing `path`
    stays as it was. A file that cannot be made is a DataError.
    """
    if path.exists() and not path.is_file():  # a device would be gone afterwards
        received, remedy = "a folder" if path.is_dir() else "a pipe or a device", "Give the name of a file."
        raise DataError(path, expected="a writable place", received=received, remedy=remedy)
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=PARTIAL, dir=path.parent)
    except OSError as error:
        remedy = "Choose a folder that exists and can be written."
        raise DataError(path, expected="a writable place", received=error.strerror, remedy=remedy) from error
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)  # mkstemp's own mode shuts everybody else out
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            remedy = "Free some space or choose another place."
            raise DataError(path, expected="a file written whole", received=error.strerror, remedy=remedy) from error
        raise


def _sync_folder(folder: Path) -> None:
    """The rename itself on disk; a no-op where folders cannot be opened (Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def making(path: Path) -> Iterator[Path]:
    """A path beside `path`, for a file or a folder that the block makes there; flushed to disk, then renamed to `path`.

    When the block raises, nothing is left. A folder that is there is not replaced: DataError, likewise what cannot be
    made.
    """
    if path.is_dir():
        remedy = "Give another name, or remove the folder."
        raise DataError(path, expected="a new path", received="a folder", remedy=remedy)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=PARTIAL, dir=path.parent) as temporary:
            made = Path(temporary) / path.name
            yield made
            for file in [made, *made.rglob("*")]:
                if file.is_file():
                    with file.open("rb+") as opened:
                        os.fsync(opened.fileno())
            os.replace(made, path)
        _sync_folder(path.parent)
    except OSError as error:
        remedy = "Choose a folder that exists and can be written, and free some space."
        raise DataError(path, expected="a writable place", received=error.strerror, remedy=remedy) from error


def write_text(path: Path, text: str) -> None:
    """UTF-8 text, whole or not at all. Names of files that are no UTF-8 keep their bytes."""
    with replacing(path) as file:
        file.write(text.encode(errors="surrogateescape"))


def make_folder(path: Path) -> Path:
    """The folder `path`, created if missing; DataError when it cannot be made or written."""
    check_folder(path)
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        for folder in made:
            _sync_folder(folder.parent)
    except OSError as error:
        remedy = "Choose another output folder."
        raise DataError(path, expected="a folder", received=error.strerror, remedy=remedy) from error
    return path


def check_folder(path: Path) -> None:
    """Refuse a folder that cannot be made or written, without making it: DataError."""
    there = next((folder for folder in (path, *path.parents) if folder.exists()), path)
    if there.exists() and not there.is_dir():
        received = "a file" if there == path else f"one inside the file {there}"
        remedy = "Choose another output folder."
        raise DataError(path, expected="a folder", received=received, remedy=remedy)
    if not os.access(there, os.W_OK):
        remedy = "Change its permissions or choose another output folder."
        raise DataError(path, expected="a writable folder", received="a read-only one", remedy=remedy)


def check_space(place: Path, needed: int) -> None:
    """DataError where the disk of a file or folder, which need not be there yet, has less than `needed` bytes free."""
    there = next((folder for folder in (place, *place.absolute().parents) if folder.exists()), place)
    try:
        free = shutil.disk_usage(there).free
    except OSError:  # a disk that does not say
        return
    if free < needed:
        expected, received = f"{_size(needed)} free on its disk", f"{_size(free)}"
        raise DataError(place, expected=expected, received=received, remedy="Free some space or choose another place.")


def _size(count: int) -> str:
    """Bytes in words: 1.25 GiB."""
    power = min(4, max(0, (max(count, 1).bit_length() - 1) // 10))
    return f"{count / 1024**power:.4g} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def check_other_files(source: Path, *targets: Path) -> None:
    """DataError where a target is the source, or another target: writing it would lose what is there."""
    for number, target in enumerate(targets):
        for other in (source, *targets[:number]):
            if target.samefile(other) if target.exists() and other.exists() else target == other:
                expected, remedy = f"another file than {other}", "Choose another name for the result."
                raise DataError(target, expected=expected, received="the same", remedy=remedy)


def remove_partial(folder: Path) -> None:
    """Remove what writers that were killed have left in the folder; nobody may be writing there."""
    for file in folder.glob(f".*{PARTIAL}"):
        file.unlink(missing_ok=True)


LARGEST_RATIO, LARGE_BYTES = 500, 2**28  # specs/data.md, NPZ: what is packed more tightly is refused from this size on
