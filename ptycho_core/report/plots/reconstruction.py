"""A reconstruction on one page: the object, how far it can be trusted, and what it rests on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_core.quality.area import mean_step_px, probe_width_px
from ptycho_core.quality.ramp import flattened
from ptycho_core.report.plots.drawing import (
    AMPLITUDE_MAP,
    ERROR_MAP,
    FRAME_MAP,
    TINY,
    Axes,
    Figure,
    StrPath,
    as_text,
    color_bar,
    draw_patterns,
    limits_of,
    new_figure,
    pattern_limits,
    save,
)
from ptycho_core.report.plots.objects import Canvas, phase_limits
from ptycho_core.report.plots.probe import draw_probe
from ptycho_core.report.plots.resolution import draw_frc

if TYPE_CHECKING:
    from ptycho_core.reconstruction.result import Reconstruction

MOST_POSITIONS = 20_000
LEAST_MOVE_PX = 1e-3
WIDTH, WIDTH_ALONE, ROOM = 22.0, 15.9, (0.8, 1.3)
"""Of the page, of the object alone, and beside each panel: left for the axis, right for the colour bar; inches."""
FAINTEST = 0.01
"""Of the largest modelled intensity; it is to be seen."""
WIDE = 5.0
"""Colours are logarithmic where the limits are further apart than by this factor."""
ARROW_SHARE = 0.05
"""Length of the longest of the usual arrows, as a part of the scan's extent."""

Panel = Callable[["Figure", "Axes", "Reconstruction", Canvas], None]


def plot_reconstruction(result: Reconstruction, path: StrPath, *, title: str = "", object_alone: bool = False) -> None:
    """Amplitude, phase and trust map; probe modes, measured beside modelled pattern, R by sweep, positions.

    Colours are scaled inside the hull of the positions; what was not lit is grey. What a reconstruction does not hold
    is left out. object_alone: the first row. DataError where no pixel of it is known.
    """
    known = result.overlap_count > 0 if result.known is None else result.known
    canvas = Canvas.of(known, origin_px=result.origin_px, positions_px=result.positions_px, pixel_m=result.pixel_m)
    wanted: list[tuple[bool, Panel]] = [
        (True, _draw_modes),
        (result.measured_amplitude is not None and result.modelled_amplitude is not None, _draw_pattern),
        (result.prior_change is not None, _draw_change),
        (result.frc is not None, _draw_resolution),
        (any(_is_number(row.get("R")) for row in result.history), _draw_history),
        (True, _draw_positions),
    ]
    third = _draw_overlap if result.predicted_error is None else _draw_error
    below = [draw for has, draw in wanted if has]
    rows: list[tuple[float, float, list[Panel]]] = [(5.15, 5.5, [_draw_amplitude, _draw_phase, third])]
    rows += [(0.75, 3.0, below)]
    width, high = WIDTH, 11.8
    if object_alone:
        rows, width, high = [(0.6, 3.2, rows[0][2])], WIDTH_ALONE, 4.95
    figure = new_figure(width, high, arranged=False)
    figure.suptitle(f"{as_text(title or _heading(result))}\n{_figures(result, canvas)}", y=1 - 0.18 / high, va="top")
    for bottom, height, panels in rows:
        cell = width / len(panels)
        for number, draw in enumerate(panels):
            sides = (number * cell + ROOM[0], bottom, cell - sum(ROOM), height)
            box = [side / whole for side, whole in zip(sides, figure.get_size_inches().tolist() * 2, strict=True)]
            draw(figure, figure.add_axes(box), result, canvas)
    save(figure, path)


# ---- the object ------------------------------------------------------------------------------------------------------


def _draw_amplitude(figure: Figure, axes: Axes, result: Reconstruction, canvas: Canvas) -> None:
    amplitude = np.abs(result.object_field)
    canvas.draw(figure, axes, amplitude, "amplitude", "|object|", AMPLITUDE_MAP, limits_of(amplitude[canvas.focus]))


def _draw_phase(figure: Figure, axes: Axes, result: Reconstruction, canvas: Canvas) -> None:
    flat = flattened(result.object_field, canvas.focus)
    phase = np.angle(flat.field)
    limits, color_map = phase_limits(phase, canvas)
    canvas.draw(figure, axes, phase, "phase, mean and ramp removed", "phase (rad)", color_map, limits)


