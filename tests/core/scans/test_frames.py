"""Patterns that stay in their file are the same as patterns in memory, whatever the file, the steps and the thread."""

from __future__ import annotations

import gc
import os
import pickle
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ptycho_core import load_scan, save_scan
from ptycho_core.batches.groups import draw_groups
from ptycho_core.errors import DataError
from ptycho_core.physics.illumination import Illumination, mean_frame_intensity
from ptycho_core.reconstruction.predict import reconstruct
from ptycho_core.scans.frames import Frames, Statistics, Tally, in_memory, measure
from ptycho_core.scans.scan import Scan
from ptycho_core.scans.steps import Bin, Blank, Orient, Roll, Step, Window, centred, fftshift
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.storage import stored as sources
from ptycho_core.storage.hdf5_frames import HDF5Frames, hdf5_frames
from ptycho_core.storage.npz import npz_members
from ptycho_core.storage.source import ArraySource
from ptycho_core.storage.stored import JoinedFrames, StoredFrames
from ptycho_core.storage.unpacked import FramesLast, UnpackedFrames
from ptycho_core.training.fit import train
from tests.networks import cnn

COUNT, N = 23, 16
EVERYWHERE = np.array([5, 5, 22, 0, -1, 6, 7])


@pytest.fixture
def lazy(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pattern is few enough to be held in memory."""
    monkeypatch.setattr("ptycho_core.storage.source.IN_MEMORY_BYTES", 0)


@pytest.fixture(params=["mapped", "by position"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "by position":
        monkeypatch.setattr(sources, "MAPPED_BYTES", -1)
    return str(request.param)


def amplitudes(seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(0, 9, (COUNT, N, N)).astype(np.float32)


def contract(patterns: NDArray[Any]) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    x, y = rng.uniform(20, 60, (2, COUNT))
    return {"diff3d": patterns, "xcoords": x, "ycoords": y, "probeGuess": rng.normal(size=(N, N)) + 1j}


def write(path: Path, patterns: NDArray[Any], compressed: bool = False) -> Path:
    (np.savez_compressed if compressed else np.savez)(path, **contract(patterns))
    return path


def lazily(scan: Scan) -> Frames:
    assert isinstance(scan.diffraction_amplitude, Frames)
    return scan.diffraction_amplitude


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - our own bytes


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")


# -- steps ---------------------------------------------------------------------------------------------------------


def eager(values: NDArray[Any], steps: tuple[Step, ...], measurement: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Amplitudes and bad pixels of all patterns at once, in float64, by other means than the steps' own."""
    counts = values.astype(np.float64) ** (1 if measurement == "intensity" else 2)
    bad = np.zeros(values.shape[1:], bool)
    for step in steps:
        match step:
            case Blank(mask):
                counts, bad = np.where(mask, 0, counts), bad | mask
            case Window(top, left, height, width):
                far = 40
                counts = np.pad(counts, ((0, 0), (far, far), (far, far)))
                bad = np.pad(bad, far, constant_values=True)
                rows, columns = slice(far + top, far + top + height), slice(far + left, far + left + width)
                counts, bad = counts[:, rows, columns], bad[rows, columns]
            case Bin(factor):
                counts = sum(counts[:, i::factor, j::factor] for i in range(factor) for j in range(factor))
                bad = np.logical_or.reduce([bad[i::factor, j::factor] for i in range(factor) for j in range(factor)])
            case Roll(rows, columns):
                place = np.ix_(
                    (np.arange(bad.shape[0]) - rows) % bad.shape[0], (np.arange(bad.shape[1]) - columns) % bad.shape[1]
                )
                counts, bad = counts[:, place[0], place[1]], bad[place]
            case Orient(transpose, flip_rows, flip_columns):
                if transpose:
                    counts, bad = np.transpose(counts, (0, 2, 1)), bad.T
                if flip_rows:
                    counts, bad = np.flip(counts, 1), np.flip(bad, 0)
                if flip_columns:
                    counts, bad = np.flip(counts, 2), np.flip(bad, 1)
    return np.sqrt(counts), bad


@st.composite
def chains(draw: st.DrawFn) -> tuple[tuple[int, int], tuple[Step, ...]]:
    """The shape of a detector and steps that fit it."""
    shape = height, width = draw(st.sampled_from([(8, 8), (12, 6), (9, 9)]))
    steps: list[Step] = []
    for kind in draw(st.lists(st.sampled_from(["blank", "window", "bin", "roll", "orient"]), max_size=4)):
        step: Step
        if kind == "blank":
            seed = draw(st.integers(0, 9))
            step = Blank(np.random.default_rng(seed).random((height, width)) < 0.2)
        elif kind == "window":
            top, left = draw(st.integers(-5, height - 1)), draw(st.integers(-5, width - 1))
            step = Window(top, left, draw(st.integers(max(1, 1 - top), 14)), draw(st.integers(max(1, 1 - left), 14)))
        elif kind == "bin":
            step = Bin(
                draw(st.sampled_from([factor for factor in (1, 2, 3) if not (height % factor or width % factor)]))
            )
        elif kind == "roll":
            step = Roll(draw(st.integers(-9, 9)), draw(st.integers(-9, 9)))
        else:
            step = Orient(draw(st.booleans()), draw(st.booleans()), draw(st.booleans()))
        height, width = step.shape(height, width)
        steps.append(step)
    return shape, tuple(steps)


@settings(max_examples=120)
@given(
    chain=chains(),
    measurement=st.sampled_from(["amplitude", "intensity"]),
    dtype=st.sampled_from(["uint16", "int32", "float32", ">f8"]),
    seed=st.integers(0, 99),
)
def test_any_chain_of_steps_is_that_chain_on_all_patterns(chain: Any, measurement: Any, dtype: str, seed: int) -> None:
    shape, steps = chain
    stored = np.random.default_rng(seed).integers(0, 500, (5, *shape)).astype(dtype)
    before = stored.copy()
    frames = Frames(ArraySource(stored), measurement=measurement, steps=steps)
    expected, bad = eager(before, steps, measurement)
    np.testing.assert_allclose(np.asarray(frames), expected, rtol=1e-6)
    np.testing.assert_allclose(frames[[3, 0, 3]], expected[[3, 0, 3]], rtol=1e-6)
    np.testing.assert_array_equal(frames.bad_pixels, bad)
    np.testing.assert_array_equal(stored, before)
    assert frames[:2].dtype == np.float32 and frames[:2].flags.c_contiguous


def test_dc_in_the_corner_goes_to_the_middle() -> None:
    patterns = np.zeros((1, 7, 8), np.float32)
    patterns[0, 0, 0] = 3
    assert Frames(ArraySource(patterns), steps=[fftshift(patterns.shape)])[0][3, 4] == 3


@pytest.mark.parametrize(("N", "centre"), [(4, None), (6, (2, 7)), (16, None), (5, (4, 4))])
def test_a_centred_window_has_its_pixel_in_the_middle(N: int, centre: Any) -> None:
    patterns = np.zeros((1, 8, 10), np.float32)
    patterns[0][centre or (4, 5)] = 3
    assert Frames(ArraySource(patterns), steps=[centred((8, 10), N, centre)])[0][N // 2, N // 2] == 3


def test_what_a_detector_writes_into_blank_pixels_does_not_matter() -> None:
    gaps = np.zeros((N, N), bool)
    gaps[3] = True
    counts = np.random.default_rng(0).integers(0, 9, (COUNT, N, N))
    counts[:, gaps] = -1
    frames = Frames(ArraySource(counts), measurement="intensity", steps=[Blank(gaps), Bin(2)])
    assert frames.measure(frames.bad_pixels).lowest == 0


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([Bin(3)], "bin: expected a factor that divides 16 x 16 pixels; received 3"),
        ([Window(16, 0, 4, 4)], r"crop: expected a window on 16 x 16 pixels; received \[16, 0\] and 4 x 4"),
        ([Blank(np.zeros((4, 4), bool))], r"bad pixels: expected shape \(16, 16\); received shape \(4, 4\)"),
    ],
)
def test_steps_that_do_not_fit_are_refused(steps: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Frames(ArraySource(amplitudes()), steps=steps)


@pytest.mark.parametrize(("measurement", "what"), [("intensity", "counts"), ("amplitude", "amplitudes")])
def test_negative_values_are_refused_before_they_are_hidden(measurement: Any, what: str) -> None:
    patterns = amplitudes()
    patterns[20, 3, 4] = -2
    frames = Frames(ArraySource(patterns), measurement=measurement, steps=[Bin(2)], name="run.h5", key="entry/data")
    with pytest.raises(DataError, match=rf"run\.h5: entry/data: expected {what} >= 0; received a minimum of -2"):
        frames.measure(frames.bad_pixels)


# -- as an array ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "index",
    [3, -1, np.int64(2), slice(None), slice(20, 3, -4), [1, 1, -2], np.arange(COUNT) % 2 == 0, np.array([], int)],
)
def test_frames_are_indexed_like_an_array(index: Any) -> None:
    frames, patterns = Frames(ArraySource(amplitudes())), amplitudes()
    np.testing.assert_array_equal(frames[index], patterns[index])
    if np.ndim(patterns[index]) == 3:
        part = frames.select(index)
        assert isinstance(part, Frames) and part.shape == patterns[index].shape
        if len(part):
            np.testing.assert_array_equal(np.asarray(part), patterns[index])
            np.testing.assert_array_equal(part.select(slice(None, None, -1))[:], patterns[index][::-1])


