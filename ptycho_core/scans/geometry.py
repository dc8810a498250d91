"""Lengths of an experiment: wavelength, size of an object pixel, positions in metres and in pixels.

SI units, in every name. Constants are those of CODATA in `scipy.constants`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy  # its submodules load on first use: this module imports fast
from numpy.typing import ArrayLike, NDArray

from ptycho_core.errors import DataError

LEAST, LARGEST = 1e-60, 1e60
"""Of an energy or a length in any unit; beyond, what is computed from several may leave double precision."""


def photon_wavelength_m(energy_eV: float) -> float:
    """λ = h c / E (Planck-Einstein relation)."""
    constants = scipy.constants
    return float(constants.h * constants.c / (_positive("energy_eV", energy_eV) * constants.e))


def photon_energy_eV(wavelength_m: float) -> float:
    """E = h c / λ, the inverse of `photon_wavelength_m`."""
    constants = scipy.constants
    return float(constants.h * constants.c / (_positive("wavelength_m", wavelength_m) * constants.e))


def electron_wavelength_m(energy_eV: float) -> float:
    """λ = h c / √(E (E + 2 m c²)), E the kinetic energy: 200e3 for electrons accelerated by 200 kV.

    De Broglie wavelength with the relativistic momentum (Williams and Carter, Transmission Electron Microscopy, eq.
    1.6).
    """
    constants = scipy.constants
    kinetic_J = _positive("energy_eV", energy_eV) * constants.e
    momentum_times_c_J = math.sqrt(kinetic_J * (kinetic_J + 2 * constants.m_e * constants.c**2))
    return float(constants.h * constants.c / momentum_times_c_J)


def object_pixel_m(wavelength_m: float, distance_m: float, N: int, detector_pixel_m: float) -> float:
    """λ z / (N p): side of an object pixel where N detector pixels of side p, after cropping and binning, lie at z.

    Far field: a pixel of the detector is one step 1 / (N · object pixel) of spatial frequency, and p / (λ z) in angle
    (Thibault et al., Ultramicroscopy 109, 338, 2009). Where pixels are not square, along x and y one after the other.
    """
    wavelength = _positive("wavelength_m", wavelength_m)
    distance, pixel = _positive("distance_m", distance_m), _positive("detector_pixel_m", detector_pixel_m)
    return wavelength * distance / (_positive("N", N) * pixel)


def positions_m_to_px(
    positions_m: ArrayLike, pixel_m: ArrayLike, *, origin_m: ArrayLike, origin_px: ArrayLike
) -> NDArray[np.float64]:
    """(positions_m − origin_m) / pixel_m + origin_px, float64 (M, 2).

    positions_m: (M, 2), [x, y] = [along the columns' axis, along the rows'] in metres, growing as columns and rows do.
    pixel_m: side of an object pixel, one number or (x, y).
    origin_m, origin_px: (x, y) of one and the same point, in metres and in pixels of the object grid: of the object's
        centre, for example, ((0, 0) and ((W − 1)/2, (H − 1)/2)).
    """
    pixel = _pixel(pixel_m)
    shift = _vector("origin_px", origin_px) - _vector("origin_m", origin_m) / pixel
    return _positions("positions_m", positions_m) / pixel + shift


def positions_px_to_m(
    positions_px: ArrayLike, pixel_m: ArrayLike, *, origin_m: ArrayLike, origin_px: ArrayLike
) -> NDArray[np.float64]:
    """The inverse of `positions_m_to_px`: (positions_px − origin_px) · pixel_m + origin_m, float64 (M, 2), [x, y]."""
    relative = _positions("positions_px", positions_px) - _vector("origin_px", origin_px)
    return relative * _pixel(pixel_m) + _vector("origin_m", origin_m)


def raster(shape: tuple[int, int], step: tuple[float, float], rotation_deg: float = 0.0) -> NDArray[np.float64]:
    """(rows · columns, 2) [x, y] of a raster about its middle, row after row, in the unit of `step` (x, y).

    rotation_deg: of its rows, from x to y.

    >>> raster((2, 2), (1.0, 10.0)).tolist()
    [[-0.5, -5.0], [0.5, -5.0], [-0.5, 5.0], [0.5, 5.0]]
    """
    rows, columns = shape
    y, x = np.mgrid[:rows, :columns].reshape(2, -1).astype(np.float64)
    places = np.stack([(x - (columns - 1) / 2) * step[0], (y - (rows - 1) / 2) * step[1]], axis=1)
    return np.asarray(places @ _rotation(rotation_deg).T)


def turned(
    positions: NDArray[np.float64], matrix: tuple[float, ...], rotation_deg: float, about: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Positions (M, 2) after a matrix (a, b, c, d) and then a rotation from x to y, about the point `about` (x, y)."""
    both = _rotation(rotation_deg) @ np.reshape(matrix, (2, 2))
    return np.asarray((positions - about) @ both.T + about)


