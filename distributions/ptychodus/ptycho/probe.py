"""The probe is the model's."""

from __future__ import annotations

from typing import Any


def set_probe_guess(X_train: Any, probe_guess: Any) -> None:
    """Nothing to set: a model predicts with, and patches are weighted by, the probe that it was trained with."""
