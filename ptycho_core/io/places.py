"""Arrays that a user names: `FILE`, `FILE:DATASET` or a data set of the scan's own file."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import ConfigurationError, DataError
from ptycho_core.io.tables import read_table
from ptycho_core.scans.steps import Orient, Step
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.storage.files import BROKEN_HEADER
from ptycho_core.storage.hdf5 import HDF5File, is_hdf5, signature_of
from ptycho_core.storage.matlab5 import is_matlab5, mat_names, read_mat
from ptycho_core.storage.npz import MAGIC, npz_frames, npz_members, read_npz
from ptycho_core.storage.source import ArraySource, FrameSource
from ptycho_core.storage.stored import JoinedFrames, StoredFrames, as_frames
from ptycho_core.storage.tiff import TiffFrames, is_tiff


@attrs.frozen
class Place:
    """Where an array is: a file, and the data set in it or None where the file holds one array."""

    path: Path
    dataset: str | None

    def __str__(self) -> str:
        return str(self.path) if self.dataset is None else f"{self.path}: {self.dataset}"


def place_of(text: str, own: Path) -> Place:
    """What `text` names. own: the scan's file; a relative path is looked for here, then beside it."""
    file, separator, dataset = text.rpartition(":")
    if separator and (found := _found(file, own)):
        return Place(found, dataset or None)
    if found := _found(text, own):
        return Place(found, None)
    return Place(own, text)


def _found(name: str, own: Path) -> Path | None:
    try:
        return next((path for path in (Path(name), own.parent / name) if name and path.is_file()), None)
    except (OSError, ValueError):
        return None


def read_place(place: Place, option: str, *, kinds: str = "biuf", table: bool = False) -> NDArray[Any]:
    """The array as a whole. option: that named it, for messages; kinds: of its type; table: text is read, too."""
    path, dataset = place.path, place.dataset
    if is_hdf5(path):
        with HDF5File(path) as file:
            name = dataset or _only(path, option, [name for name, *_ in file.datasets()])
            return file.array(name, kinds=kinds, what=f"{option} as numbers")
    if signature_of(path).startswith(b"PK"):
        members = npz_members(path)
        name = dataset or _only(path, option, list(members))
        if name not in members:
            raise no_such(path, name, option, list(members))
        return _checked(path, name, read_npz(path, [name])[name], option, kinds)
    if is_matlab5(path):
        name = dataset or _only(path, option, list(mat_names(path)))
        return _checked(path, name, read_mat(path, name), option, kinds)
    if table and is_table(path):
        content = read_table(path, option)
        return content.pair(None) if dataset is None else content.column(dataset)
    if dataset is not None:
        raise no_such(path, dataset, option, [])
    if signature_of(path).startswith(MAGIC):
        return _checked(path, None, _read_npy(path), option, kinds)
    expected, received = f"{option} in an HDF5, NPZ or NPY file", "another kind of file"
    raise DataError(path, expected=expected, received=received, remedy="Convert it.")


def is_table(path: Path) -> bool:
    """Whether a file has the mark of no kind that holds arrays; its text is then read as a table."""
    return not (is_hdf5(path) or is_matlab5(path) or signature_of(path).startswith((b"PK", MAGIC)))


Raster = tuple[int, int]


def patterns_of(place: Place, follow: Path | None = None) -> tuple[FrameSource, tuple[Step, ...], Raster | None]:
    """The patterns (M, H, W), to be read when they are asked for, the steps that they need, and the shape of a raster.

    Patterns (rows, columns, H, W) are those of a raster, row after row. follow: folder to which links may lead.
    """
    path, dataset = place.path, place.dataset
    if is_hdf5(path):
        with HDF5File(path, follow) as file:
            name = dataset or _only(path, "dataset", [name for name, *_ in patterns_in(file)])
            if parts := _parts(file, name):
                return JoinedFrames([file.frames(part) for part in parts]), (), None
            source = file.frames(name, cube=True)
            shape = file.find(name).shape
            return source, (), (shape[0], shape[1]) if len(shape) == 4 else None
    if signature_of(path).startswith(b"PK"):
        members = npz_members(path)
        deep = [key for key, each in members.items() if len(each.shape) > 2 and each.dtype.kind in "biuf"]
        name = dataset or _only(path, "dataset", deep or list(members))
        if name not in members:
            raise no_such(path, name, "dataset", list(members))
        stored = members[name]
        cube = not stored.fortran_order
        member = attrs.evolve(stored, shape=as_frames(path, name, stored.shape, cube=cube))
        _real(path, name, member.dtype)
        source, turned = npz_frames(path, member)
        return source, (Orient(transpose=True),) if turned else (), _raster(stored.shape)
    if is_matlab5(path):
        shapes = mat_names(path)
        name = dataset or _only(path, "dataset", [n for n, shape in shapes.items() if len(shape) > 2])
        array = _frames_first(path, name, read_mat(path, name))
        raster = _raster(array.shape)
        return ArraySource(array.reshape(as_frames(path, dataset, array.shape, cube=True))), (), raster
    if is_tiff(path):
        return TiffFrames([path]), (), None
    shape, dtype, fortran_order, offset = npy_header(path)
    if fortran_order and len(shape) > 1:
        remedy = "Save it with numpy.ascontiguousarray."
        raise DataError(path, expected="frames in C order", received="Fortran order", remedy=remedy)
    _real(path, None, dtype)
    return StoredFrames(path, offset, as_frames(path, None, shape, cube=True), dtype), (), _raster(shape)


