"""Priors by name or by their file (specs/solving.md, Prior)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ptycho_core.errors import ConfigurationError
from ptycho_core.registry import Registry
from ptycho_core.solving.prior import Apply, Prior

A = TypeVar("A", bound=Apply)

PRIORS: Registry[Prior] = Registry(
    "prior",
    ("SolveConfig", "prior"),
    group="ptycho_core.priors",
    ours={
        "tv": "ptycho_core.solving.variation:TV",
        "learned": "ptycho_core.solving.learned:LEARNED",
        "alternating": "ptycho_core.solving.learned:ALTERNATING",
    },
    reserved=("auto", "none"),
)
"""An entry point is a `Prior`."""


def is_file(name: str) -> bool:
    """Whether a prior is meant by its file, or the folder of it."""
    return name not in PRIORS.reserved and PRIORS.find(name) is None and Path(name).exists()


def check_prior(name: str) -> None:
    """Refuse a name that is neither registered nor a file of a prior: ConfigurationError, ArchiveError."""
    if name not in PRIORS.reserved:
        prior_named(name)


def prior_named(name: str) -> Prior:
    """The registered prior of that name, or the one in that file."""
    if PRIORS.find(name) is None and len(Path(name).parts) > 1 and not Path(name).exists():
        remedy = f"Check the path, or name one: {', '.join(PRIORS.names())}."
        raise ConfigurationError(
            "SolveConfig", "prior", expected="a prior or its file", received=f"no such file: {name}", remedy=remedy
        )
    if is_file(name):
        from ptycho_core.solving.learned import from_file  # here, because most runs need none

        return from_file(name)
    return PRIORS.load(name)


def register_prior(name: str, *, weights: tuple[float, ...], replace: bool = False) -> Callable[[A], A]:
    """Decorator: makes a prior available as `SolveConfig(prior=name)`.

    ConfigurationError for a name that is taken, unless `replace`.
    """

    def register(function: A) -> A:
        PRIORS.register(name, replace=replace)(Prior(weights, function))
        return function

    return register
