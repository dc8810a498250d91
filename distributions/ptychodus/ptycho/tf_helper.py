"""Reassembly, under the name of the module that Ptychodus looks for it in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.model_manager import Predicted
from ptycho_core.embedding import ObjectGrid


def reassemble_position(predicted: Predicted, global_offsets: Any, M: int) -> NDArray[np.complex64]:
    """The object on the grid of the object that the scan came with, complex64 (H, W); there it stays without a patch.

    M: the published crop of a patch, which a weight by the probe's intensity replaces: the whole patch is placed, as
    PTYCHO_WEIGHTING and PTYCHO_MIDDLE_TRIM say.
    """
    reconstruction, beneath = predicted.reconstruction, predicted.beneath
    field = reconstruction.object_field
    grid = ObjectGrid(shape=field.shape if beneath is None else beneath.shape, pixel_m=(1.0, 1.0))
    return grid.place(field, field != 0, reconstruction.origin_px, beneath)[0]
