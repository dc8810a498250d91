"""Scan files of every format are read as specs/data.md says, and what is not said is asked for."""

from __future__ import annotations

import bz2
import os
import shutil
import tomllib
import weakref
from pathlib import Path
from typing import Any

import attrs
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho_core import load_scan, save_scan
from ptycho_core.errors import ConfigurationError, DataError
from ptycho_core.formats.convert import convert
from ptycho_core.io.assembly import Grid, refit
from ptycho_core.io.gaps import command_of, gaps_of
from ptycho_core.io.readers import READERS, choose_reader
from ptycho_core.scans.frames import Frames
from ptycho_core.scans.geometry import object_pixel_m, photon_wavelength_m
from ptycho_core.scans.orientation import ORIENTATIONS, about_the_centre
from ptycho_core.scans.scan import Scan
from ptycho_core.scans.steps import Orient
from ptycho_core.settings.fields import fields_of, flag_of
from ptycho_core.settings.reading import ReadOptions
from tests.core import scan_files
from tests.core.plugins import entry_point
from tests.core.reading import load, put, refusal
from tests.core.scan_files import COUNT, ENERGY_EV, MAKERS, PIXEL_M, N, ScanFile, counts, make_scan, positions, probe
from tests.shared_data import shared

ROOT = Path(__file__).parents[3]
READ_BY = {
    **{"packed": "npz", "ptychodus_product": "ptychodus", "ptyd_linked": "ptyd", "shelves_parameters": "shelves"},
    **{"eiger": "nexus", "eiger_data": "nexus"},
}
GOOD = np.ones((N, N), bool)
GOOD[0, 0] = False  # bad in the PtyPy files


@pytest.fixture(autouse=True)
def _files_need_not_outlive_a_power_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


# -- every format holds the same scan ------------------------------------------------------------------------------


@pytest.mark.parametrize("lazy", [False, True], ids=["in memory", "lazy"])
@pytest.mark.parametrize("name", MAKERS)
def test_every_format_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, lazy: bool) -> None:
    monkeypatch.setattr("ptycho_core.storage.source.IN_MEMORY_BYTES", 0 if lazy else 2**28)
    file = MAKERS[name](tmp_path)
    scan = load(file)
    assert isinstance(scan.diffraction_amplitude, Frames) == lazy
    np.testing.assert_array_equal(
        scan.diffraction_amplitude[:][:, GOOD], np.sqrt(counts(), dtype=np.float32)[:, GOOD], err_msg=name
    )
    shift = scan.positions_px - positions()
    assert np.ptp(shift, axis=0).max() < 1e-9
    np.testing.assert_array_equal(scan.probe[0], probe())
    assert scan.dose_known == (name != "nsls2")  # whose amplitudes may have any unit
    assert scan.source == str(file.path)
    if PIXEL_M in scan.metadata.get("object_pixel_m", []):
        assert scan.metadata["wavelength_m"] == pytest.approx(photon_wavelength_m(ENERGY_EV))


@pytest.mark.parametrize("name", [name for name in MAKERS if not name.startswith(("mapped", "table", "probe"))])
def test_the_reader_is_told_by_the_content_and_not_by_the_name(tmp_path: Path, name: str) -> None:
    file = MAKERS[name](tmp_path)
    if name == "packed":
        file.path.write_bytes(bz2.decompress(file.path.read_bytes()))
    other = file.path.rename(tmp_path / "anything.dat")
    assert choose_reader(other, ReadOptions()).name == READ_BY.get(name, name.split("_")[0])


def test_what_an_unknown_file_holds_is_said(tmp_path: Path) -> None:
    file = scan_files.mapped_hdf5(tmp_path)
    message = refusal(file.path)
    assert "expected a scan of a known format" in message
    assert "It holds: /entry/data (6, 16, 16) uint16; " in message  # first what has the most axes
    assert "/entry/positions (6, 2) float64" in message
    assert all(name in message for name in READERS.ours) and "inspect FILE --suggest" in message
    stated = (
        "--dataset /entry/data, --positions /entry/positions, --position-order xy|yx, --position-unit px|m, --probe"
    )
    assert f"{stated} /probe, --energy-eV EV with metres" in message


def test_all_that_a_named_data_set_lacks_is_asked_for_at_once(tmp_path: Path) -> None:
    path = scan_files.mapped_hdf5(tmp_path).path
    message = refusal(path, dataset="entry/data")
    assert "expected positions, position_order, position_unit, probe; received none of them in the file" in message
    for given_one in ("positions", "probe"):
        assert f"--{given_one} /" in message
    last = refusal(path, dataset="entry/data", positions="entry/positions", position_order="xy", probe="probe")
    assert "position_unit: px or m" in last  # one thing alone, as ever


def test_a_suggested_command_is_made_of_what_the_file_says(tmp_path: Path) -> None:
    """Two coordinates that x and y tell apart, their unit, and lengths with theirs; what has none is filled in."""
    path = tmp_path / "beam line.h5"
    with h5py.File(path, "w") as file:
        file["entry/frames"] = counts().astype(np.float32)
        for axis, name in enumerate(("samx", "samy")):
            file[f"motors/{name}"] = positions()[:, axis]
            file[f"motors/{name}"].attrs["units"] = "um"
        file["energy"], file["distance"], file["pixel"] = 8.0, 1500.0, 75e-6
        file["energy"].attrs["units"], file["distance"].attrs["units"] = "keV", "mm"
    options = ReadOptions(crop=8)
    gaps = gaps_of(path, options)
    assert command_of(path, options, gaps) == (
        f"ptycho inspect '{path}' --crop 8 --dataset /entry/frames --measurement intensity|amplitude "
        "--positions /motors/samx,/motors/samy --position-order xy --position-unit m --position-scale 1e-06 "
        "--probe FILE|auto --energy-eV 8000 --distance-m 1.5 --detector-pixel-m METRES"
    )
    assert [gap.option for gap in gaps if not gap.sure] == ["measurement", "probe", "detector_pixel_m"]
    assert gaps[-1].why == "/pixel is 7.5e-05, without a unit"
    filled = {"measurement": "intensity", "probe": "auto", "detector_pixel_m": "75e-6"}
    values = {gap.option: filled.get(gap.option, gap.value) for gap in gaps}
    lengths = ("energy_eV", "distance_m", "detector_pixel_m", "position_scale")
    scan = load_scan(path, **{name: float(text) if name in lengths else text for name, text in values.items()})
    span = np.ptp(positions(), axis=0) * 1e-6 / scan.metadata["object_pixel_m"][0]
    np.testing.assert_allclose(np.ptp(scan.positions_px, axis=0), span)
    assert gaps_of(tmp_path / "nowhere.h5", options) == ()


