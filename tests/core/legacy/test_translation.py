"""PyTorch-style configurations, as objects and as mappings, become ours."""

from __future__ import annotations

import logging
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho_core.errors import ConfigurationError
from ptycho_core.legacy import to_inference_config, to_model_config, to_training_config, update_legacy_dict
from ptycho_core.legacy.translation import INFERENCE_RULES, MODEL_RULES, NOT_CARRIED, TRAINING_RULES
from ptycho_core.settings.training import TrainingConfig
from tests.core.legacy.test_parameters import BASELINE
from tests.networks import cnn


@dataclass
class TheirDataConfig:
    nphotons: float = 1e5
    N: int = 64
    C: int = 4
    K: int = 6
    n_subsample: int = 7
    subsample_seed: int | None = None
    grid_size: tuple[int, int] = (2, 2)
    neighbor_function: str = "Nearest"
    normalize: str = "Batch"
    probe_scale: float = 4.0
    data_scaling: str = "Parseval"
    x_bounds: tuple[float, float] = (0.1, 0.9)
    y_bounds: tuple[float, float] = (0.1, 0.9)


@dataclass
class TheirModelConfig:
    mode: str = "Unsupervised"
    intensity_scale_trainable: bool = False
    n_filters_scale: int = 2
    amp_activation: str = "silu"
    probe_mask: Any = None
    edge_pad: int = 10
    cbam_encoder: bool = True
    eca_decoder: bool = False
    object_big: bool = True
    probe_big: bool = True
    pad_object: bool = True
    gaussian_smoothing_sigma: float = 0.0
    loss_function: str = "Poisson"
    amp_loss: str | None = None


@dataclass
class TheirTrainingConfig:
    nll: bool = True
    device: str = "cuda"
    strategy: str | None = "ddp"
    n_devices: int = 1
    learning_rate: float = 1e-3
    epochs: int = 50
    batch_size: int = 16
    scheduler: str = "Default"
    lr_min_ratio: float = 0.1
    num_workers: int = 4
    stage_1_epochs: int = 0
    stage_2_epochs: int = 0
    stage_3_epochs: int = 0
    train_data_file: str | None = "scan/train.npz"
    test_data_file: str | None = "scan/test.npz"
    n_groups: int | None = 512
    momentum: float = 0.9


@dataclass
class TheirInferenceConfig:
    middle_trim: int = 32
    batch_size: int = 1000
    patch_weighting: str = "probe"


@dataclass
class Theirs:
    data: TheirDataConfig = field(default_factory=TheirDataConfig)
    model: TheirModelConfig = field(default_factory=TheirModelConfig)
    training: TheirTrainingConfig = field(default_factory=TheirTrainingConfig)

    def translated(self, mapping: bool = False, **overrides: Any) -> TrainingConfig:
        data, model, training = (asdict(x) if mapping else x for x in (self.data, self.model, self.training))  # type: ignore[call-overload]
        return to_training_config(to_model_config(data, model), data, model, training, {"nphotons": 1e9, **overrides})


@pytest.mark.parametrize("mapping", [False, True], ids=["objects", "mappings"])
def test_pytorch_style_configurations_give_the_published_dictionary(mapping: bool) -> None:
    data = TheirDataConfig(nphotons=5e8, N=128, K=8, grid_size=(3, 3), probe_scale=2.0, subsample_seed=99)
    model = TheirModelConfig(
        object_big=False,
        probe_big=False,
        probe_mask=np.ones((128, 128)),
        pad_object=False,
        gaussian_smoothing_sigma=0.5,
        intensity_scale_trainable=True,
    )
    training = TheirTrainingConfig(epochs=100, batch_size=32)
    theirs = [asdict(each) if mapping else each for each in (data, model, training, TheirInferenceConfig())]  # type: ignore[call-overload]
    ours = to_model_config(theirs[0], theirs[1])
    overrides = {
        "mae_weight": 0.3,
        "nll_weight": 0.7,
        "realspace_mae_weight": 0.05,
        "realspace_weight": 0.1,
        "n_subsample": 1024,
        "positions_provided": False,
        "probe_trainable": True,
        "sequential_sampling": True,
    }
    named = {"model_path": "runs/model", "test_data_file": "scan/test.npz", "output_dir": "runs/reconstruction"}
    cfg: dict[str, Any] = {}
    update_legacy_dict(cfg, to_training_config(ours, theirs[0], theirs[1], theirs[2], overrides))
    update_legacy_dict(
        cfg, to_inference_config(ours, theirs[0], theirs[3], {**named, "neighbor_count": 6, "debug": True})
    )
    assert cfg == BASELINE


