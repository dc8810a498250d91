"""Reassembly, under the name of the module that Ptychodus looks for it in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.model_manager import Predicted


def reassemble_position(predicted: Predicted, global_offsets: Any, M: int) -> NDArray[np.complex64]:
    """The object on the grid of the object that the scan came with, complex64 (H, W); 0 where no patch lies.

    M: the published crop of a patch, which a weight by the probe's intensity replaces: the whole patch is placed, as
    PTYCHO_WEIGHTING and PTYCHO_MIDDLE_TRIM say.
    """
    return predicted.reconstruction.on_grid(predicted.shape)
