"""What a run's folder holds, and pictures in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ptycho_core.errors import MissingExtraError
from ptycho_core.events import Event, Listener, told_file

BEST_MODELS = "checkpoints"
"""Folder of the best models, where a run keeps more than one."""


def draw(tell: Listener, function: str, *arguments: Any, **keywords: Any) -> str | None:
    """A figure of `ptycho_core.report.plots`; without the plotting extra it is left out, with a warning."""
    from ptycho_core.report import plots

    path: Path = next(argument for argument in arguments if isinstance(argument, Path))
    plot: Callable[..., None] = getattr(plots, function)
    try:
        plot(*arguments, **keywords)
    except MissingExtraError as error:
        tell(Event(kind="warning", work="draw", message=f"{path.name} is left out: {error}"))
        return None
    told_file(tell, "draw", path)
    return str(path)