def test_a_file_with_the_marks_of_two_formats_has_to_be_told(tmp_path: Path) -> None:
    file = scan_files.cxi(tmp_path)
    put(file.path, "dp", counts())
    assert "received the marks of cxi, shelves" in refusal(file)
    assert load(file, reader="cxi").metadata["reader"] == "cxi"


def test_an_unknown_reader_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"reader must be one of .*; got 'ptyd5'\. Did you mean 'ptyd'\?"):
        load_scan(scan_files.npz(tmp_path).path, reader="ptyd5")


@pytest.mark.field("reading.reader")
def test_a_stated_reader_refuses_a_file_of_another_format(tmp_path: Path) -> None:
    path = scan_files.npz(tmp_path).path
    for name in ("cxi", "ptyd", "shelves", "ptychodus"):
        assert refusal(path, reader=name)
    assert "The file holds" in refusal(scan_files.mapped_hdf5(tmp_path).path, reader="shelves")


def test_our_readers_are_those_that_the_package_registers() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["ptycho_core.readers"] == READERS.ours


class Numbers:
    """A reader of another package."""

    name, description, endings = "numbers", "a number of frames", (".count",)

    def matches(self, path: Path) -> bool:
        return path.read_bytes().startswith(b"COUNT")

    def read(self, path: Path, options: ReadOptions) -> Scan:
        return make_scan(source=str(path))


def test_a_reader_of_another_package_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [entry_point(name, f"{__name__}:Numbers", READERS.group) for name in ("numbers", "npz")]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)
    (tmp_path / "x.bin").write_bytes(b"COUNT 5")
    assert load_scan(tmp_path / "x.bin").source == str(tmp_path / "x.bin")
    assert type(READERS.load("npz")).__name__ == "NpzReader"  # no other can take our names


@pytest.mark.parametrize("broken", ["a_module_that_is_not_there:Reader", f"{__name__}:Stumbling"])
def test_a_broken_reader_of_another_package_leaves_the_others_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, core_log: pytest.LogCaptureFixture, broken: str
) -> None:
    points = [entry_point("broken", broken, READERS.group)]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)
    monkeypatch.setattr(READERS, "_warned", set())
    file = scan_files.npz(tmp_path)
    for _ in range(2):
        assert len(load(file)) == COUNT
    (message,) = [message for message in core_log.messages if "broken" in message]
    assert "reader 'broken' of other-package 1.2: it " in message


class Stumbling(Numbers):
    def matches(self, path: Path) -> bool:
        raise UnicodeDecodeError("utf-8", b"", 0, 1, "no text")


@pytest.mark.parametrize("suffix", [".bz2", ".gz"])
def test_packed_files_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    file = scan_files.packed(tmp_path, suffix)
    assert len(load(file)) == COUNT
    assert not list((tmp_path / "temporary").iterdir())
    monkeypatch.setattr("ptycho_core.storage.source.IN_MEMORY_BYTES", 0)
    scan = load(file)
    assert list((tmp_path / "temporary").iterdir())
    assert len(scan.diffraction_amplitude[[1, 2]]) == 2
    gone = weakref.ref(scan.diffraction_amplitude)
    del scan
    assert gone() is None and not list((tmp_path / "temporary").iterdir())


def test_the_original_siemens_star_is_the_prepared_one() -> None:
    star = load_scan(
        shared("siemens_star", "siemens-star-small.npz.bz2"),
        dataset="data",
        measurement="intensity",
        dc="corner",
        positions="scan",
        position_order="yx",
        position_unit="px",
        probe="probe",
        crop=64,
    )
    prepared = load_scan(shared("siemens_star", "siemens_star_64.npz"))
    np.testing.assert_array_equal(star.diffraction_amplitude, prepared.diffraction_amplitude)
    assert np.ptp(star.positions_px - prepared.positions_px, axis=0).tolist() == [0, 0]
    assert star.probe.shape == (1, 64, 64)


# -- what has to be stated -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["positions", "position_order", "position_unit", "probe"])
def test_what_a_mapped_file_does_not_say_is_asked_for_by_name(tmp_path: Path, option: str) -> None:
    file = scan_files.mapped_hdf5(tmp_path)
    left = {name: value for name, value in file.settings.items() if name != option}
    if option == "positions":
        left = {name: left[name] for name in ("dataset", "probe")}
    assert flag_of(option) in refusal(attrs.evolve(file, settings=left))


@pytest.mark.field("reading.measurement")
def test_what_real_numbers_measure_is_asked_for(tmp_path: Path) -> None:
    file = scan_files.mapped_hdf5(tmp_path)
    put(file.path, "entry/data", counts().astype(np.float32))
    assert "--measurement" in refusal(file)
    np.testing.assert_array_equal(load(file, measurement="amplitude").diffraction_amplitude, counts())
    assert not load(file, measurement="amplitude").dose_known and load(file, measurement="intensity").dose_known


@pytest.mark.parametrize("option", ["energy_eV", "distance_m", "detector_pixel_m"])
def test_lengths_that_metres_need_are_asked_for(tmp_path: Path, option: str) -> None:
    file = scan_files.mapped_hdf5(tmp_path)
    lengths = {"energy_eV": 8000, "distance_m": 2, "detector_pixel_m": 75e-6}
    settings = {**file.settings, **lengths, "position_unit": "m"}
    del settings[option]
    assert flag_of(option) in refusal(attrs.evolve(file, settings=settings))


