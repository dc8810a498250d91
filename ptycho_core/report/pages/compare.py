"""Runs side by side: their figures, their objects and the differences after alignment, the settings that differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from ptycho_core.errors import ConfigurationError, DataError, visible
from ptycho_core.quality.evaluation import Comparison, evaluate
from ptycho_core.quality.truth import Truth
from ptycho_core.reconstruction.result import FILE_NAME, Reconstruction, load_reconstruction
from ptycho_core.report.pages.document import save_page
from ptycho_core.report.pages.figures import Maps, Model, curves, plotting
from ptycho_core.report.pages.images import coloured, of_object
from ptycho_core.report.pages.run import canvas_of_result, losses, misfits
from ptycho_core.report.plots.drawing import DIFFERENCE_MAP, ERROR_MAP, limits_of
from ptycho_core.report.record import read_record

PICTURE_BYTES = 400_000


@attrs.frozen(eq=False)
class _Run:
    name: str
    runs: Mapping[str, Any]
    result: Reconstruction | None


def write_comparison(folders: Sequence[Path], path: Path) -> dict[str, Any]:
    """Write the page of two or more runs, all held against the first; returns the figures as plain values.

    Raises ConfigurationError for fewer than two, DataError where a folder holds no run, or its object does not
    overlap the first one's.
    """
    plotting()
    if len(folders) < 2:
        remedy = "Give the folders of two runs or more."
        raise ConfigurationError("compare", "runs", expected="two or more", received=len(folders), remedy=remedy)
    runs = [_opened(folder, name) for folder, name in zip(folders, _names(folders), strict=True)]
    first, others = runs[0], runs[1:]
    comparisons = {run.name: _against(first, run) for run in others}
    figures: dict[str, Model] = {}
    objects = []
    warnings = [
        f"{name}: {comparison.warning()}"
        for name, comparison in comparisons.items()
        if comparison is not None and comparison.doubt is not None
    ]
    for run in runs:
        comparison = comparisons.get(run.name)
        if run.result is not None:
            made = _object(run.result, first.result, comparison, figures)
            figures |= {f"{run.name}: {name}": figure for name, figure in made.items()}
            title = run.name if comparison is None else f"{run.name}, and its difference from {first.name}"
            objects.append({"title": title, "figures": [f"{run.name}: {name}" for name in made]})
    plots = _plots(runs)
    rows = [
        {"name": run.name, "values": [_shown(value) for value in _row(run, comparisons.get(run.name)).values()]}
        for run in runs
    ]
    save_page(
        path,
        "compare.html.jinja",
        {**figures, **plots},
        title=" against ".join(run.name for run in runs),
        warnings=[visible(warning) for warning in warnings],
        columns=list(_row(first, None)),
        rows=rows,
        objects=objects,
        plots=list(plots),
        runs=[run.name for run in runs],
        settings=_differing(runs),
    )
    return {
        "comparison": str(path),
        "runs": {run.name: _row(run, comparisons.get(run.name)) for run in runs},
        "settings": {row["name"]: row["values"] for row in _differing(runs)},
    }


def _names(folders: Sequence[Path]) -> list[str]:
    """Short names of the folders, all different."""
    names = [visible(folder.resolve().name) for folder in folders]
    return [
        name if names.count(name) == 1 else visible(str(folder)) for name, folder in zip(names, folders, strict=True)
    ]


def _opened(folder: Path, name: str) -> _Run:
    runs = read_record(folder) if folder.is_dir() else {}
    there = folder.is_file() or (folder / FILE_NAME).exists()
    if not runs and not there:
        received = "neither run.json nor reconstruction.npz" if folder.is_dir() else "no such folder"
        remedy = "Give the output folder of ptycho train, solve or reconstruct."
        raise DataError(folder, expected="the folder of a run", received=received, remedy=remedy)
    return _Run(name, runs, load_reconstruction(folder) if there else None)


def _against(first: _Run, run: _Run) -> Comparison | None:
    if first.result is None or run.result is None:
        return None
    result = first.result
    truth = Truth(
        object_field=result.object_field,
        origin_px=result.origin_px,
        source=first.name,
        known=canvas_of_result(result).known,
    )
    return evaluate(run.result, truth, pixel_m=run.result.pixel_m)


def _object(
    result: Reconstruction, first: Reconstruction | None, comparison: Comparison | None, made: Mapping[str, Model]
) -> dict[str, Model]:
    """Amplitude and phase, and beside them what differs from the first; all of the page zoom together."""
    canvas = canvas_of_result(result)
    field = result.object_field
    if comparison is not None:  # without what diffraction cannot determine, where both are known
        canvas = attrs.evolve(canvas, known=comparison.compared, focus=comparison.compared)
        field = comparison.estimate.astype(np.complex64)
    images = dict(zip(("amplitude", "phase"), of_object(field, canvas, most_bytes=PICTURE_BYTES), strict=True))
    if comparison is not None:
        inside = comparison.compared
        difference = np.angle(comparison.estimate * np.conj(comparison.truth))
        reach = max(abs(limit) for limit in limits_of(difference[inside]))
        images["difference"] = coloured(
            difference,
            inside,
            (-reach, reach),
            DIFFERENCE_MAP,
            title=f"phase, difference, mean |·| {np.abs(difference[inside]).mean():.3g}",
            label="rad",
            most_bytes=PICTURE_BYTES,
        )
        change = np.abs(comparison.estimate - comparison.truth)
        images["change"] = coloured(
            change,
            inside,
            (0.0, limits_of(change[inside])[1]),
            ERROR_MAP,
            title=f"|difference| of the objects, mean {change[inside].mean():.3g}",
            label="",
            most_bytes=PICTURE_BYTES,
        )
    maps = Maps.of(list(images), canvas)
    for name, image in images.items():
        maps.show(name, image, canvas)
    if made:
        beside = next(iter(made.values()))
        for figure in maps.figures.values():
            figure.x_range, figure.y_range = beside.x_range, beside.y_range
    return maps.figures


def _plots(runs: Sequence[_Run]) -> dict[str, Model]:
    found: dict[str, Model] = {}
    sweeps = {
        f"{run.name}: {name}": row
        for run in runs
        if run.result is not None
        for name, row in misfits(run.result.history).items()
    }
    epochs = {
        f"{run.name}: {name}": row
        for run in runs
        if "train" in run.runs
        for name, row in losses(run.runs["train"]["history"]).items()
        if name.removeprefix("validation_") == "total"
    }
    rings = {
        run.name: (run.result.frc.frequency.tolist(), run.result.frc.correlation.tolist())
        for run in runs
        if run.result is not None and run.result.frc is not None
    }
    if epochs:
        found["losses"] = curves(epochs, title="losses", x="epoch", y="loss")
    if sweeps:
        found["misfit"] = curves(sweeps, title="misfit by sweep", x="sweep", y="Σ(|F| − A)² / ΣA²")
    if rings:
        title = "two halves of the frames"
        found["frc"] = curves(rings, title=title, x="spatial frequency (cycles/px)", y="correlation", linear=True)
    return found


def _row(run: _Run, comparison: Comparison | None) -> dict[str, Any]:
    result = run.result
    frc = None if result is None or result.frc is None else result.frc.resolution(result.pixel_m)
    return {
        "R": None if result is None else result.R,
        "H": None if result is None else result.H,
        "deviance": None if result is None else result.deviance,
        "resolution": frc,
        "correlation with the first": None if comparison is None else comparison.metrics.correlation,
        "shift (x, y) px": None
        if comparison is None
        else [round(move, 3) for move in comparison.metrics.alignment.shift_px],
        "seconds": None if result is None else result.seconds.get("total"),
    }


def _differing(runs: Sequence[_Run]) -> list[dict[str, Any]]:
    tables: list[dict[str, str]] = []
    for run in runs:
        told: dict[str, str] = {}
        for each in run.runs.values():
            for table, values in each["settings"].items():
                told |= {f"{table}.{name}": _shown(entry["value"]) for name, entry in values.items()}
        if not told and run.result is not None:
            told = {str(name): _shown(value) for name, value in run.result.settings.items()}
        tables.append(told)
    names = dict.fromkeys(name for told in tables for name in told)
    rows = [{"name": name, "values": [told.get(name, "") for told in tables]} for name in names]
    return [row for row in rows if len(set(row["values"])) > 1]


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else visible(str(value))
