"""Every field says what it takes, refuses anything else by name, and can be set from a file and by a flag."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any, Literal

import attrs
import click
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho_core.cli import build_config, cli, flag_of
from ptycho_core.config import (
    SECTIONS,
    ExecutionConfig,
    InferenceConfig,
    ModelConfig,
    TrainingConfig,
)
from ptycho_core.configfiles import read_config, to_toml
from ptycho_core.errors import ConfigurationError
from ptycho_core.fields import describe_type, fields_of, from_mapping, to_mapping

ALL_FIELDS = [(section, name) for section, cls in SECTIONS.items() for name in fields_of(cls)]


def options_of(annotation: Any) -> list[Any]:
    """The types that an annotation allows, None left out."""
    if typing.get_origin(annotation) is Literal:
        return [annotation]
    return [option for option in typing.get_args(annotation) if option is not type(None)] or [annotation]


def valid_values(cls: type[Any], name: str) -> st.SearchStrategy[Any]:
    """Values that a field takes by itself, made from its type and its check."""
    field, annotation = fields_of(cls)[name], typing.get_type_hints(cls)[name]
    (kind,) = options_of(annotation)

    def takes(value: Any) -> bool:
        return field.metadata["check"] is None or field.metadata["check"](value) is None

    if typing.get_origin(kind) is Literal:
        values: st.SearchStrategy[Any] = st.sampled_from(typing.get_args(kind))
    elif kind is bool:
        values = st.booleans()
    elif kind is str:
        values = st.text(st.characters(codec="utf-8"))
    elif kind is int:
        least = next(value for value in range(17) if takes(value))
        powers = st.integers(0, 40).map(lambda exponent: 2**exponent)
        values = st.integers(least, 2**40) if takes(17) else powers
    else:
        values = (st.floats(0, 1e300) | st.integers(0, 10**12) if takes(2) else st.floats(0, 1)).filter(takes)
    return values if kind is annotation else st.none() | values


def plain(section: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({name: valid_values(SECTIONS[section], name) for name in fields_of(SECTIONS[section])})


@st.composite
def model_configs(draw: st.DrawFn) -> ModelConfig:
    return ModelConfig(**{**draw(plain("model")), "gridsize": draw(st.integers(1, 5))})


@st.composite
def training_configs(draw: st.DrawFn) -> TrainingConfig:
    """Any valid one: fields drawn each by itself, then mended where they contradict each other."""
    model, values = draw(model_configs()), draw(plain("training"))
    if model.model_type == "supervised":
        values |= dict.fromkeys(("mae_weight", "realspace_weight", "realspace_mae_weight"), 0.0)
        values["nll_weight"] = draw(st.sampled_from([0.0, 1.0]))
    elif values["nll_weight"] + values["mae_weight"] == 0:
        values["nll_weight"] = 1.0
    values["neighbor_count"] = max(values["neighbor_count"], model.channels)
    if values["neighbor_pool_size"] is not None:
        values |= {"neighbor_pool_size": max(values["neighbor_pool_size"], model.channels), "enable_oversampling": True}
    values["lr_warmup_epochs"] = min(values["lr_warmup_epochs"], values["nepochs"] - 1)
    return TrainingConfig(model=model, **values)


# -- fields --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("section", "name"), ALL_FIELDS)
def test_a_value_of_the_wrong_type_is_refused_by_name(section: str, name: str) -> None:
    cls = SECTIONS[section]
    with pytest.raises(ConfigurationError) as caught:
        cls(**{name: ["a list"]})
    allowed = describe_type(typing.get_type_hints(cls)[name])
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
        (
            {"gridsize": 2},
            {"neighbor_pool_size": 3, "enable_oversampling": True},
            ["neighbor_pool_size >= gridsize² = 4", "received 3"],
        ),
        ({"model_type": "supervised"}, {"mae_weight": 0.5}, ["model_type = supervised", "mae_weight = 0.5"]),
        ({"model_type": "supervised"}, {"nll_weight": 0.5}, ["model_type = supervised", "nll_weight = 0.5"]),
        ({"model_type": "supervised"}, {"realspace_weight": 1}, ["model_type = supervised", "realspace_weight = 1"]),
        ({}, {"nepochs": 3, "lr_warmup_epochs": 3}, ["lr_warmup_epochs", "fewer than nepochs = 3", "received 3"]),
    ],
    ids=["no-loss", "few-neighbours", "pool-alone", "small-pool", "amplitude", "likelihood", "variation", "warm-up"],
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


# -- mappings and files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "key", "remedy"),
    [
        (TrainingConfig, "bach_size", "Did you mean 'batch_size'?"),
        (TrainingConfig, "n_group", "Did you mean 'n_groups'?"),
        (ModelConfig, "grid_size", "Did you mean 'gridsize'?"),
        (ExecutionConfig, "zzz", "Known fields: accelerator, inference_batch_size, precision."),
    ],
)
def test_an_unknown_key_names_the_closest(cls: type[Any], key: str, remedy: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        from_mapping(cls, {key: 1}, source="run.toml")
    expected = f"run.toml: {key}: expected a field of {cls.__name__}; received an unknown one. {remedy}"
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[trainig]\nnepochs = 3", r"run.toml: trainig: .*Did you mean \[training\]\?"),
        ("nepochs = 3", "run.toml: nepochs: expected the tables .*Put each field under its table's heading."),
        ("model = 3", r"run.toml: model: expected the tables"),
        ("[model\nN = 3", "run.toml: expected readable TOML; received"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        read_config(path)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"], ids=["missing", "not-utf8"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "run.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"run\.toml: expected readable TOML; received"):
        read_config(path)


@settings(max_examples=20, deadline=None)
@given(config=training_configs())
def test_a_training_configuration_survives_its_file(tmp_path_factory: pytest.TempPathFactory, config: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "training.toml"
    path.write_bytes(to_toml(model=config.model, training=config).encode())
    tables = read_config(path)
    twin = from_mapping(TrainingConfig, tables["training"], model=from_mapping(ModelConfig, tables["model"]))
    assert twin == config
    assert attrs.asdict(twin) == attrs.asdict(config)


@pytest.mark.parametrize("section", ["inference", "execution"])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_other_configurations_survive_their_file(
    tmp_path_factory: pytest.TempPathFactory, section: str, data: st.DataObject
) -> None:
    config = SECTIONS[section](**data.draw(plain(section)))
    path = tmp_path_factory.getbasetemp() / "other.toml"
    path.write_bytes(to_toml(**{section: config}).encode())
    assert from_mapping(SECTIONS[section], read_config(path)[section]) == config


def test_unset_fields_are_left_out_of_the_file() -> None:
    assert "n_subsample" not in to_mapping(TrainingConfig())
    assert to_mapping(TrainingConfig(n_subsample=5))["n_subsample"] == 5


# -- flags ---------------------------------------------------------------------------------------------------------

FLAGGED = [
    *(("train", section, name) for section, name in ALL_FIELDS if section != "inference"),
    *(("reconstruct", section, name) for section, name in ALL_FIELDS if section in ("inference", "execution")),
]
FLAGGED.remove(("train", "execution", "inference_batch_size"))  # nothing is inferred there
ARGUMENTS = {"train": ["scan.npz", "--out", "out"], "reconstruct": ["scan.npz", "--model", "m", "--out", "out"]}
SECTIONS_OF = {"train": ("model", "training", "execution"), "reconstruct": ("inference", "execution")}
BESIDE = {"neighbor_pool_size": ["--enable-oversampling"], "gridsize": ["--neighbor-count", "63"]}


def flags_given(command: str, *arguments: str) -> dict[str, Any]:
    """What the command would be called with."""
    with click.Context(cli, info_name="ptycho", **cli.context_settings) as parent:
        context = cli.commands[command].make_context(command, [*ARGUMENTS[command], *arguments], parent=parent)
    return context.params


def another_value(section: str, name: str) -> Any:
    """A valid value of a field that is not its default."""
    field, annotation = fields_of(SECTIONS[section])[name], typing.get_type_hints(SECTIONS[section])[name]
    (kind,) = options_of(annotation)
    if typing.get_origin(kind) is Literal:
        return typing.get_args(kind)[-1] if typing.get_args(kind)[-1] != field.default else typing.get_args(kind)[0]
    if kind is bool:
        return not field.default
    candidates = {int: [8, 32], float: [0.25, 3.5], str: ["another"]}[kind]
    check = field.metadata["check"]
    return next(v for v in candidates if v != field.default and (check is None or check(v) is None))


@pytest.mark.parametrize(("command", "section", "name"), FLAGGED)
def test_a_flag_sets_its_field(command: str, section: str, name: str) -> None:
    value = another_value(section, name)
    flag = flag_of(name) if value is not False else f"--no-{flag_of(name)[2:]}"
    arguments = [flag] if isinstance(value, bool) else [flag, str(value)]
    flags = flags_given(command, *arguments, *BESIDE.get(name, []))
    config = build_config(None, flags, *SECTIONS_OF[command])[section]
    assert getattr(config, name) == value


@pytest.mark.parametrize("command", ["train", "reconstruct"])
def test_help_shows_every_flag_with_its_default(command: str) -> None:
    parent = click.Context(cli, info_name="ptycho", **{**cli.context_settings, "max_content_width": 200})
    subcommand = cli.commands[command]
    text = subcommand.get_help(click.Context(subcommand, info_name=command, parent=parent, terminal_width=200))
    for name, section, field in FLAGGED:
        if name == command:
            default = fields_of(SECTIONS[section])[field].default
            shown = "unset" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
            option = text[text.index(f"  {flag_of(field)}") :].partition("\n  --")[0]
            assert f"[default: {shown}]" in " ".join(option.split()), field


@pytest.mark.parametrize(
    ("file", "arguments", "batch_size"),
    [(False, [], 16), (True, [], 8), (True, ["--batch-size", "32"], 32), (False, ["--batch-size", "32"], 32)],
    ids=["default", "file", "flag-over-file", "flag-over-default"],
)
def test_a_flag_wins_over_the_file_and_the_file_over_the_default(
    tmp_path: Path, file: bool, arguments: list[str], batch_size: int
) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[training]\nbatch_size = 8\nnepochs = 7\n")
    flags = flags_given("train", *arguments)
    config = build_config(path if file else None, flags, "model", "training")["training"]
    assert config.batch_size == batch_size
    assert config.nepochs == (7 if file else 50)


def test_a_false_flag_wins_over_a_true_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[model]\nprobe_mask = true\n")
    config = build_config(path, flags_given("train", "--no-probe-mask"), "model", "training")["training"]
    assert config.model.probe_mask is False


def test_a_misspelt_key_in_the_file_names_file_and_key(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[model]\ngridsze = 2\n")
    with pytest.raises(ConfigurationError, match=r"run.toml: gridsze: .*Did you mean 'gridsize'\?"):
        build_config(path, {}, "model", "training")


def test_a_value_that_a_file_gets_wrong_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[training]\nbatch_size = 17\n")
    with pytest.raises(ConfigurationError, match=r"run\.toml: TrainingConfig\.batch_size: expected a positive power"):
        build_config(path, {}, "model", "training")


def test_numpy_scalars_are_taken_as_numbers() -> None:
    model = ModelConfig(N=np.int64(64), amplitude_ceiling=np.float64(1.5))  # type: ignore[arg-type]
    assert (type(model.N), type(model.amplitude_ceiling)) == (int, float)
