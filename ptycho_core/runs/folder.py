"""What a run's folder holds, and pictures in it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ptycho_core.engine.processes import Processes
from ptycho_core.errors import Cancelled, DataError, MissingExtraError, ProcessError, TrainingError
from ptycho_core.events import Event, EventKind, Listener, told_file
from ptycho_core.reconstruction.result import Reconstruction
from ptycho_core.reconstruction.writing import write_reconstruction
from ptycho_core.report.pages import REPORT_NAME, write_report

BEST_MODELS = "checkpoints"
"""Folder of the best models, where a run keeps more than one."""


Stop = KeyboardInterrupt | TrainingError | DataError | ProcessError
STOPS = (KeyboardInterrupt, TrainingError, DataError, ProcessError)
"""What ends a run early, whose results are written."""


@contextmanager
def stoppable() -> Iterator[None]:
    """A wish to stop ends the block as Ctrl-C does."""
    try:
        yield
    except Cancelled as error:
        raise KeyboardInterrupt(str(error)) from error


def has_others(processes: Processes, stop: Stop | None) -> bool:
    """Whether the processes can still work together after `stop`, which came to all of them or to this one alone."""
    return processes.size == 1 or not isinstance(stop, DataError | ProcessError)


@contextmanager
def leading(folder: Path, processes: Processes) -> Iterator[None]:
    """The block of the process that writes into `folder`. DataError where others do not see that folder."""
    if processes.size > 1:
        with tempfile.NamedTemporaryFile(prefix=".ptycho-", dir=folder) as mark:
            _check_seen(folder, processes, Path(mark.name).name)
    yield


@contextmanager
def following(folder: Path, processes: Processes) -> Iterator[None]:
    """The block of a process that writes nothing."""
    _check_seen(folder, processes, None)
    yield


def _check_seen(folder: Path, processes: Processes, name: str | None) -> None:
    name = processes.tell(name)
    blind = [rank + 1 for rank, seen in enumerate(processes.told_by_all((folder / str(name)).exists())) if not seen]
    if blind:
        raise DataError(
            folder,
            expected=f"a folder that all {processes.size} processes see, on a file system of all machines",
            received=f"another one, or none, in process {', '.join(map(str, blind))}",
            remedy="Give one that they share, as an absolute path.",
        )


def kind_of_end(stop: BaseException | None) -> EventKind:
    """What a run tells at its end; a signal that ends it is a kind of interrupt."""
    if stop is None:
        return "finished"
    return "cancelled" if isinstance(stop, KeyboardInterrupt) else "failed"


def rescued(save: Callable[[Path], Any], path: Path) -> Path:
    """`path`, saved; where that fails, the result goes to a new folder for temporary files, which the error names."""
    try:
        save(path)
    except DataError as error:
        place = Path(tempfile.mkdtemp(prefix="ptycho-rescued-")) / path.name
        try:
            save(place)
        except DataError:
            place.parent.rmdir()
            raise error from None
        remedy = f"The result is in {place}: move it from there."
        raise DataError(path, expected=error.expected, received=error.received, remedy=remedy) from error
    return path


@contextmanager
def after_result(path: Path) -> Iterator[None]:
    """An error in the block says where the result is, which has been written before it."""
    try:
        yield
    except DataError as error:
        raise with_remedy(error, f"The result itself is in {path}.") from error


def with_remedy(error: DataError, more: str) -> DataError:
    """The same error, with a sentence more."""
    remedy = f"{error.remedy or ''} {more}".strip()
    facts = {"expected": error.expected, "received": error.received}
    return DataError(error.source, error.key, **facts, remedy=remedy, state=error.state)


def draw(tell: Listener, plot: Callable[..., object], *arguments: Any, **keywords: Any) -> str | None:
    """A figure by a function of `ptycho_core.report.plots`; left out, with a warning, without the plotting extra."""
    path: Path = next(argument for argument in arguments if isinstance(argument, Path))
    try:
        plot(*arguments, **keywords)
    except MissingExtraError as error:
        tell(Event(kind="warning", work="draw", message=f"{path.name} is left out: {error}"))
        return None
    told_file(tell, "draw", path)
    return str(path)


def reported(tell: Listener, folder: Path) -> str | None:
    """`report.html` of the folder, where the extra for pages is installed."""
    return draw(tell, lambda path: write_report(folder, path), folder / REPORT_NAME)


def written_images(
    tell: Listener, work: str, folder: Path, result: Reconstruction, formats: Sequence[str]
) -> list[str]:
    """The object in `folder` for other programs; returns the files. Raises what `write_reconstruction` raises."""
    files = write_reconstruction(folder, result, formats) if formats else ()
    for file in files:
        told_file(tell, work, file)
    return [str(file) for file in files]
