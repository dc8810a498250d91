"""NPZ archives: their members read, mapped and written; knows no scan."""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.storage.files import (
    BROKEN_HEADER,
    COMPRESSION,
    LARGE_BYTES,
    LARGEST_RATIO,
    UNREADABLE,
    opened_zip,
    replacing,
)
from ptycho_core.storage.source import FrameSource
from ptycho_core.storage.stored import StoredFrames, as_bytes, as_frames, native
from ptycho_core.storage.unpacked import FramesLast, UnpackedFrames

MAGIC = np.lib.format.MAGIC_PREFIX


@attrs.frozen
class Member:
    """One array of an NPZ file as its headers describe it; `fortran_order` as `numpy.save` means it.

    start: where the member begins in the file; offset: where its numbers do; None where it is compressed.
    """

    key: str
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    header_bytes: int
    start: int | None
    crc: int


def npz_members(path: Path) -> dict[str, Member]:
    """The arrays of an NPZ file by key, none of them read. Object arrays (pickles) and zip bombs are refused."""
    members: dict[str, Member] = {}
    with _opened(path) as archive:
        bombs = [info for info in archive.infolist() if info.file_size > LARGEST_RATIO * max(1, info.compress_size)]
        if sum(info.file_size for info in bombs) > LARGE_BYTES:
            largest = max(bombs, key=lambda info: info.file_size)
            received = f"{largest.file_size} bytes in {largest.compress_size}"
            raise _unreadable(path, largest.filename.removesuffix(".npy"), received, "Write it with numpy.savez.")
        for info in archive.infolist():
            with _reading(path, key := info.filename.removesuffix(".npy")), archive.open(info) as stream:
                if stream.read(len(MAGIC)) == MAGIC:  # anything else is no array
                    stream.seek(0)
                    members[key] = _member(path, key, info, stream)
    return members


