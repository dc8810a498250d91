"""What a training can be refused for before a pattern is read: settings, architecture, backend, the run that goes on.

It imports no reader and no framework, so that a misspelt setting is refused at once, whatever the size of the scan.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from ptycho_core.engine.objective import check_monitor
from ptycho_core.engine.optimizers import OPTIMIZERS
from ptycho_core.engine.registry import find_engine
from ptycho_core.errors import MissingExtraError
from ptycho_core.networks.registry import architecture_of, build_table, fields_read
from ptycho_core.registry import Registry
from ptycho_core.settings.effects import idle_fields
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.training.resuming import check_continues, with_its_groups, with_its_schedule
from ptycho_core.vocabulary import AUTO

if TYPE_CHECKING:
    from ptycho_core.engine.protocol import Engine
    from ptycho_core.models.checkpoint import Checkpoint
    from ptycho_core.training.reports import Log, LoggedRun

log = logging.getLogger(__name__)

PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow"}
"""Loggers that are extras, and what they need."""
LOGGERS: Registry[Callable[[Path, LoggedRun], AbstractContextManager[Log]]] = Registry(
    "logger",
    ("ExecutionConfig", "logger"),
    group="ptycho_core.loggers",
    ours={name: f"ptycho_core.training.loggers:{name}" for name in ("csv", "tensorboard", "mlflow", "none")},
)
"""Where the losses of a run go. One is called with the output folder and the run; its context gives a `Log`."""


@attrs.frozen(eq=False, kw_only=True)
class Prepared:
    """A training that nothing but its scans can refuse any more: what `start` takes.

    config, execution: copies, which later changes do not reach. load_engine: imports the framework, which is known to
    be there, and makes the engine. resume: the run that goes on.
    """

    config: TrainingConfig
    execution: ExecutionConfig
    load_engine: Callable[[], Engine]
    resume: Checkpoint | None


def prepare(
    config: TrainingConfig,
    *,
    execution: ExecutionConfig | None = None,
    resume: Checkpoint | None = None,
    sized: bool = True,
) -> Prepared:
    """Check all that needs no scan. execution: by default that of `resume`, or else the defaults.

    sized: whether `model.N` is known already; otherwise the network's layers are not looked at. Raises
    ConfigurationError or BackendError.
    """
    config.validate()
    if resume is not None:
        config = with_its_groups(resume.config, with_its_schedule(resume.config, config))
    if execution is None:
        execution = ExecutionConfig() if resume is None else resume.execution
    elif resume is not None and execution.checkpoint_monitor_metric == AUTO:
        execution = attrs.evolve(execution, checkpoint_monitor_metric=resume.execution.checkpoint_monitor_metric)
    architecture_of(config.model)
    if sized:
        build_table(config.model)
    OPTIMIZERS.load(config.optimizer)
    check_monitor(execution, config)
    for name, reason in idle_fields(config, fields_read(config.model)):
        log.warning("%s has no effect %s", name, reason)
    if resume is not None:
        check_continues(resume, config, execution)
    # Another engine goes on to rounding alone, so the one that began is preferred.
    automatic = resume is not None and config.backend == "auto"
    return Prepared(
        config=attrs.evolve(config, model=attrs.evolve(config.model)),
        execution=attrs.evolve(execution),
        load_engine=find_engine(resume.engine.name if resume is not None and automatic else config.backend),
        resume=resume,
    )


def check_logger(name: str) -> None:
    """ConfigurationError for an unknown logger, MissingExtraError where its package cannot be found."""
    name = LOGGERS.check(name)
    package = PACKAGES.get(name)
    if package is not None and importlib.util.find_spec(package) is None:
        instead = ", or choose logger = csv"
        raise MissingExtraError.of(f"logger {name!r}", package, name, setting="logger", instead=instead)
