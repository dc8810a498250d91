"""Frames in any order, late, twice or never: each is placed once, and the end is that of an offline run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ptycho_core_reference import ReferenceEngine

from ptycho_core import ModelConfig, TrainingConfig, simulate, solve
from ptycho_core.errors import ConfigurationError, DataError
from ptycho_core.live import LiveReconstruction, Setup
from ptycho_core.live.spool import Numbers, Spool
from ptycho_core.models.canvas import WholeScan
from ptycho_core.models.model import Model
from ptycho_core.physics.canvas import canvas_extent
from ptycho_core.physics.illumination import Illumination
from ptycho_core.quality.evaluation import evaluate
from ptycho_core.quality.metrics import complex_correlation
from ptycho_core.runs.watch import watch_into
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.solving import loop
from tests.core.archives import tiny_model

FAST: dict[str, Any] = {"refine": "none", "modes": "1", "prior": "none", "batches": 4, "sweeps": 3, "split_half": False}


@pytest.fixture(autouse=True)
def reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "load_engine", lambda backend: ReferenceEngine())
    monkeypatch.setattr("ptycho_core.live.reconstruction.load_engine", lambda backend: ReferenceEngine())


@pytest.fixture(scope="module")
def scan() -> Scan:
    return simulate(N=16, positions=80, step_px=3, object="lines", photons=1e5, seed=3)


def shuffled(live: LiveReconstruction, scan: Scan, seed: int = 1) -> None:
    """Positions and patterns apart, in their own orders, some twice."""
    rng = np.random.default_rng(seed)
    amplitude = np.asarray(scan.diffraction_amplitude)
    frames, places = rng.permutation(len(scan)), rng.permutation(len(scan))
    for part in np.array_split(np.r_[frames, frames[:9]], 7):
        live.add(amplitude[part], None, frames=part)
        some, places = places[:13], places[13:]
        live.add(None, scan.positions_px[some], frames=some)
    live.add(None, scan.positions_px[places], frames=places)


def within(live: LiveReconstruction, scan: Scan) -> tuple[Any, Any]:
    """The object so far and where it is known, on the canvas of the scan."""
    (left, top), (height, width) = canvas_extent(scan.positions_px, scan.N)
    x, y = (int(a - b) for a, b in zip((left, top), live.origin_px, strict=True))
    field, known = live.known_field()
    return field[y : y + height, x : x + width], known[y : y + height, x : x + width]


def test_every_frame_is_placed_once_and_the_end_is_that_of_an_offline_run(scan: Scan) -> None:
    live = LiveReconstruction(SolveConfig(**FAST), Setup.of(scan, expected=80))
    shuffled(live, scan)
    report = live.report()
    assert (report.done, report.received, report.waiting, report.unplaced, report.duplicates) == (80, 80, 0, 0, 9)
    assert sorted(map(tuple, live.positions_px)) == sorted(map(tuple, scan.positions_px))
    offline = solve(scan, SolveConfig(**FAST))
    result = live.finish()
    np.testing.assert_array_equal(result.object_field, offline.object_field)
    np.testing.assert_array_equal(result.positions_px, offline.positions_px)
    live.close()


def test_the_first_image_does_not_depend_on_the_order_and_polishing_makes_it_better(scan: Scan) -> None:
    lives = [LiveReconstruction(SolveConfig(**FAST), Setup.of(scan, expected=80)) for _ in range(2)]
    for seed, live in enumerate(lives):
        live._begin(np.asarray(scan.diffraction_amplitude), scan.positions_px)  # the same scale, whatever comes first
        shuffled(live, scan, seed)
    (first, known), (second, _) = (within(live, scan) for live in lives)
    np.testing.assert_allclose(second[known], first[known], atol=1e-5)

    class Seen:
        probe, positions_px = scan.probe, scan.positions_px

    def correlation(live: LiveReconstruction) -> float:
        seen: Any = Seen()
        seen.object_field, seen.known = live.known_field()
        seen.origin_px = live.origin_px
        assert scan.object_field is not None
        return evaluate(seen, scan.object_field).metrics.correlation

    before = correlation(lives[0])
    lives[0].ended = True
    while lives[0].polish():
        pass
    assert lives[0].polished > 0 and correlation(lives[0]) > before + 0.02
    for live in lives:
        live.close()


def test_the_first_image_is_the_data_step_of_a_clear_object(scan: Scan) -> None:
    """Of one frame, with the damping of the step."""
    one = scan.subset(np.array([5]))
    live = LiveReconstruction(SolveConfig(**FAST), Setup.of(one, expected=1))
    live.add(np.asarray(one.diffraction_amplitude), one.positions_px)
    found, _ = within(live, one)
    illumination = Illumination.of(one, nphotons=1e9)
    whole = WholeScan.of(ReferenceEngine(), ExecutionConfig(), ModelConfig(N=16), one, illumination)
    expected = 1 + whole.correction(np.ones(whole.shape, np.complex64), 0.1)
    bright = whole.light > 0.2 * whole.light.max()
    assert complex_correlation(found, expected, bright) > 0.999
    live.close()


def test_what_was_killed_goes_on_with_what_had_come(scan: Scan, tmp_path: Path) -> None:
    amplitude, config = np.asarray(scan.diffraction_amplitude), SolveConfig(**FAST)
    for begin in range(0, 80, 20):  # started again and again, each time as after a kill: nothing is closed
        live = LiveReconstruction(config, Setup.of(scan, expected=80), folder=tmp_path)
        live.add(amplitude[max(0, begin - 5) : begin + 20], None, frames=np.arange(max(0, begin - 5), begin + 20))
        live.add(None, scan.positions_px[begin : begin + 20], frames=np.arange(begin, begin + 20))
        with (tmp_path / "frames.bin").open("ab") as file:
            file.write(b"half a frame")
    live = LiveReconstruction(config, Setup.of(scan, expected=80), folder=tmp_path)
    while live.place():
        pass
    assert live.report().done == 80
    np.testing.assert_array_equal(live.scan().diffraction_amplitude, amplitude)
    np.testing.assert_array_equal(live.scan().positions_px, scan.positions_px)


def test_a_position_that_comes_otherwise_is_counted_and_the_first_one_stays(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 4)
    numbers = np.array([3, 4])
    assert spool.add_positions(numbers, np.array([[1.0, 2], [3, 4]])).tolist() == [3, 4]
    assert spool.add_positions(numbers, np.array([[1.0, 2], [3, 5]])).tolist() == []
    assert spool.conflicts == 1 and spool.positions_of(numbers).tolist() == [[1, 2], [3, 4]]


def test_numbers_in_any_order_have_the_rows_in_which_they_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptycho_core.live.spool.MERGED", 7)
    numbers = np.random.default_rng(0).permutation(2**50 - np.arange(100) ** 2)
    known = Numbers()
    for part in np.split(numbers, [1, 1, 9, 30, 31, 70]):
        known.add(part)
        there = known.rows_of(numbers) >= 0
        np.testing.assert_array_equal(np.flatnonzero(there), np.arange(len(known)))
    np.testing.assert_array_equal(known.rows_of(numbers), np.arange(100))
    assert known.rows_of(numbers[:3] + 2**51).tolist() == [-1, -1, -1] and known.next == 2**50 + 1
    np.testing.assert_array_equal(known.all(), np.sort(numbers))


def test_a_network_of_one_frame_gives_what_it_gives_offline(
    scan: Scan, fake_engine: Any, numbered_scan: Any, tiny_architecture: None
) -> None:
    model = tiny_model()
    truth = numbered_scan(40, N=model.config.model.N)
    fake_engine.predict_truth_of(truth)
    live = LiveReconstruction(model, Setup.of(truth, expected=40))
    shuffled(live, truth)
    field, known = within(live, truth)
    result = live.finish()
    inside = known & (result.overlap_count > 0)
    np.testing.assert_allclose(field[inside], result.object_field[inside], atol=1e-4)
    live.close()


def test_what_does_not_fit_is_refused(scan: Scan, fake_engine: Any, tiny_architecture: None, tmp_path: Path) -> None:
    live = LiveReconstruction(SolveConfig(**FAST), Setup.of(scan))
    good = np.ones((2, 16, 16), np.float32)
    places = np.zeros((2, 2))
    for patterns, positions, message in (
        (good[:, :8], places, r"patterns: expected \(2, 16, 16\) real amplitudes"),
        (good.astype(int), places, "patterns"),
        (-good, places, "finite amplitudes >= 0"),
        (good, places * np.nan, "finite numbers"),
        (good, places[:1], "positions_px"),
    ):
        with pytest.raises(DataError, match=message):
            live.add(patterns, positions)
    assert live.report().received == 0
    live.close()
    model = tiny_model()
    with pytest.raises(DataError, match="as the model was trained"):
        LiveReconstruction(model, Setup.of(simulate(N=20, positions=5)))
    groups = Model(
        **{name: getattr(model, name) for name in ("weights", "history", "best_epoch", "engine")},
        config=TrainingConfig(model=ModelConfig(N=32, architecture="cnn", gridsize=2)),
    )
    with pytest.raises(ConfigurationError, match="gridsize"):
        LiveReconstruction(groups, Setup.of(simulate(N=32, positions=5)))
    with pytest.raises(ConfigurationError, match="gridsize"):  # before a frame has come
        watch_into(tmp_path / "out", Silent(), groups)
    assert not (tmp_path / "out").exists()


class Silent:
    """A source that nobody should ask."""

    def items(self, should_stop: Callable[[], bool]) -> Iterator[Any]:
        raise AssertionError
