"""A scan before anything is made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ptycho_core.report.plots.drawing import FRAME_MAP, StrPath, as_text, color_bar, draw_patterns, new_figure, save
from ptycho_core.report.plots.probe import draw_probe

if TYPE_CHECKING:
    from ptycho_core.scans.scan import Scan

MOST_POSITIONS = 20_000


def plot_scan(scan: Scan, path: StrPath) -> None:
    """The mean pattern on a logarithmic scale, the probe, and the positions in their order.

    Pixels without a count are grey, bad ones are coloured and counted. Of more than MOST_POSITIONS positions a regular
    part is drawn.
    """
    figure = new_figure(14.0, 4.4)
    figure.suptitle(f"{as_text(scan.source)}: {len(scan)} patterns of {scan.N} × {scan.N} pixels")
    pattern_axes, probe_axes, position_axes = figure.subplots(1, 3)

    bad = np.asarray(scan.bad_pixels)
    draw_patterns(figure, pattern_axes, scan.mean_pattern(), bad, "counts" if scan.dose_known else "arbitrary unit")
    title = f"mean pattern, {bad.sum()} bad pixels" if bad.any() else "mean pattern"
    pattern_axes.set(title=title, xlabel="x (detector px)", ylabel="y (detector px)")

    draw_probe(figure, probe_axes, scan.probe)

    drawn = np.arange(0, len(scan), max(1, -(-len(scan) // MOST_POSITIONS)))
    x, y = scan.positions_px[drawn].T
    size = float(np.clip(2e3 / len(drawn), 1, 25))
    dots = position_axes.scatter(x, y, c=drawn, s=size, cmap=FRAME_MAP, linewidths=0)
    title = "positions of the patch centres"
    if len(drawn) < len(scan):
        title += f", one in {drawn[1]}"
    position_axes.set(title=title, xlabel="x (px)", ylabel="y (px)", aspect="equal")
    position_axes.invert_yaxis()  # rows count downwards, as in the images
    color_bar(figure, position_axes, dots, "pattern")
    save(figure, path)
