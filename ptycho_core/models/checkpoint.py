"""Where a run stands after a whole epoch, and its file `checkpoint.h5.zip` (specs/archive.md, Checkpoints)."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.engine.checks import (
    check_model_weights,
    check_optimizer_state,
    network_weights,
    optimizer_moments,
    trainable_names,
)
from ptycho_core.engine.protocol import EngineInfo
from ptycho_core.errors import ArchiveError
from ptycho_core.models.container import (
    CHECKPOINT,
    decoding,
    from_arrays,
    from_history_csv,
    history_csv,
    located,
    read_container,
    to_arrays,
    to_json,
    whole_number,
    write_container,
)
from ptycho_core.models.model import Model, read_config_member
from ptycho_core.models.seen import from_numbered, to_numbered
from ptycho_core.networks.registry import build_table
from ptycho_core.networks.table import Table
from ptycho_core.physics.illumination import Illumination
from ptycho_core.scans.fingerprint import Fingerprint
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.fields import from_mapping, to_mapping
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.vocabulary import PROBE, Weights

CHECKPOINT_NAME = CHECKPOINT.name
INITIAL_PROBE = "initial_probe"


@attrs.frozen(eq=False, kw_only=True)
class Checkpoint:
    """All that a run needs to go on, but its scans.

    weights, optimizer: those after the last whole epoch, the weights as those of a `Model`. initial_probe: float
    (modes, N, N, 2), the one that the run began with. history: one row for each epoch. scores: the monitored value of
    each, lower is better. best: the best models so far, the best first. engine: what trained last. scans, tests:
    fingerprints of what is trained on and tested with. others: what lights the scans after the first, where the network
    sees it. reading: how the files of the scans were read.
    """

    config: TrainingConfig
    execution: ExecutionConfig
    weights: Weights
    optimizer: Weights
    initial_probe: NDArray[np.floating]
    history: list[dict[str, float]]
    scores: tuple[float, ...]
    best: tuple[Model, ...]
    engine: EngineInfo
    scans: tuple[Fingerprint, ...]
    tests: tuple[Fingerprint, ...] = ()
    others: tuple[Illumination, ...] = ()
    reading: ReadOptions = attrs.Factory(ReadOptions)

    @property
    def epoch(self) -> int:
        """The last whole epoch, from 1."""
        return len(self.history)

    @property
    def illumination(self) -> Illumination:
        """What the run began with, and its batches have throughout."""
        return Illumination.from_arrays({**self.weights, PROBE: self.initial_probe})

    def lights(self, count: int) -> list[Illumination]:
        """Of each of `count` scans: its own, or that of the first where it is of all."""
        return [self.illumination, *self.others] if self.others else [self.illumination] * count

    @property
    def network_weights(self) -> Weights:
        """What an engine builds the network with that goes on."""
        return network_weights(build_table(self.config.model), self.config, self.weights)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the file, whole or not at all; returns its path.

        A path without an ending is a folder, created if missing; the file in it is `checkpoint.h5.zip`.
        """
        config = {
            "model": self.config.model,
            "training": self.config,
            "execution": self.execution,
            "reading": self.reading,
        }
        best = {f"{model.best_epoch}/{name}": array for model in self.best for name, array in model.weights.items()}
        members = {
            "config.json": to_json({name: to_mapping(table) for name, table in config.items()}),
            "weights.safetensors": from_arrays(self.weights),
            "optimizer.safetensors": from_arrays(self.optimizer),
            "run.safetensors": from_arrays({INITIAL_PROBE: self.initial_probe, **best, **to_numbered(self.others)}),
            "history.csv": history_csv(self.history).encode(),
        }
        facts = {
            "engine": attrs.asdict(self.engine),
            "epoch": self.epoch,
            "scores": list(self.scores),
            "best": [{"epoch": model.best_epoch, "engine": attrs.asdict(model.engine)} for model in self.best],
            "scan": _plain(self.scans),
            "test": _plain(self.tests),
        }
        return write_container(path, CHECKPOINT, facts, members)


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """The checkpoint in a file, or in the folder that holds `checkpoint.h5.zip`.

    Raises ArchiveError naming the file, the member and the remedy.
    """
    target = located(path, CHECKPOINT)
    manifest, members = read_container(target, CHECKPOINT)
    with decoding(target, CHECKPOINT):
        config, tables = read_config_member(members["config.json"])
        table, N = build_table(config.model), config.model.N
        weights = to_arrays(members["weights.safetensors"], "weights")
        check_model_weights(table, weights, N)
        optimizer = to_arrays(members["optimizer.safetensors"], "optimizer state")
        check_optimizer_state(optimizer, _state_like(table, config, weights))
        history = from_history_csv(members["history.csv"])
        scores = _scores(manifest, history)
        run, others = from_numbered(to_arrays(members["run.safetensors"], "run"), N)
        initial_probe = run.pop(INITIAL_PROBE)
        check_model_weights(table, {**weights, PROBE: initial_probe}, N, modes=len(weights[PROBE]))
        best = []
        for facts in manifest["best"]:
            epoch, engine = whole_number(facts["epoch"]), EngineInfo.from_mapping(facts["engine"])
            prefix = f"{epoch}/"
            kept = {name.removeprefix(prefix): run.pop(name) for name in list(run) if name.startswith(prefix)}
            check_model_weights(table, kept, N, modes=len(weights[PROBE]))
            best.append(
                Model(
                    config=config,
                    weights=kept,
                    history=history,
                    engine=engine,
                    best_epoch=epoch,
                    backend=engine.name,
                )
            )
        if run or not best or any(not 0 <= model.best_epoch <= len(history) for model in best):
            raise ValueError("the best models are not those that the manifest names")
        return Checkpoint(
            config=config,
            execution=from_mapping(ExecutionConfig, tables["execution"], source="config.json"),
            reading=from_mapping(ReadOptions, tables.get("reading", {}), source="config.json"),
            weights=weights,
            optimizer=optimizer,
            initial_probe=initial_probe,
            history=history,
            scores=scores,
            best=tuple(best),
            engine=EngineInfo.from_mapping(manifest["engine"]),
            scans=_fingerprints(manifest["scan"]),
            tests=_fingerprints(manifest["test"]),
            others=others,
        )


def _scores(manifest: Mapping[str, Any], history: list[dict[str, float]]) -> tuple[float, ...]:
    epochs = [row["epoch"] for row in history]
    scores = tuple(float(score) for score in manifest["scores"])
    whole = whole_number(manifest["epoch"])
    if not scores or epochs != list(range(1, whole + 1)) or len(scores) != whole or not all(map(math.isfinite, scores)):
        expected = f"one row and one finite score for each of {whole} epochs, one at least"
        raise ArchiveError("history.csv", expected=expected, received=f"{len(history)} rows, {len(scores)} scores")
    return scores


def _state_like(table: Table, config: TrainingConfig, weights: Weights) -> dict[str, NDArray[np.floating]]:
    """Arrays of the names and shapes that the optimiser's state has."""
    moments, names = optimizer_moments(config), trainable_names(table, config)
    return {"step": np.zeros(()), **{f"{moment}/{name}": weights[name] for moment in moments for name in names}}


def _plain(fingerprints: tuple[Fingerprint, ...]) -> Any:
    """None, one, or a list of several."""
    plain = [dict(each) for each in fingerprints]
    return plain if len(plain) > 1 else next(iter(plain), None)


def _fingerprints(plain: Any) -> tuple[Fingerprint, ...]:
    several = [] if plain is None else plain if isinstance(plain, list) else [plain]
    return tuple({str(part): str(digest) for part, digest in each.items()} for each in several)
