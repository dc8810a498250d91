"""Kills processes that save and train, at random moments, and looks at what is left.

    python benchmarks/kill.py --kills 200 --backend torch --backend tensorflow

Three parts: a process that saves a model and a checkpoint over and over; runs on the core's float64 reference, whose
epochs are short; and `ptycho train` on every backend that is named. After every SIGKILL the model and the checkpoint
are loaded, and a run goes on from them (`ptycho train --resume`) until it has done a further epoch; one in five is
killed at any moment from its start. At the end each run that was killed is compared, to the last bit, with one that was
not. Exit code 1 on any failure.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import multiprocessing
import os
import queue
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from ptycho_core_reference import ReferenceEngine

from ptycho_core.errors import PtychoError
from ptycho_core.formats.convert import save_scan
from ptycho_core.io import load_scan
from ptycho_core.models.checkpoint import CHECKPOINT_NAME, Checkpoint, load_checkpoint
from ptycho_core.models.model import ARCHIVE_NAME, load_model
from ptycho_core.networks.cnn import network_channels
from ptycho_core.networks.registry import register_architecture
from ptycho_core.networks.table import Table, TableBuilder
from ptycho_core.runs.train import train_into
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.simulation import simulate
from ptycho_core.storage.files import PARTIAL, remove_partial
from ptycho_core.training import prepare as preparing
from ptycho_core.training.fit import fit

NETWORK = ("--architecture", "cnn", "--n-filters-scale", "1")
SETTINGS = (*NETWORK, "--n-groups", "32", "--batch-size", "8", "--scheduler", "Default")
ENDLESS = 100_000
"""Epochs of a run: more than it lives for."""
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL")}
"""Sums in one order."""
PATIENCE_S = 180


class Tally:
    """What became of the kills: by part and phase."""

    def __init__(self) -> None:
        self.kills: collections.Counter[tuple[str, str]] = collections.Counter()
        self.whole: collections.Counter[tuple[str, str]] = collections.Counter()
        self.resumed: collections.Counter[str] = collections.Counter()
        self.tried: collections.Counter[str] = collections.Counter()
        self.failures: list[str] = []
        self.same: dict[str, str] = {}

    def killed(self, part: str, phase: str, whole: bool) -> None:
        self.kills[part, phase] += 1
        self.whole[part, phase] += whole

    def table(self) -> str:
        lines = ["| part | killed while | kills | whole files after it |", "| --- | --- | --- | --- |"]
        lines += [f"| {p} | {phase} | {n} | {self.whole[p, phase]} |" for (p, phase), n in sorted(self.kills.items())]
        lines += ["", "| part | kills | resumes | went on | beside a run that was not killed |"]
        lines += ["| --- | --- | --- | --- | --- |"]
        for part in dict.fromkeys(part for part, _ in self.kills):
            kills = sum(n for (each, _), n in self.kills.items() if each == part)
            resumed = f"{self.tried[part]} | {self.resumed[part]}" if self.tried[part] else "– | –"
            lines.append(f"| {part} | {kills} | {resumed} | {self.same.get(part, '–')} |")
        kills, whole = sum(self.kills.values()), sum(self.whole.values())
        lines += ["", f"{kills} kills, {whole} times all files whole, {len(self.failures)} failures"]
        return "\n".join(lines + self.failures)


# -- what is looked at ---------------------------------------------------------------------------------------------


def phase_of(folder: Path, otherwise: str) -> str:
    """What a process that was killed was writing."""
    names = [path.name for path in folder.rglob(f".*{PARTIAL}")]
    for written, words in ((CHECKPOINT_NAME, "writing the checkpoint"), ("h5.zip", "writing a model")):
        if any(written in name for name in names):
            return words
    return "writing another file" if names else otherwise


def read_all(folder: Path) -> Checkpoint | None:
    """Load every archive of a run; its checkpoint, None before the first whole epoch. PtychoError for a damaged one."""
    if not (folder / CHECKPOINT_NAME).exists():
        if (folder / ARCHIVE_NAME).exists():
            load_model(folder)
        return None
    for path in (folder / ARCHIVE_NAME, *folder.glob("checkpoints/*.h5.zip")):
        load_model(path)
    return load_checkpoint(folder)


def differences(one: Checkpoint, other: Checkpoint) -> list[str]:
    """Names of arrays and losses in which two runs differ by a bit."""
    different = [] if one.scores == other.scores else ["losses"]
    for ours, theirs in ((one.weights, other.weights), (one.optimizer, other.optimizer)):
        different += [name for name in theirs if not np.array_equal(ours[name], theirs[name])]
    return different


# -- saving --------------------------------------------------------------------------------------------------------


@functools.cache
def prepare() -> None:
    """The architecture of the parts without a framework: a few kilobytes of weights, a few milliseconds per epoch."""

    @register_architecture("kill")
    def small(model: ModelConfig) -> Table:
        table, channels = TableBuilder(network_channels(model)), network_channels(model)
        x = table.conv("trunk", "input", 8 * model.n_filters_scale)
        amplitude, phase = table.conv("a", x, channels, "sigmoid"), table.conv("p", x, channels, "tanh")
        return table.finish(amplitude=amplitude, phase=phase)

    preparing.find_engine = lambda backend: ReferenceEngine  # type: ignore[assignment]


def small_run(scale: int, **changes: Any) -> tuple[Scan, TrainingConfig]:
    prepare()
    model = ModelConfig(N=16, n_filters_scale=scale, gridsize=2, architecture="kill")
    settings: dict[str, Any] = {"nepochs": ENDLESS, "batch_size": 4, "n_groups": 8, "scheduler": "Default"}
    scan = simulate(N=16, positions=16, photons=1e5, seed=0)
    return scan, TrainingConfig(model=model, probe_trainable=True, **{**settings, **changes})


def save_forever(folder: Path, checkpoint: Checkpoint, number: int) -> None:
    """A model and a checkpoint that both say `number`, then the next."""
    while True:
        number += 1
        checkpoint.history[0]["total"] = float(number)
        model = attrs.evolve(checkpoint.best[0], history=checkpoint.history)
        model.weights["trunk/bias"][0] = number  # type: ignore[index]
        model.save(folder / ARCHIVE_NAME)
        attrs.evolve(checkpoint, scores=(float(number),), best=(model,)).save(folder / CHECKPOINT_NAME)


def saved_numbers(folder: Path) -> tuple[float, float]:
    """Those of the model and of the checkpoint; PtychoError where the parts of one are not of one time."""
    model, checkpoint = load_model(folder), load_checkpoint(folder)
    for each in (model, checkpoint.best[0]):
        if each.weights["trunk/bias"][0] != each.history[0]["total"]:
            raise PtychoError(f"{folder}: weights {each.weights['trunk/bias'][0]}, history {each.history[0]['total']}")
    return model.history[0]["total"], checkpoint.scores[0]


def kill_savers(kills: int, folder: Path, tally: Tally) -> None:
    part, before = "saving", (0.0, 0.0)
    scan, config = small_run(scale=64)
    run = fit(scan, config)
    next(iter(run))
    checkpoint = run.checkpoint()
    for kill in range(kills):
        child = fork(save_forever, folder, checkpoint, int(max(before)))
        while not (folder / CHECKPOINT_NAME).exists():
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.2))
        end(child)
        try:
            after, whole = saved_numbers(folder), True
            if any(new < old for new, old in zip(after, before, strict=True)):
                tally.failures.append(f"{part}, kill {kill}: {after} after {before}: an older file came back")
            before = after
        except (PtychoError, OSError) as error:
            whole = False
            tally.failures.append(f"{part}, kill {kill}: {error}")
        tally.killed(part, phase_of(folder, "between two files"), whole)
        remove_partial(folder)


# -- training without a framework ----------------------------------------------------------------------------------


def train_on(folder: Path, nepochs: int = ENDLESS) -> None:
    """Begin a run on the reference, or go on with the one in the folder."""
    scan, config = small_run(scale=1, nepochs=nepochs)
    resume = load_checkpoint(folder) if (folder / CHECKPOINT_NAME).exists() else None
    train_into(folder, scan, config, execution=ExecutionConfig(checkpoint_save_top_k=2), resume=resume)


def kill_reference(kills: int, folder: Path, tally: Tally) -> None:
    part, done = "training, reference", 0
    for kill in range(kills):
        child = fork(train_on, folder)
        if kill % 5:  # until it has gone on
            tally.tried[part] += 1
            tally.resumed[part] += went_on(folder, done, child, part, tally)
        time.sleep(random.uniform(0, 0.1))
        end(child)
        done = look(folder, part, kill, "training", tally, done)
    compare(part, folder, tally, lambda fresh, epochs: train_on(fresh, nepochs=epochs))


def went_on(folder: Path, done: int, child: Any, part: str, tally: Tally) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and child.is_alive():
        with contextlib.suppress(PtychoError):
            if (folder / CHECKPOINT_NAME).exists() and load_checkpoint(folder).epoch > done:
                return True
        time.sleep(0.005)
    tally.failures.append(f"{part}: a run did not go on after epoch {done}")
    return False


def look(folder: Path, part: str, kill: int, otherwise: str, tally: Tally, done: int) -> int:
    """Whether what a kill has left is whole; the epochs that are done."""
    phase = phase_of(folder, otherwise)
    try:
        checkpoint, whole = read_all(folder), True
        after = 0 if checkpoint is None else checkpoint.epoch
        if after < done:
            tally.failures.append(f"{part}, kill {kill}: epoch {after} after epoch {done}: an older file came back")
    except (PtychoError, OSError) as error:
        whole, after = False, done
        tally.failures.append(f"{part}, kill {kill}, {phase}: {error}")
    tally.killed(part, phase, whole)
    return after


def compare(part: str, folder: Path, tally: Tally, train: Callable[[Path, int], None]) -> None:
    """The run that was killed beside one of as many epochs that was not."""
    killed = load_checkpoint(folder)
    with tempfile.TemporaryDirectory() as fresh:
        train(Path(fresh), killed.epoch)
        different = differences(killed, load_checkpoint(fresh))
    tally.same[part] = f"{killed.epoch} epochs, " + ("the same to the last bit" if not different else "different")
    if different:
        tally.failures.append(f"{part}: after {killed.epoch} epochs these differ: {', '.join(different[:5])}")


# -- training with a framework -------------------------------------------------------------------------------------


class Command:
    """`ptycho train` in a process of its own, and the lines that it says."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-m", "ptycho_core", "train", *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env={**os.environ, **ONE_THREAD}
        )
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.said: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.put(line)
        self.lines.put(None)

    def wait_for(self, start: str, seconds: float) -> bool:
        """Whether a line that begins so comes in time."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                line = self.lines.get(timeout=left)
                if line is None:
                    return False
                self.said.append(line)
                if line.startswith(start):
                    return True
        return False

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def kill_command(backend: str, kills: int, folder: Path, scan: Path, tally: Tally) -> None:
    part, done, begun = f"training, {backend}", 0, time.monotonic()
    settings = ("--out", folder, "--backend", backend, "--accelerator", "cpu", "--deterministic")
    begin = (scan, *settings, *SETTINGS, "--nepochs", ENDLESS)
    start_s = 5.0
    for kill in range(kills):
        began = time.monotonic()
        resume = (folder / CHECKPOINT_NAME).exists()
        command = Command(*(("--resume", *settings) if resume else begin))
        phase = "starting"
        if kill % 5:
            tally.tried[part] += resume
            if command.wait_for("epoch ", PATIENCE_S):
                phase = "training"
                tally.resumed[part] += resume
                start_s = time.monotonic() - began
                time.sleep(random.uniform(0, 1.0))
            else:
                tally.failures.append(f"{part}, kill {kill}: no epoch came: {''.join(command.said[-3:])}")
        else:
            time.sleep(random.uniform(0, start_s))
        command.kill()
        done = look(folder, part, kill, phase, tally, done)
        print(f"{part}: {kill + 1} kills, {done} epochs, {time.monotonic() - begun:.0f} s", file=sys.stderr)

    def train(fresh: Path, epochs: int) -> None:
        command = Command(*begin[:-1], epochs, "--out", fresh)
        command.wait_for(f"epoch {epochs}/", 10 * PATIENCE_S)
        command.process.wait()

    compare(part, folder, tally, train)


# -- processes -----------------------------------------------------------------------------------------------------


def fork(function: Callable[..., None], *arguments: Any) -> Any:
    """The function in a process that has everything imported already, and is as mortal as any other."""
    child = multiprocessing.get_context("fork").Process(target=function, args=arguments, daemon=True)
    child.start()
    return child


def end(child: Any) -> None:
    child.kill()
    child.join()


@contextlib.contextmanager
def scan_file(folder: Path) -> Iterator[Path]:
    path = folder / "scan.npz"
    save_scan(path, simulate(N=32, positions=64, photons=1e6, seed=0))
    assert len(load_scan(path)) == 64
    yield path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="in all; an eighth of them for each backend")
    parser.add_argument("--backend", action="append", default=[], help="may be given again")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    asked = parser.parse_args()
    random.seed(asked.seed)
    each = max(1, asked.kills // 8)
    left = asked.kills - each * len(asked.backend)
    tally, begun = Tally(), time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        folders = {name: Path(place) / name for name in ("saving", "reference", *asked.backend)}
        for folder in folders.values():
            folder.mkdir()
        kill_savers(left - left // 2, folders["saving"], tally)  # forks come before threads
        kill_reference(left // 2, folders["reference"], tally)
        with scan_file(Path(place)) as scan:
            threads = [
                threading.Thread(target=kill_command, args=(backend, each, folders[backend], scan, tally))
                for backend in asked.backend
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    print(tally.table())
    print(f"{time.monotonic() - begun:.0f} s")
    return 1 if tally.failures or sum(tally.kills.values()) != asked.kills else 0


if __name__ == "__main__":
    sys.exit(main())
