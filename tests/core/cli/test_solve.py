"""`ptycho solve` and `reconstruct --refine` without frameworks: what they write, how they stop, go on and refuse."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ptycho_core import SolveConfig, load_model, load_scan, reconstruct, save_scan, solve
from ptycho_core.cli import Terminated
from ptycho_core.reconstruction.result import load_reconstruction
from ptycho_core.simulation import simulate
from ptycho_core.solving import loop

Ptycho = Callable[..., Any]
FAST = ("--refine", "none", "--modes", "1", "--prior", "none", "--batches", "4", "--sweeps", "3")


pytestmark = pytest.mark.usefixtures("solved_by_reference")


@pytest.fixture
def scan_file(tmp_path: Path) -> Path:
    path = tmp_path / "scan.npz"
    save_scan(path, simulate(N=16, positions=40, step_px=3, object="lines", photons=1e5, seed=3))
    return path


def solved(ptycho: Ptycho, scan: Path, out: Path, *more: str) -> dict[str, Any]:
    outcome = ptycho("solve", str(scan), "--out", str(out), "--json", "--quiet", *more)
    assert outcome.code == 0, outcome.err
    summary: dict[str, Any] = json.loads(outcome.out)
    return summary


def test_a_solve_leaves_its_files_and_says_how_well_it_fits(ptycho: Ptycho, scan_file: Path, tmp_path: Path) -> None:
    summary = solved(ptycho, scan_file, tmp_path / "out", *FAST)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "reconstruction.npz",
        "reconstruction.json",
        "solving.h5.zip",
        "config.toml",
        "sweeps.csv",
        "run.json",
        "report.html",
    }
    result = load_reconstruction(tmp_path / "out")
    assert summary["R"] == pytest.approx(result.R) and 0 < summary["R"] < summary["history"][0]["R"]
    assert summary["H"] == pytest.approx(result.H) and summary["stopped_early"] is False
    assert len(summary["history"]) == 3
    assert 'refine = "none"' in (tmp_path / "out" / "config.toml").read_text()


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt(), 130), (Terminated(signal.SIGTERM), 143)])
def test_a_solve_goes_on_where_it_stopped(
    ptycho: Ptycho,
    scan_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop: KeyboardInterrupt,
    code: int,
) -> None:
    solved(ptycho, scan_file, tmp_path / "whole", *FAST)
    sweep = loop.Run.sweep

    def interrupted(run: loop.Run) -> Any:
        if run.done == 2:
            raise stop
        return sweep(run)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Run, "sweep", interrupted)
        outcome = ptycho("solve", str(scan_file), "--out", str(tmp_path / "part"), *FAST)
    assert outcome.code == code
    kept = json.loads((tmp_path / "part" / "reconstruction.json").read_text())
    assert kept["stopped_early"] is True and len(kept["history"]) == 2
    (command,) = [line for line in outcome.err.splitlines() if line.startswith("Next: ptycho ")]
    outcome = ptycho(*command.split()[2:])
    assert outcome.code == 0, outcome.err
    whole, part = (load_reconstruction(tmp_path / name).object_field for name in ("whole", "part"))
    np.testing.assert_array_equal(part, whole)


def test_a_setting_that_makes_another_run_is_refused_with_its_flag(
    ptycho: Ptycho, scan_file: Path, tmp_path: Path
) -> None:
    solved(ptycho, scan_file, tmp_path / "out", *FAST)
    outcome = ptycho("solve", "--out", str(tmp_path / "out"), "--resume", "--object-rate", "0.2")
    assert outcome.code == 2
    assert "--object-rate" in outcome.err and "as the run began" in outcome.err
    outcome = ptycho("solve", "--out", str(tmp_path / "elsewhere"), "--resume")
    assert outcome.code == 2 and "expected the checkpoint of a run" in outcome.err


def test_a_file_without_a_probe_is_solved_with_one_that_is_found(
    ptycho: Ptycho, scan_file: Path, tmp_path: Path
) -> None:
    with np.load(scan_file) as source:
        np.savez(tmp_path / "bare.npz", **{name: source[name] for name in source if name != "probeGuess"})
    bare = tmp_path / "bare.npz"
    outcome = ptycho("solve", str(bare), "--out", str(tmp_path / "out"), *FAST[:1], "probe", *FAST[2:])
    assert outcome.code in (0, 2)
    assert "no probe in the file; it is looked for" in outcome.err
    if outcome.code == 2:  # 40 patterns of 16 pixels may leave it undecided: then that is said, with the table
        assert "standard errors" in outcome.err


@pytest.mark.usefixtures("fake_engine")
@pytest.mark.parametrize("command", ["train", "convert"])
def test_what_needs_a_probe_refuses_an_unknown_one(
    command: str, ptycho: Ptycho, scan_file: Path, tmp_path: Path
) -> None:
    target = {"train": ("--out", str(tmp_path / "out"), "--N", "32"), "convert": (str(tmp_path / "pair"),)}
    assert not load_scan(scan_file, probe="auto").probe_known
    outcome = ptycho(command, str(scan_file), *target[command], "--probe", "auto")
    assert outcome.code == 2
    assert "expected a probe; received an unknown one (auto). Solve the scan" in outcome.err


@pytest.mark.parametrize(("format", "file"), [("cxi", "reconstruction.cxi"), ("ptychodus", "product.h5")])
def test_a_format_that_holds_metres_is_refused_before_any_work(
    ptycho: Ptycho, scan_file: Path, tmp_path: Path, format: str, file: str
) -> None:
    outcome = ptycho("solve", str(scan_file), "--out", str(tmp_path / "out"), *FAST, "--write", f"tiff,{format}")
    assert outcome.code == 2
    assert f"{file}: object_pixel_m: expected the size of an object pixel" in outcome.err
    assert "--energy-eV, --distance-m, --detector-pixel-m" in outcome.err
    assert not (tmp_path / "out").exists()
    lengths = ("--energy-eV", "8000", "--distance-m", "2", "--detector-pixel-m", "1.5e-4")
    summary = solved(ptycho, scan_file, tmp_path / "out", *FAST, *lengths, "--write", format)
    assert summary["written"] == [str(tmp_path / "out" / file)]


def test_the_object_is_written_for_other_programs(ptycho: Ptycho, scan_file: Path, tmp_path: Path) -> None:
    summary = solved(ptycho, scan_file, tmp_path / "out", *FAST, "--write", "HDF5")
    [name] = summary["written"]
    with h5py.File(name) as file:
        assert file.attrs["default"]
    outcome = ptycho("solve", str(scan_file), "--out", str(tmp_path / "out"), "--write", "tif")
    assert outcome.code == 2
    assert "--write: expected known formats; received 'tif'. Choose from tiff, cxi, ptychodus, hdf5" in outcome.err


# -- refused -----------------------------------------------------------------------------------------------------------


def rewritten(path: Path, **changes: Any) -> Path:
    with np.load(path) as source:
        np.savez(path.with_name("bad.npz"), **{**source, **changes})
    return path.with_name("bad.npz")


def with_far_positions(path: Path) -> Path:
    with np.load(path) as source:
        return rewritten(path, **{name: 40 * source[name] for name in ("xcoords", "ycoords")})


def array_file(path: Path, name: str, array: Any) -> Path:
    np.savez(path.with_name("array.npz"), **{name: array})
    return path.with_name("array.npz")


def solved_elsewhere(ptycho: Ptycho, path: Path, N: int, distance_m: float) -> Path:
    """The folder of a solve of a scan like this one, with patterns of N x N, at another distance."""
    other, out = path.with_name("other.npz"), path.with_name("elsewhere")
    save_scan(other, simulate(N=N, positions=40, step_px=3, object="lines", photons=1e5, seed=3))
    solved(ptycho, other, out, *FAST, *at(distance_m))
    return out


def at(distance_m: float) -> tuple[str, ...]:
    return "--energy-eV", "8000", "--distance-m", str(distance_m), "--detector-pixel-m", "1.5e-4"


NAN = np.full((60, 60), np.nan + 0j)
Refused = Callable[[Ptycho, Path], tuple[object, ...]]
REFUSED: dict[str, tuple[Refused, str]] = {
    "a probe of another size": (
        lambda ptycho, scan: (scan, "--probe", array_file(scan, "probe", np.ones((8, 8), complex))),
        "array.npz: expected 16 x 16 pixels",
    ),
    "a probe with NaN": (
        lambda ptycho, scan: (rewritten(scan, probeGuess=np.full((16, 16), np.nan + 0j)),),
        "probe (probeGuess): expected finite values",
    ),
    "a start of another size of pattern": (
        lambda ptycho, scan: (scan, "--start", solved_elsewhere(ptycho, scan, 32, 2.0)),
        "start: probe: expected 16 x 16 pixels",
    ),
    "a start of another size of pixel": (
        lambda ptycho, scan: (scan, *at(3.0), "--start", solved_elsewhere(ptycho, scan, 16, 2.0)),
        "start: object pixel: expected (1.9",
    ),
    "a start of another shape": (
        lambda ptycho, scan: (scan, "--start", array_file(scan, "objectGuess", np.ones((9, 9), complex))),
        "start: object: expected an object of the scanned area; received 9 x 9 pixels",
    ),
    "a start with NaN": (
        lambda ptycho, scan: (scan, "--start", array_file(scan, "objectGuess", NAN)),
        "start: object: expected finite values",
    ),
    "more modes than frames": (
        lambda ptycho, scan: (few(scan, 3), "--batches", 2, "--modes", 5, "--refine", "probe"),
        "flag --modes: modes must be at most 3, the frames of ",
    ),
    "fewer frames than batches": (
        lambda ptycho, scan: (few(scan, 3),),
        "flag --batches: batches must be at most 3, the frames of ",
    ),
    "positions that do not overlap": (
        lambda ptycho, scan: (with_far_positions(scan),),
        "xcoords, ycoords: expected patches of 16 px that overlap",
    ),
    "patterns that are all empty": (
        lambda ptycho, scan: (rewritten(scan, diff3d=np.zeros((40, 16, 16), np.float32)),),
        "diffraction_amplitude (diff3d): expected some counts",
    ),
    "steps that are too large": (
        lambda ptycho, scan: (scan, "--object-rate", 5),
        "the run has diverged. Lower object_rate, now 5.",
    ),
}


def few(path: Path, count: int) -> Path:
    save_scan(path.with_name("few.npz"), load_scan(path).subset(slice(count)))
    return path.with_name("few.npz")


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_solved_is_refused(case: str, ptycho: Ptycho, scan_file: Path, tmp_path: Path) -> None:
    asked, said = REFUSED[case]
    scan, *flags = asked(ptycho, scan_file)
    outcome = ptycho("solve", scan, "--out", tmp_path / "out", *FAST, *flags)
    assert outcome.code == 2, outcome.err
    assert said in outcome.err.splitlines()[-1] and "Traceback" not in outcome.err
    assert not (tmp_path / "out" / "reconstruction.npz").exists()


def test_a_probe_of_another_unit_gives_the_same_object(ptycho: Ptycho, scan_file: Path, tmp_path: Path) -> None:
    with np.load(scan_file) as source:
        weak = rewritten(scan_file, probeGuess=1e-7 * source["probeGuess"])
    R = [solved(ptycho, scan, tmp_path / scan.stem, *FAST)["R"] for scan in (scan_file, weak)]
    assert R[1] == pytest.approx(R[0], rel=1e-5)


# -- a model's object, solved on ---------------------------------------------------------------------------------------

SOLVING = '[solving]\nrefine = "none"\nmodes = "1"\nprior = "none"\nbatches = 4\n'


@pytest.fixture
def refining(
    tmp_path: Path, scan_file: Path, saved: Path, fake_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> tuple[object, ...]:
    """`ptycho reconstruct SCAN --model … --config …`, without pictures."""
    monkeypatch.setattr("ptycho_core.runs.reconstruct.draw", lambda *arguments, **keywords: None)
    (tmp_path / "solving.toml").write_text(SOLVING)
    return "reconstruct", scan_file, "--model", saved, "--config", tmp_path / "solving.toml"


def test_a_reconstruction_is_solved_on(
    ptycho: Ptycho, refining: tuple[object, ...], scan_file: Path, saved: Path, tmp_path: Path
) -> None:
    outcome = ptycho(*refining, "--out", tmp_path / "out", "--refine", 2, "--json", "--quiet")
    assert outcome.code == 0, outcome.err
    summary = json.loads(outcome.out)
    assert summary["method"] == "solver" and len(summary["history"]) == 2
    result = load_reconstruction(tmp_path / "out")
    assert result.settings["data_file"] == str(scan_file) and result.settings["start"] == str(saved)
    seen = reconstruct(load_scan(scan_file), load_model(saved))
    config = SolveConfig(sweeps=2, refine="none", modes="1", prior="none", batches=4)
    expected = solve(load_scan(scan_file), config, start=seen)
    np.testing.assert_array_equal(result.object_field, expected.object_field)


def test_one_that_is_stopped_goes_on_as_a_solve(
    ptycho: Ptycho, refining: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ptycho(*refining, "--out", tmp_path / "whole", "--refine", 3).code == 0
    sweep = loop.Run.sweep

    def interrupted(run: loop.Run) -> Any:
        if run.done == stopped:
            raise KeyboardInterrupt
        return sweep(run)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Run, "sweep", interrupted)
        stopped = 0
        outcome = ptycho(*refining, "--out", tmp_path / "none", "--refine", 3)
        assert outcome.code == 130 and "the reconstruction is that of the model" in outcome.err
        assert load_reconstruction(tmp_path / "none").method == "network"
        stopped = 2
        outcome = ptycho(*refining, "--out", tmp_path / "part", "--refine", 3)
    assert outcome.code == 130
    (command,) = [line for line in outcome.err.splitlines() if line.startswith("Next: ptycho ")]
    assert ptycho(*command.split()[2:]).code == 0
    whole, part = (load_reconstruction(tmp_path / name).object_field for name in ("whole", "part"))
    np.testing.assert_array_equal(part, whole)


def test_what_the_sweeps_cannot_do_is_refused_before_the_model_is_used(
    ptycho: Ptycho, refining: tuple[object, ...], tmp_path: Path
) -> None:
    (tmp_path / "solving.toml").write_text(SOLVING.replace('prior = "none"', 'prior = "tvv"'))
    outcome = ptycho(*refining, "--out", tmp_path / "out", "--refine", 2)
    assert outcome.code == 2 and "prior must be one of auto, none, tv, learned, alternating; got 'tvv'" in outcome.err
    assert not (tmp_path / "out").exists()
    assert ptycho(*refining, "--out", tmp_path / "out", "--refine", 0).code == 2


def test_a_solve_is_reported_with_its_settings_and_where_they_are_from(
    ptycho: Ptycho, scan_file: Path, tmp_path: Path, pages: None
) -> None:
    summary = solved(ptycho, scan_file, tmp_path / "out", *FAST)
    page = Path(summary["report"]).read_text(encoding="utf-8")
    assert f"ptycho solve {scan_file} --out {tmp_path / 'out'}" in page
    assert "<td>sweeps</td><td>3</td><td>flag --sweeps</td>" in page and "misfit by sweep" in page
    (tmp_path / "out" / "report.html").unlink()
    again = ptycho("report", tmp_path / "out")
    assert again.code == 0 and Path(summary["report"]).stat().st_size > 10**6
