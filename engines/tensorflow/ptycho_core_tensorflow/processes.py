"""Several processes over tf.distribute: the collectives of MultiWorkerMirroredStrategy, gRPC or NCCL."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho_core.engine.launched import Place
from ptycho_core.engine.processes import Processes, reaching_others
from ptycho_core.errors import ProcessError

POLL_S, PATIENCE_S = 0.1, 25.0
N = TypeVar("N", bound=np.number)
GROUP = 2**20
"""Of all workers, in collectives: a number that the strategy, which counts from 1, gives none of its own."""


class TensorFlowProcesses(Processes):
    """The workers of a strategy, each of which has one device."""

    def __init__(self, strategy: tf.distribute.MultiWorkerMirroredStrategy, device: str) -> None:
        resolver = strategy.cluster_resolver
        super().__init__(int(resolver.task_id), int(strategy.num_replicas_in_sync))
        self.strategy, self.device = strategy, device
        self._graphs: dict[object, Any] = {}

    def _sum(self, array: NDArray[N]) -> NDArray[N]:
        with tf.device(self.device):
            return np.asarray(self.reduce(tf.constant(array)).numpy())

    def reduce(self, tensor: tf.Tensor) -> tf.Tensor:
        """The sum of a tensor over the workers."""
        key = tensor.dtype, tuple(tensor.shape)
        if key not in self._graphs:
            made = tf.function(functools.partial(self._all_reduced, len(self._graphs)), autograph=False)
            self._graphs[key] = made.get_concrete_function(tf.TensorSpec(tensor.shape, tensor.dtype))
        with reaching_others(self, tf.errors.OpError):
            return self._graphs[key](tensor)

    def _all_reduced(self, number: int, tensor: tf.Tensor) -> tf.Tensor:
        """The op that the strategy comes to, which takes longer about it. number: of the graph, alike in all."""
        with tf.device(self.device):
            return tf.raw_ops.CollectiveReduceV2(
                input=tensor,
                group_size=self.size,
                group_key=GROUP,
                instance_key=number,
                ordering_token=[],
                merge_op="Add",
                final_op="Id",
                max_subdivs_per_device=-1,
            )


def reduced(processes: Processes, tensor: tf.Tensor) -> tf.Tensor:
    """The sum of a real tensor over the processes."""
    if isinstance(processes, TensorFlowProcesses):
        return processes.reduce(tensor)
    return tf.constant(processes.sum(tensor.numpy()))


@functools.lru_cache(maxsize=1)
def joined(place: Place, device: str) -> TensorFlowProcesses:
    """The workers that TF_CONFIG names, or the tasks of a Slurm step; once in a process, as the framework allows."""
    resolvers = tf.distribute.cluster_resolver
    if place.by not in ("srun", "TF_CONFIG"):
        remedy = "Set TF_CONFIG, start the command by srun with --strategy slurm, or leave the start to --devices."
        expected = f"where the workers are, which {place.by} does not say"
        raise ProcessError("environment", "TF_CONFIG", expected=expected, received="nothing", remedy=remedy)
    resolver = resolvers.SlurmClusterResolver(auto_set_gpu=False) if place.by == "srun" else None
    strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    return TensorFlowProcesses(strategy, device)


def launched(command: Sequence[str], count: int) -> int:
    """Run a command in `count` processes of this machine, which the framework has no launcher for; the exit code.

    Where one fails, the others are ended; a signal reaches all of them.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("localhost", 0))
        workers = [f"localhost:{each.getsockname()[1]}" for each in sockets]
    children = []
    for index in range(count):
        told = json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})
        environment = {**os.environ, "TF_CONFIG": told}
        children.append(subprocess.Popen(command, env=environment, start_new_session=True))
    ending, code = signal.SIGTERM, 0
    try:
        while all(child.poll() in (None, 0) for child in children) and any(child.poll() is None for child in children):
            time.sleep(POLL_S)
    except KeyboardInterrupt as stop:
        ending = signal.Signals(getattr(stop, "signum", signal.SIGINT))
        code = 128 + ending
    finally:
        failed = {rank: child.returncode for rank, child in enumerate(children) if child.returncode}
        _end(children, ending)
    for rank, ended in failed.items():
        if ended < 0:
            print(f"Error: process {rank + 1} of {count} was ended by {signal.Signals(-ended).name}.", file=sys.stderr)
    return code or next((ended if ended > 0 else 128 - ended for ended in failed.values()), 0)


def _end(children: Sequence[subprocess.Popen[bytes]], ending: signal.Signals) -> None:
    """End those that are left: they have time to save what is done."""
    until = time.monotonic() + PATIENCE_S
    for child in children:
        if child.poll() is None:
            child.send_signal(ending)
    for child in children:
        try:
            child.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
