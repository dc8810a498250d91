"""Figures: complete files or none, no display, no global state."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho_core.errors import DataError, PtychoError
from ptycho_core.quality.alignment import align
from ptycho_core.quality.frc import FRC, frc
from ptycho_core.report import plots
from ptycho_core.scans.scan import Scan

figure_module = pytest.importorskip("matplotlib.figure")
N = 16


def object_field(seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return (1 + 0.1 * rng.standard_normal((40, 48))) * np.exp(0.3j * rng.standard_normal((40, 48)))


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
    monkeypatch.setattr(plots, "DPI", 30)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are saved, to look inside."""
    figures: list[Any] = []
    save = figure_module.Figure.savefig

    def remember(self: Any, *args: Any, **kwargs: Any) -> None:
        figures.append(self)
        save(self, *args, **kwargs)

    monkeypatch.setattr(figure_module.Figure, "savefig", remember)
    return figures


def draw_comparison(path: Path, curve: FRC | None = None) -> None:
    truth = object_field()
    estimate = align(truth + 0.1 * object_field(2), truth).aligned
    plots.plot_comparison(estimate, truth, curve or frc(estimate, truth), path, title="comparison")


DRAWINGS = {
    "losses": lambda path: plots.plot_losses(history(), path),
    "scan": lambda path: plots.plot_scan(scan(), path),
    "reconstruction": lambda path: plots.plot_reconstruction(object_field(), probe(3), path, title="modes"),
    "comparison": draw_comparison,
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_each_figure_is_one_png_and_nothing_else(name: str, tmp_path: Path) -> None:
    target = tmp_path / "new" / "figure.of.any.name"
    DRAWINGS[name](target)
    assert target.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert list(target.parent.iterdir()) == [target]


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


def test_reconstruction_is_framed_and_coloured_by_the_covered_area(tmp_path: Path, drawn: list[Any]) -> None:
    field = object_field()
    covered = np.zeros(field.shape, bool)
    covered[10:30, 5:41] = True
    field[~covered] = 1e6
    plots.plot_reconstruction(field, probe(), tmp_path / "a.png", covered=covered)
    axes = drawn[0].axes[0]
    assert axes.get_xlim() == (4.5, 40.5)
    assert axes.get_ylim() == (29.5, 9.5)
    assert axes.images[0].get_clim()[1] < 2


@pytest.mark.parametrize(("strength", "cyclic"), [(0.3, False), (3.0, True)])
def test_phase_has_a_cyclic_map_when_it_goes_round_the_circle(
    strength: float, cyclic: bool, tmp_path: Path, drawn: list[Any]
) -> None:
    field = np.exp(1j * strength * np.sin(np.indices((40, 40))[0]))
    plots.plot_reconstruction(field, probe(), tmp_path / "a.png", covered=np.ones(field.shape, bool))
    image = drawn[0].axes[1].images[0]
    assert (image.get_clim() == (-np.pi, np.pi)) is cyclic
    assert (image.get_cmap().name == "twilight") is cyclic


def test_scan_shows_bad_pixels_as_missing_and_rows_downwards(tmp_path: Path, drawn: list[Any]) -> None:
    plots.plot_scan(scan(), tmp_path / "a.png")
    pattern, _, positions = drawn[0].axes[:3]
    assert np.ma.getmaskarray(pattern.images[0].get_array())[3].all()
    low, high = positions.get_ylim()
    assert low > high


def test_scan_marks_bad_pixels_and_counts_them(tmp_path: Path, drawn: list[Any]) -> None:
    plots.plot_scan(scan(), tmp_path / "a.png")
    pattern = drawn[0].axes[0]
    bad = np.asarray(scan().bad_pixels)
    np.testing.assert_array_equal(np.ma.getmaskarray(pattern.images[1].get_array()), ~bad)
    assert pattern.get_title() == f"mean pattern, {bad.sum()} bad pixels"


def test_scan_draws_a_part_of_very_many_positions(
    tmp_path: Path, drawn: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "MOST_POSITIONS", 2)
    plots.plot_scan(scan(), tmp_path / "a.png")
    positions = drawn[0].axes[2]
    assert 1 <= len(positions.collections[0].get_offsets()) <= 2
    assert "one in" in positions.get_title()


def test_comparison_says_why_there_is_no_curve(tmp_path: Path, drawn: list[Any]) -> None:
    flat = np.ones((32, 32))
    draw_comparison(tmp_path / "a.png", frc(flat, flat))
    assert any("flat" in text.get_text() for axes in drawn[0].axes for text in axes.texts)


@pytest.mark.parametrize(
    "call",
    [
        lambda path: plots.plot_reconstruction(np.zeros((8, 8)), probe(), path),
        lambda path: plots.plot_reconstruction(np.ones((8, 8)), probe(), path, covered=np.ones((8, 9), bool)),
        lambda path: plots.plot_reconstruction(np.ones((8, 8)), np.ones(5), path),
        lambda path: plots.plot_comparison(np.ones((8, 8)), np.ones((8, 9)), None, path),
    ],
)
def test_fields_that_do_not_fit_are_refused(call: Any, tmp_path: Path) -> None:
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
