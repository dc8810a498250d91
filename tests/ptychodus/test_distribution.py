"""ptycho-core-ptychodus: an unchanged Ptychodus trains and reconstructs with its PtychoPINN library."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import h5py
import numpy as np
import pytest

from ptycho_core import load_model, load_scan, save_scan
from ptycho_core.embedding import ObjectGrid
from ptycho_core.errors import ConfigurationError
from ptycho_core.quality.evaluation import evaluate
from ptycho_core.reconstruction.result import load_reconstruction
from ptycho_core.simulation import simulate
from tests.command_line import ptycho
from tests.ptychodus.conftest import ONE

for name in ("ptychodus", "ptycho"):
    if importlib.util.find_spec(name) is None:
        what = {"ptychodus": "ptychodus", "ptycho": "ptycho-core-ptychodus (distributions/ptychodus)"}[name]
        pytest.skip(f"{what} is not installed", allow_module_level=True)

DRIVE = Path(__file__).with_name("drive_library.py")
SEED = 3
SETTINGS: dict[str, dict[str, Any]] = {
    "model": {"n_filters_scale": 1, "pad_object": False},
    "training": {"batch_size": 4, "nepochs": 3},
}
FLAGS: tuple[object, ...] = ("--architecture", "cnn", "--n-filters-scale", 1, "--no-pad-object", "--batch-size", 4)
FLAGS += ("--nepochs", 3, "--nphotons", 1e6, "--n-groups", 90)
"""The same on the command line; Ptychodus states 1e6 photons, and an epoch has at most one group for every frame."""
NEIGHBOURS = ("--neighbor-count", 7)
"""Of Ptychodus, for reconstructions."""
METRES = {"photon_energy_eV": 10000.0, "detector_distance_m": 2.0, "detector_pixel_m": (75e-6, 75e-6)}
WAYS = ("saved", "bundle")
"""How a model comes to its reconstruction."""

CENTRE_M = (3e-7, -2e-7)
"""Of the object, so that its place says something."""


class Answers(list[tuple[str, Any]]):
    """In place of the queue of a child process to its parent."""

    put = list.append


def run(*command: object, timeout: float = 900, **environment: str) -> str:
    """What a process wrote, stdout and stderr; its exit code has to be 0."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=timeout,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, f"exit code {done.returncode} of {command}:\n{done.stdout}"
    return done.stdout


def write_input(folder: Path, **changes: Any) -> None:
    """A simulated scan: scan.npz with the truth; diffraction.h5 and product.h5, which do not know the object."""
    scan = simulate(**{"N": 32, "positions": 90, "object": "lines", "photons": 1e6, **changes})
    scan = attrs.evolve(scan, metadata={**scan.metadata, **METRES})
    save_scan(folder / "scan.npz", scan)
    assert scan.object_field is not None
    save_scan(folder / "product.h5", attrs.evolve(scan, object_field=np.ones_like(scan.object_field)))
    with h5py.File(folder / "product.h5", "r+") as file:
        for axis, centre in zip("xy", CENTRE_M, strict=True):
            file["object"].attrs[f"center_{axis}_m"] += centre
            file[f"probe_position_{axis}_m"][...] += centre


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which Ptychodus has done all it can, in processes of its own, and what was logged."""
    if not ONE:
        pytest.skip("no engine is installed")
    folder = tmp_path_factory.mktemp("ptychodus")
    write_input(folder)
    log = run(DRIVE, folder, json.dumps(SETTINGS), *WAYS, PTYCHO_BACKEND=ONE, PTYCHO_SEED=str(SEED))
    return folder, log


def result_of(folder: Path, name: str) -> np.ndarray[Any, np.dtype[np.complex64]]:
    with h5py.File(folder / name) as file:
        field: np.ndarray[Any, np.dtype[np.complex64]] = file["object"][0]
    return field


def test_the_engine_that_the_environment_names_has_trained(flow: tuple[Path, str]) -> None:
    folder, log = flow
    model = load_model(folder / "trained")
    assert model.engine.name == ONE
    assert (model.config.model.N, model.config.model.n_filters_scale, model.config.seed) == (32, 1, SEED)
    assert (model.config.batch_size, model.config.nepochs, model.config.n_groups) == (4, 3, 90)
    assert "epoch 3/3: loss" in log and f"in place of PtychoPINN: 3 epochs with {ONE}" in log


def test_the_object_is_on_the_grid_of_the_input(flow: tuple[Path, str]) -> None:
    folder, _ = flow
    for way in WAYS:
        with h5py.File(folder / "product.h5") as given, h5py.File(folder / f"{way}.h5") as result:
            assert result["object"].shape == given["object"].shape
            for attribute in ("center_x_m", "center_y_m", "pixel_width_m", "pixel_height_m"):
                assert result["object"].attrs[attribute] == given["object"].attrs[attribute], attribute
            np.testing.assert_array_equal(result["probe_position_x_m"], given["probe_position_x_m"])
            assert not np.array_equal(result["object"], given["object"])


def test_a_model_reconstructs_the_same_whichever_way_it_comes(flow: tuple[Path, str]) -> None:
    folder, _ = flow
    first, *others = (result_of(folder, f"{way}.h5") for way in WAYS)
    assert np.isfinite(first).all()
    for other in others:
        np.testing.assert_allclose(other, first, atol=1e-5)


def test_the_object_is_as_good_as_that_of_the_command_line(flow: tuple[Path, str]) -> None:
    folder, _ = flow
    scan, out = folder / "scan.npz", folder / "line"
    ptycho("train", scan, "--test", scan, "--out", out, "--backend", ONE, "--seed", SEED, *FLAGS)
    ptycho("reconstruct", scan, "--model", out, "--out", out, "--backend", ONE, *NEIGHBOURS)
    ptycho("evaluate", out, "--truth", scan)
    expected = json.loads((out / "evaluation.json").read_text())["correlation"]

    truth = load_scan(scan).object_field
    assert truth is not None
    ours = load_reconstruction(out)
    theirs = attrs.evolve(ours, object_field=result_of(folder, "saved.h5"), origin_px=(0.0, 0.0), known=None)
    correlation = evaluate(theirs, truth).metrics.correlation
    print(f"{ONE}: correlation {correlation:.4f} in Ptychodus, {expected:.4f} on the command line")
    assert expected > 0.3, "the network has learnt something"
    assert abs(correlation - expected) < 0.02
    grid = ObjectGrid(shape=truth.shape, pixel_m=(1.0, 1.0))
    placed, known = grid.place(ours.object_field, ours.object_field != 0, ours.origin_px)
    np.testing.assert_allclose(theirs.object_field[known], placed[known], atol=0.05)


@pytest.mark.parametrize("count", [20, 32])
def test_one_exported_file_is_enough_and_a_part_of_it_is_the_test(
    count: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where there are as many patterns as they have rows: Ptychodus writes frames first."""
    from ptycho.raw_data import RawData
    from ptychodus.api.io import load_diffraction_data, load_product, save_ptychopinn_training_data
    from ptychodus.api.reconstruct import prepare_reconstruct_input

    write_input(tmp_path, positions=count)
    parameters = prepare_reconstruct_input(
        load_diffraction_data(tmp_path / "diffraction.h5"), load_product(tmp_path / "product.h5")
    )
    save_ptychopinn_training_data(tmp_path / "train_data.npz", parameters)
    with caplog.at_level("INFO"):
        test, train = RawData.from_file(tmp_path / "test_data.npz"), RawData.from_file(tmp_path / "train_data.npz")
    share = round(count / 5)
    assert (len(test), len(train)) == (share, count - share)
    assert not set(map(tuple, test.scan.positions_px)) & set(map(tuple, train.scan.positions_px))
    assert f"test_data.npz is missing: {share} of the {count} patterns of train_data.npz" in caplog.text
    np.testing.assert_array_equal(
        np.sort(np.concatenate([test.diff3d, train.diff3d]).sum(axis=(1, 2))),
        np.sort(np.sqrt(parameters.diffraction_patterns.astype(np.float32)).sum(axis=(1, 2))),
    )