@pytest.mark.field(
    "reading.position_unit",
    "reading.energy_eV",
    "reading.wavelength_m",
    "reading.distance_m",
    "reading.detector_pixel_m",
)
def test_metres_become_pixels(tmp_path: Path) -> None:
    file = scan_files.mapped_hdf5(tmp_path)
    put(file.path, "entry/positions", positions() * PIXEL_M)
    stated = {"position_unit": "m", "energy_eV": ENERGY_EV, "distance_m": 2, "detector_pixel_m": 75e-6}
    scan = load(file, **stated)
    np.testing.assert_allclose(scan.positions_px, positions(), rtol=1e-12)
    assert scan.metadata["object_pixel_m"] == pytest.approx([PIXEL_M] * 2)
    wavelength = {**stated, "energy_eV": None, "wavelength_m": photon_wavelength_m(ENERGY_EV)}
    np.testing.assert_allclose(load(file, **wavelength).positions_px, positions(), rtol=1e-12)
    halved = load(file, **stated, crop=N // 2)
    np.testing.assert_allclose(halved.positions_px, positions() / 2, rtol=1e-12)
    binned = load(file, **stated, bin=2)
    np.testing.assert_allclose(binned.positions_px, positions(), rtol=1e-12)
    assert binned.metadata["detector_pixel_m"] == [150e-6] * 2


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"energy_eV": 1.0, "wavelength_m": 1.0}, "energy_eV must be left out where wavelength_m is given"),
        ({"centre_row": 3}, "centre_row must be given together with centre_column"),
        ({"centre_row": 3, "centre_column": 3, "dc": "corner"}, "centre_row must be left out where dc = corner"),
        (
            {"position_unit": "m"},
            "position_unit has no effect unless positions is set; got position_unit = 'm' and positions is unset",
        ),
        ({"crop": 1}, "crop must be a whole number >= 2"),
        ({"dc": "middle"}, "one of 'centre', 'corner'"),
        ({"cropp": 3}, "Did you mean 'crop'?"),
    ],
)
def test_statements_that_make_no_sense_are_refused(tmp_path: Path, stated: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_scan(scan_files.npz(tmp_path).path, **stated)
    assert message in str(caught.value)


def test_an_option_that_a_reader_cannot_use_is_refused(tmp_path: Path) -> None:
    file = scan_files.npz(tmp_path)
    assert "no companion for the reader 'npz'" in refusal(file, companion="x.h5")
    assert "no dataset for the reader 'npz'" in refusal(file, dataset="diff3d", reader="npz")


def test_every_option_is_in_the_specification() -> None:
    text = (ROOT / "specs" / "data.md").read_text(encoding="utf-8")
    section = text.split("\n## Readers\n", 1)[1].split("\n## ", 1)[0]
    assert [name for name in fields_of(ReadOptions) if f"`{name}`" not in section] == []


def test_settings_go_before_options(tmp_path: Path) -> None:
    options = ReadOptions(crop=8, bin=2)
    assert load_scan(scan_files.npz(tmp_path).path, options, bin=1).N == 8


# -- named arrays --------------------------------------------------------------------------------------------------


def test_an_npy_file_is_the_patterns_where_positions_are_named(tmp_path: Path) -> None:
    file = scan_files.mapped_npy(tmp_path)
    np.testing.assert_array_equal(load(file, reader=None).positions_px, positions())
    assert "positions, or the step of a raster" in refusal(file.path)


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("x,y\n1,2\n3,4\n5,6\n7,8\n9,10\n11,12\n", "xy"),
        ("# frame positions\n1 2\n3 4\n\n5\t6\n7 8\n9 10\n11 12", "xy"),
        ("2;1\n4;3\n6;5\n8;7\n10;9\n12;11", "yx"),
    ],
)
def test_positions_from_a_table(tmp_path: Path, text: str, order: str) -> None:
    file = scan_files.mapped_npy(tmp_path)
    (tmp_path / "table.txt").write_text(text)
    scan = load(file, positions="table.txt", position_order=order)  # found beside the scan
    np.testing.assert_array_equal(scan.positions_px, np.arange(1, 13).reshape(6, 2))


TABLES = {
    "frame,samx,samy\n": ("0,1,2", "table.txt"),
    "\ufeffY (µm);n;X (µm)\n": ("2;0;1", "table.txt"),
    "# time x y z\n# all in pixels\n": ("0.5 1 2 9", "table.txt"),
    "n,x_set,y_set,x,y\n": ("0,7,8,1,2", "table.txt:x,y"),
    "": ("0 1 2", "table.txt:2,3"),
}


@pytest.mark.parametrize("heading", TABLES)
def test_columns_of_a_table_are_found_by_their_headings(
    tmp_path: Path, heading: str, core_log: pytest.LogCaptureFixture
) -> None:
    file = scan_files.mapped_npy(tmp_path)
    row, named = TABLES[heading]
    (tmp_path / "table.txt").write_text(heading + f"{row}\n" * 6, encoding="utf-8")
    order = "yx" if "Y" in heading else "xy"
    scan = load(file, positions=named, position_order=order)
    np.testing.assert_array_equal(scan.positions_px, [[1, 2]] * 6)
    assert ("lines without a position are left out: 1" in core_log.text) == (heading != "")


@pytest.mark.parametrize(
    ("heading", "row", "words"),
    [
        ("", "0 1 2", ("received 3 columns without headings", "table.txt:1,2")),
        ("n,x_set,y_set,x,y\n", "0,7,8,1,2", ("5 columns: n, x_set, y_set, x, y", "table.txt:x,y")),
        ("index,value,z\n", "0,1,2", ("3 columns: index, value, z",)),
        ("samy,samx\n", "2,1", ("x before y, as stated", "'samy' before 'samx'", "--position-order yx")),
        ("1,2O\n", "1,2", ("line 1: '1,2O'",)),
    ],
)
def test_columns_that_cannot_be_told_apart_are_refused(
    tmp_path: Path, heading: str, row: str, words: tuple[str, ...]
) -> None:
    file = scan_files.mapped_npy(tmp_path)
    (tmp_path / "table.txt").write_text(heading + f"{row}\n" * 6)
    message = refusal(file, positions=str(tmp_path / "table.txt"))
    assert all(part in message for part in words), message
    assert "a column 'velocity'" in refusal(file, positions=f"{tmp_path / 'table.txt'}:velocity,2") or "2O" in message


@pytest.mark.parametrize("text", ["", "# nothing", "1 2\n3\n", "1 2\n3 four\n", "x y\n", "1 nan\n" * 6, "\x00\xff"])
def test_a_table_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    file = scan_files.mapped_npy(tmp_path)
    (tmp_path / "table.txt").write_text(text, encoding="latin1")
    refusal(file, positions=str(tmp_path / "table.txt"))


