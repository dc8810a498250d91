"""A reconstruction beside what it is held against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ptycho_core.quality.ramp import flattened
from ptycho_core.report.plots.drawing import (
    AMPLITUDE_MAP,
    DIFFERENCE_MAP,
    Image,
    StrPath,
    as_text,
    limits_of,
    new_figure,
    save,
)
from ptycho_core.report.plots.objects import Canvas, phase_limits
from ptycho_core.report.plots.resolution import draw_frc

if TYPE_CHECKING:
    from ptycho_core.quality.evaluation import Comparison


def plot_comparison(
    comparison: Comparison, path: StrPath, *, origin_px: tuple[float, float] = (0.0, 0.0), title: str = ""
) -> None:
    """Amplitude and phase of truth, aligned estimate and their difference, and the Fourier ring correlation.

    Drawn is the area that was compared. origin_px: (x, y) of pixel [0, 0], for the axes.
    """
    canvas = Canvas.of(comparison.compared, origin_px=origin_px, pixel_m=comparison.pixel_m)
    inside = comparison.compared
    flat = flattened(comparison.truth, inside)
    truth = flat.field
    # Ramp and phase of the truth are taken from both: the difference stays what it was.
    estimate = comparison.estimate * np.exp(1j * np.angle(truth * np.conj(comparison.truth)))
    figure = new_figure(17.0, 7.6)
    metrics = comparison.metrics
    figures = (
        f"{100 * comparison.share:.3g} % of the scanned area compared, complex correlation {metrics.correlation:.4f}, "
        f"resolution {metrics.frc.resolution(comparison.pixel_m)}"
    )
    if comparison.correlation_at_origin is not None:
        x, y = comparison.moved_px
        figures += f"\norigins differ: the truth was found {x:+d}, {y:+d} px from its own"
    figure.suptitle(f"{as_text(title)}\n{figures}" if title else figures)
    grid = figure.add_gridspec(2, 4, width_ratios=(1, 1, 1, 1.15))
    difference = np.angle(estimate * np.conj(truth))
    phase = np.angle(truth)
    limits, color_map = phase_limits(phase, canvas)
    amplitudes, phases = (np.abs(truth), np.abs(estimate)), (phase, _wrapped(phase + difference))
    amplitude_row = (amplitudes, amplitudes[1] - amplitudes[0], AMPLITUDE_MAP, limits_of(amplitudes[0][inside]))
    rows = (("amplitude", "", *amplitude_row), ("phase", " (rad)", phases, difference, color_map, limits))
    for row, (name, unit, pair, error, colors, span) in enumerate(rows):
        for column, (source, image) in enumerate(zip(("truth", "estimate"), pair, strict=True)):
            said = ", ramp and mean removed" if name == "phase" else ""
            axes = figure.add_subplot(grid[row, column])
            canvas.draw(figure, axes, image, f"{name}, {source}{said}", f"{name}{unit}", colors, span)
        axes = figure.add_subplot(grid[row, 2])
        reach = max(abs(limit) for limit in limits_of(error[inside]))
        heading = f"{name}, estimate − truth (mean |·| {np.abs(error[inside]).mean():.3g})"
        canvas.draw(figure, axes, error, heading, f"difference{unit}", DIFFERENCE_MAP, (-reach, reach))
    axes = figure.add_subplot(grid[:, 3])
    draw_frc(axes, metrics.frc, comparison.pixel_m)
    axes.set_title("Fourier ring correlation")
    save(figure, path)


def _wrapped(phase: Image) -> Image:
    return np.asarray((phase + np.pi) % (2 * np.pi) - np.pi)
