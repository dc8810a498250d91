"""Both engines side by side; without one of them the tests are skipped, or fail where it is required."""

from __future__ import annotations

import pytest

from ptycho_core.engine.protocol import Engine
from tests.contract.backends import engine_or_skip

PAIRS = [("tensorflow", "torch"), ("torch", "tensorflow")]


@pytest.fixture(scope="session", params=PAIRS, ids="-to-".join)
def pair(request: pytest.FixtureRequest) -> tuple[Engine, Engine]:
    """The engine that begins, and the one that goes on."""
    first, second = request.param
    return engine_or_skip(first), engine_or_skip(second)