@pytest.mark.parametrize(
    ("shape", "accepted"),
    [
        ((6, 2), True),
        ((6, 3), True),
        ((1, 6, 2), True),
        ((2, 6), True),
        ((6,), False),
        ((6, 4), False),
        ((5, 2), False),
    ],
)
def test_shapes_of_positions(tmp_path: Path, shape: tuple[int, ...], accepted: bool) -> None:
    file = scan_files.mapped_npy(tmp_path)
    np.save(tmp_path / "positions.npy", np.arange(np.prod(shape), dtype=float).reshape(shape))
    if accepted:
        assert load(file).positions_px.shape == (6, 2)
    else:
        refusal(file)


def test_two_names_are_x_and_y(tmp_path: Path) -> None:
    file = scan_files.mapped_hdf5(tmp_path)
    x, y = positions().T
    put(file.path, "x", x[None])
    put(file.path, "y", y)
    for named in ("x,y", f"{file.path}:x,y"):
        np.testing.assert_array_equal(load(file, positions=named).positions_px, positions())
    np.testing.assert_array_equal(load(file, positions="y,x", position_order="yx").positions_px, positions())
    put(file.path, "y", y[1:])
    assert "equal lengths" in refusal(file, positions="x,y")


def test_names_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    file = scan_files.mapped_npz(tmp_path)
    assert "received nothing" in refusal(file, probe="other")
    assert "The file holds: data, scan, probe" in refusal(file, dataset="other")
    hdf = scan_files.mapped_hdf5(tmp_path)
    assert "received no such data set" in refusal(hdf, dataset="entry/nothing")
    put(hdf.path, "no/patterns", 1.0)
    assert "received a group" in refusal(hdf, dataset="no")
    assert "one data set for probe" in refusal(hdf, probe=str(hdf.path))


@pytest.mark.field("reading.positions", "reading.position_order", "reading.probe")
def test_positions_and_probe_may_be_replaced(tmp_path: Path) -> None:
    np.save(tmp_path / "places.npy", positions()[::-1])
    np.save(tmp_path / "wave.npy", 2 * probe())
    stated = {"positions": "places.npy", "position_order": "yx", "position_unit": "px", "probe": "wave.npy"}
    for make in (scan_files.npz, scan_files.cxi, scan_files.ptychodus):
        scan = load(make(tmp_path), **stated)
        np.testing.assert_array_equal(scan.positions_px, positions()[::-1, ::-1])
        np.testing.assert_array_equal(scan.probe[0], 2 * probe())
        assert scan.object_field is None  # lies on the grid of the positions that were replaced


# -- detector: crop, bins, pad, orientation, bad pixels ------------------------------------------------------------


@pytest.mark.field("reading.crop", "reading.centre_row", "reading.centre_column")
def test_crop_is_about_the_beam(tmp_path: Path) -> None:
    scan = load(scan_files.npz(tmp_path), crop=8, centre_row=9, centre_column=7)
    expected = np.sqrt(counts()[:, 5:13, 3:11], dtype=np.float32)
    np.testing.assert_array_equal(scan.diffraction_amplitude, expected)
    np.testing.assert_allclose(scan.positions_px, positions() / 2)


def test_a_centre_alone_moves_the_patterns(tmp_path: Path) -> None:
    scan = load(scan_files.npz(tmp_path), centre_row=9, centre_column=8)
    assert scan.bad_pixels is not None and scan.bad_pixels[-1].all() and scan.bad_pixels.sum() == N
    np.testing.assert_array_equal(scan.diffraction_amplitude[:, :-1], np.sqrt(counts()[:, 1:], dtype=np.float32))
    assert "a centre on 16 x 16 pixels" in refusal(scan_files.npz(tmp_path), centre_row=16, centre_column=8)


@pytest.mark.field("reading.bin", "reading.pad")
def test_bins_add_counts_and_pads_are_bad(tmp_path: Path) -> None:
    scan = load(scan_files.npz(tmp_path), bin=2, pad=12)
    summed = counts().reshape(COUNT, 8, 2, 8, 2).sum(axis=(2, 4))
    np.testing.assert_allclose(scan.diffraction_amplitude[:, 2:10, 2:10] ** 2, summed, rtol=1e-5)
    assert scan.bad_pixels is not None and scan.bad_pixels.sum() == 12**2 - 8**2
    np.testing.assert_allclose(scan.positions_px, positions() * 24 / 16)
    assert scan.probe.shape == (1, 12, 12)


@pytest.mark.field("reading.dataset", "reading.object")
def test_data_sets_are_taken_by_their_names(tmp_path: Path) -> None:
    file = scan_files.mapped_hdf5(tmp_path)
    put(file.path, "other/data", 2 * counts())
    put(file.path, "other/object", np.full((40, 30), 2j))
    scan = load(file, dataset="other/data", object="other/object")
    np.testing.assert_array_equal(scan.diffraction_amplitude, np.sqrt(2 * counts(), dtype=np.float32))
    assert scan.object_field is not None
    np.testing.assert_array_equal(scan.object_field, np.full((40, 30), 2j))


def test_sizes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    file = scan_files.npz(tmp_path)
    assert "a factor that divides 16 x 16 pixels" in refusal(file, bin=3)
    assert "expected at least 16 pixels" in refusal(file, pad=8)
    np.savez(tmp_path / "oblong.npz", data=counts()[:, 1:], scan=positions(), probe=probe())
    oblong = ScanFile(tmp_path / "oblong.npz", scan_files.mapped_npz(tmp_path).settings)
    assert "expected square patterns; received 15 x 16 pixels" in refusal(oblong)
    assert load(oblong, pad=16).N == 16


def test_a_probe_of_another_size_is_refused(tmp_path: Path) -> None:
    file = scan_files.npz(tmp_path)
    np.save(tmp_path / "wave.npy", np.ones((8, 8), complex))
    assert "expected 16 x 16 pixels" in refusal(file, probe="wave.npy")
    np.testing.assert_array_equal(load(file, probe="wave.npy", crop=8).probe, np.ones((1, 8, 8)))


