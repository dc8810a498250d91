"""The making of reference networks and solvers."""

from __future__ import annotations

import numpy as np

from ptycho_core.engine.problem import Problem
from ptycho_core.engine.processes import ALONE, Processes
from ptycho_core.engine.protocol import EngineInfo
from ptycho_core.engine.shared_rows import SharedRows
from ptycho_core.errors import BackendError
from ptycho_core.networks.table import Table
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.vocabulary import Weights
from ptycho_core_reference.images import ReferenceImageNetwork
from ptycho_core_reference.network import ReferenceNetwork
from ptycho_core_reference.solving import ReferenceSolver


class ReferenceEngine:
    """Engine protocol of specs/engine.md, always on the CPU and in float64, whatever precision is asked for."""

    name = "reference"
    protocol = 2
    network: type[ReferenceNetwork] = ReferenceNetwork
    solver: type[ReferenceSolver] = ReferenceSolver

    def describe(self) -> EngineInfo:
        return EngineInfo(self.name, "numpy", np.__version__, ("cpu",), ("64-true",))

    def build(
        self,
        model: ModelConfig,
        training: TrainingConfig | None,
        weights: Weights,
        execution: ExecutionConfig,
        processes: Processes = ALONE,
    ) -> ReferenceNetwork:
        _check_accelerator(execution)
        network = self.network(model, training, weights)
        network.processes = processes
        return network

    def start_solver(
        self,
        problem: Problem,
        execution: ExecutionConfig,
        processes: Processes = ALONE,
        shared: SharedRows | None = None,
    ) -> ReferenceSolver:
        _check_accelerator(execution)
        solver = self.solver(problem)
        solver.processes, solver.shared = processes, shared
        return solver

    def build_image_network(
        self, table: Table, training: TrainingConfig | None, weights: Weights, execution: ExecutionConfig
    ) -> ReferenceImageNetwork:
        _check_accelerator(execution)
        return ReferenceImageNetwork(table, training, weights)


def _check_accelerator(execution: ExecutionConfig) -> None:
    if execution.accelerator not in ("auto", "cpu"):
        expected, received = "auto, or a device that numpy sees: cpu", repr(execution.accelerator)
        remedy = "Set accelerator to auto."
        raise BackendError("ExecutionConfig", "accelerator", expected=expected, received=received, remedy=remedy)
