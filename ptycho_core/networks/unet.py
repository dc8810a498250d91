"""`canvas_unet`, the small U-Net of the learned prior (specs/prior.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ptycho_core.networks.table import INPUT, Table, TableBuilder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HEADS = ("head/real", "head/imaginary")


def canvas_unet(in_channels: int, widths: Sequence[int]) -> Table:
    """in_channels maps → two, of images of any shape whose sides are multiples of 2^(levels - 1).

    A level of `widths`: two convolutions, and again two on the way up, which see the same level's first ones beside
    what comes from below (Ronneberger, Fischer and Brox, MICCAI 2015).
    """
    table, x, skips = TableBuilder(in_channels), INPUT, []
    for level, width in enumerate(widths):
        if level:
            skips.append(x)
            x = table.max_pool(f"down{level}/pool", x)
        x = table.conv_block(f"down{level}", x, width)
    for level in reversed(range(len(widths) - 1)):
        x = table.upsample(f"up{level}/upsample", x)
        x = table.concat(f"up{level}/concat", x, skips.pop())
        x = table.conv_block(f"up{level}", x, widths[level])
    real, imaginary = (table.conv(head, x, 1, "linear") for head in HEADS)
    return table.finish(amplitude=real, phase=imaginary)


def first_weights(table: Table, rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    """Those of `initial_weights`, but the last kernels 0: an untaught network changes nothing."""
    from ptycho_core.networks.initial import initial_weights  # with numpy, which a table does without

    weights = initial_weights(table, rng)
    for head in HEADS:
        weights[f"{head}/kernel"][:] = 0
    return weights
