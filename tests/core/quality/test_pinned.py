"""What no other metric would notice."""

from __future__ import annotations

import numpy as np

from ptycho_core.quality.evaluation import _phase_images
from ptycho_core.quality.frc import _ring_correlation


def test_the_mean_error_of_the_phase_does_not_count() -> None:
    truth = np.exp(0.2j * np.random.default_rng(0).normal(size=(16, 16)))
    inside = np.ones((16, 16), bool)
    inside[:2] = False
    found, target = _phase_images(truth * np.exp(0.3j), truth, inside)
    np.testing.assert_allclose(found, target, atol=1e-12)
    np.testing.assert_allclose(target, np.angle(truth) - np.angle(truth)[inside].min(), atol=1e-12)


def test_a_frequency_counts_on_the_ring_that_is_nearest() -> None:
    spectrum = np.zeros((16, 16), complex)
    spectrum[2, 3] = 1  # √13 = 3.6 from the middle
    np.testing.assert_array_equal(_ring_correlation(spectrum, spectrum, 5), [0, 0, 0, 1, 0])
