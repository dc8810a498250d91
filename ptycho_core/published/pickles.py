"""Pickles of unknown origin, read without running anything.

A pickle is a program: it names functions and has them called. Here every instruction and every name must be in a
table; the names stand for the few constructors below, never for what they are called elsewhere. Everything else is
refused by name, before anything is made of it.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import ArchiveError
from ptycho_core.models.container import TEXT_LIMIT, shown
from ptycho_core.published.members import ANOTHER_SOURCE

# fmt: off
INSTRUCTIONS = frozenset((
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK",
    "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "EMPTY_SET", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "LIST", "DICT",
    "FROZENSET", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS",
    "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET",
    "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "BINPERSID",
))
# fmt: on
REMEMBERING = ("PUT", "BINPUT", "LONG_BINPUT")
TUPLES = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET")
INSTRUCTION_LIMIT, TUPLE_LIMIT = 10**6, 10**4
"""The published pickles have some thousand. A key of too many tuples within each other would exhaust the stack."""
MALFORMED = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    MemoryError,
    RecursionError,
)
"""What the reading of a pickle raises that is truncated, or calls a constructor with what it does not take."""


class Constructor:
    """What a name in a pickle stands for: it can be called, and nothing else can be done with it."""

    __slots__ = ("make", "name")

    def __init__(self, name: str, make: Callable[..., Any] | None = None) -> None:
        self.name, self.make = name, make

    def __call__(self, *arguments: Any) -> Any:
        if self.make is None:
            raise TypeError(f"{self.name} is not to be called")
        return self.make(*arguments)

    def __setstate__(self, state: object) -> NoReturn:
        raise TypeError(f"{self.name} is not to be changed")


class Dtype:
    """A dtype of numbers; those of Python objects, text and records are refused."""

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[<>|=]?(b1|[iu][1248]|f[248]|c8|c16)", code):
            raise ValueError(f"dtype {shown(code)!r}: expected one of numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, *rest = state
        if order not in ("<", ">", "|", "=") or any(part is not None for part in rest[:3]):
            raise ValueError("a dtype of records")
        self.dtype = self.dtype.newbyteorder(order)


class Array:
    """An array of numbers, made empty and then filled, as numpy pickles them."""

    array: NDArray[Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, content = state
        self.array = array_of(content, dtype, shape, "F" if fortran else "C")


def array_of(content: object, dtype: object, shape: object, order: Any = "C") -> NDArray[Any]:
    """An array of numbers from its bytes, which must be just as many as it takes."""
    if not isinstance(dtype, Dtype) or not isinstance(content, bytes) or not isinstance(shape, tuple):
        raise ValueError("an array of something else than numbers")
    if any(type(length) is not int or length < 0 for length in shape):
        raise ValueError("an array whose shape is not whole numbers")
    if math.prod(shape) * dtype.dtype.itemsize != len(content):
        raise ValueError("an array with more or fewer bytes than its shape takes")
    return np.frombuffer(content, dtype.dtype).reshape(shape, order=order)


def value_of(value: object) -> Any:
    """A value of the pickle: an array as itself."""
    return value.array if isinstance(value, Array) else value


def plain(value: object) -> Any:
    """A value of the pickle where one of JSON's scalars is due: anything else is the text "a list", "a dict", ….

    The text of a container is never made: one that holds another twice, which holds another twice, …, has no end.
    """
    short = isinstance(value, str) and len(value) <= 4096
    small = isinstance(value, int) and abs(value) < 2**63
    return value if value is None or short or small or isinstance(value, float) else f"a {type(value).__name__}"


def _empty_array(kind: Constructor, shape: object, code: object) -> Array:
    return Array()


def _dill_array(make: Constructor, arguments: object, state: tuple[Any, ...], attributes: object) -> NDArray[Any]:
    """dill's array: numpy's empty array, its state, and attributes of a subclass, of which there are none."""
    if make.name != "_reconstruct" or attributes:
        raise ValueError("an array of another class than numpy's")
    _, shape, dtype, fortran, content = state
    return array_of(content, dtype, shape, "F" if fortran else "C")


def _scalar(dtype: Dtype, content: bytes) -> Any:
    return array_of(content, dtype, ()).item()


def _tensor(value: object) -> Any:
    """TensorFlow's tensor, which is made of an array: that array."""
    return value_of(value)


def _latin1(text: str, encoding: str) -> bytes:
    """How old pickles spell bytes."""
    if encoding != "latin1":
        raise ValueError(f"bytes in {shown(encoding)!r}")
    return text.encode("latin1")


