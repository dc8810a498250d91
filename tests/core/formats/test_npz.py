"""Scan files are read as specs/data.md says; what is damaged, ambiguous or holds objects is refused by file and key."""

from __future__ import annotations

import contextlib
import json
import os
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ptycho_core import load_scan, save_scan, simulate
from ptycho_core.errors import DataError
from ptycho_core.scans.scan import Scan
from ptycho_core.storage.files import make_folder, replacing, write_text

N, COUNT = 8, 5
ARRAYS = (
    "diffraction_amplitude",
    "positions_px",
    "probe",
    "bad_pixels",
    "object_field",
    "nominal_positions_px",
    "scan_index",
)


def contract(**changes: Any) -> dict[str, Any]:
    """The keys that a file needs; a key set to None is left out."""
    rng = np.random.default_rng(0)
    arrays = {
        "diff3d": rng.uniform(1, 9, (COUNT, N, N)),
        "xcoords": rng.uniform(0, 30, COUNT),
        "ycoords": rng.uniform(0, 30, COUNT),
        "probeGuess": rng.normal(size=(N, N)) + 1j * rng.normal(size=(N, N)),
    }
    return {key: value for key, value in {**arrays, **changes}.items() if value is not None}


def metadata(**content: Any) -> NDArray[Any]:
    return np.array(json.dumps(content))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run42.npz"


def refusal(path: Path, **keywords: Any) -> str:
    with pytest.raises(DataError) as caught:
        load_scan(path, **keywords)
    message = str(caught.value)
    assert message.startswith(f"{path}: "), message
    return message.removeprefix(f"{path}: ")


def refused(path: Path, **changes: Any) -> str:
    np.savez(path, **contract(**changes))
    return refusal(path)


