"""From what a file holds to a scan: units, orientation, crop, bins (specs/data.md, Readers)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.io.places import place_of, read_place, stated_positions
from ptycho_core.scans.frames import Frames, in_memory
from ptycho_core.scans.geometry import object_pixel_m, photon_wavelength_m, positions_m_to_px
from ptycho_core.scans.scan import Scan
from ptycho_core.scans.steps import Bin, Blank, Orient, Roll, Step, Window, centred, fftshift
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.storage.source import FrameSource
from ptycho_core.vocabulary import Measurement

log = logging.getLogger(__name__)

Pair = tuple[float, float]
UNKNOWN_PROBE = "auto"
"""`ReadOptions.probe` where the probe is not known, whatever the file says of it."""


@attrs.frozen(eq=False, kw_only=True)
class Stored:
    """What a reader found, as the file has it; None: the file does not say.

    frames: stored patterns (M, H, W), of which `index` are used; steps: what they need before all else.
    positions: (M, 2), [x, y] = [column, row], in `unit`. pixel_m: (x, y), of an object pixel of the stored patterns.
    origin, origin_px: (x, y) of one point, in `unit` and in pixels. detector_pixel_m: (x, y).
    probe: complex (N, N) or (…, modes, N, N), of which the first modes are used. bad_pixels: (H, W), after `steps`.
    """

    path: Path
    reader: str
    frames: FrameSource
    key: str | None
    measurement: Measurement | None
    steps: tuple[Step, ...] = ()
    index: NDArray[np.int64] | None = None
    positions: NDArray[Any] | None = None
    unit: Literal["px", "m"] = "px"
    pixel_m: Pair | None = None
    origin: Pair = (0.0, 0.0)
    origin_px: Pair = (0.0, 0.0)
    nominal_positions: NDArray[Any] | None = None
    scan_index: NDArray[Any] | None = None
    probe: NDArray[Any] | None = None
    object: NDArray[Any] | None = None
    bad_pixels: NDArray[Any] | None = None
    energy_eV: float | None = None
    wavelength_m: float | None = None
    distance_m: float | None = None
    detector_pixel_m: Pair | None = None
    dose_known: bool | None = None
    metadata: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen
class Grid:
    """The detector before and after: stored (H, W), cropped to `window`, `bin` pixels added, padded to N."""

    height: int
    width: int
    window: tuple[int, int]
    bin: int
    N: int

    @property
    def scale(self) -> NDArray[np.float64]:
        """(x, y): new object pixels in a stored one, because an object pixel is λ z / (extent of the detector)."""
        return self.N * self.bin / np.array([self.width, self.height], np.float64)

    @property
    def unchanged(self) -> bool:
        return bool((self.scale == 1).all())


def assemble(stored: Stored, options: ReadOptions) -> Scan:
    """The scan that `stored` is, read as `options` state. Raises DataError that names the option which is missing."""
    measurement = options.measurement or stored.measurement
    if measurement is None:
        received = f"{stored.frames.dtype}, which may be either"
        raise missing(stored.path, stored.key, "measurement", "intensity (counts) or amplitude", received)
    stored = _with_positions(stored, options)
    steps, grid = detector_steps(stored, options)
    frames = Frames(
        stored.frames, measurement=measurement, steps=steps, name=stored.path, key=stored.key, index=stored.index
    )
    lengths = _lengths(stored, options, grid)
    unknown = options.probe == UNKNOWN_PROBE
    scan = Scan(
        diffraction_amplitude=in_memory(frames),
        positions_px=_positions(stored, options, grid, lengths, np.asarray(stored.positions)),
        nominal_positions_px=None
        if stored.nominal_positions is None
        else _positions(stored, options, grid, lengths, stored.nominal_positions),
        probe=np.ones((1, grid.N, grid.N), np.complex64) if unknown else _probe(stored, options, grid),
        probe_known=not unknown,
        bad_pixels=frames.bad_pixels,
        object_field=_object(stored, options, grid),
        scan_index=stored.scan_index,
        dose_known=measurement == "intensity" if stored.dose_known is None else stored.dose_known,
        source=str(stored.path),
        metadata={**stored.metadata, **lengths, "reader": stored.reader},
    )
    return scan


def missing(
    path: Path, key: str | None, option: str, expected: str, received: str = "nothing that says so"
) -> DataError:
    """What has to be stated: the message names the option."""
    return DataError(
        path, key, expected=f"{option}: {expected}", received=received, remedy="State it.", state=(option,)
    )


def _with_positions(stored: Stored, options: ReadOptions) -> Stored:
    """With the positions that the user names, where there are any: they override those of the file."""
    if options.positions is None:
        if stored.positions is None:
            raise missing(stored.path, None, "positions", "FILE, FILE:DATASET or a data set", "none in the file")
        return stored
    order, unit = options.position_order, options.position_unit
    if order is None:
        raise missing(stored.path, options.positions, "position_order", "xy or yx")
    if unit is None:
        raise missing(stored.path, options.positions, "position_unit", "px or m")
    count = stored.frames.shape[0] if stored.index is None else len(stored.index)
    positions = stated_positions(stored.path, options, count)
    return attrs.evolve(
        stored, positions=positions, unit=unit, origin=(0.0, 0.0), origin_px=(0.0, 0.0), nominal_positions=None
    )


def detector_orientation(options: ReadOptions) -> Orient:
    """How the options turn the stored patterns."""
    return Orient(options.transpose, options.flip_rows, options.flip_columns)


def detector_steps(stored: Stored, options: ReadOptions) -> tuple[tuple[Step, ...], Grid]:
    """Bad pixels blank, DC in the centre, orientation, crop, bins and pad, in this order."""
    steps = list(stored.steps)
    height, width = stored.frames.shape[1:]
    for step in steps:
        height, width = step.shape(height, width)
    bad = _bad_pixels(stored, options, (height, width))
    if bad.any():
        steps.append(Blank(bad))
    if options.dc == "corner":
        steps.append(fftshift((height, width)))
    centre = options.centre or (height // 2, width // 2)
    if not (centre[0] < height and centre[1] < width):
        received, remedy = f"row {centre[0]}, column {centre[1]}", "Give the pixel of the direct beam."
        expected = f"a centre on {height} x {width} pixels"
        raise DataError(stored.path, stored.key, expected=expected, received=received, remedy=remedy)
    turn = detector_orientation(options)
    if turn != Orient():
        steps.append(turn)
        height, width = turn.shape(height, width)
        row, column = centre[::-1] if turn.transpose else centre
        centre = (height - 1 - row if turn.flip_rows else row, width - 1 - column if turn.flip_columns else column)
    crop = options.crop or (min(height, width) if options.centre else None)
    window = (height, width) if crop is None else (crop, crop)
    middle = height // 2, width // 2
    if options.centre is None and window == (height, width):
        if centre != middle:  # a flip about the centre: the row that leaves is the one that enters
            steps.append(Roll(middle[0] - centre[0], middle[1] - centre[1]))
    elif crop is not None and (window != (height, width) or centre != middle):
        steps.append(centred((height, width), crop, centre))
    if options.bin > 1:
        steps.append(Bin(options.bin))
    side = window[0] // options.bin, window[1] // options.bin
    if options.pad is not None and side != (options.pad, options.pad):
        if max(side) > options.pad:
            received, remedy = f"pad = {options.pad}", "Use crop to make patterns smaller."
            expected = f"at least {max(side)} pixels"
            raise DataError(stored.path, stored.key, expected=expected, received=received, remedy=remedy)
        steps.append(centred(side, options.pad))
        side = options.pad, options.pad
    if side[0] != side[1]:
        expected, received = "square patterns", f"{side[0]} x {side[1]} pixels"
        remedy, state = "Crop or pad them.", ("crop", "pad")
        raise DataError(stored.path, stored.key, expected=expected, received=received, remedy=remedy, state=state)
    return tuple(steps), Grid(height, width, window, options.bin, side[0])


def _bad_pixels(stored: Stored, options: ReadOptions, shape: tuple[int, int]) -> NDArray[np.bool_]:
    masks = [("bad_pixels", stored.bad_pixels)] if stored.bad_pixels is not None else []
    if options.bad_pixels is not None:
        place = place_of(options.bad_pixels, stored.path)
        masks.append((str(place), read_place(place, "bad_pixels", kinds="biuf")))
    bad = np.zeros(shape, bool)
    for name, mask in masks:
        mask = np.squeeze(np.asarray(mask)) if np.ndim(mask) > 2 else np.asarray(mask)
        if mask.shape != shape:
            remedy = "Give a mask of the stored patterns, before crop and bins."
            expected, received = f"shape {shape}", f"shape {mask.shape}"
            raise DataError(stored.path, name, expected=expected, received=received, remedy=remedy)
        bad |= mask != 0
    return bad


def _lengths(stored: Stored, options: ReadOptions, grid: Grid) -> dict[str, Any]:
    """What is known of the experiment, by the keys of specs/data.md, Geometry, after crop and bins."""
    lengths: dict[str, Any] = {}
    energy, wavelength = options.energy_eV, options.wavelength_m
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
        if value is not None and not 0 < value < np.inf:
            remedy = "State the true value."
            raise DataError(stored.path, name, expected="a number > 0", received=value, remedy=remedy, state=(name,))


def _positions(
    stored: Stored, options: ReadOptions, grid: Grid, lengths: Mapping[str, Any], positions: NDArray[Any]
) -> NDArray[np.float64]:
    """[x, y] in pixels of the object grid of the new patterns."""
    positions = np.asarray(positions, np.float64)
    if not np.isfinite(positions).all():
        remedy = "Drop the frames without a position."
        raise DataError(stored.path, "positions", expected="finite numbers", received="NaN or infinity", remedy=remedy)
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
        extent = np.ptp(positions, axis=0).max()
        log.info("%s: object pixels of %s m; the positions span %.4g of them", stored.path, pixel.tolist(), extent)
    else:
        positions = positions * grid.scale
    positions = positions * options.position_scale
    if options.transpose_positions:
        positions = positions[:, ::-1]
    return positions * np.where([options.flip_x, options.flip_y], -1.0, 1.0)


def _probe(stored: Stored, options: ReadOptions, grid: Grid) -> NDArray[np.complex64]:
    """(modes, N, N), on the object grid of the new patterns."""
    probe, name = stored.probe, "probe"
    if options.probe is not None:
        place = place_of(options.probe, stored.path)
        probe, name = read_place(place, "probe", kinds="biufc"), str(place)
    if probe is None:
        raise missing(stored.path, None, "probe", "(N, N) or (modes, N, N) complex probe", "none in the file")
    if probe.ndim < 2 or 0 in probe.shape or probe.dtype.kind not in "biufc":
        remedy = "Name another array."
        expected, received = "(N, N) or (modes, N, N) complex numbers", f"{probe.dtype} of shape {probe.shape}"
        raise DataError(stored.path, name, expected=expected, received=received, remedy=remedy)
    probe = probe[None] if probe.ndim == 2 else probe
    if probe.ndim > 3:
        extra = probe.shape[:-3]
        if np.prod(extra) > 1:
            log.warning("%s: %s: the first of %s position-dependent probes is used", stored.path, name, extra)
        probe = probe[(0,) * len(extra)]
    probe = np.asarray(probe, np.complex128)
    turn = Orient(options.transpose_probe, options.flip_probe_rows, options.flip_probe_columns)
    if turn != Orient():
        probe = turn.apply(probe)
        moves = tuple(
            int(flip and length % 2 == 0)
            for flip, length in zip((turn.flip_rows, turn.flip_columns), probe.shape[1:], strict=True)
        )
        probe = np.roll(probe, moves, axis=(1, 2))
    shape = probe.shape[1:]
    if shape == (grid.height, grid.width):
        probe = refit(probe, grid)
    elif shape != (grid.N, grid.N):
        sizes = " or ".join(sorted({f"{grid.height} x {grid.width}", f"{grid.N} x {grid.N}"}))
        expected = f"{sizes} pixels, as the patterns before or after crop, bins and pad"
        remedy = "Resample the probe, or name another."
        received = f"{shape[0]} x {shape[1]}"
        raise DataError(stored.path, name, expected=expected, received=received, remedy=remedy)
    return probe.astype(np.complex64)


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
