"""Modes of a probe: how many, what further ones begin as, and which of all that give the same intensities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NEW_ENERGY = 0.02  # specs/solving.md, Modes: of the first mode's, for each further one
MOMENTS = ((1, 0), (0, 1), (1, 1), (2, 0), (0, 2), (2, 1), (1, 2))
"""Powers of x and y by which the first mode is multiplied, one pair for each further mode."""


def with_modes(probe: NDArray[np.complex64], count: int) -> NDArray[np.complex64]:
    """The probe (K, N, N) with `count` modes: its strongest, or further ones added; Σ|P|² stays as it is.

    A further mode is the first one times a moment about its centre: what a source of finite size, or a vibration,
    would add first.
    """
    energy = np.square(np.abs(probe), dtype=np.float64).sum(axis=(1, 2))
    kept = probe[np.argsort(-energy, kind="stable")[:count]].astype(np.complex128)
    modes, first = list(kept), kept[0]
    weight = np.abs(first) ** 2 / np.sum(np.abs(first) ** 2)
    y, x = (axis - np.sum(weight * axis) for axis in np.mgrid[: probe.shape[1], : probe.shape[2]].astype(float))
    for powers in MOMENTS[len(modes) - 1 : count - 1]:
        moment = x ** powers[0] * y ** powers[1]
        mode = (moment - np.sum(weight * moment)) * first
        modes.append(mode * np.sqrt(NEW_ENERGY * np.sum(np.abs(first) ** 2) / np.sum(np.abs(mode) ** 2)))
    field = np.stack(modes)
    return np.asarray(field * np.sqrt(energy.sum() / np.sum(np.abs(field) ** 2)), np.complex64)


def orthogonal(probe: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """The modes (K, N, N) that are orthogonal and give the same intensities, strongest first.

    Modes that are mixed by a unitary matrix give the same intensities, so only these are a property of the light.
    Each keeps the phase of its largest part among the modes as they were.
    """
    if len(probe) == 1:
        return probe
    modes = probe.reshape(len(probe), -1).astype(np.complex128)
    _, mixing = np.linalg.eigh(modes @ modes.conj().T)
    mixing = mixing[:, ::-1]
    largest = mixing[np.argmax(np.abs(mixing), axis=0), np.arange(len(probe))]
    mixing = mixing * (np.abs(largest) / largest)
    return np.asarray((mixing.conj().T @ modes).reshape(probe.shape), np.complex64)
