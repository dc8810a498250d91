"""Test objects: random patterns of several kinds, or a file, as complex transmission.

A pattern is float64 (H, W) in [0, 1]; lengths are in pixels. It becomes a transmission in `make_object`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.spatial import cKDTree

from ptycho_core.errors import ConfigurationError, DataError
from ptycho_core.simulation.files import (
    ARRAY_SUFFIXES,
    IMAGE_SUFFIXES,
    checked_complex,
    is_file,
    kind_named,
    read_complex_array,
    read_greyscale,
    unknown_kind,
)

Pattern = NDArray[np.float64]
Shape = tuple[int, int]


def lines(shape: Shape, rng: np.random.Generator) -> Pattern:
    """Overlapping straight segments, 1 to 4 px wide and 20 to 100 px long, antialiased.

    One segment starts from every cell of 16 × 16 px, so every window of 32 × 32 px holds the middle of one at least.
    Where segments cross, their transmissions multiply.
    """
    transmission = np.ones(shape)
    for centre in _one_point_per_cell(shape, 16, rng):
        half_length, half_width = rng.uniform(10, 50), rng.uniform(0.5, 2)
        angle, strength = rng.uniform(0, np.pi), rng.uniform(0.3, 0.9)
        along = np.array([np.sin(angle), np.cos(angle)])  # (row, column)
        window, rows, columns = _window(shape, centre, half_length * np.abs(along) + half_width + 1)
        beyond_end = np.maximum(np.abs(rows * along[0] + columns * along[1]) - half_length, 0)
        aside = rows * along[1] - columns * along[0]
        transmission[window] *= 1 - strength * _coverage(half_width - np.hypot(aside, beyond_end))
    return _stretched(1 - transmission)


def grf(shape: Shape, rng: np.random.Generator) -> Pattern:
    """Gaussian random field with the power spectrum k^-3, cut at ± 2.5 standard deviations; periodic at the borders."""
    frequency = np.hypot(fft.fftfreq(shape[0])[:, None], fft.rfftfreq(shape[1])[None, :])
    frequency[0, 0] = np.inf  # no mean
    field = fft.irfft2(fft.rfft2(rng.standard_normal(shape)) * frequency**-1.5, s=shape)
    return np.asarray(np.clip(0.5 + field / (5 * field.std()), 0, 1))


def dead_leaves(shape: Shape, rng: np.random.Generator) -> Pattern:
    """Discs that hide one another, density of radii proportional to r^-3 from 4 to 64 px, uniform greys.

    Edges and areas at every scale, as in natural images (Lee, Mumford and Huang, Int. J. Comput. Vis. 41, 35, 2001).
    The discs' areas add up to six times the object's; what stays bare (a part in 400) keeps the first grey.
    """
    smallest, largest = 4.0, 64.0
    mean_area = 2 * np.pi * np.log(largest / smallest) / (smallest**-2 - largest**-2)
    count = int(np.ceil(6 * (shape[0] + 2 * largest) * (shape[1] + 2 * largest) / mean_area))
    centres = rng.uniform([-largest, -largest], np.add(shape, largest), size=(count, 2))
    radii = (smallest**-2 + rng.random(count) * (largest**-2 - smallest**-2)) ** -0.5
    pattern = np.full(shape, rng.random())
    for centre, radius, grey in zip(centres, radii, rng.random(count), strict=True):
        window, rows, columns = _window(shape, centre, radius + 1)
        pattern[window] += _coverage(radius - np.hypot(rows, columns)) * (grey - pattern[window])
    return _stretched(pattern)


def siemens_star(shape: Shape, rng: np.random.Generator) -> Pattern:
    """Siemens stars, one per tile of about 192 px, whose spokes reach the tile's corners.

    Each star has 12 to 24 spokes, a random turn, and a centre off the tile's by up to an eighth of it. Rings, at radii
    in the ratio 1.5, invert the spokes, so that there are edges in every direction.
    """
    pattern = np.empty(shape)
    for rows in _tiles(shape[0], 192):
        for columns in _tiles(shape[1], 192):
            centre = [rng.uniform(3 / 8, 5 / 8) * len(axis) + axis[0] for axis in (rows, columns)]
            y, x = rows[:, None] - centre[0], columns[None, :] - centre[1]
            radius, spokes = np.hypot(y, x), rng.integers(12, 25)
            angle = np.arctan2(y, x) + rng.uniform(0, 2 * np.pi)
            from_spoke_edge = np.arcsin(np.sin(spokes * angle)) * radius / spokes
            turn, start = np.pi / np.log(1.5), rng.uniform(0, 2 * np.pi)
            from_ring_edge = np.arcsin(np.sin(turn * np.log(radius + 1) + start)) * (radius + 1) / turn
            inside, outside = _coverage(from_spoke_edge), _coverage(from_ring_edge)
            pattern[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = inside + outside - 2 * inside * outside
    return pattern


def points(shape: Shape, rng: np.random.Generator) -> Pattern:
    """Soft dots: Gaussians of 0.8 to 3 px (standard deviation), one in every cell of 12 × 12 px."""
    transmission = np.ones(shape)
    for centre in _one_point_per_cell(shape, 12, rng):
        width, strength = rng.uniform(0.8, 3), rng.uniform(0.4, 1)
        window, rows, columns = _window(shape, centre, 4 * width)
        transmission[window] *= 1 - strength * np.exp(-(rows**2 + columns**2) / (2 * width**2))
    return _stretched(1 - transmission)


def lattice(shape: Shape, rng: np.random.Generator) -> Pattern:
    """Grains of about 64 px across, each a lattice of soft atoms, 6 to 12 px apart, with an orientation of its own."""
    seeds = _one_point_per_cell(shape, 64, rng)
    rows, columns = np.indices(shape)
    grain = cKDTree(seeds).query(np.stack([rows.ravel(), columns.ravel()], axis=-1))[1].reshape(shape)
    ranges = ((6.0, 12.0), (0.0, np.pi), (1.0, 2.0), (0.4, 1.0))
    spacing, turn, skew, strength = (rng.uniform(low, high, len(seeds)) for low, high in ranges)
    waves = [
        np.cos(2 * np.pi / spacing[grain] * (rows * np.sin(angle[grain]) + columns * np.cos(angle[grain])))
        for angle in (turn, turn + skew)
    ]
    return _stretched(strength[grain] * ((2 + waves[0] + waves[1]) / 4) ** 2)


def cells(shape: Shape, rng: np.random.Generator) -> Pattern:
    """Round bodies of smooth thickness with a thin wall and a few grains, one in every cell of 40 × 40 px."""
    pattern = np.zeros(shape)
    for centre in _one_point_per_cell(shape, 40, rng):
        radius, thickness = rng.uniform(12, 26), rng.uniform(0.2, 0.8)
        window, rows, columns = _window(shape, centre, radius + 2)
        depth = radius - np.hypot(rows, columns * rng.uniform(1, 1.5))
        body = np.sqrt(np.clip(depth / radius * (2 - depth / radius), 0, 1))
        wall = 0.3 * _coverage(1.5 - np.abs(depth))
        pattern[window] += thickness * (body + wall)
        for grain in centre + rng.uniform(-0.6, 0.6, (rng.integers(1, 6), 2)) * radius:
            window, rows, columns = _window(shape, grain, 8)
            pattern[window] += rng.uniform(0.05, 0.5) * _coverage(rng.uniform(0.5, 5) - np.hypot(rows, columns))
    return _stretched(pattern)


OBJECT_KINDS: dict[str, Callable[[Shape, np.random.Generator], Pattern]] = {
    "lines": lines,
    "grf": grf,
    "dead-leaves": dead_leaves,
    "siemens-star": siemens_star,
    "points": points,
    "lattice": lattice,
    "cells": cells,
}


def make_object(
    kind_or_file: str | Path | NDArray[Any],
    shape: Shape,
    rng: np.random.Generator,
    *,
    amplitude_range: tuple[float, float] = (0.5, 1.0),
    phase_range: tuple[float, float] = (0.0, 0.8),
) -> NDArray[np.complex64]:
    """Complex transmission of an object, complex64 `shape`.

    kind_or_file: a name in OBJECT_KINDS; or a file or array as in `load_object`, of which the central part is taken.
    rng: draws the pattern; a file does not use it.
    amplitude_range, phase_range (radians): see `transmission`; a complex array stays as it is.
    """
    if isinstance(kind_or_file, str):
        if (kind := kind_named(kind_or_file, OBJECT_KINDS)) is not None:
            return transmission(kind(shape, rng), amplitude_range, phase_range)
        if not is_file(kind_or_file):
            raise unknown_kind("object", kind_or_file, OBJECT_KINDS)
    field = load_object(kind_or_file, amplitude_range=amplitude_range, phase_range=phase_range)
    require_area(field, shape, source=str(kind_or_file) if isinstance(kind_or_file, str | Path) else "simulation")
    top, left = ((have - want) // 2 for have, want in zip(field.shape, shape, strict=True))
    return field[top : top + shape[0], left : left + shape[1]]


def load_object(
    source: str | Path | NDArray[Any],
    *,
    amplitude_range: tuple[float, float] = (0.5, 1.0),
    phase_range: tuple[float, float] = (0.0, 0.8),
) -> NDArray[np.complex64]:
    """A whole object, complex64 (H, W).

    .npy, .npz: a complex (H, W) array; in .npz the member `objectGuess` or `object`, else the only 2-D one.
    .png, .jpg, .tif: a greyscale pattern, black 0 and white 1, which becomes a `transmission`.
    An array: complex (H, W).
    """
    if not isinstance(source, str | Path):
        return checked_complex(source, (2,), "simulation", "object")
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix in ARRAY_SUFFIXES:
        return read_complex_array(path, ("objectGuess", "object"), (2,))
    if suffix in IMAGE_SUFFIXES:
        return transmission(read_greyscale(path), amplitude_range, phase_range)
    expected = f"a file that ends in {', '.join(ARRAY_SUFFIXES + IMAGE_SUFFIXES)}"
    remedy = f"Convert it, or choose a kind: {', '.join(OBJECT_KINDS)}."
    raise DataError(path, expected=expected, received=repr(path.suffix), remedy=remedy)


def require_area(field: NDArray[Any], shape: Shape, *, source: str) -> None:
    """A DataError unless the object has at least (H, W) = `shape` pixels."""
    if field.shape[0] < shape[0] or field.shape[1] < shape[1]:
        expected = f"at least {shape[0]} x {shape[1]} pixels, the area of the scan"
        received = f"{field.shape[0]} x {field.shape[1]} pixels"
        remedy = "Use fewer or denser positions (a smaller step_px), or a larger object."
        raise DataError(source, "object", expected=expected, received=received, remedy=remedy)


def transmission(
    pattern: Pattern, amplitude_range: tuple[float, float], phase_range: tuple[float, float]
) -> NDArray[np.complex64]:
    """amplitude · exp(i phase), both linear in the pattern: where it is 1 the object absorbs and delays most.

    pattern: float64 (H, W) in [0, 1]. 0 has the high amplitude and the low phase (radians), 1 the other ends.
    """
    check_ranges(amplitude_range, phase_range)
    (weakest, strongest), (least, most) = amplitude_range, phase_range
    amplitude = strongest - pattern * (strongest - weakest)
    phase = least + pattern * (most - least)
    return np.asarray(amplitude * np.exp(1j * phase), dtype=np.complex64)


def check_ranges(amplitude_range: tuple[float, float], phase_range: tuple[float, float]) -> None:
    """A ConfigurationError unless both are (low, high) and no amplitude is negative."""
    lowest = {"amplitude_range": 0.0, "phase_range": -np.inf}
    for name, ends in (("amplitude_range", amplitude_range), ("phase_range", phase_range)):
        values = np.asarray(ends)
        fits = values.shape == (2,) and values.dtype.kind in "iuf" and bool(np.isfinite(values).all())
        if not fits or values[0] > values[1] or values[0] < lowest[name]:
            expected = "(low, high)" if name == "phase_range" else "(low, high), low >= 0"
            remedy = "Give two finite numbers, the lower one first."
            raise ConfigurationError("simulation", name, expected=expected, received=ends, remedy=remedy)


def _one_point_per_cell(shape: Shape, cell: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """One random point (row, column) in each square cell of a grid over the area, (K, 2): no gaps and no order."""
    rows, columns = np.meshgrid(*(np.arange(0, size, cell) for size in shape), indexing="ij")
    corners = np.stack([rows.ravel(), columns.ravel()], axis=-1)
    return corners + rng.uniform(0, cell, corners.shape)


def _window(
    shape: Shape, centre: NDArray[np.float64], reach: NDArray[np.float64] | float
) -> tuple[tuple[slice, slice], NDArray[np.float64], NDArray[np.float64]]:
    """The pixels within `reach` of `centre`: their slices, and their rows and columns as seen from the centre."""
    first = np.maximum(np.floor(centre - reach), 0).astype(int)
    last = np.minimum(np.ceil(centre + reach) + 1, shape).astype(int)
    first = np.minimum(first, np.maximum(last, 0))
    last = np.maximum(last, first)  # empty outside the area
    rows, columns = (np.arange(*ends) - middle for *ends, middle in zip(first, last, centre, strict=True))
    return (slice(first[0], last[0]), slice(first[1], last[1])), rows[:, None], columns[None, :]


def _coverage(depth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Part of a pixel that a shape covers, when the pixel's centre lies `depth` px inside its edge."""
    return np.clip(depth + 0.5, 0, 1)


def _stretched(pattern: Pattern) -> Pattern:
    """The same pattern from 0 to 1."""
    low, high = pattern.min(), pattern.max()
    return (pattern - low) / (high - low) if high > low else np.zeros_like(pattern)


def _tiles(size: int, side: int) -> Iterator[NDArray[np.intp]]:
    """The indices of an axis in consecutive pieces of about `side`."""
    yield from np.array_split(np.arange(size), max(1, round(size / side)))
