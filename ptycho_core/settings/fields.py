"""Fields of a configuration class: typed, limited and explained where they are defined (specs/configuration.md).

A class is made of `setting`s; what a field takes, what it needs beside it and how it is explained lie in its metadata,
from which the checks, the flags of the command line and the reference table are made.
"""

from __future__ import annotations

import functools
import math
import os
import types
import typing
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import attrs

from ptycho_core.errors import ConfigurationError, NoEffectError
from ptycho_core.registry import closest

A_VALUE, A_NUMBER = "a value", "a finite number "
Check = Callable[[Any], str | None]
"""Returns what is allowed, as one phrase, when a value is refused; otherwise None."""

T = TypeVar("T")


# -- what a value may be -------------------------------------------------------------------------------------------


@attrs.frozen
class Interval:
    """A check of numbers, and what it allows as data: from `minimum` to `maximum`; `above`, `below`: without that end.

    words: for messages; made from the minimum where it is the only limit.
    """

    minimum: float
    maximum: float | None = None
    above: bool = False
    below: bool = False
    words: str = ""

    def __call__(self, value: float) -> str | None:
        fits = value > self.minimum if self.above else value >= self.minimum
        if self.maximum is not None:
            fits = fits and (value < self.maximum if self.below else value <= self.maximum)
        finite = isinstance(value, int) or math.isfinite(value)  # an int may be too large for math.isfinite
        return None if fits and finite else self.phrase()

    def phrase(self, *, whole: bool = False) -> str:
        """What is allowed, of whole numbers or of any."""
        kind = "a whole number" if whole else "a finite number"
        return self.words or f"{kind} {'>' if self.above else '>='} {self.minimum:g}"


@attrs.frozen
class Choices:
    """A check that allows some values alone; `because` says why nothing else is."""

    values: tuple[object, ...]
    because: str = ""

    def __call__(self, value: object) -> str | None:
        if value in self.values:
            return None
        text = " or ".join(str(one).lower() if isinstance(one, bool) else str(one) for one in self.values)
        return f"{text}{self.because and f' ({self.because})'}"


@attrs.frozen
class OtherThan:
    """A check of a name that allows all but some; words: those of ours that it allows."""

    names: tuple[str, ...]
    words: str

    def __call__(self, value: object) -> str | None:
        return None if isinstance(value, str) and value not in self.names else self.words


def at_least(minimum: float, *, exclusive: bool = False) -> Interval:
    return Interval(minimum, above=exclusive)


fraction = Interval(0, 1, words="a number between 0 and 1")
below_one = Interval(0, 1, below=True, words="a number from 0 to below 1")


def power_of_two(value: int) -> str | None:
    return None if value > 0 and value & (value - 1) == 0 else "a positive power of two, such as 8, 16 or 32"


def only(*choices: object, because: str = "") -> Choices:
    """One of `choices`; `because` says why nothing else is."""
    return Choices(choices, because)


def given(value: object) -> str | None:
    return A_VALUE if value is None else None


# -- a default that depends ------------------------------------------------------------------------------------------


@attrs.frozen
class DefaultBy:
    """A default that depends on another setting: `values` beside some of its values, `otherwise` beside all others.

    other: the setting, "architecture" or, of a table within this one, "model.architecture".
    """

    other: str
    values: Mapping[str, Any]
    otherwise: Any

    def of(self, instance: Any) -> Any:
        """What it is in a configuration, whose other setting has its value already."""
        beside = instance
        for part in self.other.split("."):
            beside = getattr(beside, part, None)
        return self.values.get(beside, self.otherwise) if isinstance(beside, str) else self.otherwise

    @property
    def words(self) -> str:
        """`16; 1 with architecture = canvas`."""
        name = self.other.rpartition(".")[2]
        cases = [f"{value} with {name} = {beside}" for beside, value in self.values.items()]
        return "; ".join([str(self.otherwise), *cases])


def default_of(instance: Any, field: attrs.Attribute[Any]) -> Any:
    """The default of a field in this configuration."""
    by: DefaultBy | None = field.metadata.get("by")
    default: Any = field.default
    if by is not None:
        return by.of(instance)
    return default.factory() if isinstance(default, attrs.Factory) else default  # type: ignore[arg-type]


# -- a field -------------------------------------------------------------------------------------------------------