@pytest.mark.parametrize("index", [COUNT, -COUNT - 1, [0, COUNT], np.ones(4, bool), 1.5, np.zeros((2, 2), int)])
def test_an_index_out_of_range_or_of_another_kind_is_an_index_error(index: Any) -> None:
    with pytest.raises(IndexError):
        Frames(ArraySource(amplitudes()))[index]


def test_what_is_given_out_is_a_copy() -> None:
    patterns = amplitudes()
    frames = Frames(ArraySource(patterns))
    frames[:3][:] = -1
    frames[np.array([4])][:] = -1
    next(frames.blocks())[:] = -1
    np.testing.assert_array_equal(patterns, amplitudes())


def test_few_patterns_are_an_array_and_many_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = Frames(ArraySource(amplitudes()))
    monkeypatch.setattr("ptycho_core.storage.source.IN_MEMORY_BYTES", frames.nbytes)
    assert isinstance(in_memory(frames), np.ndarray)
    monkeypatch.setattr("ptycho_core.storage.source.IN_MEMORY_BYTES", frames.nbytes - 1)
    assert in_memory(frames) is frames


# -- NPZ files -----------------------------------------------------------------------------------------------------

ORDERS = {
    "frames first": lambda patterns: patterns,
    "frames last": lambda patterns: np.ascontiguousarray(np.moveaxis(patterns, 0, -1)),
    "frames first, Fortran": np.asfortranarray,
    "frames last, Fortran": lambda patterns: np.asfortranarray(np.moveaxis(patterns, 0, -1)),
}


