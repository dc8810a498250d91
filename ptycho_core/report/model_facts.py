"""What a model archive or a checkpoint is and holds, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ptycho_core.engine.protocol import EngineInfo
from ptycho_core.models.checkpoint import CHECKPOINT_NAME, Checkpoint, load_checkpoint
from ptycho_core.models.container import CHECKPOINT, MODEL, SOLVING, archive_kind, read_manifest
from ptycho_core.models.model import load_model
from ptycho_core.networks.registry import build_table
from ptycho_core.scans.fingerprint import Fingerprint
from ptycho_core.settings.fields import default_of, fields_of
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.solving.checkpoint import load_solve_checkpoint
from ptycho_core.training.schedules import learning_rate
from ptycho_core.vocabulary import COUNTS_PER_INTENSITY, INPUT_SCALE, LOG_SCALE, MEAN_INTENSITY, OBJECT, PROBE, Weights


def model_or_checkpoint_facts(path: Path) -> dict[str, Any]:
    """The facts of a file of ours, its digests verified; ArchiveError where they do not hold."""
    facts = {CHECKPOINT: _checkpoint_facts, SOLVING: _solving_facts}
    return facts.get(archive_kind(path) or MODEL, _model_facts)(path)


def _model_facts(path: Path) -> dict[str, Any]:
    model = load_model(path)
    row = next((row for row in model.history if row["epoch"] == model.best_epoch), {})
    facts = {
        "kind": MODEL.noun,
        **_written_by(path, model.engine),
        **_network(model.config, model.weights),
        "best_epoch": model.best_epoch,
        "epochs": len(model.history),
        "loss": row.get("total"),
        **({"scans": len(model.seen)} if model.others else {}),
        **_scale(model.weights),
        "intensity_scale": model.parameters()["intensity_scale"],
        "settings": _settings(model.config),
    }
    beside = path.parent / CHECKPOINT_NAME
    if path.name == MODEL.name and beside.exists():
        facts["checkpoint"] = _stand(load_checkpoint(beside))
    return facts


def _checkpoint_facts(path: Path) -> dict[str, Any]:
    checkpoint = load_checkpoint(path)
    config, execution = checkpoint.config, checkpoint.execution
    ended = checkpoint.epoch >= config.nepochs
    return {
        "kind": CHECKPOINT.noun,
        **_written_by(path, checkpoint.engine),
        **_network(config, checkpoint.weights),
        "stands": _stand(checkpoint),
        "epoch": checkpoint.epoch,
        "epochs": config.nepochs,
        "loss": checkpoint.history[-1]["total"],
        "next_learning_rate": None if ended else learning_rate(config, checkpoint.epoch + 1, checkpoint.scores),
        "optimizer": config.optimizer,
        "steps": int(checkpoint.optimizer["step"]),
        "monitored": execution.checkpoint_monitor_metric,
        "best_epochs": [model.best_epoch for model in checkpoint.best],
        "precision": execution.precision,
        **_scale(checkpoint.weights),
        "scan": _short(checkpoint.scans),
        "test": _short(checkpoint.tests),
        "settings": _settings(config),
    }


def _solving_facts(path: Path) -> dict[str, Any]:
    checkpoint = load_solve_checkpoint(path)
    config, last = checkpoint.config, checkpoint.history[-1]
    height, width, _ = checkpoint.weights[OBJECT].shape
    return {
        "kind": SOLVING.noun,
        **_written_by(path, checkpoint.engine),
        "N": checkpoint.weights[PROBE].shape[1],
        "frames": len(checkpoint.intensity),
        "object_shape": [height, width],
        "stands": f"after sweep {checkpoint.sweep} of {config.sweeps}",
        "sweep": checkpoint.sweep,
        "sweeps": config.sweeps,
        "R": last["R"],
        "H": last["H"],
        "refined": list(checkpoint.chosen["refined"]),
        "probe_modes": checkpoint.chosen["modes"],
        "prior": checkpoint.chosen["prior"],
        "prior_weight": checkpoint.chosen["prior_weight"],
        "precision": checkpoint.execution.precision,
        "scan": _short((checkpoint.scan,)),
        "settings": _changed(config),
    }


def _short(fingerprints: Sequence[Fingerprint]) -> Any:
    """The beginnings of the digests: None, of one scan, or a list of several."""
    short = [{part: digest[:12] for part, digest in each.items()} for each in fingerprints]
    return short if len(short) > 1 else next(iter(short), None)


def _stand(checkpoint: Checkpoint) -> str:
    return f"after epoch {checkpoint.epoch} of {checkpoint.config.nepochs}"


def _written_by(path: Path, engine: EngineInfo) -> dict[str, Any]:
    manifest = read_manifest(path)
    return {
        "written_by": f"{engine.name} ({engine.framework} {engine.version})",
        "ptycho_core": str(manifest["ptycho_core"]),
        "version": manifest["version"],
        "bytes": path.stat().st_size,
        "digests": "verified",
    }


def _network(config: TrainingConfig, weights: Weights) -> dict[str, Any]:
    network = config.model
    return {
        "N": network.N,
        "gridsize": network.gridsize,
        "architecture": network.architecture,
        "model_type": network.model_type,
        "probe_modes": len(weights[PROBE]),
        "parameters": sum(weights[name].size for name in build_table(network).parameters),
        "weights": str(weights[LOG_SCALE].dtype),
    }


def _scale(weights: Weights) -> dict[str, float]:
    """The data scale and the trained factor on the amplitude: specs/physics.md, Scale."""
    names = (INPUT_SCALE, MEAN_INTENSITY, COUNTS_PER_INTENSITY, LOG_SCALE)
    return {name.rpartition("/")[2]: float(weights[name]) for name in names}


def _settings(config: TrainingConfig) -> dict[str, Any]:
    return _changed(config.model, config)


def _changed(*tables: Any) -> dict[str, Any]:
    """The fields that are not at their defaults."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for table in tables
        for name, field in fields_of(type(table)).items()
        if (value := getattr(table, name)) != default_of(table, field)
    }
