"""A scan in numbers: each against what was put in, and without a pass of its own over the patterns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from ptycho_core.formats.convert import save_scan
from ptycho_core.report.facts import inspect_file, scan_facts, scan_table
from ptycho_core.scans.frames import Frames
from ptycho_core.scans.geometry import object_pixel_m
from ptycho_core.scans.scan import Scan
from ptycho_core.storage.source import ArraySource

N = 16
LENGTHS = {
    "photon_energy_eV": 8000.0,
    "wavelength_m": 1.549802480e-10,
    "detector_distance_m": 2.0,
    "detector_pixel_m": [75e-6, 150e-6],
}


def grid(step_px: float = 3.0) -> np.ndarray:
    """5 × 4 positions, the last ones of row and column included."""
    y, x = np.divmod(np.arange(20), 5)
    return np.stack([x * step_px + 10, y * step_px + 20], axis=1)


def disk(radius_px: float = 4.0) -> np.ndarray:
    y, x = np.mgrid[:N, :N] - N // 2
    return (np.hypot(x, y) <= radius_px).astype(np.complex64)


def scan(**changes: Any) -> Scan:
    """20 patterns of amplitude 2 in the central half and 1 outside; one pixel is bad and hot."""
    amplitude = np.ones((20, N, N), np.float32)
    amplitude[:, 4:12, 4:12] = 2
    amplitude[3, 4:12, 4:12] = 4
    amplitude[:, 0, 0] = 100
    bad = np.zeros((N, N), bool)
    bad[0, 0] = True
    fields = {
        "diffraction_amplitude": amplitude,
        "positions_px": grid(),
        "probe": disk(),
        "bad_pixels": bad,
        "dose_known": True,
        "source": "scan.npz",
        "metadata": {"sample": "chip", **LENGTHS},
    }
    return Scan(**{**fields, **changes})


def test_counts_are_those_of_the_good_pixels() -> None:
    facts = scan_facts(scan())
    outside, inside = N * N - 64 - 1, 64
    frame = outside + 4 * inside
    mean = frame + 12 * inside / 20
    assert facts["mean_frame_intensity"] == pytest.approx(mean)
    assert facts["largest_frame_intensity"] == pytest.approx(outside + 16 * inside)
    assert facts["largest_pixel_intensity"] == 100**2
    assert facts["power_outside_centre"] == pytest.approx(outside / mean)
    assert (facts["bad_pixels"], facts["dose_known"], facts["patterns"], facts["N"]) == (1, True, 20, N)


@pytest.mark.parametrize("hole", [0.0, 2.0])
def test_the_width_of_a_probe_is_the_diameter_of_its_disk_hole_or_not(hole: float) -> None:
    facts = scan_facts(scan(probe=disk(5.5) - (disk(hole) if hole else 0)))
    assert facts["probe_fwhm_px"] == pytest.approx(11, rel=0.03)
    assert facts["step_px"] == pytest.approx(3)
    assert facts["step_per_probe_fwhm"] == pytest.approx(3 / facts["probe_fwhm_px"])


def test_modes_are_told_with_their_part_of_the_power() -> None:
    facts = scan_facts(scan(probe=np.stack([disk(), 0.5 * disk()])))
    assert facts["probe_modes"] == 2
    assert facts["probe_mode_shares"] == pytest.approx([0.8, 0.2])
    assert "2 modes (80 %, 20 %)" in scan_table(facts)


def test_positions_are_told_in_pixels_and_in_metres_where_these_follow() -> None:
    facts = scan_facts(scan())
    assert facts["x_range_px"] == [10, 22]
    assert facts["y_range_px"] == [20, 29]
    pixels = [object_pixel_m(LENGTHS["wavelength_m"], 2.0, N, side) for side in (75e-6, 150e-6)]
    assert facts["object_pixel_m"] == pytest.approx(pixels)
    assert facts["extent_m"] == pytest.approx([12 * pixels[0], 9 * pixels[1]])


def test_a_stated_object_pixel_goes_before_one_that_is_computed() -> None:
    facts = scan_facts(scan(metadata={**LENGTHS, "object_pixel_m": [1e-9, 2e-9]}))
    assert facts["object_pixel_m"] == [1e-9, 2e-9]


@pytest.mark.parametrize("value", ["8 keV", -1.0, float("nan"), None, [1.0], {"x": 1}, [1.0, "2"]])
def test_lengths_that_are_none_are_not_known(value: Any) -> None:
    facts = scan_facts(scan(metadata=dict.fromkeys(LENGTHS, value)))
    assert [facts[name] for name in LENGTHS] == [None] * len(LENGTHS)
    assert facts["object_pixel_m"] is facts["extent_m"] is None
    assert scan_table(facts)


def test_a_single_pattern_has_no_step() -> None:
    facts = scan_facts(scan().subset(slice(1)))
    assert facts["step_px"] is facts["step_per_probe_fwhm"] is None
    assert "step" not in scan_table(facts)


def test_the_facts_are_json() -> None:
    assert json.loads(json.dumps(scan_facts(scan()), allow_nan=False))["metadata"]["sample"] == "chip"


def test_the_table_says_units_and_leaves_out_what_is_not_known() -> None:
    lines = dict(line.split("  ", 1) for line in scan_table(scan_facts(scan())).splitlines())
    table = {name.strip(): value.strip() for name, value in lines.items()}
    assert table["patterns"] == "20 of 16 x 16 pixels, 20.0 KiB as amplitudes, in memory"
    assert table["energy"] == "8000 eV (photons)"
    assert table["wavelength"] == "155 pm"
    assert table["distance"] == "2 m"
    assert table["detector pixel"] == "75 µm x 150 µm"
    assert table["object pixel"] == "258.3 nm x 129.2 nm"
    assert table["positions"] == "x 10.00 … 22.00 px, y 20.00 … 29.00 px (3.1 µm x 1.162 µm)"
    assert table["metadata.sample"] == "chip"
    assert "object" not in table and "reader" not in table and "file" not in table
    unknown = scan_table(scan_facts(scan(dose_known=False, metadata={})))
    assert "arbitrary unit" in unknown
    assert "photons" not in unknown and "wavelength" not in unknown


class OnePass(ArraySource):
    passes = 0

    def blocks(self, count: int) -> Any:
        self.passes += 1
        return super().blocks(count)

    def read(self, index: Any) -> Any:
        raise AssertionError("the facts need no single pattern")


def test_patterns_in_a_file_are_not_read_again() -> None:
    source = OnePass(np.asarray(scan().diffraction_amplitude))
    lazy = attrs.evolve(scan(), diffraction_amplitude=Frames(source))
    facts = scan_facts(lazy)
    assert source.passes == 1  # when the scan was checked
    assert facts["storage"] == "file"
    assert "read from the file when asked for" in scan_table(facts)
    same = {name for name, value in scan_facts(scan()).items() if value == facts[name]}
    assert set(facts) - same == {"storage"}


def test_a_file_is_told_with_its_size(tmp_path: Path) -> None:
    path = tmp_path / "scan.npz"
    save_scan(path, scan())
    facts = inspect_file(path)
    assert facts["kind"] == "scan"
    assert facts["file_bytes"] == path.stat().st_size
    assert facts["source"] == str(path)