@pytest.mark.parametrize("mapping", [False, True], ids=["objects", "mappings"])
def test_their_defaults_become_ours_by_value(mapping: bool) -> None:
    config = Theirs().translated(mapping)
    assert config.model == cnn(gridsize=2, amp_activation="swish", cbam_encoder=True)
    assert (config.neighbor_count, config.nepochs, config.scheduler, config.nphotons) == (6, 50, "Default", 1e9)
    assert (config.nll_weight, config.mae_weight, config.intensity_scale_trainable) == (1.0, 0.0, False)
    assert (config.train_data_file, config.test_data_file) == (Path("scan/train.npz"), Path("scan/test.npz"))


@pytest.mark.parametrize(
    ("part", "name", "value", "ours", "expected"),
    [
        ("model", "mode", "Supervised", "model.model_type", "supervised"),
        ("model", "amp_activation", "relu", "model.amp_activation", "relu"),
        ("model", "probe_mask", True, "model.probe_mask", True),
        ("model", "probe_mask", False, "model.probe_mask", False),
        ("model", "probe_mask", None, "model.probe_mask", False),
        ("model", "probe_mask", np.zeros((64, 64)), "model.probe_mask", True),
        ("model", "eca_decoder", True, "model.eca_decoder", True),
        ("model", "intensity_scale_trainable", True, "intensity_scale_trainable", True),
        ("data", "grid_size", (3, 3), "model.gridsize", 3),
        ("data", "grid_size", [1, 1], "model.gridsize", 1),
        ("data", "K", 12, "neighbor_count", 12),
        ("training", "epochs", 9, "nepochs", 9),
        ("training", "nll", False, "nll_weight", 0.0),
        ("training", "nll", False, "mae_weight", 1.0),
        ("training", "learning_rate", 0.5, "learning_rate", 0.5),
    ],
)
def test_each_field_is_translated(part: str, name: str, value: Any, ours: str, expected: Any) -> None:
    theirs = Theirs()
    if name == "grid_size":
        theirs.data.K = 12
    setattr(getattr(theirs, part), name, value)
    config: Any = theirs.translated()
    for step in ours.split("."):
        config = getattr(config, step)
    assert config == expected


def test_overrides_win() -> None:
    config = Theirs().translated(nepochs=3, nll_weight=0.5, neighbor_count=9, seed=4)
    assert (config.nepochs, config.nll_weight, config.neighbor_count, config.seed) == (3, 0.5, 9, 4)


def test_a_grid_that_is_not_square_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"DataConfig: grid_size must be a square grid, .* got \(2, 3\)"):
        to_model_config(TheirDataConfig(grid_size=(2, 3)), TheirModelConfig())


def test_a_dose_left_at_their_default_is_refused_with_its_override() -> None:
    theirs = Theirs()
    model = to_model_config(theirs.data, theirs.model)
    with pytest.raises(ConfigurationError, match=r"nphotons default divergence.*overrides=\{'nphotons': "):
        to_training_config(model, theirs.data, theirs.model, theirs.training)
    with pytest.raises(ConfigurationError, match="nphotons default divergence"):
        to_training_config(model, {}, theirs.model, theirs.training)
    stated = TheirDataConfig(nphotons=2e6)
    assert to_training_config(model, stated, theirs.model, theirs.training).nphotons == 2e6
    assert theirs.translated(nphotons=1e5).nphotons == 1e5


