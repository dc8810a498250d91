"""Patterns in several files, behind links and in rasters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io

from ptycho_core import load_scan
from ptycho_core.errors import DataError
from ptycho_core.io.readers import describe_contents
from ptycho_core.storage.hdf5 import HDF5File
from tests.core.formats.test_situations import COUNT, PLAIN, N, counts, places, probe

ROWS, COLUMNS = 4, 9


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, Any]:
    """What no such file holds, as settings."""
    np.save(tmp_path / "probe.npy", probe())
    np.savetxt(tmp_path / "places.txt", places())
    return {"positions": "places.txt", "probe": "probe.npy", **PLAIN}


def master(folder: Path, **more: Any) -> Path:
    """A detector's master and its data files; two rows of pixels are dead."""
    dead = np.zeros((N, N), np.uint32)
    dead[20:22] = 1
    patterns = counts()
    patterns[:, dead > 0] = 2**32 - 1
    with h5py.File(folder / "scan_master.h5", "w") as file:
        group = file.create_group("entry/data")
        for number, part in enumerate(np.array_split(patterns, 11), 1):
            name = f"scan_data_{number:06d}.h5"
            with h5py.File(folder / name, "w") as data:
                data.create_dataset("entry/data/data", data=part, chunks=(1, N, N))
            group[f"data_{number}"] = h5py.ExternalLink(name, "/entry/data/data")
        detector = file.create_group("entry/instrument/detector")
        detector["detectorSpecific/pixel_mask"] = dead
        detector["x_pixel_size"] = detector["y_pixel_size"] = 0.075
        for axis in "xy":
            detector[f"{axis}_pixel_size"].attrs["units"] = "mm"
        detector["detector_distance"] = 2.0
        file["entry/instrument/beam/incident_wavelength"] = 1.24
        for name, value in more.items():
            file[name] = value
    return folder / "scan_master.h5"


def test_a_master_is_read_with_its_data_files_and_its_mask(tmp_path: Path, parts: dict[str, Any]) -> None:
    scan = load_scan(master(tmp_path), **parts)
    expected = np.sqrt(counts(), dtype=np.float32)
    expected[:, 20:22] = 0
    np.testing.assert_array_equal(scan.diffraction_amplitude, expected)
    assert scan.bad_pixels is not None and scan.bad_pixels[20:22].all() and scan.bad_pixels.sum() == 2 * N
    assert scan.metadata["reader"] == "nexus"
    lengths = scan.metadata["wavelength_m"], *scan.metadata["detector_pixel_m"], scan.metadata["detector_distance_m"]
    assert lengths == pytest.approx((1.24e-10, 75e-6, 75e-6, 2.0))


def test_what_a_master_does_not_hold_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_scan(master(tmp_path))
    assert caught.value.state == ("positions", "scan_step")
    assert "/entry/data/data_11 -> scan_data_000011.h5:/entry/data/data" in describe_contents(
        tmp_path / "scan_master.h5"
    )


def test_a_data_file_that_is_not_there_is_named(tmp_path: Path, parts: dict[str, Any]) -> None:
    path = master(tmp_path)
    (tmp_path / "scan_data_000003.h5").unlink()
    with pytest.raises(DataError, match=r"scan_data_000003\.h5.*which is not there"):
        load_scan(path, **parts)


def test_an_unknown_unit_is_refused(tmp_path: Path, parts: dict[str, Any]) -> None:
    path = master(tmp_path)
    with h5py.File(path, "r+") as file:
        file["entry/instrument/detector/detector_distance"].attrs["units"] = "furlong"
    with pytest.raises(DataError, match="a unit of m; received 'furlong'"):
        load_scan(path, **parts)


@pytest.mark.parametrize(
    "dataset",
    ["entry/data", "scan_master.h5:entry/data", "scan_data_*.h5:/entry/data/data"],
    ids=["group", "file", "series"],
)
def test_several_data_sets_are_one_scan(tmp_path: Path, parts: dict[str, Any], dataset: str) -> None:
    scan = load_scan(master(tmp_path), dataset=dataset, **parts)
    assert scan.metadata["reader"] == "mapped"
    good = np.delete(np.arange(N), [20, 21])
    np.testing.assert_array_equal(
        np.asarray(scan.diffraction_amplitude)[:, good], np.sqrt(counts(), dtype=np.float32)[:, good]
    )


def test_a_series_of_no_files_is_refused(tmp_path: Path, parts: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="expected files of this name; received none"):
        load_scan(master(tmp_path), dataset="other_*.h5:/entry/data/data", **parts)


