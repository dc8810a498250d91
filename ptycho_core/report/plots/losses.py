"""Losses against epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import DataError
from ptycho_core.report.plots.drawing import Axes, StrPath, new_figure, save

NOT_LOSSES = frozenset({"epoch", "learning_rate", "physics_weight", "seconds"})
DEVIANCES = ("reduced_deviance", "held_out")
"""Terms of another size, which have axes of their own."""


def plot_losses(history: Sequence[Mapping[str, float]], path: StrPath, *, best_epoch: int | None = None) -> None:
    """Every loss term against epochs, on a logarithmic axis when all are positive; the best epoch is marked.

    history: one row per epoch, with "epoch", "total" (training), and where known "validation_total" and further terms,
    drawn thinner, deviances below; whatever starts with "validation_" is dashed. What is of one of several scans is
    left out. Missing and NaN entries leave gaps.
    DataError: no rows, or rows without "epoch" and "total".
    """
    if not history or not all({"epoch", "total"} <= row.keys() for row in history):
        received = "no rows" if not history else f"keys {sorted(history[0])}"
        remedy = "Pass the history of a training run."
        raise DataError("plot_losses", "history", expected="'epoch', 'total'", received=received, remedy=remedy)
    epochs = [row["epoch"] for row in history]
    names = dict.fromkeys(name for row in history for name in row if name not in NOT_LOSSES and "/" not in name)
    curves = {name: np.array([row.get(name, np.nan) for row in history], np.float64) for name in names}
    terms = list(dict.fromkeys(_term(name) for name in ("total", *curves)))
    apart = [term for term in terms if term in DEVIANCES]
    figure = new_figure(8.0, 6.4 if apart else 4.6)
    panels = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2)) if apart else [figure.add_subplot()]
    for axes, drawn in zip(panels, ([term for term in terms if term not in apart], apart), strict=False):
        _draw(axes, epochs, {name: curve for name, curve in curves.items() if _term(name) in drawn}, terms)
        if best_epoch is not None:
            label = f"best epoch, {best_epoch}"
            axes.axvline(best_epoch, color="0.4", linewidth=1, linestyle=":", label=label, zorder=1)
        axes.set_ylabel("loss" if axes is panels[0] else "deviance")
        axes.grid(True, which="both", alpha=0.25)
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.5)
    panels[0].set_title("losses")
    panels[-1].set_xlabel("epoch")
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    save(figure, path)


def _term(name: str) -> str:
    return name.removeprefix("validation_")


def _draw(axes: Axes, epochs: Sequence[float], curves: Mapping[str, NDArray[np.float64]], terms: Sequence[str]) -> None:
    for name in sorted(curves, key=lambda name: (terms.index(_term(name)), name)):
        term = _term(name)
        axes.plot(
            epochs,
            curves[name],
            label=term.replace("_", " ") + (", validation" if term != name else ""),
            color=f"C{terms.index(term) % 10}",
            linestyle="-" if term == name else "--",
            linewidth=3.0 if term == "total" else 1.0,
            marker="o" if len(epochs) <= 30 else None,
            markersize=3,
            zorder=2 if term == "total" else 3,  # a term that is all of the total lies on it
        )
    values = np.concatenate(list(curves.values()))
    values = values[np.isfinite(values)]
    if len(values) and (values > 0).all():
        axes.set_yscale("log")
