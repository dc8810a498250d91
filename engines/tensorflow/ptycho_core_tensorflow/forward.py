"""What networks of one configuration compute, as graphs that they share: their variables come as arguments.

A graph of their own for each would be traced again for each, and this framework never gives all of a graph's memory
back (https://github.com/tensorflow/tensorflow/issues/62854).
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any

import attrs
import tensorflow as tf
from einops import rearrange

from ptycho_core.engine.checks import trainable_names
from ptycho_core.engine.losses import Compared, loss_function
from ptycho_core.engine.objective import Objective
from ptycho_core.layouts import ALONE_LAST_TO_BHWC, BHWC_TO_BCHW, BHWC_TO_FRAMES
from ptycho_core.networks.ops import op_function
from ptycho_core.networks.table import Table
from ptycho_core.physics.constants import LOSS_FLOOR
from ptycho_core.physics.weights import MERGE_EPSILON, canvas_border, probe_mask, smoothing_matrix
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.vocabulary import LOG_SCALE, PROBE
from ptycho_core_tensorflow import losses, physics
from ptycho_core_tensorflow.arrays import XP
from ptycho_core_tensorflow.ops import ENGINE, OPS, run_table
from ptycho_core_tensorflow.steps import Scene

Tensors = Mapping[str, tf.Variable]


@attrs.frozen(eq=False)
class Recipe:
    """What a graph is made for, beside the shapes of its arguments. Equal where the graphs would be."""

    table: Table
    model: ModelConfig
    training: TrainingConfig | None
    device: str
    precision: str

    @functools.cached_property
    def _told(self) -> tuple[object, ...]:
        ops = tuple(op_function(layer, ENGINE, OPS) for layer in self.table.layers)  # a program may replace one
        terms = () if self.training is None else Objective.of(self.training).terms
        functions = tuple(loss_function(name, ENGINE, losses.TERMS) for name in terms)
        training = None if self.training is None else attrs.astuple(self.training)
        return repr(self.table), attrs.astuple(self.model), training, self.device, self.precision, ops, terms, functions

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self._told == other._told

    def __hash__(self) -> int:
        return hash(self._told)


class Forward:
    """Amplitudes → patches → loss terms → gradients."""

    def __init__(self, recipe: Recipe) -> None:
        # A copy: a program may change its configuration, which is not to change what others compute.
        self.table, self.model = recipe.table, copy.deepcopy(recipe.model)
        self.dtype = tf.float64 if recipe.precision == "64-true" else tf.float32
        self.layer_dtype = tf.bfloat16 if recipe.precision == "bf16-mixed" else self.dtype
        self.objective = None if recipe.training is None else Objective.of(recipe.training)
        self.trainable = trainable_names(recipe.table, recipe.training)
        self.smoothing = self.probe_mask = None
        with tf.device(recipe.device):
            if self.model.gaussian_smoothing_sigma > 0:
                matrix = smoothing_matrix(self.model.N, self.model.gaussian_smoothing_sigma)
                self.smoothing = tf.cast(matrix, self.dtype)
            if self.model.probe_mask:
                self.probe_mask = tf.cast(probe_mask(self.model.N), self.dtype)[..., None]
        self.graph_terms_and_gradients = tf.function(self.terms_and_gradients, autograph=False)
        self.graph_loss_terms = tf.function(self.loss_terms, autograph=False)
        self.graph_packed = tf.function(self.packed, autograph=False)
        self.graph_packed_terms = tf.function(self.packed_terms, autograph=False)
        self.graph_unpacked = tf.function(self.unpacked, autograph=False)
        self.graph_patches = tf.function(self.patches, autograph=False)
        self.graph_canvas_patches = tf.function(self.canvas_patches, autograph=False)

    def maps(
        self, tensors: Tensors, diffraction_amplitude: tf.Tensor, light: physics.Light
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The table's two outputs as patches (B, N, N, C), for measured amplitudes (B, N, N, C)."""
        x = light.input_scale * diffraction_amplitude
        channels = x.shape[-1]
        if not self.model.object_big:
            x = rearrange(x, BHWC_TO_FRAMES)
        maps = run_table(self.table, tensors, tf.cast(x, self.layer_dtype))
        first, second = (tf.cast(m, self.dtype) for m in maps)
        if not self.model.object_big:
            first, second = (rearrange(m, ALONE_LAST_TO_BHWC, c=channels) for m in (first, second))
        return first, second

    def patches(self, tensors: Tensors, diffraction_amplitude: tf.Tensor, light: physics.Light) -> tf.Tensor:
        first, second = self.maps(tensors, diffraction_amplitude, light)
        if self.table.real:
            return tf.complex(first, second)
        return tf.complex(first * tf.cos(second), first * tf.sin(second))

    def probe(self, tensors: Tensors, light: physics.Light) -> tf.Tensor:
        """Refined, or as it came with the batch; within the mask."""
        probe = tensors.get(PROBE, light.probe)
        return tf.convert_to_tensor(probe if self.probe_mask is None else probe * self.probe_mask)

    def canvas_patches(
        self,
        tensors: Tensors,
        amplitude: tf.Tensor,
        light: physics.Light,
        offsets: tf.Tensor,
        good: tf.Tensor,
        padding: int,
        compared_offsets: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """What the canvases of frames (B, N, N, C) show at their own places, or at those that are compared."""
        border = canvas_border(self.model.N, padding, self.table.block)
        placement = physics.placement_matrices(offsets, self.model.N, border)
        scene = Scene.of(
            placement,
            amplitude=rearrange(amplitude, BHWC_TO_BCHW),
            good=good,
            probe=self.probe(tensors, light),
            lit=light.lit,
            mean_intensity=light.mean_intensity,
            counts_per_intensity=light.counts_per_intensity,
        )
        (canvas,) = run_table(self.table, tensors, scene.empty(), scene, self.layer_dtype)
        if compared_offsets is not None:
            placement = physics.placement_matrices(compared_offsets, self.model.N, border)
        return physics.extract_patches(tf.stack(tf.unstack(canvas, axis=3)), placement)

    def loss_terms(
        self,
        tensors: Tensors,
        measured_amplitude: tf.Tensor,
        light: physics.Light,
        offsets: tf.Tensor,
        good: tf.Tensor,
        truth: tf.Tensor | None,
        padding: int,
        seen: tuple[tf.Tensor, tf.Tensor] | None,
        physics_weight: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """seen: amplitudes and offsets of the frames that a network of a canvas sees; None for any other network."""
        assert self.objective is not None
        if seen is None:
            maps = (rearrange(m, BHWC_TO_BCHW) for m in self.maps(tensors, measured_amplitude, light))
            patches = tf.stack([*maps]) if self.table.real else physics.polar_to_field(*maps)
        else:
            patches = self.canvas_patches(tensors, seen[0], light, seen[1], good, padding, offsets)
        measured_amplitude = rearrange(measured_amplitude, BHWC_TO_BCHW)
        if self.model.merges and seen is None:
            placement = physics.placement_matrices(offsets, self.model.N, padding)
            epsilon = MERGE_EPSILON[self.model.merge_weights]
            canvas = physics.merge_group(patches, light.merge_weight, placement, epsilon)
            patches = physics.extract_patches(canvas, placement)
        compared = Compared(xp=XP, patches=patches, lit=None if seen is None else light.lit)
        if self.objective.compares("truth"):
            truth = tf.stack([rearrange(part, BHWC_TO_BCHW) for part in tf.unstack(truth)])
            if self.table.canvas:
                intensity = physics.far_field_intensity(truth, self.probe(tensors, light), self.smoothing)
                truth = losses.in_scale(truth, tf.stop_gradient(intensity), tf.square(measured_amplitude), good)
            compared = attrs.evolve(compared, truth=truth)
        if self.objective.compares("counts"):
            intensity = physics.far_field_intensity(patches, self.probe(tensors, light), self.smoothing)
            counts = light.counts_per_intensity
            compared = attrs.evolve(
                compared,
                predicted=counts * tf.exp(2 * tensors[LOG_SCALE]) * intensity,
                measured=counts * tf.square(measured_amplitude),
                good=good,
                mean_counts=counts * light.mean_intensity,
            )
        terms = {name: loss_function(name, ENGINE, losses.TERMS)(compared) for name in self.objective.terms}
        return {"total": self.objective.total(terms, physics_weight), **terms}

    def terms_and_gradients(
        self, tensors: Tensors, *arguments: Any, minimised: bool = True
    ) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        """minimised: the gradients are those of what is minimised, not of the total."""
        parameters = {name: tensors[name] for name in self.trainable}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(parameters)
            terms = self.loss_terms(tensors, *arguments)
            total = terms["total"]
            of = tf.math.log(tf.maximum(total, LOSS_FLOOR)) if self.table.canvas and minimised else total
        # No loss term may reach a tensor: its gradient is 0, not absent.
        unconnected = tf.UnconnectedGradients.ZERO
        return terms, tape.gradient(of, parameters, unconnected_gradients=unconnected)

    # -- several processes -----------------------------------------------------------------------------------------

    @property
    def terms(self) -> tuple[str, ...]:
        assert self.objective is not None
        return ("total", *self.objective.terms)

    def packed(self, share: tf.Tensor, tensors: Tensors, *arguments: Any) -> tf.Tensor:
        """Terms and gradients of the total in one vector, times the share of this process."""
        terms, gradients = self.terms_and_gradients(tensors, *arguments, minimised=False)
        rows = [tf.stack([terms[name] for name in self.terms])]
        return share * tf.concat([*rows, *(tf.reshape(gradients[name], [-1]) for name in self.trainable)], 0)

    def packed_terms(self, share: tf.Tensor, *arguments: Any) -> tf.Tensor:
        terms = self.loss_terms(*arguments)
        return share * tf.stack([terms[name] for name in self.terms])

    def unpacked(self, tensors: Tensors, flat: tf.Tensor) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        """Terms, and gradients of what is minimised, of a sum of what `packed` gives."""
        shapes = [tensors[name].shape for name in self.trainable]
        numbers, *parts = tf.split(flat, [len(self.terms), *(shape.num_elements() for shape in shapes)])
        terms = dict(zip(self.terms, tf.unstack(numbers), strict=True))
        total, factor = terms["total"], tf.ones([], self.dtype)
        if self.table.canvas:  # of the logarithm
            floor = tf.constant(LOSS_FLOOR, self.dtype)
            factor = tf.where(total >= floor, 1 / tf.maximum(total, floor), 0)
        named = zip(self.trainable, parts, shapes, strict=True)
        return terms, {name: factor * tf.reshape(part, shape) for name, part, shape in named}


shared_forward = functools.lru_cache(maxsize=16)(Forward)
"""The one for a recipe."""
