"""Wavelengths, object pixels, and positions between metres and pixels."""

import numpy as np
import pytest

from ptycho_core.errors import DataError
from ptycho_core.scans.geometry import (
    electron_wavelength_m,
    object_pixel_m,
    photon_energy_eV,
    photon_wavelength_m,
    positions_m_to_px,
    positions_px_to_m,
)


def test_photon_wavelength_is_the_known_product():
    """hc = 12.398419843 keV Å (CODATA 2018, exact)."""
    assert photon_wavelength_m(8000.0) == pytest.approx(12398.419843320026e-10 / 8000, rel=1e-12)


def test_photon_energy_inverts_the_wavelength():
    assert photon_energy_eV(photon_wavelength_m(8765.4)) == pytest.approx(8765.4, rel=1e-14)


@pytest.mark.parametrize(("energy_eV", "picometres"), [(100e3, 3.70), (200e3, 2.51), (300e3, 1.97)])
def test_electron_wavelength_is_that_of_the_tables(energy_eV, picometres):
    """Williams and Carter, Transmission Electron Microscopy, table 1.2."""
    assert electron_wavelength_m(energy_eV) * 1e12 == pytest.approx(picometres, abs=0.005)


def test_a_plane_wave_of_one_cycle_a_patch_lands_one_detector_pixel_from_the_axis():
    wavelength_m, distance_m, N, detector_pixel_m = 1e-10, 2.0, 64, 75e-6
    period_m = N * object_pixel_m(wavelength_m, distance_m, N, detector_pixel_m)
    assert wavelength_m / period_m * distance_m == pytest.approx(detector_pixel_m)  # small-angle grating equation


def test_positions_survive_the_way_to_pixels_and_back():
    rng = np.random.default_rng(0)
    positions_m = rng.normal(0, 1e-5, (50, 2)) + 3e-3
    frame = {"pixel_m": (5e-9, 8e-9), "origin_m": (3e-3, 2.9e-3), "origin_px": (117.5, 90.0)}
    back = positions_px_to_m(positions_m_to_px(positions_m, **frame), **frame)
    np.testing.assert_allclose(back, positions_m, rtol=1e-13, atol=0)


def test_the_origin_is_one_point_in_both_units_and_x_comes_first():
    frame = {"pixel_m": (1e-9, 2e-9), "origin_m": (1e-6, 5e-6), "origin_px": (10, 20)}
    px = positions_m_to_px([[1e-6, 5e-6], [1.003e-6, 5e-6], [1e-6, 5.004e-6]], **frame)
    np.testing.assert_allclose(px, [[10, 20], [13, 20], [10, 22]])


@pytest.mark.parametrize("energy_eV", [0, -1, 5e-324, 1e300, np.nan, np.inf, "8 keV", [8e3], True, None])
@pytest.mark.parametrize("function", [photon_wavelength_m, electron_wavelength_m])
def test_an_energy_that_is_no_positive_number_is_refused_by_name(function, energy_eV):
    with pytest.raises(
        DataError,
        match=r"geometry: energy_eV: expected one finite number > 0, from 1e-60 to 1e\+60; received .*\. Give",
    ):
        function(energy_eV)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions_m": [1.0, 2.0]}, r"positions_m: expected real numbers \(M, 2\); received float64 of shape \(2,\)"),
        ({"positions_m": [[1j, 0]]}, r"positions_m: expected real numbers"),
        ({"positions_m": [[np.nan, 0]]}, "positions_m: expected finite coordinates"),
        ({"pixel_m": -1e-9}, "pixel_m: expected sizes > 0"),
        ({"pixel_m": (1e-9, 1e-9, 1e-9)}, "pixel_m: expected two finite numbers"),
        ({"origin_m": 0}, r"origin_m: expected two finite numbers \(x, y\); received 0"),
        ({"origin_px": (0, np.inf)}, "origin_px: expected two finite numbers"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change, message):
    arguments = {"positions_m": [[0.0, 0.0]], "pixel_m": 1e-9, "origin_m": (0, 0), "origin_px": (0, 0), **change}
    with pytest.raises(DataError, match=message):
        positions_m_to_px(**arguments)
