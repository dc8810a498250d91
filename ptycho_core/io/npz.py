"""The NPZ contract (specs/data.md, NPZ) and reconstructions. No pickle is ever read or written."""

from __future__ import annotations

import json
import logging
import math
import struct
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.contracts import Scan
from ptycho_core.errors import DataError, explain
from ptycho_core.frames import ArraySource, Frames, FrameSource, Orient, Step, in_memory
from ptycho_core.io.files import BROKEN_HEADER, COMPRESSION, UNREADABLE, opened_zip, replacing
from ptycho_core.io.sources import FramesLast, StoredFrames, UnpackedFrames, as_bytes, as_frames, native
from ptycho_core.reading import Measurement

log = logging.getLogger(__name__)

PATTERNS = ("diff3d", "diffraction")
METADATA = "_metadata"
AMPLITUDE_UNIT = "sqrt(counts)"
AXES = "frame, row, column"
KEYS = (
    "xcoords",
    "ycoords",
    "xcoords_start",
    "ycoords_start",
    "probeGuess",
    "objectGuess",
    "bad_pixels",
    "scan_index",
    METADATA,
)
MAGIC = np.lib.format.MAGIC_PREFIX
LARGEST_RATIO, LARGE_BYTES = 500, 2**28  # specs/data.md, NPZ: what is packed more tightly is refused from this size on


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


