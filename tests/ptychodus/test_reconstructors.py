"""Ptychodus 1.7 trains, saves, loads and reconstructs with our algorithms, on every engine, and stops when asked."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

pytest.importorskip("ptychodus", reason="ptychodus is not installed")

from ptycho_core import embedding, load_model, load_scan
from ptycho_core.errors import ArchiveError, ConfigurationError
from ptycho_core.integrations.ptychodus.products import arrays_of
from tests.ptychodus.conftest import LIBRARY, ONE, Case, Ptychodus

needs_an_engine = pytest.mark.skipif(not ONE, reason="no engine is installed")
PINN = f"{LIBRARY}_pinn"
Opened = Callable[[Case], Ptychodus]
Change = Callable[..., None]


def same_grid(product: Any, other: Any) -> bool:
    return bool(product.object_.get_geometry() == other.object_.get_geometry())  # shape, pixel size and centre


@pytest.mark.parametrize(
    ("backend", "name"),
    [("torch", "star"), ("tensorflow", "simulated")],
    indirect=["backend"],
    ids=["torch", "tensorflow"],
)
def test_train_save_load_and_reconstruct_as_well_as_the_command_line(
    name: str,
    request: pytest.FixtureRequest,
    opened: Opened,
    settings: Change,
    backend: str,
    without_children: None,
    command_line: Callable[[Case, str], float],
    caplog: pytest.LogCaptureFixture,
    record_property: Callable[[str, object], None],
) -> None:
    case: Case = request.getfixturevalue(name)
    settings(backend=backend, **case.settings)
    ptychodus = opened(case)
    with ptychodus.watched() as told:
        out = ptychodus.train(PINN)
    epochs = case.settings["nepochs"]
    assert told == [(epoch, epochs) for epoch in range(epochs + 1)]
    assert load_model(out).engine.name == backend

    processing = ptychodus.core.processing_core.processing_api
    model = ptychodus.folder / f"model{processing.get_model_file_extension(algorithm=PINN)}"
    processing.save_model_to_file(model)
    assert model.read_bytes() == (out / "wts.h5.zip").read_bytes()
    processing.load_model_from_file(model)

    with ptychodus.watched() as told:
        result = ptychodus.product.reconstruct_local(algorithm=PINN, block=True)
        ptychodus.core.run_tasks()
    done, goals = zip(*told[1:], strict=True)
    assert list(done) == sorted(done) and done[0] == 0 and done[-1] == goals[-1] and goals[-1] % len(case.scan) == 0
    assert "has no effect" not in caplog.text
    before, after = ptychodus.product.get_product(), result.get_product()
    assert same_grid(after, before)
    assert after.object_.get_array().shape == before.object_.get_array().shape
    reached, expected = case.correlation(after.object_.get_layer(0)), command_line(case, backend)
    record_property("correlation", (reached, expected))
    print(f"{name}, {backend}: correlation {reached:.4f}, command line {expected:.4f}")
    assert reached > case.least
    assert reached == pytest.approx(expected, abs=0.02)


@needs_an_engine
def test_a_stop_ends_training_within_an_epoch_and_reconstruction_within_two_seconds(
    simulated: Case, opened: Opened, settings: Change
) -> None:
    settings(backend=ONE, **{**simulated.settings, "nepochs": 1000, "inference_batch_size": 1})
    ptychodus = opened(simulated)
    monitor = ptychodus.monitor
    runs = monitor.get_completed_runs()
    out = ptychodus.train(PINN, block=False)
    ptychodus.until(lambda: monitor.is_processing and monitor.get_progress() >= 1)
    begun = monitor.get_progress()
    monitor.stop_processing()
    ptychodus.until(lambda: monitor.get_completed_runs() > runs)
    monitor.raise_if_failed()
    assert monitor.get_progress() <= begun + 1
    assert 1 <= load_model(out).best_epoch <= begun + 1
    assert [path.name for path in out.iterdir()] == ["wts.h5.zip"]
    assert ptychodus.core.processing_core.algorithm_parameter.get_current_reconstructor().is_model_loaded()

    runs = monitor.get_completed_runs()
    result = ptychodus.product.reconstruct_local(algorithm=PINN, block=False)
    whole = len(simulated.scan)
    ptychodus.until(lambda: monitor.get_progress_goal() == whole and 0 < monitor.get_progress() < whole)
    asked = time.monotonic()
    monitor.stop_processing()
    ptychodus.until(lambda: monitor.get_completed_runs() > runs)
    assert time.monotonic() - asked < 2
    monitor.raise_if_failed()
    ptychodus.core.run_tasks()
    before, after = ptychodus.product.get_product(), result.get_product()
    assert same_grid(after, before)
    assert not np.array_equal(after.object_.get_array(), before.object_.get_array())
    assert np.isfinite(after.object_.get_array()).all()


@needs_an_engine
def test_closing_the_iterator_stops_and_leaves_a_partial_object(
    simulated: Case, opened: Opened, tmp_path: Path, without_children: None
) -> None:
    config = embedding.make_config("training", {**simulated.settings, "backend": ONE, "n_groups": 8, "nepochs": 99})
    arrays = arrays_of(opened(simulated).product.get_reconstruct_input())
    model = tmp_path / "model.zip"
    training = embedding.train(arrays, model, config)
    assert next(training).epoch == 1
    training.close()
    assert load_model(model).best_epoch == 1

    execution = embedding.ExecutionConfig(inference_batch_size=1)
    steps = embedding.reconstruct(arrays, model, execution=execution)
    partial = next(progress for progress in steps if progress.done)
    asked = time.monotonic()
    steps.close()
    assert time.monotonic() - asked < 2
    assert 0 < partial.done < partial.goal
    assert partial.object_field.shape == arrays.grid.shape
    assert 0 < partial.known.sum() < partial.known.size
    assert arrays.object_field is not None
    np.testing.assert_array_equal(partial.object_field[~partial.known], arrays.object_field[~partial.known])


def test_supervised_training_on_the_object_of_the_product(
    simulated: Case, opened: Opened, settings: Change, backend: str, without_children: None
) -> None:
    settings(backend=backend, **{**simulated.settings, "nepochs": 2, "n_groups": 40})
    ptychodus = opened(simulated)
    out = ptychodus.train(f"{LIBRARY}_supervised")
    assert load_model(out).config.model.model_type == "supervised"


@needs_an_engine
def test_a_folder_with_test_data_gives_a_validation_loss(
    simulated: Case, opened: Opened, settings: Change, tmp_path: Path, without_children: None
) -> None:
    settings(backend=ONE, **{**simulated.settings, "nepochs": 2, "n_groups": 16})
    product = opened(simulated).product
    for name in ("train_data.npz", "test_data.npz"):
        product.export_training_data(tmp_path / name, algorithm=PINN)
    parameter = opened(simulated).core.processing_core.algorithm_parameter
    parameter.set_value(PINN)
    outputs = list(parameter.get_current_reconstructor().train(tmp_path, tmp_path / "out"))
    assert [output.progress for output in outputs] == [1, 2]
    assert [loss.epoch for loss in outputs[-1].training_loss] == [1, 2]
    assert [loss.epoch for loss in outputs[-1].validation_loss] == [1, 2]
    assert all(np.isfinite(loss.value) for loss in outputs[-1].validation_loss)


# -- without an engine ---------------------------------------------------------------------------------------------


def test_exported_training_data_are_the_scan_and_say_that_they_are_amplitudes(
    simulated: Case, opened: Opened, tmp_path: Path
) -> None:
    opened(simulated).product.export_training_data(tmp_path / "data", algorithm=PINN)
    scan, expected = load_scan(tmp_path / "data.npz"), simulated.scan
    assert scan.metadata["measurement"] == "amplitude" and scan.dose_known
    np.testing.assert_array_equal(scan.diffraction_amplitude, expected.diffraction_amplitude)
    np.testing.assert_allclose(scan.positions_px, expected.positions_px, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(scan.probe, expected.probe)
    assert scan.object_field is not None and expected.object_field is not None
    np.testing.assert_array_equal(scan.object_field, expected.object_field)


def test_what_ptychodus_itself_exports_is_read_as_counts(simulated: Case, opened: Opened, tmp_path: Path) -> None:
    from ptychodus.api.io import save_ptychopinn_training_data

    parameters = opened(simulated).product.get_reconstruct_input()
    save_ptychopinn_training_data(tmp_path / "theirs.npz", parameters)
    scan = load_scan(tmp_path / "theirs.npz")
    np.testing.assert_array_equal(scan.diffraction_amplitude, simulated.scan.diffraction_amplitude)
    assert scan.dose_known


def test_bad_pixels_and_probe_modes_reach_the_scan_and_no_opr_mode_does(simulated: Case, opened: Opened) -> None:
    import dataclasses

    from ptychodus.api.probe import ProbeSequence

    parameters = opened(simulated).product.get_reconstruct_input()
    count, N = len(simulated.scan), simulated.scan.N
    rng = np.random.default_rng(0)
    modes = rng.normal(size=(2, 3, N, N)) + 1j * rng.normal(size=(2, 3, N, N))
    probes = ProbeSequence(modes, rng.uniform(size=(count, 2)), parameters.product.probes.get_pixel_geometry())
    bad = np.zeros((N, N), bool)
    bad[3, 5] = True
    patterns = parameters.diffraction_patterns.copy()
    patterns[:, 3, 5] = np.iinfo(patterns.dtype).max
    parameters = dataclasses.replace(
        parameters,
        bad_pixels=bad,
        diffraction_patterns=patterns,
        product=dataclasses.replace(parameters.product, probes=probes),
    )
    scan = arrays_of(parameters).scan()
    np.testing.assert_array_equal(scan.probe, modes[0].astype(np.complex64))
    assert scan.bad_pixels is not None
    np.testing.assert_array_equal(scan.bad_pixels, bad)
    assert not np.asarray(scan.diffraction_amplitude)[:, 3, 5].any()


def test_settings_are_ours_with_the_defaults_of_ptychodus(core: Any, tmp_path: Path) -> None:
    registry = core.settings_registry
    defaults = {
        "PtychoCoreModel": {
            "Architecture": "canvas",
            "GridSize": 1,
            "NumFiltersScale": 2,
            "AmpActivation": "sigmoid",
            "ObjectBig": True,
            "ProbeBig": True,
            "ProbeMask": False,
            "PadObject": True,
            "ProbeScale": 4.0,
            "GaussianSmoothingSigma": 0.0,
        },
        "PtychoCoreTraining": {
            "Backend": "auto",
            "NumPhotons": 1e6,
            "BatchSize": "",
            "NumEpochs": "",
            "NumGroups": "",
            "MAEWeight": 0.0,
            "NLLWeight": 1.0,
            "RealspaceMAEWeight": 0.0,
            "RealspaceWeight": 0.0,
            "PositionsProvided": True,
            "ProbeTrainable": False,
            "IntensityScaleTrainable": True,
            "GradientClipVal": "",
        },
        "PtychoCoreInference": {"NumNearestNeighbors": 7},
    }
    for group, values in defaults.items():
        found = {name: registry[group].parameters()[name].get_value() for name in values}
        assert found == values
    registry.save_settings(tmp_path / "settings.ini")
    assert "[PtychoCoreTraining]" in (tmp_path / "settings.ini").read_text()


def test_a_setting_that_contradicts_is_refused_by_name(core: Any, settings: Change, tmp_path: Path) -> None:
    reconstructor = core.processing_core.algorithm_parameter._reconstructor_map[PINN]
    (tmp_path / "train_data.npz").touch()
    settings(batch_size=12)
    with pytest.raises(ConfigurationError, match=r"batch_size must be a positive power of two.*got 12"):
        next(iter(reconstructor.train(tmp_path, tmp_path / "out")))
    settings(batch_size=16, gradient_clip_val="much")
    with pytest.raises(ConfigurationError, match=r"GradientClipVal must be a number, or empty; got 'much'"):
        next(iter(reconstructor.train(tmp_path, tmp_path / "out")))


def test_a_file_that_is_no_model_is_refused_when_it_is_opened(core: Any, tmp_path: Path) -> None:
    (tmp_path / "model.zip").write_bytes(b"PK nothing")
    reconstructor = core.processing_core.algorithm_parameter._reconstructor_map[f"{LIBRARY}_supervised"]
    with pytest.raises(ArchiveError, match=r"model\.zip"):
        reconstructor.load_model_from_file(tmp_path / "model.zip")


@attrs.frozen
class Unused:
    """What a reconstructor without a model does not look at."""


def test_a_reconstruction_without_a_model_says_so(core: Any) -> None:
    from ptychodus.api.settings import SettingsRegistry

    from ptycho_core.integrations.ptychodus.reconstructors import PtychoCoreReconstructorLibrary

    pinn, supervised, _ = PtychoCoreReconstructorLibrary(SettingsRegistry())
    for reconstructor in (pinn, supervised):
        with pytest.raises(ConfigurationError, match="expected a model; received none"):
            next(iter(reconstructor.reconstruct(Unused())))