def test_a_cropped_probe_has_the_far_field_that_is_left() -> None:
    wave = np.asarray(np.stack([probe(), 1j * probe().T]), np.complex128)
    fields = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(wave, (1, 2)), norm="ortho"), (1, 2))
    small = refit(wave, Grid(N, N, (8, 8), 1, 8))
    again = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(small, (1, 2)), norm="ortho"), (1, 2))
    np.testing.assert_allclose(again, fields[:, 4:12, 4:12], atol=1e-12)
    np.testing.assert_allclose(refit(wave, Grid(N, N, (N, N), 2, 8)), wave[:, 4:12, 4:12])
    padded = refit(wave, Grid(N, N, (N, N), 1, 2 * N))
    np.testing.assert_allclose((abs(padded) ** 2).sum(), (abs(wave) ** 2).sum())


@pytest.mark.parametrize("turn", ORIENTATIONS, ids=str)
@pytest.mark.field("reading.transpose", "reading.flip_rows", "reading.flip_columns")
def test_patterns_are_turned_about_the_beam(tmp_path: Path, turn: Orient) -> None:
    file = scan_files.npz(tmp_path)
    flags = attrs.asdict(turn)
    expected = np.sqrt(counts(), dtype=np.float32)
    for step in about_the_centre(turn, N):
        expected = step.apply(expected)
    np.testing.assert_array_equal(load(file, **flags).diffraction_amplitude, expected)
    # A crop takes the row that lies beyond from the detector, where there is one.
    np.testing.assert_array_equal(load(file, crop=8, **flags).diffraction_amplitude, expected[:, 4:12, 4:12])
    by_name = load(file, crop=8, centre_row=8, centre_column=8, **flags)
    np.testing.assert_array_equal(by_name.diffraction_amplitude, expected[:, 4:12, 4:12])


@pytest.mark.field("reading.dc")
def test_dc_at_the_corner(tmp_path: Path) -> None:
    file = scan_files.mapped_npz(tmp_path)
    corner = np.fft.ifftshift(counts(), axes=(1, 2))
    np.savez(file.path, data=corner, scan=positions(), probe=probe())
    np.testing.assert_array_equal(load(file, dc="corner").diffraction_amplitude, np.sqrt(counts(), dtype=np.float32))


@pytest.mark.field("reading.transpose_positions", "reading.flip_x", "reading.flip_y", "reading.position_scale")
def test_positions_are_exchanged_then_negated(tmp_path: Path) -> None:
    file = scan_files.npz(tmp_path)
    x, y = positions().T
    turned = load(file, transpose_positions=True, flip_x=True)
    np.testing.assert_array_equal(turned.positions_px, np.stack([-y, x], axis=1))
    np.testing.assert_array_equal(load(file, flip_y=True).positions_px, np.stack([x, -y], axis=1))
    np.testing.assert_array_equal(load(file, position_scale=2.0).positions_px, 2 * positions())
    assert turned.object_field is None and load(file, measurement="amplitude").object_field is not None


@pytest.mark.field("reading.transpose_probe", "reading.flip_probe_rows", "reading.flip_probe_columns")
def test_the_probe_is_turned_about_its_centre(tmp_path: Path) -> None:
    file = scan_files.npz(tmp_path)
    turned = load(file, transpose_probe=True, flip_probe_rows=True).probe[0]
    np.testing.assert_array_equal(turned, np.roll(probe().T[::-1], 1, axis=0))
    turned = load(file, flip_probe_columns=True).probe[0]
    np.testing.assert_array_equal(turned, np.roll(probe()[:, ::-1], 1, axis=1))


@pytest.mark.field("reading.bad_pixels")
def test_bad_pixels_of_the_user_are_blank(tmp_path: Path) -> None:
    mask = np.zeros((N, N), np.uint8)
    mask[6, 5] = 3
    np.save(tmp_path / "mask.npy", mask)
    scan = load(scan_files.npz(tmp_path), bad_pixels="mask.npy", crop=8)
    assert scan.bad_pixels is not None and np.argwhere(scan.bad_pixels).tolist() == [[2, 1]]
    assert not scan.diffraction_amplitude[:, 2, 1].any()
    np.save(tmp_path / "mask.npy", mask[1:])
    assert "expected shape (16, 16); received shape (15, 16)" in refusal(
        scan_files.npz(tmp_path), bad_pixels="mask.npy"
    )


# -- Ptychodus -----------------------------------------------------------------------------------------------------


def test_patterns_and_positions_pair_by_index(tmp_path: Path, core_log: pytest.LogCaptureFixture) -> None:
    file = scan_files.ptychodus(tmp_path)
    keys = np.array([40, 10, 30, 20, 50, 0])
    put(file.path, "indexes", keys)
    wanted = np.array([20, 25, 30, 10])
    for name, values in {"indexes": wanted, "x_m": np.arange(4) * PIXEL_M, "y_m": np.zeros(4)}.items():
        put(tmp_path / "product.h5", f"probe_position_{name}", values)
    scan = load(file)
    assert scan.scan_index is not None and scan.scan_index.tolist() == [20, 30, 10]
    np.testing.assert_array_equal(scan.diffraction_amplitude, np.sqrt(counts()[[3, 2, 1]], dtype=np.float32))
    np.testing.assert_allclose(np.diff(scan.positions_px[:, 0]), [2, 1])
    assert "1 of 4 positions have no partner" in core_log.text and "3 of 6 patterns" in core_log.text


def test_a_pattern_between_others_has_an_interpolated_position(
    tmp_path: Path, core_log: pytest.LogCaptureFixture
) -> None:
    """As Ptychodus prepares a reconstruction; nothing is extrapolated."""
    file = scan_files.ptychodus(tmp_path)
    put(file.path, "indexes", np.array([40, 10, 30, 20, 50, 0]))
    for name, values in {"indexes": [30, 10, 40], "x_m": [6, 0, 7], "y_m": [0, 4, 1]}.items():
        scale = 1 if name == "indexes" else PIXEL_M
        put(tmp_path / "product.h5", f"probe_position_{name}", np.array(values) * scale)
    scan = load(file)
    assert scan.scan_index is not None and scan.scan_index.tolist() == [10, 20, 30, 40]
    np.testing.assert_array_equal(scan.diffraction_amplitude, np.sqrt(counts()[[1, 3, 2, 0]], dtype=np.float32))
    np.testing.assert_allclose(scan.positions_px - scan.positions_px[0], [[0, 0], [3, -2], [6, -4], [7, -3]], atol=1e-9)
    assert "1 patterns have no position of their own" in core_log.text and "--drop-frames 1" in core_log.text
    assert "2 of 6 patterns have no partner" in core_log.text
    assert load(file, drop_frames="1").scan_index.tolist() == [10, 30, 40]  # type: ignore[union-attr]


