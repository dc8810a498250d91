"""ptycho-core-ptychodus: an unchanged Ptychodus trains and reconstructs with its PtychoPINN-Torch library."""

from __future__ import annotations

import copy
import logging
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ptycho_core import load_model, load_scan, reconstruct
from ptycho_core.embedding import ObjectGrid
from ptycho_core.engine.registry import is_installed
from ptycho_core.errors import ConfigurationError, DataError

pytest.importorskip("ptychodus", reason="ptychodus is not installed")
pytest.importorskip("ptycho_torch", reason="ptycho-core-ptychodus (distributions/ptychodus) is not installed")

from ptycho_torch import config_params
from ptycho_torch.api.base_api import ConfigManager, PtychoDataLoader
from ptycho_torch.translation import execution_config, training_config

from tests.ptychodus.test_distribution import Answers, write_input

SETTINGS: dict[str, dict[str, Any]] = {
    "data": {"model_size": 32, "grid_size_x": 1, "grid_size_y": 1, "num_channels": 1},
    "model": {"num_filters_scale": 1},
    "training": {"epochs": 1, "device": "cpu", "num_dataloader_workers": 0},
}


@pytest.mark.skipif(not is_installed("torch"), reason="torch is not installed")
def test_what_its_child_process_runs_trains_and_reconstructs_on_the_grid_of_the_product(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from ptychodus.api.io import load_diffraction_data, load_product, save_ptychopinn_training_data
    from ptychodus.api.reconstruct import prepare_reconstruct_input
    from ptychodus.api.settings import SettingsRegistry
    from ptychodus.model.ptychopinn_torch._subprocess import run_reconstruct, run_train
    from ptychodus.model.ptychopinn_torch.core import PtychoPINNTorchReconstructorLibrary

    monkeypatch.setenv("PTYCHO_SEED", "3")
    write_input(tmp_path, positions=40)
    parameters = prepare_reconstruct_input(
        load_diffraction_data(tmp_path / "diffraction.h5"), load_product(tmp_path / "product.h5")
    )
    save_ptychopinn_training_data(tmp_path / "train_data.npz", parameters)
    library = PtychoPINNTorchReconstructorLibrary(SettingsRegistry(), False)
    for group, values in SETTINGS.items():
        for name, value in values.items():
            getattr(getattr(library, f"{group}_settings"), name).set_value(value)
    unsupervised: Any = next(iter(library))
    told = Answers()
    caplog.set_level("INFO", "ptychopinn")
    run_train(unsupervised._build_train_payload(tmp_path, tmp_path / "out"), told)
    (_, outcome), (_, saved) = told
    for said in ("8 of the 40 patterns", "in place of PtychoPINN: 1 epochs with torch", "epoch 1/1: loss"):
        assert said in caplog.text
    losses = pickle.loads(outcome)  # noqa: S301 - as Ptychodus does
    assert [len(losses.training_loss), len(losses.validation_loss), losses.progress] == [1, 1, 1]
    model = load_model(Path(saved))
    config = model.config
    assert Path(saved).suffix == ".ckpt" and Path(saved).parent.parent == tmp_path / "out"
    assert (model.engine.name, config.model.N, config.model.gridsize, config.nepochs) == ("torch", 32, 1, 1)
    assert (config.seed, config.n_groups) == (3, 32)  # a fifth of the one file is the test
    assert losses.training_loss[0].value == pytest.approx(model.history[0]["total"])

    told.clear()
    run_reconstruct(unsupervised._build_reconstruct_payload(parameters, Path(saved)), told)
    product = pickle.loads(told[0][1]).product  # noqa: S301
    assert product.object_.get_geometry() == parameters.product.object_.get_geometry()
    field = product.object_.get_layer(0)
    ours = reconstruct(load_scan(tmp_path / "scan.npz"), model)
    placed, known = ObjectGrid(shape=field.shape, pixel_m=(1.0, 1.0)).place(
        ours.object_field, ours.known if ours.known is not None else ours.object_field != 0, ours.origin_px
    )
    assert known.mean() > 0.3
    np.testing.assert_allclose(field[known], placed[known], atol=0.02)


# -- settings ------------------------------------------------------------------------------------------------------


def manager(**changes: dict[str, Any]) -> ConfigManager:
    """Of Ptychodus's own defaults, but for these of each configuration."""
    kinds = {"data": config_params.DataConfig, "model": config_params.ModelConfig}
    kinds |= {"training": config_params.TrainingConfig, "inference": config_params.InferenceConfig}
    return ConfigManager(**{f"{name}_config": kind(**changes.get(name, {})) for name, kind in kinds.items()})


def test_the_defaults_are_those_of_ptychodus() -> None:
    from ptychodus.api.settings import SettingsRegistry
    from ptychodus.model.ptychopinn_torch.core import PtychoPINNTorchReconstructorLibrary
    from ptychodus.model.ptychopinn_torch.reconstructor import _build_configs

    library = PtychoPINNTorchReconstructorLibrary(SettingsRegistry(), False)
    assert [each.name for each in library] == ["Unsupervised", "Supervised"]
    settings = library.data_settings, library.model_settings, library.training_settings, library.inference_settings
    for config in _build_configs("Unsupervised", *settings):
        assert vars(config) == dict(config.DEFAULTS), type(config).__name__
        assert vars(copy.deepcopy(config)) == vars(config)  # as it is sent to a child process


def test_settings_become_a_training(caplog: pytest.LogCaptureFixture) -> None:
    changes: dict[str, dict[str, Any]] = {
        "data": {"N": 64, "K": 9},
        "model": {"cbam_encoder": False, "n_filters_scale": 3, "loss_function": "MAE"},
        "training": {
            "epochs": 7,
            "scheduler": "Cosine",
            "warmup_epochs": 2,
            "gradient_clip_val": 1.5,
            "num_workers": 1,
        },
    }
    with caplog.at_level(logging.WARNING):
        config = training_config(manager(**changes), N=64, frames=100)
    assert not caplog.messages
    assert (config.model.architecture, config.model.N) == ("cnn", 64)
    assert (config.model.gridsize, config.model.n_filters_scale) == (2, 3)
    assert (config.model.amp_activation, config.model.cbam_encoder) == ("swish", False)
    assert (config.nepochs, config.n_groups, config.neighbor_count, config.backend) == (7, 100, 9, "torch")
    assert (config.scheduler, config.lr_warmup_epochs, config.lr_min_ratio) == ("WarmupCosine", 2, 0.1)
    assert (config.gradient_clip_val, config.nll_weight, config.mae_weight) == (1.5, 0, 1)
    execution = execution_config(config_params.TrainingConfig(**changes["training"]))
    assert (execution.num_workers, execution.accelerator) == (1, "auto")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"data": {"N": 128}}, "model_size = 128 has no effect: the patterns have 64 x 64 pixels"),
        ({"data": {"N": 64, "x_bounds": (0.0, 1.0)}}, "DataConfig: x_bounds: set, and without effect"),
        ({"data": {"N": 64}, "model": {"batch_norm": True}}, "ModelConfig: batch_norm"),
        ({"data": {"N": 64}, "training": {"n_devices": 2}}, "TrainingConfig: n_devices"),
        ({"data": {"N": 64}, "inference": {"middle_trim": 20}}, "InferenceConfig: middle_trim"),
    ],
)
def test_what_has_no_effect_is_said(
    changes: dict[str, dict[str, Any]], word: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        training_config(manager(**changes), N=64, frames=100)
    assert word in caplog.text


def test_the_environment_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTYCHO_N_GROUPS", "12")
    monkeypatch.setenv("PTYCHO_BACKEND", "tensorflow")
    config = training_config(manager(data={"N": 64}), N=64, frames=100)
    assert (config.n_groups, config.backend) == (12, "tensorflow")


def test_a_setting_of_a_newer_ptychodus_is_refused_by_name() -> None:
    with pytest.raises(
        ConfigurationError, match=r"ptycho_torch\.DataConfig.*Ptychodus 1\.7.*shape_of_things of a newer"
    ):
        config_params.DataConfig(N=64, shape_of_things=1)


def test_groups_that_are_no_square_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="num_channels = g²"):
        training_config(manager(data={"grid_size": (1, 2)}), N=64, frames=10)
    with pytest.raises(ConfigurationError, match="num_channels = g²"):
        training_config(manager(data={"C": 1}), N=64, frames=10)


def test_arrays_from_elsewhere_have_no_grid() -> None:
    arrays: dict[str, Any] = {
        "diff_patterns": np.ones((3, 8, 8), np.uint16),
        "probe": np.ones((1, 8, 8), complex),
        "positions": np.zeros((3, 2)),
    }
    with pytest.raises(DataError, match="a call from Ptychodus"):
        PtychoDataLoader.from_np(**arrays, config_manager=manager())


def test_runs_in_one_folder_have_folders_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "train_data.npz").write_bytes(b"")
    made = [
        PtychoDataLoader(data_dir=tmp_path, config_manager=manager(), output_dir=tmp_path / "out") for _ in range(3)
    ]
    assert len({each.output_dir for each in made}) == 3
    assert SimpleNamespace(**vars(made[0])).files == (tmp_path / "train_data.npz", None)
