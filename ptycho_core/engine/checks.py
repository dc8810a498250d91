"""Weights and optimizer states that fit a network, or are refused."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ptycho_core.errors import ArchiveError
from ptycho_core.networks.table import Table
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.vocabulary import COUNTS_PER_INTENSITY, INPUT_SCALE, LOG_SCALE, MEAN_INTENSITY, PROBE, Weights


def trainable_names(table: Table, training: TrainingConfig | None) -> tuple[str, ...]:
    """Canonical names of the arrays that training changes, in one order for every engine."""
    if training is None:
        return ()
    probe = (PROBE,) if training.probe_trainable else ()
    scale = (LOG_SCALE,) if training.intensity_scale_trainable else ()
    return (*table.parameters, *probe, *scale)


def optimizer_moments(training: TrainingConfig | None) -> tuple[str, ...]:
    """What the configured optimiser keeps for every trainable array (specs/physics.md, Optimiser)."""
    if training is None:
        return ()
    return ("momentum",) if training.optimizer == "sgd" else ("first_moment", "second_moment")


def check_weights(table: Table, weights: Weights, N: int, modes: int | None = None) -> None:
    """Refuse weights whose names or shapes are not those of the network: ArchiveError listing the differences.

    modes: of the probe; None is any number of them.
    """
    expected: dict[str, tuple[int | None, ...]] = {**table.parameters, PROBE: (modes, N, N, 2)}
    expected |= dict.fromkeys((LOG_SCALE, INPUT_SCALE, MEAN_INTENSITY, COUNTS_PER_INTENSITY), ())
    _check_arrays("weights", weights, expected, "they are for another configuration")


def check_optimizer_state(state: Weights, like: Weights) -> None:
    """Refuse a state whose names or shapes are not those of `like`, the network's own: ArchiveError likewise."""
    expected = {name: np.shape(array) for name, array in like.items()}
    _check_arrays("optimizer state", state, expected, "it is of another optimizer or of other trainable arrays")


def _check_arrays(what: str, arrays: Weights, expected: Mapping[str, tuple[int | None, ...]], otherwise: str) -> None:
    """ArchiveError unless the names and shapes are as expected (None: any length) and all numbers finite."""
    missing = sorted(set(expected) - set(arrays))
    unexpected = sorted(set(arrays) - set(expected))
    if missing or unexpected:
        raise ArchiveError(f"{what}: missing {missing}; unexpected {unexpected}; {otherwise}.")
    for name, shape in expected.items():
        received = np.shape(arrays[name])
        fits = (
            len(shape) == len(received)
            and 0 not in received
            and all(s in (None, r) for s, r in zip(shape, received, strict=True))
        )
        if not fits:
            raise ArchiveError(f"{what}: {name}: expected shape {shape}; received {received}.")
        if not np.isfinite(arrays[name]).all():
            raise ArchiveError(f"{what}: {name}: expected finite numbers; received NaN or infinity.")
