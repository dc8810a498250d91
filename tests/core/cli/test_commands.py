"""The command line without engines: bad input ends with code 2 and one message, JSON stands alone, flags arrive."""

from __future__ import annotations

import json
import os
import shlex
import sys
import tomllib
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import attrs
import h5py
import numpy as np
import pytest
from einops import rearrange

from ptycho_core import __version__, load_scan, save_scan
from ptycho_core.cli import cli
from ptycho_core.engine.protocol import EngineInfo
from ptycho_core.engine.registry import ENGINES
from ptycho_core.errors import BackendError, DataError
from ptycho_core.models.model import load_model
from ptycho_core.reconstruction.result import Reconstruction, load_reconstruction
from ptycho_core.settings.reading import ReadOptions
from tests.core import scan_files
from tests.core.plugins import entry_point
from tests.core.refusals import refusal_of

Ptycho = Callable[..., Any]
COMMANDS = sorted(cli.commands)
CNN = ("--architecture", "cnn", "--checkpoint-monitor-metric", "total")
"""A network of patches; the fake engine is told its losses, and predicts nothing that could judge it."""
SMALL = ("--nepochs", 3, "--n-filters-scale", 1, "--seed", 7)
ENGINE = EngineInfo("fake", "no framework", "1.0", ("cpu",), ("32-true",))


