"""`ptycho demo`: every step on simulated scans in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from ptycho_core.formats.convert import save_scan
from ptycho_core.io import load_scan
from ptycho_core.models.model import load_model
from ptycho_core.quality.evaluation import evaluate
from ptycho_core.quality.truth import load_truth
from ptycho_core.reconstruction.result import load_reconstruction
from ptycho_core.report.plots import plot_beside
from ptycho_core.runs.console import Output
from ptycho_core.runs.evaluate import evaluate_into
from ptycho_core.runs.folder import draw
from ptycho_core.runs.prepare import prepare_solving, prepare_training
from ptycho_core.runs.reconstruct import reconstruct_into
from ptycho_core.runs.solve import solve_into
from ptycho_core.runs.train import train_into
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.simulation import simulate
from ptycho_core.storage.files import make_folder

SCANS: dict[str, Any] = {"object": "siemens-star", "positions": 500, "photons": 1e6}
TRAINING: dict[str, Any] = {"nepochs": 8}


@attrs.frozen
class Demo:
    """Two scans of different objects: one is to learn from, the other is to be imaged."""

    out: Path
    backend: str

    @property
    def network(self) -> Path:
        return self.out / "network"

    @property
    def scan(self) -> Path:
        return self.out / "scan.npz"

    @property
    def training_scan(self) -> Path:
        return self.network / "training_scan.npz"

    @property
    def solving(self) -> SolveConfig:
        return SolveConfig(backend=self.backend, data_file=self.scan, output_dir=self.out)

    @property
    def training(self) -> TrainingConfig:
        return TrainingConfig(
            backend=self.backend,
            train_data_file=self.training_scan,
            output_dir=self.network,
            **TRAINING,
        )


def demo_into(out: Path, backend: str, output: Output) -> tuple[dict[str, Any], str]:
    """Simulate, solve, train, reconstruct with the network what it has not seen, evaluate both; summary and text.

    Nothing is written before backend and folder are known to be usable.
    """
    demo, execution = Demo(out, backend), ExecutionConfig()
    prepare_solving(demo.solving, execution)
    prepare_training(demo.training, execution)
    make_folder(demo.network)
    output.say("1/5 simulate two scans")
    for seed, path in enumerate((demo.scan, demo.training_scan)):
        save_scan(path, simulate(**SCANS, seed=seed))
    scan = load_scan(demo.scan)
    output.say("2/5 solve one")
    solved = solve_into(out, scan, demo.solving, execution=execution, output=output)
    if solved.stop is not None:
        raise solved.stop
    evaluation, table = evaluate_into(out, demo.scan, output)
    output.say(f"{table}\n3/5 train a network on the other")
    done = train_into(demo.network, load_scan(demo.training_scan), demo.training, execution=execution, output=output)
    if done.stop is not None:
        raise done.stop
    output.say("4/5 reconstruct the first with it, an object that it has not seen")
    model, engine = load_model(demo.network), done.run.engine.name
    _, reconstructed = reconstruct_into(demo.network, scan, model, backend=engine, execution=execution, output=output)
    evaluated, table = evaluate_into(demo.network, demo.scan, output)
    output.say(f"{table}\n5/5 compare")
    truth = load_truth(demo.scan)
    results = {"solved": load_reconstruction(out), "network": load_reconstruction(demo.network)}
    beside = {name: evaluate(result, truth) for name, result in results.items()}
    origins = {name: result.origin_px for name, result in results.items()}
    title = "an object that the network has not seen, and correlations with it"
    with output.listening() as tell:
        figure = draw(tell, plot_beside, beside, out / "demo.png", origins_px=origins, title=title)
    summary = {
        "solving": solved.summary,
        "evaluation": evaluation,
        "network": {"training": done.summary, "reconstruction": reconstructed, "evaluation": evaluated},
        "figure": figure,
    }
    correlations = [each["correlation"] for each in (evaluation, evaluated)]
    text = "correlation with the truth: {:.4f} solved, {:.4f} by the network".format(*correlations)
    drawn = f"both beside the truth: {figure}; more in" if figure else "what was made is in"
    return summary, f"{text}\n{drawn} {out} and {demo.network}"