# -- rasters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["chunked", "plain", "npy", "npz", "packed", "matlab"])
@pytest.mark.parametrize("by", ["step", "list", "grid"])
def test_a_cube_is_read_row_after_row(tmp_path: Path, parts: dict[str, Any], kind: str, by: str) -> None:
    cube = counts().reshape(ROWS, COLUMNS, N, N)
    path = tmp_path / {"npy": "cube.npy", "matlab": "cube.mat"}.get(
        kind, "cube.h5" if kind in ("chunked", "plain") else "cube.npz"
    )
    if kind in ("chunked", "plain"):
        with h5py.File(path, "w") as file:
            file.create_dataset("cube/data", data=cube, chunks=(3, 2, N, N) if kind == "chunked" else None)
            file["cube/dim1"] = np.arange(9)
    elif kind == "npy":
        np.save(path, cube)
    elif kind == "matlab":
        scipy.io.savemat(path, {"data": cube})
    else:
        (np.savez if kind == "npz" else np.savez_compressed)(path, data=cube)
    np.save(tmp_path / "grid.npy", places().reshape(ROWS, COLUMNS, 2))
    settings = {"probe": parts["probe"], "position_unit": "px"}
    settings |= {"scan_step": "3"} if by == "step" else {"position_order": "xy"}
    settings |= {} if by == "step" else {"positions": "places.txt" if by == "list" else "grid.npy"}
    settings |= {"dataset": "data"} if kind in ("npz", "packed") else {"reader": "mapped"} if kind == "npy" else {}
    scan = load_scan(path, **settings)
    np.testing.assert_array_equal(scan.diffraction_amplitude, np.sqrt(counts(), dtype=np.float32))
    y, x = np.mgrid[:ROWS, :COLUMNS].reshape(2, -1)
    grid = 3.0 * np.stack([x - (COLUMNS - 1) / 2, y - (ROWS - 1) / 2], axis=1)
    np.testing.assert_allclose(scan.positions_px, grid if by == "step" else places())


def test_places_of_a_cube_are_read_in_any_order(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "cube.h5", "w") as file:
        file.create_dataset("data", data=counts().reshape(ROWS, COLUMNS, N, N), chunks=(2, 5, N, N))
    with HDF5File(tmp_path / "cube.h5") as file:
        frames = file.frames("data", cube=True)
    index = np.array([35, 0, 9, 8, 17, 18, 18, 3])
    np.testing.assert_array_equal(frames.read(index), counts()[index])
    np.testing.assert_array_equal(np.concatenate(list(frames.blocks(5))), counts())


def test_places_of_a_cube_that_were_never_written_are_named(tmp_path: Path, parts: dict[str, Any]) -> None:
    with h5py.File(tmp_path / "cube.h5", "w") as file:
        data = file.create_dataset("data", (ROWS, COLUMNS, N, N), "u4", chunks=(1, 1, N, N))
        data[:2] = counts().reshape(ROWS, COLUMNS, N, N)[:2]
        data[2, :5] = counts()[18:23]
    with pytest.raises(DataError, match="never written: 13 of 36 patterns: 23-35"):
        load_scan(tmp_path / "cube.h5", **parts)


def test_of_a_matlab_array_the_last_axis_counts(tmp_path: Path) -> None:
    arrays = {"dp": np.moveaxis(counts(), 0, -1), "x": places()[:, 0], "y": places()[:, 1], "probe": probe()}
    scipy.io.savemat(tmp_path / "scan.mat", arrays)
    scan = load_scan(tmp_path / "scan.mat", dataset="dp", positions="x,y", probe="probe", **PLAIN)
    np.testing.assert_array_equal(scan.diffraction_amplitude, np.sqrt(counts(), dtype=np.float32))
    np.testing.assert_array_equal(scan.positions_px, places())
    with pytest.raises(DataError, match=r"received nothing\. The file holds: dp \(32, 32, 36\)"):
        load_scan(tmp_path / "scan.mat", dataset="pd", positions="x,y", probe="probe", **PLAIN)
    (tmp_path / "short.mat").write_bytes((tmp_path / "scan.mat").read_bytes()[:5000])
    with pytest.raises(DataError, match="a readable MATLAB file"):
        load_scan(tmp_path / "short.mat", dataset="dp", positions="x,y", probe="probe", **PLAIN)


# -- links out of the folder ---------------------------------------------------------------------------------------


@pytest.mark.field("reading.follow_links")
@pytest.mark.parametrize("dataset", ["link", "virtual"])
def test_links_to_another_folder_are_followed_where_that_is_stated(
    tmp_path: Path, parts: dict[str, Any], dataset: str
) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "processed").mkdir()
    with h5py.File(tmp_path / "raw" / "det.h5", "w") as file:
        file.create_dataset("data", data=counts(), chunks=(1, N, N))
    path = tmp_path / "processed" / "scan.nxs"
    with h5py.File(path, "w") as file:
        file["link"] = h5py.ExternalLink("../raw/det.h5", "/data")
        layout = h5py.VirtualLayout((COUNT, N, N), "u4")
        layout[:] = h5py.VirtualSource("../raw/det.h5", "data", (COUNT, N, N))
        file.create_virtual_dataset("virtual", layout)
    named = {**parts, "positions": str(tmp_path / "places.txt"), "probe": str(tmp_path / "probe.npy")}
    for follow in (None, tmp_path / "other"):
        with pytest.raises(DataError) as caught:
            load_scan(path, dataset=dataset, follow_links=follow, **named)
        assert caught.value.state == (f"follow_links={tmp_path / 'raw'}",)
    scan = load_scan(path, dataset=dataset, follow_links=tmp_path / "raw", **named)
    np.testing.assert_array_equal(scan.diffraction_amplitude, np.sqrt(counts(), dtype=np.float32))


