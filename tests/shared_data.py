"""Real data, which a clone lacks: tests of them are skipped then, or fail where PTYCHO_REQUIRE_DATA is set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

REQUIRE = "PTYCHO_REQUIRE_DATA"
SHARED = Path(os.environ.get("PTYCHO_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


def absent(path: Path) -> NoReturn:
    """Skip the test, or fail it where the data are required."""
    if os.environ.get(REQUIRE):
        pytest.fail(f"{REQUIRE} is set, and there is no {path}", pytrace=False)
    pytest.skip(f"no {path}: set PTYCHO_SHARED_DATA")


def shared(*names: str) -> Path:
    """A file or folder of the real data."""
    path = SHARED.joinpath(*names)
    if not path.exists():
        absent(path)
    return path
