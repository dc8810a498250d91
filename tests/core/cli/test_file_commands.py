"""Commands about files without engines: inspect, convert, split, export, and what a scan file does not say."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ptycho_core_reference import ReferenceEngine

from ptycho_core import load_scan, save_scan, simulate
from ptycho_core.models.checkpoint import load_checkpoint
from ptycho_core.models.model import load_model
from tests.core import scan_files
from tests.core.published_archives import keras_members, network_of, write_archive
from tests.networks import cnn

Ptycho = Callable[..., Any]


@pytest.fixture
def scan_file(tmp_path: Path, numbered_scan: Any) -> Path:
    path = tmp_path / "scan.npz"
    save_scan(path, numbered_scan(count=40, spread=60))
    return path


def tensorflow_archive(folder: Path) -> Path:
    model = cnn(N=32, n_filters_scale=1)
    folder.mkdir()
    return write_archive(folder / "wts.h5.zip", keras_members(model, network_of(model)))


def assert_refused(outcome: Any, *named: str) -> None:
    assert (outcome.code, outcome.out) == (2, ""), outcome
    said = [line for line in outcome.err.splitlines() if not line.startswith("WARNING: ")]
    assert said[0].startswith("Error: ") and "Traceback" not in outcome.err
    for part in named:
        assert part in outcome.err, outcome.err


def stated(file: scan_files.ScanFile) -> list[str]:
    """The settings of a file as flags."""
    return [part for name, value in file.settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]


# -- convert -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["out.npz", "out.cxi", "out"])
def test_what_a_file_does_not_say_is_said_by_flags(ptycho: Ptycho, tmp_path: Path, name: str) -> None:
    source = scan_files.mapped_hdf5(tmp_path)
    lengths = ["--energy-eV", "8000", "--distance-m", "2", "--detector-pixel-m", "75e-6"]
    outcome = ptycho("convert", source.path, tmp_path / name, *stated(source), *lengths, "--json")
    assert outcome.code == 0, outcome.err
    written = json.loads(outcome.out)["written"]
    assert len(written) == (2 if name == "out" else 1)
    scan, expected = load_scan(written[0]), load_scan(source.path, **source.settings)
    np.testing.assert_array_equal(np.asarray(scan.diffraction_amplitude), np.asarray(expected.diffraction_amplitude))
    np.testing.assert_allclose(np.ptp(scan.positions_px, axis=0), np.ptp(expected.positions_px, axis=0), rtol=1e-9)


def test_the_same_settings_may_stand_in_a_file(ptycho: Ptycho, tmp_path: Path) -> None:
    source = scan_files.mapped_hdf5(tmp_path)
    lines = [f"{name} = {json.dumps(value)}" for name, value in source.settings.items()]
    (tmp_path / "how.toml").write_text("\n".join(["[reading]", *lines]) + "\n")
    outcome = ptycho("convert", source.path, tmp_path / "out.npz", "--config", tmp_path / "how.toml")
    assert outcome.code == 0, outcome.err
    assert len(load_scan(tmp_path / "out.npz")) == scan_files.COUNT


def test_what_is_missing_is_asked_for_by_its_flag(ptycho: Ptycho, tmp_path: Path) -> None:
    source = scan_files.mapped_hdf5(tmp_path)
    outcome = ptycho("convert", source.path, tmp_path / "out.npz", "--dataset", source.settings["dataset"])
    assert_refused(outcome, "raw.h5: expected positions", "--positions")
    assert not (tmp_path / "out.npz").exists()


def test_a_scan_is_not_written_over_itself(ptycho: Ptycho, scan_file: Path) -> None:
    before = scan_file.read_bytes()
    assert_refused(ptycho("convert", scan_file, scan_file), "scan.npz: expected another file than")
    assert_refused(ptycho("convert", scan_file, scan_file.with_suffix(".tif")), "one of the formats npz, ptychodus")
    assert scan_file.read_bytes() == before


def test_a_published_model_becomes_one_of_ours(ptycho: Ptycho, tmp_path: Path) -> None:
    source = tensorflow_archive(tmp_path / "published")
    outcome = ptycho("convert", source, tmp_path / "ours.h5.zip", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out) == {"written": [str(tmp_path / "ours.h5.zip")]}
    model = load_model(tmp_path / "ours.h5.zip")
    assert (model.engine.name, model.best_epoch, model.history) == ("published tensorflow", 0, [])
    facts = json.loads(ptycho("inspect", tmp_path / "ours.h5.zip", "--json").out)
    assert facts["written_by"].startswith("published tensorflow")
    refused = ptycho("convert", source, tmp_path / "other.h5.zip", "--format", "npz")
    assert_refused(refused, "expected a scan; received --format npz")


def test_a_scale_is_taken_for_published_models_alone(ptycho: Ptycho, scan_file: Path, tmp_path: Path) -> None:
    outcome = ptycho("convert", scan_file, tmp_path / "out.npz", "--scan", scan_file)
    assert_refused(outcome, "scan.npz: expected a published model; received a scan")


# -- split ---------------------------------------------------------------------------------------------------------


def test_a_split_writes_two_files_that_share_no_frame(ptycho: Ptycho, scan_file: Path, tmp_path: Path) -> None:
    outcome = ptycho("split", scan_file, tmp_path / "a.npz", tmp_path / "b.npz", "--test-fraction", "0.25", "--json")
    assert outcome.code == 0, outcome.err
    facts = json.loads(outcome.out)
    train, test, whole = (load_scan(path) for path in (tmp_path / "a.npz", tmp_path / "b.npz", scan_file))
    assert (facts["train_frames"], facts["test_frames"], facts["how"]) == (len(train), len(test), "spatial")
    assert (len(train), len(test)) == (30, 10)
    frames = np.concatenate([np.asarray(part.diffraction_amplitude) for part in (train, test)])
    order = np.argsort(frames[:, 0, 0])  # the frames are numbered by their brightness
    np.testing.assert_array_equal(frames[order], np.asarray(whole.diffraction_amplitude))
    along = "xy".index(facts["axis"])
    assert train.positions_px[:, along].max() <= facts["cut_px"] <= test.positions_px[:, along].min()


def test_a_seed_gives_one_random_split(ptycho: Ptycho, scan_file: Path, tmp_path: Path) -> None:
    names = [(tmp_path / f"{kind}{number}.npz") for number in range(3) for kind in "ab"]
    for number, seed in enumerate((1, 1, 2)):
        files = names[2 * number : 2 * number + 2]
        assert ptycho("split", scan_file, *files, "--how", "random", "--seed", seed).code == 0
    positions = [load_scan(path).positions_px for path in names[::2]]
    np.testing.assert_array_equal(positions[0], positions[1])
    assert not np.array_equal(positions[0], positions[2])


def test_a_split_loses_no_file(ptycho: Ptycho, scan_file: Path, tmp_path: Path) -> None:
    before = scan_file.read_bytes()
    assert_refused(ptycho("split", scan_file, tmp_path / "a.npz", tmp_path / "a.npz"), "a.npz: expected another file")
    assert_refused(ptycho("split", scan_file, scan_file, tmp_path / "b.npz"), "scan.npz: expected another file than")
    outcome = ptycho("split", scan_file, tmp_path / "a.npz", tmp_path / "b.npz", "--test-fraction", "2")
    assert_refused(outcome, "flag --test-fraction: test_fraction must be a number between 0 and 1")
    assert scan_file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scan.npz"]


# -- inspect -------------------------------------------------------------------------------------------------------


def test_the_orientation_is_told_with_the_flags_that_set_it(ptycho: Ptycho, tmp_path: Path) -> None:
    scan = simulate(N=32, positions=60, photons=1e6, seed=0, object="lines", step_px=3.0)
    save_scan(tmp_path / "scan.npz", scan)
    turned = ptycho("convert", tmp_path / "scan.npz", tmp_path / "turned.npz", "--transpose", "--flip-rows")
    assert turned.code == 0, turned.err
    outcome = ptycho("inspect", tmp_path / "turned.npz", "--check-orientation", "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)["orientation"]
    assert len(found["ranking"]) == 8
    flags = found["flags"].split()
    assert flags == ["--transpose", "--flip-columns"]  # what undoes it
    again = ptycho("inspect", tmp_path / "turned.npz", "--check-orientation", *flags)
    assert again.out.splitlines()[-1] == "Read it with: --transpose --flip-columns"
    assert "best: as stored" in again.out


def test_an_orientation_that_is_undecided_is_solved_for(
    ptycho: Ptycho, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptycho_core.scans.orientation.LEAST_MARGIN", 10.0)
    monkeypatch.setattr("ptycho_core.engine.registry.load_engine", lambda backend: ReferenceEngine())
    scan = simulate(N=16, positions=60, step_px=3, object="dead-leaves", photons=1e6, seed=4)
    save_scan(tmp_path / "scan.npz", scan)
    assert ptycho("convert", tmp_path / "scan.npz", tmp_path / "turned.npz", "--transpose").code == 0
    outcome = ptycho("inspect", tmp_path / "turned.npz", "--check-orientation", "--json")
    found = json.loads(outcome.out)["orientation"]
    assert found["best"] is None
    assert found["flags"] == "--transpose"
    assert [row["candidate"] for row in found["solved"] if row["kept"]] == ["transpose"]


def test_only_a_scan_has_an_orientation(ptycho: Ptycho, tmp_path: Path) -> None:
    source = tensorflow_archive(tmp_path / "published")
    refused = ptycho("inspect", source, "--check-orientation")
    assert_refused(refused, "--check-orientation: expected a scan; received a published model archive")


def test_a_figure_replaces_no_data(ptycho: Ptycho, scan_file: Path, tmp_path: Path) -> None:
    before = scan_file.read_bytes()
    assert_refused(ptycho("inspect", scan_file, "--figure", scan_file), "scan.npz: expected the ending .png")
    named = scan_file.rename(tmp_path / "scan.png")
    assert_refused(ptycho("inspect", named, "--figure", named), "scan.png: expected another file than")
    assert named.read_bytes() == before


def test_a_simulation_replaces_no_object_that_it_takes(ptycho: Ptycho, scan_file: Path) -> None:
    before = scan_file.read_bytes()
    for option in ("--object", "--probe"):
        assert_refused(ptycho("simulate", scan_file, option, scan_file), "scan.npz: expected another file than")
    assert scan_file.read_bytes() == before


# -- export --------------------------------------------------------------------------------------------------------


def test_a_model_is_exported_by_the_ending(ptycho: Ptycho, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    ptycho("convert", tensorflow_archive(tmp_path / "published"), tmp_path / "ours.h5.zip")
    outcome = ptycho("export", tmp_path / "ours.h5.zip", tmp_path / "network.onnx", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out) == {"written": str(tmp_path / "network.onnx"), "form": "onnx"}
    assert (tmp_path / "network.onnx").stat().st_size > 1000


def test_a_form_whose_package_is_absent_names_its_flag_and_the_extra(
    ptycho: Ptycho, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    ptycho("convert", tensorflow_archive(tmp_path / "published"), tmp_path / "ours.h5.zip")
    refused = ptycho("export", tmp_path / "ours.h5.zip", tmp_path / "network", "--form", "onnx")
    words = "Error: flag --form: ONNX needs the package onnx, which is not installed. "
    assert_refused(refused, words + "Install it with: pip install 'ptycho-core[onnx]'.")


def test_an_ending_of_no_form_is_refused(ptycho: Ptycho, tmp_path: Path) -> None:
    refused = ptycho("export", tmp_path / "ours.h5.zip", tmp_path / "network.pb")
    assert_refused(refused, "network.pb: expected one of the endings .onnx (onnx)", "received .pb")


# -- training ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fake_engine", "tiny_architecture")
def test_a_run_goes_on_with_how_its_scan_was_read(
    ptycho: Ptycho, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptycho_core.runs.folder.draw", lambda *arguments, **keywords: None)
    source = scan_files.mapped_hdf5(tmp_path)
    network = ["--architecture", "tiny", "--n-filters-scale", 1, "--scheduler", "Default", "--batch-size", 2]
    begun = ptycho("train", source.path, *stated(source), "--out", tmp_path / "run", "--nepochs", 1, *network)
    assert begun.code == 0, begun.err
    assert load_checkpoint(tmp_path / "run").reading.dataset == source.settings["dataset"]
    gone_on = ptycho("train", "--resume", "--out", tmp_path / "run", "--nepochs", 2)
    assert gone_on.code == 0, gone_on.err
    assert load_checkpoint(tmp_path / "run").epoch == 2
    other = ptycho("train", "--resume", "--out", tmp_path / "run", "--nepochs", 3, "--flip-rows")
    assert_refused(other, "raw.h5: diff3d: expected the scan that the run began with")


@pytest.mark.usefixtures("fake_engine")
def test_a_file_of_one_scan_does_not_stand_for_two(ptycho: Ptycho, scan_file: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "places.npy", np.zeros((40, 2)))
    how = ["--position-order", "xy", "--position-unit", "px"]
    train = ["train", scan_file, "--test", scan_file, "--out", tmp_path / "run"]
    for name in (tmp_path / "places.npy", "places.npy"):  # beside the scan, too
        refused = ptycho(*train, "--positions", name, *how)
        assert_refused(refused, "flag --positions: positions must be left out where several scans are read")
    refused = ptycho(*train, "--companion", scan_file)
    assert_refused(refused, "flag --companion: companion must be left out where several scans are read")