# -- there and back ------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(
    count=st.integers(1, 6),
    N=st.sampled_from([2, 8, 16]),
    modes=st.integers(1, 3),
    optional=st.sets(st.sampled_from(["bad_pixels", "object_field", "nominal_positions_px", "scan_index"])),
    dose_known=st.booleans(),
    metadata=st.dictionaries(st.text(min_size=1), st.none() | st.booleans() | st.integers() | st.text(), max_size=3),
    seed=st.integers(0, 99),
)
def test_a_scan_survives_its_file(
    tmp_path_factory: pytest.TempPathFactory,
    count: int,
    N: int,
    modes: int,
    optional: set[str],
    dose_known: bool,
    metadata: dict[str, Any],
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    fields = {
        "bad_pixels": np.eye(N, dtype=bool),
        "object_field": rng.normal(size=(11, 7)) + 1j,
        "nominal_positions_px": rng.normal(size=(count, 2)),
        "scan_index": rng.integers(-(2**62), 2**62, count),
    }
    scan = Scan(
        diffraction_amplitude=rng.uniform(0, 9, (count, N, N)),
        positions_px=rng.normal(size=(count, 2)) * 1e3,
        probe=rng.normal(size=(modes, N, N)) + 1j * rng.normal(size=(modes, N, N)),
        dose_known=dose_known,
        metadata=metadata,
        **{name: fields[name] for name in optional},
    )
    path = tmp_path_factory.getbasetemp() / "scan.npz"
    save_scan(path, scan)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_scan(path)
    for name in ARRAYS:
        before, after = getattr(scan, name), getattr(loaded, name)
        assert np.asarray(after).dtype == np.asarray(before).dtype, name
        np.testing.assert_array_equal(after, before, err_msg=name)
    assert (loaded.dose_known, loaded.source) == (dose_known, str(path))
    expected = {**metadata, "measurement": "amplitude", "axes": "frame, row, column", "reader": "npz"} | (
        {"amplitude_unit": "sqrt(counts)"} if dose_known else {}
    )
    assert loaded.metadata == expected


def test_members_are_stored_so_that_they_can_be_mapped(path: Path, numbered_scan: Any) -> None:
    save_scan(path, numbered_scan())
    with zipfile.ZipFile(path) as source:
        assert {info.compress_type for info in source.infolist()} == {zipfile.ZIP_STORED}


def test_a_compressed_file_is_read_too(path: Path) -> None:
    np.savez_compressed(path, **contract())
    np.testing.assert_array_equal(load_scan(path).positions_px[:, 0], contract()["xcoords"])


# -- keys ----------------------------------------------------------------------------------------------------------


def test_x_is_the_column_and_y_the_row(path: Path) -> None:
    np.savez(path, **contract())
    np.testing.assert_array_equal(
        load_scan(path).positions_px, np.stack([contract()[k] for k in ("xcoords", "ycoords")], 1)
    )


def test_patterns_may_be_called_diffraction(path: Path) -> None:
    np.savez(path, **contract(diff3d=None, diffraction=contract()["diff3d"]))
    np.testing.assert_array_equal(load_scan(path).diffraction_amplitude, contract()["diff3d"].astype(np.float32))


def test_diff3d_goes_before_diffraction(path: Path) -> None:
    np.savez(path, **contract(diffraction=contract()["diff3d"] * 7))
    np.testing.assert_array_equal(load_scan(path).diffraction_amplitude, contract()["diff3d"].astype(np.float32))


@pytest.mark.parametrize("key", ["diff3d", "xcoords", "ycoords", "probeGuess"])
def test_a_missing_key_is_named_beside_those_that_are_there(path: Path, key: str) -> None:
    message = refused(path, **{key: None})
    others = ", ".join(sorted({"diff3d", "xcoords", "ycoords", "probeGuess"} - {key}))
    assert message.startswith(f"{key}: expected ")
    assert f"; received no such key. The file holds: {others}. " in message
    assert ("State it" if key == "probeGuess" else "Name the parts") in message


def test_start_coordinates_are_the_nominal_positions(path: Path) -> None:
    nominal = np.arange(COUNT) + 0.5
    np.savez(path, **contract(xcoords_start=nominal, ycoords_start=-nominal))
    np.testing.assert_array_equal(load_scan(path).nominal_positions_px, np.stack([nominal, -nominal], axis=1))


def test_start_coordinates_are_used_only_together(path: Path) -> None:
    np.savez(path, **contract(xcoords_start=np.zeros(COUNT)))
    np.testing.assert_array_equal(load_scan(path).nominal_positions_px, load_scan(path).positions_px)


def test_unknown_keys_are_ignored(path: Path) -> None:
    np.savez(path, **contract(beam_current=np.array([1.0, 2.0]), comment=np.array("a text")))
    assert len(load_scan(path)) == COUNT


def test_members_that_are_no_arrays_are_ignored(path: Path) -> None:
    np.savez(path, **contract())
    with zipfile.ZipFile(path, "a") as target:
        target.writestr("README.txt", "how this was measured")
    assert len(load_scan(path)) == COUNT


def test_a_member_that_is_no_array_is_no_pattern(path: Path) -> None:
    np.savez(path, **contract(diff3d=None))
    with zipfile.ZipFile(path, "a") as target:
        target.writestr("diff3d.npy", b"these are no numbers")
    assert refusal(path).startswith("diff3d: expected (M, N, N) diffraction patterns; received no such key.")


# -- layout --------------------------------------------------------------------------------------------------------


def test_patterns_of_older_files_are_turned(path: Path) -> None:
    np.savez(path, **contract(diff3d=np.moveaxis(contract()["diff3d"], 0, -1)))
    np.testing.assert_array_equal(load_scan(path).diffraction_amplitude, contract()["diff3d"].astype(np.float32))


def test_as_many_patterns_as_pixels_can_be_read_both_ways_and_are_refused(path: Path) -> None:
    rng = np.random.default_rng(0)
    message = refused(path, diff3d=rng.uniform(1, 2, (N, N, N)), xcoords=np.arange(N), ycoords=np.arange(N))
    assert message.startswith(
        "diff3d: expected a number of patterns that differs from their size; received shape (8, 8, 8)"
    )
    assert "8 patterns of 8 x 8 can be read as (M, N, N) and as (N, N, M)" in message


def test_as_many_patterns_as_pixels_survive_their_file(path: Path, numbered_scan: Any) -> None:
    scan = numbered_scan(count=8, N=8)
    save_scan(path, scan)
    np.testing.assert_array_equal(load_scan(path).diffraction_amplitude, scan.diffraction_amplitude)


def test_metadata_may_say_that_frames_come_first(path: Path) -> None:
    patterns = np.random.default_rng(0).uniform(1, 2, (N, N, N))
    axes = metadata(axes="frame, row, column")
    np.savez(path, **contract(diff3d=patterns, xcoords=np.arange(N), ycoords=np.arange(N), _metadata=axes))
    np.testing.assert_array_equal(load_scan(path).diffraction_amplitude, patterns.astype(np.float32))


@pytest.mark.parametrize(
    ("shape", "received"),
    [
        ((COUNT, N), "shape (5, 8)"),
        ((COUNT, N, N, 1), "shape (5, 8, 8, 1)"),
        ((COUNT, N, 6), "8 x 6 pixels. Crop or pad them: crop=6, pad=8."),
        ((N, 6, COUNT), "one position for each of 8 patterns; received 5"),
    ],
)
def test_patterns_of_another_shape_are_refused(path: Path, shape: tuple[int, ...], received: str) -> None:
    assert received in refused(path, diff3d=np.ones(shape))


# -- measurement ---------------------------------------------------------------------------------------------------


def counts() -> NDArray[np.int64]:
    return np.random.default_rng(1).poisson(30, (COUNT, N, N))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "int64", "uint64"])
