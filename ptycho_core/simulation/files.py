"""Objects and probes that come from files: complex arrays and greyscale images. Nothing is ever unpickled."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from ptycho_core.errors import ConfigurationError, DataError
from ptycho_core.registry import closest
from ptycho_core.storage.files import BROKEN_HEADER, UNREADABLE

Kind = TypeVar("Kind")
ARRAY_SUFFIXES = (".npy", ".npz")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


def is_file(kind_or_file: str | Path) -> bool:
    """True for a path and for a text that looks like one: it has a suffix or a folder, or it exists."""
    path = Path(kind_or_file)
    return isinstance(kind_or_file, Path) or path.suffix != "" or len(path.parts) > 1 or path.exists()


def kind_named(text: Any, kinds: Mapping[str, Kind]) -> Kind | None:
    """The kind of that name, in whatever case; None where it is no name of one."""
    return kinds.get(text.lower()) if isinstance(text, str) else None


def unknown_kind(field: str, received: str, kinds: Iterable[str]) -> ConfigurationError:
    """The error for a name that is in no table, with the name that may have been meant."""
    names = list(kinds)
    near = closest(received, names)
    remedy = f"Did you mean {near!r}?" if near else f"Choose one of the kinds, or give a file for the {field}."
    return ConfigurationError(
        "simulation", field, expected=f"one of {', '.join(names)}", received=repr(received), remedy=remedy
    )


def read_complex_array(path: Path, keys: Sequence[str], ndims: Sequence[int]) -> NDArray[np.complex64]:
    """The complex array in a .npy file, or in a .npz file under the first of `keys` that it has.

    A .npz file with none of them may hold a single member of one of the `ndims` dimensions: then that one is read.
    Finite values, complex64; anything else is a DataError.
    """
    with _opened(path) as file:
        if path.suffix.lower() == ".npy":
            array, member = _read_array(path, None, file), None
        else:
            with _unzipped(path, file) as archive:
                member = _choose_member(path, archive, keys, ndims)
                with archive.open(f"{member}.npy") as stream:
                    array = _read_array(path, member, stream)
    return checked_complex(array, ndims, path, member)


def checked_complex(
    received: NDArray[Any], ndims: Sequence[int], source: str | Path, key: str | None
) -> NDArray[np.complex64]:
    """An array of complex, finite numbers and one of `ndims` dimensions as complex64; a DataError if it is not."""
    array = np.asarray(received)

    if array.dtype.kind != "c":
        remedy = "Make it complex, a * numpy.exp(1j * phase); an object may also be a greyscale image file."
        raise DataError(source, key, expected="complex numbers", received=f"dtype {array.dtype}", remedy=remedy)
    if array.ndim not in ndims or array.size == 0:
        expected = " or ".join(f"a {ndim}-D" for ndim in ndims) + " array"
        raise DataError(source, key, expected=expected, received=f"shape {array.shape}", remedy="Give one array.")
    if not np.isfinite(array).all():
        raise DataError(
            source,
            key,
            expected="finite values",
            received="NaN or infinity",
            remedy="Set those pixels to finite values.",
        )
    return array.astype(np.complex64)


def read_greyscale(path: Path) -> NDArray[np.float64]:
    """An image as float64 (H, W) in [0, 1], black 0 and white 1; colours by their luma (ITU-R BT.601)."""
    try:
        from matplotlib import image
    except ImportError:
        remedy = "Install it with: pip install 'ptycho-core[plot]', or save the object as .npy."
        raise DataError(path, expected="matplotlib, to read images", received="no matplotlib", remedy=remedy) from None
    with _opened(path) as file:
        try:
            pixels = np.asarray(image.imread(file, format=path.suffix[1:].lower()))
        except (OSError, ValueError, SyntaxError) as error:  # Pillow reports a broken PNG as a SyntaxError
            remedy = "Open it in a viewer, or save it again as .png."
            raise DataError(path, expected="a readable image", received=error, remedy=remedy) from None
    if pixels.ndim == 3 and pixels.shape[-1] in (3, 4):
        grey = pixels[..., :3] @ np.array([0.299, 0.587, 0.114])
    elif pixels.ndim == 3:  # grey and transparency
        grey = pixels[..., 0].astype(np.float64)
    else:
        grey = pixels.astype(np.float64)
    if grey.ndim != 2 or not np.isfinite(grey).all():
        remedy = "Save one greyscale or colour image without NaN."
        raise DataError(path, expected="an image", received=f"shape {pixels.shape}", remedy=remedy)
    if pixels.dtype in (np.uint8, np.uint16):
        grey = grey / np.iinfo(pixels.dtype).max
    elif grey.min() < 0 or grey.max() > 1:  # other numbers have no agreed white
        grey = (grey - grey.min()) / max(float(np.ptp(grey)), np.finfo(np.float64).tiny)
    return np.asarray(np.clip(grey, 0, 1), dtype=np.float64)


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        received = error.strerror or str(error)
        raise DataError(
            path, expected="a file", received=received, remedy="Check the path and its permissions."
        ) from None


def _unzipped(path: Path, file: BinaryIO) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        remedy = "Write the file again with numpy.savez."
        raise DataError(path, expected="a .npz archive", received=error, remedy=remedy) from None


def _read_array(path: Path, member: str | None, stream: IO[bytes]) -> NDArray[Any]:
    try:
        return np.asarray(npy_format.read_array(stream, allow_pickle=False))
    except (*UNREADABLE, *BROKEN_HEADER) as error:  # damaged, or Python objects inside
        remedy = "Write the file again with numpy.save or numpy.savez, complex numbers only."
        raise DataError(path, member, expected="a numpy array", received=error, remedy=remedy) from None


def _choose_member(path: Path, archive: zipfile.ZipFile, keys: Sequence[str], ndims: Sequence[int]) -> str:
    members = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    for key in keys:
        if key in members:
            return key
    candidates = [member for member in members if _ndim(archive, member) in ndims]
    if len(candidates) == 1:
        return candidates[0]
    dimensions = " or ".join(f"{ndim}-D" for ndim in ndims)
    expected = f"a member {' or '.join(map(repr, keys))}, or exactly one {dimensions} member"
    remedy = f"Save the array under {keys[0]!r}."
    raise DataError(path, expected=expected, received=f"members {sorted(members)}", remedy=remedy)


def _ndim(archive: zipfile.ZipFile, member: str) -> int | None:
    """Dimensions of an archive's member from its header, without reading its data; None if it is no array."""
    with archive.open(f"{member}.npy") as stream:
        try:
            version = npy_format.read_magic(stream)
            read_header = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
            shape, _, dtype = read_header(stream)
        except (*UNREADABLE, *BROKEN_HEADER):
            return None
    return None if dtype.hasobject else len(shape)
