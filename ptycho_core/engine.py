"""The only door between the core and an engine: two protocols and the registry (specs/engine.md)."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, SupportsFloat, runtime_checkable

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.architecture import Table, Weights
from ptycho_core.config import ExecutionConfig, ModelConfig, TrainingConfig
from ptycho_core.contracts import Batch
from ptycho_core.errors import ArchiveError, BackendError
from ptycho_core.physics import COUNTS_PER_INTENSITY, INPUT_SCALE, LOG_SCALE, MEAN_INTENSITY, PROBE

log = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "ptycho_core.engines"

LossTerms = Mapping[str, float]
"""Mean over the groups of an epoch of every loss term of specs/physics.md, Losses, by name; always with "total"."""


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

    def evaluate(self, batches: Iterable[Batch]) -> LossTerms:
        """The loss terms of `batches` with the weights as they are."""

    def predict(self, batch: Batch) -> NDArray[np.complex64]:
        """Object patches (B, N, N, C), before any merge; of a batch, only the diffraction amplitude is used."""

    def gradients(self, batch: Batch) -> Weights:
        """Gradient of one batch's total loss, clipped as configured, for every trainable array by canonical name."""

    def weights(self) -> Weights:
        """A copy of all weights."""

    def load_weights(self, weights: Weights) -> None:
        """Replace all weights; names and shapes must be those of `weights()`, or it is an ArchiveError."""

    def optimizer_state(self) -> Weights:
        """ "step", and for every trainable array those of `optimizer_moments`, as "first_moment/<name>"."""

    def load_optimizer_state(self, state: Weights) -> None:
        """Go on from what `optimizer_state()` of any engine returned; ArchiveError where it does not fit."""


@runtime_checkable
class Engine(Protocol):
    """A maker of networks in one framework. Registered as a class or factory without arguments."""

    name: str

    def describe(self) -> EngineInfo:
        """Framework version, devices and precisions as they are on this machine."""

    def build(
        self, model: ModelConfig, training: TrainingConfig | None, weights: Weights, execution: ExecutionConfig
    ) -> Network:
        """A network with these weights; `training` None is for prediction only."""


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


def windows(batches: Iterable[Batch], size: int) -> Iterator[Iterator[Batch]]:
    """The batches of each step of the optimiser: `size` in a row, fewer at the end; each is taken when it is needed."""
    remaining = iter(batches)
    for first in remaining:
        yield itertools.chain((first,), itertools.islice(remaining, size - 1))


def mean_terms(terms: Iterable[tuple[int, Mapping[str, SupportsFloat]]]) -> LossTerms:
    """The mean of loss terms over batches, each weighted by its number of groups."""
    totals: dict[str, float] = {}
    groups = 0
    for size, batch in terms:
        groups += size
        for name, term in batch.items():
            totals[name] = totals.get(name, 0.0) + size * float(term)
    return {name: total / groups for name, total in totals.items()}


SPELLINGS = {"pytorch": "torch"}
FRAMEWORKS = {"torch": ("PyTorch", "torch"), "tensorflow": ("TensorFlow", "tensorflow")}
"""Our own engines' framework names and packages; a third engine reports a missing framework in its own words."""


def registered_engines() -> dict[str, EntryPoint]:
    """Entry points of the group `ptycho_core.engines`, by name. Nothing is imported."""
    return {point.name: point for point in sorted(entry_points(group=ENTRY_POINT_GROUP))}


def is_installed(name: str) -> bool:
    """Whether the framework of a registered engine can be found; nothing is imported."""
    return name not in FRAMEWORKS or importlib.util.find_spec(FRAMEWORKS[name][1]) is not None


def resolve_backend(backend: str = "auto") -> str:
    """The registered name that `backend` stands for.

    "auto" takes the only installed engine, or tensorflow before torch before any other. Raises BackendError for an
    unknown name and when no engine is installed.
    """
    registered = registered_engines()
    if backend == "auto":
        installed = [name for name in registered if is_installed(name)]
        if not installed:
            raise BackendError(
                "No engine is installed. Install one with: "
                "pip install 'ptycho-core[torch]' or pip install 'ptycho-core[tensorflow]'"
            )
        chosen = next((name for name in ("tensorflow", "torch") if name in installed), installed[0])
        log.info("backend: %s (auto; installed: %s)", chosen, ", ".join(installed))
        return chosen
    name = SPELLINGS.get(backend, backend)
    if name not in registered:
        raise BackendError(f"Unknown backend {backend!r}. Registered backends: {', '.join(registered)}.")
    return name


def backend_for(trained_by: str) -> str:
    """What "auto" is for a model: the engine that trained it where that is installed, else "auto"."""
    return trained_by if trained_by in registered_engines() and is_installed(trained_by) else "auto"


def load_engine(backend: str = "auto") -> Engine:
    """The engine for `backend`; its framework is imported here and not before.

    Raises BackendError when the framework is not installed; any other failure inside an engine passes through.
    """
    name = resolve_backend(backend)
    try:
        engine: Engine = registered_engines()[name].load()()
    except ModuleNotFoundError as error:
        title, package = FRAMEWORKS.get(name, (None, None))
        if title is None or error.name != package:
            raise
        raise BackendError(
            f"{title} backend selected, but the '{package}' package is not installed. "
            f"Install it with: pip install 'ptycho-core[{name}]'"
        ) from error
    return engine
