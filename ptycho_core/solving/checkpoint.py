"""Where a solve stands after a whole sweep, and its file `solving.h5.zip` (specs/archive.md, Checkpoints)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.engine.protocol import EngineInfo
from ptycho_core.errors import ConfigurationError
from ptycho_core.models.container import (
    SOLVING,
    decoding,
    from_arrays,
    located,
    read_container,
    to_arrays,
    to_json,
    whole_number,
    write_container,
)
from ptycho_core.scans.fingerprint import Fingerprint
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.fields import fields_of, from_mapping, to_mapping
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.settings.rooted import rooted
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.vocabulary import Weights

FREE = ("backend", "output_dir", "data_file", "split_half")
"""Fields of SolveConfig that may be set again when a run goes on: they do not change its sweeps."""
FIXED = ("precision",)
"""Fields of ExecutionConfig that may not."""
SOLVING_NAME = SOLVING.name
POSITIONS, INTENSITY = "positions_px", "intensity"


@attrs.frozen(eq=False, kw_only=True)
class SolveCheckpoint:
    """All that a solve needs to go on, but its scan.

    weights, optimizer: the solver's, after the last whole sweep. positions_px: float64 (M, 2). intensity: float64 (M,).
    chosen: what the run was decided to refine, as plain values. trials: what was tried for it. history: a row a sweep.
    counts: Σ|P|² that the probe is kept at. engine: what took the last sweep. scan: its fingerprint. reading: how its
    file was read.
    """

    config: SolveConfig
    execution: ExecutionConfig
    weights: Weights
    optimizer: Weights
    positions_px: NDArray[np.float64]
    intensity: NDArray[np.float64]
    counts: float
    chosen: Mapping[str, Any]
    trials: list[dict[str, Any]]
    history: list[dict[str, float]]
    engine: EngineInfo
    scan: Fingerprint
    reading: ReadOptions = attrs.Factory(ReadOptions)

    @property
    def sweep(self) -> int:
        """The last whole sweep, from 1."""
        return len(self.history)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the file, whole or not at all; returns its path. A path without an ending is a folder."""
        tables = {"solving": self.config, "execution": self.execution, "reading": self.reading}
        run = {POSITIONS: self.positions_px, INTENSITY: self.intensity, "counts": np.array(self.counts)}
        members = {
            "config.json": to_json({name: to_mapping(table) for name, table in tables.items()}),
            "weights.safetensors": from_arrays(self.weights),
            "optimizer.safetensors": from_arrays(self.optimizer),
            "run.safetensors": from_arrays(run),
            "run.json": to_json({"chosen": dict(self.chosen), "trials": self.trials, "history": self.history}),
        }
        facts = {"engine": attrs.asdict(self.engine), "sweep": self.sweep, "scan": dict(self.scan)}
        return write_container(path, SOLVING, facts, members)


def load_solve_checkpoint(path: str | os.PathLike[str]) -> SolveCheckpoint:
    """The checkpoint in a file, or in the folder that holds `solving.h5.zip`. Raises ArchiveError."""
    target = located(path, SOLVING)
    manifest, members = read_container(target, SOLVING)
    with decoding(target, SOLVING):
        tables = json.loads(members["config.json"])
        run = to_arrays(members["run.safetensors"], "run")
        told = json.loads(members["run.json"])
        history = [{str(name): float(value) for name, value in row.items()} for row in told["history"]]
        if len(history) != whole_number(manifest["sweep"]) or not history:
            raise ValueError(f"{len(history)} rows of history for {manifest['sweep']} sweeps")
        positions, intensity = run[POSITIONS], run[INTENSITY]
        if positions.shape != (len(intensity), 2) or not all(np.isfinite(array).all() for array in run.values()):
            raise ValueError("positions and intensities do not belong together")
        return SolveCheckpoint(
            config=from_mapping(SolveConfig, tables["solving"], source="config.json"),
            execution=from_mapping(ExecutionConfig, tables["execution"], source="config.json"),
            reading=from_mapping(ReadOptions, tables["reading"], source="config.json"),
            weights=to_arrays(members["weights.safetensors"], "weights"),
            optimizer=to_arrays(members["optimizer.safetensors"], "optimizer state"),
            positions_px=positions.astype(np.float64),
            intensity=intensity.astype(np.float64),
            counts=float(run["counts"]),
            chosen=dict(told["chosen"]),
            trials=list(told["trials"]),
            history=history,
            engine=EngineInfo.from_mapping(manifest["engine"]),
            scan={str(part): str(digest) for part, digest in manifest["scan"].items()},
        )


def check_continues(checkpoint: SolveCheckpoint, config: SolveConfig, execution: ExecutionConfig) -> None:
    """Refuse what would make another run of it: ConfigurationError naming the field."""
    for begun, asked, names in (
        (rooted(checkpoint.config), rooted(config), [name for name in fields_of(SolveConfig) if name not in FREE]),
        (checkpoint.execution, execution, FIXED),
    ):
        for name in names:
            before, now = getattr(begun, name), getattr(asked, name)
            if now != before:
                expected = f"{'nothing' if before is None else before}, as the run began"
                remedy = "Leave it as it was, or begin a new run."
                raise ConfigurationError(type(begun).__name__, name, expected=expected, received=now, remedy=remedy)