def npz_frames(path: Path, member: Member, *, frames_last: bool = False) -> tuple[FrameSource, tuple[Step, ...]]:
    """The patterns of a member (M, H, W) and the steps that they need to be so.

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
        return stored, (Orient(transpose=True),) if member.fortran_order else ()
    stream = FramesLast(stored, lengths, turned=member.fortran_order)
    return UnpackedFrames(stream, name=path, key=member.key), ()


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
            with path.open("rb") as file:
                if file.read(len(MAGIC)) == MAGIC:
                    received = "a single .npy array"
                    raise _unreadable(path, None, received, "Put the arrays of the contract into one .npz file.")
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
        raise _unreadable(path, key, error, "The file is truncated or damaged: write it again.") from error


def _unreadable(path: Path, key: str | None, received: object, remedy: str) -> DataError:
    return DataError(explain(path, key, expected="a readable NPZ file", received=received, remedy=remedy))


def load_npz_scan(path: Path, *, measurement: Measurement | None = None) -> Scan:
    """A scan from the NPZ contract; many patterns stay in the file until they are asked for.

    measurement: what `diff3d` holds. Unstated, integers are intensity (counts) and real numbers amplitude, unless
    `_metadata` says which. Raises DataError naming the file and the key.
    """
    members = npz_members(path)
    key = next((name for name in PATTERNS if name in members), PATTERNS[0])
    arrays = read_npz(path, KEYS)

    def take(key: str, what: str) -> NDArray[Any]:
        _require(path, members, key, what)
        return arrays[key]

    metadata = _metadata(path, arrays)
    x, y = take("xcoords", "(M,) column of each position"), take("ycoords", "(M,) row of each position")
    _require(path, members, key, "(M, N, N) diffraction patterns")
    frames, dose_known = _frames(path, members[key], metadata, len(np.atleast_1d(x)), measurement)
    nominal = None
    if "xcoords_start" in arrays and "ycoords_start" in arrays:
        nominal = _positions(path, arrays["xcoords_start"], arrays["ycoords_start"], suffix="_start")
    return Scan(
        diffraction_amplitude=in_memory(frames),
        positions_px=_positions(path, x, y),
        probe=take("probeGuess", "(N, N) or (modes, N, N) complex probe"),
        bad_pixels=arrays.get("bad_pixels"),
        object_field=arrays.get("objectGuess"),
        nominal_positions_px=nominal,
        scan_index=arrays.get("scan_index"),
        dose_known=dose_known or metadata.get("amplitude_unit") == AMPLITUDE_UNIT,
        source=str(path),
        metadata=metadata,
    )


def _require(path: Path, members: Collection[str], key: str, what: str) -> None:
    if key not in members:
        remedy = f"The file holds: {', '.join(sorted(members)) or 'nothing'}. "
        remedy += "Name the parts of another file: --dataset, --positions, --probe."
        raise DataError(explain(path, key, expected=what, received="no such key", remedy=remedy))


def save_npz_scan(path: Path, scan: Scan) -> None:
    """The scan in the NPZ contract: amplitudes under `diff3d`, `_metadata` as JSON text. Whole or not at all."""
    assert scan.nominal_positions_px is not None and scan.bad_pixels is not None and scan.scan_index is not None
    metadata = {**scan.metadata, "measurement": "amplitude", "axes": AXES}
    metadata.pop("amplitude_unit", None)
    if scan.dose_known:
        metadata["amplitude_unit"] = AMPLITUDE_UNIT
    try:
        text = json.dumps(metadata)
    except (TypeError, ValueError) as error:
        remedy = "Keep plain numbers, text, lists and mappings in a scan's metadata."
        raise DataError(explain(path, METADATA, expected="JSON", received=error, remedy=remedy)) from error
    arrays = {
        "diff3d": scan.diffraction_amplitude,
        "xcoords": scan.positions_px[:, 0],
        "ycoords": scan.positions_px[:, 1],
        "xcoords_start": scan.nominal_positions_px[:, 0],
        "ycoords_start": scan.nominal_positions_px[:, 1],
        "probeGuess": scan.probe[0] if len(scan.probe) == 1 else scan.probe,
        "bad_pixels": scan.bad_pixels,
        "scan_index": scan.scan_index,
        METADATA: np.array(text),
    }
    if scan.object_field is not None:
        arrays["objectGuess"] = scan.object_field
    write_npz(path, arrays)


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any] | Frames]) -> None:
    """Arrays as stored (uncompressed) members, so that they can be read in place. Whole or not at all."""
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for key, array in arrays.items():
            with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                if isinstance(array, Frames):
                    header = {"descr": "<f4", "fortran_order": False, "shape": array.shape}
                    np.lib.format.write_array_header_1_0(member, header)
                    for block in array.blocks():
                        member.write(np.ascontiguousarray(block, "<f4").data)
                else:
                    np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)  # never a pickle


def _metadata(path: Path, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    if METADATA not in arrays:
        return {}
    try:
        metadata = json.loads(str(arrays[METADATA]))
    except (ValueError, RecursionError) as error:
        remedy = "Drop the key: it is optional."
        raise DataError(explain(path, METADATA, expected="JSON text", received=error, remedy=remedy)) from error
    if not isinstance(metadata, dict) or metadata.get("measurement") not in (None, "amplitude", "intensity"):
        expected = "a JSON object; its measurement, if any, amplitude or intensity"
        raise DataError(explain(path, METADATA, expected=expected, received=metadata, remedy="Mend or drop the key."))
    return metadata


def _frames(
    path: Path, member: Member, metadata: Mapping[str, Any], count: int, measurement: Measurement | None
) -> tuple[Frames, bool]:
    """The patterns as amplitudes, and whether their squares are known to be counts."""
    key, dtype = member.key, member.dtype
    if dtype.kind not in "biuf":
        raise DataError(explain(path, key, expected="real numbers", received=f"dtype {dtype}", remedy="Convert it."))
    older = metadata.get("axes") != AXES and _frames_last(path, key, member.shape, count)
    source, steps = npz_frames(path, member, frames_last=older)
    measurement = _measurement(path, key, source, measurement or metadata.get("measurement"))
    frames = Frames(source, measurement=measurement, steps=steps, name=path, key=key)
    return frames, measurement == "intensity"


def _measurement(path: Path, key: str, source: FrameSource, stated: Measurement | None) -> Measurement:
    """What the patterns hold: what is stated, or what their type says."""
    if stated is not None:
        return stated
    dtype = source.dtype
    measurement: Measurement = "amplitude" if dtype.kind == "f" else "intensity"
    log.info("%s: %s: read as %s, because the type is %s", path, key, measurement, dtype)
    first = next(source.blocks(1), np.ones(0))
    if measurement == "amplitude" and np.array_equal(first, np.round(first)):
        log.warning("%s: %s: all whole numbers: if they are counts, say so (--measurement intensity)", path, key)
    return measurement


def _amplitude(
    path: Path, key: str, patterns: NDArray[Any], measurement: Measurement | None
) -> tuple[NDArray[Any], bool]:
    """Amplitudes of patterns in memory, of any shape, and whether their squares are known to be counts."""
    if patterns.ndim != 3:
        return patterns, False  # the scan's own check says what is wrong
    frames = Frames(ArraySource(patterns), name=path, key=key)
    frames.measurement = _measurement(path, key, frames.source, measurement)
    return np.asarray(frames), frames.measurement == "intensity"


def _frames_last(path: Path, key: str, shape: tuple[int, ...], count: int) -> bool:
    """Whether it is the older (N, N, M): only where that is the one possible reading."""
    if len(shape) != 3:
        return False
    first, middle, last = shape
    older = first == middle and last == count
    newer = middle == last and first == count
    if older and newer and first > 1:
        expected = "a number of patterns that differs from their size"
        remedy = (
            f"{count} patterns of {first} x {first} can be read as (M, N, N) and as (N, N, M): "
            f"drop a frame, or say in {METADATA} that the axes are {AXES!r}."
        )
        raise DataError(explain(path, key, expected=expected, received=f"shape {shape}", remedy=remedy))
    return older and not newer


def _positions(path: Path, x: NDArray[Any], y: NDArray[Any], suffix: str = "") -> NDArray[np.float64]:
    keys = f"xcoords{suffix}", f"ycoords{suffix}"
    for key, coordinates in zip(keys, (x, y), strict=True):
        if coordinates.ndim != 1 or coordinates.dtype.kind not in "iuf":
            received = f"{coordinates.dtype} of shape {coordinates.shape}"
            remedy = "Save one column and one row coordinate for each pattern."
            raise DataError(explain(path, key, expected="(M,) real numbers", received=received, remedy=remedy))
    if len(x) != len(y):
        remedy = "Save one column and one row coordinate for each pattern."
        received = f"{len(x)} and {len(y)}"
        raise DataError(explain(path, ", ".join(keys), expected="equal lengths", received=received, remedy=remedy))
    return np.stack([x, y], axis=-1).astype(np.float64)
