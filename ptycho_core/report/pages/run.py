"""The report of a folder: what its runs were, and what they have come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_core.errors import DataError, visible
from ptycho_core.models.model import ARCHIVE_NAME
from ptycho_core.reconstruction.result import FILE_NAME, Reconstruction, load_reconstruction
from ptycho_core.report.facts import scan_table
from ptycho_core.report.pages.document import save_page
from ptycho_core.report.pages.figures import Maps, Model, curves, plotting, positions, resolution
from ptycho_core.report.pages.images import canvas_of, of_error, of_mode, of_object, of_pattern
from ptycho_core.report.plots.losses import NOT_LOSSES
from ptycho_core.report.plots.objects import Canvas
from ptycho_core.report.record import read_record

REPORT_NAME = "report.html"
MOST_MODES = 8


def write_report(folder: Path, path: Path) -> Path:
    """Write the report of the runs in a folder, as one file that works offline.

    Raises DataError where the folder holds nothing to report, MissingExtraError without the extra `pages`.
    """
    plotting()
    runs = read_record(folder)
    result = load_reconstruction(folder) if (folder / FILE_NAME).exists() else None
    if not runs and result is None:
        received = "neither run.json nor reconstruction.npz" if folder.is_dir() else "no such folder"
        remedy = "Give the output folder of ptycho train, solve or reconstruct."
        raise DataError(folder, expected="the folder of a run", received=received, remedy=remedy)
    figures: dict[str, Model] = {} if result is None else object_figures(result)
    maps = list(figures)
    figures |= _curves(runs, result)
    return save_page(
        path,
        "report.html.jinja",
        figures,
        title=visible(f"{', '.join(runs) or 'reconstruction'}: {folder.resolve().name}"),
        headline=headline(folder, runs, result),
        runs=[_told(work, run) for work, run in reversed(runs.items())],
        maps=maps,
        plots=[name for name in figures if name not in maps],
        modes=[] if result is None else _modes(result),
        frames=[] if result is None else _frames(result),
    )


def canvas_of_result(result: Reconstruction) -> Canvas:
    known = result.overlap_count > 0 if result.known is None else result.known
    return canvas_of(known, result.origin_px, result.positions_px, result.pixel_m)


def object_figures(result: Reconstruction) -> dict[str, Model]:
    """Amplitude, phase, trust map and positions, which zoom together."""
    canvas = canvas_of_result(result)
    images = dict(zip(("amplitude", "phase"), of_object(result.object_field, canvas), strict=True))
    if result.predicted_error is not None:
        images["trust"] = of_error(result.predicted_error, canvas)
    maps = Maps.of(list(images), canvas)
    for name, image in images.items():
        maps.show(name, image, canvas)
    moved = result.given_positions_px
    figure = positions(
        result.positions_px,
        canvas,
        beside=maps.figures["amplitude"],
        before_px=None if moved is None or np.array_equal(moved, result.positions_px) else moved,
        misfit=result.frame_R,
        frames=result.frames,
        bad=result.bad_frames,
    )
    return {**maps.figures, "positions": figure}


def headline(folder: Path, runs: Mapping[str, Any], result: Reconstruction | None) -> str:
    parts = []
    if result is not None:
        height, width = result.object_field.shape
        parts += [f"{width} x {height} pixels of {result.patterns} patches", f"{result.method}, {result.engine.name}"]
        parts += [f"{name} {value:.4g}" for name, value in (("R", result.R), ("H", result.H)) if value is not None]
        if result.frc is not None:
            parts.append(f"resolution {result.frc.resolution(result.pixel_m)}")
    if "train" in runs and runs["train"]["history"]:
        parts.append(f"{len(runs['train']['history'])} epochs, {ARCHIVE_NAME}")
    return visible("; ".join(parts))


def _curves(runs: Mapping[str, Any], result: Reconstruction | None) -> dict[str, Model]:
    found: dict[str, Model] = {}
    if "train" in runs and (rows := losses(runs["train"]["history"])):
        found["losses"] = curves(rows, title="losses", x="epoch", y="loss")
    if result is not None and (rows := misfits(result.history)):
        found["misfit"] = curves(rows, title="misfit by sweep", x="sweep", y="Σ(|F| − A)² / ΣA²")
    if result is not None and result.frc is not None:
        found["frc"] = resolution(result.frc, result.pixel_m)
    return found


def losses(history: Sequence[Mapping[str, Any]]) -> dict[str, tuple[list[float], list[float]]]:
    """The loss terms of a training by epoch; those of one of several scans are left out."""
    names = dict.fromkeys(name for row in history for name in row if name not in NOT_LOSSES and "/" not in name)
    return _columns(history, "epoch", names)


def misfits(history: Sequence[Mapping[str, Any]]) -> dict[str, tuple[list[float], list[float]]]:
    """R and H of a solve by sweep."""
    return _columns(history, "sweep", [name for name in ("R", "H") if any(row.get(name) for row in history)])


def _columns(history: Sequence[Mapping[str, Any]], x: str, names: Any) -> dict[str, tuple[list[float], list[float]]]:
    places = [float(row.get(x) or number) for number, row in enumerate(history, start=1)]
    return {name: (places, [_number(row.get(name)) for row in history]) for name in names}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _modes(result: Reconstruction) -> list[dict[str, str]]:
    power = (np.abs(result.probe.astype(np.complex128)) ** 2).sum(axis=(1, 2))
    shares = 100 * power / max(power.sum(), np.finfo(float).tiny)
    return [
        {"uri": of_mode(mode), "share": f"{share:.3g} %"}
        for mode, share in zip(result.probe[:MOST_MODES], shares, strict=False)
    ]


def _frames(result: Reconstruction) -> list[dict[str, str]]:
    """The worst frames, and one of median misfit."""
    pairs: list[tuple[str, Any, Any]] = []
    if result.worst_frames is not None and result.worst_measured is not None and result.worst_modelled is not None:
        places = (
            dict(zip(result.frames.tolist(), range(result.patterns), strict=True)) if result.frames is not None else {}
        )
        for number, measured, modelled in zip(
            result.worst_frames.tolist(), result.worst_measured, result.worst_modelled, strict=True
        ):
            misfit = "" if result.frame_R is None else f", R {result.frame_R[places[number]]:.3g}"
            pairs.append((f"frame {number}, among the worst{misfit}", measured, modelled))
    if result.measured_amplitude is not None and result.modelled_amplitude is not None:
        pairs.append(
            (f"frame {result.pattern_frame}, of median misfit", result.measured_amplitude, result.modelled_amplitude)
        )
    shown = []
    for title, measured, modelled in pairs:
        top = float(np.square(measured, dtype=np.float64).max())
        shown.append({"title": title, "measured": of_pattern(measured, top), "modelled": of_pattern(modelled, top)})
    return shown


def _told(work: str, run: Mapping[str, Any]) -> dict[str, Any]:
    """A run for the template: text alone."""
    own, defaults = [], []
    for table, values in run["settings"].items():
        rows = [
            {"name": name, "value": _shown(entry["value"]), "origin": visible(str(entry["from"])), "own": False}
            for name, entry in values.items()
        ]
        own.append((table, [row for row in rows if not row["origin"].startswith("default")]))
        defaults.append((table, [row for row in rows if row["origin"].startswith("default")]))
    engine = run.get("engine") or {}
    ended = f"ended {run.get('ended')}, engine {engine.get('name')} on {', '.join(engine.get('devices', ()))}"
    return {
        "work": work,
        "command": run.get("command") and visible(str(run["command"])),
        "ended": ended if run.get("stopped") is None else f"{ended}; ended early: {visible(str(run['stopped']))}",
        "warnings": [visible(str(warning)) for warning in run["warnings"]],
        "settings": own,
        "defaults": defaults,
        "seconds": [
            (name, f"{value:.3g} s") for name, value in run["seconds"].items() if isinstance(value, int | float)
        ],
        "versions": [(name, visible(str(value))) for name, value in run["versions"].items()],
        "scans": [_scan(facts) for facts in run["scans"]],
    }


def _scan(facts: Mapping[str, Any]) -> dict[str, Any]:
    findings = [visible(f"{each['what']}: {each['received']}. {each['remedy']}") for each in facts.get("findings", ())]
    return {"table": scan_table(facts), "findings": findings}


def _shown(value: Any) -> str:
    return "unset" if value is None else visible(str(value))
