"""Configurations that mean the same files from every working folder, as a stored run needs them."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import TypeVar

import attrs

from ptycho_core.settings.fields import fields_of

C = TypeVar("C")


def rooted(config: C) -> C:
    """A copy in which paths are absolute.

    Text that may name a file is left alone where there is no such file in the working folder: it then names a data set,
    or a file beside the scan's.
    """
    absolute: dict[str, Path | str] = {}
    for name, field in fields_of(type(config)).items():
        value = getattr(config, name)
        if isinstance(value, Path):
            absolute[name] = Path(os.path.abspath(value))
        elif field.metadata["place"] and value not in (None, field.default, "auto", *field.metadata["spellings"]):
            absolute[name] = _rooted(value)
    return attrs.evolve(config, **absolute)  # type: ignore[misc]


def _rooted(text: str) -> str:
    """`FILE`, `FILE:DATASET`, or several of them with commas between."""
    for file, dataset in ((text, ""), text.rpartition(":")[::2]):
        if file and (os.path.exists(file) or (any(mark in file for mark in "*?[") and glob.glob(file))):
            return f"{os.path.abspath(file)}:{dataset}" if dataset else os.path.abspath(file)
    first, comma, rest = text.partition(",")
    return f"{_rooted(first)},{_rooted(rest)}" if comma else text
