"""A small scan, an engine without a framework, and the command line in this process."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from numpy.typing import NDArray
from ptycho_core_reference import ReferenceEngine

from ptycho_core.batches.batch import Batch
from ptycho_core.engine.checks import optimizer_moments, trainable_names
from ptycho_core.engine.problem import Problem
from ptycho_core.engine.protocol import EngineInfo, ImageNetwork, Solver
from ptycho_core.models.model import ARCHIVE_NAME
from ptycho_core.networks import registry
from ptycho_core.networks.registry import build_table
from ptycho_core.networks.table import Table
from ptycho_core.physics.patches import extract_patches
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.vocabulary import LOG_SCALE, Weights
from tests.core.archives import register_tiny, tiny_model

N = 32


def make_numbered_scan(count: int = 9, N: int = N, seed: int = 0, spread: int = 20, **changes: Any) -> Scan:
    """`count` frames over a random object; all pixels of frame m hold m + 1, so that a batch tells its frames."""
    rng = np.random.default_rng(seed)
    positions = rng.uniform(N / 2, N / 2 + spread, (count, 2))
    shape = N + spread + 4, N + spread + 4
    field = rng.normal(1, 0.2, shape) * np.exp(1j * rng.normal(0, 0.5, shape))
    y, x = np.mgrid[:N, :N] - N / 2
    fields: dict[str, Any] = {
        "diffraction_amplitude": np.ones((count, N, N), np.float32) * np.arange(1, count + 1)[:, None, None],
        "positions_px": positions,
        "probe": np.exp(-(x**2 + y**2) / (2 * (N / 6) ** 2) + 0.05j * x + 0.02j * y**2),
        "object_field": field,
        "source": "numbered.npz",
    }
    return Scan(**{**fields, **changes})


def frame_numbers(batch: Batch) -> NDArray[np.int64]:
    """(B, C): which frames of a numbered scan a batch holds."""
    return np.rint(batch.diffraction_amplitude.max(axis=(1, 2))).astype(np.int64) - 1


class FakeNetwork:
    """Remembers what it is given; its log scale counts the epochs, so that a set of weights tells its own."""

    def __init__(
        self, engine: FakeEngine, model: ModelConfig, training: TrainingConfig | None, weights: Weights
    ) -> None:
        self._engine = engine
        self._weights = dict(weights)
        names = trainable_names(build_table(model), training)
        self._moments = {
            f"{moment}/{name}": np.zeros_like(weights[name]) for moment in optimizer_moments(training) for name in names
        }
        self._epoch = 0

    def train_epoch(
        self, batches: Iterable[Batch], learning_rate: float, physics_weight: float = 1.0
    ) -> Mapping[str, float]:
        self._epoch += 1
        self._engine.rates.append(learning_rate)
        self._engine.physics_weights.append(physics_weight)
        self._engine.epochs.append([])
        for batch in batches:
            self._engine.epochs[-1].append(batch)
        self._weights[LOG_SCALE] = np.full((), self._epoch, np.float32)
        return {"total": self._engine.train_loss(self._epoch), "nll": 0.5, **self._engine.terms(self._epoch)}

    def losses_so_far(self) -> Mapping[str, float]:
        """The total is the number of batches that the epoch has taken."""
        taken = self._engine.epochs[-1] if self._engine.epochs else []
        return {"total": float(len(taken))} if taken else {}

    def evaluate(self, batches: Iterable[Batch]) -> Mapping[str, float]:
        self._engine.evaluated.append(list(batches))
        return {"total": self._engine.validation_loss(self._epoch)}

    def predict(self, batch: Batch) -> NDArray[np.complex64]:
        return self._engine.predict(batch)

    def gradients(self, batch: Batch) -> Weights:
        raise NotImplementedError

    def weights(self) -> Weights:
        return dict(self._weights)

    def load_weights(self, weights: Weights) -> None:
        self._weights = dict(weights)

    def optimizer_state(self) -> Weights:
        return {"step": np.asarray(float(self._epoch)), **self._moments}

    def load_optimizer_state(self, state: Weights) -> None:
        self._epoch = int(state["step"])


@attrs.define
class FakeEngine:
    """An engine with no framework: the losses of each epoch and the predictions are set by the test."""

    name: str = "fake"
    protocol: int = 2
    train_loss: Callable[[int], float] = lambda epoch: 1 / epoch
    validation_loss: Callable[[int], float] = lambda epoch: 1 / epoch
    predict: Callable[[Batch], NDArray[np.complex64]] = lambda batch: np.ones(
        batch.diffraction_amplitude.shape, np.complex64
    )
    terms: Callable[[int], Mapping[str, float]] = lambda epoch: {}
    rates: list[float] = attrs.field(factory=list)
    physics_weights: list[float] = attrs.field(factory=list)
    epochs: list[list[Batch]] = attrs.field(factory=list)
    evaluated: list[list[Batch]] = attrs.field(factory=list)
    built: list[tuple[ModelConfig, TrainingConfig | None, Weights, ExecutionConfig]] = attrs.field(factory=list)
    backends: list[str] = attrs.field(factory=list)

    def describe(self) -> EngineInfo:
        return EngineInfo(self.name, "no framework", "1.0", ("cpu",), ("32-true",))

    def build(
        self, model: ModelConfig, training: TrainingConfig | None, weights: Weights, execution: ExecutionConfig
    ) -> FakeNetwork:
        self.built.append((model, training, weights, execution))
        return FakeNetwork(self, model, training, weights)

    def start_solver(self, problem: Problem, execution: ExecutionConfig) -> Solver:
        return ReferenceEngine().start_solver(problem, execution)

    def build_image_network(
        self, table: Table, training: TrainingConfig | None, weights: Weights, execution: ExecutionConfig
    ) -> ImageNetwork:
        return ReferenceEngine().build_image_network(table, training, weights, execution)

    def predict_truth_of(self, scan: Scan) -> None:
        """Predict, from now on, the true patches of a numbered scan."""

        def predict(batch: Batch) -> NDArray[np.complex64]:
            frames = frame_numbers(batch)
            assert scan.object_field is not None
            patches = extract_patches(scan.object_field, scan.positions_px[frames.ravel()], scan.N)
            return np.moveaxis(patches.reshape(*frames.shape, scan.N, scan.N), 1, -1)

        self.predict = predict


@pytest.fixture
def fake_engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The engine that training and reconstruction find under every name."""
    engine = FakeEngine()

    def find_engine(backend: str = "auto") -> Callable[[], FakeEngine]:
        def load() -> FakeEngine:
            engine.backends.append(backend)
            return engine

        return load

    for room in ("training", "reconstruction", "runs"):
        monkeypatch.setattr(f"ptycho_core.{room}.prepare.find_engine", find_engine)
    return engine


