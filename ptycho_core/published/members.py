"""The members of a zip file of unknown origin, read into memory within limits. Nothing is unpacked onto the disk."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

from ptycho_core.errors import ArchiveError, PtychoError
from ptycho_core.models.container import RATIO_LIMIT, SMALL, TEXT_LIMIT, shown
from ptycho_core.storage.files import COMPRESSION, UNREADABLE, opened_zip

COUNT_LIMIT = 4096
"""Members of one file; the published ones have at most some hundred."""
SIZE_LIMIT = 2**30
"""Bytes of one file, and of one member once unpacked."""
UNPACKED_LIMIT = 2**28
"""Bytes of all members that are read of one file, where that is more than twice its size."""
ANOTHER_SOURCE = "Get the file from a source you trust, or write it again."


class Members:
    """The members of a zip file by name. `source`: what messages call it, such as "wts.h5.zip: model.keras"."""

    def __init__(self, archive: zipfile.ZipFile, source: str, size: int) -> None:
        """size: bytes of the file, which weights, once unpacked, exceed by little."""
        self.source = source
        self._most = self._left = max(UNPACKED_LIMIT, 2 * size)
        self.names = archive.namelist()
        self._archive = archive
        if len(self.names) > COUNT_LIMIT:
            raise ArchiveError(
                source, expected=f"at most {COUNT_LIMIT} members", received=len(self.names), remedy=ANOTHER_SOURCE
            )
        for name in self.names:
            parts = PurePosixPath(name.replace("\\", "/")).parts
            if ".." in parts or name.startswith(("/", "\\")) or ":" in name:
                expected = "names of members inside the archive"
                raise ArchiveError(
                    source, expected=expected, received=f"{shown(name)!r}, which leads out of it", remedy=ANOTHER_SOURCE
                )
        if len(set(self.names)) != len(self.names):
            raise ArchiveError(
                source, expected="every member once", received="one of them twice", remedy=ANOTHER_SOURCE
            )

    def read(self, name: str) -> bytes:
        """A member within the limits; ArchiveError where it is not there or too large."""
        if name not in self.names:
            received = ", ".join(shown(other, 60) for other in self.names[:8]) or "none"
            remedy = "It is not an archive of the published implementation, or not a whole one: copy it again."
            raise ArchiveError(self.source, expected=f"a member {name}", received=received, remedy=remedy)
        info = self._archive.getinfo(name)
        if info.file_size > SIZE_LIMIT:
            expected = f"at most {SIZE_LIMIT} bytes"
            raise ArchiveError(self.source, name, expected=expected, received=info.file_size, remedy=ANOTHER_SOURCE)
        if info.file_size > max(SMALL, RATIO_LIMIT * info.compress_size):
            expected = f"at most {RATIO_LIMIT} times its packed size"
            received = f"{info.file_size} bytes from {info.compress_size}"
            remedy = f"This may be a decompression bomb. {ANOTHER_SOURCE}"
            raise ArchiveError(self.source, name, expected=expected, received=received, remedy=remedy)
        if info.compress_type not in COMPRESSION:
            received = f"method {info.compress_type}"
            expected, remedy = "a stored or deflated member", "Copy or write it again."
            raise ArchiveError(self.source, name, expected=expected, received=received, remedy=remedy)
        self._left -= info.file_size
        if self._left < 0:
            expected = f"at most {self._most} bytes of all members that are needed"
            remedy = f"This may be a decompression bomb. {ANOTHER_SOURCE}"
            raise ArchiveError(self.source, name, expected=expected, received="more", remedy=remedy)
        return self._archive.read(name)

    def read_json(self, name: str) -> Mapping[str, Any]:
        text = self.read(name)
        if len(text) > TEXT_LIMIT:
            raise ArchiveError(
                self.source, name, expected=f"at most {TEXT_LIMIT} bytes", received=len(text), remedy=ANOTHER_SOURCE
            )
        content = json.loads(text)
        if not isinstance(content, dict):
            received = f"a {type(content).__name__}"
            raise ArchiveError(self.source, name, expected="a JSON object", received=received, remedy="Copy it again.")
        return content


@contextmanager
def opened(file: str | os.PathLike[str] | bytes, source: str) -> Iterator[Members]:
    """The members of a file, or of a file that is the bytes given; whatever reading raises becomes an ArchiveError."""
    stream: io.RawIOBase | io.BytesIO | None = None
    try:
        stream = io.BytesIO(file) if isinstance(file, bytes) else open(file, "rb", buffering=0)  # noqa: SIM115 - closed below
        size = stream.seek(0, os.SEEK_END)
        if size > SIZE_LIMIT:
            raise ArchiveError(source, expected=f"at most {SIZE_LIMIT} bytes", received=size, remedy=ANOTHER_SOURCE)
        with opened_zip(stream) as archive:
            yield Members(archive, source, size)
    except PtychoError:
        raise
    except FileNotFoundError as error:
        raise ArchiveError(source, expected="an archive", received="no such file", remedy="Check the path.") from error
    except (*UNREADABLE, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        received = f"{type(error).__name__}: {shown(error)}"
        remedy = "It is truncated, damaged, or of another kind: copy it again."
        raise ArchiveError(
            source, expected="a readable archive of the published implementation", received=received, remedy=remedy
        ) from error
    finally:
        if stream is not None:
            stream.close()
