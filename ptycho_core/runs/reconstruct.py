"""`ptycho reconstruct`: a reconstruction in a folder, and sweeps of a solve that begin with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from ptycho_core.batches.sampling import subsample
from ptycho_core.engine.processes import ALONE, Processes, never
from ptycho_core.events import told, told_file
from ptycho_core.models.model import Model
from ptycho_core.reconstruction.predict import reconstruction_steps
from ptycho_core.reconstruction.result import RESULT_BYTES, Reconstruction, canvas_pixels
from ptycho_core.reconstruction.writing import check_pixel_known
from ptycho_core.report.plots import plot_reconstruction
from ptycho_core.report.record import write_record
from ptycho_core.runs.console import Output
from ptycho_core.runs.folder import (
    after_result,
    draw,
    following,
    leading,
    reported,
    rescued,
    stoppable,
    written_images,
)
from ptycho_core.runs.solve import Solved, solve_into
from ptycho_core.scans.lengths import Lengths
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.inference import InferenceConfig
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.solving.refinement import going_on
from ptycho_core.storage.files import check_space, write_text
from ptycho_core.storage.keeping import locked


def reconstruct_into(
    folder: Path,
    scan: Scan,
    model: Model,
    *,
    backend: str | None = None,
    config: InferenceConfig | None = None,
    execution: ExecutionConfig | None = None,
    reading: ReadOptions | None = None,
    output: Output | None = None,
    formats: Sequence[str] = (),
    processes: Processes | None = None,
    should_stop: Callable[[], bool] = never,
) -> tuple[Reconstruction, dict[str, Any] | None]:
    """Reconstruct, and write `reconstruction.npz`, `.json` and `.png` into `folder`; the summary comes second.

    reading: how the scan's file was read. formats: further files of the object, by the names of `IMAGE_FORMATS`.
    processes: those that reconstruct together, of which the first writes; the others have no summary. should_stop: ends
    the run as Ctrl-C does.
    """
    processes, reading = processes or ALONE, reading or ReadOptions()
    config = config or InferenceConfig()
    steps = reconstruction_steps(
        scan,
        model,
        backend=backend,
        config=config,
        execution=execution,
        should_stop=should_stop,
        processes=processes,
    )
    if not processes.first:
        with following(folder, processes), stoppable():
            return told(steps, lambda event: None), None
    check_pixel_known(folder, formats, Lengths.of(scan.metadata, scan.N))
    check_space(folder, RESULT_BYTES * canvas_pixels(scan.positions_px, scan.N))
    output = output or Output(quiet=True)
    with locked(folder), leading(folder, processes), output.listening(folder) as tell:
        with stoppable():
            result = told(steps, tell)
        path = folder / "reconstruction.npz"
        rescued(result.save, path)
        told_file(tell, "reconstruct", path)
        with after_result(path):
            figure = draw(tell, plot_reconstruction, result, folder / "reconstruction.png")
            written = written_images(tell, "reconstruct", folder, result, formats)
            summary = {**result.summary(), "scan": scan.source, "reconstruction": str(path), "figure": figure}
            summary["written"] = written
            write_record(
                folder,
                "reconstruct",
                configs={"inference": config, "execution": execution or ExecutionConfig(), "reading": reading},
                scans=[scan],
                engine=result.engine,
                seconds=result.seconds,
                warnings=output.warnings,
                origin=output.origin,
            )
            summary["report"] = reported(tell, folder)
            write_text(folder / "reconstruction.json", json.dumps(summary, indent=2) + "\n")
    return result, summary


def refine_into(
    folder: Path,
    scan: Scan,
    result: Reconstruction,
    solving: SolveConfig,
    *,
    config: InferenceConfig,
    execution: ExecutionConfig | None = None,
    reading: ReadOptions | None = None,
    output: Output | None = None,
    formats: Sequence[str] = (),
    processes: Processes | None = None,
    should_stop: Callable[[], bool] = never,
) -> Solved:
    """Solve on from a reconstruction of `scan` by `config`, and write that into `folder` in its place.

    Arguments, files and errors are those of `solve_into`.
    """
    settings = attrs.evolve(
        going_on(solving, result, config.backend),
        data_file=config.test_data_file,
        output_dir=folder,
        start="flat" if config.model_path is None else str(config.model_path),
    )
    return solve_into(
        folder,
        subsample(scan, config),
        settings,
        start=result,
        execution=execution,
        reading=reading,
        output=output,
        formats=formats,
        processes=processes,
        should_stop=should_stop,
    )
