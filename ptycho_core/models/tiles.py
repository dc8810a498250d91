"""An image network at work on an image of any size (specs/prior.md, Tiles)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptycho_core.engine.protocol import ImageNetwork

TILE_PX = 512  # specs/prior.md, Tiles


def whole(
    network: ImageNetwork, block: int, reach_px: int, maps: NDArray[np.float32], tile_px: int = TILE_PX
) -> NDArray[np.float32]:
    """The network's two maps (H, W, 2), worked out in tiles with as much around them as it sees.

    Up to whole blocks the edge is repeated below and to the right. Tiles begin at whole blocks, so that they are what
    the whole is.
    """
    height, width = maps.shape[:2]
    maps = np.pad(maps, ((0, -height % block), (0, -width % block), (0, 0)), mode="edge")
    result = np.empty((*maps.shape[:2], 2), np.float32)
    border, side = -(-reach_px // block) * block, max(block, tile_px // block * block)
    for y in range(0, maps.shape[0], side):
        for x in range(0, maps.shape[1], side):
            top, left = max(0, y - border), max(0, x - border)
            tile = maps[top : y + side + border, left : x + side + border]
            inner = network.run(tile[None])[0][y - top : y - top + side, x - left : x - left + side]
            result[y : y + side, x : x + side] = inner
    return result[:height, :width]
