"""Public names of a package that are imported when first used, so that importing the package stays fast."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, modules: Mapping[str, tuple[str, ...]]) -> tuple[Callable[[str], Any], dict[str, str]]:
    """`__getattr__` of a package whose submodules hold the names given, and the submodule of each name.

    modules: submodule → the names that the package takes from it.
    """
    public = {name: module for module, names in modules.items() for name in names}

    def attribute(name: str) -> Any:
        if name not in public:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{public[name]}"), name)

    return attribute, public
