"""Figures: complete files or none, no display, no global state."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from ptycho_core.errors import DataError, PtychoError
from ptycho_core.quality.evaluation import Comparison, evaluate
from ptycho_core.quality.frc import frc, read_curve
from ptycho_core.quality.ramp import flattened
from ptycho_core.quality.truth import Truth
from ptycho_core.report import plots
from ptycho_core.report.plots import drawing, objects
from ptycho_core.report.plots import reconstruction as page
from ptycho_core.report.plots import scan as scan_figure
from ptycho_core.report.plots.probe import draw_probe
from ptycho_core.scans.lengths import Lengths
from ptycho_core.scans.scan import Scan
from tests.core.reconstructions import make_reconstruction

figure_module = pytest.importorskip("matplotlib.figure")
N = 16


def probe(modes: int = 1) -> Any:
    y, x = np.indices((N, N)) - N / 2
    return np.stack([np.exp(-(x**2 + y**2) / 20 + 0.05j * order * x**2) / (order + 1) for order in range(modes)])


def scan() -> Scan:
    rng = np.random.default_rng(1)
    bad = np.zeros((N, N), bool)
    bad[3] = True
    return Scan(
        diffraction_amplitude=rng.poisson(3.0, (12, N, N)).astype(np.float32) ** 0.5,
        positions_px=rng.uniform(0, 30, (12, 2)),
        probe=probe().astype(np.complex64),
        bad_pixels=bad,
        source="fake.npz",
    )


def history(sign: float = 1.0) -> list[dict[str, float]]:
    return [
        {"epoch": epoch, "total": sign / epoch, "validation_total": sign * 2 / epoch, "nll": 0.5 * sign / epoch}
        for epoch in (1.0, 2.0, 3.0)
    ]


@pytest.fixture(autouse=True)
def _coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "DPI", 30)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that would be saved, to look inside: what takes the time is to lay them out and to write them."""
    figures: list[Any] = []

    def remember(self: Any, *_: Any, **__: Any) -> None:
        figures.append(self)

    monkeypatch.setattr(figure_module.Figure, "savefig", remember)
    return figures


def comparison(**changes: Any) -> Comparison:
    result = make_reconstruction()
    noise = np.random.default_rng(2).normal(0, 0.05, result.object_field.shape)
    truth = Truth(object_field=(result.object_field + noise).astype(np.complex64), origin_px=result.origin_px)
    return attrs.evolve(evaluate(result, truth), **changes)


