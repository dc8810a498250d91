"""Text tables of positions: their columns by heading or number, never by guess (specs/data.md, Readers)."""

from __future__ import annotations

import logging
import re
from itertools import permutations
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.scans.findings import ranges

log = logging.getLogger(__name__)

TABLE_BYTES = 2**26
"""A text table may be this large."""
SEPARATOR = re.compile(r"[\s,;]+")
MARKS = "#", "%", "//"


@attrs.frozen(eq=False)
class Table:
    """values: float64 (rows, columns); headings: one for each column, or none."""

    path: Path
    option: str
    values: NDArray[np.float64]
    headings: tuple[str, ...] = ()

    def column(self, name: str) -> NDArray[np.float64]:
        """The column (rows,) of this heading, or of this number from 1. DataError where there is none."""
        number = self.headings.index(name) + 1 if self.headings.count(name) == 1 else 0
        if not number and name.isdecimal():
            number = int(name)
        if not 1 <= number <= self.values.shape[1]:
            raise self._refuse(f"a column {name!r}", self._columns(), "Name one by its heading or number")
        return np.asarray(self.values[:, number - 1])

    def pair(self, order: str | None) -> NDArray[np.float64]:
        """The two columns (rows, 2) of the coordinates; another shape as it is, where it has no two columns.

        order: "xy" or "yx", as the file has them, which is what is returned. None: x before y where headings say so.
        DataError where more columns cannot be told apart, or headings contradict `order`.
        """
        count = self.values.shape[1]
        if count == 1 or (len(self.values) in (2, 3) and count > 3):  # of one coordinate, or on its side
            return self.values
        pairs = [(x, y) for x, y in permutations(range(count), 2) if are_coordinates(*self._named(x, y))]
        if len(pairs) != 1:
            if count == 2:
                return self.values
            raise self._refuse("two columns, or headings that tell x from y", self._columns(), "Name two, such as")
        x, y = pairs[0]
        found = "xy" if x < y else "yx"
        if order is not None and order != found:
            received = f"{self.headings[min(x, y)]!r} before {self.headings[max(x, y)]!r}"
            expected, state = f"{order[0]} before {order[1]}, as stated", (f"position_order={found}",)
            raise DataError(self.path, expected=expected, received=received, remedy="State their order", state=state)
        return self.values[:, [x, y] if order is None else sorted((x, y))]

    def _named(self, x: int, y: int) -> tuple[str, str]:
        return (self.headings[x], self.headings[y]) if self.headings else ("", "")

    def _columns(self) -> str:
        named = f": {', '.join(self.headings)}" if self.headings else " without headings"
        return f"{self.values.shape[1]} columns{named}"

    def _refuse(self, expected: str, received: str, remedy: str) -> DataError:
        names = self.headings if len(self.headings) > 1 and all(map(str.isidentifier, self.headings)) else ("1", "2")
        state = (f"{self.option}={self.path}:{names[-2]},{names[-1]}",)
        return DataError(self.path, expected=expected, received=received, remedy=remedy, state=state)


def are_coordinates(x: str, y: str) -> bool:
    """Whether two headings differ in one letter, x in one and y in the other: samx and samy, "X (µm)" and "Y (µm)"."""
    other = [(a, b) for a, b in zip(x.lower(), y.lower(), strict=False) if a != b]
    return len(x) == len(y) and other == [("x", "y")]


def read_table(path: Path, option: str) -> Table:
    """Numbers of a text table, separated by white space, commas or semicolons; lines left out are logged.

    Lines that begin with #, % or // are left out, and before the first row lines without any number, the last of which
    has the headings where they are as many as the columns. DataError for every other line.
    """

    def refuse(received: Any, expected: str = "a table of numbers, equally many in each line") -> DataError:
        remedy = "Correct it, or name another file."
        return DataError(path, expected=expected, received=received, remedy=remedy, state=(option,))

    try:
        if path.stat().st_size > TABLE_BYTES:
            raise refuse(f"{path.stat().st_size} bytes", f"a text table of at most {TABLE_BYTES // 2**20} MiB")
        with path.open(encoding="utf-8-sig") as file:
            lines = [line.strip().strip(",;") for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise refuse(error, "a readable text table") from error
    rows: list[list[float]] = []
    headings: list[str] = []
    left_out: list[int] = []
    for number, line in enumerate(lines, start=1):
        words = SEPARATOR.split(line)
        if not line:
            continue
        if line.startswith(MARKS) or (not rows and not any(map(_is_number, words))):
            headings += [] if rows else [line.lstrip("#%/ \t")]
            left_out.append(number)
            continue
        if not all(map(_is_number, words)):
            raise refuse(f"line {number}: {line[:60]!r}")
        rows.append(list(map(float, words)))
    if not rows or len({len(row) for row in rows}) != 1:
        raise refuse("none" if not rows else f"{sorted({len(row) for row in rows})} numbers in a line")
    if left_out:
        log.info("%s: lines without a position are left out: %s", path, ranges(left_out))
    values = np.array(rows, np.float64)
    named = (names for names in map(_words, reversed(headings)) if len(names) == values.shape[1])
    return Table(path, option, values, next(named, ()))


def _words(heading: str) -> tuple[str, ...]:
    parts = re.split(r"[,;\t]", heading) if re.search(r"[,;\t]", heading) else heading.split()
    return tuple(part.strip().strip("\"'") for part in parts)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