@pytest.mark.usefixtures("lazy", "way")
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "uint16"])
def test_a_scan_is_the_same_whether_its_patterns_are_read_or_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compressed: bool, order: str, dtype: str
) -> None:
    monkeypatch.setattr("ptycho_core.storage.unpacked.TURNED_BYTES", 4 * N * N * 5)
    monkeypatch.setattr("ptycho_core.storage.source.BLOCK_BYTES", 4 * N * N * 3)
    patterns = amplitudes().astype(dtype)
    scan = load_scan(write(tmp_path / "scan.npz", ORDERS[order](patterns), compressed))
    monkeypatch.setattr("ptycho_core.storage.source.IN_MEMORY_BYTES", 2**28)
    held = load_scan(tmp_path / "scan.npz")
    frames, array = lazily(scan), held.diffraction_amplitude
    assert isinstance(array, np.ndarray)
    np.testing.assert_array_equal(frames[EVERYWHERE], array[EVERYWHERE])
    np.testing.assert_array_equal(np.asarray(frames), array)
    np.testing.assert_array_equal(scan.subset(EVERYWHERE).diffraction_amplitude[2:4], array[EVERYWHERE][2:4])
    assert_statistics_equal(scan.statistics, held.statistics)
    assert scan.dose_known == held.dose_known == (dtype == "uint16")


