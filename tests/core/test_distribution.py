"""What the distribution for Ptychodus gives it, called in its order, without Ptychodus and without a framework."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho_core import ArchiveError, ConfigurationError
from ptycho_core.storage.npz import write_npz

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "distributions" / "ptychodus"
MODEL_SETTINGS: dict[str, Any] = {
    "n_filters_scale": 1,
    "model_type": "pinn",
    "amp_activation": "sigmoid",
    "object_big": True,
    "probe_big": True,
    "probe_mask": False,
    "pad_object": True,
    "probe_scale": 4.0,
    "gaussian_smoothing_sigma": 0.0,
}
TRAINING_SETTINGS: dict[str, Any] = {
    "train_data_file": Path(),
    "test_data_file": None,
    "batch_size": 4,
    "nepochs": 1,
    "mae_weight": 0.0,
    "nll_weight": 1.0,
    "realspace_mae_weight": 0.0,
    "realspace_weight": 0.0,
    "nphotons": 1e6,
    "positions_provided": True,
    "probe_trainable": False,
    "intensity_scale_trainable": True,
    "output_dir": Path(),
}
INFERENCE_SETTINGS: dict[str, Any] = {
    "model_path": Path(),
    "test_data_file": Path(),
    "debug": False,
    "output_dir": Path(),
}
"""As Ptychodus 1.7 states them."""


class Shim:
    """The modules of the package `ptycho`, imported when they are asked for."""

    def __getattr__(self, name: str) -> Any:
        return import_module(f"ptycho.{name}")

    @property
    def configs(self) -> Any:
        return import_module("ptycho.config.config")

    @property
    def components(self) -> Any:
        return import_module("ptycho.workflows.components")

    def training_config(self, gridsize: int = 1, **changes: Any) -> Any:
        model = self.configs.ModelConfig(N=0, gridsize=gridsize, **MODEL_SETTINGS)
        return self.configs.TrainingConfig(model=model, **{**TRAINING_SETTINGS, **changes})


@pytest.fixture
def shim(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shim]:
    """The package of the source tree, imported again, with no setting in the environment."""
    for name in [name for name in os.environ if name.startswith("PTYCHO_")]:
        monkeypatch.delenv(name)
    monkeypatch.syspath_prepend(FOLDER)
    yield Shim()
    for name in [name for name in sys.modules if name.partition(".")[0] == "ptycho"]:
        del sys.modules[name]


BEYOND_MIDDLE = 0.5
"""From the middle of a patch of even N, which Ptychodus names, to pixel [N/2, N/2]."""
BENEATH = 3j
"""What the input's object is everywhere."""


def counts_file(path: Path, scan: Any, dtype: Any = np.uint16) -> Path:
    """As Ptychodus exports a scan; a real dtype holds counts just as well."""
    counts = np.rint(np.square(scan.diffraction_amplitude)).astype(dtype)
    x, y = (scan.positions_px - BEYOND_MIDDLE).T
    bad = np.zeros(counts.shape[1:], bool)
    bad[3, 4] = True
    arrays = {"diff3d": counts, "xcoords": x, "ycoords": y, "xcoords_start": x, "ycoords_start": y, "bad_pixels": bad}
    others = {"probeGuess": scan.probe, "objectGuess": scan.object_field, "scan_index": np.zeros(len(scan), int)}
    write_npz(path, arrays | others)
    return path


def train(shim: Shim, folder: Path, scan: Any, gridsize: int = 1) -> Path:
    """What the child process of Ptychodus does to train; the folder that the model was saved to."""
    paths = [counts_file(folder / f"{name}_data.npz", scan) for name in ("test", "train")]
    test_data, train_data = (shim.raw_data.RawData.from_file(path) for path in paths)
    config = pickle.loads(pickle.dumps(shim.training_config(gridsize)))  # noqa: S301 - our own bytes
    config.model.N = train_data.diff3d.shape[-1]
    shim.configs.update_legacy_dict(shim.params.cfg, config)
    amplitude, phase, results = shim.components.run_cdi_example(train_data, test_data, config)
    shim.model_manager.save(folder / "out.put")
    shim.components.save_outputs(amplitude, phase, results, str(folder / "out.put"))
    return folder / "out.put"