def read_npz(path: Path, keys: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
    """The arrays of an NPZ file by key: all, or those of `keys` that are there. Refuses as `npz_members` does."""
    arrays: dict[str, NDArray[Any]] = {}
    members = npz_members(path)
    with _opened(path) as archive:
        for key, member in members.items():
            if keys is None or key in keys:
                with _reading(path, key), archive.open(member.name) as stream:
                    arrays[key] = np.lib.format.read_array(stream, allow_pickle=False)
                    stream.read(1)  # verifies the check sum, which is done at the end of a member
    return arrays


def npz_frames(path: Path, member: Member, *, frames_last: bool = False) -> tuple[FrameSource, bool]:
    """The patterns of a member (M, H, W), and whether rows and columns of each are exchanged as they are read.

    frames_last: it is the older (H, W, M). Read in place where the file holds pattern after pattern, else unpacked
    once. Raises DataError for other shapes.
    """
    three = as_frames(path, member.key, member.shape)
    lengths = three[::-1] if member.fortran_order else three  # in the order of the file
    stored: StoredFrames | UnpackedFrames
    if member.start is None:
        stored = UnpackedFrames(_Packed(path, member, lengths), name=path, key=member.key)
    else:
        stored = StoredFrames(
            path,
            member.start + member.header_bytes,
            lengths,
            member.dtype,
            key=member.key,
            crc=member.crc,
            crc_start=member.start,
        )
    if frames_last == member.fortran_order:
        return stored, member.fortran_order
    stream = FramesLast(stored, lengths, turned=member.fortran_order)
    return UnpackedFrames(stream, name=path, key=member.key), False


@attrs.frozen(eq=False)
class _Packed:
    """The numbers of a compressed member in the order of the file, as patterns of `shape`."""

    path: Path
    member: Member
    shape: tuple[int, int, int]

    @property
    def dtype(self) -> np.dtype[Any]:
        return native(self.member.dtype)

    def blocks(self, count: int) -> Iterator[NDArray[Any]]:
        with (
            _reading(self.path, self.member.key),
            zipfile.ZipFile(self.path) as archive,
            archive.open(self.member.name) as stream,
        ):
            stream.read(self.member.header_bytes)
            for start in range(0, self.shape[0], count):
                frames = np.empty((min(count, self.shape[0] - start), *self.shape[1:]), self.member.dtype)
                view = as_bytes(frames)
                while len(view):
                    if not (received := stream.read(len(view))):
                        raise EOFError("it ends early")
                    view[: len(received)] = received
                    view = view[len(received) :]
                yield frames.astype(self.dtype, copy=False)
            stream.read(1)  # verifies the check sum

    def close(self) -> None:
        pass


def _member(path: Path, key: str, info: zipfile.ZipInfo, stream: IO[bytes]) -> Member:
    """From the header of an array at the beginning of its stream."""
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"an array of format {version}")
    shape, fortran_order, dtype = readers[version](stream)
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded")
    header_bytes = stream.tell()
    if info.file_size != header_bytes + math.prod(shape) * dtype.itemsize or min(shape, default=0) < 0:
        raise EOFError(f"{info.file_size} bytes for {dtype} of shape {shape}")
    start = None
    if info.compress_type == zipfile.ZIP_STORED:
        with path.open("rb") as file:
            file.seek(info.header_offset)
            *_, name_length, extra_length = struct.unpack("<4s5H3L2H", file.read(30))
        start = info.header_offset + 30 + name_length + extra_length
    return Member(
        key=key,
        name=info.filename,
        shape=shape,
        dtype=dtype,
        fortran_order=fortran_order and len(shape) > 1,
        header_bytes=header_bytes,
        start=start,
        crc=info.CRC,
    )


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    with ExitStack() as stack:
        try:
            if path.exists() and not path.is_file():
                received = "a folder" if path.is_dir() else "a pipe or a device"
                raise _unreadable(path, None, received, "Give a file.")
            with path.open("rb") as file:
                if file.read(len(MAGIC)) == MAGIC:
                    received = "a single .npy array"
                    raise _unreadable(
                        path,
                        None,
                        received,
                        "Name what belongs to it (positions, or the step of a raster, and the probe), "
                        "or put all into one .npz file.",
                    )
            archive = stack.enter_context(opened_zip(path.open("rb", buffering=0)))
        except FileNotFoundError as error:
            raise _unreadable(path, None, "no such file", "Check the path.") from error
        except DataError:
            raise
        except UNREADABLE as error:
            raise _unreadable(path, None, error, "Write it with numpy.savez; it may be truncated.") from error
        methods = {info.compress_type for info in archive.infolist()}
        if not methods <= set(COMPRESSION):
            received = f"compression of kind {max(methods)}"
            raise _unreadable(path, None, received, "Write it with numpy.savez; it may be damaged.")
        yield archive


@contextmanager
def _reading(path: Path, key: str) -> Iterator[None]:
    """What goes wrong in a member, as a DataError that names it."""
    try:
        yield
    except DataError:
        raise
    except BROKEN_HEADER as error:
        raise _unreadable(path, key, error, "Save plain number arrays, no objects.") from error
    except (*UNREADABLE, MemoryError) as error:
        raise _unreadable(path, key, error, "The file is truncated or damaged: copy it again.") from error


def _unreadable(path: Path, key: str | None, received: object, remedy: str) -> DataError:
    return DataError(path, key, expected="a readable NPZ file", received=received, remedy=remedy)


class Blocks(Protocol):
    """Patterns (M, N, N) that come in pieces, to be written in their dtype; `Frames` is one."""

    @property
    def shape(self) -> tuple[int, int, int]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def blocks(self) -> Iterator[NDArray[Any]]: ...


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any] | Blocks]) -> None:
    """Arrays as stored (uncompressed) members, so that they can be read in place. Whole or not at all."""
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for key, array in arrays.items():
            with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                if hasattr(array, "blocks"):
                    dtype = np.dtype(array.dtype).newbyteorder("<")
                    header = {"descr": dtype.str, "fortran_order": False, "shape": array.shape}
                    np.lib.format.write_array_header_1_0(member, header)
                    for block in array.blocks():
                        member.write(np.ascontiguousarray(block, dtype).data)
                else:
                    np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)  # never a pickle
