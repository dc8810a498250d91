"""Configurations at a prompt: signatures with the types of the fields, and for `help` what each of them means."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

from ptycho_core.settings.fields import condition, fields_of, hints_of, needs_of, show_default, takes_of

C = TypeVar("C", bound="type[Any]")
F = TypeVar("F", bound=Callable[..., Any])


def explained(cls: C) -> C:
    """The class, with types in its signature and an explanation of every field: `help(TrainingConfig.nepochs)`.

    `help` takes the explanations of slots from the values of `__slots__`. What attrs knows of the types, it has from
    the converter, which takes anything.
    """
    annotations = inspect.unwrap(cls.__init__).__annotations__
    annotations.update({name: hint for name, hint in hints_of(cls).items() if name in annotations})
    fields = fields_of(cls)
    cls.__slots__ = {name: explanation(cls, name) if name in fields else None for name in cls.__slots__}
    return cls


def explanation(cls: type[Any], name: str) -> str:
    """Meaning, what the field takes, its default, and what it needs beside it."""
    field = fields_of(cls)[name]
    lines = [field.metadata["help"], f"Takes: {takes_of(cls, name, quote='')}.", f"Default: {show_default(field)}."]
    beside = [condition(other, allowed) for other, allowed in needs_of(field).items()]
    return "\n".join([*lines, *([f"Only with: {'; '.join(beside)}."] if beside else [])])


def takes_fields_of(cls: type[Any]) -> Callable[[F], F]:
    """A function whose keyword parameters `**settings` are the fields of a configuration: its signature lists them."""

    def listed(function: F) -> F:
        signature = inspect.signature(function)
        own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
        theirs = list(inspect.signature(cls).parameters.values())
        cast(Any, function).__signature__ = signature.replace(parameters=[*own, *theirs])
        return function

    return listed