def _draw_error(figure: Figure, axes: Axes, result: Reconstruction, canvas: Canvas) -> None:
    from matplotlib.colors import LogNorm

    error = np.asarray(result.predicted_error, np.float64)
    shown = np.where(np.isfinite(error), error, np.nanmax(error))
    low, high = limits_of(shown[canvas.focus])
    norm = LogNorm(max(low, 1e-3 * high, TINY), high) if high > WIDE * max(low, TINY) else None
    title = f"trust map: predicted RMS error, median {np.median(shown[canvas.focus]):.2g}"
    canvas.draw(figure, axes, shown, title, "error of the object", ERROR_MAP, (low, high), norm=norm)


def _draw_change(figure: Figure, axes: Axes, result: Reconstruction, canvas: Canvas) -> None:
    change = np.asarray(result.prior_change, np.float64)
    known = np.isfinite(change)
    shown = np.where(known, change, 0)
    limits = (0.0, max(limits_of(shown[canvas.focus])[1], TINY))
    name = result.choices.get("prior", "prior")
    title = f"change by the prior ({name}), median {np.median(shown[canvas.focus]):.2g}"
    canvas.draw(figure, axes, shown, title, "predicted errors", ERROR_MAP, limits)


def _draw_overlap(figure: Figure, axes: Axes, result: Reconstruction, canvas: Canvas) -> None:
    count = result.overlap_count
    limits = (0.0, float(count.max()))
    canvas.draw(figure, axes, count, "patches over each pixel", "patches", FRAME_MAP, limits)


def _draw_resolution(figure: Figure, axes: Axes, result: Reconstruction, canvas: Canvas) -> None:
    assert result.frc is not None
    draw_frc(axes, result.frc, result.pixel_m, legend=False)
    axes.set_title("correlation of two halves of the frames")


# ---- what it rests on ------------------------------------------------------------------------------------------------


def _draw_modes(figure: Figure, axes: Axes, result: Reconstruction, canvas: Canvas) -> None:
    draw_probe(figure, axes, result.probe, "√photons" if result.dose_known else "(square root of intensity)")


