"""MATLAB files of version 5, by scipy; later ones are HDF5 (specs/data.md, Mapped files)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import scipy  # its submodules load on first use
from numpy.typing import NDArray

from ptycho_core.errors import DataError

SIGNATURE = b"MATLAB 5"
LARGEST_BYTES = 2**31
"""Such a file holds no array beyond it."""
LARGEST_RATIO = 1000


def is_matlab5(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(SIGNATURE)) == SIGNATURE
    except OSError:
        return False


def mat_names(path: Path) -> dict[str, tuple[int, ...]]:
    """The arrays of numbers by name, with their shapes. Raises DataError."""
    try:
        found = scipy.io.whosmat(path)
    except Exception as error:  # scipy raises whatever it meets in a damaged file
        raise _unreadable(path, error) from error
    kinds = ("double", "single", "logical", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
    return {name: tuple(shape) for name, shape, kind in found if kind in kinds}


def read_mat(path: Path, name: str) -> NDArray[Any]:
    """One array as a whole. Raises DataError."""
    shape = mat_names(path).get(name)
    if shape is None:
        listed = ", ".join(f"{key} {size}" for key, size in list(mat_names(path).items())[:12]) or "no arrays"
        raise DataError(path, name, expected="an array", received="nothing", remedy=f"The file holds: {listed}.")
    size = 8 * math.prod(shape)
    if size > max(LARGEST_BYTES, 0) or size > LARGEST_RATIO * max(path.stat().st_size, 2**20):
        remedy = "Save it again as version 7.3."
        expected = f"at most {LARGEST_BYTES // 2**20} MiB"
        raise DataError(path, name, expected=expected, received=f"shape {shape}", remedy=remedy)
    try:
        array = scipy.io.loadmat(path, variable_names=[name])[name]
    except Exception as error:
        raise _unreadable(path, error) from error
    return np.ascontiguousarray(array)


def _unreadable(path: Path, error: BaseException) -> DataError:
    received = " ".join(str(error).split())[:200] or type(error).__name__
    remedy = "It is truncated or damaged: copy it again."
    return DataError(path, expected="a readable MATLAB file", received=received, remedy=remedy)
