"""Entry points as installed distributions have them."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from types import SimpleNamespace
from typing import Any

OURS = ("torch", "tensorflow")


def entry_point(name: str, value: str, group: str | None) -> EntryPoint:
    """Of ptycho-core for the names of our engines, else of the distribution other-package 1.2."""
    dist: Any = SimpleNamespace(name="ptycho-core" if name in OURS else "other-package", version="1.2")
    assert group is not None
    point: EntryPoint = EntryPoint(name, value, group)._for(dist)  # type: ignore[attr-defined]
    return point
