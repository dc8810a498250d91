"""Many scans that differ, and scans with fewer photons."""

from __future__ import annotations

import attrs
import numpy as np
import pytest

from ptycho_core.errors import ConfigurationError, DataError
from ptycho_core.simulation import simulate
from ptycho_core.simulation.many import VARIED, drawn_probe, varied
from ptycho_core.simulation.thinning import thinned

ARGUMENTS = {
    "object": "object",
    "probe": "probe",
    "photons": "photons",
    "step": "step_px",
    "amplitude": "amplitude_range",
    "phase": "phase_range",
}


@pytest.mark.parametrize("name", VARIED)
def test_what_varies_differs_and_nothing_else_does(name: str) -> None:
    drawn = list(varied(12, [name], N=32))
    assert all(set(each) == {"seed", ARGUMENTS[name]} for each in drawn)
    assert len({str(np.asarray(each[ARGUMENTS[name]]).tolist()) for each in drawn}) > 3
    assert len({each["seed"] for each in drawn}) == 12


def test_a_scan_is_drawn_alike_whatever_else_varies_and_however_many_there_are() -> None:
    alone, together = list(varied(3, ["photons"], N=32)), list(varied(5, list(VARIED), N=32))
    assert [each["photons"] for each in alone] == [each["photons"] for each in together[:3]]
    assert [each["seed"] for each in alone] == [each["seed"] for each in together[:3]]
    assert alone != list(varied(3, ["photons"], N=32, seed=1))


def test_all_that_is_drawn_can_be_simulated() -> None:
    for drawn in varied(6, list(VARIED), N=32, seed=2):
        scan = simulate(N=32, positions=30, **drawn)
        assert scan.dose_known and np.isfinite(np.asarray(scan.diffraction_amplitude)).all()


def test_what_cannot_vary_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"vary must be some of object, probe, .*; got .?modes"):
        next(varied(1, ["modes"], N=32))


def test_probes_are_of_every_width() -> None:
    probes = [drawn_probe(32, np.random.default_rng(seed)) for seed in range(20)]
    y, x = np.indices((32, 32)) - 16
    widths = [float(np.sqrt((np.abs(probe) ** 2 * (x**2 + y**2)).sum())) for probe in probes]
    assert max(widths) > 1.5 * min(widths)
    assert all(np.linalg.norm(probe) == pytest.approx(1, rel=1e-5) for probe in probes)


def test_a_thinned_scan_has_a_part_of_the_photons_and_their_noise() -> None:
    scan = simulate(N=16, positions=200, step_px=2, photons=1e4, seed=1)
    fewer = thinned(scan, 0.1, np.random.default_rng(0))
    before, after = (np.square(np.asarray(each.diffraction_amplitude), dtype=np.float64) for each in (scan, fewer))
    assert after.sum() == pytest.approx(0.1 * before.sum(), rel=0.01)
    np.testing.assert_allclose(after, np.rint(after), atol=1e-3)
    bright = before > 200
    excess = (after - 0.1 * before)[bright] / np.sqrt(0.09 * before[bright])  # binomial: p (1 - p) n
    assert excess.std() == pytest.approx(1, abs=0.1)
    assert np.array_equal(thinned(scan, 1, np.random.default_rng(0)).diffraction_amplitude, scan.diffraction_amplitude)


def test_counts_are_needed_and_a_part_of_them() -> None:
    scan = simulate(N=16, positions=20, step_px=2)
    with pytest.raises(DataError, match=r"dose: expected patterns in photons; received an unknown unit"):
        thinned(attrs.evolve(scan, dose_known=False), 0.1, np.random.default_rng(0))
    for part in (0, 1.1, -1):
        with pytest.raises(ConfigurationError, match=r"part must be above 0, up to 1"):
            thinned(scan, part, np.random.default_rng(0))
