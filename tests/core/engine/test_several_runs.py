"""Runs of several processes with their files: who writes, who goes on, who speaks."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import h5py
import numpy as np
import pytest
from ptycho_core_reference import ReferenceEngine

from ptycho_core.cli import stopped_by_signals
from ptycho_core.cli.shared import Shared, Wish
from ptycho_core.engine.processes import ALONE, Processes
from ptycho_core.models.checkpoint import CHECKPOINT_NAME, Checkpoint, load_checkpoint
from ptycho_core.models.model import load_model
from ptycho_core.runs.reconstruct import reconstruct_into
from ptycho_core.runs.solve import Solved, solve_into
from ptycho_core.runs.train import Trained, train_into
from ptycho_core.scans.frames import Frames
from ptycho_core.scans.steps import Blank
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.model import ModelConfig
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.solving.checkpoint import SolveCheckpoint
from ptycho_core.solving.loop import Solving
from ptycho_core.storage.hdf5_frames import HDF5Frames
from tests.command_line import run_here
from tests.contract.cases import make_scan
from tests.contract.process_cases import execution, found
from tests.processes import together

SCAN = make_scan(32, 1, 2e4, True)


@pytest.fixture(autouse=True)
def reference(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The reference engine, and no pictures."""
    for run in ("train", "solve", "reconstruct"):
        for drawing in ("draw", "reported"):
            monkeypatch.setattr(f"ptycho_core.runs.{run}.{drawing}", lambda *arguments, **keywords: None)
    with found(ReferenceEngine()):
        yield


def trained(folder: Path, processes: Processes, epochs: int, resume: Checkpoint | None = None, **more: Any) -> Trained:
    model = ModelConfig(N=32, architecture="contract", n_filters_scale=1, gridsize=1)
    settings = {"n_groups": 5, "batch_size": 4, "nphotons": 2e4, "scheduler": "Default", "output_dir": folder}
    config = TrainingConfig(model=model, nepochs=epochs, **settings)
    return train_into(folder, SCAN, config, processes=processes, resume=resume, **more)


def test_a_training_of_two_goes_on_with_one_and_then_with_three(tmp_path: Path) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    trained(whole, ALONE, 3)
    first, second = together(2, lambda processes: trained(parted, processes, 1))
    assert first.summary is not None and second.summary is None
    trained(parted, ALONE, 2, load_checkpoint(parted))
    kept = load_checkpoint(parted)
    together(3, lambda processes: trained(parted, processes, 3, kept))
    ours, theirs = load_checkpoint(parted / CHECKPOINT_NAME), load_checkpoint(whole / CHECKPOINT_NAME)
    assert len(ours.history) == len(theirs.history) == 3
    for name, array in theirs.weights.items():
        np.testing.assert_allclose(ours.weights[name], array, atol=1e-12 * np.abs(array).max(), err_msg=name)


def test_a_solve_of_two_goes_on_with_one_and_then_with_three_under_a_prior(tmp_path: Path) -> None:
    """Each of several applies the prior to the whole object, of which it holds a band; all frames are in one row."""
    scan = attrs.evolve(SCAN, positions_px=SCAN.positions_px * (8, 1))
    settings = {"batches": 4, "refine": "probe,positions", "prior": "tv", "prior_weight": 0.01, "split_half": False}
    config = SolveConfig(sweeps=6, nphotons=2e4, **settings)  # type: ignore[arg-type]

    def solved(processes: Processes, sweeps: int, resume: SolveCheckpoint | None = None) -> SolveCheckpoint:
        run = Solving(scan, config, execution=execution("64-true"), resume=resume, processes=processes)
        swept = (event for event in run if event.kind == "sweep")
        for _ in range(sweeps):
            next(swept)
        return run.checkpoint()

    kept = together(2, lambda processes: solved(processes, 2))[0]
    kept = solved(ALONE, 2, kept)
    kept = together(3, lambda processes: solved(processes, 1, kept))[2]
    whole = solved(ALONE, 5)
    for ours, theirs in ((kept.weights, whole.weights), (kept.optimizer, whole.optimizer)):
        for name, array in theirs.items():
            np.testing.assert_allclose(ours[name], array, atol=1e-11 * np.abs(array).max(), err_msg=name)
    np.testing.assert_allclose(kept.positions_px, whole.positions_px, atol=1e-10)


def test_a_wish_to_stop_of_one_ends_the_training_of_all_with_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptycho_core.engine.processes.ASKED_S", 0)

    def work(processes: Processes) -> Trained:
        asked = iter(range(100))  # before every batch, of which an epoch has two
        return trained(tmp_path, processes, 50, should_stop=lambda: processes.rank == 1 and next(asked) >= 3)

    def ended(processes: Processes) -> Trained | KeyboardInterrupt:
        try:
            return work(processes)
        except KeyboardInterrupt as stop:
            return stop

    first, second = together(2, ended)
    assert isinstance(second, KeyboardInterrupt)
    assert isinstance(first, Trained) and isinstance(first.stop, KeyboardInterrupt)
    assert len(load_checkpoint(tmp_path).history) == len(load_model(tmp_path).history) == 1


