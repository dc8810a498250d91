"""Configurations as TOML and YAML files (specs/configuration.md, Files)."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import tomli_w

from ptycho_core.errors import ConfigurationError
from ptycho_core.registry import closest
from ptycho_core.settings.fields import from_mapping, to_mapping
from ptycho_core.settings.sections import SECTIONS

LARGEST_BYTES, MESSAGE = 2**20, 300
YAML_ENDINGS = (".yaml", ".yml")


def read_config(path: Path) -> dict[str, dict[str, Any]]:
    """The tables of a configuration file, YAML by its ending, else TOML; unknown tables are refused.

    The fields are checked by `from_mapping`. Raises ConfigurationError naming the file and the table.
    """
    form = "YAML" if path.suffix.lower() in YAML_ENDINGS else "TOML"
    check_plain(path, form)
    try:
        text = path.read_text(encoding="utf-8-sig")  # Notepad's byte order mark is no text
        document = _from_yaml(text) if form == "YAML" else tomllib.loads(text)
    except FileNotFoundError as error:
        raise ConfigurationError(path, received="no such file", remedy="Check the path.") from error
    except OSError as error:
        received, remedy = "a folder" if path.is_dir() else error.strerror, "Give a file that can be read."
        raise ConfigurationError(path, expected=f"a {form} file", received=received, remedy=remedy) from error
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        expected, received = "UTF-8 text", f"another encoding (at line {line})"
        raise ConfigurationError(path, expected=expected, received=received, remedy="Save it as UTF-8.") from error
    except (ValueError, TypeError, RecursionError) as error:
        received, remedy = " ".join(str(error).split())[:MESSAGE], _remedy_of(str(error), text)
        raise ConfigurationError(path, expected=f"readable {form}", received=received, remedy=remedy) from error
    document = {} if document is None else document
    if not isinstance(document, dict):
        remedy = "Put each setting under its table's heading."
        received = type(document).__name__
        raise ConfigurationError(path, expected="tables", received=received, remedy=remedy)
    for name, table in document.items():
        if name not in SECTIONS or not isinstance(table, dict):
            near = closest(str(name), SECTIONS)
            remedy = "Put each setting under its table's heading: " + ", ".join(f"[{key}]" for key in SECTIONS) + "."
            remedy = f"Did you mean [{near}]?" if near and isinstance(table, dict) else remedy
            received = "no such table" if isinstance(table, dict) else "not in a table"
            raise ConfigurationError(
                path, f"[{name}]" if isinstance(table, dict) else str(name), received=received, remedy=remedy
            )
    return document


def check_plain(path: Path, form: str) -> None:
    """ConfigurationError for a pipe, a device, or more than a configuration can be; neither is opened."""
    if path.exists() and not path.is_dir() and not path.is_file():
        remedy = "Give a file."
        raise ConfigurationError(path, expected=f"a {form} file", received="a pipe or a device", remedy=remedy)
    if path.is_file() and path.stat().st_size > LARGEST_BYTES:
        expected, remedy = f"at most {LARGEST_BYTES // 2**20} MiB", "Give a configuration file."
        raise ConfigurationError(path, expected=expected, received=f"{path.stat().st_size} bytes", remedy=remedy)


def _remedy_of(reason: str, text: str) -> str:
    """What is wrong with that line, where it is known."""
    if text.lstrip().startswith("{"):
        return "It looks like JSON: write TOML, such as [training] and below it nepochs = 50."
    if "'\\t' that cannot start any token" in reason:
        return "Indent with spaces in place of tabs."
    if "\\" in reason or "hex value" in reason:
        return "Write a path with / in place of \\, or in single quotes."
    if "merge" in reason or "alias" in reason:
        return "Write the values out: anchors and aliases are not read."
    return "Correct it there."


def read_configs(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The configurations in a file by table, as `write_config` writes them; "training" holds the file's "model".

    Raises ConfigurationError naming the file and the field.
    """
    source = Path(path)
    tables = read_config(source)
    configs = {
        name: from_mapping(SECTIONS[name], table, source=str(source))
        for name, table in tables.items()
        if name not in ("training", "inference")
    }
    nested = {"model": configs["model"]} if "model" in configs else {}
    for name in ("training", "inference"):
        if name in tables:
            configs[name] = from_mapping(SECTIONS[name], tables[name], source=str(source), **nested)
    return configs


def write_config(path: Path, **sections: Any) -> None:
    """One table for each configuration given, as `training=…, model=…`; YAML by the ending of `path`, else TOML.

    >>> from ptycho_core import ModelConfig
    >>> write_config(Path("model.toml"), model=ModelConfig(N=128))
    >>> read_configs("model.toml")["model"].N
    128
    """
    from ptycho_core.storage.files import write_text  # with numpy, which reading a file does without

    write_text(path, to_yaml(**sections) if path.suffix.lower() in YAML_ENDINGS else to_toml(**sections))


def to_toml(**sections: Any) -> str:
    """The text of a TOML file: one table for each configuration given."""
    return tomli_w.dumps({name: to_mapping(config) for name, config in sections.items()})


def to_yaml(**sections: Any) -> str:
    """The text of a YAML file: one table for each configuration given."""
    from ptycho_core.settings.yaml_text import dump

    return dump({name: to_mapping(config) for name, config in sections.items()})


def _from_yaml(text: str) -> Any:
    from ptycho_core.settings.yaml_text import load  # only where it is needed: it takes a twelfth of a start

    return load(text)


def annotated_toml(sources: Mapping[str, Mapping[str, str]], **sections: Any) -> str:
    """As `to_toml`, each field followed by a comment that says where its value comes from; unset ones as comments.

    sources: section → field → the words of the comment.
    """
    lines = []
    for section, config in sections.items():
        lines.append(f"[{section}]")
        values = to_mapping(config)
        for field in attrs.fields(type(config)):
            if field.name in sources[section]:
                text = f"{field.name} is unset"
                if field.name in values:
                    text = tomli_w.dumps({field.name: values[field.name]}).strip()
                source = sources[section][field.name]
                if source == "default" and (by := field.metadata["by"]) is not None:
                    source += f": {by.words}"
                lines.append(f"{'' if field.name in values else '# '}{text}  # {source}")
        lines.append("")
    return "\n".join(lines[:-1]) + "\n"
