"""What is refused, as a value: the class of the error, its fields, and words of its line."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from ptycho_core.errors import PtychoError


def refusal_of(call: Callable[[], Any], cls: type[PtychoError], *words: str, **fields: str | None) -> PtychoError:
    """The error that the call raises: exactly of `cls`, with these fields, and every one of `words` in its line."""
    with pytest.raises(cls) as caught:
        call()
    error = caught.value
    assert type(error) is cls
    assert {name: getattr(error, name) for name in fields} == fields
    for part in words:
        assert part in str(error)
    return error


def says(message: str, words: str) -> None:
    """The message is these words; `…` stands for any others."""
    assert re.fullmatch(".*".join(map(re.escape, words.split("…"))), message, re.DOTALL), message
