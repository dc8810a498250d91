"""Configurations survive their files, and a file that is none is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho_core.errors import ConfigurationError
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.fields import fields_of, from_mapping, to_mapping
from ptycho_core.settings.files import annotated_toml, read_config, read_configs, write_config
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.sections import SECTIONS
from ptycho_core.settings.training import TrainingConfig
from tests.core.configurations import CONFIGURATIONS
from tests.core.refusals import refusal_of
from tests.networks import cnn

# -- mappings and files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "key", "remedy"),
    [
        (TrainingConfig, "bach_size", "Did you mean 'batch_size'?"),
        (TrainingConfig, "n_group", "Did you mean 'n_groups'?"),
        (ModelConfig, "grid_size", "Did you mean 'gridsize'?"),
        (ExecutionConfig, "zzz", "Its settings: accelerator, checkpoint_mode, checkpoint_monitor_metric, "),
    ],
)
def test_an_unknown_key_names_the_closest(cls: type[Any], key: str, remedy: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        from_mapping(cls, {key: 1}, source="run.toml")
    assert caught.value.source == cls.__name__
    assert str(caught.value).startswith(f"run.toml: {key}: no such setting. {remedy}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[trainig]\nnepochs = 3", r"run.toml: \[trainig\]: no such table\. Did you mean \[training\]\?"),
        ("nepochs = 3", "run.toml: nepochs: not in a table. Put each setting under its table's heading: "),
        ("model = 3", r"run.toml: model: not in a table"),
        ("[model\nN = 3", "run.toml: expected readable TOML; received"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        read_config(path)


@pytest.mark.parametrize("ending", ["toml", "yaml"])
def test_a_file_that_is_not_there_is_refused(tmp_path: Path, ending: str) -> None:
    error = refusal_of(lambda: read_config(tmp_path / f"run.{ending}"), ConfigurationError, received="no such file")
    assert str(error) == f"{tmp_path / 'run'}.{ending}: no such file. Check the path."


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    refusal_of(lambda: read_config(tmp_path), ConfigurationError, expected="a TOML file", received="a folder")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match=r"run\.toml: expected UTF-8 text; received"):
        read_config(path)


@pytest.mark.parametrize("ending", ["toml", "yaml"])
@pytest.mark.parametrize("section", SECTIONS)
@settings(max_examples=15)
@given(data=st.data())
def test_any_configuration_survives_its_file(
    tmp_path_factory: pytest.TempPathFactory, section: str, ending: str, data: st.DataObject
) -> None:
    config = data.draw(CONFIGURATIONS[section])
    path = tmp_path_factory.getbasetemp() / f"any.{ending}"
    model = {} if getattr(config, "model", None) is None else {"model": config.model}
    write_config(path, **{**model, section: config})
    assert read_configs(path)[section] == config


def test_unset_fields_are_left_out_of_the_file() -> None:
    assert "n_subsample" not in to_mapping(TrainingConfig())
    assert to_mapping(TrainingConfig(n_subsample=5))["n_subsample"] == 5


YAML_TEXT = """\
model: {architecture: cnn, gridsize: 2, probe_mask: yes}
training:
  learning_rate: 1e-4
  nphotons: 1E9
  n_groups: 0o20
  output_dir: 2024-01-01
"""


def test_yaml_takes_numbers_as_people_write_them(tmp_path: Path) -> None:
    path = tmp_path / "run.yml"
    path.write_text(YAML_TEXT.replace("0o20", "16"))
    training = read_configs(path)["training"]
    assert (training.learning_rate, training.nphotons, training.n_groups) == (1e-4, 1e9, 16)
    assert training.output_dir == Path("2024-01-01")
    assert training.model == cnn(gridsize=2, probe_mask=True)


@pytest.mark.parametrize(
    "text", ["\x85", "a\u2028b", "\ufeff", "a\r\nb ", " ", "é ü", "\U0001f600", "'\"", "#", "null"]
)
def test_any_text_survives_yaml(tmp_path: Path, text: str) -> None:
    write_config(tmp_path / "run.yaml", training=TrainingConfig(backend=text))
    assert read_configs(tmp_path / "run.yaml")["training"].backend == text


def test_text_that_looks_like_a_number_stays_text(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    write_config(path, training=TrainingConfig(backend="1e5", output_dir=Path("2024-01-01")))
    training = read_configs(path)["training"]
    assert (training.backend, training.output_dir) == ("1e5", Path("2024-01-01"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: {nepochs: 3\n", r"run.yaml: expected readable YAML; received .*line 2"),
        (
            "training: {nepochs: 3, nepochs: 4}",
            r"expected readable YAML; received the key 'nepochs', which occurs twice \(at line 1, column 24\)",
        ),
        ("- 3", r"run.yaml: expected tables; received list"),
        ("training:\n\tnepochs: 1", r"run.yaml: .* Indent with spaces in place of tabs\."),
        ("trainig: {}", r"run.yaml: \[trainig\]: .*Did you mean \[training\]\?"),
        ("training: !!python/object/apply:os.system ['true']", r"expected readable YAML; received .*python/object"),
        ("training: {? [1]: 2}", r"run.yaml: expected readable YAML"),
        ("3: {}", r"run.yaml: \[3\]: no such table\. Put each setting"),
    ],
)
def test_yaml_that_is_no_configuration_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        read_configs(path)


def test_an_empty_file_sets_nothing(tmp_path: Path) -> None:
    for name in ("run.yaml", "run.toml"):
        (tmp_path / name).write_text("")
        assert read_configs(tmp_path / name) == {}


def test_a_wrong_value_in_a_file_names_file_and_field(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("training: {batch_size: 3}")
    with pytest.raises(ConfigurationError, match=r"run\.yaml: batch_size must be a positive power"):
        read_configs(path)


def test_an_annotated_file_says_where_each_value_is_from_and_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    config = ExecutionConfig(num_workers=3)
    sources = {"execution": {name: f"source of {name}" for name in fields_of(ExecutionConfig)}}
    path.write_text(annotated_toml(sources, execution=config))
    assert "num_workers = 3  # source of num_workers\n" in path.read_text()
    assert read_configs(path)["execution"] == config


def test_an_annotated_file_lists_unset_fields_as_comments() -> None:
    sources = {"training": dict.fromkeys(fields_of(TrainingConfig), "default")}
    assert "# n_subsample is unset  # default\n" in annotated_toml(sources, training=TrainingConfig())