def reconstruct(shim: Shim, bundle: Path, scan: Any, gridsize: int = 1, nsamples: int = 1) -> Any:
    """What the child process of Ptychodus does to reconstruct, up to the object that it makes of it."""
    model = shim.configs.ModelConfig(N=scan.N, gridsize=gridsize, **MODEL_SETTINGS)
    config = pickle.loads(  # noqa: S301 - our own bytes
        pickle.dumps(shim.configs.InferenceConfig(model=model, **INFERENCE_SETTINGS))
    )
    shim.configs.update_legacy_dict(shim.params.cfg, config)
    loaded, _ = shim.components.load_inference_bundle(bundle)
    raw = shim.raw_data.RawData.from_coords_without_pc(
        xcoords=scan.positions_px[:, 0] - BEYOND_MIDDLE,
        ycoords=scan.positions_px[:, 1] - BEYOND_MIDDLE,
        diff3d=np.rint(np.square(scan.diffraction_amplitude)).astype(np.int32),
        probeGuess=scan.probe,
        scan_index=np.zeros(len(scan), int),
        objectGuess=np.full_like(scan.object_field, BENEATH),
    )
    shim.probe.set_probe_guess(None, raw.probeGuess)
    grouped = raw.generate_grouped_data(config.model.N, K=7, nsamples=nsamples, gridsize=config.model.gridsize)
    container = shim.loader.load(lambda: grouped, raw.probeGuess, which=None, create_split=False)
    scale = shim.params.get("intensity_scale")
    patches = loaded.predict([container.X * scale, container.local_offsets])
    return np.squeeze(shim.tf_helper.reassemble_position(patches, container.global_offsets, M=20))


# -- the process of Ptychodus itself -------------------------------------------------------------------------------


def test_configurations_are_made_without_numpy_and_frameworks() -> None:
    code = (
        "import json, sys; from ptycho.config.config import InferenceConfig, ModelConfig, TrainingConfig\n"
        "TrainingConfig(model=ModelConfig(N=0)); InferenceConfig(model=ModelConfig(N=64))\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    path = os.pathsep.join((str(FOLDER), str(ROOT)))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path}
    )
    loaded = set(json.loads(done.stdout))
    assert "ptycho_core" in loaded
    assert not loaded & {"numpy", "scipy", "torch", "tensorflow", "keras", "jax"}


def test_the_size_of_patterns_is_assigned_when_it_is_known(shim: Shim) -> None:
    config = pickle.loads(pickle.dumps(shim.training_config()))  # noqa: S301 - our own bytes
    config.model.N = 128
    assert config.model.N == 128
    assert (config.train_data_file, config.batch_size) == (None, 4)
    flat: dict[str, Any] = {}
    shim.configs.update_legacy_dict(flat, config)
    assert (flat["N"], flat["nepochs"], flat["positions.provided"]) == (128, 1, True)


@pytest.mark.parametrize(("gridsize", "needed"), [(1, 4), (2, 4), (5, 24)])
def test_groups_of_any_gridsize_have_enough_neighbours(shim: Shim, gridsize: int, needed: int) -> None:
    assert shim.training_config(gridsize).neighbor_count == needed


