"""A reconstruction written for other programs is read back by each of them as what it was."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import attrs
import h5py
import numpy as np
import pytest

from ptycho_core import load_scan, simulate
from ptycho_core.errors import DataError, MissingExtraError
from ptycho_core.formats.convert import save_scan
from ptycho_core.formats.images import tiff
from ptycho_core.reconstruction.result import Reconstruction
from ptycho_core.reconstruction.writing import IMAGE_FORMATS, image_of, write_reconstruction
from ptycho_core.scans.lengths import Lengths
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.reading import ReadOptions
from tests.core.reconstructions import LENGTHS, make_reconstruction

tifffile = pytest.importorskip("tifffile")
IN_METRES = ("cxi", "ptychodus")


@pytest.fixture
def scan() -> Scan:
    """With every length that a file in metres needs, and frames whose numbers are not their order."""
    made = simulate(N=16, positions=30, object="lines", photons=1e5, seed=3)
    metadata = {**made.metadata, **{name: value for name, value in LENGTHS.as_dict().items() if value is not None}}
    return attrs.evolve(made, metadata=metadata, scan_index=np.arange(30)[::-1] + 100, nominal_positions_px=None)


@pytest.fixture
def result(scan: Scan) -> Reconstruction:
    """As good as the scan's own object, on a canvas of its own, with positions 0.2 px from the scan's."""
    assert scan.object_field is not None
    assert scan.scan_index is not None
    left, top = 2, 3
    field = scan.object_field[top:, left:]
    plain = make_reconstruction(frames=30)
    return attrs.evolve(
        plain,
        object_field=field,
        origin_px=(float(left), float(top)),
        overlap_count=np.ones(field.shape, np.int32),
        known=np.arange(field.shape[1]) > 4 * np.ones(field.shape),
        predicted_error=np.full(field.shape, 0.1, np.float32),
        object_without_prior=None,
        probe=(scan.probe * np.exp(0.3j)).astype(np.complex64),
        positions_px=scan.positions_px + 0.2,
        frames=scan.scan_index,
    )


# -- metres ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", IN_METRES)
def test_positions_probe_and_object_come_back_through_our_readers(
    form: str, scan: Scan, result: Reconstruction, tmp_path: Path
) -> None:
    """The corrected product beside the scan's own patterns is a scan with corrected positions."""
    if form == "cxi":  # patterns alone have no numbers but those of their order
        scan = attrs.evolve(scan, scan_index=None)
        mixed = np.random.default_rng(0).permutation(30)
        result = attrs.evolve(result, frames=mixed, positions_px=result.positions_px[mixed])
    (product,) = write_reconstruction(tmp_path / "solved", result, [form])
    save_scan(tmp_path / "scan.cxi" if form == "cxi" else tmp_path / "scan", scan, format=form)
    if form == "cxi":
        with h5py.File(tmp_path / "scan.cxi", "r+") as file:  # patterns alone
            for name in ("entry_1/data_1/translation", "entry_1/sample_1", "entry_1/image_1", "entry_1/ptychodus"):
                del file[name]
    patterns = tmp_path / ("scan.cxi" if form == "cxi" else "scan/diffraction.h5")
    options = ReadOptions(companion=product, reader=form)
    read = load_scan(patterns, options)
    assert read.scan_index is not None
    np.testing.assert_array_equal(read.probe, result.probe)
    np.testing.assert_array_equal(read.object_field, result.object_field)
    # A reader counts from the object's pixel [0, 0].
    expected = dict(zip(result.frames, result.positions_px - result.origin_px, strict=True))  # type: ignore[arg-type]
    assert sorted(read.scan_index) == sorted(expected)
    for number, place, pattern in zip(
        read.scan_index.tolist(), read.positions_px, read.diffraction_amplitude, strict=True
    ):
        np.testing.assert_allclose(place, expected[number], atol=1e-8)
        row = int(np.flatnonzero(np.asarray(scan.scan_index) == number)[0])
        np.testing.assert_array_equal(pattern, scan.diffraction_amplitude[row])
    assert read.metadata["photon_energy_eV"] == pytest.approx(8000)
    assert read.metadata["object_pixel_m"] == pytest.approx([40e-9, 40e-9])


