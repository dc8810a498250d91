"""What a file of no known format does not say, and which of its arrays may be that (specs/data.md, Mapped files).

Nothing here reads a scan: it is what a refusal and `ptycho inspect --suggest` offer to state.
"""

from __future__ import annotations

import contextlib
import math
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from ptycho_core.errors import DataError
from ptycho_core.io.places import npy_header
from ptycho_core.io.tables import are_coordinates
from ptycho_core.settings.fields import default_of, flag_of
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.storage.files import UNREADABLE
from ptycho_core.storage.hdf5 import HDF5File, is_hdf5, signature_of
from ptycho_core.storage.matlab5 import is_matlab5, mat_names
from ptycho_core.storage.npz import MAGIC, npz_members
from ptycho_core.storage.units import factor_to

LENGTHS = {"energy_eV": ("energy", "eV"), "distance_m": ("distance", "m"), "detector_pixel_m": ("pixel", "m")}
"""Option → a word in the name of its data set, and its unit."""
HOW = "`ptycho inspect FILE --suggest` prints the command line. "
WITH_METRES = "needed with metres"


@attrs.frozen
class Held:
    """An array of a file: name is empty where the file holds one array; kind as `dtype.kind`, empty where unknown.

    units: what its attribute of that name says. value: of a single number.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    kind: str
    units: str = ""
    value: float | None = None

    @property
    def last(self) -> str:
        return self.name.rpartition("/")[2]

    def has_shape(self, *shapes: tuple[int, ...]) -> bool:
        """Whether it has one of these shapes, but for axes of length 1."""
        return tuple(side for side in self.shape if side > 1) in shapes

    def __str__(self) -> str:
        return f"{self.name or 'the array'} {self.shape} {self.dtype}{f', in {self.units}' if self.units else ''}"


@attrs.frozen
class Gap:
    """An option that has to be stated. value: what to state; sure: the file offers it; else it is filled in."""

    option: str
    value: str
    sure: bool
    why: str

    @property
    def stated(self) -> str:
        return f"{self.option}={self.value}{' with metres' if self.why == WITH_METRES else ''}"


def held_in(path: Path) -> list[Held]:
    """The arrays of an HDF5, NPZ, MATLAB or NPY file; none of any other, or of one that cannot be read."""
    try:
        return list(_held(path))
    except (DataError, *UNREADABLE):
        return []


def _held(path: Path) -> Iterator[Held]:
    if is_hdf5(path):
        with HDF5File(path) as file:
            for name, shape, dtype in file.datasets():
                kind = _kind(dtype)
                value, units = None, ""
                with contextlib.suppress(DataError):  # of one array alone
                    units = file.text(name, "units")
                    if shape is not None and math.prod(shape) == 1 and kind in ("i", "u", "f"):
                        value = float(file.array(name).reshape(-1)[0])
                yield Held(name, shape or (), dtype, kind, units, value)
    elif signature_of(path).startswith(b"PK"):
        for each in npz_members(path).values():
            yield Held(each.key, each.shape, str(each.dtype), each.dtype.kind)
    elif is_matlab5(path):
        for name, shape in mat_names(path).items():
            yield Held(name, shape, "", "")
    elif signature_of(path).startswith(MAGIC):
        header = npy_header(path)
        yield Held("", header[0], str(header[1]), header[1].kind)


def _kind(dtype: str) -> str:
    try:
        return np.dtype(dtype).kind
    except (TypeError, ValueError, SyntaxError):  # of several parts
        return ""


def gaps_of(path: Path, options: ReadOptions) -> tuple[Gap, ...]:
    """What has to be stated beside `options` to read the file, in the order of the options; empty without patterns."""
    held = held_in(path)
    patterns = _patterns(held, options)
    if patterns is None:
        return ()
    count = math.prod(patterns.shape[:-2])
    numbers = [each for each in held if each is not patterns and each.kind in ("i", "u", "f", "")]
    gaps: list[Gap] = []
    if options.dataset is None and patterns.name:
        gaps.append(Gap("dataset", patterns.name, True, f"patterns {patterns.shape}"))
    if options.measurement is None and patterns.kind in ("f", ""):
        gaps.append(Gap("measurement", "intensity|amplitude", False, "counts, or their square root"))
    gaps += _of_positions(numbers, count, len(patterns.shape) > 3, options)
    if options.probe is None:
        fields = [each for each in held if each.kind == "c" and 2 <= len(each.shape) <= 3 and each.shape[0] != count]
        name = fields[0].name if len(fields) == 1 else "FILE|auto"
        gaps.append(Gap("probe", name, len(fields) == 1, "complex (N, N) or (modes, N, N); auto: a solve finds it"))
    unit: str | None = options.position_unit
    for gap in gaps:
        unit = gap.value if gap.option == "position_unit" else unit
    if unit is not None and "m" in unit.split("|"):
        gaps += _of_lengths(numbers, options, "to turn metres into pixels" if unit == "m" else WITH_METRES)
    return tuple(gaps)


def _patterns(held: list[Held], options: ReadOptions) -> Held | None:
    """The array that is named, or the largest of three axes or more."""
    deep = [each for each in held if len(each.shape) > 2 and each.kind in ("b", "i", "u", "f", "")]
    if options.dataset is not None:
        deep = [each for each in deep if each.name.strip("/") == options.dataset.strip("/")]
    return max(deep, key=lambda each: math.prod(each.shape), default=None)


def _of_positions(numbers: list[Held], count: int, raster: bool, options: ReadOptions) -> Iterator[Gap]:
    pairs = [
        (x, y)
        for x in numbers
        for y in numbers
        if x.has_shape((count,)) and y.has_shape((count,)) and are_coordinates(x.last, y.last)
    ]
    arrays = [each for each in numbers if each.has_shape((count, 2), (count, 3), (2, count), (3, count))]
    names, order, units = options.positions, "xy|yx", ""
    if len(pairs) == 1:
        names, order, units = f"{pairs[0][0].name},{pairs[0][1].name}", "xy", pairs[0][0].units
    elif len(arrays) == 1:
        names, units = arrays[0].name, arrays[0].units
    if options.positions is None and options.scan_step is None:
        if raster and names is None:
            yield Gap("scan_step", "STEP", False, "of the raster, in the unit of the positions; or --positions FILE")
        else:
            yield Gap("positions", names or "FILE", names is not None, f"of {count} patterns, [x, y] or two columns")
    elif options.positions != names:
        order, units = "xy|yx", ""
    stated = options.positions is not None or not (raster and names is None)
    if options.position_order is None and options.scan_step is None and stated:
        yield Gap("position_order", order, order == "xy", "which of the two comes first, x being columns")
    factor = factor_to("m", units) if units else None
    if options.position_unit is None:
        why = "pixels of the object, or metres"
        yield Gap("position_unit", "px|m" if factor is None else "m", factor is not None, why)
        if factor not in (None, 1.0) and options.position_scale == 1:
            yield Gap("position_scale", f"{factor:g}", True, f"they are in {units}")


def _of_lengths(numbers: list[Held], options: ReadOptions, why: str) -> Iterator[Gap]:
    for option, (word, unit) in LENGTHS.items():
        given = getattr(options, option) is not None
        if given or (option == "energy_eV" and (options.wavelength_m is not None or options.voltage_kV is not None)):
            continue
        found = [each for each in numbers if each.value is not None and word in each.last.lower()]
        values = {
            each.value * factor
            for each in found
            if each.value is not None and (factor := factor_to(unit, each.units)) is not None
        }
        if len(values) == 1:
            yield Gap(option, f"{values.pop():.10g}", True, why)
        else:
            offered = "; ".join(f"{each.name} is {each.value:.10g}, without a unit" for each in found)
            yield Gap(option, unit.upper() if unit == "eV" else "METRES", False, offered or why)


def check_complete(path: Path, options: ReadOptions) -> None:
    """DataError that names all that is to be stated, where that is more than one thing; one is asked for by itself."""
    gaps = [gap for gap in gaps_of(path, options) if gap.option not in ("dataset", "position_scale")]
    lacking = [gap.option for gap in gaps if gap.why != WITH_METRES]
    if len(lacking) < 2:
        return
    raise DataError(
        path,
        expected=", ".join(lacking),
        received="none of them in the file",
        remedy=f"{contents(path)}{HOW}State them",
        state=tuple(gap.stated for gap in gaps),
    )


def contents(path: Path, most: int = 12) -> str:
    """A sentence of what the file holds; empty where that is one array."""
    held = [str(each) for each in sorted(held_in(path), key=lambda each: -len(each.shape)) if each.name]
    more = f"; and {len(held) - most} more" if len(held) > most else ""
    return f"It holds: {'; '.join(held[:most])}{more}. " if held else ""


def command_of(path: Path, options: ReadOptions, gaps: tuple[Gap, ...]) -> str:
    """The command line that reads the file, where words such as FILE are filled in."""
    words = ["ptycho", "inspect", shlex.quote(str(path))]
    for field in attrs.fields(ReadOptions):
        value: Any = getattr(options, field.name)
        if value != default_of(options, field):
            on = value is True
            words += [flag_of(field.name), *([] if on else [shlex.quote(str(value))])]
    for gap in gaps:
        words += [flag_of(gap.option), shlex.quote(gap.value) if gap.sure else gap.value]
    return " ".join(words)
