"""What a solve is about."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest

from ptycho_core.batches.held_out import held_out_patterns
from ptycho_core.errors import ConfigurationError, DataError
from ptycho_core.scans.scan import Scan
from ptycho_core.solving import problem
from ptycho_core.solving.problem import begun, in_the_middle, part, scaled
from tests.core.solving.conftest import small


def test_every_pixel_is_held_out_of_its_part_of_the_patterns() -> None:
    held = held_out_patterns(32, 0.03, np.random.default_rng(0))
    assert held.shape == (64, 32, 32)
    often = held.sum(axis=0)
    assert set(np.unique(often)) == {1, 2}, "0.03 of 64 patterns is 1.92"
    assert held.mean() == pytest.approx(0.03, abs=0.001)
    assert held.mean(axis=(1, 2)).min() > 0.01
    assert held.mean(axis=(1, 2)).max() < 0.06


@pytest.mark.parametrize("part_", [1e-6, 0.25, 0.5])
def test_any_part_may_be_held_out(part_: float) -> None:
    assert held_out_patterns(64, part_, np.random.default_rng(1)).mean() == pytest.approx(part_, rel=0.02, abs=1e-5)


def test_patterns_of_held_out_pixels_follow_from_the_seed_and_are_used_evenly(solved_scan: Scan) -> None:
    one, same, other = (begun(solved_scan, small(seed=seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.held_out, same.held_out)
    np.testing.assert_array_equal(one.pattern, same.pattern)
    assert not np.array_equal(one.held_out, other.held_out)
    assert np.bincount(one.pattern, minlength=64).max() == 1, "40 frames, 64 patterns"


def test_the_canvas_holds_every_patch_and_room_to_move(solved_scan: Scan) -> None:
    fixed, moving = begun(solved_scan, small()), begun(solved_scan, small(refine="positions"))
    for task, room in ((fixed, 0), (moving, 6)):
        corners = task.corners_px(solved_scan.positions_px)
        assert np.floor(corners).min() == room
        height, width = task.shape
        assert (height, width) == tuple(np.floor(corners).max(axis=0)[::-1].astype(int) + 16 + 1 + room)


def test_a_part_has_a_canvas_of_its_own_or_that_of_the_whole(solved_scan: Scan) -> None:
    task = begun(solved_scan, small())
    index = in_the_middle(solved_scan.positions_px, 9)
    fewer, same = part(task, index), part(task, index, same_canvas=True)
    assert len(fewer) == len(same) == 9
    assert fewer.shape < task.shape == same.shape
    np.testing.assert_array_equal(fewer.pattern, task.pattern[index])
    assert fewer.corners_px(fewer.scan.positions_px).min() >= 0


def test_the_frames_in_the_middle_are_the_nearest_ones() -> None:
    positions = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0)), axis=-1).reshape(-1, 2)
    np.testing.assert_array_equal(in_the_middle(positions, 5), [7, 11, 12, 13, 17])


def test_a_scaled_probe_puts_the_mean_intensity_into_the_good_pixels(solved_scan: Scan) -> None:
    bad = np.zeros((16, 16), bool)
    bad[6:9, 5:8] = True
    scan = attrs.evolve(solved_scan, bad_pixels=bad)
    probe = scaled(scan, 3 * scan.probe)
    beam = np.fft.fftshift(np.abs(np.fft.fft2(probe[0], norm="ortho")) ** 2)
    assert beam[~bad].sum() == pytest.approx(scan.statistics.frame_intensity.mean(), rel=1e-5)


def test_the_light_is_the_probe_at_every_position(solved_scan: Scan) -> None:
    task = begun(solved_scan, small())
    light = task.light(scaled(solved_scan, solved_scan.probe), solved_scan.positions_px)
    assert light.shape == task.shape
    total = np.square(np.abs(scaled(solved_scan, solved_scan.probe))).sum() * len(task)
    assert light.sum() == pytest.approx(total, rel=1e-5)


def test_a_batch_that_would_not_fit_into_memory_is_divided(solved_scan: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    assert problem.batch_count(solved_scan, 4) == 4
    monkeypatch.setattr(problem, "BATCH_BYTES", 2 * 4 * 16**2)
    assert problem.batch_count(solved_scan, 4) == 20, "two frames each"


# -- refused -----------------------------------------------------------------------------------------------------------


def refused(scan: Scan, error: type[Exception], **changes: Any) -> str:
    with pytest.raises(error) as caught:
        begun(scan, small(**changes))
    return str(caught.value)


def test_fewer_frames_than_batches_are_refused(solved_scan: Scan) -> None:
    message = refused(solved_scan.subset(slice(3)), ConfigurationError)
    assert message.startswith("SolveConfig: batches must be at most 3, the frames of ")
    assert "got 4. Set batches to 3 or less." in message


def test_the_usual_batches_are_no_more_than_frames(solved_scan: Scan, core_log: pytest.LogCaptureFixture) -> None:
    few = solved_scan.subset(slice(3))
    begun(few, small(batches=32))
    assert "3 batches per sweep, one for each pattern, in place of 32" in core_log.text
    assert problem.batch_count(few, 32) == 3


def test_more_modes_than_frames_are_refused(solved_scan: Scan) -> None:
    message = refused(solved_scan.subset(slice(2)), ConfigurationError, batches=2, modes=3, refine="probe")
    assert message.startswith("SolveConfig: modes must be at most 2, the frames of ")


def test_positions_that_do_not_overlap_are_refused(solved_scan: Scan) -> None:
    apart = attrs.evolve(solved_scan, positions_px=solved_scan.positions_px * 20)
    message = refused(apart, DataError)
    assert "xcoords, ycoords: expected patches of 16 px that overlap; received a median distance of" in message
    assert "--position-unit" in message


def test_an_odd_number_of_pixels_is_refused(solved_scan: Scan) -> None:
    amplitude, probe = solved_scan.diffraction_amplitude[:, :15, :15], solved_scan.probe[:, :15, :15]
    bad = np.zeros((15, 15), bool)
    message = refused(
        attrs.evolve(solved_scan, diffraction_amplitude=amplitude, probe=probe, bad_pixels=bad), DataError
    )
    assert "diff3d: expected an even number of pixels in either direction; received 15 x 15." in message


def test_a_canvas_beyond_the_memory_is_refused_with_its_size(
    solved_scan: Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptycho_core.storage.memory.memory", lambda: 1000)
    message = refused(solved_scan, DataError)
    height, width = begun_shape(solved_scan, monkeypatch)
    assert f"received {width} x {height} object pixels, which take" in message
    assert "expected what fits into memory, 0.0 GiB" in message


def begun_shape(scan: Scan, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    monkeypatch.undo()
    return begun(scan, small()).shape


def test_a_probe_without_light_in_the_good_pixels_is_refused(solved_scan: Scan) -> None:
    good = np.zeros((16, 16), bool)
    good[0, 0] = True
    far = np.zeros((16, 16), np.complex64)
    far[8, 8] = 1
    probe = np.fft.ifft2(np.fft.ifftshift(far))[None].astype(np.complex64)
    scan = attrs.evolve(solved_scan, bad_pixels=~good, probe=probe)
    with pytest.raises(DataError, match="probe: expected light in the good pixels; received none"):
        scaled(scan, np.round(probe, 6))
