"""Images of an object: framed to what is known, grey elsewhere, in the coordinates of the scan or in metres."""

from __future__ import annotations

import math
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.quality.area import bounding_box, inside_hull
from ptycho_core.quality.metrics import Mask
from ptycho_core.report.plots.drawing import (
    PHASE_MAP,
    WHOLE_CIRCLE_MAP,
    Axes,
    Figure,
    Image,
    Limits,
    color_bar,
    color_map_of,
    limits_of,
)

UNITS = ((1e3, "mm"), (1e6, "µm"), (1e9, "nm"), (1e12, "pm"))
BAR_SHARE = 0.3
"""Of the width, that a scale bar takes at most."""


@attrs.frozen
class Scale:
    """From pixels of the scan's coordinates, (x, y), to what the axes show."""

    side: tuple[float, float] = (1.0, 1.0)
    unit: str = "px"

    @classmethod
    def of(cls, pixel_m: tuple[float, float] | None, length_px: float) -> Scale:
        """In nm, µm or mm by the length shown; in pixels where their size is not known."""
        if pixel_m is None:
            return cls()
        length = length_px * max(pixel_m)
        factor, unit = next(
            (f, u) for f, u in ((1e3, "mm"), (1e6, "µm"), (1e9, "nm"), (1e12, "pm")) if length * f >= 1 or u == "pm"
        )
        return cls((pixel_m[0] * factor, pixel_m[1] * factor), unit)

    def places(self, positions_px: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(positions_px * np.asarray(self.side))


@attrs.frozen(eq=False)
class Canvas:
    """Where an object's pixels lie, and which of them count.

    known: bool (H, W), drawn; elsewhere grey. focus: bool (H, W), what sets the colour limits.
    origin_px: (x, y) of pixel [0, 0]. pixel_m: (x, y) or None.
    """

    known: Mask
    focus: Mask
    origin_px: tuple[float, float]
    pixel_m: tuple[float, float] | None

    @classmethod
    def of(
        cls,
        known: Mask,
        *,
        origin_px: tuple[float, float] = (0.0, 0.0),
        positions_px: NDArray[np.float64] | None = None,
        pixel_m: tuple[float, float] | None = None,
    ) -> Canvas:
        """Focus: inside the hull of the positions; all that is known without them, or where they span no area."""
        if not known.any():
            received = f"none of {known.shape[0]} x {known.shape[1]}"
            raise DataError("plots", "known", expected="a known pixel", received=received, remedy="Check the mask.")
        focus = known if positions_px is None else inside_hull(known, positions_px, origin_px)
        return cls(known, focus, origin_px, pixel_m)

    @property
    def scale(self) -> Scale:
        rows, columns = bounding_box(self.known)
        return Scale.of(self.pixel_m, max(rows.stop - rows.start, columns.stop - columns.start))

    def draw(
        self,
        figure: Figure,
        axes: Axes,
        image: Image,
        title: str,
        label: str,
        color_map: str,
        limits: Limits,
        norm: Any = None,
    ) -> None:
        """An image (H, W) in the scan's coordinates with a colour bar and, where the pixel is known, a scale bar."""
        scale = self.scale
        (x, y), (height, width) = self.origin_px, self.known.shape
        (across, down), (rows, columns) = scale.side, bounding_box(self.known)
        sides = ((x - 0.5) * across, (x + width - 0.5) * across, (y + height - 0.5) * down, (y - 0.5) * down)
        low, high = limits
        span = {"vmin": low, "vmax": high} if norm is None else {"norm": norm}
        options = {"cmap": color_map_of(color_map), "extent": sides, "interpolation": "nearest", **span}
        shown = axes.imshow(np.ma.masked_where(~self.known, image), **options)
        axes.set(title=title, xlabel=f"x ({scale.unit})", ylabel=f"y ({scale.unit})")
        axes.set_xlim((x + columns.start - 0.5) * across, (x + columns.stop - 0.5) * across)
        axes.set_ylim((y + rows.stop - 0.5) * down, (y + rows.start - 0.5) * down)
        values = image[self.known]
        below, above = bool(np.nanmin(values) < low), bool(np.nanmax(values) > high)
        extend = {(True, False): "min", (False, True): "max", (True, True): "both"}.get((below, above), "neither")
        color_bar(figure, axes, shown, label, extend="neither" if color_map == WHOLE_CIRCLE_MAP else extend)
        if self.pixel_m is not None:
            _scale_bar(axes, (columns.stop - columns.start) * across, scale.unit)


def phase_limits(phase: Image, canvas: Canvas) -> tuple[Limits, str]:
    """A cyclic map over the whole circle where the phase goes round it; else robust limits and a map with two ends."""
    low, high = limits_of(phase[canvas.focus])
    bulk = float(np.ptp(np.percentile(phase[canvas.focus], (10, 90))))
    whole = max(high - low, 1.5 * bulk) > 1.5 * np.pi
    return ((-np.pi, np.pi), WHOLE_CIRCLE_MAP) if whole else ((low, high), PHASE_MAP)


def _scale_bar(axes: Axes, width: float, unit: str) -> None:
    """A bar of 1, 2 or 5 times a power of ten, below left, on a patch of white that any image leaves readable."""
    from matplotlib.patches import Rectangle

    power = 10 ** math.floor(math.log10(BAR_SHARE * width))
    length = next(step * power for step in (5, 2, 1) if step * power <= BAR_SHARE * width)
    bar = length / width
    axes.add_patch(Rectangle((0.03, 0.03), bar + 0.04, 0.1, transform=axes.transAxes, fc="white", ec="none", alpha=0.8))
    axes.add_patch(Rectangle((0.05, 0.05), bar, 0.015, transform=axes.transAxes, fc="black", ec="none"))
    text = f"{length:g} {unit}"
    axes.text(0.05 + bar / 2, 0.072, text, transform=axes.transAxes, ha="center", va="bottom", fontsize=9)
