"""Where every field gets its value from: flag, environment, file or default."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ptycho_core.errors import ConfigurationError
from ptycho_core.settings.fields import closest, fields_of, flag_of, from_mapping
from ptycho_core.settings.files import read_config
from ptycho_core.settings.sections import SECTIONS

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)
PREFIX = "PTYCHO_"
TEST_VARIABLES = ("PTYCHO_SHARED_DATA", "PTYCHO_REQUIRE_BACKENDS")


def variable_of(field: str) -> str:
    """`batch_size` → `PTYCHO_BATCH_SIZE`."""
    return PREFIX + field.upper()


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
        for section in sections:
            cls = SECTIONS[section]
            names = [*fields_of(cls), *getattr(cls, "DEPRECATED", ())]
            values: dict[str, Any] = {}
            sources = dict.fromkeys(fields_of(cls), "default")
            for name, (value, words) in (defaults or {}).items():
                if name in names:
                    values[name], sources[name] = value, words
            for name, value in tables.get(section, {}).items():
                values[name], sources[name] = value, f"file {path}"
            for name in names:
                if flags.get(name) is not None:
                    source = context.get_parameter_source(name) if context else ParameterSource.COMMANDLINE
                    environment = source is ParameterSource.ENVIRONMENT
                    values[name] = flags[name]
                    sources[name] = f"environment {variable_of(name)}" if environment else f"flag {flag_of(name)}"
            self.values[section], self.sources[section] = values, sources

    def build(self) -> dict[str, Any]:
        """One configuration for each section. Raises ConfigurationError that says where a wrong value is from."""
        built: dict[str, Any] = {}
        for section, values in self.values.items():
            nested = {"model": built["model"]} if section == "training" and "model" in built else {}
            try:
                built[section] = from_mapping(SECTIONS[section], values, **nested)
            except ConfigurationError as error:
                raise ConfigurationError(self.placed(section, str(error))) from error
        return built

    def placed(self, section: str, message: str) -> str:
        """The message, after the file, flag or variable that the field at fault was set by."""
        match = re.match(r"(?:\w+(?:Config|Options)\.|configuration: )(\w+)", message)
        source = self.sources[section].get(match[1], "default") if match else "default"
        message = message.removeprefix("configuration: ")
        if source == "default":
            return message if self.file is None else f"{self.file}: {message}"
        return f"{source.removeprefix('file ')}: {message}"


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
