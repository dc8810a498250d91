"""Nothing is replaced unasked, and one run at a time writes to a folder (specs/archive.md, Folders)."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ptycho_core.errors import DataError
from ptycho_core.storage.files import PARTIAL, make_folder

log = logging.getLogger(__name__)

LOCK = ".ptycho.lock"
_LARGEST_LOCK = 2**12


def check_new(*paths: Path, overwrite: bool) -> None:
    """DataError where there is a file or folder already, unless it is to be replaced."""
    there = next((path for path in paths if path.exists()), None)
    if there is None or overwrite:
        return
    received = "a folder" if there.is_dir() else "a file of an earlier run, which would be lost"
    remedy = "Choose another name, or replace it"
    raise DataError(there, expected="a new name", received=received, remedy=remedy, state=("overwrite",))


def check_folder_is_free(folder: Path, results: Sequence[str], *, overwrite: bool) -> None:
    """DataError where the folder holds one of the `results` of another run, unless they are to be replaced."""
    there = [name for name in results if (folder / name).exists()]
    if there and not overwrite:
        received = f"{', '.join(there)} of an earlier run, which would be lost"
        remedy = "Choose another output folder, or replace them"
        raise DataError(
            folder, expected="a folder of no other run", received=received, remedy=remedy, state=("overwrite",)
        )


@contextmanager
def locked(folder: Path) -> Iterator[Path]:
    """Hold the folder, made if missing, while the block runs. DataError while another process holds it.

    What a process left that is gone is recognised and taken over. Where the block fails before anything is in a folder
    that was made for it, that folder goes too.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    file = make_folder(folder) / LOCK
    try:
        _take(folder, file)
        try:
            yield folder
        finally:
            with suppress(OSError):
                file.unlink()
    except BaseException:
        with suppress(OSError):  # the first one that is not empty
            for each in made:
                each.rmdir()
        raise


def _take(folder: Path, file: Path) -> None:
    for attempt in range(2):
        try:
            _make(file)
        except FileExistsError:
            holder = _holder(file)
            if attempt == 0 and _is_gone(holder):
                log.warning("%s: the lock of process %s, which is gone, is removed", file, holder["pid"])
                with suppress(FileNotFoundError):
                    file.unlink()
                continue
            received = (
                f"process {holder['pid']} on {holder['host']} writing there" if holder else "a lock of another run"
            )
            remedy = f"Wait for it, or choose another output folder; if no run goes on there, remove {file}."
            expected = "a folder to which no other run writes"
            raise DataError(folder, expected=expected, received=received, remedy=remedy) from None
        except OSError as error:
            remedy = "Choose a folder that can be written."
            raise DataError(folder, expected="a writable folder", received=error.strerror, remedy=remedy) from error
        return


def _make(file: Path) -> None:
    """The lock with all that it says at once: a process may be killed at any moment. FileExistsError, OSError."""
    text = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "begun": _begun(os.getpid())})
    beside = file.with_name(f"{file.name}.{os.getpid()}.{threading.get_ident()}{PARTIAL}")
    beside.write_text(text, encoding="utf-8")
    try:
        os.link(beside, file)
    except FileExistsError:
        raise
    except OSError:  # a disk without links
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    finally:
        beside.unlink()


def _holder(file: Path) -> dict[str, Any]:
    """Who holds the folder; nothing where that cannot be read."""
    try:
        with file.open(encoding="utf-8") as opened:
            holder = json.loads(opened.read(_LARGEST_LOCK))
    except (OSError, ValueError):
        return {}
    fits = isinstance(holder, dict) and isinstance(holder.get("pid"), int) and isinstance(holder.get("host"), str)
    return holder if fits else {}


def _is_gone(holder: dict[str, Any]) -> bool:
    """Whether the process is known to have ended: on this machine, and its number free or another process's."""
    if not holder or holder["host"] != socket.gethostname() or os.name == "nt":
        return False
    try:
        os.kill(holder["pid"], 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    begun = _begun(holder["pid"])
    return begun is not None and holder.get("begun") not in (None, begun)


def _begun(pid: int) -> str | None:
    """When a process began, in ticks since the start of the machine; None where the system does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