def test_a_refusal_is_one_line_where_ptychodus_shows_it(caplog: pytest.LogCaptureFixture) -> None:
    from ptycho.config.config import ModelConfig

    with pytest.raises(ConfigurationError):
        ModelConfig(N=64, gridsize=0)
    assert [(record.name, record.levelname) for record in caplog.records] == [("ptychopinn", "ERROR")]
    assert "gridsize must be a whole number >= 1; got 0" in caplog.text


@pytest.mark.parametrize("backend", ["torch", "tensorflow"], indirect=True)
def test_groups_modes_and_bad_pixels_go_through_the_supervised_reconstructor(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its child processes run, in this one."""
    from ptychodus.api.io import load_diffraction_data, load_product, save_ptychopinn_training_data
    from ptychodus.api.reconstruct import prepare_reconstruct_input
    from ptychodus.api.settings import SettingsRegistry
    from ptychodus.model.ptychopinn._subprocess import run_reconstruct, run_train
    from ptychodus.model.ptychopinn.core import PtychoPINNReconstructorLibrary

    monkeypatch.setenv("PTYCHO_BACKEND", backend)
    write_input(tmp_path, positions=60, modes=2, bad_pixels=6)
    parameters = prepare_reconstruct_input(
        load_diffraction_data(tmp_path / "diffraction.h5"), load_product(tmp_path / "product.h5")
    )
    library = PtychoPINNReconstructorLibrary(SettingsRegistry(), False)
    library.model_settings.n_filters_scale.set_value(1)
    library.model_settings.gridsize.set_value(2)
    library.training_settings.nepochs.set_value(1)
    supervised: Any = next(each for each in library if each.name == "Supervised")
    for name in ("train_data.npz", "test_data.npz"):
        save_ptychopinn_training_data(tmp_path / name, parameters)
    (out := tmp_path / "trained").mkdir()
    told = Answers()
    run_train(supervised._build_train_payload(tmp_path, out), told)
    model = load_model(out)
    assert model.engine.name == backend
    assert (model.config.model.model_type, model.config.model.gridsize) == ("supervised", 2)
    assert model.config.n_groups == 60
    assert model.illumination.probe.shape == (2, 32, 32)
    told.clear()
    run_reconstruct(supervised._build_reconstruct_payload(parameters, Path(out / "wts.h5.zip")), told)
    field = pickle.loads(told[0][1]).product.object_.get_layer(0)  # noqa: S301 - as Ptychodus does
    assert field.shape == parameters.product.object_.get_layer(0).shape
    assert np.isfinite(field).all()
    assert np.count_nonzero(field) > 0.5 * field.size
