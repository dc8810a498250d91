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
ANOTHER_SOURCE = "Get it from a source that you trust, or write it again."


def refusal(source: str, member: str | None, expected: object, received: object, remedy: str) -> ArchiveError:
    return ArchiveError(source, member, expected=expected, received=received, remedy=remedy)


class Members:
    """The members of a zip file by name. `source`: what messages call it, such as "wts.h5.zip: model.keras"."""

    def __init__(self, archive: zipfile.ZipFile, source: str, size: int) -> None:
        """size: bytes of the file, which weights, once unpacked, exceed by little."""
        self.source = source
        self._most = self._left = max(UNPACKED_LIMIT, 2 * size)
        self.names = archive.namelist()
        self._archive = archive
        if len(self.names) > COUNT_LIMIT:
            raise refusal(source, None, f"at most {COUNT_LIMIT} members", len(self.names), ANOTHER_SOURCE)
        for name in self.names:
            parts = PurePosixPath(name.replace("\\", "/")).parts
            if ".." in parts or name.startswith(("/", "\\")) or ":" in name:
                expected = "names of members inside the archive"
                raise refusal(source, None, expected, f"{shown(name)!r}, which leads out of it", ANOTHER_SOURCE)
        if len(set(self.names)) != len(self.names):
            raise refusal(source, None, "every member once", "one of them twice", ANOTHER_SOURCE)

    def read(self, name: str) -> bytes:
        """A member within the limits; ArchiveError where it is not there or too large."""
        if name not in self.names:
            received = ", ".join(shown(other, 60) for other in self.names[:8]) or "none"
            remedy = "It is not an archive of the published implementation, or not a whole one: copy it again."
            raise refusal(self.source, None, f"a member {name}", received, remedy)
        info = self._archive.getinfo(name)
        if info.file_size > SIZE_LIMIT:
            raise refusal(self.source, name, f"at most {SIZE_LIMIT} bytes", info.file_size, ANOTHER_SOURCE)
        if info.file_size > max(SMALL, RATIO_LIMIT * info.compress_size):
            expected = f"at most {RATIO_LIMIT} times its packed size"
            received = f"{info.file_size} bytes from {info.compress_size}"
            remedy = f"It is made to fill the memory. {ANOTHER_SOURCE}"
            raise refusal(self.source, name, expected, received, remedy)
        if info.compress_type not in COMPRESSION:
            received = f"method {info.compress_type}"
            raise refusal(self.source, name, "a stored or deflated member", received, "Copy or write it again.")
        self._left -= info.file_size
        if self._left < 0:
            expected = f"at most {self._most} bytes of all members that are needed"
            remedy = f"It is made to fill the memory. {ANOTHER_SOURCE}"
            raise refusal(self.source, name, expected, "more", remedy)
        return self._archive.read(name)

    def read_json(self, name: str) -> Mapping[str, Any]:
        text = self.read(name)
        if len(text) > TEXT_LIMIT:
            raise refusal(self.source, name, f"at most {TEXT_LIMIT} bytes", len(text), ANOTHER_SOURCE)
        content = json.loads(text)
        if not isinstance(content, dict):
            raise refusal(self.source, name, "a JSON object", f"a {type(content).__name__}", "Copy it again.")
        return content


@contextmanager
def opened(file: str | os.PathLike[str] | bytes, source: str) -> Iterator[Members]:
    """The members of a file, or of a file that is the bytes given; whatever reading raises becomes an ArchiveError."""
    stream: io.RawIOBase | io.BytesIO | None = None
    try:
        stream = io.BytesIO(file) if isinstance(file, bytes) else open(file, "rb", buffering=0)  # noqa: SIM115 - closed below
        size = stream.seek(0, os.SEEK_END)
        if size > SIZE_LIMIT:
            raise refusal(source, None, f"at most {SIZE_LIMIT} bytes", size, ANOTHER_SOURCE)
        with opened_zip(stream) as archive:
            yield Members(archive, source, size)
    except PtychoError:
        raise
    except FileNotFoundError as error:
        raise refusal(source, None, "an archive", "no such file", "Check the path.") from error
    except (*UNREADABLE, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        received = f"{type(error).__name__}: {shown(error)}"
        remedy = "It is truncated, damaged, or of another kind: copy it again."
        raise refusal(source, None, "a readable archive of the published implementation", received, remedy) from error
    finally:
        if stream is not None:
            stream.close()