def _frames_first(path: Path, name: str, array: NDArray[Any]) -> NDArray[Any]:
    """(M, H, W) or (rows, columns, H, W) of a MATLAB array, whose last axes count the patterns as a rule."""
    if array.ndim == 3 and array.shape[0] == array.shape[1] != array.shape[2]:
        return np.ascontiguousarray(np.moveaxis(array, -1, 0))
    if array.ndim == 4 and array.shape[0] == array.shape[1]:
        if array.shape[2] == array.shape[3]:
            expected = "a raster that is not square, or patterns (M, H, W)"
            remedy = "Save it as (M, H, W), one (H, W) pattern a position: either pair of axes may count the positions."
            raise DataError(path, name, expected=expected, received=f"shape {array.shape}", remedy=remedy)
        return np.ascontiguousarray(np.moveaxis(array, (2, 3), (0, 1)))
    return array


def _raster(shape: tuple[int, ...]) -> Raster | None:
    return (shape[0], shape[1]) if len(shape) == 4 else None


def patterns_in(file: HDF5File) -> list[tuple[str, tuple[int, ...] | None, str]]:
    """The data sets that may be patterns, those of three axes or more."""
    return [each for each in file.datasets() if each[1] is not None and len(each[1]) > 2]


def _parts(file: HDF5File, name: str) -> list[str]:
    """The data sets of patterns in the group `name`, by their numbers: a detector's series; none for a data set."""
    if file.is_dataset(name):
        return []
    keys = sorted(file.keys(name), key=by_number)
    return [part for part in (f"{name.rstrip('/')}/{key}" for key in keys) if _is_patterns(file, part)]


def _is_patterns(file: HDF5File, name: str) -> bool:
    return file.is_dataset(name) and len(file.find(name).shape or ()) == 3


