"""Every named change of layout moves each element where its name says, and pairs undo each other."""

from __future__ import annotations

import numpy as np
import pytest
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ptycho_core import layouts

sizes = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))


def numbered(*shape: int) -> NDArray[np.int64]:
    return np.arange(np.prod(shape)).reshape(shape)


@settings(max_examples=25)
@given(sizes=sizes)
@pytest.mark.parametrize(
    ("there", "back"),
    [(layouts.BHWC_TO_BCHW, layouts.BCHW_TO_BHWC), (layouts.HWIO_TO_OIHW, layouts.OIHW_TO_HWIO)],
    ids=["images", "kernels"],
)
def test_there_and_back_is_the_same_array(there: str, back: str, sizes: tuple[int, ...]) -> None:
    array = numbered(*sizes)
    np.testing.assert_array_equal(rearrange(rearrange(array, there), back), array)


@settings(max_examples=25)
@given(sizes=sizes, data=st.data())
def test_channels_move_behind_the_batch(sizes: tuple[int, ...], data: st.DataObject) -> None:
    b, h, w, c = (data.draw(st.integers(0, size - 1)) for size in sizes)
    array = numbered(*sizes)
    assert rearrange(array, layouts.BHWC_TO_BCHW)[b, c, h, w] == array[b, h, w, c]


@settings(max_examples=25)
@given(sizes=sizes, data=st.data())
def test_kernels_are_turned_to_output_first(sizes: tuple[int, ...], data: st.DataObject) -> None:
    h, w, i, o = (data.draw(st.integers(0, size - 1)) for size in sizes)
    array = numbered(*sizes)
    assert rearrange(array, layouts.HWIO_TO_OIHW)[o, i, h, w] == array[h, w, i, o]


@settings(max_examples=25)
@given(sizes=sizes)
def test_frames_of_a_group_are_consecutive_in_a_batch_of_single_frames(sizes: tuple[int, ...]) -> None:
    batch, _, _, channels = sizes
    array = numbered(*sizes)
    frames = rearrange(array, layouts.BHWC_TO_FRAMES)
    assert frames.shape == (batch * channels, *sizes[1:3], 1)
    for group in range(batch):
        for channel in range(channels):
            np.testing.assert_array_equal(frames[group * channels + channel, :, :, 0], array[group, :, :, channel])


@settings(max_examples=25)
@given(sizes=sizes)
def test_gathered_frames_become_the_channels_of_their_group(sizes: tuple[int, ...]) -> None:
    batch, channels, *_ = sizes
    frames = numbered(batch * channels, *sizes[2:])
    grouped = rearrange(frames, layouts.FRAMES_TO_BHWC, b=batch, c=channels)
    np.testing.assert_array_equal(np.moveaxis(grouped, -1, 1).reshape(frames.shape), frames)


@settings(max_examples=25)
@given(sizes=sizes)
def test_single_frames_go_back_to_their_group_and_channel(sizes: tuple[int, ...]) -> None:
    array = numbered(*sizes)
    frames = rearrange(array, layouts.BHWC_TO_FRAMES)
    grouped = rearrange(frames, layouts.FRAMES_TO_BCHW, c=sizes[-1])
    np.testing.assert_array_equal(grouped, rearrange(array, layouts.BHWC_TO_BCHW))


def test_offsets_have_x_and_y_on_axis_two() -> None:
    positions = numbered(3, 4, 2)  # (b, c, xy)
    offsets = rearrange(positions, layouts.BCXY_TO_OFFSETS)
    assert offsets.shape == (3, 1, 2, 4)
    np.testing.assert_array_equal(offsets[1, 0, 0], positions[1, :, 0])
    x, y = rearrange(offsets, layouts.OFFSETS_TO_XY)
    np.testing.assert_array_equal(x, positions[:, :, 0])
    np.testing.assert_array_equal(y, positions[:, :, 1])
