"""Engines by name: which are registered, which are installed, and loading one (specs/engine.md)."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from ptycho_core.errors import BackendError
from ptycho_core.registry import Registry, closest

if TYPE_CHECKING:
    from ptycho_core.engine.protocol import Engine

log = logging.getLogger(__name__)

SPELLINGS = {"pytorch": "torch"}
FRAMEWORKS = {"torch": ("PyTorch", "torch"), "tensorflow": ("TensorFlow", "tensorflow")}
"""Our own engines' framework names and packages; a third engine reports a missing framework in its own words."""


def _make(maker: Callable[[], Engine]) -> Engine:
    engine = maker()
    check_protocol(engine, getattr(engine, "name", repr(maker)))
    return engine


ENGINES: Registry[Engine] = Registry(
    "engine", ("TrainingConfig", "backend"), group="ptycho_core.engines", make=_make, error=BackendError
)
"""Classes, or functions, that make an engine without arguments. Ours are entry points as well."""


def check_protocol(engine: Any, name: str) -> None:
    """BackendError for an engine that was written for another protocol, or lacks a method: what it has to change."""
    from ptycho_core.engine import protocol  # with numpy: choosing an engine does without

    written_for, current = getattr(engine, "protocol", 1), protocol.PROTOCOL
    if written_for != current:
        remedy = "Update ptycho-core."
        if isinstance(written_for, int) and written_for < current:
            later = range(written_for + 1, current + 1)
            changes = (change for version in later for change in protocol.CHANGES.get(version, ()))
            remedy = f"Update it, or let its author know what has changed: {'; '.join(changes)}."
        expected, received = f"protocol {current}", f"protocol {written_for}"
        raise BackendError(f"engine {name!r}", expected=expected, received=received, remedy=remedy, setting="backend")
    methods = [name for name, value in vars(protocol.Engine).items() if callable(value) and not name.startswith("_")]
    missing = [method for method in methods if not callable(getattr(engine, method, None))]
    if missing:
        expected, received = f"the methods {', '.join(methods)}", f"an engine without {', '.join(missing)}"
        remedy = "Let its author know (specs/engine.md)."
        raise BackendError(f"engine {name!r}", expected=expected, received=received, remedy=remedy, setting="backend")


def registered_engines() -> tuple[str, ...]:
    """Names of all engines, in order. Nothing is imported."""
    return tuple(sorted(ENGINES.names()))


def is_installed(name: str) -> bool:
    """Whether the framework of a registered engine can be found; nothing is imported."""
    if name not in FRAMEWORKS:
        return True
    package = FRAMEWORKS[name][1]
    return bool(sys.modules.get(package)) or importlib.util.find_spec(package) is not None


def installed_engines() -> tuple[str, ...]:
    """Names of the registered engines whose frameworks can be found."""
    return tuple(name for name in registered_engines() if is_installed(name))


def resolve_backend(backend: str = "auto") -> str:
    """The registered name that `backend` stands for, in whatever case; nothing is imported.

    "auto" takes the only installed engine, or tensorflow before torch before any other. Raises BackendError for an
    unknown name and when no engine is installed.
    """
    if backend.casefold() == "auto":
        installed = installed_engines()
        if not installed:
            raise BackendError(
                "No engine is installed. Install one with: "
                "pip install 'ptycho-core[torch]' or pip install 'ptycho-core[tensorflow]'"
            )
        return next((name for name in ("tensorflow", "torch") if name in installed), installed[0])
    name = ENGINES.find(SPELLINGS.get(backend.casefold(), backend))
    if name is None:
        text = f"Unknown backend {backend!r}. Registered backends: {', '.join(registered_engines())}."
        near = closest(backend, (*registered_engines(), *SPELLINGS))
        raise BackendError(f"{text} Did you mean {near!r}?" if near else text, setting="backend")
    return name


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
        if backend.casefold() == "auto":
            log.info("backend: %s (auto; installed: %s)", name, ", ".join(installed_engines()))
        return ENGINES.load(name)

    return load


def load_engine(backend: str = "auto") -> Engine:
    """The engine for `backend`.

    Raises BackendError as `find_engine`, for one of another package that cannot be imported, and for one that was
    written for another protocol. A failure inside one of ours passes through: it is a bug.
    """
    return find_engine(backend)()


def engine_facts() -> dict[str, dict[str, Any]]:
    """What every registered engine is, as plain values, by name; of one that cannot be loaded, the reason."""
    facts: dict[str, dict[str, Any]] = {}
    for name in registered_engines():
        if not is_installed(name):
            facts[name] = {"framework": "not installed"}
            continue
        try:
            facts[name] = attrs.asdict(ENGINES.load(name).describe())
        except Exception as error:  # noqa: BLE001 - the others are to be listed
            ENGINES.warn(name, error)
            facts[name] = {"framework": "broken", "error": str(error)}
    return facts
