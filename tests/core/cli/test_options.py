"""Flags, environment and files fill the same fields, in one order of precedence."""

from __future__ import annotations

import re
import tomllib
import typing
from pathlib import Path
from typing import Any, Literal

import click
import pytest

from ptycho_core.cli import cli
from ptycho_core.cli.shared import SectionedCommand
from ptycho_core.errors import ConfigurationError
from ptycho_core.settings.fields import fields_of, flag_of, hints_of, kind_of, show_default
from ptycho_core.settings.model import NO_CANVAS
from ptycho_core.settings.sections import SECTIONS
from ptycho_core.settings.sources import Layers, build_config, variable_of, warn_of_unknown_variables
from tests.core.configurations import ALL_FIELDS

# -- flags ---------------------------------------------------------------------------------------------------------

FLAGGED = [
    *(("train", section, name) for section, name in ALL_FIELDS if section not in ("inference", "solving", "prior")),
    *(("reconstruct", *each) for each in ALL_FIELDS if each[0] in ("inference", "execution", "reading")),
]
FLAGGED.remove(("train", "execution", "inference_batch_size"))  # nothing is inferred there
ARGUMENTS = {"train": ["scan.npz", "--out", "out"], "reconstruct": ["scan.npz", "--model", "m", "--out", "out"]}
SECTIONS_OF = {
    "train": ("model", "training", "execution", "reading"),
    "reconstruct": ("inference", "execution", "reading"),
}
CNN, FNO = (["--architecture", name] for name in ("cnn", "fno"))
BESIDE: dict[str, list[str]] = {
    **dict.fromkeys(NO_CANVAS, CNN),
    "model_type": [],
    **dict.fromkeys(("spectral_modes", "spectral_blocks"), FNO),
    "gridsize": [*CNN, "--neighbor-count", "63"],
    "merge_weights": [*CNN, "--gridsize", "2"],
    "enable_oversampling": ["--group-size", "4"],
    "neighbor_pool_size": ["--enable-oversampling"],
    "subsample_seed": ["--n-subsample", "9"],
    "stage_1_epochs": ["--nepochs", "8"],
    "stage_2_epochs": ["--nepochs", "8"],
    "stage_3_epochs": ["--nepochs", "8"],
    "physics_weight_schedule": ["--nepochs", "8", "--stage-2-epochs", "8"],
    "stage_3_lr_factor": ["--nepochs", "8", "--stage-2-epochs", "8", "--scheduler", "MultiStage"],
    "scheduler": ["--learning-rate", "0.5"],
    "momentum": ["--optimizer", "sgd"],
    "position_order": ["--positions", "places.npy"],
    "position_unit": ["--positions", "places.npy"],
    "scan_shape": ["--scan-step", "1"],
    "scan_rotation": ["--scan-step", "1"],
    "centre_row": ["--centre-column", "32"],
    "centre_column": ["--centre-row", "32"],
    "checkpoint_mode": ["--checkpoint-monitor-metric", "total"],
    "lr_decay": ["--scheduler", "Exponential"],
    "gradient_clip_algorithm": ["--gradient-clip-val", "1"],
    **{
        name: ["--scheduler", "ReduceLROnPlateau", "--learning-rate", "0.5"]
        for name in ("plateau_factor", "plateau_patience", "plateau_threshold", "plateau_min_lr")
    },
}
"""What a field needs beside it, as flags."""
IN_TRAINING = {"neighbor_pool_size": ["--group-size", "4"]}


def flags_given(command: str, *arguments: str) -> dict[str, Any]:
    """What the command would be called with."""
    return context_of(command, *arguments).params


def context_of(command: str, *arguments: str) -> click.Context:
    with click.Context(cli, info_name="ptycho", **cli.context_settings) as parent:
        return cli.commands[command].make_context(command, [*ARGUMENTS[command], *arguments], parent=parent)


def another_value(section: str, name: str) -> Any:
    """A valid value of a field that is not its default, or the default where there is no other."""
    field = fields_of(SECTIONS[section])[name]
    kind = kind_of(hints_of(SECTIONS[section])[name])
    if typing.get_origin(kind) is Literal:
        return next(choice for choice in reversed(typing.get_args(kind)) if choice != field.default)
    if kind is bool:
        return not field.default
    words = ["another", "0:9", "1", "1,2", "2,0,0,1", "nan", "smooth=0.1"]
    candidates = {int: [8, 32], float: [0.25, 3.5], str: words, Path: [Path("another")]}[kind]
    check = field.metadata["check"]
    takes = [value for value in candidates if value != field.default and (check is None or check(value) is None)]
    return takes[0] if takes else field.default


def setting(section: str, name: str, command: str) -> tuple[Any, list[str], list[str]]:
    """A value for a field, the flags that set it, and those that it needs beside it."""
    value = "ReduceLROnPlateau" if name == "scheduler" else another_value(section, name)
    flag = flag_of(name) if value is not False else f"--no-{flag_of(name)[2:]}"
    beside = BESIDE.get(name, []) if command == "train" or name not in ("enable_oversampling", "gridsize") else []
    beside = [*beside, *(IN_TRAINING.get(name, []) if command == "train" else [])]
    return value, [flag] if isinstance(value, bool) else [flag, str(value)], beside


