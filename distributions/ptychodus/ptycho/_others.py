"""Whether another distribution installs a package `ptycho`, too. The build runs this file alone: nothing but stdlib."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import Distribution

OURS = "ptycho-core-ptychodus"
PACKAGE = "ptycho"
PUBLISHED = ("ptycho", "ptychopinn")
"""Names under which Ptychodus looks up the version of the published implementation."""


def refusal(installed: Iterable[Distribution], package: str = PACKAGE) -> str | None:
    """Why this distribution cannot be used beside what is installed; None where it can."""
    others = sorted({f"{item.name} {item.version}" for item in installed if has_package(item, package)})
    if not others:
        return None
    names = " ".join(other.split()[0] for other in others)
    return (
        f"{OURS}: expected to be the only distribution with a package '{package}'; received {', '.join(others)} "
        f"beside it. Both install the folder '{package}', and pip replaces one's files by the other's without asking: "
        f"uninstall both (pip uninstall {names} {OURS}), then install the one that Ptychodus shall use."
    )


def has_package(item: Distribution, package: str) -> bool:
    """Whether another distribution has a package of that name."""
    name = re.sub(r"[-_.]+", "-", item.name or "").lower()
    if name == OURS:
        return False
    top_level = (item.read_text("top_level.txt") or "").split()
    files = item.read_text("RECORD") or ""
    published = package == PACKAGE and name in PUBLISHED
    return published or package in top_level or f"\n{package}/" in f"\n{files}"
