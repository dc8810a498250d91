"""Bands of a canvas: every frame has a process whose band holds it wherever it moves, every row is one's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ptycho_core.engine.processes import Processes
from ptycho_core.scans.scan import Scan
from ptycho_core.solving.bands import Bands, bands_of, shared_rows
from ptycho_core.solving.problem import Task, bounds
from tests.processes import together

N, ROOM = 8, 3


def task_at(positions_px: np.ndarray) -> Task:
    amplitude = np.ones((len(positions_px), N, N), np.float32)
    origin, shape = bounds(positions_px, N, ROOM)
    return Task(
        scan=Scan(diffraction_amplitude=amplitude, positions_px=positions_px, probe=np.ones((1, N, N))),
        origin_px=origin,
        shape=shape,
        room_px=ROOM,
        counts_per_intensity=1.0,
        held_out=np.zeros((1, N, N), bool),
        pattern=np.zeros(len(positions_px), np.int64),
    )


@st.composite
def tasks(draw: st.DrawFn) -> Task:
    """Scans that are long, wide or of one place, in any order."""
    count = draw(st.integers(1, 40))
    places = draw(arrays(np.float64, (count, 2), elements=st.floats(-9, 9, width=32)))
    return task_at(places * draw(st.sampled_from([(1, 1), (1, 9), (9, 1), (0, 0), (0, 30)])))


SIZES = st.integers(1, 7)


@settings(max_examples=60)
@given(tasks(), SIZES, st.integers(1, 40), st.randoms(use_true_random=False))
def test_a_batch_is_shared_out_whole_to_processes_whose_bands_hold_every_move(
    task: Task, size: int, batches: int, random: np.random.Generator
) -> None:
    frames = list(range(len(task)))
    random.shuffle(frames)
    batch = np.sort(frames[: -(-len(task) // batches)])
    shares, measured = [], []
    for rank in range(size):
        bands = Bands(task, len(batch), Processes(rank, size))
        share = bands.share(batch)
        shares.append(share)
        measured.append(bands.frames)
        held = np.union1d(share, bands.frames)
        corners = task.corners_px(task.scan.positions_px[held])[:, 1 - bands.axis]
        assert np.all(np.floor(corners - ROOM) >= bands.own.low)
        assert np.all(np.floor(corners + ROOM) + N + 1 <= bands.own.high)
        np.testing.assert_array_equal(share, np.sort(share))
    np.testing.assert_array_equal(np.sort(np.concatenate(shares)), batch)
    np.testing.assert_array_equal(np.sort(np.concatenate(measured)), np.arange(len(task)))


@settings(max_examples=60)
@given(tasks(), SIZES)
def test_every_row_is_the_own_of_one_process_and_those_of_two_are_shared(task: Task, size: int) -> None:
    axis, _, bands = bands_of(task, 4.0, size)
    length = task.shape[axis]
    assert task.shape[axis] == max(task.shape)
    assert [bands[0].start, *(band.stop for band in bands)] == [*(band.start for band in bands), length]
    assert all(band.low <= band.start <= band.stop <= band.high for band in bands)
    held = np.zeros((size, length), bool)
    for rank, band in enumerate(bands):
        held[rank, band.low : band.high] = True
    assert held.any(axis=0).all()
    shared = np.flatnonzero(held.sum(axis=0) > 1)
    for rank, band in enumerate(bands):
        rows = shared_rows(bands, rank, axis, length)
        assert rows.count == len(shared)
        told = np.full(len(shared), -1)
        for start, stop, there in rows.held:
            told[there : there + stop - start] = np.arange(start, stop) + band.low
        np.testing.assert_array_equal(told, np.where(held[rank, shared], shared, -1))


@pytest.mark.parametrize("stretch", [(1, 6), (6, 1)])
def test_a_canvas_is_put_together_of_its_bands_and_its_light_of_everybodys_frames(stretch: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    task = task_at(rng.uniform(0, 20, (30, 2)) * stretch)
    probe = rng.normal(size=(1, N, N)).astype(np.complex64)
    canvas = rng.normal(size=(*task.shape, 2))
    light = task.light(probe, task.scan.positions_px)

    def work(processes: Processes) -> tuple[np.ndarray, np.ndarray, float, int]:
        bands = Bands(task, 30, processes)
        own = bands.light(probe, task.scan.positions_px)
        return bands.whole(bands.cut(canvas)), bands.whole(own), bands.largest(own), own.size

    for again, lit, largest, held in together(3, work):
        np.testing.assert_array_equal(again, canvas)
        np.testing.assert_allclose(lit, light, atol=1e-12 * light.max())
        assert largest == pytest.approx(light.max())
        assert held < 0.8 * light.size
