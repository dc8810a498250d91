"""Archives of the published implementations become ours, with the same weights and predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from ptycho_core_reference import ReferenceEngine

from ptycho_core.batches.batch import Batch
from ptycho_core.errors import ArchiveError, DataError
from ptycho_core.models.model import Model, load_model
from ptycho_core.networks.registry import build_table
from ptycho_core.physics.illumination import mean_frame_intensity
from ptycho_core.published import convert_published, import_published, is_published, published_facts
from ptycho_core.reconstruction.predict import reconstruct
from ptycho_core.report.facts import inspect_file
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.vocabulary import COUNTS_PER_INTENSITY, INPUT_SCALE, LOG_SCALE, MEAN_INTENSITY
from tests.core.conftest import FakeEngine, make_numbered_scan
from tests.core.published_archives import (
    DILL,
    flat_parameters,
    keras_members,
    network_of,
    pickled,
    torch_members,
    write_archive,
)
from tests.networks import cnn
from tests.shared_data import SHARED, absent

KERAS_MODELS: dict[str, dict[str, Any]] = {
    "one_frame": {},
    "merged": {"gridsize": 2, "merge_weights": "central"},
    "deeper": {"N": 64},
    "swish": {"amp_activation": "swish", "amplitude_ceiling": 2.0},
    "relu": {"amp_activation": "relu", "amplitude_ceiling": 2.0},
    "centre_only": {"probe_big": False},
    "not_padded": {"pad_object": False},
}
TORCH_MODELS: dict[str, dict[str, Any]] = {
    "plain": {},
    "cbam": {"cbam_encoder": True, "cbam_bottleneck": True, "n_filters_scale": 2},
    "merged": {"gridsize": 2, "merge_weights": "central"},
    "deeper": {"N": 128, "cbam_encoder": True},
    "swish": {"amp_activation": "swish", "amplitude_ceiling": 2.0},
    "centre_only": {"probe_big": False},
}


def published_model(**changes: Any) -> ModelConfig:
    return cnn(**{"N": 32, "n_filters_scale": 1, "amplitude_ceiling": 1.0, **changes})


@pytest.fixture
def keras_archive(tmp_path: Path) -> Path:
    """An archive of the TensorFlow implementation."""
    pytest.importorskip("h5py")
    model = published_model()
    return write_archive(tmp_path / "wts.h5.zip", keras_members(model, network_of(model)))


@pytest.fixture
def torch_archive(tmp_path: Path) -> Path:
    """An archive of the PyTorch implementation."""
    model = published_model(architecture="published_torch", cbam_encoder=True)
    return write_archive(tmp_path / "wts.h5.zip", torch_members(model, network_of(model)))


def assert_layers(model: Model, expected: dict[str, Any]) -> None:
    for name, array in expected.items():
        np.testing.assert_array_equal(model.weights[name], array, err_msg=name)


@pytest.mark.parametrize("name", KERAS_MODELS)
def test_a_tensorflow_network_comes_with_its_weights_by_our_names(tmp_path: Path, name: str) -> None:
    pytest.importorskip("h5py")
    model = published_model(**KERAS_MODELS[name])
    weights = network_of(model)
    imported = import_published(write_archive(tmp_path / "wts.h5.zip", keras_members(model, weights)))
    assert imported.config.model == model
    assert_layers(imported, weights)
    assert imported.engine.name == "published tensorflow" and imported.engine.version == "3.15.1"


@pytest.mark.parametrize("name", TORCH_MODELS)
def test_a_pytorch_network_comes_with_its_weights_by_our_names(tmp_path: Path, name: str) -> None:
    model = published_model(architecture="published_torch", **TORCH_MODELS[name])
    weights = network_of(model)
    imported = import_published(write_archive(tmp_path / "wts.h5.zip", torch_members(model, weights)))
    assert imported.config.model == model
    assert_layers(imported, weights)
    assert imported.engine.name == "published torch"


def test_the_pytorch_network_predicts_what_is_outside_from_one_channel_a_map() -> None:
    model = published_model(N=128, gridsize=2, n_filters_scale=2, architecture="published_torch")
    shapes = build_table(model).parameters
    for branch in ("amplitude", "phase"):
        assert shapes[f"{branch}/head/conv/kernel"] == (3, 3, 60, 4)
        assert shapes[f"{branch}/outer/conv0/kernel"] == (3, 3, 4, 64)
        assert shapes[f"{branch}/outer/conv/kernel"] == (3, 3, 64, 4)


def test_weights_that_a_pytorch_network_has_and_does_not_use_are_left_out(tmp_path: Path) -> None:
    whole = published_model(architecture="published_torch")
    without = attrs.evolve(whole, probe_big=False)
    members = torch_members(whole, network_of(whole))
    members |= {name: torch_members(without, network_of(without))[name] for name in members if name.endswith(".dill")}
    imported = import_published(write_archive(tmp_path / "wts.h5.zip", members))
    assert imported.config.model == without
    assert not any("/outer/" in name for name in imported.weights)


def test_every_amplitude_of_pytorch_but_a_sigmoid_is_a_swish(tmp_path: Path) -> None:
    model = published_model(architecture="published_torch", amp_activation="relu", amplitude_ceiling=2.0)
    members = torch_members(model, network_of(model))
    imported = import_published(write_archive(tmp_path / "wts.h5.zip", members))
    assert imported.config.model.amp_activation == "swish"


# -- data scale, probe, settings -----------------------------------------------------------------------------------


def test_without_a_scan_amplitudes_are_in_sqrt_photons(torch_archive: Path) -> None:
    weights = import_published(torch_archive).weights
    assert weights[INPUT_SCALE] == pytest.approx(32 / 2 / 1e3)  # 1e6 photons per frame
    assert weights[MEAN_INTENSITY] == pytest.approx(1e6 / 32**2)
    assert weights[COUNTS_PER_INTENSITY] == 1 and weights[LOG_SCALE] == 0


def test_a_scan_gives_its_scale_and_its_probe(torch_archive: Path) -> None:
    scan = make_numbered_scan()
    model = import_published(torch_archive, scan=scan)
    weights = model.weights
    intensity = mean_frame_intensity(scan)
    assert weights[INPUT_SCALE] == pytest.approx(16 / np.sqrt(intensity))
    assert weights[COUNTS_PER_INTENSITY] == pytest.approx(1e6 / intensity)
    probe = model.illumination.probe
    assert np.sum(np.abs(probe) ** 2) == pytest.approx(intensity, rel=1e-5)
    assert np.allclose(probe / probe[0, 16, 16], scan.probe / scan.probe[0, 16, 16], atol=1e-5)


def test_without_scan_and_probe_a_disk_stands_for_it(torch_archive: Path, core_log: pytest.LogCaptureFixture) -> None:
    probe = import_published(torch_archive).illumination.probe
    assert np.sum(np.abs(probe) ** 2) == pytest.approx(1e6, rel=1e-5)
    assert probe[0, 16, 16] > 0 and probe[0, 0, 0] == 0
    assert "no probe: a disk" in core_log.text and "no scale of its data" in core_log.text


def test_the_probe_of_an_archive_is_that_of_the_scaled_amplitude(keras_archive: Path) -> None:
    scan = make_numbered_scan()
    for model in (import_published(keras_archive), import_published(keras_archive, scan=scan)):
        probe = model.illumination.probe * model.illumination.input_scale
        assert probe[0, 16, 16] == pytest.approx(1) and probe.shape == (1, 32, 32)


def test_a_scan_of_another_size_is_refused(torch_archive: Path) -> None:
    with pytest.raises(DataError, match="expected 32 x 32 patterns"):
        import_published(torch_archive, scan=make_numbered_scan(N=64))


def test_settings_of_training_carry_over_where_they_are_ours(
    tmp_path: Path, core_log: pytest.LogCaptureFixture
) -> None:
    model = published_model(architecture="published_torch")
    members = torch_members(model, network_of(model))
    flat = flat_parameters(model, batch_size=10, mae_weight=0.25, train_data_file_path="runs/scan.npz")
    config = import_published(write_archive(tmp_path / "wts.h5.zip", {**members, DILL: pickled(flat)})).config
    assert (config.nepochs, config.neighbor_count, config.mae_weight, config.nphotons) == (3, 7, 0.25, 1e6)
    assert config.train_data_file == Path("runs/scan.npz")
    assert (
        config.batch_size == TrainingConfig(model=cnn()).batch_size
        and "batch_size: left at its default" in core_log.text
    )


# -- afterwards ----------------------------------------------------------------------------------------------------


def test_a_converted_archive_is_ours(torch_archive: Path, tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    path = convert_published(torch_archive, tmp_path / "ours")
    model, again = import_published(torch_archive), load_model(path)
    assert again.config == model.config and again.engine == model.engine
    assert again.history == [] and again.best_epoch == 0
    assert_layers(again, dict(model.weights))
    assert again.parameters()["intensity_scale"] == pytest.approx(1e3 / 16)
    assert not is_published(path) and is_published(torch_archive)


def test_what_cannot_be_imported_leaves_an_archive_that_is_there_as_it_was(tmp_path: Path) -> None:
    broken, target = tmp_path / "broken.zip", tmp_path / "ours.h5.zip"
    broken.write_bytes(b"PK")
    target.write_bytes(b"ours")
    with pytest.raises(ArchiveError):
        convert_published(broken, target)
    assert target.read_bytes() == b"ours" and sorted(tmp_path.iterdir()) == [broken, target]


def test_an_imported_model_reconstructs(torch_archive: Path, fake_engine: FakeEngine) -> None:
    scan = make_numbered_scan()
    result = reconstruct(scan, import_published(torch_archive, scan=scan))
    assert np.isfinite(result.object_field).all() and result.model_engine.name == "published torch"


def test_inspect_says_what_a_published_archive_is(torch_archive: Path, tmp_path: Path) -> None:
    facts = inspect_file(torch_archive)
    assert facts == published_facts(torch_archive)
    assert (facts["kind"], facts["version"], facts["importable"]) == ("published model archive", "2.0-pytorch", "yes")
    assert facts["settings"]["nphotons"] == 1e6
    model = import_published(torch_archive)
    assert facts["parameters"] == sum(model.weights[name].size for name in build_table(model.config.model).parameters)
    (tmp_path / "ours").mkdir()
    ours = inspect_file(convert_published(torch_archive, tmp_path / "ours"))
    assert ours["written_by"].startswith("published torch") and ours["loss"] is None


def test_inspect_says_why_an_archive_cannot_be_imported(tmp_path: Path) -> None:
    model = published_model(architecture="published_torch")
    members = torch_members(model, network_of(model), batch_norm=True)
    facts = published_facts(write_archive(tmp_path / "wts.h5.zip", members))
    assert "model_config.batch_norm: expected False; received True" in facts["importable"]
    assert facts["importable"].startswith("no: ")


# -- the published archives themselves -----------------------------------------------------------------------------


def shared(name: str) -> tuple[Model, Any]:
    folder = SHARED / "published" / name
    if not folder.is_dir():
        absent(folder)
    with np.load(folder / "predictions.npz") as arrays:
        return import_published(folder), dict(arrays)


def patches_of(model: Model, network_input: Any) -> Any:
    """The patches that the reference predicts for what the network sees, (B, N, N, C)."""
    amplitude = (network_input / model.weights[INPUT_SCALE]).astype(np.float32)
    B, N, _, C = amplitude.shape
    batch = Batch(
        diffraction_amplitude=amplitude,
        relative_offsets_px=np.zeros((B, 1, 2, C), np.float32),
        bad_pixels=np.zeros((N, N), bool),
        canvas_padding_px=0,
        illumination=model.illumination,
    )
    network = ReferenceEngine().build(model.config.model, None, model.network_weights, ExecutionConfig())
    return network.predict(batch)


def assert_close(actual: Any, expected: Any) -> None:
    assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()


def test_the_predictions_of_the_tensorflow_archive_are_reproduced() -> None:
    pytest.importorskip("h5py")
    model, arrays = shared("tf_gs2")
    assert_close(patches_of(model, arrays["X_normalised"][:2]), arrays["object_patches"][:2])
    raw = arrays["probe_raw"]
    published = raw / (4 * np.mean(np.abs(raw * (np.hypot(*(np.mgrid[:64, :64] - 32)) <= 16))))
    assert_close(model.illumination.probe[0] * model.illumination.input_scale, published)


def test_the_predictions_of_the_pytorch_archive_are_reproduced() -> None:
    model, arrays = shared("torch_gs1")
    network_input = np.moveaxis(arrays["network_input"][:2], 1, -1)
    assert_close(patches_of(model, network_input), np.moveaxis(arrays["object_patches"][:2], 1, -1))


def test_a_scan_whose_scale_is_known_gives_what_the_published_network_saw() -> None:
    pytest.importorskip("h5py")
    _, arrays = shared("tf_gs2")
    frames = np.moveaxis(arrays["diffraction_amplitude"], -1, 1).reshape(-1, 64, 64)
    positions = np.arange(64.0).reshape(32, 2)
    scan = Scan(diffraction_amplitude=frames, positions_px=positions, probe=arrays["probe_raw"])
    model = import_published(SHARED / "published" / "tf_gs2", scan=scan)
    seen = arrays["diffraction_amplitude"] * model.weights[INPUT_SCALE]
    # The published scale is that of all frames, of which these 32 are some.
    ratio = seen.max() / arrays["X_normalised"].max()
    assert ratio == pytest.approx(1, abs=0.1)
