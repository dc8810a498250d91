"""Settings that are lists in words: frames, numbers, kinds (specs/data.md, Readers)."""

from __future__ import annotations

import re
from collections.abc import Callable

DROPPED = ("empty", "outliers", "nan", "unplaced", "stray", "unwritten")
MASKED = ("nan", "negative", "saturated")
_RANGE = re.compile(r"(\d{1,12})(?:-(\d{1,12}))?")


def frame_slice(text: str) -> slice:
    """`10:500:2` as a slice; ValueError for anything else."""
    words = text.strip().split(":")
    if len(words) not in (2, 3):
        raise ValueError(text)
    start, stop, step = (int(word) if word.strip() else None for word in [*words, ""][:3])
    if step == 0:
        raise ValueError(text)
    return slice(start, stop, step)


def frame_list(text: str) -> tuple[tuple[range, ...], frozenset[str]]:
    """`7,50-60,empty` as ranges of frames and kinds of them; ValueError for anything else."""
    numbers, kinds = [], set()
    for word in (word.strip().lower() for word in text.split(",")):
        match = _RANGE.fullmatch(word)
        if match:
            first = int(match[1])
            numbers.append(range(first, int(match[2] or first) + 1))
        elif word in DROPPED:
            kinds.add(word)
        else:
            raise ValueError(word)
    return tuple(numbers), frozenset(kinds)


def loss_weights(text: str) -> dict[str, float]:
    """`smooth=0.1,log_error=0.5` as weights by name; ValueError for anything else."""
    weights: dict[str, float] = {}
    for word in text.split(",") if text.strip() else ():
        name, equals, number = (part.strip() for part in word.partition("="))
        weight = float(number)
        if not name or not equals or not 0 <= weight < float("inf") or name.lower() in weights:
            raise ValueError(word)
        weights[name.lower()] = weight
    return weights


def mask_kinds(text: str) -> frozenset[str]:
    """`nan,saturated` as kinds of pixels; ValueError for anything else."""
    kinds = frozenset(word.strip().lower() for word in text.split(","))
    if not kinds <= set(MASKED):
        raise ValueError(text)
    return kinds


def numbers(text: str) -> tuple[float, ...]:
    """`1,0.5` as numbers; ValueError for what is none, or not finite."""
    values = tuple(float(word) for word in text.split(","))
    if not all(abs(value) < float("inf") for value in values):
        raise ValueError(text)
    return values


def as_words(parse: Callable[[str], object], allowed: str) -> Callable[[object], str | None]:
    """The check of a field that `parse` understands."""

    def check(value: object) -> str | None:
        try:
            parse(str(value))
        except ValueError:
            return allowed
        return None

    return check


def _counts(text: str) -> None:
    values = numbers(text)
    if len(values) != 2 or not all(value >= 1 and value == int(value) for value in values):
        raise ValueError(text)


def _steps(text: str) -> None:
    values = numbers(text)
    if len(values) not in (1, 2) or 0 in values:
        raise ValueError(text)


def _matrix(text: str) -> None:
    a, b, c, d = numbers(text)
    if a * d == b * c:
        raise ValueError(text)


is_frame_slice = as_words(frame_slice, "START:STOP or START:STOP:STEP, such as 10:500:2")
is_frame_list = as_words(
    frame_list, f"numbers, ranges and kinds with commas, such as 7,50-60,empty; kinds: {', '.join(DROPPED)}"
)
is_loss_weights = as_words(loss_weights, "NAME=WEIGHT with commas, weights of 0 or more, such as smooth=0.1")
is_mask = as_words(mask_kinds, f"some of {', '.join(MASKED)}, with commas")
is_shape = as_words(_counts, "ROWS,COLUMNS, such as 64,48")
is_step = as_words(_steps, "one number, or two as ALONG-ROWS,ALONG-COLUMNS (y,x), not 0")
is_matrix = as_words(_matrix, "four numbers a,b,c,d with a d - b c not 0")
