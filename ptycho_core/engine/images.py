"""What a network that changes images is taught with (specs/prior.md): numpy arrays, no framework."""

from __future__ import annotations

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.networks.table import Table


@attrs.frozen(eq=False, kw_only=True)
class Images:
    """One batch of images.

    maps: float32 (B, H, W, C), what the network sees. wanted: float32 (B, H, W, 2), what its two maps shall be.
    weight: float32 (B, H, W), of each pixel in the loss, 0 or more.
    """

    maps: NDArray[np.float32]
    wanted: NDArray[np.float32]
    weight: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.maps)

    def check(self, table: Table) -> None:
        """Refuse images that do not fit each other or the table: DataError."""
        check_maps(self.maps, table)
        shape = self.maps.shape[:3]
        for name, array, expected in (("wanted", self.wanted, (*shape, 2)), ("weight", self.weight, shape)):
            if array.shape != expected:
                remedy = "Correct what the network is given."
                raise DataError("images", name, expected=f"shape {expected}", received=array.shape, remedy=remedy)


def check_maps(maps: NDArray[np.float32], table: Table) -> None:
    """Refuse maps that the table cannot be run on: DataError."""
    channels, block = table.in_channels, table.block
    fits = maps.ndim == 4 and len(maps) > 0 and maps.shape[3] == channels
    if not fits or 0 in maps.shape or any(side % block for side in maps.shape[1:3]):
        remedy = "Correct what the network is given."
        expected = f"shape (B, H, W, {channels}), B > 0, H and W multiples of {block}"
        raise DataError("images", "maps", expected=expected, received=maps.shape, remedy=remedy)