# -- pictures, and arrays under names of other programs ------------------------------------------------------------


@pytest.mark.parametrize("kind", ["series", "pages", "deflated"])
def test_pictures_are_read_in_the_order_of_their_numbers(tmp_path: Path, parts: dict[str, Any], kind: str) -> None:
    tifffile = pytest.importorskip("tifffile")
    (tmp_path / "raw").mkdir()
    patterns = counts().astype(np.uint16)
    if kind == "series":
        for number, pattern in enumerate(patterns):
            tifffile.imwrite(tmp_path / "raw" / f"frame_{number}.tif", pattern)
        path, named = tmp_path / "raw" / "frame_0.tif", {"dataset": str(tmp_path / "raw" / "*.tif")}
        parts |= {name: str(tmp_path / parts[name]) for name in ("positions", "probe")}
    else:
        path, named = tmp_path / "stack.tif", {}
        packing = {"compression": "zlib"} if kind == "deflated" else {}
        tifffile.imwrite(path, patterns, photometric="minisblack", **packing)
    scan = load_scan(path, **named, **parts)
    assert scan.dose_known
    np.testing.assert_array_equal(scan.diffraction_amplitude, np.sqrt(patterns, dtype=np.float32))


@pytest.mark.parametrize("fault", ["another size", "colours", "cut short", "no picture", "huge"])
def test_pictures_that_are_no_patterns_are_refused(tmp_path: Path, parts: dict[str, Any], fault: str) -> None:
    tifffile = pytest.importorskip("tifffile")
    for number, size in enumerate((N, N, N // 2 if fault == "another size" else N)):
        shape = (size, size, 3) if fault == "colours" else (size, size)
        tifffile.imwrite(tmp_path / f"frame_{number}.tif", np.ones(shape, np.uint8))
    last = tmp_path / "frame_2.tif"
    if fault == "cut short":
        last.write_bytes(last.read_bytes()[:300])
    if fault == "huge":  # the tag that says how many bytes a page has
        with tifffile.TiffFile(last, mode="r+") as file:
            file.pages[0].tags["StripByteCounts"].overwrite(2**31)
    if fault == "no picture":
        last.write_bytes(b"II*\0" + bytes(range(200)))
    with pytest.raises(DataError, match="frame_"):
        load_scan(tmp_path / "frame_0.tif", dataset=str(tmp_path / "*.tif"), **parts)


def test_one_array_of_patterns_needs_no_name(tmp_path: Path, parts: dict[str, Any]) -> None:
    """As PtychoNN has them: amplitudes of a raster beside the complex object."""
    amplitude = np.sqrt(counts()).astype(np.float32).reshape(ROWS, COLUMNS, N, N)
    np.savez(tmp_path / "arr.npz", arr_0=amplitude)
    np.savez(tmp_path / "two.npz", reciprocal=amplitude[0], real=amplitude[0].astype(np.complex64))
    for name, count, by in (("arr", COUNT, parts), ("two", COLUMNS, {"scan_step": "3", "scan_shape": "3,3"})):
        settings = {**by, "probe": "probe.npy", "position_unit": "px", "measurement": "amplitude"}
        scan = load_scan(tmp_path / f"{name}.npz", **settings)
        np.testing.assert_array_equal(scan.diffraction_amplitude, amplitude.reshape(-1, N, N)[:count])
        with pytest.raises(DataError, match="position_unit, probe; received none of them") as caught:
            load_scan(tmp_path / f"{name}.npz", measurement="amplitude")
        assert caught.value.state[0] == {"arr": "scan_step=STEP", "two": "positions=FILE"}[name]


def test_the_raster_of_a_matlab_array_comes_last_where_its_patterns_are_square(
    tmp_path: Path, parts: dict[str, Any]
) -> None:
    cube = counts().reshape(ROWS, COLUMNS, N, N)
    scipy.io.savemat(tmp_path / "last.mat", {"dp": np.moveaxis(cube, (0, 1), (2, 3))})
    scipy.io.savemat(tmp_path / "square.mat", {"dp": cube.reshape(6, 6, N, N)})
    scan = load_scan(tmp_path / "last.mat", **parts)
    np.testing.assert_array_equal(scan.diffraction_amplitude, np.sqrt(counts(), dtype=np.float32))
    with pytest.raises(DataError, match="either pair of axes may count the positions"):
        load_scan(tmp_path / "square.mat", **parts)
