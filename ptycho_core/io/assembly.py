"""From what a file holds to a scan: units, orientation, crop, bins (specs/data.md, Readers)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.io.detector import detector_orientation, detector_steps
from ptycho_core.io.places import place_of, read_place, stated_positions
from ptycho_core.io.probes import refit, scan_probe
from ptycho_core.io.selection import measured_frames, stated_frames, taken
from ptycho_core.io.stored import Grid, Pair, Stored, missing
from ptycho_core.scans.findings import MOST_BAD, Finding, Noticed, mask_finding
from ptycho_core.scans.frames import Frames, in_memory
from ptycho_core.scans.geometry import (
    LARGEST,
    LEAST,
    electron_wavelength_m,
    object_pixel_m,
    photon_wavelength_m,
    positions_m_to_px,
    raster,
    turned,
)
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.settings.words import numbers

__all__ = ["Grid", "Pair", "Stored", "assemble", "detector_orientation", "missing", "refit"]

log = logging.getLogger(__name__)

UNKNOWN_PROBE = "auto"
"""`ReadOptions.probe` where the probe is not known, whatever the file says of it."""


def assemble(stored: Stored, options: ReadOptions) -> Scan:
    """The scan that `stored` is, read as `options` state. Raises DataError that names the option which is missing."""
    measurement = options.measurement or stored.measurement
    if measurement is None:
        received = f"{stored.frames.dtype}, which may be either"
        raise missing(stored.path, stored.key, "measurement", "intensity (counts) or amplitude", received)
    dose_known = measurement == "intensity" if stored.dose_known is None else stored.dose_known
    stored, frame_numbers = stated_frames(_with_positions(stored, options), options)
    steps, grid, bad = detector_steps(stored, options, measurement)
    frames = Frames(
        stored.frames,
        measurement=measurement,
        steps=steps,
        name=stored.path,
        key=stored.key,
        index=stored.index,
        saturation=options.saturation,
    )
    lengths = _lengths(stored, options, grid)
    straight = _positions(stored, options, grid, lengths, np.asarray(stored.positions))
    middle = straight.mean(axis=0)
    positions, nominal = _bent(straight, options, middle), stored.nominal_positions
    if nominal is not None:
        nominal = _bent(_positions(stored, options, grid, lengths, nominal), options, middle)
    unknown = options.probe == UNKNOWN_PROBE  # asked for before a pattern is read, which may take long
    probe = np.ones((1, grid.N, grid.N), np.complex64) if unknown else scan_probe(stored, options, grid, lengths)
    if stored.unit == "m":
        (x, y), span = lengths["object_pixel_m"], np.ptp(positions, axis=0).max()
        log.info("%s: object pixels of %.4g x %.4g nm; the positions span %.4g px", stored.path, x * 1e9, y * 1e9, span)
    elif not np.allclose(grid.scale, 1):
        log.info("%s: positions in pixels of the stored patterns: times %.4g (x), %.4g (y)", stored.path, *grid.scale)
    left = measured_frames(stored, frames, positions, options, counts=dose_known)
    if left is not None:
        stored, frames, frame_numbers = taken(stored, left), frames.select(left), frame_numbers[left]
        positions, nominal = positions[left], None if nominal is None else nominal[left]
    scan = Scan(
        diffraction_amplitude=_amplitude(stored, frames),
        positions_px=positions,
        nominal_positions_px=nominal,
        probe=probe,
        probe_known=not unknown,
        bad_pixels=frames.bad_pixels,
        object_field=_object(stored, options, grid),
        scan_index=stored.scan_index,
        dose_known=dose_known,
        source=str(stored.path),
        metadata={**stored.metadata, **lengths, "reader": stored.reader},
        noticed=Noticed(frames=frame_numbers),
    )
    found = tuple(_noticed(frames, scan, bad, options))
    noticed = Noticed(frames=frame_numbers, findings=found, centre=grid.centre, bin=grid.bin)
    object.__setattr__(scan, "noticed", noticed)
    return scan


def _amplitude(stored: Stored, frames: Frames) -> NDArray[np.float32] | Frames:
    """The patterns in memory, if they are few; DataError where their type was too small for them."""
    amplitude = in_memory(frames)
    if stored.frames.dtype == np.float16 and isinstance(amplitude, np.ndarray) and np.isposinf(amplitude).any():
        expected, received = "numbers that fit the type", "infinity in float16, which ends at 65504"
        remedy = "Store counts as integers, or as float32."
        raise DataError(stored.path, stored.key, expected=expected, received=received, remedy=remedy)
    return amplitude


def _noticed(frames: Frames, scan: Scan, bad: NDArray[np.bool_], options: ReadOptions) -> Iterator[Finding]:
    """What the pass over the stored patterns has shown of masks and saturation."""
    watch, outside = frames.watched, float(frames.bad_pixels.mean())
    kept = float(scan.statistics.frame_intensity.sum())
    if bad.mean() > MOST_BAD:
        yield mask_finding(int(bad.sum()), bad.size)
    elif outside > MOST_BAD and options.pad is None:
        yield Finding(
            severity="warning",
            what="crop",
            expected="a window on the detector",
            received=f"{100 * outside:.0f} % of its pixels outside the detector, or bad",
            remedy="State the pixel of the direct beam",
            state=("centre_row", "centre_column"),
        )
    elif watch is not None and bad.mean() > 0.01 and frames.measurement == "intensity" and watch.hidden > kept:
        yield Finding(
            severity="warning",
            what="bad pixels",
            expected="most counts in good pixels",
            received=f"{100 * watch.hidden / (watch.hidden + kept):.0f} % of them in {int(bad.sum())} bad ones: "
            "the mask may be the other way round",
            remedy="If it marks the good pixels, say so",
            state=("good_pixels",),
            count=int(bad.sum()),
        )
    if watch is not None and watch.level is not None and (count := int((watch.saturated > 0).sum())):
        always = int((watch.saturated == len(frames)).sum())
        stays = f", {always} of them in every one, as dead pixels are" if always else ""
        yield Finding(
            severity="warning",
            what="saturated pixels",
            expected=f"values below {watch.level:.10g}",
            received=f"that or more in {count} pixel{'s' * (count > 1)} of {watch.full} patterns{stays}",
            remedy="Mark them as bad",
            state=("mask=saturated",),
            count=count,
        )


def _with_positions(stored: Stored, options: ReadOptions) -> Stored:
    """With the positions that the user states, where there are any: they override those of the file."""
    if options.positions is None and options.scan_step is None:
        if stored.positions is None:
            kinds, state = "FILE, FILE:DATASET or a data set, or the step of a raster", ("positions", "scan_step")
            raise DataError(
                stored.path,
                expected=f"positions: {kinds}",
                received="none in the file",
                remedy="State them",
                state=state,
            )
        return stored
    what, unit = options.positions or "raster", options.position_unit
    if options.positions is not None and options.position_order is None:
        raise missing(stored.path, what, "position_order", "xy or yx")
    if unit is None:
        raise missing(stored.path, what, "position_unit", "px or m")
    if options.scan_step is not None:
        positions = _raster(stored, options)
    else:
        positions = stated_positions(stored.path, options, stored.count)
    return attrs.evolve(
        stored, positions=positions, unit=unit, origin=(0.0, 0.0), origin_px=(0.0, 0.0), nominal_positions=None
    )


def _raster(stored: Stored, options: ReadOptions) -> NDArray[np.float64]:
    """(M, 2) of a raster, row after row, in the unit of its step."""
    assert options.scan_step is not None
    shape = stored.raster
    if options.scan_shape is not None:
        rows, columns = (int(number) for number in numbers(options.scan_shape))
        shape = rows, columns
    if shape is None:
        raise missing(stored.path, stored.key, "scan_shape", "rows and columns of the raster")
    if shape[0] * shape[1] != stored.count:
        expected = f"{stored.count} patterns = rows x columns"
        received, state = f"{shape[0]} x {shape[1]}", ("scan_shape",)
        remedy = "State the shape of the raster"
        raise DataError(stored.path, stored.key, expected=expected, received=received, remedy=remedy, state=state)
    step = numbers(options.scan_step)
    return raster(shape, (step[-1], step[0]), options.scan_rotation)


def _lengths(stored: Stored, options: ReadOptions, grid: Grid) -> dict[str, Any]:
    """What is known of the experiment, by the keys of specs/data.md, Geometry, after crop and bins."""
    lengths: dict[str, Any] = {}
    energy, wavelength = options.energy_eV, options.wavelength_m
    if options.voltage_kV is not None:
        lengths["electron_energy_eV"] = 1e3 * options.voltage_kV
        wavelength = electron_wavelength_m(1e3 * options.voltage_kV)
    if energy is None and wavelength is None:
        energy, wavelength = stored.energy_eV, stored.wavelength_m
    _check_positive(stored, energy_eV=energy, wavelength_m=wavelength)
    if energy is not None:
        lengths["photon_energy_eV"] = float(energy)
        wavelength = photon_wavelength_m(energy) if wavelength is None else wavelength
    if wavelength is not None:
        lengths["wavelength_m"] = float(wavelength)
    distance = options.distance_m if options.distance_m is not None else stored.distance_m
    pixel = stored.detector_pixel_m
    if options.detector_pixel_m is not None:
        pixel = (options.detector_pixel_m, options.detector_pixel_m)
    elif pixel is not None and options.transpose:
        pixel = pixel[::-1]
    x, y = (None, None) if pixel is None else pixel
    _check_positive(stored, distance_m=distance, detector_pixel_m=x)
    _check_positive(stored, detector_pixel_m=y)
    if distance is not None:
        lengths["detector_distance_m"] = float(distance)
    if x is not None and y is not None:
        lengths["detector_pixel_m"] = [float(x) * grid.bin, float(y) * grid.bin]
    if stored.pixel_m is not None:
        stored_pixel = stored.pixel_m[::-1] if options.transpose else stored.pixel_m
        lengths["object_pixel_m"] = (np.asarray(stored_pixel) / grid.scale).tolist()
    elif wavelength is not None and distance is not None and "detector_pixel_m" in lengths:
        pair = lengths["detector_pixel_m"]
        lengths["object_pixel_m"] = [object_pixel_m(wavelength, distance, grid.N, side) for side in pair]
    return lengths


def _check_positive(stored: Stored, **lengths: float | None) -> None:
    for name, value in lengths.items():
        if value is not None and not LEAST <= value <= LARGEST:
            remedy = "State the true value."
            expected = "a number > 0" if not 0 < value < np.inf else f"a number from {LEAST:g} to {LARGEST:g}"
            raise DataError(stored.path, name, expected=expected, received=value, remedy=remedy, state=(name,))


def _positions(
    stored: Stored, options: ReadOptions, grid: Grid, lengths: Mapping[str, Any], positions: NDArray[Any]
) -> NDArray[np.float64]:
    """[x, y] in pixels of the object grid of the new patterns."""
    positions = np.asarray(positions, np.float64)
    if stored.unit == "m":
        if "object_pixel_m" not in lengths:
            for option, key in (
                ("energy_eV", "wavelength_m"),
                ("distance_m", "detector_distance_m"),
                ("detector_pixel_m", "detector_pixel_m"),
            ):
                if key not in lengths:
                    raise missing(stored.path, "positions", option, "to convert metres to object pixels")
        pixel = np.asarray(lengths["object_pixel_m"])
        origin_px = np.asarray(stored.origin_px) * grid.scale
        positions = positions_m_to_px(positions, pixel, origin_m=stored.origin, origin_px=origin_px)
    else:
        positions = positions * grid.scale
    positions = positions * options.position_scale
    if options.transpose_positions:
        positions = positions[:, ::-1]
    return positions * np.where([options.flip_x, options.flip_y], -1.0, 1.0)


def _bent(positions: NDArray[np.float64], options: ReadOptions, about: NDArray[np.float64]) -> NDArray[np.float64]:
    """After the matrix and the rotation that are stated, both about one point."""
    if not options.bent_positions:
        return positions
    matrix = (1.0, 0.0, 0.0, 1.0) if options.affine is None else numbers(options.affine)
    return turned(positions, matrix, options.rotate_positions, about)


def _object(stored: Stored, options: ReadOptions, grid: Grid) -> NDArray[Any] | None:
    field, name = stored.object, "object"
    if options.object is not None:
        place = place_of(options.object, stored.path)
        field, name = read_place(place, "object", kinds="biufc"), str(place)
    if field is None:
        return None
    same = grid.unchanged and options.position_scale == 1 and not options.turned_positions
    if options.object is None and not (same and options.positions is None):
        log.warning("%s: the reference object is left out: it is on another grid than the positions", stored.path)
        return None
    while field.ndim > 2:
        if len(field) > 1:
            log.warning("%s: %s: the first of %d layers is used", stored.path, name, len(field))
        if len(field) == 0:
            break
        field = field[0]
    return field
