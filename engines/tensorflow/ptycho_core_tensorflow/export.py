"""A network as a program of this framework: diffraction → patches (specs/engine.md, Export)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from einops import rearrange

from ptycho_core.batches.batch import Batch
from ptycho_core.layouts import ALONE_LAST_TO_BHWC, BHWC_TO_FRAMES
from ptycho_core.models.export import FACTS, NAMES, facts_json
from ptycho_core.networks.registry import build_table
from ptycho_core.physics.illumination import Illumination
from ptycho_core.settings.model import ModelConfig
from ptycho_core.vocabulary import INPUT_SCALE, Weights
from ptycho_core_tensorflow.ops import run_table
from ptycho_core_tensorflow.weights import to_tensor


class Program(tf.Module):
    """Measured amplitudes (B, N, N, C) → real and imaginary part of the patches, (B, N, N, C) each; float32."""

    def __init__(self, model: ModelConfig, weights: Weights, illumination: Illumination) -> None:
        super().__init__()
        self.model = model
        self.table = build_table(model)
        arrays = {INPUT_SCALE: np.asarray(illumination.input_scale), **weights}
        self.names = (INPUT_SCALE, *self.table.parameters)
        self.arrays = [to_tensor(name, arrays[name], tf.float32) for name in self.names]

    def __call__(self, diffraction_amplitude: tf.Tensor) -> dict[str, tf.Tensor]:
        tensors = dict(zip(self.names, self.arrays, strict=True))
        x = tensors[INPUT_SCALE] * diffraction_amplitude
        if not self.model.object_big:
            x = rearrange(x, BHWC_TO_FRAMES)
        maps = run_table(self.table, tensors, x)
        if not self.model.object_big:
            maps = tuple(rearrange(m, ALONE_LAST_TO_BHWC, c=self.model.channels) for m in maps)
        amplitude, phase = maps
        return {NAMES[1]: amplitude * tf.cos(phase), NAMES[2]: amplitude * tf.sin(phase)}


def save_program(model: ModelConfig, weights: Weights, batch: Batch, target: Path, facts: Mapping[str, str]) -> None:
    """A SavedModel, a folder, with the signature `serving_default`; the size of a batch is free."""
    with tf.device("/CPU:0"):
        program = Program(model, weights, batch.illumination)
    shape = [None, *batch.diffraction_amplitude.shape[1:]]
    traced = tf.function(program, input_signature=[tf.TensorSpec(shape, tf.float32, name=NAMES[0])], autograph=False)
    tf.saved_model.save(program, str(target), signatures={"serving_default": traced})
    (target / "assets.extra").mkdir()
    (target / "assets.extra" / FACTS).write_text(facts_json(facts), encoding="utf-8")
