"""`canvas`: data steps on a group's canvas, each followed by a U-Net that corrects it (specs/model.md)."""

from __future__ import annotations

from ptycho_core.networks.table import INPUT, Table, TableBuilder
from ptycho_core.networks.unet import add_unet
from ptycho_core.settings.model import ModelConfig

PARTS = 2
"""Real and imaginary part."""


def canvas(model: ModelConfig) -> Table:
    """Warm sweeps, then blocks of a data step and a correction; untrained, it is its data steps alone."""
    table = TableBuilder(PARTS)
    zeros: list[str] = []
    x = table.warm_sweeps("warm", INPUT, model.warm_sweeps) if model.warm_sweeps else INPUT
    width = 16 * model.n_filters_scale
    for block in range(model.canvas_blocks):
        name = f"block{block}"
        stepped = table.data_step(f"{name}/step", x)
        heads = add_unet(table, table.in_gauge(f"{name}/view", stepped), (width, 2 * width), prefix=f"{name}/")
        zeros += heads
        x = table.correct(f"{name}/correct", stepped, table.concat(f"{name}/maps", *heads))
    return table.finish(canvas=x, zeros=tuple(zeros))