def by_number(name: str) -> list[Any]:
    """Key to sort names by, numbers in them as numbers: data_2 before data_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def series_of(text: str, own: Path) -> tuple[list[Path], str | None] | None:
    """The files and the data set of `raw/*.h5:/entry/data`, by their numbers; None where it is no such series.

    `raw/*.tif` names files that hold nothing else.
    """
    pattern, separator, dataset = text.rpartition(":")
    pattern = pattern if separator else text
    if not any(mark in pattern for mark in "*?["):
        return None
    found = glob.glob(pattern) or glob.glob(str(own.parent / pattern))
    files = sorted((Path(name) for name in found if Path(name).is_file()), key=lambda path: by_number(path.name))
    if not files:
        expected, remedy = "files of this name", "Correct the pattern."
        raise DataError(own, text, expected=expected, received="none", remedy=remedy, state=("dataset",))
    return files, dataset if separator else None


def no_such(path: Path, name: str, option: str, names: list[str]) -> DataError:
    listed = f"The file holds: {', '.join(names[:20])}." if names else "Name a file, FILE:DATASET, or a data set."
    expected, remedy = f"{option} under this name", f"{listed} State it."
    return DataError(path, name, expected=expected, received="nothing", remedy=remedy, state=(option,))


def _only(path: Path, option: str, names: list[str]) -> str:
    """The one data set of a file where none is named."""
    if len(names) == 1:
        return names[0]
    expected, received = f"one data set for {option}", ", ".join(names[:20]) or "none"
    raise DataError(path, expected=expected, received=received, remedy="Name one, as FILE:DATASET.", state=(option,))


def _checked(path: Path, key: str | None, array: NDArray[Any], option: str, kinds: str) -> NDArray[Any]:
    if array.dtype.kind not in kinds:
        received = f"dtype {array.dtype}"
        raise DataError(path, key, expected=f"{option} as numbers", received=received, remedy="Convert it.")
    return array.astype(array.dtype.newbyteorder("="))


def _real(path: Path, key: str | None, dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "biuf":
        received, remedy = f"dtype {dtype}", "Name the data set of the patterns."
        raise DataError(path, key, expected="real numbers", received=received, remedy=remedy)


def npy_header(path: Path) -> tuple[tuple[int, ...], np.dtype[Any], bool, int]:
    """Shape, type, order and place of the numbers of an NPY file; no object array (pickle) is let through."""
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            readers: dict[tuple[int, int], Callable[..., Any]] = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }
            if version not in readers:
                raise ValueError(f"an array of format {version}")
            shape, fortran_order, dtype = readers[version](file)
            if dtype.hasobject:
                raise ValueError("Object arrays cannot be loaded")
            if not all(type(length) is int and length >= 0 for length in shape):
                raise ValueError(f"shape {shape}")
            return shape, dtype, fortran_order, file.tell()
    except (OSError, EOFError, MemoryError, *BROKEN_HEADER) as error:
        remedy = "Save plain numbers with numpy.save; it may be damaged."
        raise DataError(path, expected="a readable NPY file", received=error, remedy=remedy) from error


def _read_npy(path: Path) -> NDArray[Any]:
    shape, dtype, fortran_order, offset = npy_header(path)
    count = int(np.prod(shape, dtype=object))
    if path.stat().st_size < offset + count * dtype.itemsize or count * dtype.itemsize > 2**28:
        received, remedy = f"{dtype} of shape {shape}", "It is truncated, or not the array that is meant."
        expected = "a whole NPY file of at most 256 MiB"
        raise DataError(path, expected=expected, received=received, remedy=remedy)
    array = np.fromfile(path, dtype, count, offset=offset)
    return array.reshape(shape, order="F" if fortran_order else "C")


def stated_positions(path: Path, options: ReadOptions, count: int) -> NDArray[np.float64]:
    """(M, 2) [x, y] of the positions that `options.positions` names, in their own unit."""
    text = options.positions
    assert text is not None
    names = text.split(",")
    if len(names) == 2 and all(names):
        first = place_of(names[0].strip(), path)
        second_text = names[1].strip()
        second = (
            Place(first.path, second_text) if ":" in names[0] and ":" not in names[1] else place_of(second_text, path)
        )
        places = (first, second)
        columns = [_flat(path, str(place), read_place(place, "positions", table=True)) for place in places]
        if len(columns[0]) != len(columns[1]):
            received, remedy = f"{len(columns[0])} and {len(columns[1])}", "Name two that belong together."
            raise DataError(path, text, expected="equal lengths", received=received, remedy=remedy)
        positions = np.stack(columns, axis=1)
    else:
        place = place_of(text, path)
        if place.dataset is None and is_table(place.path):
            values: NDArray[Any] = read_table(place.path, "positions").pair(options.position_order)
        else:
            values = read_place(place, "positions", table=True)
        positions = _pairs(path, str(place), values, count)
    return positions[:, ::-1] if options.position_order == "yx" else positions


def _flat(path: Path, name: str, values: NDArray[Any]) -> NDArray[np.float64]:
    flat = np.squeeze(values)
    if flat.ndim > 1:
        received, remedy = f"shape {values.shape}", "Name a data set of one coordinate for each frame."
        raise DataError(path, name, expected="(M,) numbers", received=received, remedy=remedy)
    return np.atleast_1d(flat).astype(np.float64)


def _pairs(path: Path, name: str, values: NDArray[Any], count: int) -> NDArray[np.float64]:
    """(M, 2) of an array (1, …, M, 2 or 3) or (2 or 3, M); a third coordinate is along the beam."""
    pairs = values
    while pairs.ndim > 2 and len(pairs) == 1:
        pairs = pairs[0]
    if pairs.ndim == 3 and pairs.shape[2] in (2, 3) and pairs.shape[0] * pairs.shape[1] == count:  # of a raster
        pairs = pairs.reshape(count, -1)
    if pairs.ndim == 2 and pairs.shape[0] in (2, 3) and pairs.shape[1] == count != pairs.shape[0]:
        pairs = pairs.T
    if pairs.ndim != 2 or pairs.shape[1] not in (2, 3):
        remedy = "Name two columns, as X,Y, or another data set."
        expected, received = f"({count}, 2) numbers", f"shape {values.shape}"
        raise DataError(path, name, expected=expected, received=received, remedy=remedy, state=("positions",))
    return pairs[:, :2].astype(np.float64)


def check_for_several_scans(options: ReadOptions, one: Path) -> None:
    """Refuse what can hold for the scan in `one` only, where several are read. Raises ConfigurationError."""
    remedy = "Convert each scan by itself (ptycho convert), and use the files that are written."
    expected = "left out where several scans are read"
    if options.companion is not None:
        raise ConfigurationError(
            "ReadOptions", "companion", expected=expected, received=options.companion, remedy=remedy
        )
    if options.positions is not None and place_of(options.positions, one).path != one:
        raise ConfigurationError(
            "ReadOptions", "positions", expected=expected, received=options.positions, remedy=remedy
        )
