"""The NPZ contract (specs/data.md, NPZ) and reconstructions. No pickle is ever read or written."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.io.assembly import UNKNOWN_PROBE, Pair, Stored, assemble
from ptycho_core.scans.counts import counts_beyond_roots, counts_type
from ptycho_core.scans.frames import Frames
from ptycho_core.scans.scan import Scan
from ptycho_core.scans.steps import Orient, Step
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.storage.files import check_space
from ptycho_core.storage.hdf5 import signature_of
from ptycho_core.storage.npz import MAGIC, Member, npz_frames, npz_members, read_npz, write_npz
from ptycho_core.storage.source import ArraySource, FrameSource
from ptycho_core.vocabulary import Measurement

log = logging.getLogger(__name__)

PATTERNS = ("diff3d", "diffraction")
METADATA = "_metadata"
AMPLITUDE_UNIT = "sqrt(counts)"
AXES = "frame, row, column"
FRAMES_FIRST = "bad_pixels"
"""A key that only writers of (M, N, N) know: this package and Ptychodus."""
KEYS = (
    "xcoords",
    "ycoords",
    "xcoords_start",
    "ycoords_start",
    "probeGuess",
    "objectGuess",
    "bad_pixels",
    "scan_index",
    METADATA,
)


def load_npz_scan(path: Path, *, measurement: Measurement | None = None, needs_probe: bool = True) -> Scan:
    """A scan from the NPZ contract; many patterns stay in the file until they are asked for.

    measurement: what `diff3d` holds. Unstated, integers are intensity (counts) and real numbers amplitude, unless
    `_metadata` says which. needs_probe: False makes a scan of a file without one, its probe unknown. Raises DataError
    naming the file and the key.
    """
    options = ReadOptions(measurement=measurement)
    stored = _stored(path, options)
    if stored.probe is None and not needs_probe:
        options = attrs.evolve(options, probe=UNKNOWN_PROBE)
    return assemble(stored, options)


def _stored(path: Path, options: ReadOptions) -> Stored:
    """What the file holds, as it is stored; what is stated in the options is not needed."""
    members = npz_members(path)
    key = next((name for name in PATTERNS if name in members), PATTERNS[0])
    arrays = read_npz(path, KEYS)
    metadata = _metadata(path, arrays)
    positions = nominal = None
    if options.positions is None and options.scan_step is None:
        for name, what in (("xcoords", "(M,) column of each position"), ("ycoords", "(M,) row of each position")):
            _require(path, members, name, what)
        positions = positions_of(path, arrays["xcoords"], arrays["ycoords"])
        if "xcoords_start" in arrays and "ycoords_start" in arrays:
            nominal = positions_of(path, arrays["xcoords_start"], arrays["ycoords_start"], suffix="_start")
    _require(path, members, key, "(M, N, N) diffraction patterns")
    if options.probe is None:
        _require(path, members, "probeGuess", "(N, N) or (modes, N, N) complex probe")
    count = None if positions is None else len(positions)
    turned = (
        count is not None
        and metadata.get("axes") != AXES
        and _frames_last(path, key, members[key].shape, count, settled=FRAMES_FIRST in members)
    )
    stated = options.measurement or metadata.get("measurement")
    source, steps, measurement = _patterns(path, members[key], stated, frames_last=turned)
    known = {name: _lengths_of(metadata.get(name)) for name in LENGTHS}
    return Stored(
        path=path,
        reader=NpzReader.name,
        frames=source,
        key=key,
        measurement=measurement,
        steps=steps,
        positions=positions,
        unit="px",
        pixel_m=_pair(known["object_pixel_m"]),
        nominal_positions=nominal,
        scan_index=arrays.get("scan_index"),
        probe=arrays.get("probeGuess"),
        object=arrays.get("objectGuess"),
        bad_pixels=_mask(path, arrays.get("bad_pixels")),
        keeps_bad=True,
        energy_eV=_one(known["photon_energy_eV"]),
        wavelength_m=_one(known["wavelength_m"]),
        distance_m=_one(known["detector_distance_m"]),
        detector_pixel_m=_pair(known["detector_pixel_m"]),
        dose_known=measurement == "intensity" or metadata.get("amplitude_unit") == AMPLITUDE_UNIT,
        metadata=metadata,
    )


def _require(path: Path, members: Collection[str], key: str, what: str) -> None:
    if key not in members:
        remedy = f"The file holds: {', '.join(sorted(members)) or 'nothing'}. "
        remedy += "State it." if key == "probeGuess" else "Name the parts of another file."
        state = ("probe",) if key == "probeGuess" else ("dataset", "positions", "probe")
        raise DataError(path, key, expected=what, received="no such key", remedy=remedy, state=state)


@attrs.frozen(eq=False)
class _Counts:
    """Counts to write, in pieces: an array as `write_npz` takes it."""

    frames: Frames
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.frames.shape

    def blocks(self) -> Iterator[NDArray[Any]]:
        return self.frames.counts()


def save_npz_scan(path: Path, scan: Scan) -> None:
    """The scan in the NPZ contract: amplitudes under `diff3d`, `_metadata` as JSON text. Whole or not at all.

    Counts whose roots in float32 do not tell them are written as counts; a probe that is not known is left out.
    """
    assert scan.nominal_positions_px is not None and scan.bad_pixels is not None and scan.scan_index is not None
    frames = counts_beyond_roots(scan)
    counts = None if frames is None else _Counts(frames, counts_type(scan))
    metadata = {**scan.metadata, "measurement": "amplitude" if counts is None else "intensity", "axes": AXES}
    metadata.pop("amplitude_unit", None)
    if scan.dose_known:
        metadata["amplitude_unit"] = AMPLITUDE_UNIT
    try:
        text = json.dumps(metadata)
    except (TypeError, ValueError) as error:
        remedy = "Keep plain numbers, text, lists and mappings in a scan's metadata."
        raise DataError(path, METADATA, expected="JSON", received=error, remedy=remedy) from error
    arrays = {
        "diff3d": scan.diffraction_amplitude if counts is None else counts,
        "xcoords": scan.positions_px[:, 0],
        "ycoords": scan.positions_px[:, 1],
        "xcoords_start": scan.nominal_positions_px[:, 0],
        "ycoords_start": scan.nominal_positions_px[:, 1],
        "probeGuess": scan.probe[0] if len(scan.probe) == 1 else scan.probe,
        "bad_pixels": scan.bad_pixels,
        "scan_index": scan.scan_index,
        METADATA: np.array(text),
    }
    if not scan.probe_known:
        del arrays["probeGuess"]
    if scan.object_field is not None:
        arrays["objectGuess"] = scan.object_field
    check_space(path, sum(np.dtype(array.dtype).itemsize * math.prod(array.shape) for array in arrays.values()))
    write_npz(path, arrays)


def stated_measurement(path: Path) -> Measurement | None:
    """What the file itself says that its patterns hold; None where it is silent. Raises DataError."""
    stated: Measurement | None = _metadata(path, read_npz(path, (METADATA,))).get("measurement")
    return stated


def _metadata(path: Path, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    if METADATA not in arrays:
        return {}
    try:
        metadata = json.loads(str(arrays[METADATA]))
    except (ValueError, RecursionError) as error:
        remedy = "Drop the key: it is optional."
        raise DataError(path, METADATA, expected="JSON text", received=error, remedy=remedy) from error
    if not isinstance(metadata, dict) or metadata.get("measurement") not in (None, "amplitude", "intensity"):
        expected = "a JSON object; its measurement, if any, amplitude or intensity"
        raise DataError(path, METADATA, expected=expected, received=metadata, remedy="Correct the key or drop it.")
    return metadata


def _mask(path: Path, mask: NDArray[Any] | None) -> NDArray[np.bool_] | None:
    if mask is None:
        return None
    if mask.dtype.kind not in "biuf" or not np.isin(mask, (0, 1)).all():
        received, remedy = f"{mask.dtype} with other values than 0 and 1", "Save booleans, true where a pixel is bad."
        raise DataError(path, "bad_pixels", expected="(N, N) booleans", received=received, remedy=remedy)
    return mask.astype(bool)


def _patterns(
    path: Path, member: Member, measurement: Measurement | None, *, frames_last: bool
) -> tuple[FrameSource, tuple[Step, ...], Measurement]:
    """The patterns as stored, the steps that they need, and what they hold. measurement: where it is stated."""
    key, dtype = member.key, member.dtype
    if dtype.kind not in "biuf":
        raise DataError(path, key, expected="real numbers", received=f"dtype {dtype}", remedy="Convert it.")
    source, turned = npz_frames(path, member, frames_last=frames_last)
    steps = (Orient(transpose=True),) if turned else ()
    return source, steps, _measurement(path, key, source, measurement)


def _measurement(path: Path, key: str, source: FrameSource, stated: Measurement | None) -> Measurement:
    """What the patterns hold: what is stated, or what their type says."""
    if stated is not None:
        return stated
    dtype = source.dtype
    measurement: Measurement = "amplitude" if dtype.kind == "f" else "intensity"
    log.info("%s: %s: read as %s, because the type is %s", path, key, measurement, dtype)
    first = next(source.blocks(1), np.ones(0))
    if measurement == "amplitude" and np.array_equal(first, np.round(first)):
        log.warning("%s: %s: all whole numbers: if they are counts, say so (--measurement intensity)", path, key)
    return measurement


def amplitude_of(
    path: Path, key: str, patterns: NDArray[Any], measurement: Measurement | None
) -> tuple[NDArray[Any], bool]:
    """Amplitudes of patterns in memory, of any shape, and whether their squares are known to be counts."""
    if patterns.ndim != 3:
        return patterns, False  # the scan's own check says what is wrong
    frames = Frames(ArraySource(patterns), name=path, key=key)
    frames.measurement = _measurement(path, key, frames.source, measurement)
    return np.asarray(frames), frames.measurement == "intensity"


def _frames_last(path: Path, key: str, shape: tuple[int, ...], count: int, *, settled: bool) -> bool:
    """Whether it is the older (N, N, M): only where that is the one possible reading. settled: no doubt is left."""
    if len(shape) != 3:
        return False
    first, middle, last = shape
    older = first == middle and last == count
    newer = middle == last and first == count
    if older and newer and first > 1 and not settled:
        expected = "a number of patterns that differs from their size"
        remedy = (
            f"{count} patterns of {first} x {first} can be read as (M, N, N) and as (N, N, M): "
            f"name its parts as (M, N, N), or say in {METADATA} that the axes are {AXES!r}"
        )
        parts = "positions=xcoords,ycoords", "position_order=xy", "position_unit=px", "probe=probeGuess"
        state = (f"dataset={key}", *parts)
        raise DataError(path, key, expected=expected, received=f"shape {shape}", remedy=remedy, state=state)
    return older and not newer


def positions_of(path: Path, x: NDArray[Any], y: NDArray[Any], suffix: str = "") -> NDArray[np.float64]:
    keys = f"xcoords{suffix}", f"ycoords{suffix}"
    for key, coordinates in zip(keys, (x, y), strict=True):
        if coordinates.ndim != 1 or coordinates.dtype.kind not in "iuf":
            received = f"{coordinates.dtype} of shape {coordinates.shape}"
            remedy = "Save one column and one row coordinate for each pattern."
            raise DataError(path, key, expected="(M,) real numbers", received=received, remedy=remedy)
    if len(x) != len(y):
        remedy = "Save one column and one row coordinate for each pattern."
        received = f"{len(x)} and {len(y)}"
        raise DataError(path, ", ".join(keys), expected="equal lengths", received=received, remedy=remedy)
    return np.stack([x, y], axis=-1).astype(np.float64)


LENGTHS = ("photon_energy_eV", "wavelength_m", "detector_distance_m", "detector_pixel_m", "object_pixel_m")


class NpzReader:
    name = "npz"
    description = "NPZ contract: diff3d, xcoords, ycoords, probeGuess"
    endings = (".npz",)

    def matches(self, path: Path) -> bool:
        """Any zip file and any array: its keys are looked at when it is read, and named where they are missing."""
        return signature_of(path).startswith((b"PK", MAGIC))

    def read(self, path: Path, options: ReadOptions) -> Scan:
        return assemble(_stored(path, options), options)


def _lengths_of(value: Any) -> tuple[float, ...]:
    """One length or a list of them, as a metadata value may be; empty for anything else."""
    values = value if isinstance(value, list) else [value]
    fits = all(isinstance(number, (int, float)) and not isinstance(number, bool) and number > 0 for number in values)
    return tuple(map(float, values)) if fits else ()


def _one(numbers: tuple[float, ...]) -> float | None:
    return numbers[0] if len(numbers) == 1 else None


def _pair(numbers: tuple[float, ...]) -> Pair | None:
    return (numbers[0], numbers[1]) if len(numbers) == 2 else None
