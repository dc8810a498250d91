"""What this framework offers on this machine, and the making of networks and solvers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ptycho_core.batches.batch import Batch
from ptycho_core.engine.launched import Place
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
from ptycho_core_torch.export import save_program
from ptycho_core_torch.images import TorchImageNetwork
from ptycho_core_torch.network import TorchNetwork
from ptycho_core_torch.processes import joined, launched
from ptycho_core_torch.solving import TorchSolver


class TorchEngine:
    """Engine protocol of specs/engine.md."""

    name = "torch"
    protocol = 2
    exports = ("torch-export",)

    def describe(self) -> EngineInfo:
        return EngineInfo("torch", "PyTorch", str(torch.__version__), _devices(), ("32-true", "64-true", "bf16-mixed"))

    def build(
        self,
        model: ModelConfig,
        training: TrainingConfig | None,
        weights: Weights,
        execution: ExecutionConfig,
        processes: Processes = ALONE,
    ) -> TorchNetwork:
        device, precision = _prepare(execution), execution.precision
        return TorchNetwork(model, training, weights, device=device, precision=precision, processes=processes)

    def start_solver(
        self,
        problem: Problem,
        execution: ExecutionConfig,
        processes: Processes = ALONE,
        shared: SharedRows | None = None,
    ) -> TorchSolver:
        device, precision = _prepare(execution), execution.precision
        return TorchSolver(problem, device=device, precision=precision, processes=processes, shared=shared)

    def join(self, place: Place, execution: ExecutionConfig) -> Processes:
        return joined(place, own_device(place, execution))

    def launch(self, command: Sequence[str], execution: ExecutionConfig) -> int:
        check_devices(execution.devices, select_device(execution.accelerator))
        return launched(command, execution.devices)

    def build_image_network(
        self, table: Table, training: TrainingConfig | None, weights: Weights, execution: ExecutionConfig
    ) -> TorchImageNetwork:
        device = _prepare(execution)
        return TorchImageNetwork(table, training, weights, device=device, precision=execution.precision)

    def export(
        self, form: str, model: ModelConfig, weights: Weights, batch: Batch, target: Path, facts: Mapping[str, str]
    ) -> None:
        save_program(model, weights, batch, target, facts)


def _prepare(execution: ExecutionConfig) -> torch.device:
    """The device, and the switches of the whole process that the configuration asks for."""
    device = select_device(execution.accelerator)
    if device == "cuda":  # this framework's default rounds float32 convolutions to TensorFloat-32
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    if device == "cuda" and execution.deterministic:  # without it, matrix products are refused in this mode
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # For the whole process, because the framework knows no narrower switch; only where it changes, because the switch
    # imports a compiler, which takes as long as the framework itself.
    if torch.are_deterministic_algorithms_enabled() != execution.deterministic:
        torch.use_deterministic_algorithms(execution.deterministic)
    if device == "mps" and execution.precision != "32-true":
        expected, remedy = "32-true on mps", "Set precision to 32-true, or accelerator to cpu."
        received = repr(execution.precision)
        raise BackendError("ExecutionConfig", "precision", expected=expected, received=received, remedy=remedy)
    return torch.device(device)


def _devices() -> tuple[str, ...]:
    cuda = ("cuda",) if torch.cuda.is_available() else ()
    mps = ("mps",) if torch.backends.mps.is_available() else ()
    return (*cuda, *mps, "cpu")


def select_device(accelerator: str) -> str:
    """The device for `accelerator`; BackendError when it is not there."""
    devices = _devices()
    chosen = {"auto": devices[0], "gpu": next((name for name in devices if name != "cpu"), "gpu")}
    device = chosen.get(accelerator, accelerator)
    if device not in devices:
        expected = f"auto, or a device that PyTorch sees: {', '.join(devices)}"
        remedy = "Set accelerator to auto to take the first of them."
        raise BackendError(
            "ExecutionConfig", "accelerator", expected=expected, received=repr(accelerator), remedy=remedy
        )
    return device


def own_device(place: Place, execution: ExecutionConfig) -> torch.device:
    """The device of this process: of several GPUs the one of its rank on this machine."""
    device = select_device(execution.accelerator)
    check_devices(place.local_rank + 1, device)
    if device == "cuda":
        torch.cuda.set_device(place.local_rank)
        return torch.device(device, place.local_rank)
    return torch.device(device)


def check_devices(count: int, device: str) -> None:
    """BackendError where there are fewer devices; processes on processors share them, however many there are."""
    there = [f"{device}:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    if device == "mps":
        there = ["mps"]
    if device != "cpu" and count > len(there):
        expected = f"at most {len(there)}, the devices that PyTorch sees: {', '.join(there)}"
        remedy = "Lower devices, or set accelerator to cpu."
        raise BackendError("ExecutionConfig", "devices", expected=expected, received=count, remedy=remedy)
