"""A network as Ptychodus knows it: a class that it hands on, and a model read from a file."""

from __future__ import annotations

import os
from typing import Any

from ptycho_core import Model, load_model


class PtychoPINN_Lightning:
    """loss_name, val_loss_name: under which the trainer has the losses of an epoch. archive: the trained model."""

    loss_name, val_loss_name = "train_loss", "val_loss"

    def __init__(self, archive: Model | None = None) -> None:
        self.archive = archive

    @classmethod
    def load_from_checkpoint(cls, path: str | os.PathLike[str], **configs: Any) -> PtychoPINN_Lightning:
        """configs: what the file says itself. Raises ArchiveError."""
        return cls(load_model(path))
