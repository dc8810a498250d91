"""Where a launcher has put this process: read from its environment (specs/engine.md, Several processes).

It imports no numpy and no framework, so that contradictions are refused before a scan is read.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from ptycho_core.errors import BackendError, ConfigurationError, ProcessError
from ptycho_core.settings.execution import ExecutionConfig

if TYPE_CHECKING:
    from ptycho_core.engine.processes import Processes

SLURM = {"rank": "SLURM_PROCID", "size": "SLURM_NTASKS", "local_rank": "SLURM_LOCALID"}
TORCHRUN = {"rank": "RANK", "size": "WORLD_SIZE", "local_rank": "LOCAL_RANK"}


@attrs.frozen
class Place:
    """A process of several. local_rank: among those of its machine. by: what started it, as users know it."""

    rank: int
    size: int
    local_rank: int
    by: str

    @property
    def words(self) -> str:
        return f"process {self.rank + 1} of {self.size}"


def place_of(execution: ExecutionConfig, environment: Mapping[str, str] | None = None) -> Place | None:
    """The place that a launcher has given this process; None for one that works alone or starts others.

    Raises ProcessError where the environment says half of it, ConfigurationError where it contradicts the settings.
    """
    place = _given(execution.strategy, os.environ if environment is None else environment)
    wanted = execution.devices * execution.num_nodes
    if place is not None and wanted not in (1, place.size):
        raise ConfigurationError(
            "ExecutionConfig",
            "devices",
            expected=f"{place.size} / num_nodes, as many as {place.by} has started, or unset",
            received=f"{execution.devices} with num_nodes {execution.num_nodes}",
            remedy=f"Leave both at 1, or start {wanted} processes.",
        )
    if place is None and execution.num_nodes > 1:
        raise ConfigurationError(
            "ExecutionConfig",
            "num_nodes",
            expected="1 where the command starts its processes itself",
            received=execution.num_nodes,
            remedy=(
                "Start the command on every machine: by torchrun --nnodes, with TF_CONFIG, or by srun and "
                "--strategy slurm (examples/slurm)."
            ),
        )
    return place if place is None or place.size > 1 else None


def joined(engine: Any, execution: ExecutionConfig, place: Place | None) -> Processes | None:
    """The processes of this one's place, joined by the engine; None where it has none and is to work alone.

    Where it is to start others, it does, waits for them, and ends with their exit code.
    """
    if place is None and execution.devices == 1:
        return None
    check_shares(engine.name, execution.devices if place is None else place.size, hasattr(engine, "join"))
    if place is not None:
        processes: Processes = engine.join(place, execution)
        return processes
    command = [sys.executable, "-m", "ptycho_core", *sys.argv[1:]]
    raise SystemExit(engine.launch(command, execution))


def check_shares(name: str, size: int, shares: bool) -> None:
    """BackendError for an engine that works alone."""
    if not shares:
        remedy = "Choose another backend, or leave devices at 1."
        expected, received = "an engine that several processes share", f"{size} processes"
        raise BackendError(f"backend {name!r}", expected=expected, received=received, remedy=remedy)


def _given(strategy: str, environment: Mapping[str, str]) -> Place | None:
    if strategy == "slurm":
        return _numbers(environment, SLURM, "srun", "Start the command by srun, or leave strategy at auto.")
    if any(environment.get(name) for name in ("RANK", "WORLD_SIZE")):
        return _numbers(environment, TORCHRUN, "torchrun", "Start the command by torchrun, or unset RANK, WORLD_SIZE.")
    if environment.get("TF_CONFIG"):
        return _of_cluster(environment["TF_CONFIG"])
    return None


def _numbers(environment: Mapping[str, str], names: Mapping[str, str], by: str, remedy: str) -> Place:
    found = {}
    for field, name in names.items():
        text = environment.get(name, "0" if field == "local_rank" else "")
        if not text.isdecimal():
            received = repr(text) if text else "nothing"
            raise ProcessError(
                "environment", name, expected=f"a number, as {by} sets it", received=received, remedy=remedy
            )
        found[field] = int(text)
    if not found["rank"] < found["size"]:
        expected = f"less than {names['size']} = {found['size']}"
        raise ProcessError("environment", names["rank"], expected=expected, received=found["rank"], remedy=remedy)
    return Place(**found, by=by)


def _of_cluster(text: str) -> Place:
    try:
        told = json.loads(text)
        workers, rank = [str(each) for each in told["cluster"]["worker"]], int(told["task"]["index"])
        before = workers[:rank]
        host = workers[rank].rpartition(":")[0]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ProcessError(
            "environment",
            "TF_CONFIG",
            expected='{"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}',
            received=text[:200],
            remedy="Correct it, or unset it.",
        ) from error
    return Place(rank, len(workers), [each.rpartition(":")[0] for each in before].count(host), "TF_CONFIG")
