"""Fourier ring correlation and the resolution read off it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ptycho_core.quality.frc import nanometres
from ptycho_core.report.plots.drawing import Axes, StrPath, as_text, new_figure, save

if TYPE_CHECKING:
    from ptycho_core.quality.frc import FRC


def plot_resolution(frc: FRC, path: StrPath, *, pixel_m: tuple[float, float] | None = None, title: str = "") -> None:
    """The curve, its last crossing of 0.5, and the rings below 0.5 before it, which do not count.

    pixel_m: (x, y), sides of an object pixel, for a second axis in nanometres.
    """
    figure = new_figure(7.0, 4.6)
    axes = figure.add_subplot()
    draw_frc(axes, frc, pixel_m)
    axes.set_title(as_text(title) or "Fourier ring correlation")
    save(figure, path)


def draw_frc(axes: Axes, frc: FRC, pixel_m: tuple[float, float] | None = None, *, legend: bool = True) -> None:
    axes.set(xlabel="spatial frequency (cycles/px)", ylabel="correlation", xlim=(0, 0.5), ylim=(-0.1, 1.05))
    axes.grid(True, alpha=0.25)
    axes.axhline(0.5, color="0.4", lw=1, ls="--")
    if np.isnan(frc.crossing_half):
        axes.text(0.25, 0.55, str(frc.reason), ha="center", va="bottom", wrap=True)
        return
    axes.plot(frc.frequency, frc.correlation, color="C0", lw=1.8, marker="o" if len(frc.frequency) < 40 else None, ms=3)
    half = (frc.frequency[1] - frc.frequency[0]) / 2 if len(frc.frequency) > 1 else 0.01
    for number, (low, high) in enumerate(frc.dips):
        label = "below 0.5, not counted" if number == 0 else None
        axes.axvspan(low - half, high + half, color="0.85", zorder=0, label=label)
    axes.axvline(frc.crossing_half, color="C3", lw=1.2, ls=":", label=_label(frc, pixel_m))
    if legend:
        axes.legend(loc="upper right" if frc.crossing_half < 0.3 else "lower left", framealpha=0.9)
    if pixel_m is not None and pixel_m[0] == pixel_m[1]:
        side = pixel_m[0] * 1e9
        above = axes.secondary_xaxis("top")
        above.set_xlabel("half period (nm)")
        ticks = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
        above.set_ticks(ticks, [f"{side / (2 * tick):.3g}" for tick in ticks])


def _label(frc: FRC, pixel_m: tuple[float, float] | None) -> str:
    ends = {0.0: "below 0.5 throughout", 0.5: "above 0.5 up to Nyquist"}
    crossing = ends.get(frc.crossing_half, f"0.5 at {frc.crossing_half:.3f} cycles/px")
    half = frc.half_period_m(pixel_m)
    return crossing if half is None else f"{crossing}\nhalf period {nanometres(half)}"