def assert_statistics_equal(one: Statistics, other: Statistics) -> None:
    np.testing.assert_allclose(one.frame_intensity, other.frame_intensity, rtol=1e-12)
    assert one.mean_pattern is not None and other.mean_pattern is not None
    np.testing.assert_allclose(one.mean_pattern, other.mean_pattern, rtol=1e-12)
    assert (one.lowest, one.largest) == (other.lowest, other.largest)


@pytest.mark.usefixtures("lazy")
@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "expected finite values; received NaN"), (-1, "expected values >= 0; received a minimum of -1")],
)
def test_every_pattern_is_checked(tmp_path: Path, value: float, message: str) -> None:
    patterns = amplitudes()
    patterns[COUNT - 1, 2, 3] = value
    with pytest.raises(DataError, match=rf"diffraction_amplitude \(diff3d\): {message}"):
        load_scan(write(tmp_path / "scan.npz", patterns))


@pytest.mark.usefixtures("lazy")
@pytest.mark.parametrize("compressed", [False, True])
def test_a_changed_byte_is_found_by_the_first_pass(tmp_path: Path, compressed: bool) -> None:
    path = write(tmp_path / "scan.npz", amplitudes(), compressed)
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"scan\.npz: diff3d: expected"):
        load_scan(path)


@pytest.mark.usefixtures("lazy")
def test_a_lazy_scan_is_written_like_one_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = load_scan(write(tmp_path / "scan.npz", amplitudes(), compressed=True))
    monkeypatch.setattr("ptycho_core.storage.source.BLOCK_BYTES", 4 * N * N * 3)
    save_scan(tmp_path / "lazy.npz", scan)
    save_scan(tmp_path / "held.npz", attrs.evolve(scan, diffraction_amplitude=np.asarray(scan.diffraction_amplitude)))
    assert (tmp_path / "lazy.npz").read_bytes() == (tmp_path / "held.npz").read_bytes()


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = write(tmp_path / "scan.npz", amplitudes())
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("bomb.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": (300 * 2**20,)})
        for _ in range(300):
            member.write(bytes(2**20))
    with pytest.raises(DataError, match=r"scan\.npz: bomb: expected a readable NPZ file; received 314572928 bytes in"):
        load_scan(path)


# -- a scan of them ------------------------------------------------------------------------------------------------


class Counting(ArraySource):
    """Counts the patterns that are read."""

    patterns_read = 0

    def read(self, index: NDArray[np.int64]) -> NDArray[Any]:
        self.patterns_read += len(index)
        return super().read(index)

    def blocks(self, count: int) -> Any:
        self.patterns_read += len(self.patterns)
        return super().blocks(count)


def scan_of(frames: Frames) -> Scan:
    keys = contract(amplitudes())
    positions = np.stack([keys["xcoords"], keys["ycoords"]], axis=-1)
    return Scan(diffraction_amplitude=frames, positions_px=positions, probe=keys["probeGuess"])


def test_one_pass_checks_measures_and_serves_every_part() -> None:
    source = Counting(amplitudes())
    scan = scan_of(Frames(source))
    part = scan.subset(np.array([4, 9, 2])).subset([2, 0])
    power = np.square(amplitudes(), dtype=np.float64)
    assert mean_frame_intensity(scan) == pytest.approx(power.sum(axis=(1, 2)).mean(), rel=1e-12)
    assert mean_frame_intensity(part) == pytest.approx(power[[2, 4]].sum(axis=(1, 2)).mean(), rel=1e-12)
    np.testing.assert_allclose(scan.mean_pattern(), power.mean(axis=0), rtol=1e-12)
    assert scan.statistics.largest == amplitudes().max()
    attrs.evolve(scan, source="another name")
    assert source.patterns_read == COUNT
    np.testing.assert_allclose(part.mean_pattern(), power[[2, 4]].mean(axis=0), rtol=1e-12)


