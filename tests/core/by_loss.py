"""Trainings whose best weights a loss chooses: a fake engine is told its losses, and has no object to be judged by."""

from __future__ import annotations

from typing import Any

from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.training.fit import Fit
from ptycho_core.training.fit import fit as fit_by_default

BY_LOSS = ExecutionConfig(checkpoint_monitor_metric="total")


def fit(*scans: Any, **more: Any) -> Fit:
    """As users call it, but for that; a run that goes on has the execution that it began with."""
    if more.get("resume") is None:
        more.setdefault("execution", BY_LOSS)
    return fit_by_default(*scans, **more)
