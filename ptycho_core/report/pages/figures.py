"""The figures of every page, with Bokeh: images that zoom together, curves, positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import MissingExtraError
from ptycho_core.quality.area import bounding_box
from ptycho_core.quality.frc import FRC
from ptycho_core.report.pages.images import Coloured, palette
from ptycho_core.report.plots.drawing import FRAME_MAP, limits_of
from ptycho_core.report.plots.objects import Canvas

Model = Any  # of Bokeh
TOOLS = "pan,wheel_zoom,box_zoom,reset,save"
FRAME = 232
"""Pixels of an image on the page, each way."""
CURVE_WIDTH, CURVE_HEIGHT = 430, 300
LEGEND_COLUMNS, LEGEND_HEIGHT = 2, 22
"""Names side by side above the curves, and pixels of each row of them."""
MOST_POSITIONS = 20_000
CURVES = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f")


def plotting() -> Any:
    """`bokeh.plotting`. Raises MissingExtraError."""
    try:
        import bokeh.plotting
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] != "bokeh":
            raise  # a broken installation, not an absent one
        raise MissingExtraError.of("a page", "bokeh", "pages", setting="report") from error
    return bokeh.plotting


@attrs.define(eq=False)
class Maps:
    """Images of one object that pan and zoom together, in the coordinates of the scan, and the positions on it.

    `figures`: one for each name; `show` puts a picture into one.
    """

    figures: dict[str, Model]
    _sources: dict[str, Model]
    _bars: dict[str, Model]

    @classmethod
    def of(cls, names: Sequence[str], canvas: Canvas) -> Maps:
        from bokeh.models import ColorBar, LinearColorMapper, Range1d

        plot = plotting()
        left, right, bottom, top = framed(canvas)
        x_range, y_range = Range1d(left, right), Range1d(bottom, top)
        figures, sources, bars = {}, {}, {}
        for name in names:
            figure = plot.figure(
                frame_width=FRAME,
                frame_height=FRAME,
                x_range=x_range,
                y_range=y_range,
                tools=TOOLS,
                active_scroll="wheel_zoom",
                match_aspect=True,
                title=name,
                name=name,
                background_fill_color="#d9d9d9",
                x_axis_label=f"x ({canvas.scale.unit})",
                y_axis_label=f"y ({canvas.scale.unit})",
                toolbar_location="below",
            )
            figure.grid.visible, figure.toolbar.logo = False, None
            source = plot.ColumnDataSource({"url": [], "x": [], "y": [], "w": [], "h": []}, name=f"{name} image")
            figure.image_url(url="url", x="x", y="y", w="w", h="h", anchor="top_left", source=source)
            bar = ColorBar(color_mapper=LinearColorMapper(palette=["#000000", "#ffffff"], low=0, high=1), width=12)
            figure.add_layout(bar, "right")
            figures[name], sources[name], bars[name] = figure, source, bar
        return cls(figures, sources, bars)

    def show(self, name: str, image: Coloured, canvas: Canvas) -> None:
        from bokeh.models import LinearColorMapper, LogColorMapper

        (x, y), (height, width), (across, down) = canvas.origin_px, canvas.known.shape, canvas.scale.side
        self.figures[name].title.text = image.title
        kind, bar = LogColorMapper if image.log else LinearColorMapper, self._bars[name]
        colours = {"palette": list(image.palette), "low": image.low, "high": image.high}
        if type(bar.color_mapper) is kind:
            bar.color_mapper.update(**colours)  # another mapper would have the whole page laid out again
        else:
            bar.color_mapper = kind(**colours)
        bar.title = image.label
        sides = {"x": [(x - 0.5) * across], "y": [(y - 0.5) * down], "w": [width * across], "h": [height * down]}
        self._sources[name].data = {"url": [image.uri], **sides}

    def frame(self, canvas: Canvas) -> None:
        """Let the figures show all that is known."""
        left, right, bottom, top = framed(canvas)
        figure = next(iter(self.figures.values()))
        figure.x_range.update(start=left, end=right)
        figure.y_range.update(start=bottom, end=top)


def framed(canvas: Canvas) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of what is known, widened to the shape of a figure; rows count downwards."""
    (x, y), (across, down) = canvas.origin_px, canvas.scale.side
    rows, columns = bounding_box(canvas.known)
    left, right = (x + columns.start - 0.5) * across, (x + columns.stop - 0.5) * across
    top, bottom = (y + rows.start - 0.5) * down, (y + rows.stop - 0.5) * down
    side = max(right - left, bottom - top) / 2
    middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
    return middle_x - side, middle_x + side, middle_y + side, middle_y - side


