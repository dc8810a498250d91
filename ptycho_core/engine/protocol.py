"""The only door between the core and an engine: four protocols (specs/engine.md, specs/solving.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.batches.batch import Batch
from ptycho_core.engine.images import Images
from ptycho_core.engine.problem import FrameFacts, Frames, Problem, Rates
from ptycho_core.networks.table import Table
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.vocabulary import (
    LossTerms,
    Weights,
)

PROTOCOL = 2
"""The version of this door; an engine says which one it was written for, as `protocol`."""
CHANGES: Mapping[int, tuple[str, ...]] = {
    2: (
        "an engine has `protocol = 2`",
        "`Batch.illumination` holds probe and data scale, which are no weights any more: weights are the layers, "
        "`intensity/log_scale` and, only with `probe_trainable`, `probe/field` "
        "(`check_weights(table, training, weights, N, modes)`)",
        "batches of one call may have several illuminations; merge weights, k and the counts follow each batch's own",
        "`predict(batch)` takes k from `batch.illumination`; `export(form, model, weights, batch, target, facts)` is "
        "given an example batch",
        "a layer has `settings` and `uses` in place of one attribute for each setting; `op_function` finds what "
        "computes it, `check_ops` refuses what nothing computes",
        "`Objective.of(training)` names the loss terms and adds them up",
        "a network has `losses_so_far()`, the terms of the batches of the running epoch",
        "`start_solver(problem, execution)` gives a `Solver`",
        "`build_image_network(table, training, weights, execution)` gives an `ImageNetwork`",
        "a table may end in a canvas (`Table.canvas`, `Table.outputs`): ops that see the batch are given a `scene`; "
        "losses are of `batch.compared`, through what the network makes of `batch.seen` (`Batch.held_out`)",
        "`FrameFacts.intensity` is the sum of I; `intensity_ratio` follows from it and is no field any more",
        "loss terms are by scan as well where `Batch.scan` says which: `LossMeans.add(len(batch), terms, batch.scan)`",
        "`Problem.amplitude_floor` is the floor of the amplitude loss, in counts",
        "a solver's `gradients(frames, object_only=True)` is that by the object alone",
        "in several processes `start_solver(…, processes, shared)` is given the rows that other processes hold, too",
    )
}
"""Version → what an engine written for the version before it must change."""


@attrs.frozen
class EngineInfo:
    """What an engine is and can do: plain values, for `ptycho engines` and every result."""

    name: str
    framework: str
    version: str
    devices: tuple[str, ...]
    precisions: tuple[str, ...]

    @classmethod
    def from_mapping(cls, plain: Mapping[str, Any]) -> EngineInfo:
        """The inverse of `attrs.asdict`, lists for tuples as JSON has them. Raises KeyError or TypeError."""
        devices, precisions = tuple(plain["devices"]), tuple(plain["precisions"])
        return cls(plain["name"], plain["framework"], plain["version"], devices, precisions)


@runtime_checkable
class Network(Protocol):
    """A network on a device. Only numpy arrays and plain values cross its methods."""

    def train_epoch(self, batches: Iterable[Batch], learning_rate: float, physics_weight: float = 1.0) -> LossTerms:
        """One optimiser step for every `accum_steps` batches; physics_weight: specs/physics.md, Losses."""

    def losses_so_far(self) -> LossTerms:
        """Of the batches that `train_epoch` has done so far, or did; {} before any. Waits for the device."""

    def evaluate(self, batches: Iterable[Batch]) -> LossTerms:
        """The loss terms of `batches` with the weights as they are."""

    def predict(self, batch: Batch) -> NDArray[np.complex64]:
        """Object patches (B, N, N, C), before any merge; of a batch, what the table sees is used."""

    def gradients(self, batch: Batch) -> Weights:
        """Gradient of one batch's total loss, clipped as configured, for every trainable array by canonical name."""

    def weights(self) -> Weights:
        """A copy of all weights: layers, log scale, and a probe where it is refined."""

    def load_weights(self, weights: Weights) -> None:
        """Replace all weights; names and shapes must be those of `weights()`, or it is an ArchiveError."""

    def optimizer_state(self) -> Weights:
        """ "step", and for every trainable array those of `optimizer_moments`, as "first_moment/<name>"."""

    def load_optimizer_state(self, state: Weights) -> None:
        """Go on from what `optimizer_state()` of any engine returned; ArchiveError where it does not fit."""


