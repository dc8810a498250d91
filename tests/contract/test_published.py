"""Models imported from published archives predict what those predicted."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_core.batches.batch import Batch
from ptycho_core.engine.protocol import Engine
from ptycho_core.published import import_published
from ptycho_core.settings.execution import ExecutionConfig
from tests.contract.cases import assert_field_close
from tests.shared_data import SHARED, absent

RTOL = 1e-5


@pytest.mark.parametrize("name", ["tf_gs2", "torch_gs1"])
def test_a_published_model_predicts_as_it_did(engine: Engine, name: str) -> None:
    """tf_gs2: TensorFlow, gridsize 2; torch_gs1: PyTorch, gridsize 1, attention in the encoder."""
    folder = SHARED / "published" / name
    if not folder.is_dir():
        absent(folder)
    if name == "tf_gs2":
        pytest.importorskip("h5py")
    model = import_published(folder)
    with np.load(folder / "predictions.npz") as arrays:
        patches = arrays["object_patches"]
        network_input = arrays["X_normalised"] if name == "tf_gs2" else np.moveaxis(arrays["network_input"], 1, -1)
    patches = patches if name == "tf_gs2" else np.moveaxis(patches, 1, -1)
    groups, N, _, channels = network_input.shape
    batch = Batch(
        diffraction_amplitude=(network_input / model.illumination.input_scale).astype(np.float32),
        relative_offsets_px=np.zeros((groups, 1, 2, channels), np.float32),
        bad_pixels=np.zeros((N, N), bool),
        canvas_padding_px=0,
        illumination=model.illumination,
    )
    network = engine.build(model.config.model, None, model.network_weights, ExecutionConfig(accelerator="cpu"))
    assert_field_close(network.predict(batch), patches, RTOL, "patches")
