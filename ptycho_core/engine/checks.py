"""What an engine is given that fits, or is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ptycho_core.batches.batch import Batch
from ptycho_core.engine.optimizers import OPTIMIZERS
from ptycho_core.errors import ArchiveError, ConfigurationError, DataError
from ptycho_core.networks.table import Table
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.storage.memory import memory
from ptycho_core.vocabulary import COUNTS_PER_INTENSITY, INPUT_SCALE, LOG_SCALE, MEAN_INTENSITY, PROBE, Weights

ITEM_BYTES = {"64-true": 8, "bf16-mixed": 2}
"""Of a number in a layer's output; 4 in other precisions."""


def trainable_names(table: Table, training: TrainingConfig | None) -> tuple[str, ...]:
    """Canonical names of the arrays that training changes, in one order for every engine."""
    if training is None:
        return ()
    probe = (PROBE,) if training.probe_trainable else ()
    scale = (LOG_SCALE,) if training.intensity_scale_trainable and not table.canvas else ()
    return (*table.parameters, *probe, *scale)


def optimizer_moments(training: TrainingConfig | None) -> tuple[str, ...]:
    """What the configured optimiser keeps for every trainable array (specs/physics.md, Optimiser)."""
    if training is None:
        return ()
    return OPTIMIZERS.load(training.optimizer).state


def weight_names(table: Table, training: TrainingConfig | None) -> tuple[str, ...]:
    """Canonical names of a network's weights: layers, log scale, and a probe where training refines it."""
    probe = (PROBE,) if training is not None and training.probe_trainable else ()
    return (*table.parameters, *probe, LOG_SCALE)


def network_weights(table: Table, training: TrainingConfig | None, weights: Weights) -> Weights:
    """Of the weights of a model, those that an engine builds a network with."""
    return {name: weights[name] for name in weight_names(table, training)}


def check_weights(
    table: Table, training: TrainingConfig | None, weights: Weights, N: int, modes: int | None = None
) -> None:
    """Refuse weights whose names or shapes are not those of the network: ArchiveError listing the differences.

    modes: of the probe, where there is one; None is any number of them.
    """
    expected: dict[str, tuple[int | None, ...]] = {**table.parameters, PROBE: (modes, N, N, 2), LOG_SCALE: ()}
    expected = {name: expected[name] for name in weight_names(table, training)}
    _check_arrays("weights", weights, expected, "they are for another configuration")


def check_layers(table: Table, weights: Weights) -> None:
    """The same for weights that are the layers' alone."""
    _check_arrays("weights", weights, {**table.parameters}, "they are for another table")


def check_model_weights(table: Table, weights: Weights, N: int, modes: int | None = None) -> None:
    """The same for those of an archived model, which always have the probe, and the data scale beside them."""
    expected: dict[str, tuple[int | None, ...]] = {**table.parameters, PROBE: (modes, N, N, 2)}
    expected |= dict.fromkeys((LOG_SCALE, INPUT_SCALE, MEAN_INTENSITY, COUNTS_PER_INTENSITY), ())
    _check_arrays("weights", weights, expected, "they are for another configuration")


def check_optimizer_state(state: Weights, like: Weights) -> None:
    """Refuse a state whose names or shapes are not those of `like`, the network's own: ArchiveError likewise."""
    expected = {name: np.shape(array) for name, array in like.items()}
    _check_arrays("optimizer state", state, expected, "it is of another optimizer or of other trainable arrays")


def check_solver_weights(weights: Weights, like: Weights) -> None:
    """Refuse weights whose names or shapes are not those of `like`, the solver's own: ArchiveError likewise."""
    expected = {name: np.shape(array) for name, array in like.items()}
    _check_arrays("weights", weights, expected, "they are of another canvas or probe")


def check_network_memory(
    table: Table,
    model: ModelConfig,
    batch_size: int,
    execution: ExecutionConfig,
    devices: Sequence[str],
    *,
    train: bool,
) -> None:
    """ConfigurationError where a batch cannot fit into the memory of this machine, whatever else is in it.

    devices: of the engine. A network that may work on another device than the processor is not judged, and none of a
    canvas, whose size the groups decide.
    """
    if table.canvas or (execution.accelerator != "cpu" and set(devices) != {"cpu"}):
        return
    each = table.numbers(model.N)[0 if train else 1] * ITEM_BYTES.get(execution.precision, 4)
    there = memory()
    if batch_size * each <= there:
        return
    owner, name = ("TrainingConfig", "batch_size") if train else ("ExecutionConfig", "inference_batch_size")
    fits = there // each
    remedy = "Crop the patterns, or lower n_filters_scale."
    if fits:
        remedy = f"Set it to {1 << fits.bit_length() - 1} or less."
    raise ConfigurationError(
        owner,
        name,
        expected=f"a batch that fits into memory, {there / 2**30:.1f} GiB",
        received=f"{batch_size}, which takes at least {batch_size * each / 2**30:.1f} GiB",
        remedy=remedy,
    )


def check_border(batch: Batch) -> None:
    """Refuse a batch whose canvas does not hold its patches: DataError. Engines ask where they merge them."""
    reach = float(np.abs(batch.relative_offsets_px).max(initial=0))
    if reach > batch.canvas_padding_px:
        expected = f"at least {math.ceil(reach)} px, the largest relative offset"
        remedy = "Give every batch of a run the border that its farthest group needs."
        received = batch.canvas_padding_px
        raise DataError("batch", "canvas_padding_px", expected=expected, received=received, remedy=remedy)


def check_cover(cover: NDArray[np.floating], shape: tuple[int, ...]) -> None:
    """Refuse a cover that is not of the canvas's shape, or not of numbers from 0 to 1: DataError."""
    if cover.shape != shape or not (cover.min() >= 0 and cover.max() <= 1):
        received = f"shape {cover.shape}, {cover.min()} to {cover.max()}"
        remedy = "Divide it by its largest value."
        raise DataError("solver", "cover", expected=f"shape {shape}, 0 to 1", received=received, remedy=remedy)


Prior = TypeVar("Prior")


def registered_step(steps: Mapping[str, Prior], name: str) -> Prior:
    """The proximal step under `name`; ConfigurationError for an unknown one."""
    if name not in steps:
        remedy = f"Registered: {', '.join(sorted(steps))}."
        raise ConfigurationError("prior", expected="a known name", received=repr(name), remedy=remedy)
    return steps[name]


def _check_arrays(what: str, arrays: Weights, expected: Mapping[str, tuple[int | None, ...]], otherwise: str) -> None:
    """ArchiveError unless the names and shapes are as expected (None: any length) and all numbers finite."""
    missing = sorted(set(expected) - set(arrays))
    unexpected = sorted(set(arrays) - set(expected))
    if missing or unexpected:
        raise ArchiveError(what, received=f"missing {missing}; unexpected {unexpected}; {otherwise}")
    for name, shape in expected.items():
        received = np.shape(arrays[name])
        fits = (
            len(shape) == len(received)
            and 0 not in received
            and all(s in (None, r) for s, r in zip(shape, received, strict=True))
        )
        if not fits:
            raise ArchiveError(what, name, expected=f"shape {shape}", received=received)
        if not np.isfinite(arrays[name]).all():
            raise ArchiveError(what, name, expected="finite numbers", received="NaN or infinity")
