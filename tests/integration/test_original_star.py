"""A measured scan trains from the file that it was published in, through named parts, as from the prepared one."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.command_line import ptycho
from tests.integration.conftest import ONE, needs_an_engine
from tests.shared_data import SHARED, absent

STAR = SHARED / "siemens_star"
ORIGINAL, PREPARED = STAR / "siemens-star-small.npz.bz2", STAR / "siemens_star_64.npz"
PARTS = ("--dataset", "data", "--positions", "scan", "--position-order", "yx", "--position-unit", "px")
WAY = ("--measurement", "intensity", "--dc", "corner", "--crop", 64, "--probe", f"{PREPARED}:probeGuess")
SMALL = ("--architecture", "cnn", "--n-filters-scale", 1)
SHORT = (*SMALL, "--nepochs", 2, "--n-groups", 16, "--batch-size", 4, "--accelerator", "cpu")


def losses(folder: Path) -> list[float]:
    with (folder / "history.csv").open() as file:
        return [float(row["total"]) for row in csv.DictReader(file)]


@needs_an_engine
def test_the_original_star_trains_as_the_prepared_one(tmp_path: Path) -> None:
    if not STAR.is_dir():
        absent(STAR)
    run = ("--backend", ONE, *SHORT)
    ptycho("train", ORIGINAL, *PARTS, *WAY, "--out", tmp_path / "original", *run)
    ptycho("train", PREPARED, "--out", tmp_path / "prepared", *run)
    original, prepared = losses(tmp_path / "original"), losses(tmp_path / "prepared")
    assert original[1] < original[0]
    # The same frames, positions and groups; threads add in another order from run to run, and Adam amplifies it.
    assert original == pytest.approx(prepared, rel=1e-3)
