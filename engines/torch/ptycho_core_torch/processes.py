"""Several processes over torch.distributed: gloo between processors, nccl between GPUs."""

from __future__ import annotations

import atexit
import contextlib
import logging
import math
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from ptycho_core.engine.launched import Place
from ptycho_core.engine.processes import Processes, reaching_others
from ptycho_core.engine.shared_rows import SharedRows
from ptycho_core.errors import ProcessError

N = TypeVar("N", bound=np.number)


class TorchProcesses(Processes):
    """Those of the framework's default group, which has been joined."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(dist.get_rank(), dist.get_world_size())
        self.device = device

    def _sum(self, array: NDArray[N]) -> NDArray[N]:
        tensor = torch.tensor(array, device=self.device)
        self.reduce(tensor)
        return np.asarray(tensor.cpu().numpy())

    def reduce(self, tensor: Tensor) -> None:
        """Sum a tensor on its device, in place.

        Two processors give each other what they have: gloo's sum of both takes twice as long.
        """
        with reaching_others(self, RuntimeError):
            if self.size == 2 and tensor.device.type == "cpu":
                theirs, other = torch.empty_like(tensor), 1 - self.rank
                given = dist.isend(tensor, other)
                dist.recv(theirs, other)
                given.wait()
                tensor.add_(theirs)
            else:
                dist.all_reduce(tensor)


def reduced(processes: Processes, tensors: Iterable[Tensor]) -> None:
    """Sum real or complex tensors of one type over the processes, in place and at once."""
    parts = [torch.view_as_real(x) if x.is_complex() else x for x in tensors]
    flat = parts[0].view(-1) if len(parts) == 1 else torch.cat([x.reshape(-1) for x in parts])
    if isinstance(processes, TorchProcesses):
        processes.reduce(flat)
    else:
        flat.copy_(torch.from_numpy(processes.sum(flat.cpu().numpy())))
    if len(parts) > 1:
        for part, total in zip(parts, flat.split([x.numel() for x in parts]), strict=True):
            part.copy_(total.view_as(part))


class Message:
    """What is summed before a step of a solver: the gradient by the rows that are shared, and that by the probe."""

    def __init__(self, processes: Processes, shared: SharedRows, canvas: Tensor, probe: Tensor) -> None:
        self.processes, self.places, self.all_held = processes, shared.places, shared.all_held
        shape = shared.message_shape(canvas.shape)
        size = math.prod(shape)
        self.both = canvas.new_zeros(size + probe.numel())
        self.rows, self.by_probe = self.both[:size].view(shape), self.both[size:].view(probe.shape)

    def sum(self, by_canvas: Tensor, by_probe: Tensor | None) -> None:
        """In place, and at once."""
        if not self.all_held:
            self.rows.zero_()  # what others hold
        for own, there in self.places:
            self.rows[there] = by_canvas[own]
        summed = self.both[: self.rows.numel()]
        if by_probe is not None:
            self.by_probe.copy_(by_probe)
            summed = self.both
        if summed.numel():
            reduced(self.processes, [summed])
        for own, there in self.places:
            by_canvas[own] = self.rows[there]
        if by_probe is not None:
            by_probe.copy_(self.by_probe)


def joined(place: Place, device: torch.device) -> TorchProcesses:
    """The processes of a launcher, as the framework's default group; once in a process."""
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if not os.environ.get(name):
            remedy = f"Start the command by torchrun, or export {name} (examples/slurm)."
            expected = f"where the processes meet, which {place.by} has not said"
            raise ProcessError("environment", name, expected=expected, received="nothing", remedy=remedy)
    if not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        own = {"device_id": device} if device.type == "cuda" else {}
        with reaching_others(Processes(place.rank, place.size), RuntimeError):  # a timeout is one, too
            dist.init_process_group(backend, rank=place.rank, world_size=place.size, **own)
        atexit.register(dist.destroy_process_group)  # its threads abort a process that ends before them
    return TorchProcesses(device)


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """The launcher leaves its own handlers of signals behind."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def launched(command: Sequence[str], count: int) -> int:
    """Run a command in `count` processes of this machine, by the framework's launcher; the exit code.

    Where one fails, the others are ended; a signal reaches all of them, as SIGTERM or SIGINT.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in ("agent.server.api", "multiprocessing.api"):  # the processes speak for themselves
        logging.getLogger(f"torch.distributed.elastic.{name}").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id="ptycho",
        max_restarts=0,
        monitor_interval=0.1,
    )
    program, *arguments = command
    try:
        with _handlers_kept():
            elastic_launch(config, program)(*arguments)
    except ChildFailedError as error:
        first, failure = error.get_first_failure()
        for rank, each in sorted(error.failures.items()):
            by_launcher = each.exitcode == -signal.SIGTERM and rank != first
            if each.exitcode < 0 and not by_launcher:
                name = signal.Signals(-each.exitcode).name
                print(f"Error: process {rank + 1} of {count} was ended by {name}.", file=sys.stderr)
        code = failure.exitcode
        return code if code >= 0 else 128 - code
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0
