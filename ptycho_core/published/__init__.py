"""Archives of the published implementations: what they are, and ours made from them (docs/published.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptycho_core.lazy import lazy_names

if TYPE_CHECKING:  # what `__getattr__` gives at run time, for type checkers and editors
    from ptycho_core.published.importing import convert_published as convert_published
    from ptycho_core.published.importing import import_published as import_published
    from ptycho_core.published.importing import is_published as is_published
    from ptycho_core.published.importing import published_facts as published_facts

__getattr__, _names = lazy_names(
    __name__, {"importing": ("convert_published", "import_published", "is_published", "published_facts")}
)
__all__ = sorted(_names)


def __dir__() -> list[str]:
    return __all__
