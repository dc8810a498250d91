"""Figures as PNG files: losses, a scan, a reconstruction, a comparison with a truth.

matplotlib is the optional extra `plot`, loaded when a figure is drawn and used through `Figure` alone: no display, no
pyplot, no global state. A file appears complete or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError, MissingExtraError
from ptycho_core.quality.area import bounding_box
from ptycho_core.storage.files import make_folder, replacing

if TYPE_CHECKING:
    from ptycho_core.quality.frc import FRC
    from ptycho_core.quality.metrics import Mask
    from ptycho_core.scans.scan import Scan

Figure = Any  # matplotlib.figure.Figure
Axes = Any  # matplotlib.axes.Axes
Field = NDArray[Any]
Limits = tuple[float, float]
StrPath = str | os.PathLike[str]

DPI = 120
TINY = float(np.finfo(np.float64).tiny)
ROBUST_PERCENTILES = (0.5, 99.5)
NOT_LOSSES = frozenset({"epoch", "learning_rate", "physics_weight", "seconds"})
AMPLITUDE_MAP, PHASE_MAP, WHOLE_CIRCLE_MAP, DIFFERENCE_MAP = "gray", "cividis", "twilight", "RdBu_r"
UNMEASURED = "0.85"  # light grey
BAD_PIXEL = "tab:cyan"  # in no colour map used beside it
MOST_MODES = 4
MOST_POSITIONS = 20_000


def plot_losses(history: Sequence[Mapping[str, float]], path: StrPath) -> None:
    """Losses against epochs, on a logarithmic axis when all are positive.

    history: one row per epoch, with "epoch", "total" (training), and where known "validation_total" and further terms,
    drawn thinner; whatever starts with "validation_" is dashed. Missing and NaN entries leave gaps.
    DataError: no rows, or rows without "epoch" and "total".
    """
    if not history or not all({"epoch", "total"} <= row.keys() for row in history):
        received = "no rows" if not history else f"keys {sorted(history[0])}"
        remedy = "Pass the history of a training run."
        raise DataError("plot_losses", "history", expected="'epoch', 'total'", received=received, remedy=remedy)
    figure = _figure(7.0, 4.2)
    axes = figure.add_subplot()
    epochs = [row["epoch"] for row in history]
    names = dict.fromkeys(name for row in history for name in row if name not in NOT_LOSSES)
    curves = {name: np.array([row.get(name, np.nan) for row in history], np.float64) for name in names}
    terms = list(dict.fromkeys(name.removeprefix("validation_") for name in ("total", *curves)))
    for name in sorted(curves, key=lambda name: (terms.index(name.removeprefix("validation_")), name)):
        term = name.removeprefix("validation_")
        axes.plot(
            epochs,
            curves[name],
            label=term.replace("_", " ") + (", validation" if term != name else ""),
            color=f"C{terms.index(term) % 10}",
            linestyle="-" if term == name else "--",
            linewidth=2.0 if term == "total" else 1.0,
            marker="o" if len(epochs) <= 30 else None,
            markersize=3,
            zorder=3 if term == "total" else 2,
        )
    values = np.concatenate(list(curves.values()))
    values = values[np.isfinite(values)]
    if len(values) and (values > 0).all():
        axes.set_yscale("log")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="epoch", ylabel="loss")
    axes.grid(True, which="both", alpha=0.25)
    axes.legend(frameon=False)
    _save(figure, path)


def plot_scan(scan: Scan, path: StrPath) -> None:
    """The mean pattern on a logarithmic scale, the probe, and the positions in their order.

    Pixels without a count are grey, bad ones are coloured and counted. Of more than MOST_POSITIONS positions a regular
    part is drawn.
    """
    figure = _figure(14.0, 4.4)
    from matplotlib.colors import ListedColormap, LogNorm  # after _figure, which explains its absence

    figure.suptitle(f"{scan.source}: {len(scan)} patterns of {scan.N} × {scan.N} pixels")
    pattern_axes, probe_axes, position_axes = figure.subplots(1, 3)

    intensity = scan.mean_pattern()
    bad = np.asarray(scan.bad_pixels)
    shown = np.ma.masked_where((intensity <= 0) | bad, intensity)
    top = float(shown.max()) if shown.count() else 1.0
    bottom = max(float(np.percentile(shown.compressed(), 1)) if shown.count() else top, 1e-6 * top)
    unit = "counts" if scan.dose_known else "arbitrary unit"
    image = pattern_axes.imshow(shown, cmap=_color_map("magma"), norm=LogNorm(min(bottom, 0.99 * top), top))
    if bad.any():
        pattern_axes.imshow(np.ma.masked_where(~bad, np.ones(bad.shape)), cmap=ListedColormap([BAD_PIXEL]))
    title = f"mean pattern, {bad.sum()} bad pixels" if bad.any() else "mean pattern"
    pattern_axes.set(title=title, xlabel="x (detector px)", ylabel="y (detector px)")
    _color_bar(figure, pattern_axes, image, f"intensity ({unit})")

    _draw_probe(figure, probe_axes, scan.probe)

    drawn = np.arange(0, len(scan), max(1, -(-len(scan) // MOST_POSITIONS)))
    x, y = scan.positions_px[drawn].T
    size = float(np.clip(2e3 / len(drawn), 1, 25))
    dots = position_axes.scatter(x, y, c=drawn, s=size, cmap="viridis", linewidths=0)
    title = "positions of the patch centres"
    if len(drawn) < len(scan):
        title += f", one in {drawn[1]}"
    position_axes.set(title=title, xlabel="x (px)", ylabel="y (px)", aspect="equal")
    position_axes.invert_yaxis()  # rows count downwards, as in the images
    _color_bar(figure, position_axes, dots, "pattern")
    _save(figure, path)


def plot_reconstruction(
    object_field: Field, probe: Field, path: StrPath, *, title: str = "", covered: Mask | None = None
) -> None:
    """Amplitude and phase of the object, and the probe's modes in complex colour.

    object_field: complex (H, W). probe: complex (modes, N, N) or (N, N), sqrt(photons). covered: bool (H, W), what was
    scanned: it sets the colour limits and the frame. By default the frame is where the object is not 0, and the middle
    half of it sets the limits. DataError: shapes that do not fit, nothing covered.
    """
    covered, focus = _coverage("plot_reconstruction", object_field, covered)
    figure = _figure(15.0, 4.8)
    figure.suptitle(title)
    amplitude_axes, phase_axes, probe_axes = figure.subplots(1, 3)
    amplitude, phase = np.abs(object_field), _centred_phase(object_field, focus)
    limits = _limits(amplitude[focus])
    _draw(figure, amplitude_axes, amplitude, covered, "amplitude", "|object|", AMPLITUDE_MAP, limits)
    limits, color_map = _phase_scale(phase, covered, focus)
    _draw(figure, phase_axes, phase, covered, "phase", "phase from its mean (rad)", color_map, limits)
    _draw_probe(figure, probe_axes, probe)
    _save(figure, path)


def plot_comparison(
    estimate: Field, truth: Field, frc: FRC | None, path: StrPath, *, title: str = "", mask: Mask | None = None
) -> None:
    """Amplitude and phase of truth, aligned estimate and their difference, and the Fourier ring correlation.

    estimate: complex (H, W), as `alignment.align` returns it; truth: complex (H, W). mask: bool (H, W), where the two
    may be compared; default: where the truth is not 0. frc: None draws no curve.
    """
    inside, focus = _coverage("plot_comparison", truth, mask)
    _coverage("plot_comparison", estimate, inside)
    figure = _figure(16.5, 7.2)
    figure.suptitle(title)
    grid = figure.add_gridspec(2, 4, width_ratios=(1, 1, 1, 1.15))
    amplitudes = np.abs(truth), np.abs(estimate)
    phase = _centred_phase(truth, focus)
    difference = np.angle(estimate * np.conj(truth))
    phases = phase, _wrapped(phase + difference)
    phase_limits, phase_map = _phase_scale(phase, inside, focus)
    rows = (
        ("amplitude", "", amplitudes, amplitudes[1] - amplitudes[0], _limits(amplitudes[0][focus]), AMPLITUDE_MAP),
        ("phase", " (rad)", phases, difference, phase_limits, phase_map),
    )
    for row, (name, unit, pair, error, limits, color_map) in enumerate(rows):
        for column, (source, image) in enumerate(zip(("truth", "estimate"), pair, strict=True)):
            axes = figure.add_subplot(grid[row, column])
            _draw(figure, axes, image, inside, f"{name}, {source}", f"{name}{unit}", color_map, limits)
        axes = figure.add_subplot(grid[row, 2])
        reach = max(abs(limit) for limit in _limits(error[focus]))
        mean_error = np.abs(error[inside]).mean()
        heading = f"{name}, estimate − truth (mean |·| {mean_error:.3g})"
        _draw(figure, axes, error, inside, heading, f"difference{unit}", DIFFERENCE_MAP, (-reach, reach))
    _draw_frc(figure.add_subplot(grid[:, 3]), frc)
    _save(figure, path)


# ---- parts of a figure ---------------------------------------------------------------------------------------------


def save_image(values: Field, path: StrPath, color_map: str = AMPLITUDE_MAP) -> None:
    """Real values (H, W) as a picture of H × W pixels, between robust limits."""
    _figure(1.0, 1.0)  # which explains matplotlib's absence
    from matplotlib.image import imsave

    low, high = _limits(np.asarray(values))
    target = Path(path)
    make_folder(target.parent)
    with replacing(target) as file:
        imsave(cast(BinaryIO, file), np.asarray(values), vmin=low, vmax=high, cmap=color_map, format="png")


def _draw(
    figure: Figure, axes: Axes, image: Field, covered: Mask, title: str, label: str, color_map: str, limits: Limits
) -> None:
    """An image in pixels, framed to the covered area, grey outside it, with a colour bar."""
    low, high = limits
    shown = axes.imshow(np.ma.masked_where(~covered, image), cmap=_color_map(color_map), vmin=low, vmax=high)
    rows, columns = bounding_box(covered)
    axes.set(title=title, xlabel="x (px)", ylabel="y (px)")
    axes.set(xlim=(columns.start - 0.5, columns.stop - 0.5), ylim=(rows.stop - 0.5, rows.start - 0.5))
    below, above = bool(image[covered].min() < low), bool(image[covered].max() > high)
    extend = {(True, False): "min", (False, True): "max", (True, True): "both"}.get((below, above), "neither")
    _color_bar(figure, axes, shown, label, extend="neither" if color_map == WHOLE_CIRCLE_MAP else extend)


def _color_bar(figure: Figure, axes: Axes, shown: Any, label: str, **options: Any) -> None:
    """As tall as the image beside it."""
    figure.colorbar(shown, cax=axes.inset_axes((1.03, 0.0, 0.045, 1.0)), label=label, **options)


def _draw_probe(figure: Figure, axes: Axes, probe: Field) -> None:
    """Up to four modes side by side: hue is phase, brightness amplitude relative to the brightest pixel of its mode."""
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
        axes.set(title=f"probe, at most {np.abs(modes).max():.3g} √photons", xlabel="x (px)", ylabel="y (px)")
    else:
        power = (np.abs(modes) ** 2).sum(axis=(1, 2))
        shares = ", ".join(f"{100 * part / max(power.sum(), TINY):.2g} %" for part in power[:MOST_MODES])
        axes.set(title=f"probe, {len(modes)} modes: {shares}", xticks=[], yticks=[])
    circle = ScalarMappable(Normalize(-np.pi, np.pi), _rolled(hue))
    _color_bar(figure, axes, circle, "phase (hue), amplitude (brightness)", ticks=[-np.pi, 0, np.pi], format=_in_pi)


def _complex_color(mode: Field, hue: Any) -> Field:
    brightness = np.abs(mode) / max(float(np.abs(mode).max()), TINY)
    return np.asarray(hue((np.angle(mode) / (2 * np.pi)) % 1)[..., :3] * brightness[..., None])


def _rolled(hue: Any) -> Any:
    """The cyclic map from -π to π instead of from 0 to 2π."""
    from matplotlib.colors import ListedColormap

    return ListedColormap(hue(np.linspace(0.5, 1.5, 256) % 1))


def _in_pi(phase: float, _: object = None) -> str:
    return {-1: "−π", 0: "0", 1: "π"}.get(round(phase / np.pi), "")


def _montage(tiles: list[Field]) -> Field:
    """Tiles (N, N, 3) two in a row, with white seams."""
    if len(tiles) == 1:
        return tiles[0]
    framed = [np.pad(tile, ((1, 1), (1, 1), (0, 0)), constant_values=1.0) for tile in tiles]
    framed += [np.ones_like(framed[0])] * (len(framed) % 2)
    return np.concatenate([np.concatenate(framed[row : row + 2], axis=1) for row in range(0, len(framed), 2)])


def _draw_frc(axes: Axes, frc: FRC | None) -> None:
    axes.set(title="Fourier ring correlation", xlabel="spatial frequency (cycles/px)", xlim=(0, 0.5), ylim=(-0.1, 1.05))
    axes.grid(True, alpha=0.25)
    axes.axhline(0.5, color="0.4", lw=1, ls="--")
    if frc is None or np.isnan(frc.crossing_half):
        reason = "not computed" if frc is None else str(frc.reason)
        axes.text(0.25, 0.55, reason, ha="center", va="bottom", wrap=True)
        return
    axes.plot(frc.frequency, frc.correlation, color="C0", lw=1.8)
    axes.axvline(frc.crossing_half, color="C3", lw=1, ls=":")
    label = {0.5: "above 0.5 up to Nyquist", 0.0: "below 0.5 throughout"}.get(
        frc.crossing_half, f"0.5 at {frc.crossing_half:.3f}"
    )
    right = frc.crossing_half > 0.25
    axes.annotate(
        label,
        (frc.crossing_half, 0.15 if right else 0.85),  # where the curve is not
        xytext=(-6 if right else 6, 0),
        textcoords="offset points",
        ha="right" if right else "left",
        va="center",
        color="C3",
    )


def _coverage(function: str, field: Field, covered: Mask | None) -> tuple[Mask, Mask]:
    """Where the picture has content, checked against the field's shape, and the part of it that sets colour limits."""
    inside = np.asarray(field) != 0 if covered is None else np.asarray(covered, bool)
    if np.ndim(field) != 2 or inside.shape != np.shape(field) or not inside.any():
        received = f"shape {np.shape(field)}, covered {inside.shape} with {int(inside.sum())} pixels"
        expected = "a field (H, W) and a mask of the same shape that is not empty"
        raise DataError(function, expected=expected, received=received, remedy="Check what was passed.")
    if covered is not None:
        return inside, inside
    # Nobody said what was scanned: a reconstruction's rim is unreliable, its middle is not.
    middle = np.zeros_like(inside)
    rows, columns = (
        slice(span.start + (span.stop - span.start) // 4, span.stop - (span.stop - span.start) // 4)
        for span in bounding_box(inside)
    )
    middle[rows, columns] = inside[rows, columns]
    return inside, middle if middle.any() else inside


def _limits(values: Field) -> Limits:
    """Robust colour limits, never equal."""
    low, high = (float(limit) for limit in np.percentile(values, ROBUST_PERCENTILES))
    margin = 1e-6 * max(abs(low), abs(high), 1.0)
    return (low, high) if high - low > margin else (low - margin, high + margin)


def _phase_scale(phase: Field, covered: Mask, focus: Mask) -> tuple[Limits, str]:
    """A cyclic map over the whole circle where the phase goes round it; else robust limits and a map with two ends."""
    low, high = _limits(phase[focus])
    bulk = float(np.ptp(np.percentile(phase[covered], (10, 90))))
    return (
        ((-np.pi, np.pi), WHOLE_CIRCLE_MAP) if max(high - low, 1.5 * bulk) > 1.5 * np.pi else ((low, high), PHASE_MAP)
    )


def _centred_phase(field: Field, covered: Mask) -> Field:
    return np.asarray(np.angle(field * np.exp(-1j * np.angle(field[covered].sum()))))


def _wrapped(phase: Field) -> Field:
    return np.asarray((phase + np.pi) % (2 * np.pi) - np.pi)


def _color_map(name: str) -> Any:
    import matplotlib

    return matplotlib.colormaps[name].with_extremes(bad=UNMEASURED)


# ---- files ---------------------------------------------------------------------------------------------------------


def _figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, drawn by Agg whatever the environment says."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise  # a broken installation, not an absent one
        raise MissingExtraError(
            "Plots need matplotlib, which is not installed. Install it with: pip install 'ptycho-core[plot]'"
        ) from error
    figure: Any = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    figure.get_layout_engine().set(wspace=0.06)
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: StrPath) -> None:
    target = Path(path)
    make_folder(target.parent)
    with replacing(target) as file:
        figure.savefig(file, format="png", dpi=DPI)
