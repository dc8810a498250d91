"""The API for applications: settings as data, arrays in metres and back, and work in a child process that can be ended.

The child finds an engine of numpy alone, registered as that of another package would be.
"""

from __future__ import annotations

import itertools
import logging
import os
import pickle
import signal
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import attrs
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from ptycho_core import embedding, load_model, load_scan
from ptycho_core.embedding import ObjectGrid, ScanArrays, ScanFile, describe_settings, make_config
from ptycho_core.embedding.child import in_child
from ptycho_core.errors import ArchiveError, ConfigurationError, DataError, WorkerError
from ptycho_core.formats.convert import save_scan
from ptycho_core.physics.canvas import ObjectCanvas
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.fields import fields_of
from ptycho_core.settings.sections import SECTIONS

N = 32
TINY = {"architecture": "cnn", "n_filters_scale": 1, "batch_size": 4, "n_groups": 4, "backend": "reference"}


@pytest.fixture
def numpy_engine(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference as an installed engine, for this process and those that it spawns."""
    folder = tmp_path_factory.mktemp("site")
    info = folder / "numpy_engine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy-engine\nVersion: 1.0\n")
    point = "reference = ptycho_core_reference.engine:ReferenceEngine"
    (info / "entry_points.txt").write_text(f"[ptycho_core.engines]\n{point}\n")
    monkeypatch.syspath_prepend(str(folder))


def arrays_of(scan: Scan, **changes: Any) -> ScanArrays:
    """The scan as an application has it: counts, and metres about the middle of a grid at (1, −2) μm."""
    assert scan.object_field is not None
    height, width = scan.object_field.shape
    grid = ObjectGrid(shape=(height, width), pixel_m=(1e-8, 2e-8), centre_m=(1e-6, -2e-6))
    middles = scan.positions_px - 0.5  # of patches of an even number of pixels
    fields: dict[str, Any] = {
        "patterns": np.square(scan.diffraction_amplitude).round().astype(np.uint32),
        "measurement": "intensity",
        "positions_m": (middles - [(width - 1) / 2, (height - 1) / 2]) * grid.pixel_m + grid.centre_m,
        "probe": scan.probe,
        "grid": grid,
        "object_field": scan.object_field,
    }
    return ScanArrays(**{**fields, **changes})


@pytest.fixture
def arrays(numbered_scan: Callable[..., Scan]) -> ScanArrays:
    return arrays_of(numbered_scan(6))


# -- settings ------------------------------------------------------------------------------------------------------


def test_every_setting_is_described_and_its_default_is_within_its_limits() -> None:
    described = {(each.section, each.name): each for each in describe_settings()}
    assert set(described) == {(section, name) for section, cls in SECTIONS.items() for name in fields_of(cls)}
    for each in described.values():
        if each.default is None:
            assert each.optional, each
        elif each.choices:
            assert each.default in each.choices, each
        elif each.minimum is not None:
            assert each.default > each.minimum or (each.default == each.minimum and not each.above_minimum), each


@pytest.mark.parametrize("each", describe_settings("model", "training", "execution"), ids=lambda each: each.name)
def test_a_value_beyond_what_is_described_is_refused(each: embedding.Setting) -> None:
    section = "training" if each.section == "model" else each.section
    beyond: dict[str, Any] = {}
    if each.minimum is not None:
        step = 1 if each.kind == "integer" else 1e-9
        beyond["too low"] = each.minimum if each.above_minimum else each.minimum - step
    if each.maximum is not None:
        beyond["too high"] = each.maximum if each.below_maximum else each.maximum + 1e-9
    if each.choices:
        beyond["no choice"] = "nothing of the kind"
    if each.powers_of_two:
        beyond["no power of two"] = 12
    if not each.optional:
        beyond["nothing"] = None
    for value in beyond.values():
        with pytest.raises(ConfigurationError, match=each.name):
            make_config(section, {each.name: value})


def test_a_form_can_tell_kinds_limits_choices_and_needs() -> None:
    described = {each.name: each for each in describe_settings("model", "training")}
    assert described["N"].kind == "integer" and described["N"].minimum == 16
    assert described["probe_scale"].above_minimum and described["probe_scale"].minimum == 0
    assert (described["nll_weight"].minimum, described["nll_weight"].maximum) == (0, 1)
    assert described["momentum"].below_maximum and described["momentum"].maximum == 1
    assert described["batch_size"].powers_of_two
    assert described["amp_activation"].choices == ("sigmoid", "swish", "softplus", "relu")
    assert described["gradient_clip_val"].optional and described["gradient_clip_val"].default is None
    assert described["batch_size"].optional and "16; 1 with architecture = canvas" in described["batch_size"].help
    assert described["momentum"].needs == {"optimizer": "sgd"}
    assert described["train_data_file"].kind == "path"


def test_values_by_name_make_a_configuration_with_its_model() -> None:
    config = make_config("training", {"nepochs": 3, "architecture": "cnn", "gridsize": 2})
    assert config.nepochs == 3 and config.model.gridsize == 2
    assert make_config("inference", {"n_groups": None}).n_groups is None
    with pytest.raises(ConfigurationError, match="nepoch"):
        make_config("training", {"nepoch": 3})


# -- grid ----------------------------------------------------------------------------------------------------------

lengths = st.floats(1e-9, 1e-6)
places = st.floats(-1e-3, 1e-3)


@st.composite
def grids(draw: st.DrawFn) -> ObjectGrid:
    return ObjectGrid(
        shape=(draw(st.integers(1, 200)), draw(st.integers(1, 200))),
        pixel_m=(draw(lengths), draw(lengths)),
        centre_m=(draw(places), draw(places)),
    )


@given(grid=grids(), N=st.integers(1, 64), data=st.data())
def test_a_patch_about_the_middle_of_some_pixels_covers_these(grid: ObjectGrid, N: int, data: st.DataObject) -> None:
    """The pixels left … left + N − 1 of a grid have their middle at left + (N − 1)/2; a scan names pixel N // 2."""
    height, width = grid.shape
    left, top = data.draw(st.integers(-10, 200)), data.draw(st.integers(-10, 200))
    middle = np.array([left + (N - 1) / 2 - (width - 1) / 2, top + (N - 1) / 2 - (height - 1) / 2])
    positions_m = (middle * grid.pixel_m + grid.centre_m)[None]
    expected = [[left + N // 2, top + N // 2]]
    # A place of 1 mm is known to 1e-19 m, 1e-10 of the smallest pixel.
    np.testing.assert_allclose(grid.positions_px(positions_m, N), expected, rtol=0, atol=1e-7)


@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    origin=st.tuples(st.integers(-15, 15), st.integers(-15, 15)),
    seed=st.integers(0, 9),
)
def test_a_canvas_lands_pixel_by_pixel_where_it_belongs(
    shape: tuple[int, int], size: tuple[int, int], origin: tuple[int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    field = rng.normal(size=size).astype(np.complex64)
    known = rng.random(size) < 0.6
    beneath = rng.normal(size=shape) + 1j
    grid = ObjectGrid(shape=shape, pixel_m=(1, 1))
    placed, inside = grid.place(field, known, origin, beneath)
    for row, column in np.ndindex(shape):
        there = row - origin[1], column - origin[0]
        within = 0 <= there[0] < size[0] and 0 <= there[1] < size[1] and known[there]
        assert inside[row, column] == within
        assert placed[row, column] == (field[there] if within else np.complex64(beneath[row, column]))


def test_where_nothing_is_known_and_nothing_lies_beneath_the_object_is_1() -> None:
    grid = ObjectGrid(shape=(3, 4), pixel_m=(1, 1))
    placed, inside = grid.place(np.zeros((1, 1), np.complex64), np.zeros((1, 1), bool), (0, 0))
    assert (placed == 1).all() and not inside.any()


@given(left=st.floats(1, 50), top=st.floats(1, 40))
def test_a_true_patch_gives_the_object_back_on_its_grid_to_the_pixel(left: float, top: float) -> None:
    """A field that is linear in x and y is its own bilinear interpolation: a shift of its place would show."""
    y, x = np.mgrid[:60, :70].astype(float)
    field = 1 + 0.01 * x + 0.02j * y
    grid = ObjectGrid(shape=field.shape, pixel_m=(2e-8, 3e-8), centre_m=(5e-6, 7e-6))
    middle = np.array([left + 7.5 - 34.5, top + 7.5 - 29.5])  # of the patch's 16 pixels, from the grid's own middle
    positions_px = grid.positions_px((middle * grid.pixel_m + grid.centre_m)[None], 16)
    rows, columns = np.mgrid[:16, :16]
    patch = 1 + 0.01 * (columns + left) + 0.02j * (rows + top)
    canvas = ObjectCanvas(positions_px, np.ones((16, 16)))
    canvas.add(patch[None].astype(np.complex64), positions_px)
    placed, inside = grid.place(*canvas.known_field(), canvas.origin_px)
    # The pixels between the patch's own; at its very border there is nothing to interpolate with.
    row, column = int(top + 1e-6), int(left + 1e-6)
    whole = slice(row + 1, row + 15), slice(column + 1, column + 15)
    assert inside[whole].all()
    # Fractions of a pixel are float32 numbers: half a pixel would be 5e-3.
    np.testing.assert_allclose(placed[whole], field[whole], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": (0, 4)}, r"shape: expected \(H, W\), whole numbers > 0"),
        ({"shape": (2.5, 4)}, "shape"),
        ({"pixel_m": (1e-8, 0)}, r"pixel_m: expected \(x, y\), lengths > 0"),
        ({"centre_m": (float("nan"), 0)}, "centre_m"),
    ],
)
def test_a_grid_that_is_none_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ObjectGrid(**{"shape": (3, 4), "pixel_m": (1e-8, 1e-8), **changes})


# -- arrays --------------------------------------------------------------------------------------------------------


def test_arrays_become_the_scan(numbered_scan: Callable[..., Scan]) -> None:
    expected = numbered_scan(6)
    scan = arrays_of(expected).scan()
    np.testing.assert_array_equal(scan.diffraction_amplitude, expected.diffraction_amplitude)
    np.testing.assert_allclose(scan.positions_px, expected.positions_px, rtol=0, atol=1e-9)
    assert scan.object_field is not None and expected.object_field is not None
    np.testing.assert_array_equal(scan.object_field, expected.object_field)
    assert scan.dose_known and scan.metadata["object_pixel_m"] == [1e-8, 2e-8]


def test_amplitudes_are_taken_as_they_are_and_what_bad_pixels_hold_is_not_looked_at(arrays: ScanArrays) -> None:
    amplitude = np.sqrt(arrays.patterns.astype(float))
    bad = np.zeros((N, N), bool)
    bad[2, 3] = True
    amplitude[:, 2, 3] = np.nan
    scan = attrs.evolve(arrays, patterns=amplitude, measurement="amplitude", bad_pixels=bad).scan()
    np.testing.assert_array_equal(np.asarray(scan.diffraction_amplitude)[:, ~bad], amplitude[:, ~bad].astype("f4"))
    assert not scan.dose_known and scan.bad_pixels is not None and scan.bad_pixels[2, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"measurement": "counts"}, "measurement: expected intensity or amplitude; received counts"),
        ({"patterns": np.ones((4, 4))}, r"patterns: expected \(M, N, N\); received shape \(4, 4\)"),
        ({"positions_m": np.zeros((2, 2))}, r"positions_px.*expected shape \(6, 2\)"),
        ({"object_field": np.ones((3, 3), complex)}, r"object_field: expected shape \(56, 56\), as the grid says"),
        ({"bad_pixels": np.zeros((3, 3), bool)}, r"bad_pixels: expected bool of shape \(32, 32\)"),
        ({"probe": np.ones((5, 5), complex)}, "probe"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(arrays: ScanArrays, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        attrs.evolve(arrays, **changes).scan()


def test_training_data_say_what_they_hold_and_come_back(arrays: ScanArrays, tmp_path: Path) -> None:
    embedding.export_training_data(tmp_path / "train.npz", attrs.evolve(arrays, metadata={"photon_energy_eV": 8000.0}))
    found, expected = load_scan(tmp_path / "train.npz"), arrays.scan()
    assert found.metadata["measurement"] == "amplitude" and found.metadata["photon_energy_eV"] == 8000
    assert found.dose_known
    for name in ("diffraction_amplitude", "positions_px", "probe", "object_field", "bad_pixels"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


# -- work in a child -----------------------------------------------------------------------------------------------


def test_train_and_reconstruct_in_children(numpy_engine: None, arrays: ScanArrays, tmp_path: Path) -> None:
    model = tmp_path / "models" / "model.zip"
    config = make_config("training", {**TINY, "nepochs": 2})
    epochs = list(embedding.train(arrays, model, config, test=arrays))
    assert [(each.epoch, each.goal, each.backend, each.model_path) for each in epochs] == [
        (1, 2, "reference", model),
        (2, 2, "reference", model),
    ]
    assert all(each.validation is not None and np.isfinite(each.train["total"]) for each in epochs)
    assert load_model(model).best_epoch == epochs[-1].best_epoch
    assert len(load_model(model).history) == 2

    inference = make_config("inference", {"backend": "reference"})
    steps = list(embedding.reconstruct(arrays, model, inference))
    first, last = steps[0], steps[-1]
    assert (first.done, first.goal, last.done, last.goal) == (0, 6, 6, 6)
    assert not first.known.any() and last.known.any()
    assert arrays.object_field is not None
    np.testing.assert_array_equal(first.object_field, arrays.object_field.astype(np.complex64))
    assert last.summary is not None and last.summary["backend"] == "reference"

    here = list(embedding.reconstruct(arrays, model, inference, child=False))[-1]
    np.testing.assert_array_equal(here.object_field, last.object_field)


def test_the_default_network_is_trained_and_reconstructs_on_the_grid(
    numpy_engine: None, arrays: ScanArrays, tmp_path: Path
) -> None:
    small = {"group_size": 4, "canvas_blocks": 1, "n_filters_scale": 1, "nepochs": 1, "n_groups": 2}
    config = make_config("training", {**small, "backend": "reference"})
    (epoch,) = embedding.train(arrays, tmp_path / "model.zip", config, child=False)
    assert np.isfinite(epoch.train["held_out"])
    assert load_model(tmp_path / "model.zip").config.model == attrs.evolve(config.model, N=32)
    first, *_, last = embedding.reconstruct(arrays, tmp_path / "model.zip", child=False)
    assert (first.done, last.done, last.goal % 6) == (0, last.goal, 0)
    assert not first.known.any() and last.known.any()
    assert np.isfinite(last.object_field).all()


def test_closing_ends_training_in_the_midst_of_an_epoch_and_leaves_the_best_model(
    numpy_engine: None, arrays: ScanArrays, tmp_path: Path
) -> None:
    training = embedding.train(arrays, tmp_path / "model.zip", make_config("training", {**TINY, "nepochs": 10**6}))
    assert next(training).epoch == 1
    (tmp_path / ".model.zip.killed.partial").touch()
    training.close()
    assert load_model(tmp_path / "model.zip").best_epoch >= 1
    assert [path.name for path in tmp_path.iterdir()] == ["model.zip"]


def test_the_errors_of_the_work_are_ours_with_their_fields(
    numpy_engine: None, arrays: ScanArrays, tmp_path: Path
) -> None:
    (tmp_path / "model.zip").write_bytes(b"nothing")
    with pytest.raises(ArchiveError, match=r"model\.zip.*expected a readable model archive") as caught:
        list(embedding.reconstruct(arrays, tmp_path / "model.zip"))
    assert caught.value.expected == "a readable model archive" and caught.value.source.endswith("model.zip")
    assert "Traceback" in caught.value.__notes__[0]
    with pytest.raises(DataError, match=r"no\.npz"):
        list(embedding.train(tmp_path / "no.npz", tmp_path / "new.zip", child=False))
    assert not (tmp_path / "new.zip").exists()
    far = attrs.evolve(arrays, positions_m=np.asarray(arrays.positions_m) + 1.0)
    with pytest.raises(DataError, match=r"positions_m: expected positions on the object's grid"):
        list(embedding.reconstruct(far, tmp_path / "model.zip", child=False))


def test_a_scan_is_judged_before_the_work(
    numpy_engine: None, arrays: ScanArrays, tmp_path: Path, core_log: pytest.LogCaptureFixture
) -> None:
    dark = np.array(arrays.patterns)
    dark[3] = 0
    config = make_config("training", {**TINY, "nepochs": 1})
    list(embedding.train(attrs.evolve(arrays, patterns=dark), tmp_path / "model.zip", config, child=False))
    assert "3" in next(line for line in core_log.messages if "empty" in line)
    metres = attrs.evolve(arrays, positions_m=np.repeat(arrays.positions_m[:1], len(arrays.positions_m), axis=0))
    with pytest.raises(DataError, match="positions"):
        list(embedding.train(metres, tmp_path / "model.zip", config, child=False))


def test_a_contradiction_is_refused_before_a_child_is_made(arrays: ScanArrays, tmp_path: Path) -> None:
    config = make_config("training", {"architecture": "cnn", "neighbor_count": 1})
    config.model.gridsize = 2
    with pytest.raises(ConfigurationError, match="neighbor_count"):
        embedding.train(arrays, tmp_path / "model.zip", config)


def test_files_and_scans_are_trained_on_too(
    numpy_engine: None, numbered_scan: Callable[..., Scan], tmp_path: Path
) -> None:
    save_scan(tmp_path / "scan.npz", numbered_scan(6))
    config = make_config("training", {**TINY, "nepochs": 1})
    losses = [
        next(iter(embedding.train(data, tmp_path / "model.zip", config, child=False))).train["total"]
        for data in (tmp_path / "scan.npz", ScanFile(path=tmp_path / "scan.npz"), numbered_scan(6))
    ]
    assert losses[0] == losses[1] == losses[2]


@attrs.frozen
class Fails:
    def run(self, should_stop: Callable[[], bool]) -> Generator[int]:
        yield 1
        raise KeyError("lost")


@attrs.frozen
class Dies:
    number: int

    def run(self, should_stop: Callable[[], bool]) -> Generator[int]:
        yield 1
        os.kill(os.getpid(), self.number)
        yield 2


@attrs.frozen
class Exits:
    def run(self, should_stop: Callable[[], bool]) -> Generator[int]:
        yield 1
        os._exit(3)


@attrs.frozen
class Sleeps:
    """Tells its process, then nothing more; it does not end when it is asked to."""

    def run(self, should_stop: Callable[[], bool]) -> Generator[int]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        yield os.getpid()
        time.sleep(600)


@attrs.frozen
class Logs:
    def run(self, should_stop: Callable[[], bool]) -> Generator[int]:
        logging.getLogger("ptycho_core.test").warning("a word from process %d", os.getpid())
        yield os.getpid()


def test_another_failure_is_a_worker_error_with_its_traceback() -> None:
    work = in_child(Fails())
    assert next(work) == 1
    with pytest.raises(WorkerError, match="received KeyError: 'lost'") as caught:
        next(work)
    assert 'raise KeyError("lost")' in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("job", "ending"), [(Dies(signal.SIGKILL), "its end by SIGKILL"), (Exits(), "its end with exit code 3")]
)
def test_a_child_that_dies_is_an_error_that_says_how(job: Any, ending: str) -> None:
    work = in_child(job)
    assert next(work) == 1
    with pytest.raises(WorkerError, match=ending):
        next(work)


def test_closing_ends_a_child_that_does_not_listen() -> None:
    work = in_child(Sleeps(), idle_seconds=0.05)
    pid = next(each for each in work if each is not None)
    assert list(itertools.islice(work, 2)) == [None, None]  # nothing comes, and the caller is asked again
    asked = time.monotonic()
    work.close()
    assert time.monotonic() - asked < 2
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_what_a_child_logs_is_logged_here(core_log: pytest.LogCaptureFixture) -> None:
    (pid,) = in_child(Logs())
    assert f"a word from process {pid}" in core_log.text


def test_what_crosses_to_a_child_can_be_pickled(arrays: ScanArrays) -> None:
    twin = pickle.loads(pickle.dumps(arrays))  # noqa: S301 - our own bytes
    np.testing.assert_array_equal(twin.patterns, arrays.patterns)
    assert twin.grid == arrays.grid
    file = ScanFile(path=Path("scan.npz"))
    assert pickle.loads(pickle.dumps(file)) == file  # noqa: S301
    assert pickle.loads(pickle.dumps(describe_settings())) == describe_settings()  # noqa: S301


def test_engines_are_told_without_an_import(numpy_engine: None) -> None:
    found = {each.name: each for each in embedding.backends()}
    assert found["reference"].available
    assert {"torch", "tensorflow"} <= set(found)
    assert embedding.MODEL_FILE_FILTER.endswith(f"(*{embedding.MODEL_FILE_EXTENSION})")
