"""The flat dictionary that Ptychodus fills and reads, one for the process: it is part of the interface."""

from __future__ import annotations

from typing import Any

cfg: dict[str, Any] = {}


def get(key: str) -> Any:
    """The value of `key`; KeyError where there is none, as Ptychodus expects."""
    return cfg[key]
