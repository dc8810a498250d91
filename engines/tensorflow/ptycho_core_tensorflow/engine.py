"""What this framework offers on this machine, and the making of networks and solvers."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow as tf

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
from ptycho_core_tensorflow.export import save_program
from ptycho_core_tensorflow.images import TensorFlowImageNetwork
from ptycho_core_tensorflow.network import TensorFlowNetwork
from ptycho_core_tensorflow.processes import joined, launched
from ptycho_core_tensorflow.solving import TensorFlowSolver


class TensorFlowEngine:
    """Engine protocol of specs/engine.md."""

    name = "tensorflow"
    protocol = 2
    exports = ("savedmodel",)

    def describe(self) -> EngineInfo:
        return EngineInfo("tensorflow", "TensorFlow", tf.__version__, _devices(), ("32-true", "64-true", "bf16-mixed"))

    def build(
        self,
        model: ModelConfig,
        training: TrainingConfig | None,
        weights: Weights,
        execution: ExecutionConfig,
        processes: Processes = ALONE,
    ) -> TensorFlowNetwork:
        device, precision = _prepare(execution), execution.precision
        return TensorFlowNetwork(model, training, weights, device=device, precision=precision, processes=processes)

    def start_solver(
        self,
        problem: Problem,
        execution: ExecutionConfig,
        processes: Processes = ALONE,
        shared: SharedRows | None = None,
    ) -> TensorFlowSolver:
        device, precision = _prepare(execution), execution.precision
        return TensorFlowSolver(problem, device=device, precision=precision, processes=processes, shared=shared)

    def join(self, place: Place, execution: ExecutionConfig) -> Processes:
        return joined(place, own_device(place, execution))

    def launch(self, command: Sequence[str], execution: ExecutionConfig) -> int:
        check_devices(execution.devices, select_device(execution.accelerator))
        return launched(command, execution.devices)

    def build_image_network(
        self, table: Table, training: TrainingConfig | None, weights: Weights, execution: ExecutionConfig
    ) -> TensorFlowImageNetwork:
        device = _prepare(execution)
        return TensorFlowImageNetwork(table, training, weights, device=device, precision=execution.precision)

    def export(
        self, form: str, model: ModelConfig, weights: Weights, batch: Batch, target: Path, facts: Mapping[str, str]
    ) -> None:
        save_program(model, weights, batch, target, facts)


def _prepare(execution: ExecutionConfig) -> str:
    """The device, and the switches of the whole process that the configuration asks for."""
    if first_process() != os.getpid():
        received = f"process {os.getpid()}, forked from {first_process()}, which has used it and keeps its threads"
        remedy = "Start processes by spawn or forkserver (multiprocessing.get_context), or use ptycho_core.embedding."
        raise BackendError("TensorFlow", expected="the process that began with it", received=received, remedy=remedy)
    device = select_device(execution.accelerator)
    if device == "/GPU:0":  # this framework's default rounds float32 products to TensorFloat-32
        tf.config.experimental.enable_tensor_float_32_execution(False)
    if execution.deterministic:  # for the whole process and for good: the framework knows no narrower switch
        tf.config.experimental.enable_op_determinism()
    return device


@functools.cache
def first_process() -> int:
    """The process that has used the framework first; one forked from it lacks its threads and would wait for ever."""
    return os.getpid()


def _devices() -> tuple[str, ...]:
    cuda = ("cuda",) if tf.config.list_physical_devices("GPU") else ()
    return (*cuda, "cpu")


def select_device(accelerator: str) -> str:
    """The framework's name of the device for `accelerator`; BackendError when it is not there."""
    devices = _devices()
    chosen = {"auto": devices[0], "gpu": next((name for name in devices if name != "cpu"), "gpu")}
    device = chosen.get(accelerator, accelerator)
    if device not in devices:
        expected = f"auto, or a device that TensorFlow sees: {', '.join(devices)}"
        remedy = "Set accelerator to auto to take the first of them."
        raise BackendError(
            "ExecutionConfig", "accelerator", expected=expected, received=repr(accelerator), remedy=remedy
        )
    return {"cuda": "/GPU:0", "cpu": "/CPU:0"}[device]


def own_device(place: Place, execution: ExecutionConfig) -> str:
    """The device of this process: of several GPUs the one of its rank on this machine, which is all that it sees."""
    device = select_device(execution.accelerator)
    check_devices(place.local_rank + 1, device)
    gpus = tf.config.list_physical_devices("GPU")
    tf.config.set_visible_devices([gpus[place.local_rank]] if device == "/GPU:0" else [], "GPU")
    return device


def check_devices(count: int, device: str) -> None:
    """BackendError where there are fewer devices; processes on processors share them, however many there are."""
    there = [each.name.removeprefix("/physical_device:") for each in tf.config.list_physical_devices("GPU")]
    if device == "/GPU:0" and count > len(there):
        expected = f"at most {len(there)}, the devices that TensorFlow sees: {', '.join(there)}"
        remedy = "Lower devices, or set accelerator to cpu."
        raise BackendError("ExecutionConfig", "devices", expected=expected, received=count, remedy=remedy)