@pytest.fixture
def numbered_scan() -> Callable[..., Scan]:
    return make_numbered_scan


@pytest.fixture
def frames_of() -> Callable[[Batch], NDArray[np.int64]]:
    return frame_numbers


@pytest.fixture(scope="session")
def tiny_architecture() -> Iterator[None]:
    """The architecture "tiny"."""
    register_tiny()
    yield
    del registry.ARCHITECTURES._registered["tiny"]


@pytest.fixture(scope="session")
def whole(tiny_architecture: None, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of the archive of `tiny_model()`."""
    return tiny_model().save(tmp_path_factory.mktemp("whole")).read_bytes()


@pytest.fixture
def saved(tmp_path: Path, whole: bytes) -> Path:
    path = tmp_path / ARCHIVE_NAME
    path.write_bytes(whole)
    return path


@pytest.fixture
def core_log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """`caplog` at level INFO for the core, even after a command has set up its own handler."""
    logger = logging.getLogger("ptycho_core")
    before = logger.propagate
    logger.propagate = True
    with caplog.at_level(logging.INFO, logger="ptycho_core"):
        yield caplog
    logger.propagate = before


@attrs.frozen
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def ptycho(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Outcome]]:
    """`ptycho("inspect", path)` runs the command in this process, through `main`, and returns what it printed."""
    from ptycho_core.cli import main

    logger = logging.getLogger("ptycho_core")
    handlers, level, propagate = logger.handlers, logger.level, logger.propagate
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["ptycho", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        return Outcome(code, *capsys.readouterr())

    yield run
    logger.handlers, logger.level, logger.propagate = handlers, level, propagate