def _rotation(degrees: float) -> NDArray[np.float64]:
    angle = math.radians(degrees)
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def beyond_middle_px(length: int) -> float:
    """From the middle of a patch of `length` pixels, (length − 1)/2, to its pixel [length // 2]: 1/2 or 0 px.

    A scan's positions name that pixel (specs/physics.md, Conventions); Ptychodus names the middle.
    """
    return length // 2 - (length - 1) / 2


def middle_px(
    shape: tuple[int, ...], patch: tuple[int, ...], corner: tuple[float, float] = (0.0, 0.0)
) -> tuple[float, float]:
    """(x, y) of a scan's position, px, whose patch (H, W) is about the middle of an object of `shape` (H, W).

    corner: (x, y) of the object's pixel [0, 0].
    """
    (height, width), (rows, columns) = shape, patch
    x, y = (width - 1) / 2 + beyond_middle_px(columns), (height - 1) / 2 + beyond_middle_px(rows)
    return x + corner[0], y + corner[1]


def _positive(key: str, value: Any) -> float:
    number = np.asarray(value)
    if number.ndim or number.dtype.kind not in "iuf" or not LEAST <= number <= LARGEST:
        remedy = "Give it in the unit of its name."
        expected = f"one finite number > 0, from {LEAST:g} to {LARGEST:g}"
        raise DataError("geometry", key, expected=expected, received=repr(value), remedy=remedy)
    return float(number)


def _pixel(pixel_m: ArrayLike) -> NDArray[np.float64]:
    """(x, y) of a size that may be given as one number."""
    pixel = np.asarray(pixel_m)
    pair = _vector("pixel_m", np.broadcast_to(pixel, (2,)) if pixel.ndim == 0 else pixel)
    if not (pair > 0).all():
        remedy = "State a reversed axis as an orientation, not by the sign of a pixel."
        raise DataError("geometry", "pixel_m", expected="sizes > 0", received=pair.tolist(), remedy=remedy)
    return pair


def _vector(key: str, value: ArrayLike) -> NDArray[np.float64]:
    vector = np.asarray(value)
    if vector.shape != (2,) or vector.dtype.kind not in "iuf" or not np.isfinite(vector).all():
        raise DataError(
            "geometry", key, expected="two finite numbers (x, y)", received=repr(value), remedy="Give x first, then y."
        )
    return vector.astype(np.float64)


def _positions(key: str, value: ArrayLike) -> NDArray[np.float64]:
    positions = np.asarray(value)
    if positions.ndim != 2 or positions.shape[1] != 2 or positions.dtype.kind not in "iuf":
        received = f"{positions.dtype} of shape {positions.shape}"
        raise DataError(
            "geometry", key, expected="real numbers (M, 2)", received=received, remedy="Give one [x, y] row per frame."
        )
    if not np.isfinite(positions).all():
        remedy = "Drop the frames without a position."
        raise DataError("geometry", key, expected="finite coordinates", received="NaN or infinity", remedy=remedy)
    return positions.astype(np.float64)
