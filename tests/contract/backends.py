"""Which engines the tests run on, and what it means that one is absent."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping

import pytest

from ptycho_core.engine.protocol import Engine
from ptycho_core.engine.registry import load_engine
from ptycho_core.errors import BackendError

REQUIRE = "PTYCHO_REQUIRE_BACKENDS"


def required_backends() -> tuple[str, ...]:
    """Names in the environment variable PTYCHO_REQUIRE_BACKENDS, such as "tensorflow,torch"."""
    return tuple(name.strip() for name in os.environ.get(REQUIRE, "").split(",") if name.strip())


def engine_or_skip(name: str) -> Engine:
    """The registered engine; without its framework the test is skipped, or fails where that engine is required.

    `module:factory` names an engine that is not registered.
    """
    if ":" in name:
        module, factory = name.split(":")
        engine: Engine = getattr(importlib.import_module(module), factory)()
        return engine
    try:
        return load_engine(name)
    except BackendError as error:
        if name in required_backends():
            pytest.fail(f"{REQUIRE} names {name!r}: {error}", pytrace=False)
        pytest.skip(str(error))


def differing_tests(passed: Mapping[str, set[str]]) -> list[str]:
    """One line for every test that passed on some but not all engines; `passed` is by engine."""
    everything = set().union(*passed.values())
    return [
        f"{test}: not on {', '.join(sorted(name for name, tests in passed.items() if test not in tests))}"
        for test in sorted(everything)
        if any(test not in tests for tests in passed.values())
    ]
