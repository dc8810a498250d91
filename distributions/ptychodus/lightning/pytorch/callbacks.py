"""The base class of what `ptycho_torch.api.base_api.Trainer` calls after an epoch."""

from __future__ import annotations

from typing import Any


class Callback:
    """Its methods are called with the trainer, which has `current_epoch` and `callback_metrics`, and the module."""

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """After the test scan; never without one."""

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """After it, at the end of every epoch."""
