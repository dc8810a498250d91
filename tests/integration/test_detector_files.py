"""A detector's files, as they come from a beamline or a microscope, solved by command on every engine."""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from ptycho_core import simulate
from ptycho_core.quality.evaluation import evaluate
from ptycho_core.quality.truth import Truth
from ptycho_core.reconstruction.result import load_reconstruction
from ptycho_core.scans.geometry import electron_wavelength_m
from ptycho_core.scans.scan import Scan
from tests.command_line import ptycho

N, ROWS, COLUMNS, STEP = 32, 8, 10, 4.0
SOLVE = ("--refine", "none", "--modes", 1, "--prior", "none", "--batches", 8, "--sweeps", 12, "--quiet")
WAVELENGTH_A, DISTANCE_M, SIDE_M = 1.24, 2.0, 75e-6
CAMERA_M, CAMERA_SIDE_M, VOLTAGE_KV = 0.5, 55e-6, 300


@functools.cache
def scan() -> Scan:
    """On an exact raster, row after row."""
    y, x = np.mgrid[:ROWS, :COLUMNS].reshape(2, -1)
    places = STEP * np.stack([x, y], axis=1) + N
    return simulate(N=N, positions=places, object="dead-leaves", photons=1e5, seed=5)


def counts() -> NDArray[np.uint32]:
    return np.square(np.asarray(scan().diffraction_amplitude)).round().astype(np.uint32)


def master(folder: Path) -> list[object]:
    """An Eiger's master, bitshuffled where that can be written, dead pixels at the largest value; how to read it."""
    packing = {"compression": "gzip"}
    if importlib.util.find_spec("hdf5plugin") is not None:
        import hdf5plugin

        packing = dict(hdf5plugin.Bitshuffle(cname="lz4"))
    dead = np.zeros((N, N), np.uint32)
    dead[20], dead[5, 7] = 1, 8
    patterns = np.where(dead > 0, np.uint32(2**32 - 1), counts())
    with h5py.File(folder / "scan_master.h5", "w") as file:
        for number, part in enumerate(np.array_split(patterns, 3), 1):
            name = f"scan_data_{number:06d}.h5"
            with h5py.File(folder / name, "w") as data:
                data.create_dataset("entry/data/data", data=part, chunks=(1, N, N), **packing)
            file[f"entry/data/data_{number:06d}"] = h5py.ExternalLink(name, "/entry/data/data")
        detector = file.create_group("entry/instrument/detector")
        detector["detectorSpecific/pixel_mask"] = dead
        detector["x_pixel_size"] = detector["y_pixel_size"] = SIDE_M
        detector["detector_distance"] = DISTANCE_M
        file["entry/instrument/beam/incident_wavelength"] = WAVELENGTH_A
    pixel = WAVELENGTH_A * 1e-10 * DISTANCE_M / (N * SIDE_M)
    np.savetxt(folder / "motors.txt", scan().positions_px * pixel * 1e6, header="samx samy", comments="")
    motors = ("--positions", folder / "motors.txt", "--position-order", "xy", "--position-unit", "m")
    return [folder / "scan_master.h5", *motors, "--position-scale", 1e-6]


def cube(folder: Path) -> list[object]:
    """4D-STEM (rows, columns, H, W) in chunks across positions; only step, voltage and lengths are known."""
    with h5py.File(folder / "stem.h5", "w") as file:
        data = counts().astype(np.uint16).reshape(ROWS, COLUMNS, N, N)
        file.create_dataset("datacube_root/datacube/data", data=data, chunks=(2, 4, N, N))
    pixel = electron_wavelength_m(1e3 * VOLTAGE_KV) * CAMERA_M / (N * CAMERA_SIDE_M)
    lengths = ("--voltage-kV", VOLTAGE_KV, "--distance-m", CAMERA_M, "--detector-pixel-m", CAMERA_SIDE_M)
    return [folder / "stem.h5", "--scan-step", STEP * pixel, "--position-unit", "m", *lengths]


@pytest.mark.parametrize("make", [master, cube], ids=["Eiger", "4D-STEM"])
def test_a_detectors_file_is_solved(tmp_path: Path, backend: str, make: Callable[[Path], list[object]]) -> None:
    np.save(tmp_path / "probe.npy", scan().probe)
    stated = [*make(tmp_path), "--probe", tmp_path / "probe.npy"]
    assert "findings: none" in ptycho("inspect", *stated).out
    ptycho("solve", *stated, "--out", tmp_path / "out", "--backend", backend, *SOLVE, "--write", "hdf5")
    facts = json.loads((tmp_path / "out" / "reconstruction.json").read_text())
    assert facts["patterns"] == ROWS * COLUMNS and facts["dose_known"]
    side, _ = facts["lengths"]["object_pixel_m"]
    assert side == pytest.approx(1.0333e-7 if make is master else 5.593e-10, rel=1e-3)
    middle = scan().positions_px.mean(axis=0) if make is cube else np.zeros(2)  # a raster lies about 0
    truth = Truth(object_field=scan().object_field, origin_px=tuple(-middle))  # type: ignore[arg-type]
    found = evaluate(load_reconstruction(tmp_path / "out"), truth)
    assert found.moved_px == (0, 0) and found.metrics.correlation > 0.98