def test_indexes_that_cannot_pair_are_refused(tmp_path: Path, core_log: pytest.LogCaptureFixture) -> None:
    file = scan_files.ptychodus(tmp_path)
    put(tmp_path / "product.h5", "probe_position_indexes", np.arange(COUNT) + 100)
    assert "received none of them" in refusal(file)
    put(tmp_path / "product.h5", "probe_position_indexes", np.arange(COUNT))
    put(tmp_path / "diffraction.h5", "indexes", np.array([1, 2, 2, 3, 4, 5]))
    assert "every index once; received index 2 for 2" in refusal(file)
    put(tmp_path / "diffraction.h5", "indexes", np.arange(COUNT))
    put(tmp_path / "product.h5", "probe_position_indexes", np.zeros(COUNT, int))
    assert len(load(file)) == COUNT
    assert "paired in their order" in core_log.text
    put(tmp_path / "product.h5", "probe_position_indexes", np.arange(3))
    assert "equal lengths; received 3, 6 and 6" in refusal(file)


def test_the_half_pixel_of_the_object_grid(tmp_path: Path) -> None:
    file = scan_files.ptychodus(tmp_path)
    with h5py.File(tmp_path / "product.h5", "r+") as product:
        del product["object"]
        item = product.create_dataset("object", data=np.ones((1, 50, 81), complex))
        item.attrs.update(center_x_m=2e-6, center_y_m=-1e-6, pixel_width_m=1e-8, pixel_height_m=2e-8)
        product["probe_position_x_m"][:] = 2e-6 + 3e-8
        product["probe_position_y_m"][:] = -1e-6 - 4e-8
    # The middle of a patch of 16 pixels lies half a pixel before its pixel [8, 8], which a position names.
    np.testing.assert_allclose(load(file).positions_px, [[43.5, 23]] * COUNT)


def test_older_names_and_several_probes(tmp_path: Path, core_log: pytest.LogCaptureFixture) -> None:
    file = scan_files.ptychodus(tmp_path)
    with h5py.File(tmp_path / "product.h5", "r+") as product:
        for old, new in {
            "probe_energy_eV": "photon_energy_eV",
            "mass_attenuation_m2_kg": "mass_attenuation_m2_per_kg",
        }.items():
            product.attrs[old] = product.attrs[new] or 4.0
            del product.attrs[new]
        del product["probe"]
        product["probe"] = np.stack([np.stack([probe(), 2 * probe()]), np.zeros((2, N, N))])
    scan = load(file)
    assert scan.metadata["photon_energy_eV"] == ENERGY_EV and scan.metadata["mass_attenuation_m2_per_kg"] == 4.0
    np.testing.assert_array_equal(scan.probe, [probe(), 2 * probe()])
    assert "the first of (2,) position-dependent probes is used" in core_log.text


@pytest.mark.field("reading.companion")
def test_the_other_file_is_found_or_asked_for(tmp_path: Path) -> None:
    file = scan_files.ptychodus(tmp_path)
    product = (tmp_path / "product.h5").rename(tmp_path / "run7.h5")
    assert len(load(file)) == COUNT  # the only product beside it
    shutil.copy(product, tmp_path / "run8.h5")
    assert "--companion" in refusal(file) and "run7.h5, run8.h5" in refusal(file)
    assert len(load(file, companion=product)) == COUNT
    assert "which is none" in refusal(file, companion=file.path)
    for path in (product, tmp_path / "run8.h5"):
        path.unlink()
    assert "received none beside it" in refusal(file)


# -- CXI, PtyPy, PtychoShelves -------------------------------------------------------------------------------------


def test_translations_follow_the_axes_of_the_detector(tmp_path: Path) -> None:
    file = scan_files.cxi(tmp_path)
    before = load(file).positions_px
    basis = "/entry_1/instrument_1/detector_1/basis_vectors"
    put(file.path, basis, np.array([[0, 75e-6, 0], [-75e-6, 0, 0]]))  # rows upwards
    after = load(file).positions_px
    np.testing.assert_allclose(np.diff(after, axis=0) * [1, -1], np.diff(before, axis=0), atol=1e-9)
    put(file.path, basis, None)  # as it usually is
    np.testing.assert_array_equal(load(file).positions_px, before)


def test_cxi_in_two_files(tmp_path: Path) -> None:
    file = scan_files.cxi(tmp_path)
    shutil.copy(file.path, tmp_path / "product.cxi")
    patterns = file.path.rename(tmp_path / "diffraction.cxi")
    for name in ("data_1/translation", "sample_1", "image_1", "image_2", "ptychodus", "instrument_1/source_1"):
        put(patterns, f"/entry_1/{name}", None)
    put(tmp_path / "product.cxi", "/entry_1/ptychodus/probe_position_indexes", np.array([3, 1, 9, 0, 2, 5]))
    scan = load_scan(patterns)
    np.testing.assert_array_equal(scan.diffraction_amplitude, np.sqrt(counts()[[3, 1, 0, 2, 5]], dtype=np.float32))
    np.testing.assert_allclose(scan.positions_px, positions()[[0, 1, 3, 4, 5]])
    product = (tmp_path / "product.cxi").rename(tmp_path / "other.cxi")
    assert "--positions" in refusal(patterns)
    assert len(load_scan(patterns, companion=product)) == 5


def test_a_mask_of_bits(tmp_path: Path) -> None:
    file = scan_files.cxi(tmp_path)
    mask = np.zeros((N, N), np.uint32)
    mask[1, 2], mask[3, 4] = 0x1000, 0x1004
    put(file.path, "/entry_1/instrument_1/detector_1/mask", mask)
    scan = load(file)
    assert scan.bad_pixels is not None and np.argwhere(scan.bad_pixels).tolist() == [[3, 4]]
    put(file.path, "/entry_1/instrument_1/detector_1/mask", np.stack([mask] * 2))
    assert load(file).bad_pixels is not None


