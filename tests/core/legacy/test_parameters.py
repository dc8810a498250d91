"""Flat dictionaries: the published keys, layering, and the way back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho_core.engine.protocol import EngineInfo
from ptycho_core.errors import ConfigurationError
from ptycho_core.legacy import from_legacy_dict, to_legacy_dict, update_legacy_dict
from ptycho_core.models.flat import PUBLISHED, RENAMED
from ptycho_core.models.model import Model, load_model
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.fields import fields_of
from ptycho_core.settings.inference import InferenceConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.vocabulary import COUNTS_PER_INTENSITY, INPUT_SCALE, LOG_SCALE, MEAN_INTENSITY, PROBE
from tests.core.configurations import CONFIGURATIONS
from tests.networks import cnn
from tests.shared_data import SHARED, absent

BASELINE: dict[str, Any] = {
    "N": 128,
    "amp_activation": "swish",
    "batch_size": 32,
    "debug": True,
    "gaussian_smoothing_sigma": 0.5,
    "gridsize": 3,
    "intensity_scale.trainable": True,
    "mae_weight": 0.3,
    "model_path": "runs/model",
    "model_type": "pinn",
    "n_filters_scale": 2,
    "n_groups": 512,
    "n_subsample": 1024,
    "neighbor_count": 6,
    "nepochs": 100,
    "nll_weight": 0.7,
    "nphotons": 500000000.0,
    "object.big": False,
    "output_prefix": "runs/reconstruction",
    "pad_object": False,
    "positions.provided": False,
    "probe.big": False,
    "probe.mask": True,
    "probe.trainable": True,
    "probe_scale": 2.0,
    "realspace_mae_weight": 0.05,
    "realspace_weight": 0.1,
    "sequential_sampling": True,
    "subsample_seed": 99,
    "test_data_file_path": "scan/test.npz",
    "train_data_file_path": "scan/train.npz",
}
"""A dictionary of the published implementation: a training and then an inference configuration over one dictionary."""


def baseline_configs() -> tuple[TrainingConfig, InferenceConfig]:
    model = cnn(
        N=128,
        gridsize=3,
        amp_activation="swish",
        object_big=False,
        probe_big=False,
        probe_mask=True,
        pad_object=False,
        probe_scale=2.0,
        gaussian_smoothing_sigma=0.5,
    )
    training = TrainingConfig(
        model=model,
        train_data_file=Path("scan/train.npz"),
        test_data_file=Path("scan/test.npz"),
        output_dir=Path("runs/training"),
        batch_size=32,
        nepochs=100,
        nphotons=5e8,
        mae_weight=0.3,
        nll_weight=0.7,
        realspace_mae_weight=0.05,
        realspace_weight=0.1,
        neighbor_count=8,
        n_subsample=1024,
        subsample_seed=99,
        positions_provided=False,
        probe_trainable=True,
        sequential_sampling=True,
    )
    inference = InferenceConfig(
        model=model,
        model_path=Path("runs/model"),
        test_data_file=Path("scan/test.npz"),
        output_dir=Path("runs/reconstruction"),
        neighbor_count=6,
        debug=True,
    )
    return training, inference


def test_a_training_and_an_inference_configuration_give_the_published_dictionary() -> None:
    cfg: dict[str, Any] = {}
    for config in baseline_configs():
        update_legacy_dict(cfg, config)
    assert cfg == BASELINE
    assert {key: type(value) for key, value in cfg.items()} == {key: type(value) for key, value in BASELINE.items()}


def test_the_dictionary_above_is_the_published_one() -> None:
    path = SHARED.parent / "design" / "params_baseline.json"
    if not path.is_file():
        absent(path)
    assert json.loads(path.read_text()) == BASELINE


def test_the_published_fields_are_38_with_n_images() -> None:
    assert [len(names) for names in PUBLISHED.values()] == [11, 18, 8]
    for cls, names in PUBLISHED.items():
        assert set(names) <= set(fields_of(cls))
    assert set(RENAMED) <= {name for names in PUBLISHED.values() for name in names}


def test_unset_fields_leave_what_is_there() -> None:
    cfg = {"n_groups": 7, "model_path": "kept", "alien": object()}
    update_legacy_dict(cfg, InferenceConfig())
    assert (cfg["n_groups"], cfg["model_path"]) == (7, "kept")
    assert "N" not in cfg
    assert cfg["output_prefix"] == "inference_outputs"


def test_an_update_writes_published_keys_alone() -> None:
    cfg: dict[str, Any] = {}
    update_legacy_dict(cfg, TrainingConfig(learning_rate=0.5, model=cnn(cbam_encoder=True)))
    assert not {"learning_rate", "cbam_encoder"} & set(cfg)


def test_what_is_not_published_is_kept_where_it_is_not_at_its_default() -> None:
    flat = to_legacy_dict(TrainingConfig(learning_rate=0.5, model=cnn(cbam_encoder=True)))
    assert (flat["learning_rate"], flat["cbam_encoder"]) == (0.5, True)
    assert not {"scheduler", "backend", "seed"} & set(flat)


def test_nothing_of_an_execution_reaches_a_dictionary() -> None:
    every = {key for cls in PUBLISHED for key in fields_of(cls)}
    own = set(fields_of(ExecutionConfig))
    assert not own & every


@pytest.mark.parametrize("section", ["model", "training", "inference"])
@settings(max_examples=25)
@given(data=st.data())
def test_any_configuration_survives_its_dictionary(section: str, data: st.DataObject) -> None:
    config = data.draw(CONFIGURATIONS[section])
    flat = to_legacy_dict(config)
    assert from_legacy_dict(flat, type(config)) == config
    assert from_legacy_dict(json.loads(json.dumps(flat)), type(config)) == config
    assert not any(isinstance(value, Path) or value is None for value in flat.values())


def test_the_published_dictionary_gives_configurations() -> None:
    with pytest.raises(ConfigurationError, match=r"neighbor_count must be >= gridsize² - 1 = 8; got 6"):
        from_legacy_dict(BASELINE, TrainingConfig)  # what the inference configuration has written over it
    training = from_legacy_dict({**BASELINE, "neighbor_count": 8}, TrainingConfig)
    assert attrs.evolve(training, output_dir="runs/training") == baseline_configs()[0]
    inference = from_legacy_dict(BASELINE, InferenceConfig)
    assert (inference.model, inference.debug, inference.n_groups) == (training.model, True, 512)


def test_keys_that_are_no_field_are_listed(core_log: pytest.LogCaptureFixture) -> None:
    flat = {"N": 64, "offset": 4, "big_gridsize": 10, "intensity_scale": 3.0, "debug": False}
    assert from_legacy_dict(flat, TrainingConfig) == TrainingConfig(model=cnn())
    (record,) = core_log.records
    assert "no field is called big_gridsize, offset;" in record.getMessage()


def test_a_dictionary_without_an_architecture_is_of_the_published_one() -> None:
    config = from_legacy_dict({"N": 64}, TrainingConfig)
    assert (config.model.architecture, config.batch_size) == ("cnn", 16)
    assert "architecture" not in to_legacy_dict(config)
    assert to_legacy_dict(TrainingConfig())["architecture"] == "canvas"


def test_a_wrong_value_in_a_dictionary_names_its_field() -> None:
    with pytest.raises(ConfigurationError, match=r"flat dictionary: batch_size must be a positive"):
        from_legacy_dict({"batch_size": 3}, TrainingConfig)


def test_n_images_of_a_dictionary_is_n_groups() -> None:
    with pytest.warns(DeprecationWarning, match="n_images"):
        assert from_legacy_dict({"n_images": 5}, InferenceConfig).n_groups == 5


def weights_for(config: TrainingConfig) -> dict[str, np.ndarray[Any, Any]]:
    N = config.model.N
    scalars = dict.fromkeys((LOG_SCALE, INPUT_SCALE, MEAN_INTENSITY, COUNTS_PER_INTENSITY), np.ones((), np.float32))
    return {PROBE: np.ones((1, N, N, 2), np.float32), **scalars}


@settings(max_examples=25)
@given(data=st.data())
def test_any_configuration_survives_its_archive(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch_module: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    """The archive holds the configuration, not the network's table, so a table without layers does for all."""
    config = data.draw(CONFIGURATIONS["training"])
    config.model.N = 16
    engine = EngineInfo("fake", "no framework", "1.0", ("cpu",), ("32-true",))
    model = Model(config=config, weights=weights_for(config), history=[{"epoch": 1.0}], engine=engine, best_epoch=1)
    path = model.save(tmp_path_factory.getbasetemp() / "any.zip")
    loaded = load_model(path)
    assert loaded.config == config
    parameters = loaded.parameters()
    assert parameters["intensity_scale"] == 1
    assert from_legacy_dict({**parameters, "nphotons": config.nphotons}, TrainingConfig) == config


@pytest.fixture(scope="module")
def monkeypatch_module() -> Any:
    from ptycho_core.networks.table import Table

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ptycho_core.models.model.build_table", lambda model: Table((), "amplitude", "phase"))
        patch.setattr("ptycho_core.models.model.module_of", lambda model: None)
        yield patch
