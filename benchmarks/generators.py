"""Networks of other publications beside ours, in equal CPU time: `python benchmarks/quality.py generators`.

N = 128, objects of lines as the published implementation draws them, the probe of a zone plate, random positions 16
pixels apart, gridsize 1. Each network is trained for `--seconds` of CPU time on 400 patterns (a trial says for how many
epochs, ten at least), with the settings that it has unless set, batches of 4 patterns or of one group, and then used on
an object of the same kind that it has not seen. Rows: SSIM of amplitude and phase; CPU time of training, a pattern, and
of prediction; what an epoch of 512 patterns, and 50 of them, would take here: the lengths that the published
implementation has unless set. The solver sees the unseen scan alone. `--only NAME`: one of the rows; `--photons`: of a
pattern, 1e9 unless set, as the published implementation has it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import attrs
import numpy as np
from canvas import untrained
from cases import figures_of
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ptycho_core import (
    ExecutionConfig,
    ModelConfig,
    Scan,
    SolveConfig,
    TrainingConfig,
    fit,
    reconstruct,
    simulate,
    solve,
)
from ptycho_core.models.model import Model
from ptycho_core.reconstruction.result import Reconstruction

Row = list[object]
T = TypeVar("T")
PUBLISHED = {
    "cnn": "0.733 / 0.264",
    "ffno": "0.890 / 0.960",
    "uno": "0.828 / 0.957",
    "hybrid_resnet": "0.988 / 0.995",
}
"""SSIM of amplitude and phase in their authors' runs. Of `fno` none is known."""
NETWORKS: dict[str, dict[str, Any]] = {
    "cnn": {},
    "fno": {},
    "ffno": {},
    "uno": {},
    "hybrid_resnet": {},
    "canvas": {},
    "canvas, 8 warm sweeps": {"warm_sweeps": 8},
}
POSITIONS = 400, 100
SIDE = 480
"""Of the objects, in pixels: room for 400 positions."""
EPOCHS, PUBLISHED_EPOCHS, PUBLISHED_PATTERNS = 10, 50, 512
REFINED = 5
SOLVED = "solver"


@attrs.frozen
class Asked:
    backend: str
    seconds: float
    photons: float = 1e9
    only: str = ""


def rows(asked: Asked) -> list[Row]:
    seen, unseen = scans(asked.photons)
    found: list[Row] = []
    for name, settings in NETWORKS.items():
        if asked.only in ("", name):
            model = ModelConfig(architecture=name.partition(",")[0], N=128, **settings)
            found += network_rows(name, model, seen, unseen, asked)
    if asked.only in ("", SOLVED):
        solved, seconds = timed(lambda: solve(unseen, SolveConfig(backend=asked.backend)))
        found += of_unseen(SOLVED, 20, solved, unseen, seconds, asked)
    return found


def scans(photons: float) -> tuple[Scan, Scan]:
    seen, unseen = (
        simulate(
            N=128, object=blurred_lines(np.random.default_rng(seed)), positions=positions, photons=photons, seed=seed
        )
        for seed, positions in enumerate(POSITIONS)
    )
    return seen, unseen


