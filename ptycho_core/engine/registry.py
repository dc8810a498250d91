"""Engines by name: which are registered, which are installed, and loading one (specs/engine.md)."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from ptycho_core.errors import BackendError

if TYPE_CHECKING:
    from ptycho_core.engine.protocol import Engine

log = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "ptycho_core.engines"


SPELLINGS = {"pytorch": "torch"}
FRAMEWORKS = {"torch": ("PyTorch", "torch"), "tensorflow": ("TensorFlow", "tensorflow")}
"""Our own engines' framework names and packages; a third engine reports a missing framework in its own words."""


def registered_engines() -> dict[str, EntryPoint]:
    """Entry points of the group `ptycho_core.engines`, by name. Nothing is imported."""
    return {point.name: point for point in sorted(entry_points(group=ENTRY_POINT_GROUP))}


def is_installed(name: str) -> bool:
    """Whether the framework of a registered engine can be found; nothing is imported."""
    if name not in FRAMEWORKS:
        return True
    package = FRAMEWORKS[name][1]
    return bool(sys.modules.get(package)) or importlib.util.find_spec(package) is not None


def resolve_backend(backend: str = "auto") -> str:
    """The registered name that `backend` stands for; nothing is imported.

    "auto" takes the only installed engine, or tensorflow before torch before any other. Raises BackendError for an
    unknown name and when no engine is installed.
    """
    registered = registered_engines()
    if backend == "auto":
        installed = installed_engines()
        if not installed:
            raise BackendError(
                "No engine is installed. Install one with: "
                "pip install 'ptycho-core[torch]' or pip install 'ptycho-core[tensorflow]'"
            )
        return next((name for name in ("tensorflow", "torch") if name in installed), installed[0])
    name = SPELLINGS.get(backend, backend)
    if name not in registered:
        raise BackendError(
            f"Unknown backend {backend!r}. Registered backends: {', '.join(registered)}.", setting="backend"
        )
    return name


def installed_engines() -> tuple[str, ...]:
    """Names of the registered engines whose frameworks can be found."""
    return tuple(name for name in registered_engines() if is_installed(name))


def backend_for(trained_by: str) -> str:
    """What "auto" is for a model: the engine that trained it where that is installed, else "auto"."""
    return trained_by if trained_by in registered_engines() and is_installed(trained_by) else "auto"


def find_engine(backend: str = "auto") -> Callable[[], Engine]:
    """What makes the engine for `backend`: its framework is imported when that is called, and not before.

    Raises BackendError for an unknown name and where the framework cannot be found.
    """
    name = resolve_backend(backend)
    if not is_installed(name):
        title, package = FRAMEWORKS[name]
        raise BackendError(
            f"{title} backend selected, but the '{package}' package is not installed. "
            f"Install it with: pip install 'ptycho-core[{name}]'",
            setting="backend",
        )

    def load() -> Engine:
        if backend == "auto":
            log.info("backend: %s (auto; installed: %s)", name, ", ".join(installed_engines()))
        engine: Engine = registered_engines()[name].load()()
        return engine

    return load


def load_engine(backend: str = "auto") -> Engine:
    """The engine for `backend`. Raises BackendError as `find_engine`; any failure inside an engine passes through."""
    return find_engine(backend)()
