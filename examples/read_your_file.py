"""Read a file of a format that this package does not know: say what its parts are, check it, and save it as NPZ.

    python examples/read_your_file.py

An HDF5 file as a beamline might write it stands in for yours: detector counts, motor positions in micrometres, a probe
from an earlier reconstruction. What the file does not say is stated; what is missing is an error that names the option.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from ptycho_core import DataError, Scan, load_scan, rank_orientations, save_scan, simulate
from ptycho_core.scans.geometry import object_pixel_m, photon_wavelength_m

ENERGY_EV, DISTANCE_M, PIXEL_M = 8000.0, 2.0, 150e-6


def write_a_beamline_file(path: Path) -> None:
    """Counts (M, 32, 32), the detector mounted upside down; positions (M, 2) in micrometres; a complex probe."""
    scan = simulate(object="dead-leaves", N=32, positions=120, photons=1e7, seed=3)
    pixel = object_pixel_m(photon_wavelength_m(ENERGY_EV), DISTANCE_M, 32, PIXEL_M)
    counts = np.round(scan.diffraction_amplitude[:] ** 2).astype(np.uint32)
    upside_down = np.roll(counts[:, ::-1], 1, axis=1)  # about the direct beam at [16, 16]
    with h5py.File(path, "w") as file:
        file["entry/detector/frames"] = upside_down
        file["entry/motors/xy_um"] = 1e6 * pixel * scan.positions_px
        file["entry/probe"] = scan.probe


def main() -> Scan:
    path = Path("beamline.h5")
    write_a_beamline_file(path)

    try:
        load_scan(path)
    except DataError as error:
        print(f"as it is: {error}\n")

    stated = {
        "dataset": "entry/detector/frames",
        "positions": "entry/motors/xy_um",
        "position_order": "xy",
        "position_unit": "m",
        "position_scale": 1e-6,  # micrometres
        "probe": "entry/probe",
        "measurement": "intensity",
        "energy_eV": ENERGY_EV,
        "distance_m": DISTANCE_M,
        "detector_pixel_m": PIXEL_M,
    }
    ranking = rank_orientations(load_scan(path, **stated))
    print(ranking.as_table())

    assert ranking.best is not None, "several orientations agree with the patterns"
    scan = load_scan(path, **stated, flip_rows=ranking.best.flip_rows, transpose=ranking.best.transpose)
    save_scan("scan.npz", scan)
    print(f"\nscan.npz: {len(scan)} patterns of {scan.N} x {scan.N} pixels")
    return scan


if __name__ == "__main__":
    main()
