"""`--import MODULE`: what a program registers, networks, ops, losses, optimisers, readers, is there for a command."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shlex
import sys
from pathlib import Path
from types import ModuleType

import click

from ptycho_core.errors import ConfigurationError, PtychoError

IMPORTED = "ptycho_core.cli.importing"


def import_named(name: str) -> ModuleType:
    """The module of that name, as from the working folder, or of a `.py` file. ConfigurationError where it fails."""
    try:
        return _of_file(Path(name)) if name.endswith(".py") else _of_name(name)
    except PtychoError:
        raise
    except (Exception, SystemExit) as error:
        received = f"{type(error).__name__}: {error}"
        remedy = "Name a .py file, or a module that Python finds; correct what it raises."
        expected = "a module that can be imported"
        raise ConfigurationError(f"import of {name}", expected=expected, received=received, remedy=remedy) from error


def _of_name(name: str) -> ModuleType:
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)  # as `python -m` has it
    return importlib.import_module(name)


def _of_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError("no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _import_all(context: click.Context, parameter: click.Parameter, names: tuple[str, ...]) -> None:
    if not context.resilient_parsing:
        for name in names:
            import_named(name)
        context.meta[IMPORTED] = names


def next_command(*words: str) -> str:
    """The line that a user is to go on with, which imports what this command did."""
    context = click.get_current_context(silent=True)
    names = () if context is None else context.meta.get(IMPORTED, ())
    return shlex.join((*words, *(word for name in names for word in ("--import", name))))


def takes_imports(command: click.Command) -> click.Command:
    """Give a command the option `--import`."""
    command.params.append(
        click.Option(
            ["--import", "imported"],
            multiple=True,
            is_eager=True,
            expose_value=False,
            callback=_import_all,
            metavar="MODULE",
            envvar="PTYCHO_IMPORT",
            help="Import a module, or a .py file, that registers networks, ops, losses or optimisers; may be repeated.",
        )
    )
    return command