def test_the_first_process_writes_what_several_solve_and_reconstruct(tmp_path: Path) -> None:
    solve, predict = tmp_path / "solve", tmp_path / "predict"
    config = SolveConfig(sweeps=1, batches=4, refine="none", prior="none", nphotons=2e4, split_half=False)

    def solved(processes: Processes) -> Solved:
        """Only the first one is asked for checkpoints, of which each holds a part."""
        asked = ExecutionConfig(enable_checkpointing=processes.first)
        return solve_into(solve, SCAN, config, execution=asked, processes=processes)

    runs = together(2, solved)
    assert [run.summary is None for run in runs] == [False, True]
    assert runs[0].result is not None and runs[1].result is not None
    np.testing.assert_array_equal(runs[0].result.object_field, runs[1].result.object_field)
    model = trained(tmp_path / "model", ALONE, 1).model
    results = together(2, lambda processes: reconstruct_into(predict, SCAN, model, processes=processes))
    alone, _ = reconstruct_into(tmp_path / "alone", SCAN, model)
    for result, _ in results:
        np.testing.assert_allclose(result.object_field, alone.object_field, atol=1e-6)
        np.testing.assert_array_equal(result.overlap_count, alone.overlap_count)
    assert {file.name for file in solve.iterdir()} >= {"reconstruction.npz", "solving.h5.zip"}


def test_an_error_of_another_process_than_the_first_says_which_one_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = run_here("train", tmp_path / "none.npz", "--devices", "3")
    assert (done.code, done.out) == (2, "")
    assert "devices must be 2 / num_nodes, as many as torchrun has started, or unset; got 3" in done.err
    done = run_here("train", tmp_path / "none.npz", "--backend", "reference", "--architecture", "cnn", "--events")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("Error: process 2 of 2: ")


def test_a_command_that_starts_its_processes_leaves_events_and_page_to_the_first_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*arguments: Any) -> None:
        raise SystemExit(3)

    command = ("train", tmp_path / "none.npz", "--backend", "reference", "--architecture", "cnn", "--devices", "2")
    refused = run_here(*command, "--events")
    assert [line["kind"] for line in map(json.loads, refused.out.splitlines())] == ["started", "failed"]
    monkeypatch.setattr("ptycho_core.engine.launched.joined", started)
    done = run_here(*command, "--events", "--serve")
    assert (done.code, done.out, done.err) == (3, "", "")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C is ignored where the tests are started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_signal_is_a_wish_once_and_then_an_end(interruptible: None) -> None:
    with stopped_by_signals():
        wish = Wish()
        wish.take_signals()
        assert not wish()
        signal.raise_signal(signal.SIGINT)
        assert wish()
        stop = KeyboardInterrupt()
        assert isinstance(wish.reason(stop), KeyboardInterrupt) and wish.reason(stop) is not stop
        assert isinstance(wish.reason(ValueError("full")), ValueError)


def test_a_scan_is_opened_by_several_processes_as_by_one_and_each_reads_its_own_patterns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "scan.h5"
    rng = np.random.default_rng(0)
    counts = rng.poisson(5, (11, 16, 16)).astype(np.uint16)
    counts[7, 3, 4] = 65535
    with h5py.File(file, "w") as stored:
        stored.create_dataset("data", data=counts, chunks=(2, 16, 16))
    reads: dict[int, set[int]] = {}
    read = HDF5Frames.read

    def watched(frames: HDF5Frames, index: Any) -> Any:
        reads.setdefault(threading.get_ident(), set()).update(index.tolist())
        return read(frames, index)

    monkeypatch.setattr(HDF5Frames, "read", watched)
    bad = np.zeros((16, 16), bool)
    bad[0, 5] = True

    def opened(processes: Processes) -> Frames:
        frames = Frames(HDF5Frames(file, "data"), measurement="intensity", steps=(Blank(bad),))
        with Shared(processes).reading():
            frames.measure(bad)
        return frames

    alone = Frames(HDF5Frames(file, "data"), measurement="intensity", steps=(Blank(bad),))
    whole = alone.measure(bad)
    for frames in together(3, opened):
        ours = frames.measure(bad)
        np.testing.assert_allclose(ours.frame_intensity, whole.frame_intensity, rtol=1e-14)
        np.testing.assert_allclose(ours.mean_pattern, whole.mean_pattern, rtol=1e-14)
        assert (ours.lowest, ours.largest) == (whole.lowest, whole.largest)
        assert frames.watched is not None and alone.watched is not None
        np.testing.assert_array_equal(frames.watched.saturated, alone.watched.saturated)
        assert (frames.watched.full, frames.watched.hidden) == (alone.watched.full, alone.watched.hidden)
    assert sorted(map(len, reads.values())) == [3, 4, 4]
    assert set().union(*reads.values()) == set(range(11))