def test_another_mask_is_another_measurement() -> None:
    mask = np.zeros((N, N), bool)
    mask[2:4] = True
    scan = attrs.evolve(scan_of(Frames(ArraySource(amplitudes()))), bad_pixels=mask)
    expected = np.square(amplitudes()[:, ~mask], dtype=np.float64).sum(axis=1).mean()
    assert mean_frame_intensity(scan) == pytest.approx(expected, rel=1e-12)


def test_pixels_outside_the_detector_are_bad_in_the_scan() -> None:
    frames = Frames(ArraySource(amplitudes()[:, 1:]), steps=[centred((N - 1, N), N)])
    scan = scan_of(frames)
    np.testing.assert_array_equal(np.flatnonzero(np.asarray(scan.bad_pixels).all(axis=1)), [0])


def test_a_lazy_scan_trains_and_reconstructs_as_one_in_memory(fake_engine: Any, numbered_scan: Any) -> None:
    held = numbered_scan(count=12)
    scans = held, attrs.evolve(held, diffraction_amplitude=Frames(ArraySource(held.diffraction_amplitude)))
    config = TrainingConfig(model=cnn(N=held.N, gridsize=2), nepochs=1, n_groups=8, n_subsample=10, backend="fake")
    fields = [reconstruct(scan, train(scan, config)).object_field for scan in scans]
    np.testing.assert_array_equal(*fields)
    for one, other in zip(*fake_engine.epochs, strict=True):
        np.testing.assert_array_equal(one.diffraction_amplitude, other.diffraction_amplitude)


@pytest.mark.usefixtures("lazy")
def test_a_pass_needs_no_more_memory_than_a_few_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptycho_core.storage.source.BLOCK_BYTES", 2**18)
    monkeypatch.setattr("ptycho_core.storage.unpacked.TURNED_BYTES", 2**19)
    monkeypatch.setitem(globals(), "COUNT", 2**14)  # 16 MiB of patterns
    patterns = np.ones((2**14, N, N), np.float32)
    for name, stored in (("first", patterns), ("last", np.ascontiguousarray(np.moveaxis(patterns, 0, -1)))):
        for compressed in (False, True):
            write(tmp_path / f"{name}-{compressed}.npz", stored, compressed)
    for path in sorted(tmp_path.iterdir()):
        tracemalloc.start()
        scan = load_scan(path)
        groups = draw_groups(scan.positions_px, np.random.default_rng(0), gridsize=2, n_groups=64, neighbor_count=4)
        for _ in groups.batches(scan, 16, illumination=Illumination.of(scan, nphotons=1e9), canvas_padding_px=0):
            pass
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 7 * 2**20, (path.name, peak)


# -- files ---------------------------------------------------------------------------------------------------------


def stored(path: Path, **changes: Any) -> StoredFrames:
    """Patterns at an odd place in a file, as in a zip file."""
    path.write_bytes(bytes(13) + amplitudes().tobytes())
    return StoredFrames(path, **{"offset": 13, "shape": (COUNT, N, N), "dtype": "<f4", "key": "diff3d", **changes})


@pytest.mark.usefixtures("way")
@settings(max_examples=30)
@given(index=st.lists(st.integers(0, COUNT - 1), max_size=40), count=st.integers(1, COUNT + 2))
def test_stored_patterns_are_read_in_any_order(tmp_path_factory: Any, index: list[int], count: int) -> None:
    source = stored(tmp_path_factory.getbasetemp() / "patterns.bin")
    np.testing.assert_array_equal(source.read(np.array(index, np.int64)), amplitudes()[index])
    blocks = list(source.blocks(count))
    assert max(map(len, blocks)) <= count
    np.testing.assert_array_equal(np.concatenate(blocks), amplitudes())


@pytest.mark.usefixtures("way")
def test_patterns_can_be_read_from_many_threads(tmp_path: Path) -> None:
    frames = Frames(stored(tmp_path / "patterns.bin"))
    indices = [np.random.default_rng(seed).integers(0, COUNT, 9) for seed in range(200)]
    with ThreadPoolExecutor(8) as pool:
        for index, received in zip(indices, pool.map(frames.__getitem__, indices), strict=True):
            np.testing.assert_array_equal(received, amplitudes()[index])


