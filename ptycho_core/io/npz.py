"""The NPZ contract (specs/data.md, NPZ) and reconstructions. No pickle is ever read or written."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ptycho_core.contracts import Scan
from ptycho_core.errors import DataError, explain
from ptycho_core.io.files import BROKEN_HEADER, COMPRESSION, UNREADABLE, replacing

log = logging.getLogger(__name__)

Measurement = Literal["amplitude", "intensity"]

PATTERNS = ("diff3d", "diffraction")
METADATA = "_metadata"
AMPLITUDE_UNIT = "sqrt(counts)"
AXES = "frame, row, column"


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """All members of an NPZ file by key. Object arrays (pickles) are refused; so is a file that cannot be read."""

    def refuse(key: str | None, received: object, remedy: str) -> DataError:
        return DataError(explain(path, key, expected="a readable NPZ file", received=received, remedy=remedy))

    try:
        loaded = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise refuse(None, "no such file", "Check the path.") from error
    except UNREADABLE as error:
        raise refuse(None, error, "Write it with numpy.savez; it may be truncated.") from error
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        raise refuse(None, "a single .npy array", "Put the arrays of the contract into one .npz file.")
    arrays: dict[str, NDArray[Any]] = {}
    with loaded:
        methods = {info.compress_type for info in loaded.zip.infolist()} if loaded.zip is not None else set()
        if not methods <= set(COMPRESSION):
            raise refuse(None, f"compression of kind {max(methods)}", "Write it with numpy.savez; it may be damaged.")
        for key in loaded.files:
            try:
                array = loaded[key]
            except BROKEN_HEADER as error:
                raise refuse(key, error, "Save plain number arrays, no objects.") from error
            except (*UNREADABLE, MemoryError) as error:
                raise refuse(key, error, "The file is truncated or damaged: write it again.") from error
            if isinstance(array, np.ndarray):  # numpy gives the bytes of any other member
                arrays[key] = array
    return arrays


def load_npz_scan(path: Path, *, measurement: Measurement | None = None) -> Scan:
    """A scan from the NPZ contract.

    measurement: what `diff3d` holds. Unstated, integers are intensity (counts) and real numbers amplitude, unless
    `_metadata` says which. Raises DataError naming the file and the key.
    """
    arrays = read_npz(path)

    def take(key: str, what: str) -> NDArray[Any]:
        if key not in arrays:
            remedy = f"The file holds: {', '.join(sorted(arrays)) or 'nothing'}."
            raise DataError(explain(path, key, expected=what, received="no such key", remedy=remedy))
        return arrays[key]

    key = next((name for name in PATTERNS if name in arrays), PATTERNS[0])
    metadata = _metadata(path, arrays)
    x, y = take("xcoords", "(M,) column of each position"), take("ycoords", "(M,) row of each position")
    patterns = take(key, "(M, N, N) diffraction patterns")
    if metadata.get("axes") != AXES:
        patterns = _patterns_first(path, key, patterns, len(np.atleast_1d(x)))
    amplitude, dose_known = _amplitude(path, key, patterns, measurement or metadata.get("measurement"))
    nominal = None
    if "xcoords_start" in arrays and "ycoords_start" in arrays:
        nominal = _positions(path, arrays["xcoords_start"], arrays["ycoords_start"], suffix="_start")
    return Scan(
        diffraction_amplitude=amplitude,
        positions_px=_positions(path, x, y),
        probe=take("probeGuess", "(N, N) or (modes, N, N) complex probe"),
        bad_pixels=arrays.get("bad_pixels"),
        object_field=arrays.get("objectGuess"),
        nominal_positions_px=nominal,
        scan_index=arrays.get("scan_index"),
        dose_known=dose_known or metadata.get("amplitude_unit") == AMPLITUDE_UNIT,
        source=str(path),
        metadata=metadata,
    )


def save_npz_scan(path: Path, scan: Scan) -> None:
    """The scan in the NPZ contract: amplitudes under `diff3d`, `_metadata` as JSON text. Whole or not at all."""
    assert scan.nominal_positions_px is not None and scan.bad_pixels is not None and scan.scan_index is not None
    metadata = {**scan.metadata, "measurement": "amplitude", "axes": AXES}
    metadata.pop("amplitude_unit", None)
    if scan.dose_known:
        metadata["amplitude_unit"] = AMPLITUDE_UNIT
    try:
        text = json.dumps(metadata)
    except (TypeError, ValueError) as error:
        remedy = "Keep plain numbers, text, lists and mappings in a scan's metadata."
        raise DataError(explain(path, METADATA, expected="JSON", received=error, remedy=remedy)) from error
    arrays = {
        "diff3d": scan.diffraction_amplitude,
        "xcoords": scan.positions_px[:, 0],
        "ycoords": scan.positions_px[:, 1],
        "xcoords_start": scan.nominal_positions_px[:, 0],
        "ycoords_start": scan.nominal_positions_px[:, 1],
        "probeGuess": scan.probe[0] if len(scan.probe) == 1 else scan.probe,
        "bad_pixels": scan.bad_pixels,
        "scan_index": scan.scan_index,
        METADATA: np.array(text),
    }
    if scan.object_field is not None:
        arrays["objectGuess"] = scan.object_field
    write_npz(path, arrays)


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Arrays as stored (uncompressed) members, so that they can be mapped. Whole or not at all."""
    assert not any(np.asarray(array).dtype.hasobject for array in arrays.values()), "no pickle is ever written"
    with replacing(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # its stubs take one array for allow_pickle


def _metadata(path: Path, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    if METADATA not in arrays:
        return {}
    try:
        metadata = json.loads(str(arrays[METADATA]))
    except (ValueError, RecursionError) as error:
        remedy = "Drop the key: it is optional."
        raise DataError(explain(path, METADATA, expected="JSON text", received=error, remedy=remedy)) from error
    if not isinstance(metadata, dict) or metadata.get("measurement") not in (None, "amplitude", "intensity"):
        expected = "a JSON object; its measurement, if any, amplitude or intensity"
        raise DataError(explain(path, METADATA, expected=expected, received=metadata, remedy="Mend or drop the key."))
    return metadata


def _patterns_first(path: Path, key: str, patterns: NDArray[Any], count: int) -> NDArray[Any]:
    """(M, N, N), from the older (N, N, M) too where only one reading is possible."""
    if patterns.ndim != 3:
        return patterns  # the scan's own check says what is wrong
    first, middle, last = patterns.shape
    older = first == middle and last == count
    newer = middle == last and first == count
    if older and newer and first > 1:
        expected = "a number of patterns that differs from their size"
        remedy = (
            f"{count} patterns of {first} x {first} can be read as (M, N, N) and as (N, N, M): "
            f"drop a frame, or say in {METADATA} that the axes are {AXES!r}."
        )
        raise DataError(explain(path, key, expected=expected, received=f"shape {patterns.shape}", remedy=remedy))
    return np.moveaxis(patterns, -1, 0) if older and not newer else patterns


def _amplitude(path: Path, key: str, patterns: NDArray[Any], measurement: str | None) -> tuple[NDArray[Any], bool]:
    """Amplitudes, and whether their squares are known to be counts."""
    if patterns.dtype.kind not in "biuf":
        expected = "real numbers"
        raise DataError(explain(path, key, expected=expected, received=f"dtype {patterns.dtype}", remedy="Convert it."))
    if measurement is None:
        measurement = "amplitude" if patterns.dtype.kind == "f" else "intensity"
        log.info("%s: %s: read as %s, because the type is %s", path, key, measurement, patterns.dtype)
        if measurement == "amplitude" and np.array_equal(patterns[:1], np.round(patterns[:1])):
            log.warning("%s: %s: all whole numbers: if they are counts, say so (--measurement intensity)", path, key)
    if measurement == "amplitude":
        return patterns, False
    if patterns.min(initial=0) < 0:
        remedy = "Undo a background subtraction, or set those pixels to 0 and mark them in bad_pixels."
        expected, received = "counts >= 0", f"a minimum of {patterns.min():g}"
        raise DataError(explain(path, key, expected=expected, received=received, remedy=remedy))
    return np.sqrt(patterns, dtype=np.float32), True


def _positions(path: Path, x: NDArray[Any], y: NDArray[Any], suffix: str = "") -> NDArray[np.float64]:
    keys = f"xcoords{suffix}", f"ycoords{suffix}"
    for key, coordinates in zip(keys, (x, y), strict=True):
        if coordinates.ndim != 1 or coordinates.dtype.kind not in "iuf":
            received = f"{coordinates.dtype} of shape {coordinates.shape}"
            remedy = "Save one column and one row coordinate for each pattern."
            raise DataError(explain(path, key, expected="(M,) real numbers", received=received, remedy=remedy))
    if len(x) != len(y):
        remedy = "Save one column and one row coordinate for each pattern."
        received = f"{len(x)} and {len(y)}"
        raise DataError(explain(path, ", ".join(keys), expected="equal lengths", received=received, remedy=remedy))
    return np.stack([x, y], axis=-1).astype(np.float64)
