"""The examples in the docstrings of the core give what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import ptycho_core

PACKAGE = Path(ptycho_core.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


def test_there_are_examples() -> None:
    assert {"ptycho_core.simulation", "ptycho_core.errors", "ptycho_core.quality.frc"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    failed, attempted = doctest.testmod(importlib.import_module(name))
    assert attempted > 0
    assert failed == 0, "the difference is in what was printed"
