"""A network that predicts true patches reconstructs the true object, and the result survives its file."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from numpy.typing import NDArray

from ptycho_core.errors import Cancelled, ConfigurationError, DataError
from ptycho_core.formats.convert import save_scan
from ptycho_core.models.model import Model, load_model
from ptycho_core.networks.registry import build_table
from ptycho_core.physics.weights import probe_mask
from ptycho_core.quality.evaluation import evaluate
from ptycho_core.quality.truth import Truth, load_truth
from ptycho_core.reconstruction.predict import reconstruct
from ptycho_core.reconstruction.result import Reconstruction, load_reconstruction
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.inference import InferenceConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.training.fit import train
from ptycho_core.vocabulary import LOG_SCALE
from tests.networks import cnn


@pytest.fixture
def scan(numbered_scan: Any) -> Scan:
    """At whole positions, so that cutting out and putting back is exact."""
    return numbered_scan(count=12, positions_px=np.round(numbered_scan(count=12).positions_px))


def trained(scan: Scan, **model: Any) -> Model:
    """A model of the fake engine: its weights are the initial ones."""
    config = cnn(**{"N": scan.N, "n_filters_scale": 1, "probe_mask": False, **model})
    return train(scan, TrainingConfig(model=config, nepochs=1, n_groups=len(scan), backend="fake"))


def on_the_grid(field: NDArray[Any], result: Reconstruction) -> NDArray[Any]:
    """The part of a field, whose pixel [0, 0] is at (0, 0), that a reconstruction covers; zero beyond it."""
    height, width = result.object_field.shape
    left, top = (int(origin) for origin in result.origin_px)
    padded = np.pad(field, ((0, height), (0, width)))
    return padded[top : top + height, left : left + width]


# -- the object ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("installed", "stated", "asked"),
    [(True, None, "torch"), (False, None, "auto"), (True, "tensorflow", "tensorflow"), (True, "auto", "torch")],
)
def test_auto_is_the_engine_that_trained_the_model_where_it_is_installed(
    fake_engine: Any, scan: Scan, monkeypatch: pytest.MonkeyPatch, installed: bool, stated: str | None, asked: str
) -> None:
    names: list[str] = []

    def find_engine(backend: str = "auto") -> Any:
        names.append(backend)
        return lambda: fake_engine

    model = trained(scan)
    model = attrs.evolve(model, backend="auto", engine=attrs.evolve(model.engine, name="torch"))
    monkeypatch.setattr("ptycho_core.engine.registry.is_installed", lambda name: installed)
    monkeypatch.setattr("ptycho_core.reconstruction.prepare.find_engine", find_engine)
    reconstruct(scan, model, backend=stated)
    assert names == [asked]


@pytest.mark.parametrize("gridsize", [1, 2])
@pytest.mark.parametrize("weighting", ["probe", "uniform"])
def test_true_patches_give_the_true_object(fake_engine: Any, scan: Scan, gridsize: int, weighting: Any) -> None:
    fake_engine.predict_truth_of(scan)
    result = reconstruct(scan, trained(scan, gridsize=gridsize), config=InferenceConfig(weighting=weighting))
    truth = on_the_grid(scan.object_field, result)  # type: ignore[arg-type]
    known = result.object_field != 0
    np.testing.assert_allclose(result.object_field[known], truth[known], rtol=1e-5)
    centre = np.zeros_like(known)
    for x, y in scan.positions_px - np.array(result.origin_px):
        centre[int(y) - 8 : int(y) + 8, int(x) - 8 : int(x) + 8] = True
    assert known[centre].all()
    assert not known[result.overlap_count == 0].any()


def test_the_origin_is_the_coordinate_of_the_first_pixel(fake_engine: Any, scan: Scan) -> None:
    result = reconstruct(scan, trained(scan))
    np.testing.assert_array_equal(result.origin_px, scan.positions_px.min(axis=0) - 16)
    low, high = scan.positions_px.min(axis=0), scan.positions_px.max(axis=0)
    assert result.object_field.shape == tuple((high - low + 33).astype(int)[::-1])


def test_moving_the_scan_moves_the_origin_alone(fake_engine: Any, scan: Scan) -> None:
    fake_engine.predict_truth_of(scan)
    model = trained(scan)
    here = reconstruct(scan, model)
    there = reconstruct(attrs.evolve(scan, positions_px=scan.positions_px + np.array([100, -70])), model)
    np.testing.assert_array_equal(np.subtract(there.origin_px, here.origin_px), [100, -70])
    np.testing.assert_array_equal(there.object_field, here.object_field)


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_the_batch_size_makes_no_difference(fake_engine: Any, scan: Scan, batch_size: int) -> None:
    fake_engine.predict_truth_of(scan)
    model = trained(scan, gridsize=2)
    whole = reconstruct(scan, model)
    pieces = reconstruct(scan, model, execution=ExecutionConfig(inference_batch_size=batch_size))
    np.testing.assert_allclose(pieces.object_field, whole.object_field, rtol=1e-6)
    np.testing.assert_array_equal(pieces.overlap_count, whole.overlap_count)


def test_every_frame_is_placed(fake_engine: Any, scan: Scan) -> None:
    result = reconstruct(scan, trained(scan))
    assert (result.patterns, result.overlap_count.sum()) == (12, 12 * 32**2)
    order = np.lexsort(result.positions_px.T)
    np.testing.assert_array_equal(result.positions_px[order], scan.positions_px[np.lexsort(scan.positions_px.T)])


def test_groups_place_every_member(fake_engine: Any, scan: Scan) -> None:
    result = reconstruct(scan, trained(scan, gridsize=2))
    assert result.patterns == len(result.positions_px) == 48
    assert {tuple(xy) for xy in result.positions_px} == {tuple(xy) for xy in scan.positions_px}


@pytest.mark.parametrize("gridsize", [1, 2])
def test_some_groups_can_be_asked_for(fake_engine: Any, scan: Scan, gridsize: int) -> None:
    result = reconstruct(scan, trained(scan, gridsize=gridsize), config=InferenceConfig(n_groups=3))
    assert result.patterns == 3 * gridsize**2


def test_the_seed_chooses_the_groups(fake_engine: Any, scan: Scan) -> None:
    model = trained(scan)
    first, again, other = (reconstruct(scan, model, config=InferenceConfig(n_groups=3, seed=s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.positions_px, again.positions_px)
    assert (first.positions_px != other.positions_px).any()


def test_outside_a_probe_mask_nothing_is_placed(fake_engine: Any, scan: Scan) -> None:
    one = scan.subset(slice(0, 1))
    result = reconstruct(one, trained(one, probe_mask=True), config=InferenceConfig(weighting="uniform"))
    np.testing.assert_array_equal(result.object_field[:-1, :-1] != 0, probe_mask(32) == 1)


def test_where_the_network_predicts_nothing_nothing_is_placed(fake_engine: Any, scan: Scan) -> None:
    one = scan.subset(slice(0, 1))
    result = reconstruct(one, trained(one, probe_big=False), config=InferenceConfig(weighting="uniform"))
    rows, columns = np.nonzero(result.object_field)
    assert (rows.min(), rows.max(), columns.min(), columns.max(), len(rows)) == (8, 23, 8, 23, 16**2)


def test_the_probe_is_the_models(fake_engine: Any, scan: Scan, numbered_scan: Any) -> None:
    model = trained(scan)
    other = attrs.evolve(scan, probe=scan.probe * 2j)
    result = reconstruct(other, model)
    np.testing.assert_array_equal(result.probe, model.illumination.probe)


# -- engines, progress, stopping -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "models", "loaded"),
    [(None, "auto", "auto"), (None, "torch", "torch"), ("tensorflow", "torch", "tensorflow")],
)
def test_the_backend_asked_for_goes_before_the_models(
    fake_engine: Any, scan: Scan, tmp_path: Path, asked: str | None, models: str, loaded: str
) -> None:
    path = trained(scan).save(tmp_path)
    reconstruct(scan, load_model(path, backend=models), backend=asked)
    assert fake_engine.backends == ["fake", loaded]


def test_the_network_is_built_for_prediction_with_the_models_weights(fake_engine: Any, scan: Scan) -> None:
    model, execution = trained(scan), ExecutionConfig(precision="64-true")
    reconstruct(scan, model, execution=execution)
    config, training, weights, given = fake_engine.built[-1]
    assert (config, training, given) == (model.config.model, None, execution)
    assert set(weights) == {*build_table(config).parameters, LOG_SCALE}
    assert all(weights[name] is model.weights[name] for name in weights)


def test_both_engines_are_named_in_the_summary(fake_engine: Any, scan: Scan) -> None:
    model = trained(scan)
    fake_engine.name = "other"
    summary = reconstruct(scan, model).summary()
    assert (summary["backend"], summary["engine"]["name"], summary["model_engine"]["name"]) == (
        "other",
        "other",
        "fake",
    )
    assert json.loads(json.dumps(summary))["patterns"] == 12


def test_progress_is_told_after_every_batch(fake_engine: Any, scan: Scan) -> None:
    told: list[tuple[int, int]] = []
    execution = ExecutionConfig(inference_batch_size=5)
    reconstruct(scan, trained(scan), execution=execution, on_batch=lambda done, total: told.append((done, total)))
    assert told == [(5, 12), (10, 12), (12, 12)]


def test_a_wish_to_stop_is_heard_before_the_next_batch(fake_engine: Any, scan: Scan) -> None:
    told: list[int] = []
    with pytest.raises(Cancelled, match="stopped after 5 of 12 groups"):
        reconstruct(
            scan,
            trained(scan),
            execution=ExecutionConfig(inference_batch_size=5),
            on_batch=lambda done, total: told.append(done),
            should_stop=lambda: bool(told),
        )
    assert told == [5]


def test_no_thread_is_left_after_a_stop(fake_engine: Any, scan: Scan) -> None:
    def stop_at_once() -> None:
        with pytest.raises(Cancelled):
            reconstruct(scan, trained(scan), should_stop=lambda: True)

    stop_at_once()
    assert [thread.name for thread in threading.enumerate() if thread.name == "ptycho-prefetch"] == []


def test_an_error_of_the_engine_passes_through(fake_engine: Any, scan: Scan) -> None:
    def fail(batch: Any) -> Any:
        raise MemoryError("device memory")

    model = trained(scan)
    fake_engine.predict = fail
    with pytest.raises(MemoryError, match="device memory"):
        reconstruct(scan, model)


# -- scans that do not fit -----------------------------------------------------------------------------------------


def test_patterns_of_another_size_are_refused(fake_engine: Any, scan: Scan, numbered_scan: Any) -> None:
    with pytest.raises(DataError, match=r"numbered\.npz: diff3d: expected 32 x 32 patterns.*received 64 x 64"):
        reconstruct(numbered_scan(N=64), trained(scan))


def test_more_groups_than_frames_are_refused(fake_engine: Any, scan: Scan) -> None:
    with pytest.raises(ConfigurationError, match=r"InferenceConfig: n_groups must be at most 12.*got 13"):
        reconstruct(scan, trained(scan), config=InferenceConfig(n_groups=13))


def test_fewer_frames_than_a_group_are_refused(fake_engine: Any, scan: Scan) -> None:
    with pytest.raises(DataError, match="expected >= gridsize² = 4; received 3"):
        reconstruct(scan.subset(slice(0, 3)), trained(scan, gridsize=2))


@pytest.mark.parametrize(("factor", "warned"), [(0.2, True), (0.5, False), (1, False), (2, False), (5, True)])
def test_patterns_of_another_intensity_are_warned_of(
    fake_engine: Any, scan: Scan, core_log: pytest.LogCaptureFixture, factor: float, warned: bool
) -> None:
    model = trained(scan)
    core_log.clear()
    reconstruct(attrs.evolve(scan, diffraction_amplitude=scan.diffraction_amplitude * factor), model)
    warnings = [record.getMessage() for record in core_log.records if record.levelno == logging.WARNING]
    assert any(f"intensity is {factor**2:.3g} times that of the training scan" in text for text in warnings) == warned


# -- files ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(fake_engine: Any, scan: Scan, tmp_path: Path) -> Path:
    fake_engine.predict_truth_of(scan)
    reconstruct(scan, trained(scan)).save(tmp_path / "reconstruction.npz")
    return tmp_path / "reconstruction.npz"


@pytest.mark.parametrize("folder", [False, True])
def test_a_reconstruction_survives_its_file(fake_engine: Any, scan: Scan, tmp_path: Path, folder: bool) -> None:
    fake_engine.predict_truth_of(scan)
    result = reconstruct(scan, trained(scan, gridsize=2))
    path = tmp_path / "reconstruction.npz"
    result.save(path)
    loaded = load_reconstruction(tmp_path if folder else path)
    for field in attrs.fields(Reconstruction):
        before, after = getattr(result, field.name), getattr(loaded, field.name)
        if isinstance(before, np.ndarray):
            assert after.dtype == before.dtype, field.name
            np.testing.assert_array_equal(after, before, err_msg=field.name)
        else:
            assert after == before, field.name
    assert loaded.summary() == result.summary()


def changed(path: Path, **changes: Any) -> Path:
    with np.load(path) as source:
        arrays = {**source, **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


@pytest.mark.parametrize("key", ["object", "origin_px", "overlap_count", "probe", "positions_px", "summary"])
def test_a_missing_key_is_named(saved: Path, key: str) -> None:
    message = f"reconstruction.npz: expected the keys of a reconstruction; received no {key}"
    with pytest.raises(DataError, match=message):
        load_reconstruction(changed(saved, **{key: None}))


@pytest.mark.parametrize(
    "changes",
    [
        {"summary": np.array("{broken")},
        {"summary": np.array("[]")},
        {"summary": np.array('{"patterns": 3}')},
        {"origin_px": np.zeros(3)},
    ],
    ids=["no-json", "no-object", "no-engine", "origin"],
)
def test_damaged_facts_are_refused(saved: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"reconstruction\.npz: summary: expected a reconstruction's facts; received"):
        load_reconstruction(changed(saved, **changes))


def test_a_scan_is_no_reconstruction(scan: Scan, tmp_path: Path) -> None:
    save_scan(tmp_path / "scan.npz", scan)
    with pytest.raises(
        DataError, match=r"scan\.npz: expected the keys of a reconstruction; received no object, origin_px"
    ):
        load_reconstruction(tmp_path / "scan.npz")


def test_a_folder_without_a_reconstruction(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"reconstruction\.npz: expected a readable NPZ file; received no such file"):
        load_reconstruction(tmp_path)


# -- held against the truth ----------------------------------------------------------------------------------------


@pytest.fixture
def wide_scan(numbered_scan: Any) -> Scan:
    """Wide enough that there is something inside its hull."""
    return numbered_scan(count=40, spread=60, positions_px=np.round(numbered_scan(count=40, spread=60).positions_px))


@pytest.fixture
def result(fake_engine: Any, wide_scan: Scan) -> Reconstruction:
    fake_engine.predict_truth_of(wide_scan)
    return reconstruct(wide_scan, trained(wide_scan), config=InferenceConfig(weighting="uniform"))


def test_the_truth_is_found_at_its_place(result: Reconstruction, wide_scan: Scan) -> None:
    comparison = evaluate(result, wide_scan.object_field)  # type: ignore[arg-type]
    assert comparison.metrics.correlation_before_alignment == pytest.approx(1, abs=1e-6)
    assert comparison.metrics.amplitude.mae < 1e-5
    np.testing.assert_allclose(
        comparison.estimate[comparison.compared], comparison.truth[comparison.compared], atol=1e-4
    )


def test_a_truth_that_begins_elsewhere_is_found_there(result: Reconstruction, wide_scan: Scan) -> None:
    assert wide_scan.object_field is not None
    truth = Truth(object_field=wide_scan.object_field[5:, 3:], origin_px=(3.0, 5.0))
    assert evaluate(result, truth).metrics.correlation_before_alignment == pytest.approx(1, abs=1e-6)


def test_a_truth_elsewhere_cannot_be_compared(result: Reconstruction) -> None:
    truth = Truth(object_field=np.ones((8, 8), np.complex64), origin_px=(900.0, 0.0), source="star.npz")
    with pytest.raises(DataError, match=r"star\.npz: objectGuess: expected an object that overlaps the scanned area"):
        evaluate(result, truth)


def test_a_reconstruction_can_be_the_truth_of_another(result: Reconstruction, tmp_path: Path) -> None:
    result.save(tmp_path / "reconstruction.npz")
    truth = load_truth(tmp_path / "reconstruction.npz")
    assert truth.origin_px == result.origin_px
    assert evaluate(result, truth).metrics.correlation_before_alignment == pytest.approx(1, abs=1e-6)


def test_a_scan_holds_its_truth_at_the_origin(scan: Scan, tmp_path: Path) -> None:
    save_scan(tmp_path / "scan.npz", scan)
    truth = load_truth(tmp_path / "scan.npz")
    assert truth.origin_px == (0.0, 0.0)
    np.testing.assert_array_equal(truth.object_field, scan.object_field)


@pytest.mark.parametrize(
    ("arrays", "received"),
    [({"diff3d": np.ones(3)}, "received the keys diff3d"), ({"objectGuess": np.ones(3)}, r"received shape \(3,\)")],
)
def test_a_file_without_an_object_holds_no_truth(tmp_path: Path, arrays: dict[str, Any], received: str) -> None:
    np.savez(tmp_path / "truth.npz", **arrays)
    with pytest.raises(DataError, match=rf"truth\.npz: objectGuess: expected a complex object \(H, W\); {received}"):
        load_truth(tmp_path / "truth.npz")
