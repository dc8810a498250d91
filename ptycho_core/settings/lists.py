"""A file that names several scans: text, one path on each line (specs/data.md, Lists of scans)."""

from __future__ import annotations

from pathlib import Path

from ptycho_core.errors import DataError

ENDING = ".txt"
SCANS_NAME = "scans.txt"
"""In the folder of a training on several scans."""
LARGEST_BYTES = 2**20


def listed(path: Path) -> tuple[Path, ...]:
    """The scans that a list names, or the file itself where it is none: a list's name ends in `.txt`.

    A path is relative to the folder of the list; empty lines and those that begin with # are left out. Raises DataError
    where it names none, or one that is not there.
    """
    if path.suffix.lower() != ENDING:
        return (path,)
    expected, remedy = (
        "a list of scans, one path on each line",
        "Give a text file with the path of a scan on each line.",
    )
    if not path.is_file() or path.stat().st_size > LARGEST_BYTES:
        received = f"{path.stat().st_size} bytes" if path.is_file() else "no such file"
        raise DataError(path, expected=expected, received=received, remedy=remedy)
    content = path.read_bytes()
    if b"\0" in content:
        raise DataError(path, expected=expected, received="a file that is not text", remedy=remedy)
    lines = enumerate(content.decode("utf-8-sig", "surrogateescape").splitlines(), start=1)
    named = {number: line.strip() for number, line in lines if not line.lstrip().startswith("#")}
    scans = {number: path.parent / name for number, name in named.items() if name}
    if not scans:
        raise DataError(path, expected=expected, received="none", remedy=remedy)
    for number, scan in scans.items():
        if not scan.exists():
            expected, remedy = "an existing file", "Check the path; it is relative to the folder of the list."
            raise DataError(path, f"line {number}", expected=expected, received=scan, remedy=remedy)
    return tuple(scans.values())