@pytest.mark.usefixtures("way")
def test_a_file_that_shrinks_while_it_is_in_use_is_an_error_and_no_crash(tmp_path: Path) -> None:
    frames = Frames(stored(tmp_path / "patterns.bin"))
    frames[EVERYWHERE]
    os.truncate(tmp_path / "patterns.bin", 9 * 4 * N * N)
    with pytest.raises(DataError, match=r"patterns\.bin: diff3d: expected at least 23565 bytes; received 9216 bytes"):
        frames[np.arange(COUNT)]
    with pytest.raises(DataError, match="It is truncated"):
        list(frames.blocks())


def test_a_file_that_is_too_short_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected at least 24589 bytes; received 23565 bytes"):
        stored(tmp_path / "patterns.bin", shape=(COUNT + 1, N, N))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "expected a readable file; received No such file"),
        (lambda path: path.write_bytes(bytes(30_000)), "expected the file as it was when the scan was loaded"),
    ],
)
def test_a_file_that_is_opened_again_must_be_the_same(tmp_path: Path, change: Any, message: str) -> None:
    frames = Frames(stored(tmp_path / "patterns.bin"))
    frames[:2]
    frames.close()
    np.testing.assert_array_equal(frames[:2], amplitudes()[:2])
    twin = pickled(frames)
    change(tmp_path / "patterns.bin")
    np.testing.assert_array_equal(frames[2:4].shape, (2, N, N))  # still open
    frames.close()
    for each in (frames, twin):
        with pytest.raises(DataError, match=message):
            each[:2]


@needs_proc
@pytest.mark.usefixtures("way")
def test_a_file_is_closed_when_nobody_needs_it(tmp_path: Path) -> None:
    gc.collect()  # what earlier tests left open
    before = open_files()
    frames = Frames(stored(tmp_path / "patterns.bin"))
    part = frames.select([1, 2])
    frames[:], part[:]
    assert open_files() > before
    frames.close()
    assert open_files() == before
    part[:]
    del frames, part
    gc.collect()
    assert open_files() == before


@needs_proc
@pytest.mark.usefixtures("lazy")
@pytest.mark.parametrize("order", ["frames first", "frames last"])
def test_a_temporary_file_goes_with_its_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str) -> None:
    path = write(tmp_path / "scan.npz", ORDERS[order](amplitudes()), compressed=True)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    gc.collect()  # what earlier tests left open
    before = open_files()
    scan = load_scan(path)
    assert open_files() == before + 1
    part = scan.subset([3, 1])
    del scan
    np.testing.assert_array_equal(part.diffraction_amplitude[:], amplitudes()[[3, 1]])
    twin = pickled(part)
    np.testing.assert_array_equal(twin.diffraction_amplitude[:], amplitudes()[[3, 1]])
    del part, twin
    gc.collect()
    assert open_files() == before
    assert not list((tmp_path / "tmp").iterdir())


@needs_proc
@pytest.mark.usefixtures("lazy")
def test_a_refused_scan_leaves_no_temporary_file(tmp_path: Path) -> None:
    gc.collect()  # what earlier tests left open
    before = open_files()
    with pytest.raises(DataError):
        load_scan(write(tmp_path / "scan.npz", -amplitudes(), compressed=True))
    gc.collect()
    assert open_files() == before


@pytest.mark.usefixtures("lazy")
def test_unpacking_needs_space_and_says_how_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "scan.npz", amplitudes(), compressed=True)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 5}))
    with pytest.raises(DataError, match=r"diff3d: expected .* GiB to unpack the patterns in .*Free some space, name"):
        load_scan(path)


def test_a_pickle_holds_no_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptycho_core.storage.source.IN_MEMORY_BYTES", 0)
    scan = load_scan(write(tmp_path / "scan.npz", amplitudes()))
    content = pickle.dumps(scan)
    assert len(content) < amplitudes().nbytes / 2
    twin = pickle.loads(content)  # noqa: S301 - our own bytes
    np.testing.assert_array_equal(twin.diffraction_amplitude[:], amplitudes())
    assert_statistics_equal(twin.statistics, scan.statistics)


