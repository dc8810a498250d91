"""What every figure is made of: the figure, colour maps and limits, colour bars, the file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import MissingExtraError, visible
from ptycho_core.storage.files import make_folder, replacing

Figure = Any  # matplotlib.figure.Figure
Axes = Any  # matplotlib.axes.Axes
Image = NDArray[Any]
Limits = tuple[float, float]
StrPath = str | os.PathLike[str]

DPI = 120
TINY = float(np.finfo(np.float64).tiny)
ROBUST_PERCENTILES = (0.5, 99.5)
AMPLITUDE_MAP, PHASE_MAP, WHOLE_CIRCLE_MAP, DIFFERENCE_MAP = "gray", "cividis", "twilight", "RdBu_r"
PATTERN_MAP, ERROR_MAP, FRAME_MAP = "magma", "inferno", "viridis"
UNMEASURED = "0.85"  # light grey
BAD = "tab:cyan"  # in no colour map used beside it


def new_figure(width: float, height: float, *, arranged: bool = True) -> Figure:
    """An empty figure, in inches, drawn by Agg whatever the environment says. arranged: matplotlib places the axes."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise  # a broken installation, not an absent one
        raise MissingExtraError.of("a figure", "matplotlib", "plot", setting="figure") from error
    figure: Any = Figure(figsize=(width, height), dpi=DPI, layout="constrained" if arranged else None)
    if arranged:
        figure.get_layout_engine().set(wspace=0.06, hspace=0.06)
    FigureCanvasAgg(figure)
    return figure


def as_text(words: str) -> str:
    """As matplotlib draws it letter by letter: names of files may hold `$`, which begins a formula, and any byte."""
    return visible(words).replace("$", r"\$")


def save(figure: Figure, path: StrPath) -> None:
    target = Path(path)
    make_folder(target.parent)
    with replacing(target) as file:
        write(figure, file)


def write(figure: Figure, file: Any) -> None:
    """Write a figure as a PNG, which takes most of the time that drawing it takes."""
    figure.savefig(file, format="png", dpi=DPI)


def save_image(values: Image, path: StrPath, color_map: str = AMPLITUDE_MAP) -> None:
    """Real values (H, W) as a picture of H × W pixels, between robust limits."""
    new_figure(1.0, 1.0)  # which explains matplotlib's absence
    from matplotlib.image import imsave

    low, high = limits_of(np.asarray(values))
    target = Path(path)
    make_folder(target.parent)
    with replacing(target) as file:
        imsave(cast(BinaryIO, file), np.asarray(values), vmin=low, vmax=high, cmap=color_map, format="png")


def limits_of(values: Image) -> Limits:
    """Robust colour limits, never equal."""
    low, high = (float(limit) for limit in np.percentile(values, ROBUST_PERCENTILES))
    margin = 1e-6 * max(abs(low), abs(high), 1.0)
    return (low, high) if high - low > margin else (low - margin, high + margin)


def color_map_of(name: str) -> Any:
    """Of that name, with grey for what was not measured."""
    import matplotlib

    return matplotlib.colormaps[name].with_extremes(bad=UNMEASURED)


def color_bar(figure: Figure, axes: Axes, shown: Any, label: str, **options: Any) -> None:
    """As tall as the image beside it."""
    figure.colorbar(shown, cax=axes.inset_axes((1.03, 0.0, 0.045, 1.0)), label=label, **options)


def draw_patterns(
    figure: Figure, axes: Axes, intensity: Image, bad: Image, unit: str, limits: tuple[float, float] | None = None
) -> None:
    """Intensities (H, W) on a logarithmic scale; grey where there are none, bad pixels coloured.

    limits: of the scale, above 0; unset: nearly all that is shown.
    """
    from matplotlib.colors import ListedColormap, LogNorm

    shown = np.ma.masked_where((intensity <= 0) | bad, intensity)
    bottom, top = pattern_limits(shown.compressed()) if limits is None else limits
    image = axes.imshow(shown, cmap=color_map_of(PATTERN_MAP), norm=LogNorm(min(bottom, 0.99 * top), top))
    if bad.any():
        axes.imshow(np.ma.masked_where(~bad, np.ones(bad.shape)), cmap=ListedColormap([BAD]))
    color_bar(figure, axes, image, f"intensity ({unit})", extend="neither" if limits is None else "both")


def pattern_limits(intensity: Image) -> tuple[float, float]:
    """The first percentile and the largest of what is above 0, at most six decades apart."""
    above = intensity[intensity > 0]
    top = float(above.max()) if above.size else 1.0
    return max(float(np.percentile(above, 1)) if above.size else top, 1e-6 * top), top
