"""Positions that a user names, beside or in place of those of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError, explain
from ptycho_core.fields import flag_of
from ptycho_core.io.arrays import Place, place_of, read_place
from ptycho_core.reading import ReadOptions


def stated_positions(path: Path, options: ReadOptions, count: int) -> NDArray[np.float64]:
    """(M, 2) [x, y] of the positions that `options.positions` names, in their own unit."""
    text = options.positions
    assert text is not None
    names = text.split(",")
    if len(names) == 2 and all(names):
        first = place_of(names[0].strip(), path)
        second_text = names[1].strip()
        second = (
            Place(first.path, second_text) if ":" in names[0] and ":" not in names[1] else place_of(second_text, path)
        )
        places = (first, second)
        columns = [_flat(path, str(place), read_place(place, "positions", table=True)) for place in places]
        if len(columns[0]) != len(columns[1]):
            received, remedy = f"{len(columns[0])} and {len(columns[1])}", "Name two that belong together."
            raise DataError(explain(path, text, expected="equal lengths", received=received, remedy=remedy))
        positions = np.stack(columns, axis=1)
    else:
        place = place_of(text, path)
        positions = _pairs(path, str(place), read_place(place, "positions", table=True), count)
    return positions[:, ::-1] if options.position_order == "yx" else positions


def _flat(path: Path, name: str, values: NDArray[Any]) -> NDArray[np.float64]:
    flat = np.squeeze(values)
    if flat.ndim > 1:
        received, remedy = f"shape {values.shape}", "Name a data set of one coordinate for each frame."
        raise DataError(explain(path, name, expected="(M,) numbers", received=received, remedy=remedy))
    return np.atleast_1d(flat).astype(np.float64)


def _pairs(path: Path, name: str, values: NDArray[Any], count: int) -> NDArray[np.float64]:
    """(M, 2) of an array (1, …, M, 2 or 3) or (2 or 3, M); a third coordinate is along the beam."""
    pairs = values
    while pairs.ndim > 2 and len(pairs) == 1:
        pairs = pairs[0]
    if pairs.ndim == 2 and pairs.shape[0] in (2, 3) and pairs.shape[1] == count != pairs.shape[0]:
        pairs = pairs.T
    if pairs.ndim != 2 or pairs.shape[1] not in (2, 3):
        remedy = f"Name two columns: {flag_of('positions')} X,Y, or another data set."
        expected, received = f"({count}, 2) numbers", f"shape {values.shape}"
        raise DataError(explain(path, name, expected=expected, received=received, remedy=remedy))
    return pairs[:, :2].astype(np.float64)
