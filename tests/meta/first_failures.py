"""A pytest plugin, `-p tests.meta.first_failures`: a planted fault has the tests of its file, up to a first failure.

So one interpreter is enough for all of them, and what the tests compare with is computed once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.meta.faults import NOTICED_BY

_failed: set[str] = set()


def fault(item: pytest.Item) -> str:
    """The name of the engine that a test runs on, without its module; empty where it runs on none."""
    callspec: Any = getattr(item, "callspec", None)
    return "" if callspec is None else str(callspec.params.get("engine", "")).rpartition(":")[2]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = {item for item in items if NOTICED_BY.get(fault(item), item.path.stem) != item.path.stem}
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=list(left_out))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if fault(item) in _failed:
        pytest.skip("this fault has been noticed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: Any = yield
    if report.failed and fault(item) in NOTICED_BY:
        _failed.add(fault(item))
    return report