def setting(
    default: Any,
    help: str,
    check: Check | None = None,
    *,
    beside: Mapping[str, Check] | None = None,
    spellings: Mapping[str, str] | None = None,
    name: bool = False,
    place: bool = False,
    common: bool = False,
) -> Any:
    """A field with its explanation, its limits and other `spellings` of its values.

    beside: what other fields must be for it to have an effect. A field without effect must keep its default: it is
    refused otherwise, never ignored. name: the value names something registered, and is stored in small letters.
    place: the text may name a file, alone or as `FILE:DATASET`. common: one of the few that many people change, which
    are shown first. A `DefaultBy` is None as a default, which becomes what it is beside the other setting as soon as a
    configuration is made.
    """
    by, default = (default, None) if isinstance(default, DefaultBy) else (None, default)
    metadata: dict[str, Any] = {"help": help, "check": check, "beside": beside or {}, "spellings": spellings or {}}
    metadata |= {"name": name, "place": place, "common": common, "by": by}
    converter = attrs.Converter(_plain, takes_self=True, takes_field=True)
    return attrs.field(default=default, converter=converter, validator=check_value, metadata=metadata)


def _plain(value: Any, instance: Any, field: attrs.Attribute[Any]) -> Any:
    """A numpy scalar as the Python number that it holds, text as a path where the field is one, usual spellings.

    Choices and names are taken without regard to case.
    """
    if value is None and field.metadata["by"] is not None:
        return field.metadata["by"].of(instance)
    if type(value).__module__ == "numpy" and hasattr(value, "item"):
        value = value.item()
    kind = kind_of(hints_of(type(instance))[field.name])
    if kind is Path:
        return Path(value) if isinstance(value, (str, os.PathLike)) else value
    if isinstance(value, int) and not isinstance(value, bool) and typing.get_origin(kind) is Literal:
        value = str(value)  # 2 among the choices "auto", "1", "2"
    if isinstance(value, str):
        value = value.lower() if field.metadata["name"] and ":" not in value else value  # an import path keeps its case
        check = field.metadata["check"]
        choices = check.values if isinstance(check, Choices) else typing.get_args(kind)
        spellings = {**{str(choice): choice for choice in choices}, **field.metadata["spellings"]}
        folded = value.casefold()
        return next((meant for spelling, meant in spellings.items() if spelling.casefold() == folded), value)
    return value


def check_value(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    """Refuse a value of the wrong type or outside what the field's check allows: ConfigurationError."""
    annotation = hints_of(type(instance))[attribute.name]
    allowed = None if _has_type(value, annotation) else describe_type(annotation)
    check = attribute.metadata.get("check")
    if allowed is None and check is not None and value is not None:
        allowed = check(value)
        if allowed is not None and isinstance(check, Interval):
            allowed = check.phrase(whole=kind_of(annotation) is int)
    if allowed is not None:
        raise wrong_value(type(instance), attribute.name, value, allowed)


def wrong_value(cls: type[Any], name: str, value: object, allowed: str | None = None) -> ConfigurationError:
    """The error of a value that a field does not take. allowed: in words; by default what its type allows."""
    annotation = hints_of(cls)[name]
    allowed = allowed or describe_type(annotation)
    choices = typing.get_args(kind_of(annotation))
    near = closest(value, choices) if isinstance(value, str) else None
    remedy = f"Did you mean {near!r}?" if near else f"Set {name} to {'one of these' if choices else allowed}."
    return ConfigurationError(cls.__name__, name, expected=allowed, received=repr(value), remedy=remedy)


def check_effects(instance: Any) -> None:
    """Refuse a field that is set and has no effect beside the others as they are."""
    fields = fields_of(type(instance))
    for name, field in fields.items():
        value = getattr(instance, name)
        if value == default_of(instance, field):
            continue
        for other, check in field.metadata["beside"].items():
            beside = getattr(instance, other)
            if (allowed := check(beside)) is not None:
                raise NoEffectError(
                    type(instance).__name__,
                    name,
                    expected=condition(other, allowed),
                    received=f"{_state(name, value)} and {_state(other, beside)}",
                    remedy=f"Set {_setting_of(other, allowed)}, or leave {_default(name, field.default)}.",
                )


def condition(other: str, allowed: str) -> str:
    """What a field needs beside it: "optimizer = sgd", "gridsize >= 2" or "n_subsample is set"."""
    if allowed == A_VALUE:
        return f"{other} is set"
    return f"{other} {allowed.removeprefix(A_NUMBER)}" if allowed.startswith(A_NUMBER) else f"{other} = {allowed}"


def _setting_of(other: str, allowed: str) -> str:
    return other if allowed == A_VALUE else f"{other} to {allowed.replace('a finite number', 'a number')}"


def _state(name: str, value: object) -> str:
    return f"{name} is unset" if value is None else f"{name} = {_shown(value)}"


def _default(name: str, value: object) -> str:
    return f"{name} unset" if value is None else f"{name} at {_shown(value)}"


def _shown(value: object) -> str:
    return repr(value).lower() if isinstance(value, bool) else repr(value)


def hints_of(cls: type[Any]) -> Mapping[str, Any]:
    """The types of a class's fields."""
    return _hints(typing.cast(Hashable, cls))


_hints = functools.cache(typing.get_type_hints)


LONGEST_REPR = 200


def what_is_set(config: Any) -> str:
    """A short `repr`: the fields that differ from their default, as far as they fit into a line."""
    changed = []
    for field in attrs.fields(type(config)):
        value = getattr(config, field.name)
        if value != default_of(config, field):
            shown = repr(str(value)) if isinstance(value, Path) else repr(value)
            changed.append(f"{field.name}={shown}")
    words: list[str] = []
    for each in changed:
        if len(type(config).__name__) + sum(len(word) + 2 for word in (*words, each, "… 99 more")) < LONGEST_REPR:
            words.append(each)
    more = [f"… {len(changed) - len(words)} more"] if len(words) < len(changed) else []
    return f"{type(config).__name__}({', '.join([*words, *more])})"


def fields_of(cls: type[Any]) -> dict[str, attrs.Attribute[Any]]:
    """The settable fields of a configuration class; `model` is a table of its own."""
    return {field.name: field for field in attrs.fields(cls) if field.name != "model"}


def kind_of(annotation: Any) -> Any:
    """The type or Literal that an annotation allows, None left out."""
    if typing.get_origin(annotation) is Literal:
        return annotation
    return next((kind for kind in typing.get_args(annotation) if kind is not types.NoneType), annotation)


def _has_type(value: Any, annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return isinstance(value, str) and value in typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(_has_type(value, option) for option in typing.get_args(annotation))
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, annotation)


def describe_type(annotation: Any) -> str:
    """`int | None` → "a whole number or nothing", for messages and help."""
    if typing.get_origin(annotation) is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(annotation)))
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(describe_type(option) for option in typing.get_args(annotation))
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", types.NoneType: "nothing"}
    return {**names, Path: "a path"}.get(annotation, f"a {annotation.__name__}")


