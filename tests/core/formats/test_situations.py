"""Scans as people bring them: what is noticed, what is refused, and that each remedy works when it is tried."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import h5py
import numpy as np
import pytest
import scipy
from numpy.typing import NDArray

from ptycho_core import load_scan, simulate
from ptycho_core.errors import DataError
from ptycho_core.formats.convert import convert
from ptycho_core.io.assembly import Stored, assemble
from ptycho_core.quality.judging import checked, judge
from ptycho_core.scans.findings import ranges
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.fields import flag_of, hints_of, kind_of
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.storage.source import ArraySource
from tests.command_line import run_here

N, COUNT = 32, 36
PIXEL_M = 12.398419843320026e-7 / 8000 / (N * 75e-6)
PLAIN = {"position_order": "xy", "position_unit": "px"}


@functools.cache
def simulated() -> Scan:
    return simulate(N=N, positions=COUNT, scan="raster", step_px=4, photons=1e5, seed=3)


def counts() -> NDArray[np.uint32]:
    return np.square(np.asarray(simulated().diffraction_amplitude)).round().astype(np.uint32)


def places() -> NDArray[np.float64]:
    return simulated().positions_px.copy()


def probe() -> NDArray[np.complex64]:
    return simulated().probe[0]


def npz(folder: Path, **changes: Any) -> Path:
    positions = changes.pop("positions", places())
    arrays = {"diff3d": counts(), "xcoords": positions[:, 0], "ycoords": positions[:, 1], "probeGuess": probe()}
    path = folder / "scan.npz"
    np.savez(path, **{**arrays, **changes})
    return path


def cxi(folder: Path, *, energy: float = 8000 * scipy.constants.e, scale: float = 1.0) -> Path:
    path = folder / "scan.cxi"
    with h5py.File(path, "w") as file:
        detector = file.create_group("entry_1/instrument_1/detector_1")
        detector["data"], detector["distance"] = counts(), 1.0
        detector["x_pixel_size"] = detector["y_pixel_size"] = 75e-6
        file["entry_1/instrument_1/source_1/energy"] = energy
        file["entry_1/instrument_1/source_1/illumination"] = probe()
        file["entry_1/sample_1/geometry_1/translation"] = np.pad(-places() * PIXEL_M * scale, ((0, 0), (0, 1)))
        file["entry_1/data_1/data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
    return path


def changed(change: Callable[[NDArray[Any]], object], values: NDArray[Any]) -> NDArray[Any]:
    change(values)
    return values


def set_to(index: Any, value: Any) -> Callable[[NDArray[Any]], None]:
    def change(values: NDArray[Any]) -> None:
        values[index] = value

    return change


def amplitude_with_gap() -> NDArray[np.float32]:
    return changed(set_to(np.s_[:, 10:12], np.nan), np.sqrt(counts(), dtype=np.float32))


def offset(values: NDArray[Any]) -> NDArray[Any]:
    """The same patterns on a larger detector, their middle at row 22, column 27 of 44 x 44."""
    wide = np.zeros((len(values), 44, 44), values.dtype)
    wide[:, 6:38, 11:43] = values
    return wide


@attrs.frozen
class Case:
    """make: writes the scan. severity, what: of the first finding; "refused": not even read. options: how to read it.

    says: words of its line. A remedy is `state` of the error with its values; left: the findings after it.
    """

    make: Callable[[Path], Path]
    severity: str
    what: str
    says: tuple[str, ...]
    frames: str | None = None
    left: tuple[str, ...] = ()
    stated: dict[str, Any] = attrs.field(factory=dict)
    remedy: tuple[str, ...] | None = None


CASES = {
    "direct beam in the corner": Case(
        lambda folder: npz(folder, diff3d=np.fft.ifftshift(counts(), axes=(1, 2))),
        "warning", "direct beam", ("% of the intensity in the corners", "--dc corner"),
    ),
    **{
        f"direct beam beside the middle, {how}": Case(
            lambda folder: npz(folder, diff3d=offset(counts())),
            "warning", "direct beam",
            ("row 16, column 16 of 32 x 32", "column 21.0", "--centre auto, --centre-row 22, --centre-column 27"),
            stated={"crop": N}, remedy=remedy,
        )
        for how, remedy in {"found": ("centre=auto",), "stated": ("centre_row=22", "centre_column=27")}.items()
    },
    "a centre at the edge": Case(
        lambda folder: npz(folder, diff3d=offset(counts())),
        "warning", "crop", ("of its pixels outside the detector",),
        stated={"crop": N, "centre_row": 2, "centre_column": 2}, remedy=("centre_row=22", "centre_column=27"),
    ),
    "empty patterns": Case(
        lambda folder: npz(folder, diff3d=changed(set_to(np.s_[20:25], 0), counts())),
        "warning", "empty patterns", ("5 of 36", "20-24", "--drop-frames empty"), "20-24",
    ),
    "a hot pattern": Case(
        lambda folder: npz(folder, diff3d=changed(lambda c: np.multiply(c[3], 40, out=c[3]), counts())),
        "warning", "outliers", ("1 of 36 patterns: 3", "--drop-frames outliers"), "3",
    ),
    "dead pixels": Case(
        lambda folder: npz(folder, diff3d=changed(set_to(np.s_[:, 5], 2**32 - 1), counts())),
        "warning", "saturated pixels", ("below 4294967295", "32 pixels of 36 patterns", "32 of them in every one"),
    ),
    "saturation that is stated": Case(
        lambda folder: npz(folder, diff3d=changed(set_to(np.s_[3:5, 4, 4], 10**6), counts())),
        "warning", "saturated pixels", ("below 1000000", "1 pixel of 2 patterns", "--mask saturated"),
        stated={"saturation": 10**6},
    ),
    "a mask the other way round": Case(
        lambda folder: npz(folder, bad_pixels=np.arange(N * N).reshape(N, N) > 20),
        "warning", "bad pixels", ("1003 of 1024 pixels bad", "--good-pixels"), remedy=("good_pixels=bad_pixels",),
    ),
    "not-a-number patterns": Case(
        lambda folder: npz(folder, diff3d=changed(set_to([7, 30], np.nan), np.sqrt(counts()))),
        "refused", "diffraction_amplitude (diff3d)", ("2 of 36 patterns: 7,30", "--drop-frames nan"),
    ),
    "a gap of not-a-numbers": Case(
        lambda folder: npz(folder, diff3d=amplitude_with_gap()),
        "refused", "diffraction_amplitude (diff3d)", ("64 pixels of 36 of 36", "--mask nan"),
    ),
    "negative counts": Case(
        lambda folder: npz(folder, diff3d=changed(set_to(np.s_[:, 0, :4], -1), counts().astype(np.int32))),
        "refused", "diff3d", ("a minimum of -1", "--clip-negative", "--mask negative"), remedy=("mask=negative",),
    ),
    "counts after a background subtraction": Case(
        lambda folder: npz(folder, diff3d=counts().astype(np.float32) - 0.5),
        "refused", "diffraction_amplitude (diff3d)", ("--measurement intensity, --clip-negative",),
        remedy=("measurement=intensity", "clip_negative"),
    ),
    "a stray position": Case(
        lambda folder: npz(folder, positions=changed(set_to(9, [3e3, 60]), places())),
        "warning", "stray positions", ("1 of 36 patterns: 9", "--drop-frames stray"), "9",
    ),
    "a stray position that makes nearly all of the canvas": Case(
        lambda folder: npz(folder, positions=changed(set_to(9, [3e5, 60]), places())),
        "error", "stray positions", ("1 of 36 patterns: 9", "--drop-frames stray"), "9",
    ),
    "a position beyond all": Case(
        lambda folder: npz(folder, positions=changed(set_to(9, [3e9, 60]), places())),
        "error", "stray positions", ("1 of 36 patterns: 9",), "9",
    ),
    "a missing position": Case(
        lambda folder: npz(folder, positions=changed(set_to(9, np.nan), places())),
        "refused", "positions", ("1 of 36 patterns: 9", "--drop-frames unplaced"),
    ),
    "fewer positions": Case(
        lambda folder: npz(folder, positions=places()[:-3]),
        "refused", "positions", ("each of 36 patterns", "received 33", "--drop-frames unplaced"),
    ),
    "more positions": Case(
        lambda folder: npz(folder, positions=np.tile(places(), (2, 1))),
        "refused", "positions", ("each of 36 patterns", "received 72"),
    ),
    "all at one place": Case(
        lambda folder: npz(folder, positions=np.full((COUNT, 2), 50.0)),
        "error", "positions", ("all 36 at the same place",), remedy=(),
    ),
    "no overlap": Case(
        lambda folder: npz(folder, positions=places() * 30),
        "warning", "positions", ("the patterns do not overlap", "--position-unit"), remedy=(), left=("positions",),
    ),
    "the number of the pattern taken for x": Case(
        lambda folder: npz(folder, positions=np.stack([np.arange(COUNT), places()[:, 1]], axis=1)),
        "warning", "positions", ("an x that grows by 1 px",), remedy=(), left=("positions",),
    ),
    "micrometres for metres": Case(
        lambda folder: cxi(folder, scale=1e6), "error", "positions", ("in µm", "--position-scale 1e-06"),
    ),
    "millimetres for metres": Case(
        lambda folder: cxi(folder, scale=1e3), "error", "positions", ("in mm", "--position-scale 0.001"),
    ),
    "electronvolts for joules": Case(
        lambda folder: cxi(folder, energy=8000.0), "error", "photon_energy_eV", ("eV instead of", "--energy-eV 8000"),
    ),
    "kiloelectronvolts for joules": Case(
        lambda folder: cxi(folder, energy=8.0), "error", "photon_energy_eV", ("keV instead of", "--energy-eV 8000"),
    ),
    "kiloelectronvolts for electronvolts": Case(
        lambda folder: cxi(folder, energy=8 * scipy.constants.e),
        "error", "photon_energy_eV", ("in keV (a factor of 1000)", "--energy-eV 8000"),
    ),
    "a detector of metres": Case(
        cxi, "error", "detector_pixel_m", ("in µm", "--detector-pixel-m 7.5e-05"), stated={"detector_pixel_m": 75.0},
    ),
    "a probe in the corners": Case(
        lambda folder: npz(folder, probeGuess=np.fft.ifftshift(probe())),
        "warning", "probe", ("in the corners", "--probe-origin corner"),
    ),
    "a probe in the far field": Case(
        lambda folder: npz(folder, probeGuess=np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(probe()), norm="ortho"))),
        "warning", "probe", ("--probe-plane far",),
    ),
    "a probe in two parts": Case(
        lambda folder: npz(folder, probeGuess=np.stack([probe().real, probe().imag])),
        "warning", "probe", ("the real and imaginary parts", "--probe-parts real-imaginary"),
    ),
    "patterns that are not square": Case(
        lambda folder: npz(folder, diff3d=counts()[:, :, 4:28]),
        "refused", "diff3d", ("32 x 24 pixels", "--crop 24", "--pad 32"), remedy=("pad=32",),
    ),
    "counts beyond float16": Case(
        lambda folder: npz(folder, diff3d=np.minimum(counts() * 1e6, 1e30).astype(np.float16)),
        "refused", "diff3d", ("float16, which ends at 65504",), remedy=(),
    ),
    "one pattern": Case(
        lambda folder: npz(folder, diff3d=counts()[:1], positions=places()[:1]),
        "warning", "patterns", ("one pattern",), remedy=(),
        left=("patterns",),
    ),
}  # fmt: skip


def as_settings(state: tuple[str, ...]) -> dict[str, Any]:
    """`crop=8` as the value that the flag would give."""
    pairs = [(name, value) for name, _, value in (asked.partition("=") for asked in state)]
    kinds = {name: kind_of(hint) for name, hint in hints_of(ReadOptions).items()}
    return {name: True if value == "" else kinds[name](value) if kinds[name] in (int, float) else value
            for name, value in pairs}  # fmt: skip


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_scan_is_judged_and_the_remedy_works(tmp_path: Path, case: Case) -> None:
    path = case.make(tmp_path)
    if case.severity == "refused":
        with pytest.raises(DataError) as caught:
            load_scan(path, **case.stated)
        error, key = caught.value, caught.value.key
    else:
        scan = load_scan(path, **case.stated)
        first = judge(scan)[0]
        error, key = first.error(scan.source), first.what
        assert (first.severity, first.frames) == (
            case.severity,
            () if case.frames is None else tuple(np.arange(COUNT)[_listed(case.frames)]),
        )
        if first.severity == "error":
            with pytest.raises(DataError, match=key):
                checked(scan)
    assert key == case.what
    for words in case.says:
        assert words in error.line(flag_of)
    remedy = error.state if case.remedy is None else case.remedy
    if remedy or case.left:
        mended = load_scan(path, **{**case.stated, **as_settings(remedy)})
        assert [finding.what for finding in judge(mended)] == list(case.left)


def _listed(frames: str) -> NDArray[np.bool_]:
    first, _, last = frames.partition("-")
    return np.isin(np.arange(COUNT), np.arange(int(first), int(last or first) + 1))


def test_a_good_scan_has_no_finding(tmp_path: Path) -> None:
    assert judge(simulated()) == judge(load_scan(npz(tmp_path))) == judge(load_scan(cxi(tmp_path))) == ()


def test_a_wrong_energy_is_the_only_error(tmp_path: Path) -> None:
    """The pixels that follow from it are no fault of the positions."""
    assert [finding.what for finding in judge(load_scan(cxi(tmp_path, energy=8.0)))] == ["photon_energy_eV"]


def test_few_photons_make_no_pattern_an_empty_one() -> None:
    dim = simulate(N=N, positions=200, photons=3, seed=1)
    assert dim.statistics.frame_intensity.min() == 0
    assert [finding.what for finding in judge(dim) if "pattern" in finding.what] == []


def test_inspect_prints_the_table_and_refuses_what_makes_no_sense(tmp_path: Path) -> None:
    bad = npz(tmp_path, diff3d=changed(set_to(np.s_[20:25], 0), counts()), positions=np.full((COUNT, 2), 50.0))
    outcome = run_here("inspect", bad)
    table = outcome.out.split("findings:\n", 1)[1].splitlines()
    assert [line.split()[0] for line in table] == ["ERROR", "WARNING"]
    assert outcome.code == 2 and "all 36 at the same place" in outcome.err


def test_numbers_of_patterns_are_those_of_the_file(tmp_path: Path) -> None:
    path = npz(tmp_path, diff3d=changed(set_to([20, 21], 0), counts()))
    scan = load_scan(path, frames="10:30")
    assert ranges(judge(scan)[0].frames) == "20-21"
    np.testing.assert_array_equal(scan.positions_px, places()[10:30])
    assert ranges(judge(scan.subset(np.arange(5, 15)))[0].frames) == "20-21"


# -- patterns of which there is no data ----------------------------------------------------------------------------


@pytest.mark.parametrize("fill", [0, 2**32 - 1])
def test_patterns_that_were_never_written_are_no_zeros(tmp_path: Path, fill: int) -> None:
    with h5py.File(tmp_path / "aborted.h5", "w") as file:
        data = file.create_dataset("data", (COUNT, N, N), "u4", chunks=(1, N, N), fillvalue=fill)
        data[:20] = counts()[:20]
        file["pos"], file["probe"] = places(), probe()
    named = {"dataset": "data", "positions": "pos", "probe": "probe", **PLAIN}
    with pytest.raises(DataError, match="never written: 16 of 36 patterns: 20-35") as caught:
        load_scan(tmp_path / "aborted.h5", **named)
    assert caught.value.state == ("drop_frames=unwritten",)
    scan = load_scan(tmp_path / "aborted.h5", **named, drop_frames="unwritten")
    np.testing.assert_array_equal(scan.diffraction_amplitude, np.sqrt(counts()[:20], dtype=np.float32))


def test_a_missing_part_of_a_virtual_data_set_is_named_with_its_patterns(tmp_path: Path) -> None:
    layout = h5py.VirtualLayout((COUNT, N, N), "u4")
    for number, part in enumerate(("first.h5", "second.h5")):
        layout[18 * number : 18 * number + 18] = h5py.VirtualSource(part, "data", (18, N, N))
    with h5py.File(tmp_path / "first.h5", "w") as file:
        file["data"] = counts()[:18]
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        file.create_virtual_dataset("data", layout, fillvalue=0)
        file["pos"], file["probe"] = places(), probe()
    named = {"dataset": "data", "positions": "pos", "probe": "probe", **PLAIN}
    with pytest.raises(DataError, match=r"second\.h5 is not there: 18 of 36 patterns: 18-35"):
        load_scan(tmp_path / "whole.h5", **named)
    assert len(load_scan(tmp_path / "whole.h5", **named, drop_frames="unwritten")) == 18


# -- what options do -----------------------------------------------------------------------------------------------


@pytest.mark.field("reading.frames", "reading.drop_frames")
def test_patterns_are_left_out_by_number(tmp_path: Path) -> None:
    path = npz(tmp_path)
    scan = load_scan(path, frames="2:20:2", drop_frames="4,8-11")
    np.testing.assert_array_equal(scan.positions_px, places()[[2, 6, 12, 14, 16, 18]])
    expected = np.sqrt(counts()[[2, 6, 12, 14, 16, 18]], dtype=np.float32)
    np.testing.assert_array_equal(scan.diffraction_amplitude, expected)
    with pytest.raises(DataError, match="from 0 to 35; received 36"):
        load_scan(path, drop_frames="36")
    with pytest.raises(DataError, match="at least one pattern"):
        load_scan(path, drop_frames="0-35")


@pytest.mark.field("reading.mask", "reading.saturation", "reading.good_pixels")
def test_pixels_are_marked_by_what_they_show(tmp_path: Path) -> None:
    path = npz(tmp_path, diff3d=amplitude_with_gap(), bad_pixels=np.zeros((N, N)))
    bad = load_scan(path, mask="nan").bad_pixels
    assert bad is not None and bad[10:12].all() and bad.sum() == 2 * N
    np.save(tmp_path / "good.npy", np.arange(N)[:, None] + np.zeros(N) > 11)
    good = load_scan(path, good_pixels="good.npy").bad_pixels
    assert good is not None and good[:12].all() and good.sum() == 12 * N
    whole = npz(tmp_path)
    bright = load_scan(whole, saturation=600.0, mask="saturated").bad_pixels
    np.testing.assert_array_equal(bright, (counts() >= 600).any(axis=0))


def test_a_marked_pixel_may_hold_anything(tmp_path: Path) -> None:
    marked = np.zeros((N, N), bool)
    marked[10:12] = True
    scan = load_scan(npz(tmp_path, diff3d=amplitude_with_gap(), bad_pixels=marked))
    assert not np.asarray(scan.diffraction_amplitude)[:, 10:12].any()


@pytest.mark.field("reading.dark", "reading.background", "reading.clip_negative")
def test_a_background_is_taken_off_and_nothing_is_left_below_zero(tmp_path: Path) -> None:
    dark = np.full((3, N, N), 7.0)
    np.save(tmp_path / "dark.npy", dark)
    expected = np.maximum(counts().astype(float) - 2, 0)
    for stated in ({"background": 9.0}, {"dark": "dark.npy", "background": 2.0}, {"dark": "dark.npy"}):
        rest = counts() + 7.0 - (7.0 if "dark" in stated else 0.0) - (stated.get("background") or 0.0)  # type: ignore[operator]
        scan = load_scan(npz(tmp_path, diff3d=counts() + np.uint32(7)), **stated)  # type: ignore[arg-type]
        np.testing.assert_allclose(np.asarray(scan.diffraction_amplitude) ** 2, np.maximum(rest, 0), rtol=1e-6)
    negative = npz(tmp_path, diff3d=counts().astype(np.int32) - 2)
    scan = load_scan(negative, clip_negative=True)
    np.testing.assert_allclose(np.asarray(scan.diffraction_amplitude) ** 2, expected, rtol=1e-6)


@pytest.mark.field("reading.centre")
def test_the_direct_beam_is_found(tmp_path: Path) -> None:
    path = npz(tmp_path, diff3d=offset(counts()))
    found = load_scan(path, crop=N, centre="auto")
    np.testing.assert_array_equal(found.diffraction_amplitude, np.sqrt(counts(), dtype=np.float32))


@pytest.mark.field("reading.rotate_positions", "reading.affine")
def test_positions_are_turned_about_their_middle(tmp_path: Path) -> None:
    middle = places().mean(axis=0)
    x, y = (places() - middle).T
    path = npz(tmp_path)
    turned = load_scan(path, rotate_positions=90.0).positions_px
    np.testing.assert_allclose(turned, np.stack([-y, x], axis=1) + middle, atol=1e-9)
    sheared = load_scan(path, affine="1,0.5,0,2").positions_px
    np.testing.assert_allclose(sheared, np.stack([x + 0.5 * y, 2 * y], axis=1) + middle, atol=1e-9)


@pytest.mark.field("reading.scan_shape", "reading.scan_step", "reading.scan_rotation")
def test_a_raster_needs_no_list_of_positions(tmp_path: Path) -> None:
    path = npz(tmp_path)
    scan = load_scan(path, scan_shape="4,9", scan_step="3,5", position_unit="px")
    grid = scan.positions_px.reshape(4, 9, 2)
    np.testing.assert_allclose(np.diff(grid, axis=1), np.broadcast_to([5.0, 0.0], (4, 8, 2)))
    np.testing.assert_allclose(np.diff(grid, axis=0), np.broadcast_to([0.0, 3.0], (3, 9, 2)))
    right = load_scan(path, scan_shape="4,9", scan_step="3,5", position_unit="px", scan_rotation=90.0)
    np.testing.assert_allclose(
        np.diff(right.positions_px.reshape(4, 9, 2), axis=1), np.broadcast_to([0.0, 5.0], (4, 8, 2)), atol=1e-9
    )
    with pytest.raises(DataError, match="36 patterns = rows x columns; received 4 x 8"):
        load_scan(path, scan_shape="4,8", scan_step="3", position_unit="px")


@pytest.mark.field("reading.voltage_kV")
def test_electrons_have_a_voltage(tmp_path: Path) -> None:
    metadata = load_scan(npz(tmp_path), voltage_kV=200.0).metadata
    assert metadata["electron_energy_eV"] == 200e3
    assert metadata["wavelength_m"] == pytest.approx(2.5079e-12, rel=1e-4)


@pytest.mark.field("reading.probe_parts", "reading.probe_origin", "reading.probe_plane")
def test_a_probe_is_put_together(tmp_path: Path) -> None:
    np.savez(tmp_path / "parts.npz", re=probe().real, im=probe().imag, abs=np.abs(probe()), arg=np.angle(probe()))
    path = npz(tmp_path)
    for names, parts in (("re,im", "real-imaginary"), ("abs,arg", "amplitude-phase")):
        read = load_scan(path, probe=f"parts.npz:{names}", probe_parts=parts)
        np.testing.assert_allclose(read.probe[0], probe(), atol=1e-4)
    far = np.fft.fft2(np.fft.ifftshift(probe()), norm="ortho")
    read = load_scan(npz(tmp_path, probeGuess=far), probe_origin="corner", probe_plane="far")
    np.testing.assert_allclose(read.probe[0], probe(), atol=1e-3)


@pytest.mark.field("reading.resample_probe", "reading.probe_pixel_m")
def test_a_probe_is_fitted_to_the_grid_of_the_scan(tmp_path: Path) -> None:
    y, x = np.mgrid[:48, :48] - 24
    wide = np.exp(-(x**2 + y**2) / 50 + 0.01j * x**2).astype(np.complex64)
    np.save(tmp_path / "wide.npy", wide)
    path = cxi(tmp_path)
    np.testing.assert_array_equal(load_scan(path, probe="wide.npy", resample_probe=True).probe[0], wide[8:40, 8:40])
    finer = load_scan(path, probe="wide.npy", probe_pixel_m=PIXEL_M * 2).probe[0]
    y, x = (np.mgrid[:N, :N] - N // 2) / 2
    np.testing.assert_allclose(finer, np.exp(-(x**2 + y**2) / 50 + 0.01j * x**2) / 2, atol=2e-3)


# -- grids ---------------------------------------------------------------------------------------------------------


def stored_in_metres(folder: Path, **facts: Any) -> Stored:
    """Patterns at `places()`, an object pixel 10 nm wide along x."""
    return Stored(
        path=folder / "scan",
        reader="test",
        frames=ArraySource(counts()),
        key="data",
        measurement="intensity",
        positions=places() * 1e-8,
        unit="m",
        probe=probe(),
        **{"pixel_m": (1e-8, 1e-8), **facts},
    )


@pytest.mark.parametrize("stated", [{"crop": 16}, {"crop": 16, "pad": 24}, {"bin": 2}, {"pad": 40}])
def test_the_point_that_a_file_names_in_pixels_is_on_the_new_grid(tmp_path: Path, stated: dict[str, int]) -> None:
    """Positions are metres from a point that lies at pixel (100, 60) of the object; a crop changes its pixels."""
    stored = stored_in_metres(tmp_path, origin=(2e-7, 0.0), origin_px=(100.0, 60.0))
    side = stated.get("pad", stated.get("crop", N))
    old = (places() - [20.0, 0.0]) + [100.0, 60.0]
    new = assemble(stored, ReadOptions(**stated)).positions_px
    np.testing.assert_allclose(new, old * side / N)


def test_a_transposed_detector_has_its_pixels_transposed(tmp_path: Path) -> None:
    stored = stored_in_metres(tmp_path, pixel_m=(1e-8, 3e-8), detector_pixel_m=(75e-6, 25e-6))
    scan = assemble(stored, ReadOptions(transpose=True))
    assert scan.metadata["object_pixel_m"] == pytest.approx([3e-8, 1e-8])
    assert scan.metadata["detector_pixel_m"] == pytest.approx([25e-6, 75e-6])
    np.testing.assert_allclose(scan.positions_px, places() / [3.0, 1.0])


# -- counts and scans without a probe, from file to file -----------------------------------------------------------

METRES = {"energy_eV": 8000.0, "distance_m": 1.0, "detector_pixel_m": 75e-6}


@pytest.mark.parametrize(("binned", "most"), [(False, 3_000_000_017), (True, 3_000_000_017), (False, 2**23)])
@pytest.mark.parametrize("ending", [".npz", ".cxi", ".h5"])
def test_counts_beyond_float32_stay_exact(tmp_path: Path, ending: str, binned: bool, most: int) -> None:
    """The second half of a pattern holds all that lies between: roots do not tell counts beyond 2²²."""
    bright = counts()
    bright[:, 15, 15] += most
    bright[:, 16:] = np.random.default_rng(0).integers(2**22, 2**23, bright[:, 16:].shape)
    target = tmp_path / f"diffraction{ending}"
    convert(npz(tmp_path, diff3d=bright), target, ReadOptions(**METRES, bin=2 if binned else 1))
    if ending == ".npz":
        written = np.load(target)["diff3d"]
    else:
        with h5py.File(target) as file:
            written = file["patterns" if ending == ".h5" else "entry_1/data_1/data"][:]
    right = bright.astype(np.int64)
    right = right.reshape(COUNT, N // 2, 2, N // 2, 2).sum(axis=(2, 4)) if binned else right
    assert written.dtype == np.uint32
    np.testing.assert_array_equal(written, right)
    read = load_scan(target, **(METRES if ending == ".npz" else {}))
    assert read.dose_known and read.statistics.frame_intensity.max() == pytest.approx(right.sum((1, 2)).max(), rel=1e-6)


@pytest.mark.parametrize("ending", [".npz", ".cxi"])
def test_a_scan_without_a_probe_is_converted_and_split(tmp_path: Path, ending: str) -> None:
    path = cxi(tmp_path)
    with h5py.File(path, "a") as file:
        del file["entry_1/instrument_1/source_1/illumination"]
    targets = [tmp_path / f"{name}{ending}" for name in ("whole", "first", "second")]
    assert run_here("convert", path, targets[0]).code == 0
    assert run_here("split", path, *targets[1:]).code == 0
    sizes = []
    for target in targets:
        with pytest.raises(DataError, match="probe") as caught:
            load_scan(target)
        assert caught.value.state == ("probe",)
        sizes.append(len(load_scan(target, probe="auto")))
    assert sizes[0] == COUNT == sizes[1] + sizes[2]
    refused = run_here("convert", path, tmp_path / "pair")
    assert refused.code == 2 and "--probe auto" in refused.err
