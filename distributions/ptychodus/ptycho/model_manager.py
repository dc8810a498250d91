"""The model that was trained last in this process, and models as Ptychodus uses them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho import params
from ptycho.raw_data import Patterns
from ptycho_core import ExecutionConfig, InferenceConfig, Model, Reconstruction, reconstruct
from ptycho_core.cli.options import environment_values
from ptycho_core.errors import ConfigurationError
from ptycho_core.settings.fields import from_mapping
from ptycho_core.storage.files import make_folder

_trained: list[Model] = []
"""Holds one model at most: Ptychodus asks to save what it has trained without naming it."""


def keep(model: Model) -> None:
    """Make it the one that `save` writes."""
    _trained[:] = [model]


def save(directory: str | os.PathLike[str]) -> None:
    """Write `wts.h5.zip` into the folder, created if missing. ConfigurationError where nothing is trained."""
    if not _trained:
        remedy = "Call ptycho.workflows.components.run_cdi_example first."
        raise ConfigurationError(
            "ptycho.model_manager.save", expected="a trained model", received="none", remedy=remedy
        )
    _trained[0].save(make_folder(Path(directory)))


@attrs.frozen(eq=False)
class Predicted:
    """The object of a scan, reassembled batch by batch, and the one (H, W) that the scan came with, or None."""

    reconstruction: Reconstruction
    beneath: NDArray[np.complex64] | None


@attrs.frozen(eq=False)
class Bundle:
    """A trained model with the one method that Ptychodus calls."""

    model: Model

    def predict(self, inputs: Sequence[Any]) -> Predicted:
        """inputs: [X, offsets] of a container. Raises what `ptycho_core.reconstruct` raises.

        The patches are placed as they come, so that memory never holds all of them.
        """
        patterns: Patterns = inputs[0]
        trained = self.model.config.model.gridsize
        if patterns.gridsize != trained:
            remedy = f"Set GridSize of the PtychoPINN model settings to {trained}."
            raise ConfigurationError(
                "GridSize", expected=f"{trained}, as the model was trained", received=patterns.gridsize, remedy=remedy
            )
        settings = {
            **environment_values("inference"),
            "n_groups": patterns.n_groups,
            "neighbor_count": patterns.neighbor_count,
            "debug": bool(params.cfg.get("debug", False)),
        }
        result = reconstruct(
            patterns.scan,
            self.model,
            config=from_mapping(InferenceConfig, settings),
            execution=from_mapping(ExecutionConfig, environment_values("execution")),
            progress=False,
        )
        return Predicted(result, patterns.scan.object_field)
