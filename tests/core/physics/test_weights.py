"""Masks, weights and thresholds at the numbers of the specification."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from ptycho_core.physics.suitability import warn_if_ambiguous
from ptycho_core.physics.weights import MERGE_EPSILON, PROBE_WEIGHT_FLOOR, reassembly_weight, rms_radius_px
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.training import TrainingConfig
from tests.networks import cnn


def test_the_constants_of_a_merge_are_those_of_the_specification() -> None:
    """Engines and their reference share them: nothing else would notice another value."""
    assert MERGE_EPSILON == {"probe": 1e-6, "uniform": 1e-6, "central": 1e-3}
    assert PROBE_WEIGHT_FLOOR == 1e-3


def test_the_rms_radius_of_a_probe_is_about_its_centroid() -> None:
    y, x = np.mgrid[:64, :64]
    assert rms_radius_px(np.exp(-((x - 20) ** 2 + (y - 35) ** 2) / (2 * 5.0**2))) == pytest.approx(5 * np.sqrt(2), 1e-3)


@pytest.mark.parametrize(("trim", "first", "last"), [(8, 4, 11), (7, 4, 10), (2, 7, 8), (1, 7, 7), (15, 0, 14)])
def test_a_trimmed_patch_is_the_central_square_of_so_many_pixels(trim: int, first: int, last: int) -> None:
    model = cnn(N=16, pad_object=False)
    weight = reassembly_weight(np.ones((16, 16)), model, "uniform", middle_trim=trim)
    rows, columns = np.nonzero(weight)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (first, last, first, last)
    assert weight.sum() == trim**2


def scan_of_symmetry(part: float) -> Scan:
    """Its probe is even up to an odd wave: Σ P(r) P(−r) is `part` of Σ |P|²."""
    y, x = np.mgrid[:16, :16] - 8
    inside = (np.abs(x) < 8) & (np.abs(y) < 8)  # without the row and column that have no mirror image
    even, odd = np.exp(-(x**2 + y**2) / 8.0) * inside, x * np.exp(-(x**2 + y**2) / 8.0) * inside
    even, odd = even / np.linalg.norm(even), odd / np.linalg.norm(odd)
    probe = np.sqrt((1 + part) / 2) * even + np.sqrt((1 - part) / 2) * odd
    return Scan(diffraction_amplitude=np.ones((2, 16, 16)), positions_px=np.eye(2), probe=probe.astype(complex))


@pytest.mark.parametrize(("part", "warned"), [(0.91, True), (0.89, False)])
def test_a_probe_is_called_symmetric_above_nine_tenths(
    caplog: pytest.LogCaptureFixture, part: float, warned: bool
) -> None:
    config: Any = TrainingConfig(model=cnn(N=16))
    with caplog.at_level(logging.WARNING):
        warn_if_ambiguous(scan_of_symmetry(part), config)
    assert ("symmetric with a flat phase" in caplog.text) == warned
