"""Things found by name: ours, those of other packages, and those that a program registers.

Names are matched without regard to case. Listing names imports nothing; a thing is imported when it is asked for:

    SHAPES: Registry[Shape] = Registry("shape", ("DrawConfig", "shape"), ours={"star": "my_package.shapes:star"})

    @SHAPES.register("disk")
    def disk(size): ...

    SHAPES.load("disk")
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import logging
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ptycho_core.errors import Cancelled, ConfigurationError, PtychoError, is_out_of_memory

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

log = logging.getLogger(__name__)

T = TypeVar("T")
V = TypeVar("V")


class Found:
    """One thing of a registry: its name as it was written, what or where it is, and who brought it."""

    def __init__(self, name: str, value: object, place: str | None = None, owner: str | None = None) -> None:
        """place: "module:attribute" where it has yet to be imported. owner: a distribution; None: this package."""
        self.name, self.place, self.owner = name, place, owner
        self._value = value

    def value(self) -> Any:
        if self.place is None:
            return self._value
        module, _, attribute = self.place.partition(":")
        value: Any = importlib.import_module(module)
        for part in attribute.split(".") if attribute else ():
            value = getattr(value, part)
        return value

    def is_of(self, value: object) -> bool:
        """Whether it is the same definition: run twice, or where an entry point says."""
        if self.place is None:
            return is_same(self._value, value)
        return self.place == f"{getattr(value, '__module__', None)}:{getattr(value, '__qualname__', None)}"


class Registry(Generic[T]):
    """All things of one kind, by name.

    kind: as in messages. setting: the configuration class and the field that name one. group: of entry points. ours:
    name → "module:attribute". reserved: words of the setting that name no thing, such as "auto". make: from what is
    registered to what `load` gives, such as calling a class. error: of an unknown name. No entry point takes the name
    of ours; a program replaces any of them by `replace=True`.
    """

    def __init__(
        self,
        kind: str,
        setting: tuple[str, str],
        *,
        group: str | None = None,
        ours: Mapping[str, str] = MappingProxyType({}),
        reserved: tuple[str, ...] = (),
        make: Callable[[Any], T] = lambda value: value,
        error: type[PtychoError] = ConfigurationError,
    ) -> None:
        self.kind, self.group, self.ours, self.reserved = kind, group, dict(ours), reserved
        self._setting, self._make, self._error = setting, make, error
        self._registered: dict[str, Found] = {}
        self._warned: set[str] = set()

    # -- what there is ---------------------------------------------------------------------------------------------

    def register(self, name: str, *, replace: bool = False) -> Callable[[V], V]:
        """Decorator: makes a function or class available as `name` in this process.

        The same one, defined again as in a notebook, takes the place of itself; any other name that is taken is a
        ConfigurationError, unless `replace`.
        """

        def take(value: V) -> V:
            if name.casefold() in self.reserved:
                text, remedy = "has a meaning of its own", "Choose another name."
                raise ConfigurationError(f"{self.kind} {name!r}", received=text, remedy=remedy)
            taken = self._one(name)
            if taken is not None and not replace and not taken.is_of(value):
                remedy = "Choose another name, or pass replace=True."
                raise ConfigurationError(f"{self.kind} {name!r}", received="registered already", remedy=remedy)
            self._registered[name.casefold()] = Found(name, value, owner="this program")
            return value

        return take

    def names(self) -> tuple[str, ...]:
        """Every name: ours, then those of other packages and of the program. Nothing is imported."""
        return tuple(found.name for found in self._found().values())

    def find(self, name: str) -> str | None:
        """The registered name that `name` is but for its case; None for an unknown one."""
        found = self._one(name)
        return None if found is None else found.name

    def is_ours(self, name: str) -> bool:
        """Whether it came with this package."""
        found = self._one(name)
        return found is not None and found.owner is None

    def _one(self, name: str) -> Found | None:
        """As `_found` has it; entry points are read only where the name is neither registered nor ours."""
        folded = name.casefold()
        if folded in self.reserved:
            return None
        if folded in self._registered:
            return self._registered[folded]
        ours = {own.casefold(): own for own in self.ours}
        return Found(ours[folded], None, self.ours[ours[folded]]) if folded in ours else self._found().get(folded)

    def _found(self) -> dict[str, Found]:
        found = {name.casefold(): Found(name, None, place) for name, place in self.ours.items()}
        for point in self._entry_points():
            owner = None if point.dist is None else f"{point.dist.name} {point.dist.version}"
            own = point.dist is not None and point.dist.name == "ptycho-core"
            found.setdefault(
                point.name.casefold(),
                Found(point.name, None, point.value, None if own else owner or "an unknown distribution"),
            )
        return {name: one for name, one in {**found, **self._registered}.items() if name not in self.reserved}

    def _entry_points(self) -> tuple[EntryPoint, ...]:
        from importlib.metadata import entry_points  # help and errors of the command line do without

        return () if self.group is None else _installed(entry_points, self.group, tuple(sys.path))

    # -- one of them -----------------------------------------------------------------------------------------------

    def check(self, name: str) -> str:
        """The registered name that `name` is but for its case; the registry's error for an unknown one."""
        found = self.find(name)
        if found is None:
            known = (*self.reserved, *self.names())
            near, names = closest(name, known), ", ".join(known)
            remedy = (
                f"Did you mean {near!r}?"
                if near
                else f"Registered {self.kind}{'e' * self.kind.endswith('s')}s: {names or 'none'}."
            )
            raise self._error(*self._setting, expected=f"one of {names}", received=repr(name), remedy=remedy)
        return found

    def load(self, name: str) -> T:
        """What is registered under `name`.

        Raises the registry's error for an unknown name, listing those there are and the closest, and for one of
        another package that cannot be imported, with the reason. A failure of ours passes through: it is a bug.
        """
        found = self._one(self.check(name))
        assert found is not None
        try:
            return self._make(found.value())
        except PtychoError:
            raise
        except (Exception, SystemExit) as error:
            if found.owner is None:
                raise
            raise self._broken(found, error) from error

    def load_all(self) -> Iterator[tuple[str, T]]:
        """Every one that can be imported, by name; a warning, once, for each of another package that cannot."""
        for name in self.names():
            try:
                thing = self.load(name)
            except PtychoError as error:
                self.warn(name, error)
            else:
                yield name, thing

    def warn(self, name: str, error: Exception) -> None:
        """Say once that something is left out, and why."""
        if name.casefold() not in self._warned:
            self._warned.add(name.casefold())
            found = self._found()[name.casefold()]
            if not isinstance(error, PtychoError):
                error = self._broken(found, error, "fails")
            log.warning("%s", error)

    def _broken(self, found: Found, error: BaseException, what: str = "cannot be imported") -> PtychoError:
        owner = "" if found.owner is None else f" of {found.owner}"
        received = f"it {what}: {type(error).__name__}: {error}"
        remedy = "Update it, or uninstall it."
        return self._error(
            f"{self.kind} {found.name!r}{owner}", received=received, remedy=remedy, setting=self._setting[1]
        )