@pytest.mark.parametrize(("command", "section", "name"), FLAGGED)
def test_a_flag_sets_its_field(command: str, section: str, name: str) -> None:
    value, flags, beside = setting(section, name, command)
    config = build_config(None, flags_given(command, *flags, *beside), *SECTIONS_OF[command])[section]
    assert getattr(config, name) == value


@pytest.mark.parametrize(("command", "section", "name"), FLAGGED)
def test_a_variable_sets_its_field(monkeypatch: pytest.MonkeyPatch, command: str, section: str, name: str) -> None:
    value, _, beside = setting(section, name, command)
    monkeypatch.setenv(variable_of(name), str(value))
    arguments = [a for a in ARGUMENTS[command] if a not in ("--out", "out")] if name == "output_dir" else None
    monkeypatch.setitem(ARGUMENTS, command, arguments or ARGUMENTS[command])
    if name == "model_path":
        monkeypatch.setitem(ARGUMENTS, command, ["scan.npz"])
    config = build_config(None, flags_given(command, *beside), *SECTIONS_OF[command])[section]
    assert getattr(config, name) == value


def test_the_deprecated_spelling_has_a_flag() -> None:
    with pytest.warns(DeprecationWarning, match="n_images"):
        config = build_config(None, flags_given("train", "--n-images", "5"), "model", "training")["training"]
    assert config.n_groups == 5


def flags_in(text: str) -> list[str]:
    """The flags that a help explains, the first spelling of each."""
    return re.findall(r"^  (?:-\w, )?(--[\w-]+)", text, re.MULTILINE)


@pytest.mark.parametrize("command", ["train", "reconstruct"])
def test_the_whole_help_shows_every_flag_with_its_default(ptycho: Any, command: str) -> None:
    text = ptycho(command, "--help-all").out
    for name, section, field in FLAGGED:
        if name == command:
            option = re.split(rf"\n  {flag_of(field)}\b(?!-)", text)[1].partition("\n  --")[0]
            assert f"default: {show_default(fields_of(SECTIONS[section])[field])}]" in " ".join(option.split()), field


def test_help_of_train_shows_the_twenty_settings_that_people_change(ptycho: Any) -> None:
    text = ptycho("train", "--help").out
    shown, own = (
        flags_in(text),
        ["config", "resume", "from", "show-config", "overwrite", "events", "serve", "quiet", "json"],
    )
    own += ["import", "help", "help-all"]
    common = [
        flag_of(name)
        for section in SECTIONS_OF["train"]
        for name, field in fields_of(SECTIONS[section]).items()
        if field.metadata["common"] and name != "inference_batch_size"
    ]
    assert shown == [*(f"--{name}" for name in own), *common]
    assert len(common) == 20
    whole = flags_in(ptycho("train", "--help-all").out)
    assert set(shown) < set(whole)
    assert f"Show all {len(whole) - len(own)} settings and exit." in " ".join(text.split())


@pytest.mark.parametrize("command", ["inspect", "convert", "split"])
def test_help_of_other_commands_shows_the_scan_input_that_people_change(ptycho: Any, command: str) -> None:
    shown = ptycho(command, "--help").out.partition("Scan input:")[2]
    assert flags_in(shown) == ["--measurement", "--positions", "--probe", "--energy-eV", "--crop"]
    whole = ptycho(command, "--help-all").out.partition("Scan input:")[2]
    assert flags_in(whole) == [flag_of(name) for name in fields_of(SECTIONS["reading"])]