DRAWINGS = {
    "losses": lambda path: plots.plot_losses(history(), path),
    "scan": lambda path: plots.plot_scan(scan(), path),
    "reconstruction": lambda path: plots.plot_reconstruction(make_reconstruction(), path),
    "comparison": lambda path: plots.plot_comparison(comparison(), path, title="comparison"),
    "resolution": lambda path: plots.plot_resolution(make_reconstruction().frc, path),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_each_figure_is_one_png_and_nothing_else(name: str, tmp_path: Path) -> None:
    target = tmp_path / "new" / "figure.of.any.name"
    DRAWINGS[name](target)
    assert target.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert list(target.parent.iterdir()) == [target]


def test_a_name_of_any_bytes_is_drawn_as_it_is(tmp_path: Path) -> None:
    """Half a letter, and what begins a formula."""
    path = tmp_path / "figure.png"
    plots.plot_reconstruction(attrs.evolve(make_reconstruction(), source="half \udcff $x^ scan_$1.npz"), path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_failed_drawing_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "losses.png"
    target.write_text("old")

    def fail(self: Any, file: Any, **_: Any) -> None:
        file.write(b"half")
        raise OSError(28, "disk full")

    monkeypatch.setattr(figure_module.Figure, "savefig", fail)
    with pytest.raises(DataError, match="disk full"):
        plots.plot_losses(history(), target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(("sign", "scale"), [(1.0, "log"), (-1.0, "linear")])
def test_losses_are_logarithmic_when_all_positive(sign: float, scale: str, tmp_path: Path, drawn: list[Any]) -> None:
    plots.plot_losses(history(sign), tmp_path / "a.png")
    assert drawn[0].axes[0].get_yscale() == scale


def test_losses_show_every_term_but_not_the_learning_rate(tmp_path: Path, drawn: list[Any]) -> None:
    plots.plot_losses([row | {"learning_rate": 1e-3, "seconds": 9.0} for row in history()], tmp_path / "a.png")
    labels = [line.get_label() for line in drawn[0].axes[0].lines]
    assert labels == ["total", "total, validation", "nll"]


def test_losses_may_have_gaps(tmp_path: Path, drawn: list[Any]) -> None:
    rows = history()
    del rows[1]["nll"]
    rows[2]["validation_total"] = float("nan")
    plots.plot_losses(rows, tmp_path / "a.png")
    lines = {line.get_label(): np.isnan(line.get_ydata()).tolist() for line in drawn[0].axes[0].lines}
    assert lines["nll"] == [False, True, False]
    assert lines["total, validation"] == [False, False, True]


@pytest.mark.parametrize("rows", [[], [{"epoch": 1.0}]])
def test_losses_without_content_are_refused(rows: list[dict[str, float]], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'epoch', 'total'"):
        plots.plot_losses(rows, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def panels(figure: Any) -> dict[str, Any]:
    """Axes by the beginning of their title."""
    return {
        axes.get_title().split(",")[0].split(":")[0].split("\n")[0]: axes for axes in figure.axes if axes.get_title()
    }


def test_losses_mark_the_best_epoch(tmp_path: Path, drawn: list[Any]) -> None:
    plots.plot_losses(history(), tmp_path / "a.png", best_epoch=2)
    mark = drawn[0].axes[0].lines[-1]
    assert mark.get_label() == "best epoch, 2"
    assert list(mark.get_xdata()) == [2, 2]


def test_deviances_which_are_of_another_size_have_axes_of_their_own(tmp_path: Path, drawn: list[Any]) -> None:
    rows = [row | {"reduced_deviance": 1e4 / row["epoch"], "validation_reduced_deviance": 2e4} for row in history()]
    plots.plot_losses(rows, tmp_path / "a.png", best_epoch=2)
    above, below = ([line.get_label() for line in axes.lines] for axes in drawn[0].axes)
    assert above == ["total", "total, validation", "nll", "best epoch, 2"]
    assert below == ["reduced deviance", "reduced deviance, validation", "best epoch, 2"]


def test_the_light_of_each_mode_is_given_in_three_digits() -> None:
    figure = drawing.new_figure(4, 4)
    axes = figure.add_subplot()
    modes = probe(2)
    modes[1] *= np.sqrt(0.0042 / 0.9958 * (abs(modes[0]) ** 2).sum() / (abs(modes[1]) ** 2).sum())
    draw_probe(figure, axes, modes)
    assert axes.get_title() == "probe, 2 modes: 99.6 %, 0.42 %"


# -- a reconstruction ------------------------------------------------------------------------------------------------


def test_a_page_holds_all_that_a_reconstruction_does(tmp_path: Path, drawn: list[Any]) -> None:
    plots.plot_reconstruction(make_reconstruction(modes=3), tmp_path / "a.png")
    assert list(panels(drawn[0])) == [
        "amplitude",
        "phase",
        "trust map",
        "probe",
        "measured above modelled",
        "change by the prior (prior)",
        "correlation of two halves of the frames",
        "misfit by sweep",
        "positions",
    ]
    heading = drawn[0].get_suptitle()
    for words in ("star.npz: solver, fake 1.0", "40 patches", "overlap", "R 0.0038", "H 0.0045", "cycles/px", " nm)"):
        assert words in heading, words


def test_a_page_leaves_out_what_is_not_known(tmp_path: Path, drawn: list[Any]) -> None:
    bare = {"predicted_error": None, "frc": None, "history": (), "given_positions_px": None, "modelled_amplitude": None}
    bare |= {"R": None, "H": None, "frame_R": None, "frame_deviance": None, "source": None, "known": None}
    plots.plot_reconstruction(make_reconstruction(**bare), tmp_path / "a.png")
    assert list(panels(drawn[0])) == ["amplitude", "phase", "patches over each pixel", "probe", "positions"]
    assert " R " not in drawn[0].get_suptitle()


def test_an_object_is_scaled_inside_the_hull_and_grey_where_it_was_not_lit(tmp_path: Path, drawn: list[Any]) -> None:
    result = make_reconstruction(lengths=Lengths())
    field, known = result.object_field.copy(), np.asarray(result.known)
    rows, columns = np.indices(field.shape)
    x, y = columns + result.origin_px[0], rows + result.origin_px[1]
    low, high = result.positions_px.min(axis=0), result.positions_px.max(axis=0)
    outside = (x < low[0]) | (x > high[0]) | (y < low[1]) | (y > high[1])
    field[outside] = 40  # the rim
    field[~known] = 1e6
    plots.plot_reconstruction(attrs.evolve(result, object_field=field), tmp_path / "a.png")
    for name in ("amplitude", "phase", "trust map"):
        axes = panels(drawn[0])[name]
        image = axes.images[0]
        np.testing.assert_array_equal(np.ma.getmaskarray(image.get_array()), ~known)
        assert image.get_cmap().get_bad()[:3] == pytest.approx((0.85, 0.85, 0.85))
        box = np.flatnonzero(known.any(axis=0)), np.flatnonzero(known.any(axis=1))
        (left, top), (right, bottom) = ([side[place] for side in box] for place in (0, -1))
        assert axes.get_xlim() == pytest.approx((result.origin_px[0] + left - 0.5, result.origin_px[0] + right + 0.5))
        assert axes.get_ylim() == pytest.approx((result.origin_px[1] + bottom + 0.5, result.origin_px[1] + top - 0.5))
    assert panels(drawn[0])["amplitude"].images[0].get_clim()[1] < 2


def test_a_scan_along_a_line_is_drawn_too(tmp_path: Path) -> None:
    result = make_reconstruction()
    line = np.stack([result.positions_px[:, 0], np.full(40, 70.0)], axis=1)
    plots.plot_reconstruction(attrs.evolve(result, positions_px=line), tmp_path / "a.png")


def test_the_phase_is_drawn_without_ramp_and_mean(tmp_path: Path, drawn: list[Any]) -> None:
    result = make_reconstruction(lengths=Lengths())
    y, x = np.indices(result.object_field.shape)
    ramp = np.exp(1j * (2.0 + 0.31 * x - 0.22 * y))
    for field in (result.object_field, (result.object_field * ramp).astype(np.complex64)):
        plots.plot_reconstruction(attrs.evolve(result, object_field=field), tmp_path / "a.png")
    first, second = (panels(figure)["phase"].images[0].get_array() for figure in drawn)
    assert panels(drawn[1])["phase"].get_title() == "phase, mean and ramp removed"
    assert np.abs(np.ma.compressed(first - second)).max() < 5e-3


def test_coordinates_and_a_bar_are_in_metres_where_the_pixel_is_known(tmp_path: Path, drawn: list[Any]) -> None:
    result = make_reconstruction(lengths=Lengths(object_pixel_m=(40e-9, 20e-9)))
    plots.plot_reconstruction(result, tmp_path / "a.png")
    plots.plot_reconstruction(attrs.evolve(result, lengths=Lengths()), tmp_path / "b.png")
    metres, pixels = (panels(figure)["amplitude"] for figure in drawn)
    assert metres.get_xlabel() == "x (µm)"
    assert metres.get_xlim() == pytest.approx(np.multiply(pixels.get_xlim(), 40e-3))
    assert metres.get_ylim() == pytest.approx(np.multiply(pixels.get_ylim(), 20e-3))
    bar = metres.patches[-1]
    (label,) = (text.get_text() for text in metres.texts)
    length, unit = label.split()
    assert unit == "µm"
    assert bar.get_width() * abs(np.diff(metres.get_xlim())[0]) == pytest.approx(float(length))
    assert pixels.get_xlabel() == "x (px)"
    assert not pixels.patches
    assert not pixels.texts


@pytest.mark.parametrize(
    ("pixel", "unit"), [(1e-12, "pm"), (30e-12, "nm"), (5e-9, "µm"), (40e-9, "µm"), (20e-6, "mm"), (1e-15, "pm")]
)
def test_the_unit_suits_the_length(pixel: float, unit: str) -> None:
    scale = objects.Scale.of((pixel, pixel), 250)
    assert scale.unit == unit
    factor = {"pm": 1e12, "nm": 1e9, "µm": 1e6, "mm": 1e3}[unit]
    assert scale.side == pytest.approx((pixel * factor, pixel * factor))


@pytest.mark.parametrize(("strength", "cyclic"), [(0.3, False), (3.0, True)])
def test_phase_has_a_cyclic_map_when_it_goes_round_the_circle(
    strength: float, cyclic: bool, tmp_path: Path, drawn: list[Any]
) -> None:
    result = make_reconstruction()
    field = np.exp(1j * strength * np.sin(np.indices(result.object_field.shape)[0])).astype(np.complex64)
    plots.plot_reconstruction(attrs.evolve(result, object_field=field), tmp_path / "a.png")
    image = panels(drawn[0])["phase"].images[0]
    assert (image.get_clim() == (-np.pi, np.pi)) is cyclic
    assert (image.get_cmap().name == "twilight") is cyclic


def test_moves_of_the_positions_are_drawn_larger_than_life_and_that_is_said(tmp_path: Path, drawn: list[Any]) -> None:
    result = make_reconstruction()
    plots.plot_reconstruction(result, tmp_path / "a.png")
    plots.plot_reconstruction(attrs.evolve(result, given_positions_px=result.positions_px), tmp_path / "b.png")
    moved, still = (panels(figure)["positions"] for figure in drawn)
    assert result.given_positions_px is not None
    lengths = np.hypot(*(result.positions_px - result.given_positions_px).T)
    title = moved.get_title()
    assert f"moved {np.sqrt(np.mean(lengths**2)):.2g} px RMS, {lengths.max():.2g} at most" in title
    factor = float(title.split("× ")[1].split(")")[0])
    (arrows,) = (item for item in moved.collections if type(item).__name__ == "Quiver")
    along = (result.positions_px - result.given_positions_px)[:, 0] * factor * 40e-3  # µm
    np.testing.assert_allclose(arrows.U, along, rtol=1e-9)
    assert "none moved" in still.get_title()


def test_bad_frames_are_marked_where_they_lie(tmp_path: Path, drawn: list[Any]) -> None:
    result = make_reconstruction(lengths=Lengths())
    plots.plot_reconstruction(result, tmp_path / "a.png")
    axes = panels(drawn[0])["positions"]
    assert "1 bad frame (red)" in axes.get_title()
    np.testing.assert_allclose(axes.collections[-1].get_offsets(), result.positions_px[[3]])


def test_measured_and_modelled_patterns_share_the_scale_of_the_measured(tmp_path: Path, drawn: list[Any]) -> None:
    result = make_reconstruction(modelled_amplitude=np.full((N, N), 1e4, np.float32))
    plots.plot_reconstruction(result, tmp_path / "a.png")
    image = panels(drawn[0])["measured above modelled"].images[0]
    measured = np.square(np.asarray(result.measured_amplitude, np.float64))
    assert image.get_clim()[1] == pytest.approx(measured.max())
    np.testing.assert_allclose(np.ma.filled(image.get_array(), 0)[:N], measured, rtol=1e-6)


def test_the_misfit_of_each_sweep_is_drawn(tmp_path: Path, drawn: list[Any]) -> None:
    plots.plot_reconstruction(
        make_reconstruction(history=[{"sweep": 3, "R": 0.2}, {"sweep": 4, "R": 0.1}]), tmp_path / "a.png"
    )
    (line,) = panels(drawn[0])["misfit by sweep"].lines
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([3, 4], [0.2, 0.1])


def test_a_page_draws_a_part_of_very_many_positions(
    tmp_path: Path, drawn: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "MOST_POSITIONS", 7)
    plots.plot_reconstruction(make_reconstruction(), tmp_path / "a.png")
    assert any("one in 6" in axes.get_title() for axes in drawn[0].axes)


# -- resolution ------------------------------------------------------------------------------------------------------


def test_the_resolution_is_marked_and_low_rings_are_shaded(tmp_path: Path, drawn: list[Any]) -> None:
    curve = read_curve(np.arange(1, 9) / 16, np.array([0.3, 0.9, 0.9, 0.6, 0.4, 0.2, 0.1, 0.0]))
    plots.plot_resolution(curve, tmp_path / "a.png", pixel_m=(10e-9, 10e-9))
    axes = drawn[0].axes[0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["below 0.5, not counted", "0.5 at 0.281 cycles/px\nhalf period 17.8 nm"]
    assert axes.lines[-1].get_xdata()[0] == pytest.approx(0.28125)


# -- ramps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ramp", [(0.0, 0.0), (0.31, -0.22), (-1.7, 2.9)])
def test_a_plane_wave_is_found_and_removed(ramp: tuple[float, float]) -> None:
    rng = np.random.default_rng(3)
    y, x = np.indices((50, 70))
    inside = np.hypot(x - 40, y - 20) < 18
    plain = (1 + 0.2 * rng.standard_normal(x.shape)) * np.exp(0.3j * rng.standard_normal(x.shape))
    found = flattened(np.where(inside, plain * np.exp(1j * (1.0 + ramp[0] * x + ramp[1] * y)), 9j), inside)
    assert found.ramp_rad_per_px == pytest.approx(ramp, abs=3e-3)
    assert np.angle(found.field[inside].sum()) == pytest.approx(0, abs=1e-9)
    left = np.angle(found.field[inside] * np.conj(plain[inside]))
    assert np.abs(left - left.mean()).max() < 0.1


def test_an_empty_field_has_no_ramp() -> None:
    found = flattened(np.zeros((8, 8)), np.ones((8, 8), bool))
    assert not found.field.any()
    assert np.isfinite(found.ramp_rad_per_px).all()


# -- a scan ----------------------------------------------------------------------------------------------------------


def test_scan_shows_bad_pixels_as_missing_and_rows_downwards(tmp_path: Path, drawn: list[Any]) -> None:
    plots.plot_scan(scan(), tmp_path / "a.png")
    pattern, _, positions = drawn[0].axes[:3]
    assert np.ma.getmaskarray(pattern.images[0].get_array())[3].all()
    low, high = positions.get_ylim()
    assert low > high


def test_the_probe_of_a_file_has_no_unit(tmp_path: Path, drawn: list[Any]) -> None:
    plots.plot_scan(scan(), tmp_path / "a.png")
    titles = [axes.get_title() for axes in drawn[0].axes]
    assert [title for title in titles if re.fullmatch(r"probe, at most [\d.e+-]+", title)]


def test_scan_marks_bad_pixels_and_counts_them(tmp_path: Path, drawn: list[Any]) -> None:
    plots.plot_scan(scan(), tmp_path / "a.png")
    pattern = drawn[0].axes[0]
    bad = np.asarray(scan().bad_pixels)
    np.testing.assert_array_equal(np.ma.getmaskarray(pattern.images[1].get_array()), ~bad)
    assert pattern.get_title() == f"mean pattern, {bad.sum()} bad pixels"


def test_scan_draws_a_part_of_very_many_positions(
    tmp_path: Path, drawn: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_figure, "MOST_POSITIONS", 2)
    plots.plot_scan(scan(), tmp_path / "a.png")
    positions = drawn[0].axes[2]
    assert 1 <= len(positions.collections[0].get_offsets()) <= 2
    assert "one in" in positions.get_title()


# -- a comparison ----------------------------------------------------------------------------------------------------


def test_comparison_says_why_there_is_no_curve(tmp_path: Path, drawn: list[Any]) -> None:
    flat = np.ones((32, 32))
    plain = comparison()
    metrics = attrs.evolve(plain.metrics, frc=frc(flat, flat))
    plots.plot_comparison(attrs.evolve(plain, metrics=metrics), tmp_path / "a.png")
    assert any("flat" in text.get_text() for axes in drawn[0].axes for text in axes.texts)


def test_comparison_states_share_place_and_figures(tmp_path: Path, drawn: list[Any]) -> None:
    moved = comparison(moved_px=(37, -12), correlation_at_origin=0.013, share=0.87)
    plots.plot_comparison(moved, tmp_path / "a.png", title="run against truth.npz")
    heading = drawn[0].get_suptitle()
    for words in ("run against truth.npz", "87 % of the scanned area compared", "found +37, -12 px", "cycles/px"):
        assert words in heading, words


def test_comparison_removes_one_ramp_from_both_phases(tmp_path: Path, drawn: list[Any]) -> None:
    plain = comparison()
    y, x = np.indices(plain.truth.shape)
    wave = np.exp(1j * (0.4 + 0.3 * x - 0.1 * y))
    for estimate, truth in (
        (plain.estimate, plain.truth),
        (plain.estimate * wave, (plain.truth * wave).astype(np.complex64)),
    ):
        plots.plot_comparison(attrs.evolve(plain, estimate=estimate, truth=truth), tmp_path / "a.png")
    for number in range(6):
        first, second = (figure.axes[number].images[0].get_array() for figure in drawn)
        assert np.abs(np.ma.compressed(first - second)).max() < 1e-3, number


def test_estimates_of_one_truth_stand_beside_it_in_its_colours(tmp_path: Path, drawn: list[Any]) -> None:
    plain = comparison()
    both = {"solved": plain, "network": attrs.evolve(plain, estimate=0.5 * plain.estimate)}
    plots.plot_beside(both, tmp_path / "a.png", origins_px={"solved": (3.0, 4.0), "network": (0.0, 0.0)}, title="two")
    shown = [axes for axes in drawn[0].axes if axes.images]
    assert [axes.get_title().split(":")[0] for axes in shown[:3]] == ["truth", "solved", "network"]
    truth, solved, network = (axes.images[0].get_array() for axes in shown[:3])
    np.testing.assert_allclose(np.ma.compressed(network), 0.5 * np.ma.compressed(solved), rtol=1e-6)
    np.testing.assert_allclose(np.ma.compressed(truth), np.abs(plain.truth)[~np.ma.getmaskarray(truth)], rtol=1e-6)
    assert len({axes.images[0].get_clim() for axes in shown[:3]}) == 1
    assert shown[1].images[0].get_extent() != shown[2].images[0].get_extent()


@pytest.mark.parametrize(
    "call",
    [
        lambda path: plots.plot_reconstruction(make_reconstruction(known=np.zeros((57, 66), bool)), path),
        lambda path: plots.plot_reconstruction(make_reconstruction(probe=np.ones((0, N, N))), path),
        lambda path: plots.plot_comparison(comparison(compared=np.zeros((57, 66), bool)), path),
    ],
)
def test_where_nothing_is_known_nothing_is_drawn(call: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        call(tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_missing_matplotlib_names_the_extra(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [module for module in sys.modules if module.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, module)

    class Absent:
        def find_spec(self, module: str, *_: Any) -> None:
            if module.split(".")[0] == "matplotlib":
                raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    with pytest.raises(PtychoError, match=r"pip install 'ptycho-core\[plot\]'"):
        DRAWINGS[name](tmp_path / "a.png")


def test_pyplot_is_never_loaded(tmp_path: Path) -> None:
    code = (
        "import sys; from ptycho_core.report.plots import plot_losses;"
        f"plot_losses([{{'epoch': 1, 'total': 2.0}}], {str(tmp_path / 'a.png')!r});"
        "print('matplotlib.figure' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.split() == ["True", "False"]