def _text_of(path: type[PurePosixPath] | type[PureWindowsPath]) -> Callable[..., str]:
    def text(*parts: str) -> str:
        return str(path(*parts))

    return text


PLAIN: Mapping[tuple[str, str], Constructor] = {
    ("numpy", "dtype"): Constructor("dtype", Dtype),
    ("numpy", "ndarray"): Constructor("ndarray"),
    **{
        (module, name): Constructor(name, make)
        for module in ("numpy.core.multiarray", "numpy._core.multiarray")
        for name, make in (("_reconstruct", _empty_array), ("scalar", _scalar))
    },
    ("dill._dill", "_create_array"): Constructor("_create_array", _dill_array),
    ("tensorflow.python.framework.ops", "convert_to_tensor"): Constructor("convert_to_tensor", _tensor),
    ("_codecs", "encode"): Constructor("encode", _latin1),
    **{
        (module, kind.__name__): Constructor(kind.__name__, kind)
        for module in ("builtins", "__builtin__")  # the second is how protocol 2 spells the first
        for kind in (complex, set, frozenset)
    },
    **{
        (module, name): Constructor(name, _text_of(PureWindowsPath if "Windows" in name else PurePosixPath))
        for module in ("pathlib", "pathlib._local")
        for name in ("Path", "PurePath", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")
    },
}
"""(module, name) in a pickle → what is made instead. Numbers, text, bytes and plain containers need no name."""


class PlainUnpickler(pickle.Unpickler):
    """Reads the values that `names` can make; `where`: source and member, for messages."""

    def __init__(
        self, content: bytes, names: Mapping[tuple[str, str], Constructor], where: tuple[str, str | None]
    ) -> None:
        super().__init__(io.BytesIO(content))
        self.names, self.where = names, where

    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) not in self.names:
            received = f"a call of {shown(module)}.{shown(name)}"
            raise ArchiveError(
                *self.where, expected="numbers, text, arrays and plain containers", received=received, remedy=_REMEDY
            )
        return self.names[module, name]


_REMEDY = f"Nothing was run. {ANOTHER_SOURCE}"


def check_instructions(content: bytes, where: tuple[str, str | None]) -> None:
    """Refuse instructions that plain values have no need of, and those that would fill the memory."""
    if len(content) > TEXT_LIMIT:
        raise ArchiveError(
            *where, expected=f"a pickle of at most {TEXT_LIMIT} bytes", received=len(content), remedy=_REMEDY
        )
    tuples = 0
    for number, (instruction, argument, _) in enumerate(pickletools.genops(content)):
        tuples += instruction.name in TUPLES
        if number > INSTRUCTION_LIMIT or tuples > TUPLE_LIMIT:
            expected = f"at most {INSTRUCTION_LIMIT} instructions, and {TUPLE_LIMIT} tuples"
            raise ArchiveError(*where, expected=expected, received="more of them", remedy=_REMEDY)
        if instruction.name not in INSTRUCTIONS:
            expected, received = "numbers, text, arrays and plain containers", f"the instruction {instruction.name}"
            raise ArchiveError(*where, expected=expected, received=received, remedy=_REMEDY)
        if instruction.name in REMEMBERING and int(str(argument)) > len(content):
            expected = "a pickle that fits its file"
            raise ArchiveError(*where, expected=expected, received=f"value number {argument} in it", remedy=_REMEDY)


def read_plain(content: bytes, source: str, member: str) -> Any:
    """The value that a pickle holds, made of plain ones. Raises ArchiveError for anything else; nothing is run."""
    where = (source, member)
    try:
        check_instructions(content, where)
        return PlainUnpickler(content, PLAIN, where).load()
    except ArchiveError:
        raise
    except MALFORMED as error:
        received = f"{type(error).__name__}: {shown(error)}"
        raise ArchiveError(
            source, member, expected="a whole pickle of plain values", received=received, remedy=_REMEDY
        ) from error


def read_mapping(content: bytes, source: str, member: str) -> dict[str, Any]:
    """The same of a pickle that holds a dictionary with names as keys, arrays in it as themselves."""
    value = read_plain(content, source, member)
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        received = f"a {type(value).__name__}"
        raise ArchiveError(
            source, member, expected="a dictionary of named values", received=received, remedy="Copy the archive again."
        )
    return {key: value_of(part) for key, part in value.items()}
