"""Tests of reports and figures look at real ones."""

import pytest


@pytest.fixture(autouse=True)
def _real(pages: None) -> None:
    pass