def test_integers_are_counts(path: Path, dtype: str) -> None:
    np.savez(path, **contract(diff3d=counts().astype(dtype)))
    scan = load_scan(path)
    np.testing.assert_allclose(scan.diffraction_amplitude**2, counts(), rtol=1e-6)
    assert scan.dose_known


def test_booleans_are_counts(path: Path) -> None:
    hits = counts() > 30
    np.savez(path, **contract(diff3d=hits))
    np.testing.assert_array_equal(load_scan(path).diffraction_amplitude, hits.astype(np.float32))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_real_numbers_are_amplitude(path: Path, dtype: str) -> None:
    patterns = contract()["diff3d"].astype(dtype)
    np.savez(path, **contract(diff3d=patterns))
    scan = load_scan(path)
    np.testing.assert_array_equal(scan.diffraction_amplitude, patterns.astype(np.float32))
    assert not scan.dose_known


@pytest.mark.parametrize(
    ("dtype", "stated", "asked", "expected"),
    [
        ("float64", None, "intensity", "intensity"),
        ("int64", None, "amplitude", "amplitude"),
        ("float64", "intensity", None, "intensity"),
        ("int64", "amplitude", None, "amplitude"),
        ("float64", "intensity", "amplitude", "amplitude"),
        ("int64", "amplitude", "intensity", "intensity"),
    ],
)
def test_what_is_asked_for_goes_before_what_the_file_states_and_that_before_the_type(
    path: Path, dtype: str, stated: str | None, asked: Any, expected: str
) -> None:
    np.savez(path, **contract(diff3d=counts().astype(dtype), _metadata=metadata(measurement=stated)))
    scan = load_scan(path, measurement=asked)
    power = 2 if expected == "intensity" else 1
    np.testing.assert_allclose(scan.diffraction_amplitude**power, counts(), rtol=1e-6)
    assert scan.dose_known == (expected == "intensity")


def test_amplitude_whose_unit_is_stated_has_a_known_dose(path: Path) -> None:
    np.savez(path, **contract(_metadata=metadata(amplitude_unit="sqrt(counts)", operator="A. N. Other")))
    scan = load_scan(path)
    assert scan.dose_known
    assert scan.metadata["operator"] == "A. N. Other"


def test_negative_counts_are_refused(path: Path) -> None:
    message = refused(path, diff3d=np.full((COUNT, N, N), -3))
    assert message.startswith("diff3d: expected counts >= 0; received a minimum of -3.")


@pytest.mark.parametrize(
    ("content", "received"),
    [
        (np.array("{not json"), "Expecting property name"),
        (np.array("[1, 2]"), "[1, 2]"),
        (metadata(measurement="counts"), "counts"),
        (np.arange(3), "delimiter"),
        (np.array("[" * 100_000), "recursion"),
    ],
    ids=["no-json", "list", "unknown-measurement", "numbers", "nested"],
)
def test_metadata_that_cannot_be_understood_are_refused(path: Path, content: Any, received: str) -> None:
    message = refused(path, _metadata=content)
    assert message.startswith("_metadata: expected")
    assert received in message


