"""HDF5 files of others: links, types, shapes and sizes are looked at before anything is read (specs/data.md, HDF5)."""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.storage.files import DAMAGED_HDF5 as DAMAGED
from ptycho_core.storage.files import LARGE_BYTES, LARGEST_RATIO
from ptycho_core.storage.hdf5_frames import hdf5_frames
from ptycho_core.storage.hdf5_guards import FILE_SIGNATURE as SIGNATURE
from ptycho_core.storage.hdf5_guards import bursting_chunk, can_be_searched, file_is_sound, packings
from ptycho_core.storage.hdf5_opening import opened, remedy_of
from ptycho_core.storage.source import FrameSource
from ptycho_core.storage.units import factor_to

log = logging.getLogger(__name__)

WHOLE_BYTES = 2**28
"""An array that is not patterns is read whole, up to this size."""
CHUNK_BYTES = 2**28
MOST_LINKS = 16
_ONE = ((), (1,))
LISTED = 400

T = TypeVar("T")


def is_hdf5(path: Path) -> bool:
    """Whether the signature is at one of the places where the format allows it: 0, 512, 1024, 2048, …"""
    try:
        if not path.is_file():
            return False
        size, place = path.stat().st_size, 0
        with path.open("rb") as file:
            while place < size:
                file.seek(place)
                if file.read(len(SIGNATURE)) == SIGNATURE:
                    return True
                place = max(512, 2 * place)
    except OSError:
        pass
    return False


def has_datasets(path: Path, *names: str) -> bool:
    """Whether it is an HDF5 file with all these data sets; False for what cannot be read."""
    if not is_hdf5(path):
        return False
    try:
        with HDF5File(path) as file:
            return all(map(file.is_dataset, names))
    except DataError:
        return False


