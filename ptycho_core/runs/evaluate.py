"""`ptycho evaluate`: a comparison with a truth in a folder."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from ptycho_core.errors import DataError
from ptycho_core.io.readers import read_known
from ptycho_core.models.model import ARCHIVE_NAME, load_model
from ptycho_core.quality.evaluation import evaluate
from ptycho_core.quality.truth import Truth, load_truth
from ptycho_core.reconstruction.result import Reconstruction, load_reconstruction
from ptycho_core.report.plots import plot_comparison
from ptycho_core.runs.console import Output
from ptycho_core.runs.folder import draw
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.storage.files import write_text
from ptycho_core.storage.hdf5 import signature_of

log = logging.getLogger(__name__)


def evaluate_into(reconstructed: Path, truth: Path, output: Output) -> tuple[dict[str, Any], str]:
    """`evaluation.json` and `evaluation.png` beside the reconstruction; returns the summary and a table."""
    result = load_reconstruction(reconstructed)
    folder = reconstructed if reconstructed.is_dir() else reconstructed.parent
    if (stale := _stale(result, folder)) is not None:
        log.warning("%s", stale)
    evaluation = evaluate(result, _truth(truth), pixel_m=result.pixel_m)
    titles = {"origin_px": result.origin_px, "title": f"{reconstructed} against {truth}"}
    with output.listening() as tell:
        figure = draw(tell, plot_comparison, evaluation, folder / "evaluation.png", **titles)
    summary = {**evaluation.as_dict(), "truth": str(truth), "figure": figure}
    write_text(folder / "evaluation.json", json.dumps(summary, indent=2) + "\n")
    shown = "" if figure is None else f"\n{figure}: both objects, their difference, and the resolution"
    return summary, f"{evaluation.table()}{shown}"


def _truth(path: Path) -> Truth:
    """The object of a reconstruction, or of a scan in any format. Raises DataError."""
    if (path.is_dir() and not (path / "diffraction.h5").exists()) or signature_of(path).startswith(b"PK"):
        return load_truth(path)
    scan = read_known(path, ReadOptions())
    if scan.object_field is None:
        remedy = "Give a file with the true object."
        raise DataError(path, "object", expected="a scan with an object", received="none", remedy=remedy)
    return Truth(object_field=scan.object_field, source=str(path))


def _stale(result: Reconstruction, folder: Path) -> str | None:
    """A sentence where the model beside the result is not the one that made it."""
    archive = folder / ARCHIVE_NAME
    if result.model_digest is None or not archive.exists() or load_model(archive).digest == result.model_digest:
        return None
    return f"{folder}: the reconstruction is not of the model in {archive.name}, which has been trained since."
