"""Every field says what it takes, refuses anything else by name, and is refused where it has no effect."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho_core.errors import ConfigurationError, NoEffectError, PtychoError
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.fields import describe_type, fields_of, from_mapping, hints_of, show_default, to_mapping
from ptycho_core.settings.inference import InferenceConfig
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.settings.sections import SECTIONS, existing_file
from ptycho_core.settings.training import TrainingConfig
from tests.core.configurations import ALL_FIELDS
from tests.core.refusals import refusal_of, says
from tests.networks import cnn

# -- refusals ------------------------------------------------------------------------------------------------------

Facts = dict[str, str | None]
OUT_OF_RANGE: list[tuple[type[Any], str, Any, str]] = [
    (ModelConfig, "N", 8, "a whole number >= 16"),
    (ModelConfig, "N", 64.0, "a whole number"),
    (ModelConfig, "N", True, "a whole number"),
    (ModelConfig, "gridsize", 0, "a whole number >= 1"),
    (ModelConfig, "n_filters_scale", -1, "a whole number >= 1"),
    (ModelConfig, "object_big", 1, "true or false"),
    (ModelConfig, "architecture", None, "text"),
    (ModelConfig, "gaussian_smoothing_sigma", -0.5, "a finite number >= 0"),
    (ModelConfig, "amplitude_ceiling", 0, "a finite number > 0"),
    (TrainingConfig, "batch_size", 12, "a positive power of two, such as 8, 16 or 32"),
    (TrainingConfig, "nepochs", 0, "a whole number >= 1"),
    (TrainingConfig, "nll_weight", 1.5, "a number between 0 and 1"),
    (TrainingConfig, "mae_weight", float("nan"), "a number between 0 and 1"),
    (TrainingConfig, "nphotons", 0, "a finite number > 0"),
    (TrainingConfig, "nphotons", float("inf"), "a finite number > 0"),
    (TrainingConfig, "learning_rate", "1e-3", "a number"),
    (TrainingConfig, "learning_rate", True, "a number"),
    (TrainingConfig, "n_subsample", 0, "a whole number >= 1"),
    (TrainingConfig, "n_groups", "many", "a whole number"),
    (InferenceConfig, "n_groups", 0, "a whole number >= 1"),
    (ExecutionConfig, "inference_batch_size", 0, "a whole number >= 1"),
    (ExecutionConfig, "devices", 0, "a whole number >= 1"),
    (ExecutionConfig, "num_nodes", 0, "a whole number >= 1"),
    (ExecutionConfig, "strategy", "ddp", "one of 'auto', 'slurm'"),
]
"""Configuration, field, value, and what is expected."""
MISSPELT: list[tuple[type[Any], str, str, str]] = [
    (ModelConfig, "model_type", "pin", "pinn"),
    (ModelConfig, "amp_activation", "softpus", "softplus"),
    (TrainingConfig, "scheduler", "Exponental", "Exponential"),
    (TrainingConfig, "scheduler", "EXPONENTAL", "Exponential"),
    (ExecutionConfig, "precision", "32true", "32-true"),
    (ExecutionConfig, "precision", "16-mixed", "bf16-mixed"),
]
"""Configuration, field, value, and the closest choice."""
CNN, SUPERVISED = {"architecture": "cnn"}, {"model_type": "supervised"}
CONTRADICTIONS: dict[str, tuple[dict[str, Any], dict[str, Any], type[PtychoError], Facts]] = {
    "no-loss": (
        {},
        {"nll_weight": 0, "mae_weight": 0},
        ConfigurationError,
        {"expected": "a positive nll_weight or mae_weight", "received": "nll_weight = 0, mae_weight = 0"},
    ),
    "few-neighbours": (
        {**CNN, "gridsize": 3},
        {},
        ConfigurationError,
        {"key": "neighbor_count", "expected": ">= gridsize² - 1 = 8", "received": "4"},
    ),
    "pool-alone": (
        {**CNN, "gridsize": 2},
        {"neighbor_pool_size": 6},
        NoEffectError,
        {"key": "neighbor_pool_size", "expected": "enable_oversampling = true"},
    ),
    "nothing-to-oversample": (
        CNN,
        {"enable_oversampling": True},
        NoEffectError,
        {"key": "enable_oversampling", "received": "gridsize = 1"},
    ),
    "small-pool": (
        {**CNN, "gridsize": 2},
        {"neighbor_pool_size": 3, "enable_oversampling": True},
        ConfigurationError,
        {"key": "neighbor_pool_size", "expected": ">= gridsize² = 4 for oversampling", "received": "3"},
    ),
    "amplitude": (
        SUPERVISED,
        {"mae_weight": 0.5},
        ConfigurationError,
        {"received": "nll_weight = 1, mae_weight = 0.5, realspace_weight = 0, realspace_mae_weight = 0"},
    ),
    "likelihood": (
        SUPERVISED,
        {"nll_weight": 0.5},
        ConfigurationError,
        {"expected": "no weights of the diffraction losses with model_type = supervised"},
    ),
    "variation": (
        SUPERVISED,
        {"realspace_weight": 1},
        ConfigurationError,
        {"received": "nll_weight = 1, mae_weight = 0, realspace_weight = 1, realspace_mae_weight = 0"},
    ),
    "warm-up": (
        {},
        {"nepochs": 3, "lr_warmup_epochs": 3},
        ConfigurationError,
        {"key": "lr_warmup_epochs", "expected": "fewer than nepochs = 3", "received": "3"},
    ),
    "fixed-probe": (
        SUPERVISED,
        {"probe_trainable": True},
        ConfigurationError,
        {"expected": "no probe_trainable with model_type = supervised"},
    ),
    "unstaged": (
        SUPERVISED,
        {"stage_1_epochs": 50},
        ConfigurationError,
        {"expected": "no stage epochs with model_type = supervised", "received": "stage epochs set"},
    ),
    "stages": (
        {},
        {"nepochs": 9, "stage_1_epochs": 2, "stage_3_epochs": 3},
        ConfigurationError,
        {"expected": "stages that add up to nepochs", "remedy": "Set nepochs to 5."},
    ),
    "no-stages": (
        {},
        {"scheduler": "MultiStage"},
        ConfigurationError,
        {
            "expected": "stage_1_epochs, stage_2_epochs or stage_3_epochs with scheduler = MultiStage",
            "received": "none of them",
        },
    ),
    "plateau-of-stages": (
        {},
        {"scheduler": "ReduceLROnPlateau", "nepochs": 2, "stage_1_epochs": 2},
        ConfigurationError,
        {"key": "scheduler", "received": "ReduceLROnPlateau", "remedy": "Set scheduler to MultiStage."},
    ),
    "lowest-rate": (
        {},
        {"scheduler": "ReduceLROnPlateau", "learning_rate": 1e-5},
        ConfigurationError,
        {"key": "plateau_min_lr", "expected": "below learning_rate = 1e-05"},
    ),
    "gauge": (
        {"probe_scale": 2.0},
        {"probe_gauge": "given"},
        NoEffectError,
        {"source": "ModelConfig", "key": "probe_scale", "expected": "probe_gauge = mean"},
    ),
}
"""Of a model and of a training configuration: what is set, the error, and its facts."""


def facts(cls: type[Any], name: str, value: object, expected: str) -> Facts:
    asked = "one of these" if expected.startswith("one of") else expected
    received, remedy = repr(value), f"Set {name} to {asked}."
    return {"source": cls.__name__, "key": name, "expected": expected, "received": received, "remedy": remedy}


def training(model: dict[str, Any], settings: dict[str, Any]) -> TrainingConfig:
    return TrainingConfig(model=ModelConfig(**model), **settings)


REFUSALS: dict[str, tuple[Callable[[], Any], type[PtychoError], Facts, str]] = {
    **{
        f"a list as {section}.{name}": (
            partial(cls, **{name: ["a list"]}),
            ConfigurationError,
            facts(cls, name, ["a list"], allowed),
            f"{cls.__name__}: {name} must be {allowed}; got ['a list']. Set {name} to …",
        )
        for section, name in ALL_FIELDS
        for cls, allowed in [(SECTIONS[section], describe_type(hints_of(SECTIONS[section])[name]))]
    },
    **{
        f"{cls.__name__}.{name} = {value!r}": (
            partial(cls, **{name: value}),
            ConfigurationError,
            facts(cls, name, value, expected),
            f"…{name} must be {expected}; got {value!r}. …",
        )
        for cls, name, value, expected in OUT_OF_RANGE
    },
    **{
        f"{cls.__name__}.{name} = {value!r}, misspelt": (
            partial(cls, **{name: value}),
            ConfigurationError,
            {"received": repr(value), "remedy": f"Did you mean {close!r}?"},
            f"{cls.__name__}: {name} must be one of …",
        )
        for cls, name, value, close in MISSPELT
    },
    "a choice that resembles none": (
        partial(ModelConfig, model_type="x"),
        ConfigurationError,
        {"expected": "one of 'pinn', 'supervised'", "received": "'x'"},
        "…",
    ),
    **{
        name: (partial(training, model, settings), error, fields, "…")
        for name, (model, settings, error, fields) in CONTRADICTIONS.items()
    },
}
"""What is configured, the error, its facts, and its words; `…` stands for any."""


@pytest.mark.parametrize(("configure", "error", "fields", "words"), REFUSALS.values(), ids=REFUSALS)
def test_what_is_no_configuration_is_refused(
    configure: Callable[[], Any], error: type[PtychoError], fields: Facts, words: str
) -> None:
    says(str(refusal_of(configure, error, **fields)), words)


# -- fields --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("section", "name"), ALL_FIELDS)
def test_every_field_is_explained(section: str, name: str) -> None:
    text = fields_of(SECTIONS[section])[name].metadata["help"]
    assert len(text) > 10
    assert text.endswith(".")


def test_assignment_is_checked_like_construction() -> None:
    config = ModelConfig()
    refusal_of(lambda: setattr(config, "gridsize", 0), ConfigurationError, key="gridsize", received="0")
    assert config.gridsize == 1


def test_a_whole_number_is_a_number() -> None:
    assert TrainingConfig(nphotons=1_000_000).nphotons == 1e6


def test_an_integer_too_large_for_a_float_is_judged_too() -> None:
    assert TrainingConfig(seed=10**400).seed == 10**400


def test_the_model_of_a_training_configuration_is_one() -> None:
    with pytest.raises((TypeError, ConfigurationError), match="ModelConfig"):
        TrainingConfig(model={"N": 64})  # type: ignore[arg-type]


# -- fields against each other -------------------------------------------------------------------------------------


def test_validate_sees_what_was_assigned_after_construction() -> None:
    config = TrainingConfig(model=cnn())
    config.model.gridsize = 3
    refusal_of(config.validate, ConfigurationError, key="neighbor_count", expected=">= gridsize² - 1 = 8", received="4")


def test_numpy_scalars_are_taken_as_numbers() -> None:
    model = ModelConfig(N=np.int64(64), probe_scale=np.float64(1.5))  # type: ignore[arg-type]
    assert (type(model.N), type(model.probe_scale)) == (int, float)


# -- defaults that depend ------------------------------------------------------------------------------------------


def by_architecture(config: TrainingConfig) -> tuple[str, int, int, int]:
    return config.model.architecture, config.batch_size, config.n_groups, config.nepochs


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({}, ("canvas", 1, 64, 20)),
        ({"architecture": "CANVAS"}, ("canvas", 1, 64, 20)),
        (CNN, ("cnn", 16, 512, 50)),
        (SUPERVISED, ("canvas", 1, 64, 20)),
        ({"architecture": "published_torch"}, ("published_torch", 16, 512, 50)),
    ],
)
def test_a_default_may_be_by_the_architecture(model: dict[str, Any], expected: tuple[str, int, int, int]) -> None:
    config = training(model, {})
    assert by_architecture(config) == expected
    assert training(model, {"batch_size": 4, "nepochs": None}).nepochs == expected[-1]
    assert repr(training(model, {"batch_size": 4})).endswith("batch_size=4)")


def test_a_default_by_the_architecture_is_settled_with_the_configuration() -> None:
    config = TrainingConfig()
    config.model = cnn()
    assert by_architecture(config) == ("cnn", 1, 64, 20)
    config.batch_size = None  # type: ignore[assignment]
    assert config.batch_size == 16


def test_what_cnn_alone_reads_is_refused_with_the_way_to_have_it() -> None:
    error = refusal_of(lambda: ModelConfig(gridsize=2), NoEffectError, key="gridsize", received="architecture = canvas")
    assert str(error).endswith(
        "Set architecture to cnn (--architecture cnn), or leave gridsize at 1 and set group_size."
    )
    assert (cnn(gridsize=2).channels, ModelConfig(group_size=4).channels) == (4, 4)


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
    words["checkpoint_mode"] = "max"
    words |= {"position_order": "xy", "position_unit": "m", "probe_defocus": "auto", "scan_shape": "2,3"}
    value: Any = words.get(name)
    value = value or {int: 7, float: 0.25}[type(fields[name].default) if fields[name].default is not None else int]
    without = {"scheduler": "Default", "optimizer": "sgd", "model_type": "supervised", "amp_activation": "relu"}
    without |= {"object_big": False, "gridsize": 1, "refine": "none", "prior": "none", "first_probe": "auto"}
    without["from_scans"] = True
    without["architecture"] = "cnn"
    if name == "momentum":
        without["optimizer"] = "adam"
    needed = {"gridsize": 2} if name == "merge_weights" else {}
    settings = {**needed, name: value}
    if other in without:
        settings[other] = without[other]
    error = refusal_of(lambda: cls(**settings), NoEffectError, source=cls.__name__, key=name)
    assert re.match(rf"{cls.__name__}: {name} has no effect unless {other} (= \w+|>= \d|is set)", str(error))
    assert re.search(rf"got {name} = {re.escape(repr(value))} and {other} (= |is unset)", str(error))
    default = fields[name].default
    assert str(error).endswith(f"or leave {name} unset." if default is None else f"or leave {name} at {default!r}.")


def test_there_are_fields_that_need_others() -> None:
    assert {name for _, name, _ in WITHOUT_EFFECT} >= {"lr_decay", "momentum", "merge_weights", "subsample_seed"}


def test_a_field_at_its_default_needs_nothing() -> None:
    assert TrainingConfig(scheduler="Default", lr_decay=0.95, momentum=0.9).momentum == 0.9


# -- spellings and paths -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "name", "given", "meant"),
    [
        (cnn, "amp_activation", "SiLU", "swish"),
        (ModelConfig, "model_type", "PINN", "pinn"),
        (ModelConfig, "architecture", "CNN", "cnn"),
        (TrainingConfig, "backend", "Torch", "torch"),
        (TrainingConfig, "optimizer", "SGD", "sgd"),
        (TrainingConfig, "scheduler", "exponential", "Exponential"),
        (TrainingConfig, "scheduler", "REDUCELRONPLATEAU", "ReduceLROnPlateau"),
        (InferenceConfig, "backend", "TENSORFLOW", "tensorflow"),
        (ExecutionConfig, "logger", "MLflow", "mlflow"),
        (ExecutionConfig, "strategy", "Auto", "auto"),
        (ReadOptions, "reader", "NPZ", "npz"),
        (ReadOptions, "dc", "Corner", "corner"),
    ],
)
def test_choices_and_names_are_taken_without_regard_to_case(cls: Any, name: str, given: str, meant: str) -> None:
    config = cls(**{name: given})
    assert getattr(config, name) == meant


def test_text_that_names_nothing_keeps_its_case() -> None:
    assert ReadOptions(dataset="Entry/Data").dataset == "Entry/Data"


def test_silu_is_swish() -> None:
    assert cnn(amp_activation="silu").amp_activation == "swish"


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
    refusal_of(
        lambda: existing_file(config, "train_data_file"),
        ConfigurationError,
        source="TrainingConfig",
        key="train_data_file",
        expected="an existing file",
        received=str(tmp_path / "none.npz"),
    )
    assert existing_file(config, "test_data_file") == tmp_path
    assert existing_file(TrainingConfig(), "train_data_file") is None


def test_a_default_is_shown_as_a_person_would_write_it() -> None:
    shown = {
        (section, name): show_default(field)
        for section in SECTIONS
        for name, field in fields_of(SECTIONS[section]).items()
    }
    assert (shown["training", "nphotons"], shown["training", "learning_rate"]) == ("1e9", "0.001")
    for (section, name), text in shown.items():
        default = fields_of(SECTIONS[section])[name].default
        if isinstance(default, float):
            assert float(text) == default, name
