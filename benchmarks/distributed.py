"""Two processes of one core each beside one process of one core: training, solving, reconstruction.

    python benchmarks/distributed.py --backend torch --backend tensorflow --rounds 3

The same two processes do all of it: in every round the first one works alone while the others wait, then all of them
do the whole work each for itself at once, and then they work together, so that whatever else the machine does meets
all three. `wall` is the ratio of the shortest times of one and of several, which needs as many free cores as processes;
`ceiling` what it would be if the several had nothing to do with one another, which the machine's memory decides; `cpu`
the ratio of the processor seconds of the one process to the most that one of the several has taken.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from ptycho_core.engine.launched import place_of
from ptycho_core.engine.processes import ALONE, Processes
from ptycho_core.engine.registry import load_engine
from ptycho_core.models.model import Model
from ptycho_core.reconstruction.predict import reconstruct
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.inference import InferenceConfig
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.simulation import simulate
from ptycho_core.solving.loop import Solving, SweepReport
from ptycho_core.training.fit import fit

CPU = ExecutionConfig(accelerator="cpu", num_workers=0)
Seconds = tuple[float, float]


def unasked() -> bool:
    """The wish to stop of a command line that was not told to: processes tell each other."""
    return False


def timed(work: Callable[[], Any]) -> Seconds:
    """(wall, processor) seconds."""
    wall, own = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - own


class Works:
    """What is timed; each is warm when it is timed, as in a long run."""

    def __init__(self, backend: str, frames: int, groups: int) -> None:
        self.backend, self.groups = backend, groups
        self.scan: Scan = simulate(N=64, positions=frames, step_px=4, photons=1e5, seed=1)
        self.large: Scan = simulate(N=128, positions=2 * frames, step_px=8, photons=1e5, seed=1)
        self.model: Model | None = None

    def training(self, processes: Processes) -> Seconds:
        """One epoch of batches of 32 groups of 4."""
        model = ModelConfig(N=64, architecture="cnn", gridsize=2, n_filters_scale=1)
        config = TrainingConfig(model=model, nepochs=2, n_groups=self.groups, batch_size=32, backend=self.backend)
        run = fit(self.scan, config, execution=CPU, should_stop=unasked, processes=processes)
        steps = iter(run)
        next(steps)
        seconds = timed(lambda: next(steps))
        self.model = run.model
        return seconds

    def solving(self, processes: Processes, modes: int = 1, batches: int = 32) -> Seconds:
        """Two sweeps of 32 steps, object and probe."""
        settings = {"refine": "probe", "prior": "none", "split_half": False}
        config = SolveConfig(sweeps=3, batches=batches, modes=modes, backend=self.backend, **settings)
        events = (
            event for event in Solving(self.large, config, execution=CPU, should_stop=unasked, processes=processes)
        )
        sweeps = (event for event in events if isinstance(event, SweepReport))
        next(sweeps)
        return timed(lambda: (next(sweeps), next(sweeps)))

    def solving_3_modes(self, processes: Processes) -> Seconds:
        """The same with three modes of the probe."""
        return self.solving(processes, modes=3)

    def solving_8_modes(self, processes: Processes) -> Seconds:
        return self.solving(processes, modes=8)

    def solving_8_batches(self, processes: Processes) -> Seconds:
        """The same, of one mode, with four times as many frames in a step."""
        return self.solving(processes, batches=8)

    def solving_large_steps(self, processes: Processes) -> Seconds:
        """Eight modes and four times as many frames in a step."""
        return self.solving(processes, modes=8, batches=8)

    def reconstruction(self, processes: Processes) -> Seconds:
        """Prediction, canvas and evidence of all frames."""
        assert self.model is not None
        config = InferenceConfig(backend=self.backend)

        def again() -> None:
            wish = {"should_stop": unasked, "processes": processes}
            reconstruct(self.scan, self.model, config=config, execution=CPU, **wish)

        again()
        return timed(again)


SOLVES = ("solving", "solving_3_modes", "solving_8_modes", "solving_8_batches", "solving_large_steps")
WORKS = ("training", *SOLVES, "reconstruction")


def work(backend: str, rounds: int, frames: int, groups: int, names: list[str], pinned: bool) -> None:
    """In each of the processes."""
    place = place_of(CPU)
    assert place is not None
    if pinned:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[place.rank % len(cores)]})
    processes: Processes = load_engine(backend).join(place, CPU)  # type: ignore[attr-defined]
    works = Works(backend, frames, groups)
    for name in names:
        rows: dict[str, list[Seconds]] = {"one": [], "apart": [], "several": []}
        for _ in range(rounds):
            own = getattr(works, name)(ALONE) if processes.first else (0.0, 0.0)
            rows["one"].append(processes.tell(own))
            for row, those in (("apart", ALONE), ("several", processes)):
                processes.barrier()
                all_of_them = processes.told_by_all(getattr(works, name)(those))
                rows[row].append(tuple(max(each) for each in zip(*all_of_them, strict=True)))
        if processes.first:
            wall, cpu = ({row: min(each[kind] for each in times) for row, times in rows.items()} for kind in (0, 1))
            told = {"backend": backend, "work": name, "frames": frames, "one_s": wall["one"]}
            told |= {"several_s": wall["several"], "wall": wall["one"] / wall["several"]}
            told |= {"ceiling": processes.size * wall["one"] / wall["apart"], "cpu": cpu["one"] / cpu["several"]}
            print(json.dumps({**told, "load": os.getloadavg()[0]}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", action="append", required=True)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=512)
    parser.add_argument("--groups", type=int, default=256)
    parser.add_argument("--work", nargs="+", choices=WORKS, default=WORKS, help="reconstruction needs training")
    parser.add_argument("--pinned", action="store_true", help="each process to its core, its messages' threads too")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        work(asked.backend[0], asked.rounds, asked.frames, asked.groups, asked.work, asked.pinned)
        return
    for backend in asked.backend:
        execution = ExecutionConfig(accelerator="cpu", devices=asked.processes)
        numbers = ("--rounds", str(asked.rounds), "--frames", str(asked.frames), "--groups", str(asked.groups))
        command = [sys.executable, __file__, "--worker", "--backend", backend, *numbers, "--work", *asked.work]
        command += ["--pinned"] * asked.pinned
        if code := load_engine(backend).launch(command, execution):  # type: ignore[attr-defined]
            sys.exit(code)


if __name__ == "__main__":
    main()