# -- HDF5 ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hdf5(tmp_path: Path) -> Path:
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file["contiguous"] = amplitudes()
        file["big_endian"] = amplitudes().astype(">f8")
        file["leading"] = amplitudes()[None]
        file.create_dataset("frames", data=amplitudes(), chunks=(1, N, N), compression="gzip", shuffle=True)
        file.create_dataset("blocks", data=amplitudes(), chunks=(7, 5, 9), compression="gzip")
        file.create_dataset("counts", data=np.rint(amplitudes()).astype("<u4"), chunks=(COUNT, 2, 2))
        file["group/text"] = "not a pattern"
    return path


@pytest.mark.parametrize("dataset", ["contiguous", "big_endian", "leading", "frames", "blocks", "counts"])
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(index=st.lists(st.integers(0, COUNT - 1), max_size=40), count=st.integers(1, COUNT + 2))
def test_hdf5_data_sets_are_read_in_any_order(hdf5: Path, dataset: str, index: list[int], count: int) -> None:
    source = hdf5_frames(hdf5, dataset)
    expected = np.rint(amplitudes()) if dataset == "counts" else amplitudes()
    np.testing.assert_array_equal(source.read(np.array(index, np.int64)), expected[index])
    np.testing.assert_array_equal(np.concatenate(list(source.blocks(count))), expected)
    assert isinstance(source, StoredFrames) == (dataset in ("contiguous", "big_endian", "leading"))
    source.close()


def test_hdf5_patterns_can_be_pickled_and_read_from_many_threads(hdf5: Path) -> None:
    frames = pickled(Frames(hdf5_frames(hdf5, "blocks")))
    indices = [np.random.default_rng(seed).integers(0, COUNT, 9) for seed in range(40)]
    with ThreadPoolExecutor(4) as pool:
        for index, received in zip(indices, pool.map(frames.__getitem__, indices), strict=True):
            np.testing.assert_array_equal(received, amplitudes()[index])


def test_an_hdf5_file_can_be_written_again_once_it_is_closed(hdf5: Path) -> None:
    frames = Frames(hdf5_frames(hdf5, "frames"))
    frames[:3]
    frames.close()
    with h5py.File(hdf5, "a") as file:
        file["more"] = 1
    with pytest.raises(DataError, match="expected the file as it was when the scan was loaded"):
        frames[:3]


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("nowhere", "nowhere: expected a data set of real numbers; received no such data set"),
        ("group", "group: expected a data set of real numbers; received <HDF5 group"),
        ("group/text", "group/text: expected a data set of real numbers; received <HDF5 dataset"),
    ],
)
def test_what_is_no_data_set_of_patterns_is_refused(hdf5: Path, dataset: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"scan\.h5: {message}"):
        hdf5_frames(hdf5, dataset)


def test_a_damaged_chunk_is_an_error_that_names_the_data_set(hdf5: Path) -> None:
    with h5py.File(hdf5) as file:
        offset = file["frames"].id.get_chunk_info(4).byte_offset
    content = bytearray(hdf5.read_bytes())
    content[offset : offset + 60] = b"\xff" * 60
    hdf5.write_bytes(content)
    frames = Frames(HDF5Frames(hdf5, "frames"))
    np.testing.assert_array_equal(frames[:4], amplitudes()[:4])
    with pytest.raises(DataError, match=r"scan\.h5: frames: expected readable data; received"):
        frames[:5]


def test_a_file_that_is_no_hdf5_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scan.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99))
    with pytest.raises(DataError, match=r"scan\.h5: patterns: expected a readable HDF5 file; received"):
        hdf5_frames(tmp_path / "scan.h5", "patterns")


# -- joined and turned ---------------------------------------------------------------------------------------------


def test_joined_patterns_are_those_of_the_files_in_order() -> None:
    patterns = amplitudes()
    joined = JoinedFrames(
        [ArraySource(patterns[:4]), ArraySource(patterns[4:5]), ArraySource(patterns[5:].astype(float))]
    )
    np.testing.assert_array_equal(joined.read(np.array([22, 0, 4, 5, 3])), patterns[[22, 0, 4, 5, 3]])
    np.testing.assert_array_equal(np.concatenate(list(joined.blocks(3))), patterns)
    with pytest.raises(DataError, match="files with patterns of one size"):
        JoinedFrames([ArraySource(patterns), ArraySource(patterns[:, 1:])])


