"""An application's arrays in metres; our scan of them, and the way back (specs/embedding.md, Arrays)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.io import load_scan
from ptycho_core.scans.frames import Frames, in_memory
from ptycho_core.scans.geometry import beyond_middle_px, positions_m_to_px, positions_px_to_m
from ptycho_core.scans.scan import Scan
from ptycho_core.scans.steps import Blank
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.storage.source import ArraySource
from ptycho_core.vocabulary import Measurement


@attrs.frozen(kw_only=True)
class ObjectGrid:
    """Where the pixels of an object lie.

    shape: (H, W) pixels. pixel_m: (x, y), the sides of a pixel, metres. centre_m: (x, y), the middle of the array, at
    ((W − 1)/2, (H − 1)/2), metres.
    """

    shape: tuple[int, int]
    pixel_m: tuple[float, float]
    centre_m: tuple[float, float] = (0.0, 0.0)

    def __attrs_post_init__(self) -> None:
        for name in ("shape", "pixel_m", "centre_m"):
            pair = tuple(getattr(self, name))
            fits = len(pair) == 2 and all(math.isfinite(value) and (name == "centre_m" or value > 0) for value in pair)
            if not fits or (name == "shape" and any(int(value) != value for value in pair)):
                expected = {"shape": "(H, W), whole numbers > 0", "pixel_m": "(x, y), lengths > 0"}
                words = expected.get(name, "(x, y), lengths")
                raise DataError(
                    "grid", name, expected=words, received=pair, remedy="Give the grid of the object array."
                )
            object.__setattr__(self, name, tuple(map(int if name == "shape" else float, pair)))

    def positions_px(self, positions_m: NDArray[Any], N: int) -> NDArray[np.float64]:
        """A scan's positions, (M, 2) px of this grid, of patches of N × N pixels whose MIDDLES are at positions_m.

        positions_m: (M, 2), [x, y], metres. With the object's pixel [0, 0] at the coordinate (0, 0):
        x_px = (x_m − centre_x_m)/pixel_x_m + (W − 1)/2 is the middle of a patch, at ((N − 1)/2, (N − 1)/2) of its
        pixels. A scan's position names the pixel [N/2, N/2], for even N half a pixel further.
        """
        return positions_m_to_px(positions_m, self.pixel_m, origin_m=self.centre_m, origin_px=self._middle(N))

    def positions_m(self, positions_px: NDArray[np.float64], N: int) -> NDArray[np.float64]:
        """The inverse of `positions_px`: (M, 2), [x, y], metres, of the middles of the patches."""
        return positions_px_to_m(positions_px, self.pixel_m, origin_m=self.centre_m, origin_px=self._middle(N))

    def _middle(self, N: int) -> tuple[float, float]:
        """The coordinate of a scan's position whose patch has its middle at `centre_m`."""
        (height, width), beyond = self.shape, beyond_middle_px(N)
        return (width - 1) / 2 + beyond, (height - 1) / 2 + beyond

    def place(
        self,
        field: NDArray[np.complex64],
        known: NDArray[np.bool_],
        origin_px: tuple[float, float],
        beneath: NDArray[Any] | None = None,
    ) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
        """A reconstruction on this grid, complex64 (H, W), and where it is known, bool (H, W).

        field, known: (h, w), of a canvas whose pixel [0, 0] is at the coordinate origin_px = (x, y), which is whole, so
        that no value is interpolated. Elsewhere the values are those of `beneath` (H, W), or 1.
        """
        left, top = round(origin_px[0]), round(origin_px[1])
        if (left, top) != tuple(origin_px):
            remedy = "Give the origin of a reconstruction."
            raise DataError("grid", "origin_px", expected="whole pixels", received=origin_px, remedy=remedy)
        placed, inside = np.ones(self.shape, np.complex64), np.zeros(self.shape, bool)
        if beneath is not None:
            placed[:] = beneath
        here, there = zip(
            *(
                (slice(max(0, start), max(0, min(length, start + size))), slice(max(0, -start), max(0, length - start)))
                for start, size, length in zip((top, left), field.shape, self.shape, strict=True)
            ),
            strict=True,
        )
        inside[here] = known[there]
        placed[inside] = field[there][known[there]]
        return placed, inside


