"""Engines by name: which are registered, which are installed, and loading one (specs/engine.md)."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from importlib.metadata import EntryPoint, entry_points

from ptycho_core.engine.protocol import Engine
from ptycho_core.errors import BackendError

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
    return name not in FRAMEWORKS or importlib.util.find_spec(FRAMEWORKS[name][1]) is not None


def resolve_backend(backend: str = "auto") -> str:
    """The registered name that `backend` stands for.

    "auto" takes the only installed engine, or tensorflow before torch before any other. Raises BackendError for an
    unknown name and when no engine is installed.
    """
    registered = registered_engines()
    if backend == "auto":
        installed = [name for name in registered if is_installed(name)]
        if not installed:
            raise BackendError(
                "No engine is installed. Install one with: "
                "pip install 'ptycho-core[torch]' or pip install 'ptycho-core[tensorflow]'"
            )
        chosen = next((name for name in ("tensorflow", "torch") if name in installed), installed[0])
        log.info("backend: %s (auto; installed: %s)", chosen, ", ".join(installed))
        return chosen
    name = SPELLINGS.get(backend, backend)
    if name not in registered:
        raise BackendError(
            f"Unknown backend {backend!r}. Registered backends: {', '.join(registered)}.", setting="backend"
        )
    return name


def backend_for(trained_by: str) -> str:
    """What "auto" is for a model: the engine that trained it where that is installed, else "auto"."""
    return trained_by if trained_by in registered_engines() and is_installed(trained_by) else "auto"


def load_engine(backend: str = "auto") -> Engine:
    """The engine for `backend`; its framework is imported here and not before.

    Raises BackendError when the framework is not installed; any other failure inside an engine passes through.
    """
    name = resolve_backend(backend)
    try:
        engine: Engine = registered_engines()[name].load()()
    except ModuleNotFoundError as error:
        title, package = FRAMEWORKS.get(name, (None, None))
        if title is None or error.name != package:
            raise
        raise BackendError(
            f"{title} backend selected, but the '{package}' package is not installed. "
            f"Install it with: pip install 'ptycho-core[{name}]'",
            setting="backend",
        ) from error
    return engine
