"""A network as a program of this framework: diffraction → patches (specs/engine.md, Export)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from einops import rearrange
from numpy.typing import NDArray

from ptycho_core.batches.batch import Batch
from ptycho_core.layouts import ALONE_LAST_TO_BHWC, BCHW_TO_BHWC, BHWC_TO_BCHW, BHWC_TO_FRAMES
from ptycho_core.models.export import FACTS, facts_json
from ptycho_core.models.signature import IMAGINARY, REAL, signature_of
from ptycho_core.networks.registry import build_table
from ptycho_core.physics.illumination import Illumination
from ptycho_core.physics.weights import canvas_border, probe_mask
from ptycho_core.settings.model import ModelConfig
from ptycho_core.vocabulary import INPUT_SCALE, Weights
from ptycho_core_tensorflow import physics
from ptycho_core_tensorflow.ops import run_table
from ptycho_core_tensorflow.steps import Scene
from ptycho_core_tensorflow.weights import to_tensor


class Weighted(tf.Module):
    """A table and its weights, float32."""

    def __init__(self, model: ModelConfig, weights: Weights, **constants: NDArray[np.floating]) -> None:
        super().__init__()
        self.model, self.table = model, build_table(model)
        arrays = {**weights, **constants}
        self.names = (*self.table.parameters, *constants)
        self.arrays = [to_tensor(name, arrays[name], tf.float32) for name in self.names]

    @property
    def tensors(self) -> dict[str, tf.Tensor]:
        return dict(zip(self.names, self.arrays, strict=True))


class Program(Weighted):
    """Measured amplitudes (B, N, N, C) → real and imaginary part of the patches, (B, N, N, C) each; float32."""

    def __init__(self, model: ModelConfig, weights: Weights, illumination: Illumination) -> None:
        super().__init__(model, weights, **{INPUT_SCALE: np.asarray(illumination.input_scale)})

    def __call__(self, diffraction_amplitude: tf.Tensor) -> dict[str, tf.Tensor]:
        tensors = self.tensors
        x = tensors[INPUT_SCALE] * diffraction_amplitude
        if not self.model.object_big:
            x = rearrange(x, BHWC_TO_FRAMES)
        maps = run_table(self.table, tensors, x)
        if not self.model.object_big:
            maps = tuple(rearrange(m, ALONE_LAST_TO_BHWC, c=self.model.channels) for m in maps)
        first, second = maps
        if self.table.real:
            return {REAL: first, IMAGINARY: second}
        return {REAL: first * tf.cos(second), IMAGINARY: first * tf.sin(second)}


class CanvasProgram(Weighted):
    """The same of a network of a canvas, which is given the light and the places, too."""

    def __call__(
        self,
        diffraction_amplitude: tf.Tensor,
        relative_offsets_px: tf.Tensor,
        probe: tf.Tensor,
        bad_pixels: tf.Tensor,
        mean_intensity: tf.Tensor,
        counts_per_intensity: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        N = self.model.N
        reach = tf.cast(tf.math.ceil(tf.reduce_max(tf.abs(relative_offsets_px))), tf.int32)
        border = tf.cast(canvas_border(N, reach, self.table.block), tf.float32)
        placement = physics.placement_matrices(relative_offsets_px, N, border)
        if self.model.probe_mask:
            probe = probe * tf.constant(probe_mask(N)[..., None], tf.float32)
        scene = Scene.of(
            placement,
            amplitude=rearrange(diffraction_amplitude, BHWC_TO_BCHW),
            good=tf.cast(~bad_pixels, tf.float32),
            probe=probe,
            lit=tf.reduce_sum(tf.square(probe), axis=(0, 3)),
            mean_intensity=mean_intensity,
            counts_per_intensity=counts_per_intensity,
        )
        (canvas,) = run_table(self.table, self.tensors, scene.empty(), scene)
        patches = physics.extract_patches(tf.stack(tf.unstack(canvas, axis=3)), placement)
        real, imaginary = (rearrange(part, BCHW_TO_BHWC) for part in tf.unstack(patches))
        return {REAL: real, IMAGINARY: imaginary}


def save_program(model: ModelConfig, weights: Weights, batch: Batch, target: Path, facts: Mapping[str, str]) -> None:
    """A SavedModel, a folder, with the signature `serving_default`; what is free in its signature is free in it."""
    with tf.device("/CPU:0"):
        canvas = bool(build_table(model).canvas)
        program = CanvasProgram(model, weights) if canvas else Program(model, weights, batch.illumination)
    inputs = [
        tf.TensorSpec([None if isinstance(side, str) else side for side in value.shape], value.dtype, name=value.name)
        for value in signature_of(model).inputs
    ]
    traced = tf.function(program, input_signature=inputs, autograph=False)
    tf.saved_model.save(program, str(target), signatures={"serving_default": traced})
    (target / "assets.extra").mkdir()
    (target / "assets.extra" / FACTS).write_text(facts_json(facts), encoding="utf-8")