# -- arrays that do not fit ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"xcoords": np.zeros(3)}, "xcoords, ycoords: expected equal lengths; received 3 and 5"),
        (
            {"xcoords": np.zeros(4), "ycoords": np.zeros(4)},
            "positions: expected one position for each of 5 patterns; received 4",
        ),
        ({"xcoords": np.zeros((COUNT, 1))}, "xcoords: expected (M,) real numbers; received float64 of shape (5, 1)"),
        ({"xcoords": np.float64(3)}, "xcoords: expected (M,) real numbers; received float64 of shape ()"),
        ({"ycoords": np.zeros(COUNT, complex)}, "ycoords: expected (M,) real numbers; received complex128"),
        ({"ycoords": np.array(list("abcde"))}, "ycoords: expected (M,) real numbers; received <U1"),
        (
            {"xcoords": np.full(COUNT, np.nan)},
            "positions: expected finite numbers; received NaN or infinity for 5 of 5",
        ),
        ({"diff3d": np.full((COUNT, N, N), np.nan)}, "diffraction_amplitude (diff3d): expected finite values"),
        ({"diff3d": np.zeros((COUNT, N, N))}, "diffraction_amplitude (diff3d): expected some counts"),
        ({"diff3d": np.ones((COUNT, N, N), complex)}, "diff3d: expected real numbers; received dtype complex128"),
        ({"diff3d": np.full((COUNT, N, N), "x")}, "diff3d: expected real numbers; received dtype <U1"),
        (
            {"probeGuess": np.ones((6, 6))},
            "probe: expected 8 x 8 pixels, as the patterns before or after crop, bins and pad; received 6 x 6",
        ),
        ({"bad_pixels": np.ones((N, N))}, "bad_pixels: expected shape (8, 8) with at least one good pixel"),
        ({"bad_pixels": np.full((N, N), 0.5)}, "bad_pixels: expected (N, N) booleans"),
        ({"objectGuess": np.ones(4)}, "object_field (objectGuess): expected (H, W) complex numbers"),
        ({"scan_index": np.arange(4)}, "scan_index: expected 5 entries"),
        (
            {"xcoords_start": np.zeros(2), "ycoords_start": np.zeros(2)},
            "nominal_positions_px (xcoords_start, ycoords_start): expected 5 entries",
        ),
        ({"xcoords_start": np.zeros(2), "ycoords_start": np.zeros(3)}, "xcoords_start, ycoords_start: expected equal"),
    ],
)
def test_an_array_that_does_not_fit_is_refused_by_file_and_key(path: Path, changes: Any, message: str) -> None:
    assert refused(path, **changes).startswith(message)


# -- files that cannot be read -------------------------------------------------------------------------------------


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("key", ["diff3d", "xcoords", "_metadata", "anything"])
def test_objects_are_refused_and_never_unpickled(path: Path, tmp_path: Path, key: str) -> None:
    objects = np.array([Trap(tmp_path / "sprung")], dtype=object)
    np.savez(path, allow_pickle=True, **contract(**{key: objects}))
    message = refusal(path)
    assert message.startswith(f"{key}: expected a readable NPZ file; received Object arrays cannot be loaded")
    assert not (tmp_path / "sprung").exists()


def test_a_pickle_in_the_place_of_the_file_is_never_unpickled(path: Path, tmp_path: Path) -> None:
    np.save(path.with_suffix(".npy"), np.array([Trap(tmp_path / "sprung")], dtype=object), allow_pickle=True)
    path.with_suffix(".npy").rename(path)
    refusal(path)
    assert not (tmp_path / "sprung").exists()


def test_no_such_file(path: Path) -> None:
    assert refusal(path) == "expected a scan file; received no such file. Check the path."


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "expected a scan file; received a folder. Name a file in it."


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", b"x y\n1 2\n", b"\x89HDF\r\n\x1a\n" + bytes(99)],
    ids=["empty", "PK", "text", "HDF5"],
)
def test_what_is_no_npz_file_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for message in (refusal(path), refusal(path, reader="npz")):
        assert re.match(r"expected (a readable (NPZ|HDF5) file|a scan of a known format); received", message)
    assert "expected a readable NPZ file" in message


def test_a_single_array_is_no_scan(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.ones(3))
    assert "received a single .npy array. Name what belongs to it (positions" in refusal(path)


def test_an_empty_zip_file_holds_nothing(path: Path) -> None:
    zipfile.ZipFile(path, "w").close()
    assert "received no such key. The file holds: nothing. Name the parts" in refusal(path)


@settings(max_examples=40)
@given(kept=st.floats(0, 1, exclude_max=True), compressed=st.booleans())
def test_a_truncated_file_is_refused(tmp_path_factory: pytest.TempPathFactory, kept: float, compressed: bool) -> None:
    path = tmp_path_factory.getbasetemp() / "short.npz"
    (np.savez_compressed if compressed else np.savez)(path, **contract())
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    refusal(path)


