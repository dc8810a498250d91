"""Figures as PNG files: losses, a scan, a reconstruction, its resolution, a comparison with a truth.

matplotlib is the optional extra `plot`, loaded when a figure is drawn and used through `Figure` alone: no display, no
pyplot, no global state. A file appears complete or not at all.
"""

from ptycho_core.report.plots.comparison import plot_beside, plot_comparison
from ptycho_core.report.plots.drawing import save_image
from ptycho_core.report.plots.losses import plot_losses
from ptycho_core.report.plots.reconstruction import plot_reconstruction
from ptycho_core.report.plots.resolution import plot_resolution
from ptycho_core.report.plots.scan import plot_scan

__all__ = [
    "plot_beside",
    "plot_comparison",
    "plot_losses",
    "plot_reconstruction",
    "plot_resolution",
    "plot_scan",
    "save_image",
]
