"""Modes of a probe."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ptycho_core.simulation import expected_intensity
from ptycho_core.solving.modes import NEW_ENERGY, orthogonal, with_modes


def probe(modes: int) -> NDArray[np.complex64]:
    y, x = np.mgrid[:16, :16] - 8.0
    first = np.exp(-((x - 1) ** 2 + (y + 2) ** 2) / 12 + 0.1j * x)
    return np.stack([first * (0.5**mode) * np.exp(0.3j * mode * y) for mode in range(modes)]).astype(np.complex64)


def energy(field: NDArray[np.complex64]) -> NDArray[np.float64]:
    return np.square(np.abs(field), dtype=np.float64).sum(axis=(1, 2))


@pytest.mark.parametrize("count", range(1, 9))
def test_modes_are_added_without_changing_the_light(count: int) -> None:
    more = with_modes(probe(1), count)
    assert more.shape == (count, 16, 16)
    assert energy(more).sum() == pytest.approx(energy(probe(1)).sum(), rel=1e-6)
    shares = energy(more) / energy(more)[0]
    np.testing.assert_allclose(shares[1:], NEW_ENERGY, rtol=1e-5)


def test_further_modes_differ_from_the_first_and_from_each_other() -> None:
    flat = with_modes(probe(1), 8).reshape(8, -1)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    likeness = np.abs(flat.conj() @ flat.T) - np.eye(8)
    assert likeness[0].max() < 1e-5, "a moment about the centre is at right angles to the mode itself"
    assert likeness.max() < 0.9


def test_the_strongest_modes_are_kept() -> None:
    three = probe(3)[[2, 0, 1]]
    two = with_modes(three, 2)
    scale = np.sqrt(energy(three).sum() / energy(three[1:]).sum())
    np.testing.assert_allclose(two, three[1:] * scale, rtol=1e-5)


def test_as_many_modes_as_there_are_stay_as_they_are() -> None:
    np.testing.assert_allclose(with_modes(probe(3), 3), probe(3), rtol=1e-6)


def test_orthogonal_modes_give_the_same_intensities_strongest_first() -> None:
    given = probe(3)[[1, 0, 2]]
    found = orthogonal(given)
    assert found.dtype == np.complex64
    overlaps = np.einsum("jyx,kyx->jk", found, found.conj())
    np.testing.assert_allclose(overlaps - np.diag(np.diag(overlaps)), 0, atol=1e-5 * energy(found)[0])
    assert (np.diff(energy(found)) < 0).all()
    patches = np.exp(1j * np.random.default_rng(0).standard_normal((2, 16, 16)))
    expected = expected_intensity(given, patches)
    np.testing.assert_allclose(expected_intensity(found, patches), expected, atol=1e-5 * expected.max())


def test_modes_that_are_orthogonal_stay_as_they_are() -> None:
    found = orthogonal(probe(3))
    np.testing.assert_allclose(orthogonal(found), found, atol=1e-5)
    np.testing.assert_array_equal(orthogonal(probe(1)), probe(1))