class HDF5File:
    """An open HDF5 file whose data sets are found by name.

    Soft links are followed inside the file, external links and virtual data sets to files in the same folder, or in the
    folder `follow`, only; all of them at most `MOST_LINKS` times. Everything that cannot be read is a DataError.
    """

    def __init__(self, path: Path, follow: Path | None = None) -> None:
        self.path, self.follow = path, follow
        self._files: dict[Path, Any] = {}
        self._open(path)

    def __enter__(self) -> HDF5File:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            with self.reading(None):
                file.close()

    # -- what there is ---------------------------------------------------------------------------------------------

    def __contains__(self, name: str) -> bool:
        return self.find(name) is not None

    def find(self, name: str) -> Any:
        """The data set or group of that name, or None."""
        with self.reading(name):
            return self._walk(self.path, name, MOST_LINKS)[1]

    def first(self, *names: str) -> str | None:
        """The first of these that is a data set."""
        return next((name for name in names if self.is_dataset(name)), None)

    def is_dataset(self, name: str) -> bool:
        import h5py

        return isinstance(self.find(name), h5py.Dataset)

    def keys(self, name: str = "/") -> list[str]:
        """Names in a group; none where there is no such group."""
        import h5py

        group = self.find(name)
        with self.reading(name):
            return sorted(group) if isinstance(group, h5py.Group) else []

    def contents(self) -> list[str]:
        """The data sets, `/dp (516, 64, 64) uint16`, and links to other files, `/dp -> file.h5:/dp`, at most `LISTED`.

        What has the most axes comes first: patterns are among them.
        """
        found = sorted(self.datasets(), key=lambda each: -len(each[1] or ()))
        return [*self.links(), *(f"{name} {shape} {kind}" for name, shape, kind in found)][:LISTED]

    def links(self) -> list[str]:
        """`/dp -> file.h5:/dp` of every external link that hard links lead to, at most `LISTED`."""
        import h5py

        found: list[str] = []
        with self.reading(None):
            for group in self._groups():
                if len(found) >= LISTED:
                    break
                for key in group:
                    link = group.get(key, getlink=True)
                    if isinstance(link, h5py.ExternalLink):
                        found.append(f"{group.name.rstrip('/')}/{key} -> {link.filename}:{link.path}")
        return found

    def datasets(self) -> list[tuple[str, tuple[int, ...] | None, str]]:
        """(name, shape, type) of every data set that hard links lead to, at most `LISTED`."""
        import h5py

        found: list[tuple[str, tuple[int, ...] | None, str]] = []
        with self.reading(None):
            for group in self._groups():
                if len(found) >= LISTED:
                    break
                for key in _hard_links(group):
                    if isinstance(item := group[key], h5py.Dataset):
                        try:
                            kind = str(item.dtype)
                        except TypeError:
                            kind = "of an unknown type"
                        found.append((f"{group.name.rstrip('/')}/{key}", item.shape, kind))
        return found

    def _groups(self) -> Iterator[Any]:
        """The groups that hard links lead to, each once, those nearest the root first."""
        import h5py

        waiting, seen = [self._files[self.path]["/"]], set()
        while waiting:
            group = waiting.pop(0)
            place = h5py.h5g.get_objinfo(group.id, b".").objno  # H5Oget_info walks damaged trees without end
            if place not in seen:
                seen.add(place)
                yield group
                waiting += [group[key] for key in _hard_links(group) if isinstance(group[key], h5py.Group)]

    # -- what it holds ---------------------------------------------------------------------------------------------

    def array(self, name: str, *, kinds: str = "biuf", what: str = "numbers") -> NDArray[Any]:
        """A data set as a whole, in native byte order. kinds: of its type, "c" for complex numbers. DataError."""
        data = self._dataset(name, what)
        with self.reading(name):
            dtype = data.dtype
            if dtype.names == ("real", "imag") and "c" in kinds:  # as MATLAB stores them
                self._check_size(name, data)
                parts = data[()]
                return np.asarray(parts["real"] + 1j * parts["imag"])
            if dtype.kind not in kinds:
                remedy = "Store plain numbers under this name."
                raise DataError(self.path, name, expected=what, received=f"dtype {dtype}", remedy=remedy)
            self._check_size(name, data)
            return np.asarray(data[()], dtype.newbyteorder("="))

    def optional(self, name: str | None, read: Callable[[str], T]) -> T | None:
        """read(name) where there is such a data set."""
        return read(name) if name is not None and self.is_dataset(name) else None

    def number(self, *names: str, unit: str | None = None) -> float | None:
        """The first of these data sets that is there: one finite number, else a DataError.

        unit: "m" or "eV", in which it is returned, where its attribute `units` names another; DataError for an unknown
        one.
        """
        name = self.first(*names)
        if name is None:
            return None
        value = self._one(name, self.array(name, what="one number"))
        return value if unit is None else value * self.factor(name, unit)

    def factor(self, name: str, unit: str) -> float:
        """What the numbers of a data set are multiplied by to be in `unit`: 1 where it names none."""
        named = self.text(name, "units")
        if not named:
            return 1.0
        factor = factor_to(unit, named)
        if factor is None:
            remedy = "State the value as an option, in the unit of its name."
            raise DataError(
                self.path, f"{name}@units", expected=f"a unit of {unit}", received=repr(named[:40]), remedy=remedy
            )
        return factor

    def attribute(self, item: str, *names: str) -> float | None:
        """The first of these attributes that is there: one finite number, else a DataError."""
        import h5py

        owner = self.find(item)
        for name in names if owner is not None else ():
            key = f"{item}@{name}"
            with self.reading(key):
                if name in owner.attrs:
                    kind = owner.attrs.get_id(name)
                    if kind.get_type().get_class() not in (h5py.h5t.INTEGER, h5py.h5t.FLOAT) or kind.shape not in _ONE:
                        received = f"{kind.dtype} of shape {kind.shape}"
                        remedy = "State the value as an option."
                        raise DataError(self.path, key, expected="one finite number", received=received, remedy=remedy)
                    return self._one(key, np.asarray(owner.attrs[name]))
        return None

    def text(self, item: str, name: str | None = None) -> str:
        """A short text, of an attribute where `name` is given; empty where there is none that can be read safely."""
        import h5py

        with self.reading(item):
            owner = self.find(item)
            if name is None:
                place = owner.id if isinstance(owner, h5py.Dataset) else None
            else:
                place = owner.attrs.get_id(name) if owner is not None and name in owner.attrs else None
            if place is None or place.shape not in _ONE:
                return ""
            kind = place.get_type()
            if kind.get_class() != h5py.h5t.STRING:
                return ""
            if kind.is_variable_str() and not can_be_searched(Path(owner.file.filename)):
                log.debug("%s: %s: a text that is not read", self.path, item)
                return ""
            value = np.asarray(owner[()] if name is None else owner.attrs[name]).reshape(-1)[0]
            text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
            return text.strip()[:10_000]

    def frames(self, name: str, *, cube: bool = False) -> FrameSource:
        """The patterns (M, H, W) of a data set, to be read when they are asked for.

        cube: (rows, columns, H, W) is taken, too, row after row.
        """
        data = self._dataset(name, "(M, H, W) patterns")
        with self.reading(name):
            if data.dtype.kind not in "biuf":
                remedy = "Name the data set of the patterns."
                raise DataError(self.path, name, expected="real numbers", received=f"dtype {data.dtype}", remedy=remedy)
            self._check_storage(name, data)
            path, inside = Path(data.file.filename), data.name
        del data  # reopened with a cache that fits; HDF5 wants it closed first
        with self.reading(name):
            return hdf5_frames(path, inside, cube=cube)

    # -- how it is read --------------------------------------------------------------------------------------------

    @contextmanager
    def reading(self, key: str | None) -> Iterator[None]:
        """What goes wrong in the file, as a DataError that names it."""
        try:
            yield
        except DataError:
            raise
        except DAMAGED as error:
            expected, received = "a readable HDF5 file", str(error) or type(error).__name__
            remedy = remedy_of(self.path, received)
            raise DataError(self.path, key, expected=expected, received=received, remedy=remedy) from error

    def _one(self, key: str, value: NDArray[Any]) -> float:
        if value.size != 1 or value.dtype.kind not in "iuf" or not np.isfinite(value).all():
            received = f"{value.dtype} of shape {value.shape}" if value.size != 1 else repr(value.reshape(-1)[0])
            remedy = "Correct it, or state the value as an option."
            raise DataError(self.path, key, expected="one finite number", received=received, remedy=remedy)
        return float(value.reshape(-1)[0])

    def _dataset(self, name: str, what: str) -> Any:
        import h5py

        item = self.find(name)
        if not isinstance(item, h5py.Dataset):
            received = "no such data set" if item is None else "a group"
            listed = "; ".join(self.contents()[:12]) or "no data sets"
            raise DataError(self.path, name, expected=what, received=received, remedy=f"The file holds: {listed}.")
        with self.reading(name):
            if item.shape is None:
                raise DataError(
                    self.path, name, expected=what, received="an empty data set", remedy="Name another data set."
                )
        return item

    def _check_size(self, name: str, data: Any) -> None:
        size = math.prod(data.shape) * data.dtype.itemsize
        if size > WHOLE_BYTES:
            received = f"{size / 2**20:.0f} MiB of shape {data.shape}"
            expected = f"at most {WHOLE_BYTES // 2**20} MiB"
            raise DataError(self.path, name, expected=expected, received=received, remedy="Name another data set.")
        self._check_storage(name, data)

    def _check_storage(self, name: str, data: Any, links: int = MOST_LINKS) -> None:
        """That the data are in this file or beside it, in pieces that fit in memory, and no more than were stored."""
        size = math.prod(data.shape) * data.dtype.itemsize
        if data.external:
            remedy = "Copy the data set into the file (h5repack)."
            raise DataError(
                self.path, name, expected="data inside the file", received="external storage", remedy=remedy
            )
        if data.is_virtual:
            return self._check_virtual(data, links)
        if data.chunks is not None and math.prod(data.chunks) * data.dtype.itemsize > CHUNK_BYTES:
            received = f"chunks of shape {data.chunks}"
            expected = f"chunks of at most {CHUNK_BYTES // 2**20} MiB"
            raise DataError(self.path, name, expected=expected, received=received, remedy="Rechunk it (h5repack).")
        stored = data.id.get_storage_size()
        if size > max(LARGE_BYTES, LARGEST_RATIO * stored):
            received = f"{size} bytes in {stored}"
            remedy = "It was not filled, or is no measurement."
            raise DataError(self.path, name, expected="data that were written", received=received, remedy=remedy)
        self._check_filters(name, data)

    def _check_filters(self, name: str, data: Any) -> None:
        import h5py

        properties = data.id.get_create_plist()
        for number in range(properties.get_nfilters()):
            code, _, _, label = properties.get_filter(number)
            if not h5py.h5z.filter_avail(code):
                with suppress(ImportError):
                    importlib.import_module("hdf5plugin")  # registers the filters that it brings
            if not h5py.h5z.filter_avail(code):
                received = f"filter {code} ({label.decode(errors='replace')})"
                remedy = "Install the package hdf5plugin (extra hdf5), or repack the file with gzip (h5repack)."
                raise DataError(
                    self.path, name, expected="filters that are installed", received=received, remedy=remedy
                )
        if len(packings(data)) > 1:
            received = f"filters {', '.join(map(str, packings(data)))}"
            remedy = "Repack it with gzip alone (h5repack)."
            raise DataError(self.path, name, expected="data that are packed once", received=received, remedy=remedy)
        place = bursting_chunk(data)
        if place is not None:
            expected = f"chunks of {math.prod(data.chunks) * data.dtype.itemsize} bytes, that unpack to no more"
            remedy = "It is damaged, or a decompression bomb."
            raise DataError(self.path, name, expected=expected, received=f"a larger one at {place}", remedy=remedy)

    def _check_virtual(self, data: Any, links: int) -> None:
        """That all parts of a virtual data set are in this folder and not virtual without end."""
        import h5py

        here = Path(data.file.filename)
        if links == 0:
            remedy = "Copy the data set into one file (h5repack)."
            raise DataError(
                self.path, data.name, expected=f"at most {MOST_LINKS} links in a row", received="more", remedy=remedy
            )
        for name, inside in {(part.file_name, part.dset_name) for part in data.virtual_sources()}:
            if "%" in name or "%" in inside:
                remedy = "Copy the data set into one file (h5repack)."
                expected, received = "files that are named one by one", f"the pattern {name!r}"
                raise DataError(self.path, data.name, expected=expected, received=received, remedy=remedy)
            other = here if name == "." else self._beside(here, name, must_exist=False)
            full = Path(name)
            if full.is_absolute() and full.exists() and not _same(full, other):  # which HDF5 would read
                raise self._outside(here, name)
            if not other.is_file():
                continue  # reads as the fill value, as HDF5 has it
            _, source = self._walk(self._beside(here, name) if other != here else here, inside, links - 1)
            if isinstance(source, h5py.Dataset) and source.shape is not None:
                self._check_storage(inside, source, links - 1)

    def _walk(self, path: Path, name: str, links: int) -> tuple[Path, Any]:
        """Where a name leads, one link after the other: the file, and the item or None."""
        import h5py

        if links == 0:
            remedy = "Name a data set that does not lead back to itself."
            raise DataError(
                self.path, name, expected=f"at most {MOST_LINKS} links in a row", received="more", remedy=remedy
            )
        parts = [part for part in name.split("/") if part not in ("", ".")]
        item = self._open(path)["/"]
        for number, part in enumerate(parts):
            link = item.get(part, getlink=True) if isinstance(item, h5py.Group) else None
            rest = "/".join(parts[number + 1 :])
            if link is None:
                return path, None
            if isinstance(link, h5py.SoftLink):
                start = "" if link.path.startswith("/") else f"{item.name}/"
                return self._walk(path, f"{start}{link.path}/{rest}", links - 1)
            if isinstance(link, h5py.ExternalLink):
                return self._walk(self._beside(path, link.filename), f"{link.path}/{rest}", links - 1)
            item = item[part]
        return path, item

    def has_file(self, name: str) -> bool:
        """Whether the file that a link leads to is there; that of all else is this one."""
        import h5py

        link = self._files[self.path].get(name, getlink=True)
        if not isinstance(link, h5py.ExternalLink):
            return True
        return self._beside(self.path, link.filename, must_exist=False).is_file()

    def _beside(self, path: Path, name: str, *, must_exist: bool = True) -> Path:
        """The file of a link: only one in the same folder. A full path stands for the file of that name beside."""
        plain = name.replace("\\", "/")
        if self.follow is not None:
            linked = (path.parent / plain).resolve()
            if linked.is_relative_to(self.follow.resolve()) and (linked.is_file() or not must_exist):
                return linked
        other = path.parent / (plain.rsplit("/", 1)[-1] if plain.startswith("/") or plain[1:2] == ":" else plain)
        if ".." in Path(plain).parts or other.is_dir():
            raise self._outside(path, name)
        if must_exist and not is_hdf5(other):
            received = f"a link to {name!r}, which is not there or no HDF5 file"
            expected = "the files that it links to beside it"
            raise DataError(self.path, expected=expected, received=received, remedy="Copy them to one folder.")
        return other

    def _outside(self, path: Path, name: str) -> DataError:
        folder = (path.parent / name.replace("\\", "/")).resolve().parent
        expected, received = "links to files in its own folder", f"a link to {name!r}"
        remedy = "Say that files of that folder may be read"
        state = (f"follow_links={folder}",)
        return DataError(self.path, expected=expected, received=received, remedy=remedy, state=state)

    def _open(self, path: Path) -> Any:

        if path not in self._files:
            with self.reading(None):
                if can_be_searched(path) and not file_is_sound(path):
                    remedy = "It is damaged: copy it again."
                    received = "a damaged one"
                    raise DataError(path, expected="whole heaps and trees", received=received, remedy=remedy)
                self._files[path] = opened(path)
        return self._files[path]


def _hard_links(group: Any) -> list[str]:
    import h5py

    return [key for key in group if isinstance(group.get(key, getlink=True), h5py.HardLink)]


def _same(first: Path, second: Path) -> bool:
    return second.exists() and first.samefile(second)


def signature_of(path: Path) -> bytes:
    """The first bytes of a file; empty where it cannot be read, or is a pipe, which nobody may ever write to."""
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(8)
    except OSError:
        return b""
