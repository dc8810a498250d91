"""Errors are values: their fields, the one line that is made of them, and their way through a pickle."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from ptycho_core import errors
from ptycho_core.errors import DataError, PtychoError

CLASSES = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, PtychoError)]


def full() -> DataError:
    return DataError(Path("scan.npz"), "diff3d", expected="(M, N, N)", received=(3, 4), remedy="Transpose it.")


def test_fields_are_text() -> None:
    error = full()
    assert (error.source, error.key, error.expected) == ("scan.npz", "diff3d", "(M, N, N)")
    assert (error.received, error.remedy) == ("(3, 4)", "Transpose it.")


def test_line_of_all_fields() -> None:
    assert str(full()) == "scan.npz: diff3d: expected (M, N, N); received (3, 4). Transpose it."


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (DataError("free text."), "free text."),
        (DataError("a", expected="b", received="c", remedy="D."), "a: expected b; received c. D."),
        (DataError("a", "k", received="c"), "a: k: c"),
        (DataError("a", expected=0, received=0), "a: expected 0; received 0"),
    ],
)
def test_line_of_some_fields(error: PtychoError, line: str) -> None:
    assert str(error) == line


def test_placed_is_the_same_error_behind_its_place() -> None:
    error = full()
    placed = error.placed(Path("run.toml")).placed("run 3")
    assert str(placed) == f"run 3: run.toml: {error}"
    assert type(placed) is DataError and placed.key == "diff3d" and error.places == ()


@pytest.mark.parametrize("cls", CLASSES)
def test_pickled_with_every_field(cls: type[PtychoError]) -> None:
    error = cls("a", "k", expected="b", received=ValueError("c"), remedy="D.").placed("p")
    copied = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(copied) is cls and str(copied) == str(error)
    assert vars(copied) == vars(error)
