"""A split's parts share no frame, leave none out unasked, and follow from the seed."""

from __future__ import annotations

import json
from typing import Any

import attrs
import numpy as np
import pytest

from ptycho_core.errors import ConfigurationError
from ptycho_core.scans.frames import Frames
from ptycho_core.scans.scan import Scan
from ptycho_core.scans.splitting import Split, split
from ptycho_core.storage.source import ArraySource
from tests.core.conftest import make_numbered_scan

CASES = [(count, fraction, seed) for seed, (count, fraction) in enumerate([(2, 0.01), (7, 0.5), (40, 0.2), (41, 0.99)])]


def scan_of(count: int, seed: int = 0, **changes: Any) -> Scan:
    return make_numbered_scan(count, N=8, seed=seed, spread=60, **changes)


def assert_every_frame_once(parts: Split, count: int) -> None:
    together = np.concatenate([parts.train_index, parts.test_index, parts.left_out])
    np.testing.assert_array_equal(np.sort(together), np.arange(count))


@pytest.mark.parametrize(("count", "fraction", "seed"), CASES)
@pytest.mark.parametrize("how", ["spatial", "random"])
def test_the_parts_are_disjoint_complete_and_of_the_size_asked_for(
    how: Any, count: int, fraction: float, seed: int
) -> None:
    scan = scan_of(count, seed)
    parts = split(scan, fraction, how, seed=seed)
    assert_every_frame_once(parts, count)
    assert len(parts.left_out) == 0
    assert len(parts.test) == min(max(round(fraction * count), 1), count - 1)
    for part, index in ((parts.train, parts.train_index), (parts.test, parts.test_index)):
        np.testing.assert_array_equal(part.scan_index, index)  # in the scan's own order
        np.testing.assert_array_equal(part.positions_px, scan.positions_px[index])
        np.testing.assert_array_equal(part.diffraction_amplitude[:, 0, 0], index + 1)


@pytest.mark.parametrize(("axis", "column"), [("x", 0), ("y", 1)])
def test_a_spatial_split_is_a_cut_across_one_axis(axis: Any, column: int) -> None:
    parts = split(scan_of(50), 0.3, axis=axis)
    assert parts.cut_px is not None
    assert parts.train.positions_px[:, column].max() < parts.cut_px < parts.test.positions_px[:, column].min()


def test_the_longer_axis_is_cut_unless_one_is_named() -> None:
    scan = scan_of(30)
    assert split(attrs.evolve(scan, positions_px=scan.positions_px * [3, 1])).axis == "x"
    assert split(attrs.evolve(scan, positions_px=scan.positions_px * [1, 3])).axis == "y"


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.8])
def test_a_margin_keeps_patches_of_the_two_sides_apart(fraction: float) -> None:
    scan = scan_of(200)
    parts = split(scan, fraction, axis="y", margin_px=scan.N + 1)
    assert_every_frame_once(parts, 200)
    assert len(parts.left_out) > 0
    gap = parts.test.positions_px[:, 1].min() - parts.train.positions_px[:, 1].max()
    assert gap >= scan.N + 1


def test_equal_coordinates_are_shared_out_in_order_or_all_left_out() -> None:
    rows = np.repeat(np.arange(3.0), 4)
    scan = scan_of(12, positions_px=np.stack([np.tile(np.arange(4.0), 3), rows], axis=1))
    parts = split(scan, 0.5, axis="y")
    np.testing.assert_array_equal(parts.test_index, np.arange(6, 12))
    parts = split(scan, 0.5, axis="y", margin_px=0.5)
    np.testing.assert_array_equal(parts.left_out, np.arange(4, 8))


def test_a_random_split_follows_from_its_seed() -> None:
    scan = scan_of(60)
    first, same, other = (split(scan, 0.4, "random", seed=seed).test_index for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


class Unreadable(ArraySource):
    def read(self, index: Any) -> Any:
        raise AssertionError("a split reads no pattern")

    blocks_read = 0

    def blocks(self, count: int) -> Any:
        self.blocks_read += 1
        return super().blocks(count)


@pytest.mark.parametrize("how", ["spatial", "random"])
def test_patterns_in_a_file_stay_there(how: Any) -> None:
    source = Unreadable(np.asarray(scan_of(20).diffraction_amplitude))
    parts = split(scan_of(20, diffraction_amplitude=Frames(source)), 0.5, how)
    assert isinstance(parts.train.diffraction_amplitude, Frames)
    assert isinstance(parts.test.diffraction_amplitude, Frames)
    assert source.blocks_read == 1  # when the scan itself was checked


def test_the_summary_is_json() -> None:
    plain = json.loads(json.dumps(split(scan_of(10), 0.3, axis="x").as_dict(), allow_nan=False))
    assert (plain["how"], plain["axis"], plain["train_frames"], plain["test_frames"]) == ("spatial", "x", 7, 3)
    assert json.loads(json.dumps(split(scan_of(10), 0.3, "random", seed=4).as_dict()))["seed"] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"test_fraction": 0}, "split: test_fraction must be a number between 0 and 1; got 0. "),
        ({"test_fraction": 1.0}, "test_fraction must be a number between"),
        ({"test_fraction": float("nan")}, "test_fraction must be a number between"),
        ({"test_fraction": True}, "test_fraction must be a number between"),
        ({"how": "diagonal"}, "how must be 'spatial' or 'random'; got 'diagonal'"),
        ({"axis": "z"}, "axis must be 'x', 'y' or none"),
        ({"margin_px": -1}, "margin_px must be a number of pixels >= 0"),
        ({"how": "random", "margin_px": 3}, "margin_px must be none in a random split; got 3"),
        ({"how": "random", "axis": "x"}, "axis must be none in a random split; got 'x'"),
        (
            {"margin_px": 1e4},
            "margin_px must be small enough to leave patterns on both sides of the cut; got 0 for training, 0 for",
        ),
    ],
)
def test_what_cannot_be_split_is_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        split(scan_of(10), **arguments)
    assert message in str(refusal.value)


def test_a_single_frame_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="split: scan must be one of at least 2 patterns; got 1"):
        split(scan_of(1))
