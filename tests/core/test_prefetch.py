"""Prefetching changes when items are made, never which, in which order, or what goes wrong."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho_core.prefetch import prefetch


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ptycho-prefetch"]


def wait_for(condition: Callable[[], bool]) -> bool:
    """Whether it came true within a generous time."""
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)
    return condition()


@settings(max_examples=25, deadline=None)
@given(items=st.lists(st.none() | st.integers()), ahead=st.integers(1, 4))
def test_the_same_items_come_in_the_same_order(items: list[int | None], ahead: int) -> None:
    assert list(prefetch(items, ahead)) == items


@pytest.mark.parametrize("good", [0, 1, 5])
def test_an_exception_comes_at_the_place_of_the_item_that_failed(good: int) -> None:
    def produce() -> Iterator[int]:
        yield from range(good)
        raise LookupError("frame 7 is unreadable")

    items = prefetch(produce())
    assert [next(items) for _ in range(good)] == list(range(good))
    with pytest.raises(LookupError, match="frame 7 is unreadable"):
        next(items)
    assert not threads()


def test_an_interrupt_of_the_producer_reaches_the_consumer() -> None:
    def produce() -> Iterator[int]:
        raise KeyboardInterrupt
        yield 1

    with pytest.raises(KeyboardInterrupt):
        next(prefetch(produce()))


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_at_most_ahead_items_and_the_one_in_hand_are_made_early(ahead: int) -> None:
    made: list[int] = []

    def produce() -> Iterator[int]:
        for item in range(50):
            made.append(item)
            yield item

    items = prefetch(produce(), ahead)
    for taken in range(1, 11):
        next(items)
        assert wait_for(functools.partial(lambda most: len(made) >= most, taken + ahead + 1)), (made, taken)
        time.sleep(0.002)
        assert len(made) == taken + ahead + 1
    items.close()  # type: ignore[attr-defined]


def test_nothing_is_made_before_the_first_item_is_asked_for() -> None:
    made: list[int] = []
    items = prefetch(made.append(item) or item for item in range(3))
    time.sleep(0.02)
    assert made == []
    assert next(items) == 0
    items.close()  # type: ignore[attr-defined]


def test_closing_early_stops_the_thread() -> None:
    items = prefetch(iter(range(10**9)))
    assert [next(items), next(items)] == [0, 1]
    assert len(threads()) == 1
    items.close()  # type: ignore[attr-defined]
    assert not threads()


def test_an_error_of_the_consumer_stops_the_thread_when_it_is_handled() -> None:
    def consume() -> None:
        for _ in prefetch(iter(range(10**9))):
            raise RuntimeError("consumer")

    with contextlib.suppress(RuntimeError):
        consume()
    assert wait_for(lambda: not threads())


def test_the_thread_does_not_keep_the_interpreter_alive() -> None:
    items = prefetch(iter(range(10**9)))
    next(items)
    assert threads()[0].daemon
    items.close()  # type: ignore[attr-defined]
