"""Probes: illuminations of several kinds, or a file, as complex fields centred on pixel [N/2, N/2]."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.special import erf, eval_hermite

from ptycho_core.errors import ConfigurationError, DataError
from ptycho_core.simulation.files import (
    ARRAY_SUFFIXES,
    checked_complex,
    is_file,
    kind_named,
    read_complex_array,
    unknown_kind,
)
from ptycho_core.vocabulary import Field


def disk(N: int, *, diameter: float = 0.5, edge_px: float = 1.5) -> Field:
    """An evenly lit aperture of diameter · N px, real and of flat phase; its edge is blurred over `edge_px`.

    A flat and symmetric probe leaves a single frame ambiguous: an object and its conjugate mirror image diffract alike.
    """
    radius = np.hypot(*_centred_grid(N))
    return np.asarray((1 - erf((radius - diameter * N / 2) / edge_px)) / 2, dtype=np.complex128)


def defocused_zone_plate(N: int, *, diameter: float = 0.45, aperture: float = 0.15, central_stop: float = 0.4) -> Field:
    """The beam of a zone plate with a central stop, out of focus: the Fourier transform of an annular, curved pupil.

    aperture: radius of the pupil, cycles/px; central_stop: radius of the stop as a fraction of it.
    diameter: geometric diameter of the beam as a fraction of N. The defocus follows from it: with the pupil phase
    -π·D·q² (Fresnel propagation, D = wavelength · distance in px²; Goodman, Introduction to Fourier Optics, §4.2) the
    ray of frequency q lands D·q from the axis.
    """
    side = 4 * N  # in a field as small as the patch the beam's tails would wrap around
    frequency = np.hypot(*(axis / side for axis in _centred_grid(side)))
    softness = aperture / 4  # a hard pupil would ring beyond the patch
    annulus = (erf((aperture - frequency) / softness) - erf((central_stop * aperture - frequency) / softness)) / 2
    defocus = diameter * N / 2 / aperture
    pupil = annulus * np.exp(-1j * np.pi * defocus * frequency**2)
    beam = fft.fftshift(fft.ifft2(fft.ifftshift(pupil)))
    patch = slice(side // 2 - N // 2, side // 2 - N // 2 + N)
    return np.asarray(beam[patch, patch], dtype=np.complex128)


def defocused_gaussian(N: int, *, width: float = 0.12, aperture: float = 0.12) -> Field:
    """A Gaussian beam behind its waist: amplitude exp(-r²/2σ²), σ = width · N px, and a quadratic phase.

    aperture: the local frequency of that phase at r = 2σ, cycles/px.
    """
    radius = np.hypot(*_centred_grid(N))
    curvature = aperture / (2 * width * N)  # the phase π·curvature·r² has the local frequency curvature·r
    return np.asarray(np.exp((1j * np.pi * curvature - 0.5 / (width * N) ** 2) * radius**2))


PROBE_KINDS: dict[str, Callable[[int], Field]] = {
    "disk": disk,
    "defocused-zone-plate": defocused_zone_plate,
    "defocused-gaussian": defocused_gaussian,
}


def make_probe(
    kind_or_file: str | Path | NDArray[Any], N: int, *, modes: int = 1, occupancy: Sequence[float] | None = None
) -> NDArray[np.complex64]:
    """A probe, complex64 (modes, N, N).

    kind_or_file: a name in PROBE_KINDS, which gives Σ|P|² = 1; or a file or array as in `load_probe`, in its own scale.
    modes: number of mutually orthogonal modes, made from a single one by `add_modes`. A file or array that already
        holds several keeps them.
    occupancy: each mode's part of the power, as in `add_modes`.
    """
    if modes < 1:
        raise ConfigurationError(
            "simulation", "modes", expected="at least 1", received=modes, remedy="Use 1 for a coherent probe."
        )
    if (kind := kind_named(kind_or_file, PROBE_KINDS)) is not None:
        field = kind(N)
        probe = (field / np.linalg.norm(field))[None]
    elif isinstance(kind_or_file, str) and not is_file(kind_or_file):
        raise unknown_kind("probe", kind_or_file, PROBE_KINDS)
    else:
        probe = load_probe(kind_or_file, N).astype(np.complex128)
    if len(probe) == 1:
        probe = add_modes(probe[0], modes, occupancy)
    elif modes not in (1, len(probe)) or occupancy is not None:
        expected = f"1 or {len(probe)}, and no occupancy: the probe given has {len(probe)} modes"
        raise ConfigurationError(
            "simulation", "modes", expected=expected, received=modes, remedy="Leave modes at 1 to keep them."
        )
    return probe.astype(np.complex64)


def load_probe(source: str | Path | NDArray[Any], N: int) -> NDArray[np.complex64]:
    """A given probe, complex64 (modes, N, N), in its own scale.

    .npy, .npz: a complex (N, N) or (modes, N, N) array; in .npz the member `probeGuess` or `probe`, else the only one
        with 2 or 3 dimensions.
    An array: likewise.
    """
    if not isinstance(source, str | Path):
        name, probe = "simulation", checked_complex(source, (2, 3), "simulation", "probe")
    elif Path(source).suffix.lower() in ARRAY_SUFFIXES:
        name, probe = str(source), read_complex_array(Path(source), ("probeGuess", "probe"), (2, 3))
    else:
        expected = f"a file that ends in {' or '.join(ARRAY_SUFFIXES)}"
        remedy = f"Save a complex array, or choose a kind: {', '.join(PROBE_KINDS)}."
        received = repr(Path(source).suffix)
        raise DataError(source, expected=expected, received=received, remedy=remedy)
    if probe.shape[-2:] != (N, N):
        height, width = probe.shape[-2:]
        remedy = f"{f'Set N = {width}' if height == width else 'Make it square'}, or resample it to {N} x {N} pixels."
        expected = f"shape ({N}, {N}) or (modes, {N}, {N})"
        raise DataError(name, "probe", expected=expected, received=f"shape {probe.shape}", remedy=remedy)
    if not probe.any():
        remedy = "Give another probe."
        raise DataError(name, "probe", expected="some light", received="zeros only", remedy=remedy)
    return probe[None] if probe.ndim == 2 else probe


def add_modes(field: NDArray[Any], modes: int, occupancy: Sequence[float] | None = None) -> Field:
    """Orthogonal modes of the same total power from one field (N, N), complex128 (modes, N, N).

    The m-th mode is the field times Hermite polynomials in x and y of its own width, by growing order, made orthogonal
    to those before it (a Gaussian Schell-model beam has such modes: Starikov and Wolf, J. Opt. Soc. Am. 72, 923, 1982).

    occupancy: each mode's part of the power, not increasing; scaled to the sum 1. Default 1, 1/2, 1/4, …
    """
    parts = _checked_occupancy(modes, occupancy)
    power = np.abs(field) ** 2 / np.sum(np.abs(field) ** 2)
    y, x = np.broadcast_arrays(*_centred_grid(len(field)))
    (y, x) = ((axis - np.sum(power * axis)) for axis in (y, x))
    width = np.sqrt(np.sum(power * (x**2 + y**2)))  # sqrt(2) standard deviations: the argument of the polynomials
    columns = [
        (field * eval_hermite(nx, x / width) * eval_hermite(ny, y / width)).ravel()
        for nx, ny in islice(_hermite_orders(), modes)
    ]
    orthonormal, triangle = np.linalg.qr(np.stack(columns, axis=-1))
    diagonal = np.diagonal(triangle)
    if np.abs(diagonal).min() <= 1e-9 * np.abs(diagonal).max():
        expected, remedy = "as many as the probe has room for", "Ask for fewer modes, or give a wider probe."
        raise ConfigurationError("simulation", "modes", expected=expected, received=modes, remedy=remedy)
    total = np.linalg.norm(field)
    scaled = orthonormal * (diagonal / np.abs(diagonal)) * np.sqrt(parts) * total  # keep each column's own phase
    return np.asarray(scaled.T.reshape(modes, *field.shape), dtype=np.complex128)


def _checked_occupancy(modes: int, occupancy: Sequence[float] | None) -> NDArray[np.float64]:
    parts = 0.5 ** np.arange(modes) if occupancy is None else np.asarray(occupancy, dtype=np.float64)
    if parts.shape != (modes,) or not (parts > 0).all() or not np.isfinite(parts).all() or (np.diff(parts) > 0).any():
        expected, remedy = f"{modes} positive numbers, the largest first", "Give one for each mode."
        raise ConfigurationError("simulation", "occupancy", expected=expected, received=occupancy, remedy=remedy)
    return np.asarray(parts / parts.sum(), dtype=np.float64)


def _hermite_orders() -> Iterator[tuple[int, int]]:
    """(0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2), …: orders in x and y."""
    return ((total - ny, ny) for total in count() for ny in range(total + 1))


def _centred_grid(N: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows (N, 1) and columns (1, N) as seen from pixel [N/2, N/2]."""
    axis = np.arange(N, dtype=np.float64) - N // 2
    return axis[:, None], axis[None, :]
