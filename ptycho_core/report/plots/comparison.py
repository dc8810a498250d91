"""Reconstructions beside what they are held against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ptycho_core.quality.ramp import flattened
from ptycho_core.report.plots.drawing import (
    AMPLITUDE_MAP,
    DIFFERENCE_MAP,
    Image,
    Limits,
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
    truth, estimate = _flat(comparison)
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


def plot_beside(
    comparisons: Mapping[str, Comparison],
    path: StrPath,
    *,
    origins_px: Mapping[str, tuple[float, float]],
    title: str = "",
) -> None:
    """Amplitude and phase of one truth and of several estimates of it, by name, in the same colours.

    origins_px: (x, y) of pixel [0, 0] of each estimate, for the axes.
    """
    figure = new_figure(4.6 * (1 + len(comparisons)), 7.6)
    figure.suptitle(as_text(title))
    axes = figure.subplots(2, 1 + len(comparisons))
    columns = [(name, each, 1, f"{name}: {each.metrics.correlation:.4f}") for name, each in comparisons.items()]
    columns.insert(0, (*columns[0][:2], 0, "truth"))
    spans: list[tuple[Limits, str]] = []
    for column, (source, comparison, index, name) in enumerate(columns):
        canvas = Canvas.of(comparison.compared, origin_px=origins_px[source], pixel_m=comparison.pixel_m)
        field = _flat(comparison)[index]
        amplitude, phase = np.abs(field), np.angle(field)
        if not spans:
            spans = [(limits_of(amplitude[comparison.compared]), AMPLITUDE_MAP), phase_limits(phase, canvas)]
        canvas.draw(figure, axes[0][column], amplitude, name, "amplitude", spans[0][1], spans[0][0])
        canvas.draw(
            figure, axes[1][column], phase, "ramp and mean phase removed", "phase (rad)", spans[1][1], spans[1][0]
        )
    save(figure, path)


def _flat(comparison: Comparison) -> tuple[Image, Image]:
    """Truth and estimate without the ramp and the mean phase of the truth: the difference stays what it was."""
    truth = flattened(comparison.truth, comparison.compared).field
    return truth, comparison.estimate * np.exp(1j * np.angle(truth * np.conj(comparison.truth)))


def _wrapped(phase: Image) -> Image:
    return np.asarray((phase + np.pi) % (2 * np.pi) - np.pi)