@pytest.mark.parametrize("form", IN_METRES)
@pytest.mark.parametrize("N", [16, 15])
def test_ptychodus_names_the_middle_of_a_patch_and_of_the_object(form: str, N: int, tmp_path: Path) -> None:
    """A patch exactly about the middle of the object is at 0 m, for even and odd sizes."""
    result = make_reconstruction(N=N)
    height, width = result.object_field.shape
    x, y = result.origin_px
    first = np.array([x + (width - N) / 2 + N // 2, y + (height - N) / 2 + N // 2])  # patch pixel [N/2, N/2]
    positions = np.stack([first, first + np.array([1, 2])])
    part = attrs.evolve(result, positions_px=positions, frames=np.array([4, 9]), frame_deviance=None, frame_R=None)
    (path,) = write_reconstruction(tmp_path, part, [form])
    with h5py.File(path) as file:
        if form == "ptychodus":
            places = np.stack([file["probe_position_x_m"], file["probe_position_y_m"]], axis=1)
        else:
            places = file["entry_1/sample_1/geometry_1/translation"][:, :2]
    np.testing.assert_allclose(places, [[0, 0], [40e-9, 80e-9]], atol=1e-17)


@pytest.mark.parametrize("form", IN_METRES)
def test_without_a_pixel_size_metres_are_refused_and_nothing_is_written(form: str, tmp_path: Path) -> None:
    result = make_reconstruction(lengths=Lengths(photon_energy_eV=8000.0))
    with pytest.raises(DataError, match="the size of an object pixel, because this format holds metres") as refused:
        write_reconstruction(tmp_path / "out", result, [form])
    assert "--energy-eV, --distance-m, --detector-pixel-m" in str(refused.value)
    assert not list((tmp_path / "out").iterdir())


def test_what_is_not_known_of_the_experiment_is_absent_from_cxi_and_0_for_ptychodus(tmp_path: Path) -> None:
    result = make_reconstruction(lengths=Lengths(object_pixel_m=(40e-9, 30e-9)), dose_known=False)
    cxi, product = write_reconstruction(tmp_path, result, IN_METRES)
    with h5py.File(cxi) as file:
        assert "entry_1/instrument_1/source_1/energy" not in file
        assert "entry_1/instrument_1/detector_1" not in file
        assert file["entry_1/image_2/image_size"][:2] / np.array(result.object_field.shape[::-1]) == pytest.approx(
            [40e-9, 30e-9]
        )
    with h5py.File(product) as file:
        for name in ("photon_energy_eV", "detector_object_distance_m", "probe_photon_count"):
            assert file.attrs[name] == 0
        assert (file["object"].attrs["pixel_width_m"], file["object"].attrs["pixel_height_m"]) == (40e-9, 30e-9)


def test_electrons_are_written_with_their_wavelength(tmp_path: Path) -> None:
    lengths = Lengths(electron_energy_eV=200e3, object_pixel_m=(1e-11, 1e-11))
    cxi, nexus = write_reconstruction(tmp_path, make_reconstruction(lengths=lengths), ["cxi", "hdf5"])
    with h5py.File(cxi) as file:
        assert file["entry_1/instrument_1/source_1/wavelength"][()] == pytest.approx(2.508e-12, rel=1e-3)
    with h5py.File(nexus) as file:
        assert file["entry/instrument/beam/incident_energy"][()] == 200e3
        assert file["entry/instrument/beam/incident_wavelength"][()] == pytest.approx(2.508e-12, rel=1e-3)


def test_a_cxi_masks_what_is_not_known(result: Reconstruction, tmp_path: Path) -> None:
    with h5py.File(write_reconstruction(tmp_path, result, ["cxi"])[0]) as file:
        np.testing.assert_array_equal(file["entry_1/image_2/mask"][0] == 0, result.known)
        assert json.loads(file["entry_1/process_1/note"][()])["R"] == result.R


def test_a_frame_of_several_patches_is_written_once(tmp_path: Path) -> None:
    plain = make_reconstruction(frames=6)
    twice = attrs.evolve(plain, frames=np.array([7, 2, 7, 5, 2, 9]))
    image = image_of(twice)
    assert image.indexes.tolist() == [7, 2, 5, 9]
    np.testing.assert_array_equal(image.positions_px, plain.positions_px[[0, 1, 3, 5]])


def test_the_losses_of_each_sweep_are_in_the_product(tmp_path: Path) -> None:
    with h5py.File(write_reconstruction(tmp_path, make_reconstruction(), ["ptychodus"])[0]) as file:
        assert file["loss_epochs"][()].tolist() == [1, 2]
        assert file["loss_values"][()].tolist() == [0.1, 0.0038]


# -- TIFF ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pixel", [(40e-9, 40e-9), (40e-9, 25.5e-9), (1.3e-12, 1.3e-12), (3e-6, 3e-6)])
def test_imagej_finds_float_images_with_their_scale(
    pixel: tuple[float, float], result: Reconstruction, tmp_path: Path
) -> None:
    result = attrs.evolve(result, lengths=Lengths(object_pixel_m=pixel))
    written = write_reconstruction(tmp_path, result, ["tiff"])
    assert [path.name for path in written] == ["amplitude.tif", "phase.tif", "predicted_error.tif"]
    images = dict(zip(("amplitude", "phase", "error"), map(tifffile.imread, written), strict=True))
    known = np.asarray(result.known)
    for image in (images["amplitude"], images["phase"]):
        assert image.dtype == np.float32
        np.testing.assert_array_equal(np.isfinite(image), known)
    field = images["amplitude"] * np.exp(1j * images["phase"])
    np.testing.assert_allclose(field[known], result.object_field[known], rtol=1e-5)
    np.testing.assert_array_equal(images["error"], result.predicted_error)
    for path in written:
        with tifffile.TiffFile(path) as file:
            assert file.is_imagej
            assert file.imagej_metadata["unit"] == "nm"
            tags = file.pages[0].tags
            for name, side in zip(("XResolution", "YResolution"), pixel, strict=True):
                pixels, nanometres = tags[name].value
                assert nanometres / pixels == pytest.approx(side * 1e9, rel=1e-6)
            assert f"pixel: {pixel[0]:.6g} x {pixel[1]:.6g} m" in file.imagej_metadata["Info"]


def test_without_a_pixel_size_tiff_has_no_unit_and_says_so(tmp_path: Path) -> None:
    result = make_reconstruction(lengths=Lengths(), predicted_error=None)
    written = write_reconstruction(tmp_path, result, ["tiff"])
    assert [path.name for path in written] == ["amplitude.tif", "phase.tif"]
    with tifffile.TiffFile(written[0]) as file:
        assert "unit" not in file.imagej_metadata
        assert "the size of a pixel is not known" in file.imagej_metadata["Info"]
        assert file.pages[0].tags["XResolution"].value == (1, 1)


def test_an_image_too_large_for_imagej_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff, "LARGEST_BYTES", 100)
    with pytest.raises(DataError, match=r"amplitude\.tif: expected an image of at most 100 bytes.* Write HDF5"):
        write_reconstruction(tmp_path, make_reconstruction(), ["tiff"])


def test_a_missing_tifffile_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ptycho-core\[tiff\]'"):
        write_reconstruction(tmp_path, make_reconstruction(), ["tiff"])


# -- NeXus -----------------------------------------------------------------------------------------------------------


def plottable(file: Any) -> tuple[Any, list[Any]]:
    """What NeXus says is to be plotted, found by `default`, `signal` and `axes` alone; its axes in order."""
    group = file
    while group.attrs["NX_class"] != "NXdata":
        group = group[group.attrs["default"]]
    signal = group[group.attrs["signal"]]
    axes = [group[name] for name in group.attrs["axes"]]
    for number, axis in enumerate(axes):
        assert group.attrs[f"{axis.name.rsplit('/')[-1]}_indices"] == number
        assert axis.shape == (signal.shape[number],)
    return signal, axes


@pytest.mark.parametrize("unit", ["m", "px"])
def test_nexus_leads_to_the_amplitude_on_its_axes(unit: str, result: Reconstruction, tmp_path: Path) -> None:
    result = result if unit == "m" else attrs.evolve(result, lengths=Lengths())
    (path,) = write_reconstruction(tmp_path / "image.h5", result)
    side = 40e-9 if unit == "m" else 1.0
    with h5py.File(path) as file:
        signal, (y, x) = plottable(file)
        assert signal.name == "/entry/amplitude/data"
        known = np.asarray(result.known)
        np.testing.assert_allclose(signal[()][known], np.abs(result.object_field)[known], rtol=1e-6)
        assert np.isnan(signal[()][~known]).all()
        assert (x.attrs["units"], y.attrs["units"]) == (unit, unit)
        assert x[0] == pytest.approx(2.0 * side)
        assert y[-1] == pytest.approx((3.0 + len(y) - 1) * side)
        entry = file["entry"]
        assert entry["phase/data"].attrs["units"] == "rad"
        np.testing.assert_array_equal(entry["object/data"][()], result.object_field)
        np.testing.assert_array_equal(entry["probe/data"][()], result.probe)
        assert entry["probe/x"][result.probe.shape[-1] // 2] == 0
        np.testing.assert_array_equal(entry["predicted_error/data"][()], result.predicted_error)
        np.testing.assert_allclose(entry["positions/x"][()], result.positions_px[:, 0] * side)
        np.testing.assert_array_equal(entry["positions/frame"][()], result.frames)
        assert json.loads(entry["reconstruction/note"][()])["H"] == result.H
        assert ("incident_energy" in entry["instrument/beam"]) == (unit == "m")


def test_every_group_of_a_nexus_file_names_its_class(tmp_path: Path) -> None:
    (path,) = write_reconstruction(tmp_path, make_reconstruction(), ["hdf5"])
    with h5py.File(path) as file:
        groups = [file]
        file.visititems(lambda _, item: groups.append(item) if isinstance(item, h5py.Group) else None)
        assert all(group.attrs["NX_class"].startswith("NX") for group in groups)


# -- files -----------------------------------------------------------------------------------------------------------


def test_all_formats_go_into_one_folder(tmp_path: Path) -> None:
    written = write_reconstruction(tmp_path / "new" / "folder", make_reconstruction(), IMAGE_FORMATS)
    assert sorted(path.name for path in written) == [
        "amplitude.tif",
        "phase.tif",
        "predicted_error.tif",
        "product.h5",
        "reconstruction.cxi",
        "reconstruction.h5",
    ]
    assert sorted(written) == sorted((tmp_path / "new" / "folder").iterdir())


@pytest.mark.parametrize(("name", "inside"), [("a.cxi", "entry_1"), ("a.h5", "entry"), ("a.hdf5", "entry")])
def test_an_ending_tells_the_format(name: str, inside: str, tmp_path: Path) -> None:
    assert write_reconstruction(tmp_path / name, make_reconstruction()) == (tmp_path / name,)
    with h5py.File(tmp_path / name) as file:
        assert inside in file


@pytest.mark.parametrize(
    ("name", "formats", "message"),
    [
        ("out", None, "expected one of the formats tiff, cxi, ptychodus, hdf5, or the ending"),
        ("out.png", None, r"received the ending '\.png'"),
        ("out", [], "expected some of the formats .*; received none"),
        ("out", ["jpeg"], "received jpeg"),
        ("out.cxi", ["cxi", "hdf5"], "expected a folder, for several files"),
        ("out.tif", ["tiff"], "expected a folder, for several files"),
    ],
)
def test_what_cannot_be_told_is_refused(name: str, formats: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        write_reconstruction(tmp_path / name, make_reconstruction(), formats)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", IMAGE_FORMATS)
def test_a_failed_writer_leaves_the_old_files_and_no_other(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in write_reconstruction(tmp_path, make_reconstruction(), [form])}

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    if form == "tiff":  # the second of three
        write, calls = tifffile.imwrite, iter((False, True))
        monkeypatch.setattr(tifffile, "imwrite", lambda *rest, **more: (full if next(calls) else write)(*rest, **more))
    else:
        monkeypatch.setattr("ptycho_core.storage.files.os.fsync", full)
    with pytest.raises(DataError, match="No space left on device"):
        write_reconstruction(tmp_path, make_reconstruction(seed=5), [form])
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
