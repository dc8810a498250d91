"""What `examples/` shows works, on the engines that are installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ptycho_core import load_scan
from tests.examples import EXAMPLES, load_example
from tests.integration.conftest import INSTALLED, ONE, needs_an_engine
from tests.pages import DOCS
from tests.shared_data import shared


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@needs_an_engine
def test_an_op_and_a_network_of_ones_own_train_alike_on_every_engine(capsys: pytest.CaptureFixture[str]) -> None:
    objects = load_example("own_op_and_network").main()
    assert sorted(objects) == INSTALLED
    printed = capsys.readouterr().out
    for name in INSTALLED:
        first, second = (
            float(line.rpartition("loss ")[2]) for line in printed.splitlines() if line.startswith(f"{name}: ")
        )
        assert second < 0.5 * first
        assert np.isfinite(objects[name]).all() and objects[name].std() > 0.01


@needs_an_engine
def test_a_loss_and_an_optimizer_of_ones_own_train_on_every_engine() -> None:
    for first, *_, last in load_example("own_loss_and_optimizer").main(nepochs=2).values():
        assert last < 0.9 * first


@needs_an_engine
@pytest.mark.parametrize("module", [("own_op_and_network", "own_loss_and_optimizer"), ("own_module",)])
def test_files_outside_the_package_train_on_the_real_star_in_a_new_process(
    module: tuple[str, ...], tmp_path: Path
) -> None:
    """An op, a table network, a loss and an optimiser; and a module of the framework's own."""
    star = shared("siemens_star") / "siemens_star_64.npz"
    place = load_example("own_module").FACTORIES[ONE]
    own = {
        "own_module": ["--architecture", place, "--no-pad-object"],
        "own_op_and_network": [
            "--architecture",
            "leaky_trunk",
            "--loss-weights",
            "log_error=0.5",
            "--optimizer",
            "lion",
        ],
    }[module[0]]
    for name in module:
        own += ["--import", f"{shutil.copy(EXAMPLES / f'{name}.py', tmp_path)}"]
    flags = ["--measurement", "amplitude", "--frames", "0:24", "--nepochs", "1", "--n-groups", "16", "--backend", ONE]
    command = [sys.executable, "-m", "ptycho_core", "train", str(star), "--out", "run", *flags, *own]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "best epoch 1 of 1" in done.stdout and f"--import {tmp_path}" in done.stderr
    history = (tmp_path / "run" / "history.csv").read_text()
    assert ("log_error" in history) is (module[0] == "own_op_and_network")


@needs_an_engine
def test_a_scan_is_spoiled_in_every_way_of_the_page(tmp_path: Path) -> None:
    example = load_example("spoil_a_scan")
    results = example.main(tmp_path, sweeps=1, backend=ONE, N=32, positions=16, step_px=4)
    assert list(results) == list(example.FAULTS)
    page, pictures = (DOCS / "bad_image.md").read_text(encoding="utf-8"), DOCS / "why"
    for name, result in results.items():
        assert name == "good" or result.R > 1.1 * results["good"].R or name in ("sparse", "photons", "modes")
        assert (tmp_path / f"{name}.png").is_file()
        assert f"(why/{name}.png)" in page and (pictures / f"{name}.png").is_file()


def test_a_file_of_an_unknown_format_is_read_as_it_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = load_example("read_your_file").main()
    assert "expected a scan of a known format" in capsys.readouterr().out
    truth = load_example("read_your_file").simulate(object="dead-leaves", N=32, positions=120, photons=1e7, seed=3)
    np.testing.assert_allclose(np.ptp(scan.positions_px, axis=0), np.ptp(truth.positions_px, axis=0), rtol=1e-6)
    inside = np.s_[:, 1:, :]  # a flip leaves the frequency -N/2 in its place
    np.testing.assert_allclose(scan.diffraction_amplitude[inside], truth.diffraction_amplitude[inside], atol=1e-3)
    assert (tmp_path / "scan.npz").is_file()


@needs_an_engine
def test_a_simulated_scan_is_trained_reconstructed_and_compared(tmp_path: Path) -> None:
    comparison = load_example("simulate_and_train").main(backend=ONE, epochs=2)
    assert comparison.metrics.correlation > 0.95
    assert (tmp_path / "run" / "wts.h5.zip").is_file() and (tmp_path / "run" / "reconstruction.npz").is_file()


@needs_an_engine
def test_a_scan_is_solved_and_drawn(tmp_path: Path, pages: None) -> None:
    result = load_example("solve_a_scan").main(backend=ONE, sweeps=4)
    assert result.R is not None and result.R < 0.02
    assert result.error_factor_from == "split halves"
    assert (tmp_path / "solved" / "reconstruction.npz").is_file()
    assert (tmp_path / "solved" / "object.png").stat().st_size > 10_000


@needs_an_engine
def test_the_real_scan_is_made_from_the_file_that_the_public_has(tmp_path: Path) -> None:
    """The patterns and places are those of the prepared file; the reference is made of them alone."""
    published, prepared = shared("siemens_star", "siemens-star-small.npz.bz2"), shared("siemens_star")
    target = tmp_path / "star.npz"
    load_example("make_siemens_star").main(published, target, backend=ONE, sweeps=2)
    made, known = load_scan(target), load_scan(prepared / "siemens_star_64.npz")
    np.testing.assert_allclose(made.diffraction_amplitude, known.diffraction_amplitude, atol=1e-3)
    assert np.ptp(made.positions_px - known.positions_px, axis=0).max() < 1e-4
    assert made.object_field is not None and made.positions_px.min() > 31


@needs_an_engine
def test_a_prior_that_two_scans_taught_brings_a_third_nearer_to_its_patterns(tmp_path: Path) -> None:
    results = load_example("teach_a_prior").main(backend=ONE, epochs=4, steps=40, sweeps=4, widths="4,8")
    assert results["my_prior"].object_without_prior is not None
    assert results["my_prior"].choices["prior_not_used"] is None
    deviances = {prior: result.deviance for prior, result in results.items()}
    assert deviances["none"] is not None and deviances["my_prior"] is not None
    assert deviances["my_prior"] < deviances["none"]
    assert (tmp_path / "my_prior" / "prior.h5.zip").is_file()


def test_another_engine_reconstructs_the_same_object() -> None:
    if len(INSTALLED) < 2:
        with pytest.raises(SystemExit, match="this example compares two"):
            load_example("another_engine").main()
    else:
        assert load_example("another_engine").main() < 1e-4


@needs_an_engine
def test_a_program_trains_stops_and_reconstructs(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "embed_in_a_program.py"), ONE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "epoch 3 of 100" in done.stdout and "epoch 4" not in done.stdout
    assert "60 of 60 groups" in done.stdout
    assert np.load(tmp_path / "object.npy").std() > 0.01


@needs_an_engine
def test_a_training_is_followed_and_stopped_by_its_events(capsys: pytest.CaptureFixture[str]) -> None:
    last = load_example("follow_events").main(ONE)
    assert (last["kind"], last["work"]) == ("cancelled", "train") and 3 <= last["result"]["epochs"] < 100
    assert Path(last["result"]["archive"]).is_file()
    printed = capsys.readouterr().out
    assert "epoch 3 of 100" in printed and "cancelling" in printed


def test_every_example_is_tested() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert [path.stem for path in EXAMPLES.glob("*.py") if path.stem not in text] == []
