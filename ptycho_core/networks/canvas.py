"""`canvas`: data steps on a group's canvas, each followed by a few convolutions that correct it (specs/model.md)."""

from __future__ import annotations

from ptycho_core.networks.table import INPUT, Table, TableBuilder
from ptycho_core.settings.model import ModelConfig

PARTS = 2
"""Real and imaginary part."""


def canvas(model: ModelConfig) -> Table:
    """Warm sweeps, then blocks of a data step and a correction; untrained, it is its data steps alone."""
    table, heads = TableBuilder(PARTS), []
    x = table.warm_sweeps("warm", INPUT, model.warm_sweeps) if model.warm_sweeps else INPUT
    for block in range(model.canvas_blocks):
        name = f"block{block}"
        stepped = table.data_step(f"{name}/step", x)
        maps = table.conv_block(name, table.in_gauge(f"{name}/view", stepped), 8 * model.n_filters_scale)
        heads.append(table.conv(f"{name}/head", maps, PARTS, "linear"))
        x = table.correct(f"{name}/correct", stepped, heads[-1])
    return table.finish(canvas=x, zeros=tuple(heads))