@pytest.fixture
def no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is where the extra is not installed; figures take seconds, too."""

    class Absent(MetaPathFinder):
        def find_spec(self, name: str, path: Any, target: Any = None) -> None:
            if name == "matplotlib":
                raise ModuleNotFoundError("No module named 'matplotlib'", name=name)

    for name in list(sys.modules):
        if name.partition(".")[0] == "matplotlib":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])


@pytest.fixture
def scan_file(tmp_path: Path, numbered_scan: Any) -> Path:
    path = tmp_path / "scan.npz"
    save_scan(path, numbered_scan(count=40, spread=60))
    return path


def rewritten(path: Path, **changes: Any) -> Path:
    with np.load(path) as source:
        arrays = {name: array for name, array in {**source, **changes}.items() if array is not None}
    np.savez(path.with_name("bad.npz"), **arrays)
    return path.with_name("bad.npz")


# -- bad input -----------------------------------------------------------------------------------------------------


def assert_refused(outcome: Any, *named: str) -> None:
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    said = [line for line in outcome.err.splitlines() if not line.startswith("WARNING: ")]
    assert said[0].startswith("Error: ")
    for part in named:
        assert part in outcome.err, outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "nowhere.npz"],
        ["train", "nowhere.npz", "--out", "out"],
        ["evaluate", "nowhere.npz", "--truth", "truth.npz"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_missing_file_is_named(ptycho: Ptycho, fake_engine: Any, arguments: list[str]) -> None:
    assert_refused(ptycho(*arguments), "nowhere.npz: expected ", "o such file")


def test_a_missing_scan_is_named_after_the_model_is_found(ptycho: Ptycho, run_folder: Path, tmp_path: Path) -> None:
    outcome = ptycho("reconstruct", "nowhere.npz", "--model", run_folder, "--out", tmp_path / "out")
    assert_refused(outcome, "nowhere.npz: expected ", "o such file")


@pytest.mark.parametrize("command", ["inspect", "train"])
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"diff3d": None}, ["diff3d: expected", "no such key", "The file holds: _metadata, bad_pixels"]),
        ({"diff3d": np.full((40, 32, 32), np.nan)}, ["diffraction_amplitude (diff3d): expected finite values"]),
        (
            {"probeGuess": np.ones((16, 16))},
            ["probe: expected 32 x 32 pixels, as the patterns before or after crop", "received 16 x 16"],
        ),
        ({"xcoords": np.zeros(3)}, ["xcoords, ycoords: expected equal lengths; received 3 and 40"]),
        ({"diff3d": np.array([{}], dtype=object)}, ["diff3d: ", "Object arrays cannot be loaded"]),
    ],
    ids=["no-patterns", "nan", "small-probe", "few-positions", "pickle"],
)
@pytest.mark.usefixtures("fake_engine")
def test_a_scan_that_does_not_fit_is_named_with_its_key(
    ptycho: Ptycho, scan_file: Path, tmp_path: Path, command: str, changes: dict[str, Any], named: list[str]
) -> None:
    path = rewritten(scan_file, **changes)
    options = ["--out", tmp_path / "out"] if command == "train" else []
    assert_refused(ptycho(command, path, *options), "bad.npz: ", *named)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("fake_engine")
def test_a_scan_without_a_probe_is_inspected_and_not_trained_on(
    ptycho: Ptycho, scan_file: Path, tmp_path: Path
) -> None:
    path = rewritten(scan_file, probeGuess=None)
    outcome = ptycho("train", path, "--out", tmp_path / "out")
    assert_refused(outcome, "bad.npz: ", "probeGuess: expected", "no such key", "--probe")
    inspected = ptycho("inspect", path)
    assert inspected.code == 0 and "no probe in the file" in inspected.err
    assert any(line.split() == ["probe", "unknown"] for line in inspected.out.splitlines())


def test_a_truncated_scan_is_named(ptycho: Ptycho, scan_file: Path) -> None:
    scan_file.write_bytes(scan_file.read_bytes()[:5000])
    assert_refused(ptycho("inspect", scan_file), "scan.npz: expected a readable")


def test_a_file_of_another_kind_is_named(ptycho: Ptycho, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("to be measured again")
    assert_refused(ptycho("inspect", tmp_path / "notes.txt"), "notes.txt: expected a ")


def test_an_unknown_field_in_a_configuration_names_the_closest(ptycho: Ptycho, scan_file: Path, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("[training]\nn_epochs = 3\n")
    outcome = ptycho("train", scan_file, "--out", tmp_path / "out", "--config", tmp_path / "run.toml")
    assert_refused(outcome, "run.toml: n_epochs: no such setting.", "Did you mean 'nepochs'?")


def test_a_value_out_of_range_names_its_field(ptycho: Ptycho, scan_file: Path, tmp_path: Path) -> None:
    outcome = ptycho("train", scan_file, "--out", tmp_path / "out", "--batch-size", 12)
    assert_refused(outcome, "flag --batch-size: batch_size must be a positive power of two", "got 12")


def test_an_unknown_backend_lists_the_registered_ones(ptycho: Ptycho, scan_file: Path, tmp_path: Path) -> None:
    outcome = ptycho("train", scan_file, "--out", tmp_path / "out", "--backend", "pytorchh", "--quiet")
    assert_refused(
        outcome, "Error: flag --backend: Unknown backend 'pytorchh'. Registered backends: tensorflow, torch."
    )


@pytest.mark.usefixtures("fake_engine")
def test_a_size_that_the_patterns_do_not_have_is_refused(ptycho: Ptycho, scan_file: Path, tmp_path: Path) -> None:
    outcome = ptycho("train", scan_file, "--out", tmp_path / "out", "--N", 64, "--quiet")
    assert_refused(outcome, "scan.npz: diff3d: expected 64 x 64 patterns", "received 32 x 32", "train with N = 32")


@pytest.mark.usefixtures("fake_engine")
def test_a_file_in_the_place_of_the_output_folder_is_refused(ptycho: Ptycho, scan_file: Path) -> None:
    outcome = ptycho("train", scan_file, "--out", scan_file)
    assert_refused(outcome, "scan.npz: expected a folder; received a file. Choose another output folder.")


@pytest.mark.usefixtures("fake_engine")
def test_an_output_folder_inside_a_file_is_refused(ptycho: Ptycho, scan_file: Path) -> None:
    outcome = ptycho("train", scan_file, "--out", scan_file / "run")
    assert_refused(outcome, f"scan.npz/run: expected a folder; received one inside the file {scan_file}.")


def test_an_output_folder_that_cannot_be_written_is_refused(ptycho: Ptycho, scan_file: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    if os.access(tmp_path / "out", os.W_OK):
        pytest.skip("this user may write everywhere")
    assert_refused(ptycho("train", scan_file, "--out", tmp_path / "out"), "out: expected a writable folder")


def test_a_place_that_cannot_be_written_is_refused(ptycho: Ptycho, tmp_path: Path) -> None:
    outcome = ptycho("simulate", tmp_path / "nowhere" / "scan.npz", "--N", 16, "--positions", 4)
    assert_refused(outcome, "nowhere/scan.npz: expected a writable place")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--N", 17], ["flag --N: N must be an even number; got 17. Use 16 or 18."]),
        (["--object", "lnes"], ["flag --object: object must be one of", "Did you mean 'lines'?"]),
        (["--photons", 0], ["flag --photons: photons must be a number > 0"]),
        (["--positions", 0], ["flag --positions: positions must be a whole number >= 1; got 0"]),
    ],
)
def test_a_simulation_that_cannot_be_made_names_the_argument(
    ptycho: Ptycho, tmp_path: Path, arguments: list[Any], named: list[str]
) -> None:
    assert_refused(ptycho("simulate", tmp_path / "scan.npz", *arguments), *named)
    assert not (tmp_path / "scan.npz").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["reconstruct", "scan.npz"], "Missing option '--model'"),
        (["train", "scan.npz", "--out", "o", "--bach-size", "8"], "--batch-size"),
        (
            ["train", "scan.npz", "--out", "o", "--nepochs", "many"],
            "flag --nepochs: nepochs must be a whole number; got 'many'",
        ),
        (
            ["train", "scan.npz", "--out", "o", "--model-type", "pin"],
            "flag --model-type: model_type must be one of 'pinn', 'supervised'; got 'pin'",
        ),
        (["tran"], "No such command 'tran'"),
        (
            ["inspect", "scan.npz", "--measurement", "counts"],
            "flag --measurement: measurement must be one of 'amplitude', 'intensity' or nothing; got 'counts'",
        ),
    ],
)
def test_a_command_line_that_cannot_be_parsed_ends_with_2(ptycho: Ptycho, arguments: list[str], named: str) -> None:
    outcome = ptycho(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert named in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("BATCH_SIZE", "many", "a whole number"),
        ("LEARNING_RATE", "fast", "a number"),
        ("OBJECT_BIG", "maybe", "true or false"),
        ("SCHEDULER", "Steps", "one of 'Default'"),
        ("N_GROUPS", "0", "a whole number >= 1"),
    ],
)
def test_a_variable_with_a_wrong_value_is_named(
    ptycho: Ptycho,
    scan_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    expected: str,
) -> None:
    monkeypatch.setenv(f"PTYCHO_{variable}", value)
    outcome = ptycho("train", scan_file, "--out", tmp_path / "out")
    assert_refused(outcome, f"Error: environment PTYCHO_{variable}: {variable.lower()} must be {expected}", value)
    assert "--" not in outcome.err


@pytest.mark.usefixtures("no_framework")
@pytest.mark.parametrize("how", ["flag", "environment", "file"])
def test_an_error_of_the_run_names_where_its_setting_is_from(
    ptycho: Ptycho, scan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    flags, file = [], tmp_path / "run.toml"
    if how == "flag":
        flags = ["--backend", "Torch"]
    elif how == "environment":
        monkeypatch.setenv("PTYCHO_BACKEND", "torch")
    else:
        file.write_text('[training]\nbackend = "torch"\n')
        flags = ["--config", file]
    place = {"flag": "flag --backend", "environment": "environment PTYCHO_BACKEND", "file": str(file)}[how]
    outcome = ptycho("train", scan_file, "--out", tmp_path / "out", "--quiet", *flags)
    assert_refused(outcome, f"Error: {place}: PyTorch backend selected, but")


@pytest.mark.parametrize("how", ["flag", "environment", "file"])
def test_an_error_of_an_engine_names_where_its_setting_is_from(
    ptycho: Ptycho, fake_engine: Any, scan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    def build(*arguments: Any) -> None:
        raise BackendError("ExecutionConfig", "accelerator", expected="auto, or cpu", received="'cuda'")

    monkeypatch.setattr(type(fake_engine), "build", build)
    flags, file = [], tmp_path / "run.toml"
    if how == "flag":
        flags = ["--accelerator", "cuda"]
    elif how == "environment":
        monkeypatch.setenv("PTYCHO_ACCELERATOR", "cuda")
    else:
        file.write_text('[execution]\naccelerator = "cuda"\n')
        flags = ["--config", file]
    place = {"flag": "flag --accelerator", "environment": "environment PTYCHO_ACCELERATOR", "file": str(file)}[how]
    outcome = ptycho("train", scan_file, "--out", tmp_path / "out", "--n-groups", 9, "--quiet", *flags)
    assert_refused_after_log(outcome, f"Error: {place}: accelerator must be auto, or cpu; got 'cuda'")


@pytest.mark.usefixtures("no_matplotlib")
def test_a_figure_that_cannot_be_drawn_names_its_flag_and_the_extra(
    ptycho: Ptycho, scan_file: Path, tmp_path: Path
) -> None:
    refused = ptycho("inspect", scan_file, "--figure", tmp_path / "scan.png")
    words = "Error: flag --figure: a figure needs the package matplotlib, which is not installed. "
    assert_refused(refused, words + "Install it with: pip install 'ptycho-core[plot]'.")


def test_a_remedy_asks_for_flags_on_the_command_line_and_for_settings_elsewhere(ptycho: Ptycho, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("to be measured again")
    words = "or name the parts of a file of another kind: "
    flags = "--reader, --dataset, --positions, --probe."
    assert_refused(ptycho("inspect", tmp_path / "notes.txt"), words + flags)
    refusal_of(lambda: load_scan(tmp_path / "notes.txt"), DataError, words + "reader, dataset, positions, probe.")


def test_a_bug_keeps_its_traceback(ptycho: Ptycho, scan_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("ptycho_core.report.facts.archive_facts", fail)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        ptycho("inspect", scan_file)


# -- help ----------------------------------------------------------------------------------------------------------


def test_help_lists_the_commands(ptycho: Ptycho) -> None:
    outcome = ptycho("--help")
    assert outcome.code == 0
    for name in COMMANDS:
        assert f"\n  {name} " in outcome.out


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(ptycho: Ptycho, command: str, flag: str) -> None:
    outcome = ptycho(command, flag)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("Usage: ")
    assert f"ptycho {command} [OPTIONS]" in outcome.out
    assert cli.commands[command].help.partition("\n")[0].rstrip(".") in " ".join(outcome.out.split())  # type: ignore[union-attr]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(command: str) -> None:
    options = [p for p in cli.commands[command].params if p.param_type_name == "option"]
    unexplained = [p.name for p in options if not p.help and not p.hidden]  # type: ignore[attr-defined]
    assert unexplained == []


def test_the_version_is_told(ptycho: Ptycho) -> None:
    assert ptycho("--version").out == f"ptycho, version {__version__}\n"


# -- simulate, inspect, evaluate -----------------------------------------------------------------------------------


def test_a_simulated_scan_can_be_inspected(ptycho: Ptycho, tmp_path: Path) -> None:
    path = tmp_path / "scan.npz"
    made = ptycho("simulate", path, "--N", 16, "--positions", 9, "--photons", 1e4, "--modes", 2, "--bad-pixels", 3)
    assert (made.code, made.out) == (0, f"{path}: 9 patterns of 16 x 16 pixels\n")
    facts = json.loads(ptycho("inspect", path, "--json").out)
    expected = {"kind": "scan", "patterns": 9, "N": 16, "probe_modes": 2, "bad_pixels": 3, "dose_known": True}
    assert {key: facts[key] for key in expected} == expected
    assert facts["mean_frame_intensity"] == pytest.approx(1e4, rel=0.1)
    assert facts["metadata"]["photons"] == 1e4


def test_inspection_without_json_is_a_table(ptycho: Ptycho, scan_file: Path) -> None:
    lines = {line.split()[0]: line for line in ptycho("inspect", scan_file).out.splitlines() if line}
    assert "40 of 32 x 32 pixels" in lines["patterns"]
    assert {"source", "intensity", "probe", "positions", "step"} <= set(lines)


def test_a_command_line_is_suggested_for_a_file_of_no_known_format(ptycho: Ptycho, tmp_path: Path) -> None:
    file = scan_files.mapped_hdf5(tmp_path)
    lines = ptycho(
        "inspect", file.path, "--suggest", "--positions", "/entry/positions", "--position-unit", "px"
    ).out.splitlines()
    assert "  /entry/data (6, 16, 16) uint16" in lines and any("--position-order" in line for line in lines[-1:])
    command = next(line for line in lines if line.startswith("ptycho inspect ")).replace("xy|yx", "xy")
    assert "patterns" in ptycho(*shlex.split(command)[1:]).out
    known = json.loads(ptycho("inspect", scan_files.npz(tmp_path).path, "--suggest", "--json").out)
    assert known["reader"] == "npz" and known["fill_in"] == {}
    assert_refused(ptycho("inspect", tmp_path / "nothing.h5", "--suggest"), "received no such file")


def test_the_measurement_that_is_asked_for_is_used(ptycho: Ptycho, scan_file: Path) -> None:
    path = rewritten(scan_file, _metadata=None)
    facts = [
        json.loads(ptycho("inspect", path, "--json", "--measurement", kind).out) for kind in ("amplitude", "intensity")
    ]
    assert [fact["dose_known"] for fact in facts] == [False, True]
    assert facts[1]["mean_frame_intensity"] == pytest.approx(np.mean(np.arange(1, 41)) * 32**2)


def test_the_same_seed_simulates_the_same_scan(ptycho: Ptycho, tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        ptycho("simulate", tmp_path / f"{name}.npz", "--N", 16, "--positions", 4, "--seed", seed)
    a, b, c = (load_scan(tmp_path / f"{name}.npz").diffraction_amplitude for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


@pytest.fixture
def true_reconstruction(scan_file: Path, tmp_path: Path) -> Path:
    """The object of the scan itself, as a reconstruction."""
    scan = load_scan(scan_file)
    assert scan.object_field is not None
    (tmp_path / "result").mkdir()
    Reconstruction(
        object_field=scan.object_field,
        origin_px=(0.0, 0.0),
        overlap_count=np.ones(scan.object_field.shape, np.int32),
        probe=scan.probe,
        positions_px=scan.positions_px,
        patterns=len(scan),
        seconds={"total": 2.0},
        engine=ENGINE,
        model_engine=ENGINE,
    ).save(tmp_path / "result" / "reconstruction.npz")
    return tmp_path / "result"


@pytest.mark.usefixtures("no_matplotlib")
@pytest.mark.parametrize("as_folder", [True, False])
def test_evaluation_prints_a_table_and_writes_every_figure(
    ptycho: Ptycho, true_reconstruction: Path, scan_file: Path, as_folder: bool
) -> None:
    target = true_reconstruction if as_folder else true_reconstruction / "reconstruction.npz"
    outcome = ptycho("evaluate", target, "--truth", scan_file)
    assert outcome.code == 0
    assert outcome.out.startswith("compared: 100 % of the scanned area")
    assert "complex correlation 1.0000" in outcome.out
    written = json.loads((true_reconstruction / "evaluation.json").read_text())
    assert written["truth"] == str(scan_file)
    assert written["figure"] is None
    assert "evaluation.png is left out: a figure needs the package matplotlib, which is not installed." in outcome.err


@pytest.mark.usefixtures("no_matplotlib")
def test_the_truth_may_be_a_scan_of_any_format(ptycho: Ptycho, true_reconstruction: Path, scan_file: Path) -> None:
    lengths = ("--energy-eV", 8000, "--distance-m", 1, "--detector-pixel-m", 75e-6)
    with_object, without = scan_file.with_name("truth.cxi"), scan_file.with_name("bare.cxi")
    for target in (with_object, without):
        assert ptycho("convert", scan_file, target, *lengths).code == 0
    with h5py.File(without, "a") as file:
        del file["entry_1/image_2"]
    outcome = ptycho("evaluate", true_reconstruction, "--truth", with_object, "--json")
    assert outcome.code == 0 and json.loads(outcome.out)["correlation"] > 0.999, outcome.err
    refused = ptycho("evaluate", true_reconstruction, "--truth", without)
    assert refused.code == 2 and "bare.cxi: object: expected a scan with an object" in refused.err


def test_a_reconstruction_can_be_inspected(ptycho: Ptycho, true_reconstruction: Path) -> None:
    facts = json.loads(ptycho("inspect", true_reconstruction / "reconstruction.npz", "--json").out)
    assert (facts["kind"], facts["backend"], facts["patterns_per_second"]) == ("reconstruction", "fake", 20.0)
    assert json.loads(ptycho("inspect", true_reconstruction, "--json").out) == facts


@pytest.mark.usefixtures("no_matplotlib")
@pytest.mark.parametrize("quiet", [True, False])
@pytest.mark.parametrize("command", ["simulate", "evaluate"])
def test_json_stands_alone_on_stdout(
    ptycho: Ptycho, true_reconstruction: Path, scan_file: Path, tmp_path: Path, command: str, quiet: bool
) -> None:
    arguments = {
        "simulate": [tmp_path / "made.npz", "--N", 16, "--positions", 4],
        "evaluate": [true_reconstruction, "--truth", scan_file],
    }[command]
    outcome = ptycho(command, *arguments, "--json", *["--quiet"] * quiet)
    assert outcome.code == 0
    assert isinstance(json.loads(outcome.out), dict)
    if quiet:
        assert outcome.err == ""


@pytest.mark.usefixtures("no_matplotlib")
def test_quiet_without_json_prints_nothing(ptycho: Ptycho, true_reconstruction: Path, scan_file: Path) -> None:
    outcome = ptycho("evaluate", true_reconstruction, "--truth", scan_file, "--quiet")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")


# -- train and reconstruct, with the engine of these tests ---------------------------------------------------------


@pytest.fixture
def run_folder(ptycho: Ptycho, fake_engine: Any, no_matplotlib: None, scan_file: Path, tmp_path: Path) -> Path:
    outcome = ptycho(
        "train", scan_file, "--out", tmp_path / "run", *CNN, "--nepochs", 3, "--n-filters-scale", 1, "--seed", 7
    )
    assert outcome.code == 0, outcome.err
    return tmp_path / "run"


def test_training_writes_archive_configuration_and_history(run_folder: Path) -> None:
    assert sorted(path.name for path in run_folder.iterdir()) == [
        "checkpoint.h5.zip",
        "config.toml",
        "history.csv",
        "report.html",
        "run.json",
        "wts.h5.zip",
    ]
    model = load_model(run_folder)
    assert (model.config.nepochs, model.config.seed, model.best_epoch) == (3, 7, 3)
    tables = tomllib.loads((run_folder / "config.toml").read_text())
    assert (tables["model"]["N"], tables["training"]["nepochs"], list(tables)) == (
        32,
        3,
        ["model", "training", "execution", "reading"],
    )
    assert len((run_folder / "history.csv").read_text().splitlines()) == 1 + 3


def words_of_next(outcome: Any) -> list[str]:
    """The arguments of the command that a command ends with."""
    *_, last = outcome.err.splitlines()
    assert last.startswith("Next: ptycho ")
    return shlex.split(last)[2:]


def test_training_ends_with_the_command_that_reconstructs(
    ptycho: Ptycho, fake_engine: Any, no_matplotlib: None, scan_file: Path, tmp_path: Path
) -> None:
    fake_engine.predict_truth_of(load_scan(scan_file))
    run = tmp_path / "a run"
    trained = ptycho("train", scan_file, "--out", run, *CNN, "--nepochs", 2)
    page = f"{run / 'report.html'}: everything on one page, for a browser"
    assert trained.out == f"{run / 'wts.h5.zip'}: best epoch 2 of 2, loss 0.5\n{page}\n"
    reconstructed = ptycho(*words_of_next(trained))
    assert reconstructed.code == 0, reconstructed.err
    assert (run / "reconstruction.npz").exists()
    evaluated = ptycho(*words_of_next(reconstructed))
    assert evaluated.code == 0, evaluated.err


def test_how_the_scan_was_read_is_in_the_command_that_reconstructs(
    ptycho: Ptycho, fake_engine: Any, no_matplotlib: None, scan_file: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    trained = ptycho("train", scan_file, "--out", run, *CNN, "--nepochs", 1, "--flip-x")
    words = words_of_next(trained)
    assert words[-2:] == ["--config", str(run / "config.toml")]
    reconstructed = ptycho(*words)
    assert (reconstructed.code, "Next" in reconstructed.err) == (0, False)
    mirrored = load_scan(scan_file, ReadOptions(flip_x=True)).positions_px
    np.testing.assert_allclose(load_reconstruction(run).positions_px, mirrored)


@pytest.mark.parametrize(
    ("stated", "same", "mirrored"),
    [((), True, True), (("--no-flip-x",), True, False), ((), False, True), (("--frames", "0:20"), True, True)],
)
def test_a_scan_is_read_as_that_of_the_model_unless_stated(
    ptycho: Ptycho, run_of_frames: Path, scan_file: Path, stated: tuple[str, ...], same: bool, mirrored: bool
) -> None:
    """What names frames holds for the training scan alone."""
    path = scan_file if same else scan_file.with_name("other.npz")
    if not same:
        path.write_bytes(scan_file.read_bytes())
    out = scan_file.parent / "out"
    done = ptycho("reconstruct", path, "--model", run_of_frames, "--out", out, *stated)
    assert done.code == 0, done.err
    assert ("read as the training scan" in done.err) == (mirrored or same)
    frames = None if not same else "0:20" if "--frames" in stated else "0:30"
    expected = load_scan(scan_file, flip_x=mirrored, frames=frames).positions_px
    np.testing.assert_allclose(load_reconstruction(out).positions_px, expected)


@pytest.fixture
def run_of_frames(ptycho: Ptycho, fake_engine: Any, no_matplotlib: None, scan_file: Path, tmp_path: Path) -> Path:
    done = ptycho("train", scan_file, "--out", tmp_path / "run", *CNN, "--nepochs", 1, "--flip-x", "--frames", "0:30")
    assert done.code == 0, done.err
    return tmp_path / "run"


def test_a_result_says_that_its_model_is_gone(ptycho: Ptycho, run_folder: Path, scan_file: Path) -> None:
    assert ptycho("reconstruct", scan_file, "--model", run_folder, "--out", run_folder).code == 0
    evaluate = ("evaluate", run_folder, "--truth", scan_file)
    assert "trained since" not in ptycho(*evaluate).err
    assert load_reconstruction(run_folder).model_digest == load_model(run_folder).digest
    retrained = ptycho("train", scan_file, "--out", run_folder, *CNN, "--nepochs", 1, "--seed", 8, "--overwrite")
    assert retrained.code == 0, retrained.err
    assert "not of the model in wts.h5.zip, which has been trained since" in ptycho(*evaluate).err


def test_the_size_is_taken_from_the_scan_unless_it_is_set(
    ptycho: Ptycho, fake_engine: Any, no_matplotlib: None, scan_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "run.toml").write_text("[model]\nN = 64\n[training]\nnepochs = 1\n")
    assert ptycho("train", scan_file, "--out", tmp_path / "a", "--nepochs", 1).code == 0
    assert fake_engine.built[0][0].N == 32
    outcome = ptycho("train", scan_file, "--out", tmp_path / "b", "--config", tmp_path / "run.toml")
    assert_refused_after_log(outcome, "expected 64 x 64 patterns")


def assert_refused_after_log(outcome: Any, named: str) -> None:
    assert outcome.code == 2
    assert named in outcome.err.splitlines()[-1]
    assert "Traceback" not in outcome.err


def test_the_written_configuration_trains_the_same_again(
    ptycho: Ptycho, fake_engine: Any, run_folder: Path, scan_file: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    assert ptycho("train", scan_file, "--out", again, "--config", run_folder / "config.toml").code == 0
    first, second = load_model(run_folder), load_model(again)
    assert attrs.evolve(first.config, output_dir=again) == second.config
    for name, array in first.weights.items():
        np.testing.assert_array_equal(second.weights[name], array, err_msg=name)


def test_the_configuration_can_be_shown_without_training(
    ptycho: Ptycho, fake_engine: Any, scan_file: Path, tmp_path: Path
) -> None:
    outcome = ptycho("train", scan_file, "--out", tmp_path / "out", "--group-size", 9, "--show-config")
    assert outcome.code == 0
    assert tomllib.loads(outcome.out)["model"]["group_size"] == 9
    assert fake_engine.built == []
    assert not (tmp_path / "out").exists()


def test_training_tells_its_epochs_on_stderr_and_json_alone_on_stdout(
    ptycho: Ptycho, fake_engine: Any, no_matplotlib: None, scan_file: Path, tmp_path: Path
) -> None:
    outcome = ptycho("train", scan_file, "--out", tmp_path / "out", *CNN, "--nepochs", 2, "--test", scan_file, "--json")
    summary = json.loads(outcome.out)
    assert (summary["backend"], summary["epochs"], summary["best_epoch"]) == ("fake", 2, 2)
    assert summary["losses"]["total"] == 0.5
    lines = outcome.err.splitlines()
    assert "backend: fake (no framework 1.0)" in lines
    assert [line.partition(",")[0] for line in lines if line.startswith("epoch ")] == [
        "epoch 1/2: loss 1",
        "epoch 2/2: loss 0.5",
    ]
    assert "validation 0.5" in outcome.err


def test_an_interrupt_writes_the_best_weights_so_far_and_ends_with_130(
    ptycho: Ptycho, fake_engine: Any, no_matplotlib: None, scan_file: Path, tmp_path: Path
) -> None:
    def interrupted(epoch: int) -> float:
        if epoch == 3:
            raise KeyboardInterrupt
        return 1 / epoch

    fake_engine.train_loss = interrupted
    outcome = ptycho("train", scan_file, "--out", tmp_path / "out", *CNN, "--nepochs", 9, "--json")
    assert outcome.code == 130
    assert "Traceback" not in outcome.err
    summary = json.loads(outcome.out)
    assert (summary["stopped_early"], summary["epochs"]) == (True, 2)
    assert load_model(tmp_path / "out").best_epoch == 2
    said = [line for line in outcome.err.splitlines() if line]
    assert said[-2:] == [f"Next: ptycho train --resume --out {tmp_path / 'out'}", "Interrupted."]


def test_an_interrupt_in_the_first_epoch_writes_nothing(
    ptycho: Ptycho, fake_engine: Any, scan_file: Path, tmp_path: Path
) -> None:
    def interrupted(epoch: int) -> float:
        raise KeyboardInterrupt

    fake_engine.train_loss = interrupted
    outcome = ptycho("train", scan_file, "--out", tmp_path / "out", *CNN)
    assert (outcome.code, outcome.out) == (130, "")
    assert "Stopped before the first epoch finished; nothing was written." in outcome.err
    assert list((tmp_path / "out").iterdir()) == []


def test_an_archive_can_be_inspected(ptycho: Ptycho, run_folder: Path) -> None:
    by_folder = json.loads(ptycho("inspect", run_folder, "--json").out)
    by_file = json.loads(ptycho("inspect", run_folder / "wts.h5.zip", "--json").out)
    expected = {"kind": "model archive", "N": 32, "epochs": 3, "best_epoch": 3, "digests": "verified"}
    assert {key: by_folder[key] for key in expected} == expected
    assert by_folder == by_file
    assert by_folder["loss"] == pytest.approx(1 / 3)
    assert by_folder["written_by"] == "fake (no framework 1.0)"
    assert (by_folder["ptycho_core"], by_folder["checkpoint"]) == (__version__, "after epoch 3 of 3")
    assert (by_folder["settings"]["nepochs"], by_folder["settings"]["seed"]) == (3, 7)
    assert {"input_scale", "mean_intensity", "counts_per_intensity", "log_scale", "intensity_scale"} <= set(by_folder)


def test_a_checkpoint_can_be_inspected(ptycho: Ptycho, run_folder: Path) -> None:
    facts = json.loads(ptycho("inspect", run_folder / "checkpoint.h5.zip", "--json").out)
    expected = {"kind": "checkpoint", "stands": "after epoch 3 of 3", "digests": "verified", "best_epochs": [3]}
    assert {key: facts[key] for key in expected} == expected
    assert (facts["optimizer"], facts["next_learning_rate"], facts["test"]) == ("adam", None, None)
    assert sorted(facts["scan"]) == ["bad_pixels", "frames", "positions", "probe"]
    (run_folder / "wts.h5.zip").unlink()
    assert json.loads(ptycho("inspect", run_folder, "--json").out) == facts


def test_an_archive_whose_digests_do_not_hold_is_named(ptycho: Ptycho, run_folder: Path) -> None:
    archive = run_folder / "wts.h5.zip"
    content = archive.read_bytes()
    place = content.index(b"epoch,learning_rate") + 3
    archive.write_bytes(content[:place] + b"X" + content[place + 1 :])
    assert_refused(ptycho("inspect", run_folder), "wts.h5.zip", "copy")


def test_reconstruction_writes_object_and_facts(
    ptycho: Ptycho, fake_engine: Any, run_folder: Path, scan_file: Path, tmp_path: Path
) -> None:
    fake_engine.predict_truth_of(load_scan(scan_file))
    out = tmp_path / "result"
    outcome = ptycho("reconstruct", scan_file, "--model", run_folder, "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    files = ["reconstruction.json", "reconstruction.npz", "report.html", "run.json"]
    assert sorted(path.name for path in out.iterdir()) == files
    summary = json.loads(outcome.out)
    assert summary == json.loads((out / "reconstruction.json").read_text())
    assert (summary["patterns"], summary["backend"], summary["scan"]) == (40, "fake", str(scan_file))
    evaluation = json.loads(ptycho("evaluate", out, "--truth", scan_file, "--json").out)
    assert evaluation["correlation"] > 0.7  # half-pixel positions smooth a random object
    assert load_reconstruction(out).patterns == 40


def test_a_truncated_archive_is_named(ptycho: Ptycho, run_folder: Path, scan_file: Path, tmp_path: Path) -> None:
    archive = run_folder / "wts.h5.zip"
    archive.write_bytes(archive.read_bytes()[:-100])
    outcome = ptycho("reconstruct", scan_file, "--model", archive, "--out", tmp_path / "out")
    assert_refused(outcome, "wts.h5.zip: expected a readable model archive", "copy or train it again")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_an_archive_is_named(ptycho: Ptycho, scan_file: Path, tmp_path: Path) -> None:
    outcome = ptycho("reconstruct", scan_file, "--model", tmp_path, "--out", tmp_path / "out")
    assert_refused(outcome, f"{tmp_path / 'wts.h5.zip'}: expected", "no such file")


def test_a_scan_in_the_place_of_the_model_is_named(ptycho: Ptycho, scan_file: Path, tmp_path: Path) -> None:
    outcome = ptycho("reconstruct", scan_file, "--model", scan_file, "--out", tmp_path / "out")
    assert_refused(outcome, "scan.npz: expected the members manifest.json", "diff3d.npy", "This is a scan")


def test_a_scan_of_another_size_than_the_model_is_refused(
    ptycho: Ptycho, run_folder: Path, tmp_path: Path, numbered_scan: Any
) -> None:
    save_scan(tmp_path / "large.npz", numbered_scan(N=64))
    outcome = ptycho("reconstruct", tmp_path / "large.npz", "--model", run_folder, "--out", tmp_path / "out")
    assert_refused(outcome, "large.npz: diff3d: expected 32 x 32 patterns", "received 64 x 64")


# -- engines -------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_framework(monkeypatch: pytest.MonkeyPatch) -> None:
    rearrange(np.zeros((1, 1)), "a b -> b a")  # einops looks for frameworks until it has met an array of numpy's
    for framework in ("torch", "tensorflow"):
        for name in list(sys.modules):
            if name.partition(".")[0] == f"ptycho_core_{framework}":
                monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, framework, None)


@pytest.mark.usefixtures("no_framework")
def test_engines_that_are_not_installed_are_listed_as_such(ptycho: Ptycho) -> None:
    assert ptycho("engines").out.split() == ["tensorflow", "not", "installed", "torch", "not", "installed"]
    absent = {"framework": "not installed"}
    assert json.loads(ptycho("engines", "--json").out) == {"tensorflow": absent, "torch": absent}


def test_an_engine_of_another_package_that_fails_is_listed_with_the_reason(
    ptycho: Ptycho, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [entry_point("jax", "a_module_that_is_not_there:Engine", ENGINES.group)]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)
    monkeypatch.setattr(ENGINES, "_warned", set())
    reason = "engine 'jax' of other-package 1.2: it cannot be imported: ModuleNotFoundError: No module named"
    outcome = ptycho("engines")
    assert outcome.code == 0
    assert outcome.out.split() == ["jax", "broken"]
    assert reason in outcome.err
    listed = json.loads(ptycho("engines", "--json").out)
    assert listed["jax"]["framework"] == "broken"
    assert listed["jax"]["error"].startswith(reason)


@pytest.mark.usefixtures("no_framework")
@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("torch", "PyTorch backend selected, but the 'torch' package is not installed."),
        ("tensorflow", "TensorFlow backend selected, but the 'tensorflow' package is not installed."),
        ("auto", "No engine is installed. Install one with: pip install 'ptycho-core[torch]'"),
    ],
)
def test_a_missing_framework_is_named_with_the_remedy(
    ptycho: Ptycho, scan_file: Path, tmp_path: Path, backend: str, message: str
) -> None:
    outcome = ptycho("train", scan_file, "--out", tmp_path / "out", "--backend", backend, "--quiet")
    place = "" if backend == "auto" else "flag --backend: "
    assert_refused(outcome, f"Error: {place}{message}", "pip install")
