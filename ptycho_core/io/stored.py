"""What a reader found in a file, and the grids before and after (specs/data.md, Readers)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.scans.steps import Step
from ptycho_core.storage.source import FrameSource
from ptycho_core.vocabulary import Measurement

Pair = tuple[float, float]


@attrs.frozen(eq=False, kw_only=True)
class Stored:
    """What a reader found, as the file has it; None: the file does not say.

    frames: stored patterns (M, H, W), of which `index` are used; steps: what they need before all else.
    positions: (M, 2), [x, y] = [column, row], in `unit`. pixel_m: (x, y), of an object pixel of the stored patterns.
    origin, origin_px: (x, y) of one point, in `unit` and in pixels. detector_pixel_m: (x, y).
    probe: complex (N, N) or (…, modes, N, N), of which the first modes are used. bad_pixels: (H, W), after `steps`.
    raster: (rows, columns) of a scan whose patterns are stored as (rows, columns, H, W). keeps_bad:
    whether bad pixels keep their values where a scan may have them.
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
    raster: tuple[int, int] | None = None
    keeps_bad: bool = False
    metadata: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def count(self) -> int:
        """How many patterns are used."""
        return self.frames.shape[0] if self.index is None else len(self.index)


@attrs.frozen
class Grid:
    """The detector before and after: stored (H, W), cropped to `window`, `bin` pixels added, padded to N.

    centre: the stored pixel (row, column) that is then in the middle; None where the patterns were turned, too.
    """

    height: int
    width: int
    window: tuple[int, int]
    bin: int
    N: int
    centre: tuple[int, int] | None = None

    @property
    def scale(self) -> NDArray[np.float64]:
        """(x, y): new object pixels in a stored one, because an object pixel is λ z / (extent of the detector)."""
        return self.N * self.bin / np.array([self.width, self.height], np.float64)

    @property
    def unchanged(self) -> bool:
        return bool((self.scale == 1).all())


def missing(
    path: Path, key: str | None, option: str, expected: str, received: str = "nothing that says so"
) -> DataError:
    """What has to be stated: the message names the option."""
    return DataError(
        path, key, expected=f"{option}: {expected}", received=received, remedy="State it.", state=(option,)
    )