@attrs.frozen(eq=False, kw_only=True)
class ScanArrays:
    """One scan as plain arrays, lengths in metres. It is checked when it is made a scan, in the process that works.

    patterns: (M, N, N) real, DC at pixel [N/2, N/2]. measurement: what they hold, "intensity" (photon counts) or
        "amplitude" (their square root); it has to be stated.
    positions_m: (M, 2), [x, y]: where the middle of each patch lies, at ((N − 1)/2, (N − 1)/2) of its pixels; x grows
        with columns and y with rows, in the frame of `grid`.
    probe: complex (N, N) or (modes, N, N), sampled as the object; its scale does not matter.
    grid: of the object. object_field: complex (H, W) on it: for supervised training the truth, else what is kept where
        no pattern says anything; 1 where it is None.
    bad_pixels: bool (N, N), True = bad; what the patterns hold there does not matter. name: for messages.
    metadata: plain values, such as photon_energy_eV and detector_distance_m; kept in exported files.
    """

    patterns: NDArray[Any]
    measurement: Measurement
    positions_m: NDArray[Any]
    probe: NDArray[Any]
    grid: ObjectGrid
    bad_pixels: NDArray[np.bool_] | None = None
    object_field: NDArray[Any] | None = None
    name: str = "scan"
    metadata: Mapping[str, Any] = attrs.field(factory=dict)

    def scan(self) -> Scan:
        """The scan, in pixels of the grid. Raises DataError naming what does not fit the contract."""
        patterns = np.asarray(self.patterns)
        if self.measurement not in ("intensity", "amplitude"):
            remedy = "State what the patterns hold."
            raise DataError(
                self.name, "measurement", expected="intensity or amplitude", received=self.measurement, remedy=remedy
            )
        if patterns.ndim != 3 or 0 in patterns.shape:
            received = f"shape {patterns.shape}"
            raise DataError(self.name, "patterns", expected="(M, N, N)", received=received, remedy="Reshape the array.")
        field = None if self.object_field is None else np.asarray(self.object_field)
        if field is not None and field.shape != self.grid.shape:
            expected = f"shape {self.grid.shape}, as the grid says"
            received, remedy = f"shape {field.shape}", "Give the grid of this array."
            raise DataError(self.name, "object_field", expected=expected, received=received, remedy=remedy)
        bad = np.zeros(patterns.shape[1:], bool) if self.bad_pixels is None else np.asarray(self.bad_pixels)
        if bad.shape != patterns.shape[1:] or bad.dtype != bool:
            expected, received = f"bool of shape {patterns.shape[1:]}", f"{bad.dtype} of shape {bad.shape}"
            remedy = "Give one mask for all patterns, True = bad."
            raise DataError(self.name, "bad_pixels", expected=expected, received=received, remedy=remedy)
        frames = Frames(
            ArraySource(patterns),
            measurement=self.measurement,
            steps=(Blank(bad),) if bad.any() else (),
            name=self.name,
            key="patterns",
        )
        return Scan(
            diffraction_amplitude=in_memory(frames),
            positions_px=self.grid.positions_px(self.positions_m, patterns.shape[-1]),
            probe=self.probe,
            bad_pixels=bad,
            object_field=field,
            dose_known=self.measurement == "intensity",
            source=self.name,
            metadata={**self.metadata, "object_pixel_m": list(self.grid.pixel_m)},
        )


@attrs.frozen(kw_only=True)
class ScanFile:
    """A scan file, read in the process that works. options: what it does not say (specs/data.md, Readers)."""

    path: Path = attrs.field(converter=Path)
    options: ReadOptions = attrs.field(factory=ReadOptions)

    def scan(self) -> Scan:
        """Raises DataError naming file, key and remedy."""
        return load_scan(self.path, self.options)