@pytest.mark.parametrize("name", ["n_groups", "train_data_file"])
def test_what_a_run_cannot_do_without_is_asked_for(name: str) -> None:
    theirs = Theirs()
    setattr(theirs.training, name, None)
    with pytest.raises(ConfigurationError, match=rf"TrainingConfig: {name} must be .*overrides={{'{name}'"):
        theirs.translated()


def test_a_missing_test_scan_is_warned_of() -> None:
    theirs = Theirs()
    theirs.training.test_data_file = None
    with pytest.warns(UserWarning, match="test_data_file is missing"):
        assert theirs.translated().test_data_file is None


def test_n_subsample_is_never_carried_over(core_log: pytest.LogCaptureFixture) -> None:
    theirs = Theirs()
    theirs.data.subsample_seed = 3
    config = theirs.translated()
    assert (config.n_subsample, config.subsample_seed) == (None, None)
    messages = [record.getMessage() for record in core_log.records]
    assert any(message.startswith("DataConfig.n_subsample is not carried over: theirs thins") for message in messages)
    assert any(message.startswith("subsample_seed has no effect beside n_subsample") for message in messages)
    assert theirs.translated(n_subsample=9).subsample_seed == 3


def test_knobs_without_effect_are_left_out_and_listed(core_log: pytest.LogCaptureFixture) -> None:
    theirs = Theirs()
    theirs.training.momentum = 0.5
    config = theirs.translated()
    assert (config.scheduler, config.lr_min_ratio, config.momentum) == ("Default", 0.02, 0.9)
    messages = [record.getMessage() for record in core_log.records if record.levelno == logging.INFO]
    assert any(message.startswith("lr_min_ratio has no effect beside scheduler = 'Default'") for message in messages)
    assert any(message.startswith("momentum has no effect beside optimizer = 'adam'") for message in messages)


def test_stages_set_the_number_of_epochs() -> None:
    theirs = Theirs()
    theirs.training.stage_1_epochs, theirs.training.stage_2_epochs, theirs.training.stage_3_epochs = 2, 3, 4
    config = theirs.translated()
    assert (config.nepochs, config.stage_2_epochs) == (9, 3)


@pytest.mark.parametrize("mapping", [False, True], ids=["objects", "mappings"])
def test_unknown_fields_are_listed(mapping: bool) -> None:
    data: Any = TheirDataConfig(nphotons=1e6)
    data.K_quadrant = 30
    data = {**asdict(data), "K_quadrant": 30} if mapping else type("D", (), {**asdict(data), "K_quadrant": 30})()
    if not mapping:
        data.K_quadrant = 30  # an attribute of the object itself, as in a namespace
    with pytest.warns(UserWarning, match=r"unknown fields are left out: DataConfig\.K_quadrant\."):
        to_model_config(data, TheirModelConfig())


def test_known_fields_are_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Theirs().translated()


def test_a_value_that_ours_does_not_take_names_our_field() -> None:
    theirs = Theirs()
    theirs.training.scheduler = "Adaptive"
    with pytest.raises(ConfigurationError, match=r"PyTorch-style configuration: scheduler must be one of"):
        theirs.translated()


def test_an_inference_is_translated() -> None:
    model = to_model_config(TheirDataConfig(), TheirModelConfig())
    config = to_inference_config(model, TheirDataConfig(), TheirInferenceConfig(patch_weighting="uniform"))
    assert (config.model, config.neighbor_count, config.weighting, config.middle_trim) == (model, 6, "uniform", 32)


def test_every_rule_names_a_field_and_no_field_is_both_carried_and_not() -> None:
    rules = (*MODEL_RULES, *TRAINING_RULES, *INFERENCE_RULES)
    assert all(hasattr(rule.cls(), rule.ours) for rule in rules)
    assert not {rule.theirs for rule in rules} & set(NOT_CARRIED)
    assert len({(rule.cls, rule.ours) for rule in rules}) == len(rules)
