"""Prefetching changes when results are made, never which, in which order, or what goes wrong."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho_core.batches.groups import draw_groups
from ptycho_core.batches.prefetch import AHEAD, Share, gathered, prefetch
from ptycho_core.physics.illumination import Illumination


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("ptycho-prefetch")]


def wait_for(condition: Callable[[], bool]) -> bool:
    """Whether it came true within a generous time."""
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)
    return condition()


def giving(items: Iterable[Any]) -> Iterator[Callable[[], Any]]:
    """A call for every item, which returns it."""
    return (functools.partial(lambda item: item, item) for item in items)


@settings(max_examples=25)
@given(items=st.lists(st.none() | st.integers()), workers=st.integers(0, 4))
def test_the_same_results_come_in_the_same_order(items: list[int | None], workers: int) -> None:
    assert list(prefetch(giving(items), workers)) == items


def test_order_is_kept_whichever_thread_is_first() -> None:
    delays = [0.03, 0.0, 0.02, 0.0, 0.01]
    calls = (functools.partial(lambda i, delay: time.sleep(delay) or i, *each) for each in enumerate(delays))
    assert list(prefetch(calls, 3)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("good", [0, 1, 5])
def test_an_exception_comes_at_the_place_of_the_result_that_failed(good: int, workers: int) -> None:
    def call(item: int) -> int:
        if item == good:
            raise LookupError("frame 7 is unreadable")
        return item

    results = prefetch((functools.partial(call, item) for item in range(good + 1)), workers)
    assert [next(results) for _ in range(good)] == list(range(good))
    with pytest.raises(LookupError, match="frame 7 is unreadable"):
        next(results)
    assert not threads()


def test_an_interrupt_of_a_call_reaches_the_consumer() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(prefetch([interrupted]))


@pytest.mark.parametrize("workers", [1, 2])
def test_each_thread_is_ahead_by_a_few_results_and_no_more(workers: int) -> None:
    made: list[int] = []
    calls = (functools.partial(made.append, item) for item in range(50))
    results = prefetch(calls, workers)
    for taken in range(1, 11):
        next(results)
        assert wait_for(functools.partial(lambda most: len(made) >= most, taken + AHEAD * workers)), (made, taken)
        time.sleep(0.002)
        assert len(made) == taken + AHEAD * workers
    results.close()


def test_without_threads_a_result_is_made_when_it_is_asked_for() -> None:
    made: list[int] = []
    results = prefetch((functools.partial(made.append, item) for item in range(3)), 0)
    next(results)
    assert made == [0]
    assert not threads()


def test_nothing_is_made_before_the_first_result_is_asked_for() -> None:
    made: list[int] = []
    results = prefetch(functools.partial(made.append, item) for item in range(3))
    time.sleep(0.02)
    assert made == []
    next(results)
    results.close()


def test_closing_early_stops_the_thread() -> None:
    results = prefetch(giving(range(10**9)))
    assert [next(results), next(results)] == [0, 1]
    assert len(threads()) == 1
    results.close()
    assert not threads()


def test_an_error_of_the_consumer_stops_the_thread_when_it_is_handled() -> None:
    def consume() -> None:
        for _ in prefetch(giving(range(10**9))):
            raise RuntimeError("consumer")

    with contextlib.suppress(RuntimeError):
        consume()
    assert wait_for(lambda: not threads())


def test_the_threads_do_not_keep_the_interpreter_alive() -> None:
    code = (
        "from ptycho_core.batches.prefetch import prefetch\n"
        "results = prefetch((lambda: 1) for _ in range(10**9))\n"
        "print(next(results))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "1\n"


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_gathered_ahead_are_the_batches_of_the_groups(numbered_scan: Any, workers: int) -> None:
    scan = numbered_scan(7)
    groups = draw_groups(scan.positions_px, np.random.default_rng(0), gridsize=2, n_groups=7, neighbor_count=4)
    order = np.array([3, 0, 6, 5, 1])
    lit = Illumination.of(scan, nphotons=1e9)
    settings = {"illumination": lit, "canvas_padding_px": 4, "order": order, "with_truth": True}
    expected = list(groups.batches(scan, 2, **settings))
    received = list(gathered([Share(groups=groups, scan=scan, **settings)], 2, workers=workers))
    assert [len(batch) for batch in received] == [2, 2, 1]
    for one, other in zip(received, expected, strict=True):
        np.testing.assert_array_equal(one.diffraction_amplitude, other.diffraction_amplitude)
        np.testing.assert_array_equal(one.relative_offsets_px, other.relative_offsets_px)
        np.testing.assert_array_equal(one.object_patches, other.object_patches)
        assert one.illumination is other.illumination is lit
        assert one.canvas_padding_px == 4


@pytest.mark.parametrize("workers", [0, 3])
def test_batches_of_several_scans_come_in_the_order_that_is_asked_for(
    numbered_scan: Any, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is of one scan and says which; a scan's own come as they would alone, gathered two at a time."""
    monkeypatch.setattr("ptycho_core.batches.groups.GATHERED_BYTES", 2 * 2 * 4 * 4 * 32**2)
    scans, orders = [numbered_scan(7), numbered_scan(9, seed=1)], [np.array([3, 0, 6, 5, 1]), np.arange(9)]
    shares = []
    for number, (scan, order) in enumerate(zip(scans, orders, strict=True), start=1):
        groups = draw_groups(scan.positions_px, np.random.default_rng(0), gridsize=2, n_groups=None, neighbor_count=4)
        lit = Illumination.of(scan, nphotons=1e9)
        shares.append(
            Share(groups=groups, scan=scan, illumination=lit, canvas_padding_px=4, order=order, number=number)
        )
    alone = [list(gathered([share], 2)) for share in shares]
    assert [share.batches(2) for share in shares] == [len(batches) for batches in alone] == [3, 5]
    turns = [1, 0, 1, 1, 0, 1, 0, 1]
    received = list(gathered(shares, 2, turns=turns, workers=workers))
    assert [batch.scan for batch in received] == [turn + 1 for turn in turns]
    for turn, batch in zip(turns, received, strict=True):
        expected = alone[turn].pop(0)
        np.testing.assert_array_equal(batch.diffraction_amplitude, expected.diffraction_amplitude)
        assert batch.illumination is shares[turn].illumination
    assert alone == [[], []]
    assert [batch.scan for batch in gathered(shares, 2, workers=workers)] == [1] * 3 + [2] * 5