def test_the_environment_sets_what_ptychodus_does_not_offer(shim: Shim, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BACKEND": "torch", "N_GROUPS": "77", "LEARNING_RATE": "2e-4", "NEPOCHS": "9"}.items():
        monkeypatch.setenv(f"PTYCHO_{name}", value)
    config = shim.training_config()
    assert (config.backend, config.n_groups, config.learning_rate) == ("torch", 77, 2e-4)
    assert config.nepochs == 1, "Ptychodus offers it"


def test_a_variable_of_the_wrong_kind_is_named(shim: Shim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTYCHO_N_GROUPS", "many")
    with pytest.raises(
        ConfigurationError, match=r"environment PTYCHO_N_GROUPS: n_groups must be a whole number; got 'many'"
    ):
        shim.training_config()


# -- the process that Ptychodus starts -----------------------------------------------------------------------------


@pytest.mark.parametrize("gridsize", [1, 2])
def test_true_patches_give_the_true_object_on_the_grid_of_the_input(
    shim: Shim, fake_engine: Any, numbered_scan: Any, tmp_path: Path, gridsize: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTYCHO_BACKEND", "fake")
    scan = numbered_scan(count=12, positions_px=np.round(numbered_scan(count=12).positions_px))
    bundle = train(shim, tmp_path, scan, gridsize)
    assert [path.name for path in bundle.iterdir()] == ["wts.h5.zip"]
    fake_engine.predict_truth_of(scan)
    field = reconstruct(shim, bundle, scan, gridsize)
    assert field.shape == scan.object_field.shape
    known = field != BENEATH
    for x, y in scan.positions_px.astype(int):
        assert known[y - 4 : y + 4, x - 4 : x + 4].all()
    np.testing.assert_allclose(field[known], scan.object_field[known], rtol=1e-5)


def test_samples_are_groups_and_one_is_all_of_them(
    shim: Shim, fake_engine: Any, numbered_scan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTYCHO_BACKEND", "fake")
    scan = numbered_scan(count=9)
    bundle = train(shim, tmp_path, scan)
    covered = {
        count: np.count_nonzero(reconstruct(shim, bundle, scan, nsamples=count) != BENEATH) for count in (1, 2, 9, 5000)
    }
    assert covered[1] == covered[9] == covered[5000] > covered[2] > 0


def test_the_parameters_of_the_model_win(
    shim: Shim, fake_engine: Any, numbered_scan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTYCHO_BACKEND", "fake")
    bundle = train(shim, tmp_path, numbered_scan())
    shim.params.cfg.clear()
    with pytest.raises(KeyError, match="intensity_scale"):
        shim.params.get("intensity_scale")
    shim.params.cfg["n_filters_scale"] = 2
    _, parameters = shim.components.load_inference_bundle(bundle)
    assert shim.params.cfg["n_filters_scale"] == parameters["n_filters_scale"] == 1
    assert shim.params.get("intensity_scale") == parameters["intensity_scale"] > 0


def test_another_gridsize_than_that_of_the_model_is_refused(
    shim: Shim, fake_engine: Any, numbered_scan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTYCHO_BACKEND", "fake")
    scan = numbered_scan()
    bundle = train(shim, tmp_path, scan, gridsize=2)
    with pytest.raises(ConfigurationError, match=r"GridSize: expected 2, as the model was trained; received 1\."):
        reconstruct(shim, bundle, scan, gridsize=1)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_exported_patterns_are_counts_and_filled_pixels_measured(
    shim: Shim, numbered_scan: Any, tmp_path: Path, dtype: Any
) -> None:
    scan = numbered_scan(count=4)
    raw = shim.raw_data.RawData.from_file(counts_file(tmp_path / "data.npz", scan, dtype))
    assert raw.scan.dose_known
    assert not raw.scan.bad_pixels.any()
    np.testing.assert_allclose(np.asarray(raw.diff3d), scan.diffraction_amplitude, rtol=1e-6)


@pytest.mark.parametrize("measurement", ["amplitude", "intensity"])
def test_what_a_file_says_of_its_patterns_holds(
    shim: Shim, numbered_scan: Any, tmp_path: Path, measurement: str
) -> None:
    """One that `ptycho convert` wrote holds amplitudes, and says so."""
    scan = numbered_scan(count=4)
    with np.load(counts_file(tmp_path / "counts.npz", scan, np.float32)) as file:
        arrays = dict(file)
    if measurement == "amplitude":
        arrays["diff3d"] = np.asarray(scan.diffraction_amplitude)
    write_npz(tmp_path / "said.npz", arrays | {"_metadata": np.array(json.dumps({"measurement": measurement}))})
    raw = shim.raw_data.RawData.from_file(tmp_path / "said.npz")
    np.testing.assert_allclose(np.asarray(raw.diff3d), scan.diffraction_amplitude, rtol=1e-6)


def test_epochs_are_logged_and_misspelt_variables_warned_of(
    shim: Shim,
    fake_engine: Any,
    numbered_scan: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("PTYCHO_BACKEND", "fake")
    monkeypatch.setenv("PTYCHO_SED", "3")
    with caplog.at_level(logging.INFO):
        train(shim, tmp_path, numbered_scan())
    assert any(message.startswith("epoch 1/1: loss ") for message in caplog.messages)
    assert "environment: PTYCHO_SED is not a setting; did you mean PTYCHO_SEED?" in caplog.messages


def test_nothing_trained_is_nothing_to_save(shim: Shim, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"model_manager\.save: expected a trained model; received none"):
        shim.model_manager.save(tmp_path)


def test_a_damaged_unpacked_model_is_named(
    shim: Shim, fake_engine: Any, numbered_scan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTYCHO_BACKEND", "fake")
    scan = numbered_scan()
    bundle, unpacked = train(shim, tmp_path, scan), tmp_path / "unpacked"
    shutil.unpack_archive(bundle / "wts.h5.zip", unpacked, "zip")
    np.testing.assert_array_equal(reconstruct(shim, unpacked, scan), reconstruct(shim, bundle, scan))
    (unpacked / "history.csv").unlink()
    with pytest.raises(ArchiveError, match=r"unpacked: unpacked model archive: .* expected the members"):
        shim.components.load_inference_bundle(unpacked)


# -- beside the published package ----------------------------------------------------------------------------------


def published(folder: Path, name: str, files: dict[str, str]) -> None:
    """A distribution's record, as an installer leaves it."""
    info = folder / f"{name.replace('-', '_')}-1.2.dist-info"
    info.mkdir(parents=True)
    for file, text in {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n", **files}.items():
        (info / file).write_text(text)


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("ptychopinn", {}),
        ("Ptycho", {}),
        ("a-fork", {"RECORD": "a_fork/x.py,,\nptycho/__init__.py,,\n"}),
        ("another", {"top_level.txt": "tests\nptycho\n"}),
    ],
)
def test_import_is_refused_beside_another_distribution(tmp_path: Path, name: str, files: dict[str, str]) -> None:
    published(tmp_path, name, files)
    path = os.pathsep.join(map(str, (FOLDER, ROOT, tmp_path)))
    done = subprocess.run(
        [sys.executable, "-c", "import ptycho.config.config"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 1
    message = done.stderr.splitlines()[-1]
    assert message.startswith("ImportError: ptycho-core-ptychodus: expected to be the only distribution")
    assert f"received {name} 1.2 beside it" in message
    assert f"pip uninstall {name} ptycho-core-ptychodus" in message


def test_unrelated_distributions_and_our_own_are_no_obstacle(shim: Shim, tmp_path: Path) -> None:
    record = "ptycho/__init__.py,,\n"
    published(tmp_path, "ptycho-core-ptychodus", {"RECORD": record})
    published(tmp_path, "ptycho-core", {"RECORD": "../../../bin/ptycho,,\nptycho_core/__init__.py,,\n"})
    published(tmp_path, "numpy", {"top_level.txt": "numpy\n"})
    refusal = import_module("ptycho._others").refusal
    assert len(list(distributions(path=[str(tmp_path)]))) == 3
    assert refusal(distributions(path=[str(tmp_path)])) is None


def test_the_main_wheel_does_not_hold_it() -> None:
    main, ours = (tomllib.loads((folder / "pyproject.toml").read_text()) for folder in (ROOT, FOLDER))
    engines = [f"engines/{name}/ptycho_core_{name}" for name in ("reference", "torch", "tensorflow")]
    assert main["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["ptycho_core", *engines]
    assert ours["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["ptycho", "ptycho_torch"]
    assert (ROOT / "LICENSE").read_text() == (FOLDER / "LICENSE").read_text()