def _draw_pattern(figure: Figure, axes: Axes, result: Reconstruction, canvas: Canvas) -> None:
    """Both on one scale, one above the other."""
    assert result.measured_amplitude is not None and result.modelled_amplitude is not None
    pair = [np.square(pattern, dtype=np.float64) for pattern in (result.measured_amplitude, result.modelled_amplitude)]
    seam = np.zeros((max(1, len(pair[0]) // 32), len(pair[0])))
    both = np.concatenate([pair[0], seam, pair[1]])
    bottom, top = pattern_limits(pair[0])
    bottom = min(bottom, FAINTEST * max(float(pair[1].max()), TINY))  # where photons are few it is far below one
    unit = "photons" if result.dose_known else "arbitrary unit"
    draw_patterns(figure, axes, both, np.zeros(both.shape, bool), unit, (bottom, top))
    frame = "" if result.pattern_frame is None else f", frame {result.pattern_frame}"
    axes.set(title=f"measured above modelled{frame}", xticks=[], yticks=[])


def _draw_history(figure: Figure, axes: Axes, result: Reconstruction, canvas: Canvas) -> None:
    rows = result.history
    sweeps = [row.get("sweep", number) for number, row in enumerate(rows, start=1)]
    for name, style in (("R", "-"), ("H", "--")):
        values = np.array([row[name] if _is_number(row.get(name)) else np.nan for row in rows], np.float64)
        if np.isfinite(values).any():
            label = {"R": "R, fitted pixels", "H": "H, held-out pixels"}[name]
            axes.plot(sweeps, values, style, label=label, marker="o", markersize=3)
            if np.nanmin(values) > 0:
                axes.set_yscale("log")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(title="misfit by sweep", xlabel="sweep", ylabel="Σ(|F| − A)² / ΣA²")
    axes.grid(True, which="both", alpha=0.25)
    axes.legend(frameon=False)


def _draw_positions(figure: Figure, axes: Axes, result: Reconstruction, canvas: Canvas) -> None:
    """Where the patches lie, by their misfit, the bad ones marked; with arrows where they were moved."""
    scale, positions = canvas.scale, result.positions_px
    drawn = np.arange(0, len(positions), max(1, -(-len(positions) // MOST_POSITIONS)))
    x, y = scale.places(positions[drawn]).T
    misfit = result.frame_R if result.frame_R is not None else result.frame_deviance
    size = float(np.clip(4e3 / len(drawn), 1, 30))
    if misfit is not None and np.isfinite(misfit[drawn]).any():
        from matplotlib.colors import Normalize

        values = misfit[drawn]
        dots = axes.scatter(
            x, y, c=values, s=size, cmap=FRAME_MAP, norm=Normalize(*limits_of(values[np.isfinite(values)])), lw=0
        )
        color_bar(
            figure,
            axes,
            dots,
            "R of the frame" if result.frame_R is not None else "deviance of the frame",
            extend="both",
        )
    else:
        axes.scatter(x, y, s=size, color="C0", lw=0)
    titles = ["positions" if len(drawn) == len(positions) else f"positions, one in {drawn[1]}"]
    titles += _draw_moves(axes, result, canvas, drawn)
    if len(bad := result.bad_frames):
        axes.scatter(*scale.places(positions[bad]).T, s=4 * size + 20, facecolors="none", edgecolors="C3", lw=1.2)
        titles.append(f"{len(bad)} bad frame{'s' if len(bad) > 1 else ''} (red)")
    axes.set(title="\n".join(titles), xlabel=f"x ({scale.unit})", ylabel=f"y ({scale.unit})", aspect="equal")
    rim = 0.06 * max(np.ptp(x), np.ptp(y)) + 1e-9
    axes.set(xlim=(x.min() - rim, x.max() + rim), ylim=(y.max() + rim, y.min() - rim))  # rows count downwards


def _draw_moves(axes: Axes, result: Reconstruction, canvas: Canvas, drawn: Any) -> list[str]:
    """Arrows from where the scan has the positions to where they were moved, longer than life; what to say of them."""
    if result.given_positions_px is None:
        return []
    moves = result.positions_px - result.given_positions_px
    lengths = np.hypot(*moves.T)
    if lengths.max() < LEAST_MOVE_PX:
        return ["none moved"]
    extent = float(np.ptp(result.positions_px, axis=0).max())
    factor = max(1.0, float(f"{ARROW_SHARE * extent / np.percentile(lengths, 95):.1g}"))
    scale = canvas.scale
    x, y = scale.places(result.positions_px[drawn]).T
    along, down = scale.places(moves[drawn] * factor).T
    options = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.004, "color": "C3"}
    axes.quiver(x - along, y - down, along, down, **options)
    said = f"moved {np.sqrt(np.mean(lengths**2)):.2g} px RMS, {lengths.max():.2g} at most"
    return [said + (f" (arrows × {factor:g})" if factor > 1 else "")]


# ---- in words --------------------------------------------------------------------------------------------------------


def _heading(result: Reconstruction) -> str:
    made = f"{result.method}, {result.engine.name} {result.engine.version}"
    return f"{PurePath(result.source).name}: {made}" if result.source else made


def _figures(result: Reconstruction, canvas: Canvas) -> str:
    """Overlap, fit and resolution in one line."""
    inside = result.overlap_count[canvas.focus]
    parts = [f"{result.patterns} patches of {result.probe.shape[-1]} px, {int(np.median(inside))} over a pixel"]
    step, width = mean_step_px(result.positions_px), probe_width_px(result.probe)
    if step is not None:
        overlap = max(0.0, 1 - step / width)
        parts.append(f"steps of {step:.3g} px, probe {width:.3g} px wide at half maximum (overlap {overlap:.0%})")
    parts += [f"{name} {value:.4f}" for name, value in (("R", result.R), ("H", result.H)) if value is not None]
    if result.frc is not None:
        parts.append(f"resolution {result.frc.resolution(result.pixel_m)}")
    return "; ".join(parts)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))