def test_cxi_without_probe_and_with_wavelength(tmp_path: Path) -> None:
    file = scan_files.cxi(tmp_path)
    put(file.path, "/entry_1/instrument_1/source_1/illumination", None)
    put(file.path, "/entry_1/image_1", None)
    assert "--probe" in refusal(file)
    put(file.path, "/entry_1/instrument_1/source_1/energy", None)
    put(file.path, "/entry_1/instrument_1/source_1/wavelength", 1e-10)
    scan = load(file, probe=scan_files.probe_file(tmp_path))
    assert scan.metadata["wavelength_m"] == 1e-10 and "photon_energy_eV" not in scan.metadata


def test_unknown_lengths_of_a_file_are_asked_for(tmp_path: Path) -> None:
    file = scan_files.ptyd(tmp_path)
    with h5py.File(file.path, "r+") as content:
        content["meta/energy"][()] = 0.0
        content["meta/energy"].attrs["type"] = "None"
    assert "--energy-eV" in refusal(file)
    assert load(file, energy_eV=ENERGY_EV).metadata["photon_energy_eV"] == ENERGY_EV


@pytest.mark.parametrize("weights", [True, False])
def test_weights_of_ptypy(tmp_path: Path, weights: bool) -> None:
    scan = load(scan_files.ptyd(tmp_path, weights=weights))
    assert scan.bad_pixels is not None and scan.bad_pixels.sum() == weights
    assert scan.scan_index is not None and scan.scan_index.tolist() == list(range(COUNT))
    assert scan.metadata["name"] == "star"


def test_weights_and_indices_that_do_not_fit_are_told(tmp_path: Path, core_log: pytest.LogCaptureFixture) -> None:
    file = scan_files.ptyd(tmp_path)
    put(file.path, "meta/weight2d", np.zeros((N + 1, N)))
    put(file.path, "chunks/0/indices", np.array([0.5, 1.5, 2.5]))
    load(file)
    assert "meta/weight2d: weights of shape (17, 16) do not fit patterns of (16, 16)" in core_log.text
    assert "chunks/0/indices: not" in core_log.text


def test_a_chunk_that_is_gone_is_left_out(tmp_path: Path, core_log: pytest.LogCaptureFixture) -> None:
    file = scan_files.ptyd(tmp_path)
    with h5py.File(file.path, "r+") as content:
        content["chunks/7"] = h5py.SoftLink("/nowhere")
    assert len(load(file)) == COUNT
    assert "chunks/7: leads nowhere" in core_log.text


@pytest.mark.parametrize(("name", "key"), [("nsls2", "points"), ("ptylab", "encoder")])
def test_a_table_of_positions_of_another_length_is_refused(tmp_path: Path, name: str, key: str) -> None:
    file = MAKERS[name](tmp_path)
    put(file.path, key, np.zeros((3, COUNT)))
    assert f"{key}: expected" in refusal(file) and "received shape (3, 6)" in refusal(file)


def test_what_ptylab_says_and_we_do_not_apply_is_warned_of(tmp_path: Path, core_log: pytest.LogCaptureFixture) -> None:
    file = scan_files.ptylab(tmp_path)
    put(file.path, "orientation", 3)
    put(file.path, "background", np.ones((N, N)))
    assert load(file).metadata["entrance_pupil_diameter_m"] == 3e-3
    assert "orientation is not applied" in core_log.text and "--dark background" in core_log.text
    core_log.clear()
    intensity = load(file, dark="background").statistics.frame_intensity
    assert (intensity < load(file).statistics.frame_intensity).all()
    assert core_log.text.count("background is not") == 1  # where it is not named
    with h5py.File(file.path, "r+") as content:
        content.move("zo", "zled")
    assert "expected a scan of a known format" in refusal(file)


def test_positions_of_ptychoshelves(tmp_path: Path) -> None:
    file = scan_files.shelves(tmp_path)
    parameters = tmp_path / "data_roi0_para.hdf5"
    put(parameters, "ppX", None)
    put(parameters, "probe_positions_0", (positions() * PIXEL_M).T)
    np.testing.assert_allclose(load(file).positions_px, positions())
    parameters.rename(tmp_path / "data_position.hdf5")
    np.testing.assert_allclose(load(file).positions_px, positions())
    (tmp_path / "data_position.hdf5").unlink()
    assert "--companion" in refusal(file)
    np.savetxt(tmp_path / "places.txt", positions() * PIXEL_M, fmt="%.17g")
    stated = {"companion": tmp_path / "places.txt", "energy_eV": 8000, "distance_m": 2, "detector_pixel_m": 75e-6}
    np.testing.assert_allclose(load(file, **stated).positions_px, positions())


# -- writers -------------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(
    kind=st.sampled_from(["ptychodus", "cxi", "npz"]),
    count=st.integers(1, 6),
    side=st.sampled_from([2, 8, 15, 16]),
    modes=st.integers(1, 3),
    optional=st.sets(st.sampled_from(["bad_pixels", "object_field", "scan_index"])),
    values=st.sampled_from(["few counts", "many counts", "real"]),
    dose_known=st.booleans(),
    seed=st.integers(0, 99),
)
def test_every_writers_file_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    count: int,
    side: int,
    modes: int,
    optional: set[str],
    values: str,
    dose_known: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    bad = np.zeros((side, side), bool)
    bad[0, 1] = "bad_pixels" in optional
    if values == "real":
        amplitude = rng.uniform(0.1, 9, (count, side, side)).astype(np.float32)
    else:
        largest = 50 if values == "few counts" else 2**31
        amplitude = np.sqrt(rng.integers(1, largest, (count, side, side)), dtype=np.float32)
    amplitude[:, bad] = 0
    fields = {
        "object_field": rng.normal(size=(31, 42)) + 1j,
        "scan_index": rng.permutation(count * 3)[:count],
    }
    metadata = {
        "photon_energy_eV": 7e3,
        "detector_distance_m": 1.7,
        "detector_pixel_m": [5e-5, 6e-5],
        "name": "a name",
        "exposure_time_s": 0.25,
    }
    scan = Scan(
        diffraction_amplitude=amplitude,
        positions_px=rng.normal(size=(count, 2)) * 1e2,
        probe=rng.normal(size=(modes, side, side)) + 1j * rng.normal(size=(modes, side, side)),
        bad_pixels=bad,
        dose_known=dose_known,
        metadata=metadata,
        **{name: value for name, value in fields.items() if name in optional},
    )
    name = {"ptychodus": "product.h5", "cxi": "scan.cxi", "npz": "scan.npz"}[kind]
    path = tmp_path_factory.getbasetemp() / name
    save_scan(path, scan)
    loaded = load_scan(path)
    for key in ("diffraction_amplitude", "probe", "bad_pixels", "object_field", "scan_index"):
        before, after = getattr(scan, key), getattr(loaded, key)
        assert np.asarray(after).dtype == np.asarray(before).dtype, key
        np.testing.assert_array_equal(after, before, err_msg=key)
    np.testing.assert_allclose(loaded.positions_px, scan.positions_px, rtol=0, atol=1e-9)
    assert loaded.dose_known == dose_known
    for key, value in metadata.items():
        assert loaded.metadata[key] == (value if isinstance(value, str) else pytest.approx(value)), key
    if kind != "npz":
        wavelength = photon_wavelength_m(7e3)
        assert loaded.metadata["object_pixel_m"] == pytest.approx(
            [object_pixel_m(wavelength, 1.7, side, 5e-5), object_pixel_m(wavelength, 1.7, side, 6e-5)]
        )


