"""What a settings file says of groups that are added after Ptychodus has read it.

Ptychodus passes over a group that it does not know yet and forgets the file. From `remember` on a registry knows the
files that it has opened.
"""

from __future__ import annotations

import configparser
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptychodus.api.settings import SettingsRegistry

FILES = "_ptycho_core_files"
"""The attribute of a registry that holds the paths, in order."""


def remember() -> None:
    """Let every registry keep the paths of the settings files that it opens. Once is enough; more changes nothing."""
    opened = SettingsRegistry.open_settings
    if hasattr(opened, "__wrapped__"):
        return

    @functools.wraps(opened)
    def open_settings(registry: SettingsRegistry, file_path: Path) -> None:
        setattr(registry, FILES, [*getattr(registry, FILES, []), file_path])
        opened(registry, file_path)

    SettingsRegistry.open_settings = open_settings


def read(path: Path) -> Mapping[str, Mapping[str, str]]:
    """Group → setting, in small letters → text; nothing of a file that cannot be read: Ptychodus has said so."""
    config = configparser.ConfigParser(interpolation=None)
    try:
        config.read(path)
    except (configparser.Error, UnicodeError):
        return {}
    return {name: dict(config[name]) for name in config}


def restore(registry: SettingsRegistry, groups: Mapping[str, Any]) -> None:
    """Give the parameters of new groups the values of the files that the registry has opened. groups: by name."""
    for path in getattr(registry, FILES, []):
        stated = read(path)
        for name, group in groups.items():
            for key, parameter in group.parameters().items():
                text = stated[name].get(key.lower()) if name in stated else None
                if text is not None:
                    parameter.set_value_from_string(text)


def stated_algorithm(registry: SettingsRegistry) -> str | None:
    """The algorithm that the file opened last names."""
    for path in reversed(getattr(registry, FILES, [])):
        stated = read(path)
        if "Processing" in stated and "algorithm" in stated["Processing"]:
            return stated["Processing"]["algorithm"].strip()
    return None
