"""Deprecated spellings of fields."""

from __future__ import annotations

import functools
import warnings
from typing import Any, TypeVar

T = TypeVar("T", bound="type[Any]")


def takes_n_images(cls: T) -> T:
    """Accept `n_images`, a deprecated spelling of `n_groups`; an explicit n_groups takes precedence."""
    construct = cls.__init__

    @functools.wraps(construct)
    def with_n_images(self: Any, *, n_images: int | None = None, **fields: Any) -> None:
        if n_images is not None:
            _warn_of_n_images(cls)
            fields = {"n_groups": n_images, **fields}
        construct(self, **fields)

    def read(self: Any) -> int | None:
        _warn_of_n_images(cls)
        groups: int | None = self.n_groups
        return groups

    def write(self: Any, value: int) -> None:
        _warn_of_n_images(cls)
        self.n_groups = value

    cls.__init__ = with_n_images
    cls.n_images = property(read, write, doc="Deprecated spelling of `n_groups`.")
    return cls


def _warn_of_n_images(cls: type[Any]) -> None:
    text = f"{cls.__name__}.n_images is a deprecated spelling of n_groups: use n_groups."
    warnings.warn(text, DeprecationWarning, stacklevel=3)