def positions(
    places_px: NDArray[np.float64],
    canvas: Canvas,
    *,
    beside: Model | None = None,
    before_px: NDArray[np.float64] | None = None,
    misfit: NDArray[np.float64] | None = None,
    frames: NDArray[np.int64] | None = None,
    bad: NDArray[np.int64] | None = None,
    misfit_name: str = "R",
) -> Model:
    """Where the frames lie, coloured by their misfit; a line from where the scan has each; the bad ones ringed.

    beside: a figure with which it pans and zooms.
    """
    from bokeh.models import ColorBar, LinearColorMapper

    plot, scale = plotting(), canvas.scale
    ranges = {} if beside is None else {"x_range": beside.x_range, "y_range": beside.y_range}
    tips = [("frame", "@frame"), (misfit_name, "@misfit")]
    figure = plot.figure(
        frame_width=FRAME,
        frame_height=FRAME,
        tools=TOOLS,
        active_scroll="wheel_zoom",
        match_aspect=True,
        tooltips=tips,
        x_axis_label=f"x ({scale.unit})",
        y_axis_label=f"y ({scale.unit})",
        name="positions",
        toolbar_location="below",
        **ranges,
    )
    drawn = np.arange(0, len(places_px), max(1, -(-len(places_px) // MOST_POSITIONS)))
    x, y = scale.places(places_px[drawn]).T
    values = np.full(len(drawn), np.nan) if misfit is None else misfit[drawn]
    numbers = drawn if frames is None else frames[drawn]
    source = plot.ColumnDataSource({"x": x, "y": y, "misfit": values, "frame": numbers}, name="places")
    known = values[np.isfinite(values)]
    colour: Any = CURVES[0]
    if len(known):
        low, high = limits_of(known)
        mapper = LinearColorMapper(palette=list(palette(FRAME_MAP)), low=low, high=high)
        colour = {"field": "misfit", "transform": mapper}
        figure.add_layout(ColorBar(color_mapper=mapper, width=12, title=misfit_name), "right")
    title = "positions" if len(drawn) == len(places_px) else f"positions, one in {drawn[1]}"
    if before_px is not None:
        begun = scale.places(before_px[drawn]).T
        moved = np.hypot(*(places_px - before_px).T)
        figure.segment(*begun, x, y, line_color=CURVES[1], line_width=1, legend_label="moved from")
        title += f", moved {np.sqrt(np.mean(moved**2)):.2g} px RMS, {moved.max():.2g} at most"
    figure.scatter("x", "y", source=source, size=5, color=colour, line_color=None)
    if bad is not None and len(bad):
        there = scale.places(places_px[bad])
        figure.scatter(*there.T, size=12, fill_color=None, line_color=CURVES[1], legend_label="bad frames")
        title += f", {len(bad)} bad"
    if beside is None:
        figure.y_range.flipped = True
    figure.title.text, figure.toolbar.logo = title, None
    if figure.legend:
        figure.legend.label_text_font_size, figure.legend.click_policy = "10px", "hide"
        figure.legend.background_fill_alpha = 0.6
    return figure


def curves(
    rows: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, title: str, x: str, y: str, linear: bool = False
) -> Model:
    """Curves by name, each (x, y); logarithmic where all are positive. What is not finite leaves a gap."""
    plot = plotting()
    arrays = {name: (np.asarray(xs, float), np.asarray(ys, float)) for name, (xs, ys) in rows.items()}
    values = np.concatenate([ys[np.isfinite(ys)] for _, ys in arrays.values()] or [np.zeros(0)])
    kind = "log" if len(values) and (values > 0).all() and not linear else "linear"
    figure = plot.figure(
        width=CURVE_WIDTH,
        height=CURVE_HEIGHT + LEGEND_HEIGHT * -(-len(arrays) // LEGEND_COLUMNS),
        tools=f"{TOOLS},hover",
        active_scroll="wheel_zoom",
        tooltips=[("", "$name"), (x, "@x"), (y, "@y")],
        y_axis_type=kind,
        title=title,
        x_axis_label=x,
        y_axis_label=y,
        name="curves",
        toolbar_location="below",
    )
    for number, (name, (xs, ys)) in enumerate(arrays.items()):
        source = plot.ColumnDataSource({"x": xs, "y": ys})
        dash = "dashed" if name.startswith("validation") or name == "H" else "solid"
        colour = CURVES[number % len(CURVES)]
        figure.line("x", "y", source=source, name=name, color=colour, line_dash=dash, legend_label=name, line_width=2)
        if len(xs) <= 40:
            figure.scatter("x", "y", source=source, name=name, color=colour, size=4)
    figure.toolbar.logo = None
    if arrays:
        (legend,) = figure.legend
        legend.update(click_policy="hide", label_text_font_size="11px", orientation="horizontal", ncols=LEGEND_COLUMNS)
        legend.update(location="left", border_line_color=None, padding=2, margin=2)
        figure.center.remove(legend)
        figure.add_layout(legend, "above")  # not over the curves
    return figure


def resolution(curve: FRC, pixel_m: tuple[float, float] | None) -> Model:
    """Fourier ring correlation, and its last crossing of 0.5."""
    from bokeh.models import Range1d, Span

    known = np.isfinite(curve.correlation)
    name = curve.resolution(pixel_m)
    figure = curves(
        {"correlation": (curve.frequency[known].tolist(), curve.correlation[known].tolist())},
        title=f"two halves of the frames: {name}" if known.any() else str(curve.reason),
        x="spatial frequency (cycles/px)",
        y="correlation",
        linear=True,
    )
    figure.add_layout(Span(location=0.5, dimension="width", line_dash="dashed", line_color="#666666"))
    if np.isfinite(curve.crossing_half):
        figure.add_layout(Span(location=curve.crossing_half, dimension="height", line_color=CURVES[1]))
    figure.y_range = Range1d(-0.1, 1.05)
    return figure
