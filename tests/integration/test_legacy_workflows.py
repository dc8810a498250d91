"""The entry points of the published implementation, over the native API, on every engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho_core import (
    ConfigurationError,
    DataError,
    InferenceConfig,
    ModelConfig,
    TrainingConfig,
    load_model,
    load_scan,
)
from ptycho_core.legacy import (
    RawData,
    from_legacy_dict,
    load_inference_bundle,
    reassemble_cdi_image,
    run_cdi_example,
    save_outputs,
    train_cdi_model,
)


@pytest.fixture(scope="module")
def raw(scan_file: Path) -> RawData:
    return RawData.from_file(scan_file)


@pytest.fixture(scope="module")
def config(backend: str) -> TrainingConfig:
    model = ModelConfig(N=32, n_filters_scale=1, architecture="cnn")
    return TrainingConfig(model=model, backend=backend, nepochs=2, n_groups=24, batch_size=8, seed=3)


@pytest.fixture(scope="module")
def results(raw: RawData, config: TrainingConfig) -> dict[str, Any]:
    return train_cdi_model(raw, None, config)


def test_results_name_the_engine_and_hold_history_and_model(results: dict[str, Any], backend: str) -> None:
    assert results["backend"] == backend
    assert results["engine"]["name"] == backend
    assert len(results["history"]["total"]) == 2
    assert results["history"]["total"][1] < results["history"]["total"][0]
    assert results["model"].best_epoch == results["best_epoch"] == 2


def test_run_cdi_example_trains_and_stitches(raw: RawData, config: TrainingConfig, results: dict[str, Any]) -> None:
    assert run_cdi_example(raw, None, config)[:2] == (None, None)
    amplitude, phase, stitched = run_cdi_example(raw, raw, config, do_stitching=True)
    assert amplitude is not None
    assert phase is not None
    assert amplitude.shape == phase.shape == stitched["obj_image"].shape
    np.testing.assert_allclose(amplitude * np.exp(1j * phase), stitched["obj_image"], atol=1e-5)
    assert stitched["backend"] == results["backend"]


def test_a_bundle_is_a_model_and_its_flat_parameters(results: dict[str, Any], tmp_path: Path) -> None:
    results["model"].save(tmp_path)
    model, params = load_inference_bundle(tmp_path)
    assert (params["N"], params["output_prefix"]) == (32, "training_outputs")
    photons = np.square(params["intensity_scale"] * 16)
    assert params["nphotons"] == pytest.approx(photons) == pytest.approx(1e6, rel=0.05)
    assert from_legacy_dict({**params, "nphotons": 1e9}, TrainingConfig) == model.config


def test_an_inference_configuration_names_the_model(
    raw: RawData, results: dict[str, Any], backend: str, tmp_path: Path
) -> None:
    named = InferenceConfig(model_path=results["model"].save(tmp_path), backend=backend)
    amplitude, _, found = reassemble_cdi_image(raw, named)
    given, _, _ = reassemble_cdi_image(raw, named, model=load_model(tmp_path))
    np.testing.assert_allclose(amplitude, given, atol=1e-5)
    assert found["backend"] == backend
    with pytest.raises(ConfigurationError, match=r"InferenceConfig: model_path must be a trained model; got none"):
        reassemble_cdi_image(raw, InferenceConfig())


def test_positions_can_be_mirrored_and_patches_trimmed(
    raw: RawData, config: TrainingConfig, results: dict[str, Any]
) -> None:
    model = results["model"]
    plain, mirrored, trimmed = (
        reassemble_cdi_image(raw, config, model=model, **options)[2]
        for options in ({}, {"flip_x": True, "transpose": True}, {"M": 8})
    )
    rows, columns = plain["obj_image"].shape
    assert abs(mirrored["obj_image"].shape[0] - columns) <= 1
    assert abs(mirrored["obj_image"].shape[1] - rows) <= 1
    assert mirrored["origin_px"][0] < 0 < plain["origin_px"][0] + 32
    assert np.count_nonzero(trimmed["obj_image"]) < np.count_nonzero(plain["obj_image"])


def test_outputs_are_saved_with_images(
    raw: RawData, config: TrainingConfig, results: dict[str, Any], tmp_path: Path
) -> None:
    amplitude, phase, stitched = reassemble_cdi_image(raw, config, model=results["model"])
    save_outputs(amplitude, phase, stitched, str(tmp_path / "out"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "reconstructed.npz",
        "reconstructed_amplitude.png",
        "reconstructed_phase.png",
        "reconstruction.npz",
    ]
    with np.load(tmp_path / "out" / "reconstructed.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["amplitude"], amplitude)


def test_nothing_is_saved_without_a_reconstruction(results: dict[str, Any], tmp_path: Path) -> None:
    save_outputs(None, None, results, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_scan_does_in_place_of_raw_data(scan_file: Path, config: TrainingConfig) -> None:
    with pytest.raises(DataError, match=r"train_data: expected a RawData or a Scan; received ndarray"):
        train_cdi_model(np.zeros(3), None, config)  # type: ignore[arg-type]
    assert RawData(load_scan(scan_file)).scan.N == 32
