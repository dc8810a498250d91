"""Where and how a run computes."""

from __future__ import annotations

from typing import Literal

import attrs

from ptycho_core.settings.explained import explained
from ptycho_core.settings.fields import at_least, check_effects, setting, what_is_set
from ptycho_core.vocabulary import AUTO, MONITORED


def _a_loss(value: object) -> str | None:
    """A check that a loss term is named."""
    return "a loss term" if value == AUTO else None


@explained
@attrs.define(kw_only=True)
class ExecutionConfig:
    """Where and how an engine computes, and what it logs; never what a result means."""

    __repr__ = what_is_set

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = setting(
        "auto",
        "Device: auto takes a GPU if the framework finds one; gpu is cuda or mps, whichever the machine has.",
        common=True,
    )
    devices: int = setting(
        1, "Devices to use on each machine, by a process each; with 1, as many as a launcher has started.", at_least(1)
    )
    num_nodes: int = setting(1, "Machines to use, on each of which a launcher starts the command.", at_least(1))
    strategy: Literal["auto", "slurm"] = setting(
        "auto",
        "How the processes find each other: auto by what torchrun or TF_CONFIG says, or as the command starts them "
        "itself; slurm as the tasks of the srun that started it.",
    )
    precision: Literal["32-true", "64-true", "bf16-mixed"] = setting(
        "32-true", "Floating-point precision; bf16-mixed runs the network's layers in bfloat16.", common=True
    )
    deterministic: bool = setting(
        False, "Refuse operations of the framework whose result differs from run to run; slower on a GPU."
    )
    num_workers: int = setting(
        1, "Threads that gather batches ahead of time; with 0, each is gathered when it is needed.", at_least(0)
    )
    inference_batch_size: int = setting(32, "Groups predicted at a time.", at_least(1), common=True)
    enable_checkpointing: bool = setting(
        True, "Write the best model whenever it improves; otherwise only when the run ends."
    )
    checkpoint_save_top_k: int = setting(1, "How many of the best models a run keeps.", at_least(1))
    checkpoint_monitor_metric: MONITORED = setting(
        AUTO,
        "What selects the best weights, of the test scan where there is one: a loss term; or auto: held-out pixels "
        "with a network of a canvas, R of the merged object with another, total where that is supervised.",
    )
    checkpoint_mode: Literal["min", "max"] = setting(
        "min",
        "Whether a lower or a higher checkpoint_monitor_metric is better.",
        beside={"checkpoint_monitor_metric": _a_loss},
    )
    logger: str = setting(
        "csv",
        "Where losses are logged: csv (history.csv, of a solve sweeps.csv), tensorboard, mlflow, none (only the model "
        "archive), or another registered one.",
        name=True,
    )
    enable_progress_bar: bool = setting(True, "Show a progress bar on a terminal.")

    def __attrs_post_init__(self) -> None:
        check_effects(self)

    def for_any_processes(self) -> ExecutionConfig:
        """The same, without how many processes and machines there are: what a checkpoint keeps."""
        return attrs.evolve(self, devices=1, num_nodes=1, strategy="auto")
