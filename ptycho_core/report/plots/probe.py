"""The modes of a probe in complex colour."""

from __future__ import annotations

from typing import Any

import numpy as np

from ptycho_core.errors import DataError
from ptycho_core.report.plots.drawing import TINY, Axes, Figure, Image, color_bar

MOST_MODES = 4


def draw_probe(figure: Figure, axes: Axes, probe: Image, unit: str = "") -> None:
    """Up to four modes side by side: hue is phase, brightness amplitude relative to the brightest pixel of its mode.

    probe: complex (modes, N, N) or (N, N). unit: of its amplitude; that of a probe in a file is not known. The title
    has the part of the light that each of them holds.
    """
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    modes = np.asarray(probe)[None] if np.ndim(probe) == 2 else np.asarray(probe)
    if modes.ndim != 3 or modes.size == 0:
        expected, remedy = "complex (modes, N, N) or (N, N)", "Pass the probe of the scan or model."
        raise DataError("plots", "probe", expected=expected, received=f"shape {modes.shape}", remedy=remedy)
    hue = matplotlib.colormaps["hsv"]
    axes.imshow(_montage([_complex_color(mode, hue) for mode in modes[:MOST_MODES]]))
    if len(modes) == 1:
        axes.set(title=f"probe, at most {np.abs(modes).max():.3g} {unit}".rstrip(), xlabel="x (px)", ylabel="y (px)")
    else:
        power = (np.abs(modes) ** 2).sum(axis=(1, 2))
        shares = ", ".join(f"{100 * part / max(power.sum(), TINY):.3g} %" for part in power[:MOST_MODES])
        axes.set(title=f"probe, {len(modes)} modes: {shares}", xticks=[], yticks=[])
    circle = ScalarMappable(Normalize(-np.pi, np.pi), _rolled(hue))
    color_bar(figure, axes, circle, "phase; brightness is amplitude", ticks=[-np.pi, 0, np.pi], format=_in_pi)


def _complex_color(mode: Image, hue: Any) -> Image:
    brightness = np.abs(mode) / max(float(np.abs(mode).max()), TINY)
    return np.asarray(hue((np.angle(mode) / (2 * np.pi)) % 1)[..., :3] * brightness[..., None])


def _rolled(hue: Any) -> Any:
    """The cyclic map from -π to π instead of from 0 to 2π."""
    from matplotlib.colors import ListedColormap

    return ListedColormap(hue(np.linspace(0.5, 1.5, 256) % 1))


def _in_pi(phase: float, _: object = None) -> str:
    return {-1: "−π", 0: "0", 1: "π"}.get(round(phase / np.pi), "")


def _montage(tiles: list[Image]) -> Image:
    """Tiles (N, N, 3) two in a row, with white seams."""
    if len(tiles) == 1:
        return tiles[0]
    framed = [np.pad(tile, ((1, 1), (1, 1), (0, 0)), constant_values=1.0) for tile in tiles]
    framed += [np.ones_like(framed[0])] * (len(framed) % 2)
    return np.concatenate([np.concatenate(framed[row : row + 2], axis=1) for row in range(0, len(framed), 2)])