def blurred_lines(rng: np.random.Generator) -> NDArray[np.complex64]:
    """Complex (SIDE, SIDE): of 400 lines over four times its area, one pixel wide, blurred by 1, 5 and 10 pixels.

    Largest amplitude 1; the phase is π tanh((a - max a / 2) / (3 mean a)) of the amplitude a, as the published
    implementation has both (`mk_lines_img`, `dummy_phi`).
    """
    drawn = np.zeros((2 * SIDE, 2 * SIDE))
    for begin, end in rng.integers(0, 2 * SIDE, (400, 2, 2)):
        points = np.linspace(begin, end, int(np.abs(end - begin).max()) + 1)
        rows, columns = np.rint(points).astype(int).T
        drawn[rows, columns] = 1
    blurred = gaussian_filter(drawn, 1) + 2 * gaussian_filter(drawn, 5) + 5 * gaussian_filter(drawn, 10)
    amplitude = blurred[SIDE // 2 : -SIDE // 2, SIDE // 2 : -SIDE // 2]
    amplitude /= amplitude.max()
    phase = np.pi * np.tanh((amplitude - amplitude.max() / 2) / (3 * amplitude.mean()))
    return (amplitude * np.exp(1j * phase)).astype(np.complex64)


def network_rows(name: str, model: ModelConfig, seen: Scan, unseen: Scan, asked: Asked) -> list[Row]:
    trained, patterns, seconds = trained_for(seen, model, asked)
    return rows_of(name, trained, patterns, seconds, unseen, asked)


def rows_of(name: str, trained: Model, patterns: int, seconds: float, unseen: Scan, asked: Asked) -> list[Row]:
    per_pattern = seconds / patterns
    epoch = per_pattern * PUBLISHED_PATTERNS
    results = {name: timed(lambda: reconstruct(unseen, trained, backend=asked.backend))}
    if trained.config.model.architecture == "canvas":
        alone = untrained(trained)
        results[f"{name}, data steps alone"] = timed(lambda: reconstruct(unseen, alone, backend=asked.backend))
        refined = timed(lambda: reconstruct(unseen, trained, backend=asked.backend, refine=REFINED))
        results[f"{name}, {REFINED} sweeps after it"] = refined
    found = [
        row
        for case, (result, predicted) in results.items()
        for row in of_unseen(case, trained.best_epoch, result, unseen, predicted, asked)
    ]
    told = {
        "SSIM, published": PUBLISHED.get(name, "–"),
        "training: patterns; CPU ms a pattern": f"{patterns}; {1e3 * per_pattern:.1f}",
        "an epoch of 512 patterns; 50 of them, CPU s": f"{epoch:.0f}; {PUBLISHED_EPOCHS * epoch:.0f}",
    }
    return found + [
        [name, asked.backend, trained.config.nepochs, figure, text, seconds] for figure, text in told.items()
    ]


def of_unseen(case: str, passes: int, result: Reconstruction, unseen: Scan, seconds: float, asked: Asked) -> list[Row]:
    figures = figures_of(result, unseen)
    return [[f"lines, {case}", asked.backend, passes, figure, value, seconds] for figure, value in figures.items()]


def trained_for(scan: Scan, model: ModelConfig, asked: Asked) -> tuple[Model, int, float]:
    """The model, the patterns that it was given, and CPU time: all but what a framework takes to begin."""
    config = config_for(scan, model, asked)
    run = fit(scan, config, execution=judged_by_loss(config))
    began = time.process_time()
    for report in run:
        print(f"  epoch {report.epoch}  {report.message}", flush=True)
    seconds = time.process_time() - began
    assert run.model is not None
    return run.model, run.config.nepochs * run.patterns_per_epoch, seconds


def judged_by_loss(config: TrainingConfig) -> ExecutionConfig:
    """A network of patches is judged by its loss: the object of all patterns after every epoch takes longer than it."""
    return ExecutionConfig(checkpoint_monitor_metric="auto" if config.model.architecture == "canvas" else "total")


def config_for(scan: Scan, model: ModelConfig, asked: Asked) -> TrainingConfig:
    """Ten epochs of the time asked for, or more where one would have more patterns than the scan."""
    batch = 1 if model.architecture == "canvas" else 4
    config = TrainingConfig(model=model, backend=asked.backend, batch_size=batch, nepochs=2, n_groups=4 * batch)
    trial = fit(scan, config, execution=judged_by_loss(config))
    epochs = iter(trial)
    next(epochs)
    _, seconds = timed(lambda: next(epochs))
    groups = 4 * batch * asked.seconds / seconds
    most = len(scan) * config.n_groups / trial.patterns_per_epoch
    n_groups = max(batch, round(min(groups / EPOCHS, most)))
    return attrs.evolve(config, nepochs=max(1, round(groups / n_groups)), n_groups=n_groups)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What the work gives, and its CPU seconds."""
    began = time.process_time()
    given = work()
    return given, time.process_time() - began
