"""Where every field gets its value from: flag, environment, file or default."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from ptycho_core.errors import ConfigurationError, PtychoError
from ptycho_core.registry import closest
from ptycho_core.settings.fields import fields_of, flag_of, from_mapping
from ptycho_core.settings.files import read_config
from ptycho_core.settings.sections import SECTIONS

log = logging.getLogger(__name__)
PREFIX = "PTYCHO_"
E = TypeVar("E", bound=PtychoError)
TEST_VARIABLES = ("PTYCHO_SHARED_DATA", "PTYCHO_REQUIRE_DATA", "PTYCHO_REQUIRE_BACKENDS")


def variable_of(field: str) -> str:
    """`batch_size` → `PTYCHO_BATCH_SIZE`."""
    return PREFIX + field.upper()


def set_by(context: click.Context | None, field: str) -> str:
    """Whether the environment or a flag gave the command this field, in words: `flag --batch-size`."""
    environment = context is not None and context.get_parameter_source(field) is ParameterSource.ENVIRONMENT
    return f"environment {variable_of(field)}" if environment else f"flag {flag_of(field)}"


class Layers:
    """Where every field of some sections gets its value from: a flag, the environment, a file, or its default.

    defaults: field → (value, the words for where it is from), between a file and the class's own default.
    """

    def __init__(
        self,
        path: Path | None,
        flags: Mapping[str, Any],
        *sections: str,
        defaults: Mapping[str, tuple[Any, str]] | None = None,
    ) -> None:
        tables = {} if path is None else read_config(path)
        self.file = None if path is None else str(path)
        self.values: dict[str, dict[str, Any]] = {}
        self.sources: dict[str, dict[str, str]] = {}
        context = click.get_current_context(silent=True)
        if context is not None:
            context.obj = self  # for the errors of the run that follows
        for section in sections:
            cls = SECTIONS[section]
            names = [*fields_of(cls), *getattr(cls, "DEPRECATED", ())]
            values: dict[str, Any] = {}
            sources = dict.fromkeys(fields_of(cls), "default")
            for name, (value, words) in (defaults or {}).items():
                if name in names:
                    values[name], sources[name] = value, words
            for name, value in tables.get(section, {}).items():
                values[name], sources[name] = value, "default" if value is None else f"file {path}"
            for name in names:
                if flags.get(name) is not None:
                    values[name] = flags[name]
                    sources[name] = set_by(context, name)
            self.values[section], self.sources[section] = values, sources

    def build(self) -> dict[str, Any]:
        """One configuration for each section. Raises ConfigurationError that says where a wrong value is from."""
        built: dict[str, Any] = {}
        for section, values in self.values.items():
            nested = {"model": built["model"]} if section == "training" and "model" in built else {}
            try:
                built[section] = from_mapping(SECTIONS[section], values, **nested)
            except ConfigurationError as error:
                raise self.placed(error, section) from error
        return built

    def placed(self, error: E, *sections: str) -> E:
        """The error behind the flag, variable or file that set the setting at fault; behind the file if none did.

        sections: where that may be a setting of; all of them if none is given.
        """
        place = self.place_of(error, *sections) or self.file
        return error if place is None else error.placed(place)

    def place_of(self, error: PtychoError, *sections: str) -> str | None:
        """What set the setting at fault; None where it has its default, or no setting is at fault."""
        names = sections or tuple(self.sources)
        own = [name for name in names if SECTIONS[name].__name__ == error.source] or names
        found = (self.sources[name].get(error.setting or "", "default") for name in own)
        return next((source.removeprefix("file ") for source in found if source != "default"), None)


def build_config(
    path: Path | None,
    flags: Mapping[str, Any],
    *sections: str,
    defaults: Mapping[str, tuple[Any, str]] | None = None,
) -> dict[str, Any]:
    """One configuration for each section: flag over environment over file over `defaults` over the class."""
    return Layers(path, flags, *sections, defaults=defaults).build()


def warn_of_unknown_variables(environment: Mapping[str, str] = os.environ) -> None:
    """Warn of a misspelt variable, which would change nothing and go unnoticed."""
    known = {variable_of(name) for cls in SECTIONS.values() for name in fields_of(cls)}
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known and name not in TEST_VARIABLES:
            near = closest(name, known)
            log.warning("environment: %s is not a setting%s", name, f"; did you mean {near}?" if near else ".")