@contextlib.contextmanager
def faults_of(what: str, expected: str, setting: str | None = None) -> Iterator[None]:
    """What code that a program brings along raises, as an error that names it, the fault, and the line.

    what: such as "loss 'own'". Errors of ours, a stop, and a lack of memory pass as they are.
    """
    try:
        yield
    except (PtychoError, Cancelled):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        fault = f"{type(error).__name__}: {error}".rstrip(": ").split("\n", 1)[0]
        raise ConfigurationError(
            what,
            expected=expected,
            received=f"{fault}{_place_of(error)}",
            remedy="Correct what it is made of.",
            setting=setting,
        ) from error


_LIBRARIES = (
    *(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")),
    Path(__file__).resolve().parent,
)


def _place_of(error: Exception) -> str:
    """The last line of the program that had a part in it, in brackets; nothing where only libraries had one."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [each for each in frames if not any(root in Path(each.filename).resolve().parents for root in _LIBRARIES)]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


def closest(word: str, options: Iterable[Any]) -> str | None:
    """The option that resembles `word`, whatever the case, if one does."""
    folded = {option.casefold(): option for option in options if isinstance(option, str)}
    near = difflib.get_close_matches(word.casefold(), folded, n=1)
    return folded[near[0]] if near else None


@functools.lru_cache
def _installed(
    entry_points: Callable[..., Iterable[EntryPoint]], group: str, path: tuple[str, ...]
) -> tuple[EntryPoint, ...]:
    """Those of a group; the pass over all that is installed is made once for each import path."""
    return tuple(sorted(entry_points(group=group)))


def is_same(one: Any, other: Any) -> bool:
    """Whether two functions or classes are one definition, run twice."""
    names = [(getattr(each, "__module__", None), getattr(each, "__qualname__", None)) for each in (one, other)]
    return one is other or (names[0] == names[1] and None not in names[0])
