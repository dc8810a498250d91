"""What happens while something works, as values of one family: for bars, loggers, pages and applications alike.

Training, reconstruction, solvers and writers make an `Event` of everything that is worth knowing while it lasts. They
yield it, or hand it to a `Listener` where they cannot yield (a batch passes inside an engine):

    def solve(...) -> Generator[Event, None, Result]:
        begin = Event(kind="prepared", work="solve", total=sweeps, unit="sweep")
        yield begin
        for sweep in range(1, sweeps + 1):
            ...
            yield attrs.evolve(begin, kind="sweep", done=sweep, terms={"error": error}, payload=canvas)
        return result

A listener needs no more than an `Event`: which work, how far it is, what it has come to. Where there is more to say,
a subclass of it says it (`EpochReport`, `TrainingProgress`, …), `extended` makes one of another, and a listener asks
for it with `isinstance`. Events are told in the order in which things happen, in the thread of the work; what a
listener raises ends the work.

| kind | when | what it holds |
| --- | --- | --- |
| started | the settings stand; no pattern has been read | message |
| prepared | the scans are read, the first step comes next | done (more than 0 where a work goes on), total, unit |
| batch | a batch is done, or about to begin | done, total, unit; terms; payload of a reconstruction: an `ObjectSoFar` |
| epoch | a pass of a training is done | terms: its losses |
| sweep | a pass of a solver over all patterns is done | terms: its errors; payload: an `ObjectSoFar` |
| partial | an object is there for an application to draw | fields of its class |
| file | a file has been written | payload: its path; message: the same as text |
| checkpoint | a file has been written from which the work can go on | as file |
| warning | something may be amiss | message |
| cancelling | a wish to end has been heard; what is done is being saved | message |
| finished, cancelled, failed | the end: as it should be, by a wish, by an error | message |
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import attrs

if TYPE_CHECKING:  # the command line's help does without numpy
    import numpy as np
    from numpy.typing import NDArray

EventKind = Literal[
    "started",
    "prepared",
    "batch",
    "epoch",
    "sweep",
    "partial",
    "file",
    "checkpoint",
    "warning",
    "cancelling",
    "finished",
    "cancelled",
    "failed",
]
PLAIN = (str, int, float, bool, type(None), list, tuple, Mapping)
E = TypeVar("E", bound="Event")
R = TypeVar("R")


@attrs.frozen(kw_only=True, repr=False)
class Event:
    """One thing that happened. `done` of `total` units are done; total: None where it is not known.

    work: what is done, as its command is called ("train"). unit: in the singular ("epoch", "group"). terms: numbers by
    name, as a logger plots them. message: in words. payload: anything, for listeners in the same process.

    >>> Event(kind="epoch", work="train", done=3, total=50, unit="epoch", message="loss 0.1").line
    'epoch 3/50: loss 0.1'
    """

    kind: EventKind
    work: str
    done: int = 0
    total: int | None = None
    unit: str = ""
    terms: Mapping[str, float] = attrs.field(factory=dict)
    message: str = ""
    payload: Any = attrs.field(default=None, eq=False, repr=False)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.kind} of {self.work}: {self.line[:120]!r})"

    @property
    def line(self) -> str:
        """The event as a line of text: `epoch 3/50: loss 0.1`, or the message alone where nothing is counted."""
        if not self.unit:
            return self.message
        count = f"{self.unit} {self.done}" if self.total is None else f"{self.unit} {self.done}/{self.total}"
        return f"{count}: {self.message}" if self.message else count

    def extended(self, cls: type[E], **more: Any) -> E:
        """This event as one of a subclass: `more` are the fields that it adds or has otherwise."""
        fields = {field.name: getattr(self, field.name) for field in attrs.fields(type(self)) if field.init}
        return cls(**{**fields, **more})

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: every field but the payload and arrays, paths as text."""
        named = {name: getattr(self, name) for name in attrs.fields_dict(type(self)) if name != "payload"}
        plain = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in named.items()}
        return {name: value for name, value in plain.items() if isinstance(value, PLAIN)}


Listener = Callable[[Event], None]
Count = Callable[[int, int], None]
"""Is told (units done, units in all) and no more; what it raises ends the work."""


class ObjectSoFar(Protocol):
    """The object that a work has come to; it is read before the next event is asked for, which changes it."""

    @property
    def origin_px(self) -> tuple[float, float]:
        """The coordinate (x, y) of pixel [0, 0]."""
        ...

    def known_field(self) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
        """(H, W): the object, and where it is known."""
        ...


def told(steps: Generator[Event, None, R], tell: Listener) -> R:
    """What a work returns, each of its events told; the work ends with the listener."""
    try:
        while True:
            tell(next(steps))
    except StopIteration as end:
        result: R = end.value
        return result
    finally:
        steps.close()


def told_file(tell: Listener, work: str, path: os.PathLike[str], kind: EventKind = "file") -> None:
    """Tell that a file has been written."""
    tell(Event(kind=kind, work=work, message=os.fspath(path), payload=path))


def told_ending(tell: Listener, work: str, stop: BaseException) -> None:
    """Tell that a wish has ended the work, where that is so, before what is done is saved."""
    if isinstance(stop, KeyboardInterrupt):
        tell(Event(kind="cancelling", work=work, message="what is done is being saved"))


def counting(tell: Listener, work: str, unit: str) -> Count:
    """A `Count` that tells `batch` events."""
    return lambda done, total: tell(Event(kind="batch", work=work, done=done, total=total, unit=unit))


def finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity: None in their place."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return value
