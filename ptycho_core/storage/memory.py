"""How much memory there is, and work that would take more (specs/configuration.md, Command line)."""

from __future__ import annotations

import os
from pathlib import Path

from ptycho_core.errors import DataError

GROUPS = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where Linux says how much a container, or a job of a cluster, may take: version 2 and 1."""


def memory() -> int:
    """Bytes that this process may take at most, as far as it can be told: of the machine, its container, its limits."""
    return min(_of_machine(), _of_group(), _of_process())


def check_memory(needed: int, source: str, key: str | None, *, what: str, remedy: str) -> None:
    """DataError where `needed` bytes are more than there are. what: it takes so much, as "600 x 400 object pixels"."""
    there = memory()
    if needed > there:
        raise DataError(
            source,
            key,
            expected=f"what fits into memory, {there / 2**30:.1f} GiB",
            received=f"{what}, which take {needed / 2**30:.1f} GiB",
            remedy=remedy,
        )


def _of_machine() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2**63 - 1  # not told: nothing is refused


def _of_group() -> int:
    for file in GROUPS:
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        if text.isdigit():  # or "max"
            return int(text)
    return 2**63 - 1


def _of_process() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 2**63 - 1
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return 2**63 - 1 if limit == resource.RLIM_INFINITY else limit
