"""The probe that a file holds or a user names, on the object grid of a scan (specs/data.md, Readers)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy  # its submodules load on first use
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.io.places import Place, place_of, read_place
from ptycho_core.io.stored import Grid, Stored, missing
from ptycho_core.scans.steps import Orient, Window
from ptycho_core.settings.reading import ReadOptions

log = logging.getLogger(__name__)


def scan_probe(stored: Stored, options: ReadOptions, grid: Grid, lengths: Mapping[str, Any]) -> NDArray[np.complex64]:
    """(modes, N, N), on the object grid of the new patterns."""
    probe, name = _stated(stored, options)
    if probe is None:
        raise missing(stored.path, None, "probe", "(N, N) or (modes, N, N) complex probe", "none in the file")
    if probe.ndim < 2 or 0 in probe.shape or probe.dtype.kind not in "biufc":
        remedy = "Name another array."
        expected, received = "(N, N) or (modes, N, N) complex numbers", f"{probe.dtype} of shape {probe.shape}"
        raise DataError(stored.path, name, expected=expected, received=received, remedy=remedy)
    probe = _one_of_many(stored, name, probe)
    if options.probe_parts is not None:
        probe = _joined(stored, options, name, probe)
    probe = np.asarray(probe, np.complex128)
    if options.probe is not None and not (np.isfinite(probe).all() and probe.any()):
        expected, received = "a probe of finite values, not all zero", "NaN, infinity or zeros only"
        remedy = "Name another probe, or have it estimated"
        raise DataError(stored.path, name, expected=expected, received=received, remedy=remedy, state=("probe=auto",))
    turn = Orient(options.transpose_probe, options.flip_probe_rows, options.flip_probe_columns)
    if turn != Orient():
        probe = turn.apply(probe)
        moves = tuple(
            int(flip and length % 2 == 0)
            for flip, length in zip((turn.flip_rows, turn.flip_columns), probe.shape[1:], strict=True)
        )
        probe = np.roll(probe, moves, axis=(1, 2))
    if options.probe_origin == "corner":
        probe = np.fft.fftshift(probe, axes=(1, 2))
    if options.probe_plane == "far":
        probe = _inverse(probe)
    if options.probe_pixel_m is not None:
        return _resampled(stored, options, probe, grid, lengths).astype(np.complex64)
    shape = probe.shape[1:]
    if options.resample_probe and shape not in ((grid.height, grid.width), (grid.N, grid.N)):
        return _cut(probe, (grid.N, grid.N)).astype(np.complex64)
    if shape == (grid.height, grid.width):
        probe = refit(probe, grid)
    elif shape != (grid.N, grid.N):
        sizes = " or ".join(sorted({f"{grid.height} x {grid.width}", f"{grid.N} x {grid.N}"}))
        expected = f"{sizes} pixels, as the patterns before or after crop, bins and pad"
        remedy = "Cut or pad it, if its pixels have the same size, or state their size, or name another"
        received, state = f"{shape[0]} x {shape[1]}", ("resample_probe", "probe_pixel_m", "probe")
        raise DataError(stored.path, name, expected=expected, received=received, remedy=remedy, state=state)
    return probe.astype(np.complex64)


def _stated(stored: Stored, options: ReadOptions) -> tuple[NDArray[Any] | None, str]:
    """The array, and what to call it."""
    if options.probe is None:
        return stored.probe, "probe"
    names = options.probe.split(",")
    if len(names) == 2 and all(names):
        first, second = place_of(names[0].strip(), stored.path), place_of(names[1].strip(), stored.path)
        if ":" in names[0] and ":" not in names[1]:
            second = Place(first.path, names[1].strip())
        if options.probe_parts is None:
            raise missing(stored.path, options.probe, "probe_parts", "real-imaginary or amplitude-phase", "two arrays")
        parts = [np.squeeze(read_place(place, "probe")) for place in (first, second)]
        if parts[0].shape != parts[1].shape:
            expected, received = "two arrays of one shape", f"{parts[0].shape} and {parts[1].shape}"
            remedy = "Name two that belong together."
            raise DataError(stored.path, options.probe, expected=expected, received=received, remedy=remedy)
        return np.stack(parts), options.probe
    place = place_of(options.probe, stored.path)
    return read_place(place, "probe", kinds="biufc"), str(place)


def _one_of_many(stored: Stored, name: str, probe: NDArray[Any]) -> NDArray[Any]:
    """(modes, N, N): one mode is (N, N), modes may come last, and of position-dependent probes the first is used."""
    probe = probe[None] if probe.ndim == 2 else probe
    if probe.ndim > 3:
        extra = probe.shape[:-3]
        if np.prod(extra) > 1:
            log.warning("%s: %s: the first of %s position-dependent probes is used", stored.path, name, extra)
        probe = probe[(0,) * len(extra)]
    if probe.shape[0] == probe.shape[1] != probe.shape[2] and probe.shape[2] < probe.shape[0]:
        log.info("%s: %s: shape %s is read as (N, N, modes)", stored.path, name, probe.shape)
        probe = np.moveaxis(probe, -1, 0)
    return probe


def _joined(stored: Stored, options: ReadOptions, name: str, probe: NDArray[Any]) -> NDArray[np.complex128]:
    """(1, N, N) or (modes, N, N) of two layers, or of (2, modes, N, N)."""
    if len(probe) != 2 or probe.dtype.kind == "c":
        expected, received = "two real layers (2, N, N)", f"{probe.dtype} of shape {probe.shape}"
        remedy = "Leave out how its parts are called, or name another."
        raise DataError(stored.path, name, expected=expected, received=received, remedy=remedy, state=("probe",))
    first, second = (np.asarray(part, np.float64) for part in probe)
    whole = first + 1j * second if options.probe_parts == "real-imaginary" else first * np.exp(1j * second)
    return np.asarray(whole)[None]


def _resampled(
    stored: Stored, options: ReadOptions, probe: NDArray[np.complex128], grid: Grid, lengths: Mapping[str, Any]
) -> NDArray[np.complex128]:
    """On pixels of another size, by cubic splines about the middle; what is kept keeps its counts."""
    pixel = lengths.get("object_pixel_m")
    if pixel is None:
        raise missing(stored.path, "probe_pixel_m", "energy_eV", "the scan's own object pixel")
    assert options.probe_pixel_m is not None
    rows, columns = (np.arange(grid.N) - grid.N // 2) * (np.asarray(pixel)[::-1, None] / options.probe_pixel_m)
    height, width = probe.shape[1:]
    places = np.meshgrid(rows + height // 2, columns + width // 2, indexing="ij")
    new = np.stack(
        [
            scipy.ndimage.map_coordinates(mode.real, places, order=3)
            + 1j * scipy.ndimage.map_coordinates(mode.imag, places, order=3)
            for mode in probe
        ]
    )
    factor = float(np.prod(pixel)) / options.probe_pixel_m**2
    return np.asarray(new * np.sqrt(factor))


def refit(probe: NDArray[np.complex128], grid: Grid) -> NDArray[np.complex128]:
    """A probe (modes, H, W) of the stored patterns on the object grid of the new ones.

    Its far field is cropped and padded as the patterns are, its own extent shrinks by the bins; what is kept keeps its
    counts.
    """
    if grid.window != (grid.height, grid.width):
        probe = _inverse(_cut(_forward(probe), grid.window))
    if grid.bin > 1:
        probe = _cut(probe, (probe.shape[1] // grid.bin, probe.shape[2] // grid.bin))
    if probe.shape[1:] != (grid.N, grid.N):
        probe = _inverse(_cut(_forward(probe), (grid.N, grid.N)))
    return probe


def _forward(waves: NDArray[np.complex128]) -> NDArray[np.complex128]:
    axes = (-2, -1)
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(waves, axes), norm="ortho"), axes)


def _inverse(waves: NDArray[np.complex128]) -> NDArray[np.complex128]:
    axes = (-2, -1)
    return np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(waves, axes), norm="ortho"), axes)


def _cut(waves: NDArray[np.complex128], shape: tuple[int, int]) -> NDArray[np.complex128]:
    """The middle: pixel [H // 2, W // 2] stays the centre."""
    height, width = waves.shape[1:]
    window = Window(height // 2 - shape[0] // 2, width // 2 - shape[1] // 2, *shape)
    return window.apply(waves)
