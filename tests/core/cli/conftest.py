"""What tests of commands that solve share."""

from __future__ import annotations

import pytest
from ptycho_core_reference import ReferenceEngine

from ptycho_core.solving import loop


@pytest.fixture
def solved_by_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference engine in the place of all, and no pictures: they take seconds."""
    monkeypatch.setattr(loop, "load_engine", lambda backend: ReferenceEngine())
    monkeypatch.setattr("ptycho_core.runs.prepare.find_engine", lambda backend: ReferenceEngine)
    monkeypatch.setattr("ptycho_core.runs.solve.draw", lambda *arguments, **keywords: None)
