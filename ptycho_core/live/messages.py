"""What is sent to a live reconstruction: a header in JSON, then bytes (specs/live.md, Messages)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.events import finite
from ptycho_core.live.setup import Setup

VERSION = 1  # specs/live.md, Messages
HEADER_BYTES, MESSAGE_BYTES = 2**20, 2**28  # specs/live.md, Messages
TYPES = {"uint8": "<u1", "uint16": "<u2", "uint32": "<u4", "float32": "<f4", "float64": "<f8"}
MOST_FRAMES = 2**16  # specs/live.md, Messages


@attrs.frozen(eq=False, kw_only=True)
class Arrived:
    """Frames, positions, or both, by number. amplitude: float32 (k, N, N); positions_px: float64 (k, 2)."""

    numbers: NDArray[np.int64]
    amplitude: NDArray[np.float32] | None = None
    positions_px: NDArray[np.float64] | None = None


@attrs.frozen
class Ended:
    """No frame will come any more."""

    reason: str = "the source has ended"


@attrs.frozen
class Trouble:
    """Something that was left out, in words."""

    message: str


@attrs.frozen
class Idle:
    """Nothing has come for so many seconds."""

    seconds: float


Item = Setup | Arrived | Ended | Trouble | Idle


def setup_message(setup: Setup, session: str | None = None) -> list[bytes]:
    """session: by which a message that is sent again is told from a scan that begins again."""
    header = {
        "kind": "scan",
        "probe": list(setup.probe.shape),
        "dose_known": setup.dose_known,
        "frames": setup.expected,
        "source": setup.source,
        "metadata": setup.metadata,
        "session": session,
    }
    return [_header(header), setup.probe.astype("<c8").tobytes(), setup.bad_pixels.astype("u1").tobytes()]


def frames_message(numbers: NDArray[np.int64], values: NDArray[Any], measurement: str) -> list[bytes]:
    """values: (k, N, N), amplitudes or intensities, of one of `TYPES`."""
    name = values.dtype.newbyteorder("=").name
    facts = {"numbers": numbers.tolist(), "shape": list(values.shape), "dtype": name, "measurement": measurement}
    return [_header({"kind": "frames", **facts}), values.astype(TYPES[name]).tobytes()]


def positions_message(numbers: NDArray[np.int64], positions_px: NDArray[np.float64]) -> list[bytes]:
    return [
        _header({"kind": "positions", "numbers": numbers.tolist(), "unit": "px"}),
        positions_px.astype("<f8").tobytes(),
    ]


def end_message() -> list[bytes]:
    return [_header({"kind": "end"})]


def _header(facts: Mapping[str, Any]) -> bytes:
    return json.dumps(finite({"v": VERSION, **facts}), default=str).encode()


def header_of(parts: Sequence[bytes]) -> dict[str, Any]:
    """The header of a message. Raises DataError."""
    if not parts or len(parts[0]) > HEADER_BYTES:
        received = f"{len(parts[0])} bytes" if parts else "nothing"
        raise _refused("header", f"JSON of at most {HEADER_BYTES} bytes", received)
    try:
        header = json.loads(parts[0].decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _refused("header", "a JSON object", f"{parts[0][:40]!r}") from error
    if not isinstance(header, dict) or header.get("v") != VERSION:
        raise _refused("header", f'a JSON object with "v": {VERSION}', f"{parts[0][:40]!r}")
    return header


def decoded(header: Mapping[str, Any], payload: Sequence[bytes], setup: Setup | None) -> Setup | Arrived | Ended:
    """What a message says. setup: of the scan so far, which frames and positions in metres need. Raises DataError."""
    match header.get("kind"):
        case "scan":
            return _setup(header, payload)
        case "frames":
            return _frames(header, payload)
        case "positions":
            return _positions(header, payload, setup)
        case "end":
            return Ended()
        case other:
            raise _refused("kind", "scan, frames, positions or end", repr(other)[:40])


def _setup(header: Mapping[str, Any], payload: Sequence[bytes]) -> Setup:
    shape = _shape(header, "probe", 3)
    modes, N, width = shape
    if width != N or N % 2 or not 1 <= modes <= 64 or not 2 <= N <= 4096:
        raise _refused("probe", "[modes, N, N], N even", list(shape))
    probe = _array(payload, 0, "<c8", shape, "probe")
    if not np.isfinite(probe).all() or not probe.any():
        raise _refused("probe", "finite numbers, not all zero", "NaN, infinity or zeros alone")
    bad = np.zeros((N, N), bool)
    if len(payload) > 1:
        bad = _array(payload, 1, "u1", (N, N), "bad_pixels") != 0
    metadata, expected, source = header.get("metadata", {}), header.get("frames"), header.get("source", "stream")
    if not isinstance(metadata, dict) or not isinstance(source, str):
        raise _refused("metadata", "an object, and source a text", type(metadata).__name__)
    if expected is not None and (not isinstance(expected, int) or expected < 1):
        raise _refused("frames", "a number of frames, or null", repr(expected)[:40])
    known = header.get("dose_known") is True
    return Setup(
        probe=probe, bad_pixels=bad, dose_known=known, metadata=metadata, source=source[:200], expected=expected
    )


def _frames(header: Mapping[str, Any], payload: Sequence[bytes]) -> Arrived:
    shape, name = _shape(header, "shape", 3), header.get("dtype")
    if name not in TYPES:
        raise _refused("dtype", ", ".join(TYPES), repr(name)[:40])
    values = _array(payload, 0, TYPES[name], shape, "frames")
    numbers = _numbers(header, shape[0])
    measurement = header.get("measurement")
    if measurement not in ("intensity", "amplitude"):
        raise _refused("measurement", "intensity or amplitude", repr(measurement)[:40])
    if values.dtype.kind == "f" and (not np.isfinite(values).all() or (values < 0).any()):
        raise _refused("frames", "finite values >= 0", "NaN, infinity or negative values")
    amplitude = np.sqrt(values, dtype=np.float32) if measurement == "intensity" else values.astype(np.float32)
    return Arrived(numbers=numbers, amplitude=amplitude)


def _positions(header: Mapping[str, Any], payload: Sequence[bytes], setup: Setup | None) -> Arrived:
    numbers = _numbers(header, None)
    places = _array(payload, 0, "<f8", (len(numbers), 2), "positions").astype(np.float64)
    if not np.isfinite(places).all():
        raise _refused("positions", "finite numbers", "NaN or infinity")
    unit = header.get("unit", "px")
    if unit == "m":
        pixel = None if setup is None else setup.pixel_m
        if pixel is None:
            raise _refused("unit", "px, or m after a scan message that tells the object pixel", "m")
        places = places / np.asarray(pixel)
    elif unit != "px":
        raise _refused("unit", "px or m", repr(unit)[:40])
    return Arrived(numbers=numbers, positions_px=places)


def _shape(header: Mapping[str, Any], key: str, axes: int) -> tuple[int, ...]:
    shape = header.get(key)
    whole = isinstance(shape, list) and len(shape) == axes and all(type(side) is int and side > 0 for side in shape)
    if not whole:
        raise _refused(key, f"{axes} whole numbers above 0", repr(shape)[:40])
    assert isinstance(shape, list)
    return tuple(shape)


def _numbers(header: Mapping[str, Any], count: int | None) -> NDArray[np.int64]:
    numbers = header.get("numbers")
    fits = isinstance(numbers, list) and 0 < len(numbers) <= MOST_FRAMES and count in (None, len(numbers))
    if not fits or not all(type(number) is int and 0 <= number < 2**53 for number in numbers or ()):
        expected = f"{'at least one' if count is None else count} frame numbers from 0 on"
        raise _refused("numbers", expected, repr(numbers)[:40])
    return np.array(numbers, np.int64)


def _array(payload: Sequence[bytes], part: int, dtype: str, shape: tuple[int, ...], what: str) -> NDArray[Any]:
    size = np.dtype(dtype).itemsize
    for side in shape:
        size *= side
    if len(payload) <= part or len(payload[part]) != size:
        received = f"{len(payload[part])} bytes" if len(payload) > part else "no bytes"
        raise _refused(what, f"{size} bytes, as the header promises", received)
    return np.frombuffer(payload[part], dtype).reshape(shape)


def _refused(key: str, expected: object, received: object) -> DataError:
    return DataError("message", key, expected=expected, received=received, remedy="See specs/live.md, Messages.")