def test_the_list_of_commands_cuts_no_sentence_short(ptycho: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    commands = ptycho("--help").out.partition("Commands:\n")[2].splitlines()
    assert len(commands) == len(cli.commands)
    assert all(line.endswith(".") and not line.endswith("...") for line in commands)


@pytest.mark.parametrize("help", ["--help", "--help-all"])
@pytest.mark.parametrize("command", sorted(cli.commands))
def test_help_fits_80_columns(ptycho: Any, monkeypatch: pytest.MonkeyPatch, command: str, help: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = ptycho(command, help)
    if done.code == 0:  # a command of few options has no second help
        assert max(map(len, done.out.splitlines())) <= 80
    assert (done.code == 0) == (help == "--help" or isinstance(cli.commands[command], SectionedCommand))


@pytest.mark.parametrize(
    ("file", "arguments", "batch_size"),
    [(False, [], 1), (True, [], 8), (True, ["--batch-size", "32"], 32), (False, ["--batch-size", "32"], 32)],
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
    assert config.nepochs == (7 if file else 20)


def test_a_false_flag_wins_over_a_true_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[model]\nprobe_mask = true\n")
    config = build_config(path, flags_given("train", "--no-probe-mask"), "model", "training")["training"]
    assert config.model.probe_mask is False


def test_a_misspelt_key_in_the_file_names_file_and_key(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[model]\ngridsze = 2\n")
    with pytest.raises(ConfigurationError, match=r"run.toml: gridsze: no such setting. Did you mean 'gridsize'\?"):
        build_config(path, {}, "model", "training")


def test_a_value_that_a_file_gets_wrong_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[training]\nbatch_size = 17\n")
    with pytest.raises(ConfigurationError, match=r"run\.toml: batch_size must be a positive power"):
        build_config(path, {}, "model", "training")


# -- precedence ----------------------------------------------------------------------------------------------------


def layers(tmp_path: Path, *arguments: str, file: str = "") -> Layers:
    path = tmp_path / "run.toml"
    path.write_text(file)
    context = context_of("train", *arguments)
    with context:
        return Layers(path, context.params, "model", "training", defaults={"N": (32, "scan")})


def test_flag_over_environment_over_file_over_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SEED": "1", "NEPOCHS": "2"}.items():
        monkeypatch.setenv(f"PTYCHO_{name}", value)
    found = layers(tmp_path, "--seed", "3", file="[training]\nseed = 4\nnepochs = 5\nn_groups = 6\n")
    config = found.build()["training"]
    assert (config.seed, config.nepochs, config.n_groups, config.batch_size, config.model.N) == (3, 2, 6, 1, 32)
    sources = {**found.sources["model"], **found.sources["training"]}
    assert {name: sources[name] for name in ("seed", "nepochs", "n_groups", "batch_size", "N")} == {
        "seed": "flag --seed",
        "nepochs": "environment PTYCHO_NEPOCHS",
        "n_groups": f"file {tmp_path / 'run.toml'}",
        "batch_size": "default",
        "N": "scan",
    }


@pytest.mark.parametrize(
    ("arguments", "variable", "file", "begins"),
    [
        (
            ["--nll-weight", "2"],
            "",
            "[training]\nnepochs = 3\n",
            "flag --nll-weight: nll_weight must be",
        ),
        ([], "2", "[training]\nnepochs = 3\n", "environment PTYCHO_NLL_WEIGHT: nll_weight must be"),
        ([], "", "[training]\nnll_weight = 2\n", "{file}: nll_weight must be"),
        ([], "", "[training]\nnll_wieght = 1\n", "{file}: nll_wieght: no such setting."),
    ],
    ids=["flag", "environment", "file", "misspelt"],
)
def test_a_wrong_value_names_where_it_is_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], variable: str, file: str, begins: str
) -> None:
    if variable:
        monkeypatch.setenv("PTYCHO_NLL_WEIGHT", variable)
    with pytest.raises(ConfigurationError) as caught:
        layers(tmp_path, *arguments, file=file).build()
    assert str(caught.value).startswith(begins.format(file=tmp_path / "run.toml"))


def test_a_misspelt_variable_is_warned_of_with_the_closest(core_log: pytest.LogCaptureFixture) -> None:
    warn_of_unknown_variables({"PTYCHO_BACH_SIZE": "8", "PTYCHO_SEED": "1", "PTYCHO_SHARED_DATA": "x", "PATH": "y"})
    (record,) = core_log.records
    assert record.getMessage() == "environment: PTYCHO_BACH_SIZE is not a setting; did you mean PTYCHO_BATCH_SIZE?"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--lr", 3), "No such option '--lr'. It is an option of ptycho train, ptycho train-prior."),
        (("solve", "x", "--nepochs", 3), "It is an option of ptycho train."),
        (("--versoin",), "Did you mean '--version'?"),
    ],
)
def test_an_option_in_the_wrong_place_is_said_to_be_where_it_belongs(ptycho: Any, arguments: Any, told: str) -> None:
    outcome = ptycho(*arguments)
    assert outcome.code == 2
    assert outcome.err.rstrip().endswith(told)


def test_scan_and_its_own_flag_are_not_both_given(ptycho: Any, tmp_path: Path) -> None:
    done = ptycho("train", tmp_path / "a.npz", "--train-data-file", tmp_path / "b.npz", "--out", tmp_path)
    assert done.code == 2
    assert "SCAN and --train-data-file both name the scan; give one" in done.err


def test_show_config_prints_every_field_with_its_source(ptycho: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTYCHO_SEED", "7")
    done = ptycho("train", "--show-config", "--nepochs", "3")
    assert done.code == 0, done.err
    assert "seed = 7  # environment PTYCHO_SEED\n" in done.out
    assert "nepochs = 3  # flag --nepochs\n" in done.out
    assert "probe_scale = 4.0  # default\n" in done.out
    assert "batch_size = 1  # default: 16; 1 with architecture = canvas\n" in done.out
    shown = tomllib.loads(done.out)
    for section in ("model", "training", "execution", "reading"):
        set_fields = {name for name, field in fields_of(SECTIONS[section]).items() if show_default(field) != "unset"}
        assert set(shown[section]) == set_fields
