"""The settings of a run as data: enough for an application to draw a form (specs/configuration.md).

Made from the configuration classes, so that a form is never out of step with what a run takes.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from ptycho_core.settings.fields import (
    Choices,
    DefaultBy,
    Interval,
    fields_of,
    from_mapping,
    hints_of,
    kind_of,
    needs_of,
    power_of_two,
)
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.sections import SECTIONS
from ptycho_core.settings.training import TrainingConfig

SettingKind = Literal["boolean", "integer", "real", "choice", "text", "path"]
SETTING_KINDS: dict[Any, SettingKind] = {bool: "boolean", int: "integer", float: "real", str: "text", Path: "path"}


@attrs.frozen(kw_only=True)
class Setting:
    """One setting.

    section: the class that holds it, "model", "training", "inference", "execution" or "reading"; name: its field there.
    optional: None is a value, too, and means what `help` says of it as unset.
    minimum, maximum: of numbers, None where there is no limit; allowed themselves unless `above_minimum` or
        `below_maximum`.
    choices: the values that are taken, where these are few. powers_of_two: of whole numbers, nothing else is taken.
    help: one sentence or two. needs: other settings of the section, and in words what they must be for this one to
        have an effect; beside others it must keep its default.
    common: one of the few that many people change: to be shown first.
    """

    section: str
    name: str
    kind: SettingKind
    default: Any
    optional: bool = False
    minimum: float | None = None
    maximum: float | None = None
    above_minimum: bool = False
    below_maximum: bool = False
    choices: tuple[Any, ...] = ()
    powers_of_two: bool = False
    help: str
    needs: Mapping[str, str] = attrs.field(factory=dict)
    common: bool = False


def describe_settings(*sections: str) -> tuple[Setting, ...]:
    """Every setting of the sections, all of them unless some are named, in the order of the classes."""
    return tuple(
        _described(section, name, field)
        for section in sections or SECTIONS
        for name, field in fields_of(SECTIONS[section]).items()
    )


def make_config(section: str, values: Mapping[str, Any]) -> Any:
    """The configuration of a section from plain values by name; "training" takes those of "model", too.

    Settings left out have their defaults. Raises ConfigurationError naming the field, what it takes and a remedy.
    """
    if section != "training":
        return from_mapping(SECTIONS[section], values)
    network = fields_of(ModelConfig)
    model = from_mapping(ModelConfig, {name: value for name, value in values.items() if name in network})
    rest = {name: value for name, value in values.items() if name not in network}
    return from_mapping(TrainingConfig, rest, model=model)


def _described(section: str, name: str, field: attrs.Attribute[Any]) -> Setting:
    annotation = hints_of(SECTIONS[section])[name]
    kind = kind_of(annotation)
    literal = typing.get_origin(kind) is Literal
    facts: dict[str, Any] = {"choices": typing.get_args(kind)} if literal else {}
    check: Callable[..., Any] | None = field.metadata["check"]
    by: DefaultBy | None = field.metadata["by"]
    if isinstance(check, Interval):
        facts = {
            "minimum": check.minimum,
            "maximum": check.maximum,
            "above_minimum": check.above,
            "below_maximum": check.below,
        }
    elif isinstance(check, Choices):
        facts = {"choices": check.values}
    elif check is power_of_two:
        facts = {"minimum": 1, "powers_of_two": True}
    return Setting(
        section=section,
        name=name,
        kind="choice" if literal else SETTING_KINDS[kind],
        default=field.default,
        optional=by is not None or types.NoneType in typing.get_args(annotation),
        help=field.metadata["help"] + ("" if by is None else f" Unset: {by.words}."),
        needs=needs_of(field),
        common=field.metadata["common"],
        **facts,
    )
