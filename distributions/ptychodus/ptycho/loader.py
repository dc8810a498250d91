"""What Ptychodus hands to the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from ptycho.raw_data import Patterns


@attrs.frozen(eq=False)
class Container:
    """X: the patterns. Their places are known from the scan that they belong to, so the offsets say nothing."""

    X: Patterns
    local_offsets: None = None
    global_offsets: None = None


def load(cb: Callable[[], Patterns], probeGuess: Any, *, which: str | None, create_split: bool) -> Container:
    """The container of what `cb` returns; the model has its own probe, and nothing is split."""
    return Container(cb())
