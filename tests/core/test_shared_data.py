"""Real data that are absent are no silent pass where they are required."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shared_data import REQUIRE, absent, shared


def test_absent_data_are_skipped_or_a_failure_where_they_are_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.shared_data.SHARED", Path("nowhere"))
    monkeypatch.delenv(REQUIRE, raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"no nowhere/star"):
        shared("star")
    monkeypatch.setenv(REQUIRE, "1")
    with pytest.raises(pytest.fail.Exception, match="PTYCHO_REQUIRE_DATA is set, and there is no nowhere"):
        absent(Path("nowhere"))
    assert f"{REQUIRE}=1" in (Path(__file__).parents[2] / ".ci" / "run").read_text()
