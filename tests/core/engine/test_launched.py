"""Where a launcher has put a process, and what contradicts it; the start of a command in several."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest

from ptycho_core.engine.launched import Place, joined, place_of
from ptycho_core.errors import BackendError, ConfigurationError, ProcessError
from ptycho_core.settings.execution import ExecutionConfig

HERE = ExecutionConfig()


def cluster(index: object, *workers: str) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})}


def test_a_worker_counts_those_of_its_machine() -> None:
    place = place_of(HERE, cluster(3, "a:1", "b:1", "b:2", "b:3"))
    assert place == Place(rank=3, size=4, local_rank=2, by="TF_CONFIG")
    assert place is not None and place.words == "process 4 of 4"


def test_a_launcher_of_one_process_leaves_it_alone() -> None:
    assert place_of(HERE, {"RANK": "0", "WORLD_SIZE": "1"}) is None
    assert place_of(HERE, cluster(0, "a:1")) is None


@pytest.mark.parametrize(
    ("environment", "execution", "told"),
    [
        ({"RANK": "1"}, HERE, r"environment: WORLD_SIZE: expected a number, as torchrun sets it; received nothing"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, HERE, r"RANK: expected a number.*received 'x'"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, HERE, r"RANK: expected less than WORLD_SIZE = 2; received 2"),
        ({"TF_CONFIG": "{"}, HERE, r"TF_CONFIG: expected .*received {"),
        (cluster(2, "a:1"), HERE, r"TF_CONFIG: expected"),
        ({}, ExecutionConfig(strategy="slurm"), r"SLURM_PROCID: expected a number, as srun sets it; received nothing"),
    ],
)
def test_half_an_environment_is_an_error_that_names_the_variable(
    environment: dict[str, str], execution: ExecutionConfig, told: str
) -> None:
    with pytest.raises(ProcessError, match=told):
        place_of(execution, environment)


def test_several_machines_need_a_launcher() -> None:
    with pytest.raises(ConfigurationError, match=r"num_nodes must be 1 where the command starts.*got 2.*torchrun"):
        place_of(ExecutionConfig(num_nodes=2), {})


def test_an_engine_that_works_alone_is_refused_for_several() -> None:
    engine = SimpleNamespace(name="mine")
    assert joined(engine, HERE, None) is None
    with pytest.raises(BackendError, match=r"'mine': expected an engine that several processes share; received 3 proc"):
        joined(engine, ExecutionConfig(devices=3), None)


def test_a_command_is_started_again_in_as_many_processes_as_it_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["ptycho", "train", "scan.npz", "--devices", "2"])
    asked = []
    engine = SimpleNamespace(
        name="mine", join=None, launch=lambda command, execution: asked.append((command[1:], execution.devices)) or 7
    )
    with pytest.raises(SystemExit) as end:
        joined(engine, ExecutionConfig(devices=2), None)
    assert end.value.code == 7
    assert asked == [(["-m", "ptycho_core", "train", "scan.npz", "--devices", "2"], 2)]
