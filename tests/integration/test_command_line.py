"""train → save → load → reconstruct → evaluate on every engine: what one process has trained, another one uses."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ptycho_core import load_model
from ptycho_core.engine.registry import is_installed
from tests.command_line import ptycho, run_apart
from tests.integration.conftest import ENGINES, PATTERNS, SMALL, Trained


def files_of(folder: Path) -> list[str]:
    """All but the report, which needs an extra."""
    return sorted({path.name for path in folder.iterdir()} - {"report.html"})


def test_train_writes_archive_configuration_history_and_figure(trained: Trained) -> None:
    assert files_of(trained.folder) == [
        "checkpoint.h5.zip",
        "config.toml",
        "history.csv",
        "loss.png",
        "run.json",
        "wts.h5.zip",
    ]
    with (trained.folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["total"]) for row in rows]
    assert len(losses) == 4
    assert losses[-1] < 0.7 * losses[0], losses


def test_piped_output_is_plain_lines_and_json_stands_alone(trained: Trained, backend: str) -> None:
    assert json.loads(trained.printed.out)["backend"] == backend
    assert "epoch 1/4: loss" in trained.printed.err
    assert "\r" not in trained.printed.err


def test_reconstruct_writes_object_on_its_grid_with_origin(reconstructed: Path, scan_file: Path, backend: str) -> None:
    assert files_of(reconstructed) == [
        "reconstruction.json",
        "reconstruction.npz",
        "reconstruction.png",
        "run.json",
    ]
    scan = np.load(scan_file)
    with np.load(reconstructed / "reconstruction.npz", allow_pickle=False) as file:
        field, origin, count = file["object"], file["origin_px"], file["overlap_count"]
    positions = np.stack([scan["xcoords"], scan["ycoords"]], axis=-1)
    assert field.dtype == np.complex64
    assert field.shape == count.shape
    np.testing.assert_array_equal(origin, np.floor(positions.min(axis=0)) - 16)
    assert count.sum() == PATTERNS * 32**2
    facts = json.loads((reconstructed / "reconstruction.json").read_text())
    assert facts["backend"] == backend
    assert facts["patterns"] == PATTERNS
    assert facts["patterns_per_second"] == pytest.approx(PATTERNS / facts["seconds"]["total"])


def test_evaluate_prints_and_writes_every_metric(
    reconstructed: Path, scan_file: Path, tmp_path: Path, pages: None
) -> None:
    folder = shutil.copytree(reconstructed, tmp_path / "reconstructed")
    printed = json.loads(ptycho("evaluate", folder, "--truth", scan_file, "--json").out)
    written = json.loads((folder / "evaluation.json").read_text())
    assert printed == written
    for image in ("amplitude", "phase"):
        assert {"mae", "psnr_db", "data_range", "ssim", "frc_crossing"} <= set(printed[image])
        assert printed[image]["data_range"] > 0
    assert (folder / "evaluation.png").read_bytes().startswith(b"\x89PNG")


def test_same_seed_gives_the_same_archive_weights(
    trained: Trained, scan_file: Path, backend: str, tmp_path: Path
) -> None:
    """In another process."""
    ptycho("train", scan_file, "--out", tmp_path, "--backend", backend, *SMALL)
    first, second = load_model(trained.folder).weights, load_model(tmp_path).weights
    for name, array in first.items():
        # Threads add in another order from run to run: equal to rounding, amplified by four epochs of training.
        np.testing.assert_allclose(second[name], array, atol=0.02 * max(np.abs(array).max(), 0.05), err_msg=name)


def test_interrupt_keeps_the_best_weights_so_far_and_exits_with_130(
    scan_file: Path, backend: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-u", "-m", "ptycho_core", "train", str(scan_file), "--out", str(tmp_path)]
    command += ["--backend", backend, *map(str, SMALL), "--nepochs", "500", "--n-groups", "16"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # A shell starts what runs in the background with interrupts ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith("epoch 2/"):
            break
    time.sleep(0.2)  # into the next epoch
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=120)[1]
    assert process.returncode == 130, "".join(lines) + rest
    assert "Traceback" not in rest
    facts = json.loads(ptycho("inspect", tmp_path, "--json").out)
    assert 2 <= facts["epochs"] < 500


def test_missing_framework_is_named_with_the_remedy(scan_file: Path, tmp_path: Path) -> None:
    absent = [name for name in ENGINES if not is_installed(name)]
    if not absent:
        pytest.skip("every engine is installed here")
    done = run_apart("train", scan_file, "--out", tmp_path, "--backend", absent[0])
    assert done.code == 2
    assert f"pip install 'ptycho-core[{absent[0]}]'" in done.err
    assert "Traceback" not in done.err