def takes_of(cls: type[Any], name: str, quote: str = "`") -> str:
    """What a field takes: its type in words with its limits, or its choices, each in quotes."""
    annotation, field = hints_of(cls)[name], fields_of(cls)[name]
    kind = kind_of(annotation)
    if typing.get_origin(kind) is Literal:
        choices = ", ".join(f"{quote}{choice}{quote}" for choice in typing.get_args(kind))
        return choices if kind is annotation else f"{choices} or nothing"
    takes = describe_type(annotation)
    if (check := field.metadata["check"]) is not None and (limits := check(-1)) is not None:
        takes += ", " + limits.removeprefix(A_NUMBER)
    return takes


def show_default(field: attrs.Attribute[Any]) -> str:
    """The default of a field as a person would write it in a configuration file, "unset" for None."""
    value = field.default
    if (by := field.metadata["by"]) is not None:
        return str(by.words)
    if value is None:
        return "unset"
    if isinstance(value, float) and float(brief := f"{value:g}".replace("e+0", "e")) == value >= 1e6:
        return brief  # 1e9, not 1000000000.0
    return str(value).lower() if isinstance(value, bool) else str(value)


def needs_of(field: attrs.Attribute[Any]) -> dict[str, str]:
    """What a field needs beside it to have an effect: other fields, and in words what they must be."""
    # Of 0 and None one is refused, with the words for what is not.
    return {other: str(check(0) or check(None)) for other, check in field.metadata["beside"].items()}


def flag_of(field: str) -> str:
    """`batch_size` → `--batch-size`, as the command line and messages name it."""
    return "--" + field.replace("_", "-")


# -- plain values --------------------------------------------------------------------------------------------------


def from_mapping(cls: type[T], values: Mapping[str, Any], *, source: str | None = None, **nested: Any) -> T:
    """An instance of `cls` from plain values; an unknown key is an error that names the closest known one."""
    known = [*fields_of(cls), *getattr(cls, "DEPRECATED", ())]
    try:
        for key in values:
            if key not in known:
                near = closest(key, known)
                remedy = f"Did you mean {near!r}?" if near else f"Its settings: {', '.join(sorted(fields_of(cls)))}."
                raise ConfigurationError(cls.__name__, key, received="no such setting", remedy=remedy)
        return cls(**values, **nested)
    except ConfigurationError as error:
        if source is None:
            raise
        raise error.placed(source) from error


def to_mapping(config: Any) -> dict[str, Any]:
    """The fields of one configuration as plain values, unset ones left out, `model` left to its own table."""
    values = {name: getattr(config, name) for name in fields_of(type(config))}
    return {
        name: str(value) if isinstance(value, Path) else value for name, value in values.items() if value is not None
    }
