"""Fourier transforms of a few modes as products with real matrices, alike in every engine (specs/model.md)."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


@functools.lru_cache(maxsize=64)
def to_modes(size: int, modes: int) -> Matrix:
    """(2, size, modes): Σ over the pixels of a real row gives real and imaginary part of its mean coefficients."""
    return np.stack(_waves(size, np.arange(modes))) / size


@functools.lru_cache(maxsize=64)
def from_modes(size: int, modes: int) -> Matrix:
    """(2, size, modes): Σ over parts and modes gives the real row that has these coefficients, and no others."""
    return np.stack(_waves(size, np.arange(modes))) * np.where(np.arange(modes) == 0, 1, 2)


@functools.lru_cache(maxsize=64)
def to_signed_modes(size: int, modes: int) -> Matrix:
    """(2, 2, size, 2 modes): the same of complex rows, part before and after; modes 0 … m − 1, −m … −1."""
    return _as_product(*_waves(size, _signed(modes))) / size


@functools.lru_cache(maxsize=64)
def from_signed_modes(size: int, modes: int) -> Matrix:
    """(2, 2, size, 2 modes): back to complex rows."""
    cosine, sine = _waves(size, _signed(modes))
    return _as_product(cosine, -sine)


def _signed(modes: int) -> NDArray[np.int64]:
    return np.concatenate([np.arange(modes), np.arange(-modes, 0)])


def _waves(size: int, modes: NDArray[np.int64]) -> tuple[Matrix, Matrix]:
    """Real and imaginary part of exp(−2πi k n / size), (size, modes)."""
    turns = 2 * np.pi / size * (np.outer(np.arange(size), modes) % size)
    return np.cos(turns), -np.sin(turns)


def _as_product(real: Matrix, imaginary: Matrix) -> Matrix:
    """A product with real + i · imaginary: part before, part after."""
    return np.stack([np.stack([real, imaginary]), np.stack([-imaginary, real])])
