"""Every field says what it takes, refuses anything else by name, and is refused where it has no effect."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho_core.errors import ConfigurationError
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.fields import describe_type, fields_of, from_mapping, hints_of, to_mapping
from ptycho_core.settings.inference import InferenceConfig
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.sections import SECTIONS, existing_file
from ptycho_core.settings.training import TrainingConfig
from tests.core.configurations import ALL_FIELDS

# -- fields --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("section", "name"), ALL_FIELDS)
def test_a_value_of_the_wrong_type_is_refused_by_name(section: str, name: str) -> None:
    cls = SECTIONS[section]
    with pytest.raises(ConfigurationError) as caught:
        cls(**{name: ["a list"]})
    allowed = describe_type(hints_of(cls)[name])
    assert str(caught.value) == (
        f"{cls.__name__}.{name}: expected {allowed}; received ['a list']. Set {name} to {allowed}."
    )


@pytest.mark.parametrize(("section", "name"), ALL_FIELDS)
def test_every_field_is_explained(section: str, name: str) -> None:
    text = fields_of(SECTIONS[section])[name].metadata["help"]
    assert len(text) > 10
    assert text.endswith(".")


@pytest.mark.parametrize(
    ("cls", "name", "value", "message"),
    [
        (ModelConfig, "N", 8, "ModelConfig.N: expected a finite number >= 16; received 8. Set N to"),
        (ModelConfig, "N", 64.0, "ModelConfig.N: expected a whole number; received 64.0"),
        (ModelConfig, "N", True, "ModelConfig.N: expected a whole number; received True"),
        (ModelConfig, "gridsize", 0, "ModelConfig.gridsize: expected a finite number >= 1; received 0"),
        (ModelConfig, "n_filters_scale", -1, "ModelConfig.n_filters_scale: expected a finite number >= 1; received -1"),
        (ModelConfig, "object_big", 1, "ModelConfig.object_big: expected true or false; received 1"),
        (ModelConfig, "architecture", None, "ModelConfig.architecture: expected text; received None"),
        (ModelConfig, "gaussian_smoothing_sigma", -0.5, "ModelConfig.gaussian_smoothing_sigma: expected a finite"),
        (ModelConfig, "amplitude_ceiling", 0, "amplitude_ceiling: expected a finite number > 0; received 0"),
        (TrainingConfig, "batch_size", 12, "TrainingConfig.batch_size: expected a positive power of two"),
        (TrainingConfig, "nepochs", 0, "TrainingConfig.nepochs: expected a finite number >= 1; received 0"),
        (TrainingConfig, "nll_weight", 1.5, "nll_weight: expected a number between 0 and 1; received 1.5"),
        (TrainingConfig, "mae_weight", float("nan"), "TrainingConfig.mae_weight: expected a number between 0 and 1"),
        (TrainingConfig, "nphotons", 0, "TrainingConfig.nphotons: expected a finite number > 0; received 0"),
        (TrainingConfig, "nphotons", float("inf"), "nphotons: expected a finite number > 0; received inf"),
        (TrainingConfig, "learning_rate", "1e-3", "TrainingConfig.learning_rate: expected a number; received '1e-3'"),
        (TrainingConfig, "learning_rate", True, "TrainingConfig.learning_rate: expected a number; received True"),
        (TrainingConfig, "n_subsample", 0, "TrainingConfig.n_subsample: expected a finite number >= 1; received 0"),
        (TrainingConfig, "n_groups", None, "TrainingConfig.n_groups: expected a whole number; received None"),
        (InferenceConfig, "n_groups", 0, "InferenceConfig.n_groups: expected a finite number >= 1; received 0"),
        (ExecutionConfig, "inference_batch_size", 0, "ExecutionConfig.inference_batch_size: expected a finite number"),
    ],
)
def test_a_value_out_of_range_is_refused(cls: type[Any], name: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        cls(**{name: value})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("cls", "name", "value", "close"),
    [
        (ModelConfig, "model_type", "pin", "pinn"),
        (ModelConfig, "amp_activation", "softpus", "softplus"),
        (TrainingConfig, "scheduler", "Exponental", "Exponential"),
        (ExecutionConfig, "precision", "32true", "32-true"),
    ],
)
def test_a_misspelt_choice_names_the_closest(cls: type[Any], name: str, value: str, close: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        cls(**{name: value})
    message = str(caught.value)
    assert f"{cls.__name__}.{name}: expected one of" in message
    assert f"received {value!r}" in message
    assert f"Did you mean {close!r}?" in message


def test_a_choice_that_resembles_none_lists_them_all() -> None:
    with pytest.raises(ConfigurationError, match="one of 'pinn', 'supervised'; received 'x'"):
        ModelConfig(model_type="x")  # type: ignore[arg-type]


def test_assignment_is_checked_like_construction() -> None:
    config = ModelConfig()
    with pytest.raises(ConfigurationError, match=r"ModelConfig.gridsize: .* received 0"):
        config.gridsize = 0
    assert config.gridsize == 1


def test_a_whole_number_is_a_number() -> None:
    assert TrainingConfig(nphotons=1_000_000).nphotons == 1e6


def test_an_integer_too_large_for_a_float_is_judged_too() -> None:
    assert TrainingConfig(seed=10**400).seed == 10**400


def test_the_model_of_a_training_configuration_is_one() -> None:
    with pytest.raises((TypeError, ConfigurationError), match="ModelConfig"):
        TrainingConfig(model={"N": 64})  # type: ignore[arg-type]


# -- fields against each other -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "training", "named"),
    [
        ({}, {"nll_weight": 0, "mae_weight": 0}, ["nll_weight or mae_weight", "nll_weight = 0, mae_weight = 0"]),
        ({"gridsize": 3}, {}, ["neighbor_count >= gridsize² - 1 = 8", "received 4", "Set it to 8"]),
        ({"gridsize": 2}, {"neighbor_pool_size": 6}, ["neighbor_pool_size", "enable_oversampling"]),
        ({}, {"enable_oversampling": True}, ["enable_oversampling", "gridsize > 1", "gridsize = 1"]),
        (
            {"gridsize": 2},
            {"neighbor_pool_size": 3, "enable_oversampling": True},
            ["neighbor_pool_size >= gridsize² = 4", "received 3"],
        ),
        ({"model_type": "supervised"}, {"mae_weight": 0.5}, ["model_type = supervised", "mae_weight = 0.5"]),
        ({"model_type": "supervised"}, {"nll_weight": 0.5}, ["model_type = supervised", "nll_weight = 0.5"]),
        ({"model_type": "supervised"}, {"realspace_weight": 1}, ["model_type = supervised", "realspace_weight = 1"]),
        ({}, {"nepochs": 3, "lr_warmup_epochs": 3}, ["lr_warmup_epochs", "fewer than nepochs = 3", "received 3"]),
        ({"model_type": "supervised"}, {"probe_trainable": True}, ["no probe_trainable with model_type = supervised"]),
        (
            {"model_type": "supervised"},
            {"stage_1_epochs": 50},
            ["no stage epochs with model_type = supervised", "Leave it unset"],
        ),
        ({}, {"nepochs": 9, "stage_1_epochs": 2, "stage_3_epochs": 3}, ["add up to nepochs", "Set nepochs to 5."]),
        ({}, {"scheduler": "MultiStage"}, ["stage_1_epochs, stage_2_epochs or stage_3_epochs", "none of them"]),
        ({}, {"scheduler": "ReduceLROnPlateau", "nepochs": 2, "stage_1_epochs": 2}, ["scheduler", "MultiStage"]),
        (
            {},
            {"scheduler": "ReduceLROnPlateau", "learning_rate": 1e-5},
            ["plateau_min_lr", "below learning_rate = 1e-05"],
        ),
        ({"probe_scale": 2.0}, {"probe_gauge": "given"}, ["probe_scale", "probe_gauge = mean", "probe_scale = 2"]),
    ],
    ids=[
        "no-loss",
        "few-neighbours",
        "pool-alone",
        "nothing-to-oversample",
        "small-pool",
        "amplitude",
        "likelihood",
        "variation",
        "warm-up",
        "fixed-probe",
        "unstaged",
        "stages",
        "no-stages",
        "plateau-of-stages",
        "lowest-rate",
        "gauge",
    ],
)
def test_fields_that_contradict_each_other_are_named(
    model: dict[str, Any], training: dict[str, Any], named: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        TrainingConfig(model=ModelConfig(**model), **training)
    for part in named:
        assert part in str(caught.value)


def test_validate_sees_what_was_assigned_after_construction() -> None:
    config = TrainingConfig()
    config.model.gridsize = 3
    with pytest.raises(ConfigurationError, match="neighbor_count >= gridsize² - 1 = 8; received 4"):
        config.validate()


def test_numpy_scalars_are_taken_as_numbers() -> None:
    model = ModelConfig(N=np.int64(64), amplitude_ceiling=np.float64(1.5))  # type: ignore[arg-type]
    assert (type(model.N), type(model.amplitude_ceiling)) == (int, float)


# -- fields without effect -----------------------------------------------------------------------------------------


WITHOUT_EFFECT = [
    (cls, name, other)
    for cls in SECTIONS.values()
    for name, field in fields_of(cls).items()
    for other in field.metadata["beside"]
]


@pytest.mark.parametrize(("cls", "name", "other"), WITHOUT_EFFECT)
def test_a_field_that_would_have_no_effect_is_refused_with_what_it_needs(cls: type[Any], name: str, other: str) -> None:
    """Given a value that is not its default, while the field that it needs says otherwise."""
    fields = fields_of(cls)
    words = {"merge_weights": "uniform", "physics_weight_schedule": "linear", "gradient_clip_algorithm": "agc"}
    words |= {"position_order": "xy", "position_unit": "m"}
    value: Any = words.get(name)
    value = value or {int: 7, float: 0.25}[type(fields[name].default) if fields[name].default is not None else int]
    without = {"scheduler": "Default", "optimizer": "sgd", "model_type": "supervised", "amp_activation": "relu"}
    without |= {"object_big": False, "gridsize": 1}
    if name == "momentum":
        without["optimizer"] = "adam"
    needed = {"gridsize": 2} if name == "merge_weights" else {}
    settings = {**needed, name: value}
    if other in without:
        settings[other] = without[other]
    with pytest.raises(ConfigurationError) as caught:
        cls(**settings)
    message = str(caught.value)
    assert message.startswith(f"{cls.__name__}.{name}: expected {other} = ")
    assert f"received {name} = {value!r} and {other} = " in message
    assert f"or leave {name} at {fields[name].default!r}." in message


def test_there_are_fields_that_need_others() -> None:
    assert {name for _, name, _ in WITHOUT_EFFECT} >= {"lr_decay", "momentum", "merge_weights", "subsample_seed"}


def test_a_field_at_its_default_needs_nothing() -> None:
    assert TrainingConfig(scheduler="Default", lr_decay=0.95, momentum=0.9).momentum == 0.9


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("devices", 2, "1 (a run uses one device)"),
        ("num_nodes", 2, "1 (a run uses one machine)"),
        ("strategy", "ddp", "auto (a run uses one device)"),
        ("precision", "16-mixed", "Did you mean 'bf16-mixed'?"),
    ],
)
def test_what_no_engine_can_do_is_refused(name: str, value: Any, why: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ExecutionConfig(**{name: value})
    assert f"ExecutionConfig.{name}: expected" in str(caught.value)
    assert f"received {value!r}" in str(caught.value)
    assert why in str(caught.value)


# -- spellings and paths -------------------------------------------------------------------------------------------


def test_silu_is_swish() -> None:
    assert ModelConfig(amp_activation="silu").amp_activation == "swish"  # type: ignore[arg-type]


def test_text_is_taken_as_a_path() -> None:
    assert TrainingConfig(output_dir="runs/a").output_dir == Path("runs/a")  # type: ignore[arg-type]
    assert to_mapping(TrainingConfig(output_dir=Path("runs/a")))["output_dir"] == "runs/a"


@pytest.mark.parametrize("cls", [TrainingConfig, InferenceConfig])
def test_n_images_is_a_deprecated_spelling_of_n_groups(cls: type[Any]) -> None:
    with pytest.warns(DeprecationWarning, match=f"{cls.__name__}.n_images is a deprecated spelling of n_groups"):
        config = cls(n_images=7)
    assert config.n_groups == 7
    with pytest.warns(DeprecationWarning, match="n_images"):
        assert config.n_images == 7
    with pytest.warns(DeprecationWarning, match="n_images"):
        config.n_images = 9
    assert config.n_groups == 9
    with pytest.warns(DeprecationWarning, match="n_images"):
        assert from_mapping(cls, {"n_images": 3}).n_groups == 3


@pytest.mark.parametrize("cls", [TrainingConfig, InferenceConfig])
def test_an_explicit_n_groups_wins_over_n_images(cls: type[Any]) -> None:
    with pytest.warns(DeprecationWarning, match="n_images"):
        assert cls(n_images=7, n_groups=512).n_groups == 512


@pytest.mark.parametrize("cls", [TrainingConfig, InferenceConfig])
def test_no_n_images_is_no_warning(cls: type[Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cls(n_images=None) == cls()


def test_a_file_that_is_not_there_is_named_with_its_field(tmp_path: Path) -> None:
    config = TrainingConfig(train_data_file=tmp_path / "none.npz", test_data_file=tmp_path)
    with pytest.raises(
        ConfigurationError, match=r"TrainingConfig.train_data_file: expected an existing file; .*none.npz"
    ):
        existing_file(config, "train_data_file")
    assert existing_file(config, "test_data_file") == tmp_path
    assert existing_file(TrainingConfig(), "train_data_file") is None