@runtime_checkable
class Solver(Protocol):
    """An object canvas and a probe on a device, solved for (specs/solving.md)."""

    def step(self, frames: Frames, rates: Rates, *, shifts: bool = False) -> FrameFacts:
        """One step of Adam on object and probe; the facts are those before it, without deviances."""

    def measure(self, frames: Frames, *, deviance: bool = True) -> FrameFacts:
        """The facts with everything as it is; without deviances, which cost a third of it, where not asked for."""

    def gradients(self, frames: Frames, *, object_only: bool = False) -> Weights:
        """Of the loss that `step` descends: "object/field" and, unless that is all that is wanted, "probe/field", and
        "positions" (B, 2), [x, y]."""

    def set_cover(self, cover: NDArray[np.floating]) -> None:
        """(H, W), from 0 to 1: a factor on the object's step, so that pixels without light stay as they are."""

    def rescale(self, counts: float) -> None:
        """Bring the probe's sum of |P|² to `counts`, in the unit of A², and divide the object by the same factor."""

    def denoise(self, weight: float, iterations: int = 30) -> None:
        """`apply("tv", weight=weight, iterations=iterations)`."""

    def apply(self, name: str, **settings: object) -> None:
        """Apply the registered proximal step `name` to the object; ConfigurationError for an unknown one."""

    def weights(self) -> Weights:
        """A copy of "object/field" (H, W, 2) and "probe/field" (K, N, N, 2)."""

    def load_weights(self, weights: Weights) -> None:
        """Replace both and return the optimiser to its start; ArchiveError where names or shapes differ."""

    def optimizer_state(self) -> Weights:
        """ "step/<name>", "first_moment/<name>" and "second_moment/<name>" for both names of `weights()`."""

    def load_optimizer_state(self, state: Weights) -> None:
        """Go on from what `optimizer_state()` of any engine returned; ArchiveError where it does not fit."""


@runtime_checkable
class ImageNetwork(Protocol):
    """A table on a device that makes two maps of any number of maps, on images of any shape (specs/prior.md)."""

    def run(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, H, W, C) → (B, H, W, 2), the table's two outputs; H and W are multiples of its `block`."""

    def train_step(self, images: Images, learning_rate: float) -> float:
        """One step of the configured optimiser; the loss before it."""

    def gradients(self, images: Images) -> Weights:
        """Of the loss by every array, limited as configured."""

    def weights(self) -> Weights:
        """A copy of the layers' arrays by canonical name."""

    def optimizer_state(self) -> Weights:
        """As that of a `Network`."""

    def load_optimizer_state(self, state: Weights) -> None:
        """Go on from what `optimizer_state()` of any engine returned; ArchiveError where it does not fit."""


@runtime_checkable
class Engine(Protocol):
    """A maker of networks and solvers in one framework. Registered as a class or factory without arguments.

    protocol: the `PROTOCOL` that it was written for.
    """

    name: str
    protocol: int

    def describe(self) -> EngineInfo:
        """Framework version, devices and precisions as they are on this machine."""

    def build(
        self, model: ModelConfig, training: TrainingConfig | None, weights: Weights, execution: ExecutionConfig
    ) -> Network:
        """A network with these weights, those of `weight_names(table, training)`; None is for prediction only."""

    def start_solver(self, problem: Problem, execution: ExecutionConfig) -> Solver:
        """A solver at the problem's canvas and probe, its moments at 0."""

    def build_image_network(
        self, table: Table, training: TrainingConfig | None, weights: Weights, execution: ExecutionConfig
    ) -> ImageNetwork:
        """A network that changes images, with these weights of the table; training None is for `run` alone."""