@settings(max_examples=150)
@given(
    place=st.floats(0, 1, exclude_max=True),
    bits=st.sampled_from([1, 2, 4, 8, 16, 32, 64, 128, 255]),
    compressed=st.booleans(),
)
def test_a_flipped_byte_is_refused_or_makes_no_difference(
    tmp_path_factory: pytest.TempPathFactory, place: float, bits: int, compressed: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.npz"
    (np.savez_compressed if compressed else np.savez)(path, **contract())
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= bits
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        scan = load_scan(path)
        np.testing.assert_array_equal(scan.diffraction_amplitude, contract()["diff3d"].astype(np.float32))
        np.testing.assert_array_equal(scan.positions_px[:, 1], contract()["ycoords"])


@pytest.mark.parametrize(
    ("offset", "value", "received"),
    [(8, 1, "is encrypted"), (8, 0x20, "compressed patched data"), (10, 99, "kind 99"), (10, 14, "kind 14")],
    ids=["encrypted", "patched", "unknown-method", "lzma"],
)
def test_a_member_that_cannot_be_unpacked_is_refused(path: Path, offset: int, value: int, received: str) -> None:
    np.savez(path, **contract())
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + offset] = value
    path.write_bytes(content)
    assert received in refusal(path)


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (5",
        b"{'descr': '<f8', b'fortran_order': False, 'shape': ()}",
    ],
    ids=["open-bracket", "mixed-keys"],
)
def test_a_broken_array_header_is_refused(path: Path, header: bytes) -> None:
    np.savez(path, **contract(xcoords=None))
    with zipfile.ZipFile(path, "a") as target:
        target.writestr("xcoords.npy", b"\x93NUMPY\x01\x00" + bytes([len(header) + 1, 0]) + header + b"\n" + bytes(40))
    assert refusal(path).startswith("xcoords: expected a readable NPZ file; received")


# -- writing -------------------------------------------------------------------------------------------------------


def test_an_interrupted_save_leaves_the_old_file_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch, numbered_scan: Any
) -> None:
    save_scan(path, numbered_scan())
    before = path.read_bytes()

    def fail(*arguments: Any, **keywords: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("numpy.lib.format.write_array", fail)
    with pytest.raises(KeyboardInterrupt):
        save_scan(path, numbered_scan(seed=1))
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_file_appears_only_when_it_is_whole(path: Path) -> None:
    with replacing(path) as file:
        file.write(b"half")
        assert not path.exists()
        file.write(b" and half")
    assert path.read_bytes() == b"half and half"


def test_text_is_written_as_utf8(path: Path) -> None:
    write_text(path, "½ Å\n")
    assert path.read_bytes() == "½ Å\n".encode()


def test_a_file_cannot_be_written_where_there_is_no_folder(tmp_path: Path, numbered_scan: Any) -> None:
    with pytest.raises(DataError, match=r"nowhere/scan\.npz: expected a writable place; received No such file"):
        save_scan(tmp_path / "nowhere" / "scan.npz", numbered_scan())


def test_a_file_cannot_replace_a_folder(tmp_path: Path, numbered_scan: Any) -> None:
    (tmp_path / "scan.npz").mkdir()
    with pytest.raises(DataError, match=r"scan\.npz: expected a writable place; received a folder"):
        save_scan(tmp_path / "scan.npz", numbered_scan())
    assert [path.name for path in tmp_path.iterdir()] == ["scan.npz"]


def test_folders_are_made_with_their_parents(tmp_path: Path) -> None:
    assert make_folder(tmp_path / "a" / "b").is_dir()
    assert make_folder(tmp_path / "a" / "b").is_dir()


def test_a_file_in_the_place_of_a_folder_is_refused(path: Path) -> None:
    path.write_text("")
    with pytest.raises(DataError, match=r"run42\.npz: expected a folder; received a file"):
        make_folder(path)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(DataError, match="expected a writable folder; received a read-only one"):
        make_folder(tmp_path)


def test_a_dose_that_is_no_longer_known_is_not_written_as_known(tmp_path: Path) -> None:
    scan = simulate(N=32, positions=4)
    save_scan(tmp_path / "scan.npz", attrs.evolve(scan, dose_known=False))
    assert not load_scan(tmp_path / "scan.npz").dose_known


def test_metadata_that_json_cannot_hold_is_refused_and_nothing_written(tmp_path: Path) -> None:
    scan = attrs.evolve(simulate(N=32, positions=4), metadata={"energy": np.float32(8)})
    with pytest.raises(DataError, match=r"_metadata: expected JSON"):
        save_scan(tmp_path / "scan.npz", scan)
    assert list(tmp_path.iterdir()) == []
