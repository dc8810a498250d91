"""PtyPy's prepared data, `.ptyd` (specs/data.md, PtyPy)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.io.assembly import Pair, Stored, assemble
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.storage.hdf5 import HDF5File, is_hdf5
from ptycho_core.storage.source import FrameSource, frames_of_a_block
from ptycho_core.storage.stored import JoinedFrames

log = logging.getLogger(__name__)

TABLES = ("meta", "info", "common")
"""Where a value may be; the first that has it."""
MOST_CHUNKS = 100_000


class PtydReader:
    name = "ptyd"
    description = "PtyPy .ptyd: chunks of patterns and positions, meta"
    endings = (".ptyd",)

    def matches(self, path: Path) -> bool:
        if not is_hdf5(path):
            return False
        try:
            with HDF5File(path) as file:
                return bool(_chunks(file)) and bool({"meta", "info"} & set(file.keys()))
        except DataError:
            return False

    def read(self, path: Path, options: ReadOptions) -> Scan:
        with HDF5File(path, options.follow_links) as file:
            stored = _stored(path, file, options)
        return assemble(stored, options)


def _stored(path: Path, file: HDF5File, options: ReadOptions) -> Stored:
    chunks = []
    for chunk in _chunks(file):
        if file.find(chunk) is None:
            log.warning("%s: %s: leads nowhere and is left out", path, chunk)
        else:
            chunks.append(chunk)
    if not chunks:
        expected = "at least one chunk of patterns"
        raise DataError(file.path, "chunks", expected=expected, received="none", remedy="Name another file.")
    sources = [file.frames(f"{chunk}/data") for chunk in chunks]
    counts = [source.shape[0] for source in sources]
    frames: FrameSource = sources[0] if len(sources) == 1 else JoinedFrames(sources)
    indices = [_indices(file, f"{chunk}/indices", count) for chunk, count in zip(chunks, counts, strict=True)]
    known = [index for index in indices if index is not None]
    positions = (
        [] if options.positions else [file.array(f"{chunk}/positions", what="(m, 2) metres") for chunk in chunks]
    )
    for chunk, count, values in zip(chunks, counts, positions, strict=False):
        if values.shape != (count, 2):
            received = f"shape {values.shape}"
            expected, remedy = f"({count}, 2) metres", "Name another file."
            raise DataError(file.path, f"{chunk}/positions", expected=expected, received=received, remedy=remedy)
    energy_keV = _number(file, "energy")
    size = _numbers(file, "psize")
    label = next((text for table in TABLES if (text := file.text(f"{table}/label"))), "")
    return Stored(
        path=path,
        reader=PtydReader.name,
        frames=frames,
        key="chunks/*/data",
        measurement="intensity",
        positions=np.concatenate(positions)[:, ::-1] if positions else None,  # stored as (y, x)
        unit="m",
        scan_index=np.concatenate(known) if len(known) == len(chunks) else None,
        bad_pixels=_bad_pixels(file, chunks, frames.shape[1:]),
        energy_eV=None if energy_keV is None else energy_keV * 1e3,
        distance_m=_number(file, "distance"),
        detector_pixel_m=None if size is None else _pixel(file, size),
        metadata={"name": label} if label and label != "None" else {},
    )


def _chunks(file: HDF5File) -> list[str]:
    """Groups of chunks in the order of their numbers."""
    keys = {int(key): key for key in file.keys("chunks") if key.isascii() and key.isdigit() and len(key) < 10}
    if len(keys) > MOST_CHUNKS:
        raise DataError(
            file.path, "chunks", expected=f"at most {MOST_CHUNKS} chunks", received=len(keys), remedy="Merge them."
        )
    return [f"chunks/{keys[number]}" for number in sorted(keys)]


def _indices(file: HDF5File, name: str, count: int) -> NDArray[np.int64] | None:
    values = file.optional(name, file.array)
    if values is None:
        return None
    if values.shape != (count,) or not np.array_equal(values, np.round(values)):
        log.warning("%s: %s: not %d whole numbers: the patterns count from 0 instead.", file.path, name, count)
        return None
    return values.astype(np.int64)


def _numbers(file: HDF5File, key: str) -> NDArray[np.float64] | None:
    """A value of the tables; None where PtyPy stored None (as one 0, so marked) or nothing."""
    for table in TABLES:
        name = f"{table}/{key}"
        if file.is_dataset(name) and file.text(name, "type") != "None":
            return np.asarray(file.array(name), np.float64).reshape(-1)
    return None


def _number(file: HDF5File, key: str) -> float | None:
    values = _numbers(file, key)
    if values is None:
        return None
    if len(values) != 1:
        expected, remedy = "one number", "State the value as an option."
        raise DataError(file.path, f"meta/{key}", expected=expected, received=f"{len(values)} numbers", remedy=remedy)
    return float(values[0])


def _pixel(file: HDF5File, size: NDArray[np.float64]) -> Pair:
    """(x, y) of one number or of (rows, columns)."""
    if len(size) not in (1, 2):
        expected, received, state = "one or two numbers", f"{len(size)} numbers", ("detector_pixel_m",)
        raise DataError(file.path, "meta/psize", expected=expected, received=received, remedy="State it.", state=state)
    return float(size[-1]), float(size[0])


def _bad_pixels(file: HDF5File, chunks: Sequence[str], shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    """(H, W), bad where a weight is not above 0: the common weights, or those of any pattern."""
    bad = np.zeros(shape, bool)
    found = False
    for table in TABLES:
        name = f"{table}/weight2d"
        weights = file.optional(name, file.array)
        if weights is None or file.text(name, "type") == "None":
            continue
        if weights.shape != tuple(shape):
            _warn_of_weights(file, name, weights.shape, shape)
            continue
        bad |= ~(weights > 0)
        found = True
        break
    for chunk in chunks:
        name = f"{chunk}/weights"
        data = file.find(name) if file.is_dataset(name) else None
        if data is None or data.shape is None or 0 in data.shape:
            continue
        if data.shape[-2:] != tuple(shape):
            _warn_of_weights(file, name, data.shape, shape)
            continue
        found = True
        if data.ndim == 2:
            bad |= ~(file.array(name) > 0)
            continue
        source = file.frames(name)
        with file.reading(name):
            for block in source.blocks(frames_of_a_block(source)):
                bad |= (~(block > 0)).any(axis=0)
        source.close()
    return bad if found else None


def _warn_of_weights(file: HDF5File, name: str, received: tuple[int, ...], shape: tuple[int, ...]) -> None:
    log.warning(
        "%s: %s: weights of shape %s do not fit patterns of %s: no bad pixel follows from them; state --bad-pixels.",
        file.path,
        name,
        received,
        tuple(shape),
    )
