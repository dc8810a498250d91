"""The border of the merge canvas holds every group that may be drawn."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_core.batches.neighbours import largest_reach_px
from ptycho_core.errors import ConfigurationError
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.training.data import TrainingData
from tests.networks import cnn


def test_the_border_follows_from_the_pool_that_groups_are_drawn_from() -> None:
    """Not from the neighbours alone: with oversampling, members come from a larger pool."""
    x, y = np.meshgrid(np.arange(8) * 3.0, np.arange(8) * 3.0)
    positions = np.stack([x.ravel(), y.ravel()], axis=1)
    scan = Scan(diffraction_amplitude=np.ones((64, 16, 16)), positions_px=positions, probe=np.ones((16, 16)))
    model = cnn(N=16, gridsize=2)
    config = TrainingConfig(model=model, neighbor_count=4, enable_oversampling=True, neighbor_pool_size=20, n_groups=64)
    near, far = (largest_reach_px(positions, channels=4, neighbor_count=count) for count in (4, 20))
    assert near < far
    assert TrainingData(scan, config).canvas_padding_px() == far


def test_groups_on_a_canvas_are_drawn_from_as_many_neighbours_as_span_the_probe() -> None:
    """Of a dense scan; of a sparse one, and where the number is stated, they are the nearest."""
    y, x = np.mgrid[:16, :16] - 8
    probe = np.exp(-(x**2 + y**2) / (2 * 4.0**2))  # of its intensity the rms radius is 4
    columns, rows = np.meshgrid(np.arange(60.0), np.arange(60.0))
    grid = np.stack([columns.ravel(), rows.ravel()], axis=1)

    def reach(step: float, **settings: int) -> float:
        scan = Scan(diffraction_amplitude=np.ones((3600, 16, 16), np.float32), positions_px=step * grid, probe=probe)
        model = ModelConfig(architecture="canvas", N=16, group_size=9)
        data = TrainingData(scan, TrainingConfig(model=model, **settings), on_canvas=True)  # type: ignore[arg-type]
        positions = scan.positions_px[data.draw(np.random.default_rng(0), 400).indices]
        assert data.canvas_padding_px() >= np.abs(positions - positions.mean(axis=1, keepdims=True)).max()
        return float(np.sqrt(positions.var(axis=1).sum(axis=1)).mean())

    nearest = np.sqrt(2 * 2 / 3)  # 3 × 3 steps
    assert reach(3.0) / 3.0 == pytest.approx(nearest, rel=0.1)
    assert reach(0.4, neighbor_count=8) / 0.4 == pytest.approx(nearest, rel=0.1)
    assert reach(0.4) == pytest.approx(4 / np.sqrt(2) * np.sqrt(8 / 9), rel=0.1)  # nine points of a disk of that radius


def test_a_scan_of_fewer_positions_than_groups_by_default_is_trained_on() -> None:
    rng = np.random.default_rng(0)
    positions = rng.uniform(20, 40, (30, 2))
    scan = Scan(diffraction_amplitude=np.ones((30, 16, 16)), positions_px=positions, probe=np.ones((16, 16)))
    model = cnn(N=16, gridsize=2)
    assert len(TrainingData(scan, TrainingConfig(model=model)).draw(rng)) == 30
    with pytest.raises(ConfigurationError, match="n_groups must be at most 30"):
        TrainingData(scan, TrainingConfig(model=model, n_groups=31)).draw(rng)
