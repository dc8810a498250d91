"""Flags, environment and files that fill configurations (specs/configuration.md, Command line)."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs
import click

from ptycho_core.errors import ArchiveError, ConfigurationError
from ptycho_core.settings.fields import (
    fields_of,
    flag_of,
    hints_of,
    kind_of,
    show_default,
    to_mapping,
    wrong_value,
)
from ptycho_core.settings.sections import SECTIONS
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.settings.sources import Layers, set_by, variable_of
from ptycho_core.settings.training import TrainingConfig

if TYPE_CHECKING:
    from ptycho_core.models.checkpoint import Checkpoint
    from ptycho_core.solving.checkpoint import SolveCheckpoint

Command = Callable[..., Any]
FILE = click.Path(path_type=Path)
ALIASES = {"learning_rate": "--lr", "output_dir": "--out", "model_path": "--model", "test_data_file": "--test"}
"""Short spellings of the flags that are used most."""
LONG_CHOICE = 40
"""Letters of choices that would not fit beside their flag."""


def config_options(*sections: str, leave_out: tuple[str, ...] = ()) -> Callable[[Command], Command]:
    """One flag for every field of the sections' classes; the command is given those that were set, by field name."""

    def decorate(command: Command) -> Command:
        for section in reversed(sections):
            cls = SECTIONS[section]
            for name in getattr(cls, "DEPRECATED", ()):
                command = click.option(flag_of(name), name, type=int, hidden=True, default=None)(command)
            for name, field in reversed(fields_of(cls).items()):
                if name not in leave_out:
                    command = _option(section, name, hints_of(cls)[name], field)(command)
        return command

    return decorate


class SettingOption(click.Option):
    """The flag of a field. section: its table; common: whether `--help` shows it, and not `--help-all` alone."""

    def __init__(self, *arguments: Any, section: str, common: bool, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.section, self.common = section, common

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """The value; where it is none, a ConfigurationError that names the flag or the variable that it is from."""
        try:
            return super().type_cast_value(ctx, value)
        except click.BadParameter as error:
            assert self.name is not None
            raise wrong_value(SECTIONS[self.section], self.name, value).placed(set_by(ctx, self.name)) from error


def _option(section: str, name: str, annotation: Any, field: attrs.Attribute[Any]) -> Callable[[Command], Command]:
    default = f"default: {show_default(field)}"
    help = f"{field.metadata['help']}  [{default}]"
    settings: dict[str, Any] = {"default": None, "help": help, "envvar": variable_of(name)}
    settings |= {"cls": SettingOption, "section": section, "common": field.metadata["common"]}
    flags = [flag_of(name), *([ALIASES[name]] if name in ALIASES else [])]
    kind = kind_of(annotation)
    if kind is bool:
        return click.option(f"{flags[0]}/--no-{flags[0][2:]}", name, **settings)
    if typing.get_origin(kind) is Literal:
        choices = [*typing.get_args(kind), *field.metadata["spellings"]]
        if sum(map(len, choices)) > LONG_CHOICE:
            settings |= {"metavar": "CHOICE", "help": f"{field.metadata['help']}  [{', '.join(choices)}; {default}]"}
        return click.option(*flags, name, type=click.Choice(choices, case_sensitive=False), **settings)
    return click.option(*flags, name, type=FILE if kind is Path else kind, **settings)


def environment_values(*sections: str) -> dict[str, Any]:
    """Fields of the sections that the environment sets, as the command line reads them.

    `PTYCHO_BATCH_SIZE=8` → {"batch_size": 8}. Raises ConfigurationError naming the variable.
    """

    @click.command("environment")
    @config_options(*sections)
    def command(**_: Any) -> None:
        pass

    with command.make_context("environment", []) as context:
        return {name: value for name, value in context.params.items() if value is not None}


def resumed_layers(path: Path | None, flags: Mapping[str, Any], *sections: str) -> tuple[Layers, Checkpoint]:
    """The settings of the training in the output folder, beneath what flags, environment and file set; its checkpoint.

    Raises ArchiveError where there is no complete checkpoint, ConfigurationError naming the source of a contradiction.
    """
    from ptycho_core.models.checkpoint import CHECKPOINT_NAME, load_checkpoint  # with numpy: other commands do without
    from ptycho_core.training.resuming import check_section_continues

    file = _checkpoint_file(Layers(path, flags, *sections).values["training"], TrainingConfig(), CHECKPOINT_NAME)
    checkpoint = load_checkpoint(file)
    begun = (checkpoint.config.model, checkpoint.config, checkpoint.execution, checkpoint.reading)
    stated = Layers(path, flags, *sections).values["training"]
    own: dict[str, Any] = {}
    if checkpoint.config.is_scheduled and stated.get("nepochs", checkpoint.config.nepochs) != checkpoint.config.nepochs:
        own = {"schedule_epochs": checkpoint.config.schedule_span}
    layers = _beneath(file, begun, path, flags, *sections, **own)
    for section, config in layers.build().items():
        try:
            check_section_continues(checkpoint, section, config)
        except ConfigurationError as error:
            raise layers.placed(error, section) from error
    return layers, checkpoint


def solve_resumed(path: Path | None, flags: Mapping[str, Any], *sections: str) -> tuple[Layers, SolveCheckpoint]:
    """`resumed_layers` for a solve."""
    from ptycho_core.solving.checkpoint import SOLVING_NAME, check_continues, load_solve_checkpoint

    file = _checkpoint_file(Layers(path, flags, *sections).values["solving"], SolveConfig(), SOLVING_NAME)
    checkpoint = load_solve_checkpoint(file)
    layers = _beneath(file, (checkpoint.config, checkpoint.execution, checkpoint.reading), path, flags, *sections)
    configs = layers.build()
    try:
        check_continues(checkpoint, configs["solving"], configs["execution"])
    except ConfigurationError as error:
        raise layers.placed(error) from error
    return layers, checkpoint


def _checkpoint_file(stated: Mapping[str, Any], usual: Any, name: str) -> Path:
    """The checkpoint in the output folder that is stated, or in the usual one; ArchiveError where there is none."""
    folder = Path(stated.get("output_dir") or usual.output_dir)
    file = folder / name
    if not file.exists():
        remedy = "Give the folder of a run as --out, or start one without --resume."
        received = "no such file" if folder.is_dir() else "no such folder"
        raise ArchiveError(file, expected="the checkpoint of a run", received=received, remedy=remedy)
    return file


def _beneath(
    file: Path, begun: Iterable[Any], path: Path | None, flags: Mapping[str, Any], *sections: str, **own: Any
) -> Layers:
    """The settings of the checkpoint in `file`, and `own`, beneath what flags, environment and file set."""
    stored = {name: (value, f"file {file}") for table in begun for name, value in to_mapping(table).items()}
    stored |= {name: (value, f"file {file}") for name, value in own.items()}
    return Layers(path, flags, *sections, defaults={**stored, "output_dir": (file.parent, f"file {file}")})