@pytest.mark.parametrize(
    ("key", "option"),
    [
        ("photon_energy_eV", "energy_eV"),
        ("detector_distance_m", "distance_m"),
        ("detector_pixel_m", "detector_pixel_m"),
    ],
)
@pytest.mark.parametrize("name", ["product.h5", "scan.cxi"])
def test_metres_are_never_made_up(tmp_path: Path, name: str, key: str, option: str) -> None:
    metadata = {name: value for name, value in scan_files.LENGTHS.items() if name != key}
    with pytest.raises(DataError, match=rf"{key} in the scan's metadata.*: {option}\."):
        save_scan(tmp_path / name, make_scan(metadata=metadata))
    assert not list(tmp_path.iterdir())


def test_whole_numbers_are_stored_as_such(tmp_path: Path) -> None:
    save_scan(tmp_path / "product.h5", make_scan(object_field=None))
    with h5py.File(tmp_path / "diffraction.h5") as file:
        assert file["patterns"].dtype == np.uint16
        np.testing.assert_array_equal(file["patterns"], counts())
    with h5py.File(tmp_path / "product.h5") as file:
        assert file["object"].shape[0] == 1 and np.all(file["object"][0] == 1)  # Ptychodus needs one


@pytest.mark.parametrize("target", ["out.cxi", "out", "out_product.h5", "out.npz"])
def test_conversion_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    monkeypatch.setattr("ptycho_core.storage.source.IN_MEMORY_BYTES", 0)
    monkeypatch.setattr("ptycho_core.storage.source.BLOCK_BYTES", 2 * counts()[0].nbytes)
    file = scan_files.shelves(tmp_path)
    stated = ReadOptions(**file.settings, distance_m=2.0, detector_pixel_m=75e-6)
    told: list[tuple[int, int]] = []
    written = convert(file.path, tmp_path / target, stated, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (COUNT, COUNT) and all(path.is_file() for path in written)
    scan = load_scan(written[0])
    np.testing.assert_array_equal(scan.diffraction_amplitude[:], np.sqrt(counts(), dtype=np.float32))
    np.testing.assert_allclose(scan.positions_px - scan.positions_px[0], positions() - positions()[0], atol=1e-9)


def test_a_stopped_conversion_leaves_nothing(tmp_path: Path) -> None:
    file = scan_files.npz(tmp_path)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(file.path, tmp_path / "out.cxi", progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["scan.npz"]


def test_a_pair_is_replaced_as_a_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_scan(tmp_path / "diffraction.h5", make_scan())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ptycho_core.formats.writers._product", stop)
    with pytest.raises(KeyboardInterrupt):
        save_scan(
            tmp_path / "diffraction.h5",
            make_scan(positions_px=positions() + 1, diffraction_amplitude=counts().astype(np.float32)),
        )
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["scan.npz", "scan.cxi", "diffraction.h5"])
def test_a_pipe_is_never_replaced(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="expected a writable place; received a pipe or a device"):
        save_scan(tmp_path / name, make_scan())
    assert (tmp_path / name).is_fifo() and len(list(tmp_path.iterdir())) == 1


def test_targets_that_cannot_be_are_refused(tmp_path: Path) -> None:
    file = scan_files.npz(tmp_path)
    with pytest.raises(DataError, match=r"another file than .*scan\.npz"):
        convert(file.path, file.path)
    with pytest.raises(DataError, match=r"one of the formats npz, ptychodus, cxi; received the ending '\.tif'"):
        convert(file.path, tmp_path / "x.tif")
    with pytest.raises(DataError, match="'diffraction' or 'product' in it"):
        convert(file.path, tmp_path / "x.h5")
    assert convert(file.path, tmp_path / "x.data", format="cxi") == (tmp_path / "x.data",)


def test_no_file_that_is_read_is_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = scan_files.npz(tmp_path)
    np.savez(tmp_path / "places.npz", places=positions())
    named = ReadOptions(positions="places.npz:places", position_order="xy", position_unit="px")
    with pytest.raises(DataError, match=r"places\.npz: expected another file than .*places\.npz"):
        convert(file.path, tmp_path / "places.npz", named)
    np.testing.assert_array_equal(np.load(tmp_path / "places.npz")["places"], positions())
    (tmp_path / "pair").mkdir()
    pair = scan_files.ptychodus(tmp_path / "pair")
    companion = (tmp_path / "pair" / "product.h5").rename(tmp_path / "facts.npz")
    monkeypatch.chdir(tmp_path)  # where a relative name is looked for
    with pytest.raises(DataError, match=r"facts\.npz: expected another file than facts\.npz"):
        convert(pair.path, companion, ReadOptions(companion=Path("facts.npz")))


def test_a_wavelength_is_written_as_that_of_photons(tmp_path: Path) -> None:
    metadata = {**scan_files.LENGTHS, "photon_energy_eV": None, "wavelength_m": 2e-12}
    save_scan(tmp_path / "scan.cxi", make_scan(metadata=metadata))
    assert load_scan(tmp_path / "scan.cxi").metadata["wavelength_m"] == pytest.approx(2e-12)