def test_patterns_of_any_stream_are_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptycho_core.storage.source.IN_MEMORY_BYTES", 0)
    path = tmp_path / "pixels.bin"
    np.moveaxis(amplitudes(), 0, -1).tofile(path)
    passes = []

    class Watched(FramesLast):
        def blocks(self, count: int) -> Any:
            passes.append(count)
            return super().blocks(count)

    stream = Watched(StoredFrames(path, 0, (1, N * N, COUNT), "<f4"), (N, N, COUNT))
    source = UnpackedFrames(stream, name=path)
    for _ in range(2):
        np.testing.assert_array_equal(source.read(np.array([3, 1])), amplitudes()[[3, 1]])
        np.testing.assert_array_equal(np.concatenate(list(source.blocks(4))), amplitudes())
    assert len(passes) == 1


def test_members_are_described_by_their_headers(tmp_path: Path) -> None:
    members = npz_members(write(tmp_path / "scan.npz", amplitudes()))
    assert {key: (member.shape, member.dtype.name) for key, member in members.items()} == {
        "diff3d": ((COUNT, N, N), "float32"),
        "xcoords": ((COUNT,), "float64"),
        "ycoords": ((COUNT,), "float64"),
        "probeGuess": ((N, N), "complex128"),
    }


# -- statistics in parts -------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(data=st.data(), seed=st.integers(0, 99))
def test_merged_tallies_equal_the_whole_to_rounding_in_any_order_and_split(data: st.DataObject, seed: int) -> None:
    patterns = amplitudes(seed)
    bad = np.random.default_rng(seed).random((N, N)) < 0.1
    cuts = sorted(data.draw(st.lists(st.integers(0, COUNT), max_size=6)))
    pieces = data.draw(st.permutations(list(zip([0, *cuts], [*cuts, COUNT], strict=True))))
    tallies = [Tally(patterns.shape, bad) for _ in range(data.draw(st.integers(1, 4)))]
    for start, end in pieces:
        data.draw(st.sampled_from(tallies)).add(patterns[start:end], start)
    merged = Tally(patterns.shape, bad)
    for tally in data.draw(st.permutations(tallies)):
        merged.merge(tally)
    parts, whole = merged.statistics(), measure([patterns], patterns.shape, bad)
    assert parts.mean_pattern is not None and whole.mean_pattern is not None
    np.testing.assert_allclose(parts.frame_intensity, whole.frame_intensity, rtol=1e-13)
    np.testing.assert_allclose(parts.mean_pattern, whole.mean_pattern, rtol=1e-13)
    assert (parts.lowest, parts.largest) == (whole.lowest, whole.largest)


def test_a_pattern_is_tallied_once_and_none_is_left_out() -> None:
    patterns, bad = amplitudes(), np.zeros((N, N), bool)
    tally, other = Tally(patterns.shape, bad), Tally(patterns.shape, bad)
    tally.add(patterns[:5])
    with pytest.raises(ValueError, match="5 of 23 patterns"):
        tally.statistics()
    with pytest.raises(ValueError, match="known already"):
        tally.add(patterns[4:6], 4)
    with pytest.raises(ValueError, match="beyond the scan"):
        tally.add(patterns[:5], COUNT - 3)
    other.add(patterns[4:], 4)
    with pytest.raises(ValueError, match="known already"):
        tally.merge(other)


def test_what_is_not_finite_stays_so_when_it_is_merged() -> None:
    patterns, bad = amplitudes(), np.zeros((N, N), bool)
    patterns[3, 1, 1] = np.nan
    tallies = [Tally(patterns.shape, bad) for _ in range(3)]
    tallies[0].add(patterns[:7])
    tallies[1].add(patterns[7:], 7)
    for tally in tallies[:2]:
        tallies[2].merge(tally)
    statistics = tallies[2].statistics()
    assert np.isnan(statistics.lowest) and np.isnan(statistics.largest)
