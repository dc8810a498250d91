"""`ptycho simulate --many` and `ptycho train-prior` without frameworks: what they write, how they go on and refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ptycho_core_reference import ReferenceEngine

from ptycho_core import load_scan
from ptycho_core.models.prior import load_prior
from ptycho_core.reconstruction.result import load_reconstruction
from ptycho_core.solving import loop

Ptycho = Callable[..., Any]
SCANS = ("--N", "16", "--positions", "20", "--step-px", "4")
SHORT = (
    *("--epochs", "2", "--steps", "1", "--batch-size", "1", "--crop-px", "16", "--widths", "2,3", "--sweeps", "2"),
    "--quiet",
)


@pytest.fixture(autouse=True)
def reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference engine in the place of all, and no pictures: they take seconds."""
    for place in (loop, __import__("ptycho_core.runs.train_prior", fromlist=["train_prior"])):
        monkeypatch.setattr(place, "load_engine", lambda backend: ReferenceEngine())
    monkeypatch.setattr("ptycho_core.runs.prepare.find_engine", lambda backend: ReferenceEngine)
    monkeypatch.setattr("ptycho_core.runs.solve.draw", lambda *arguments, **keywords: None)


@pytest.fixture
def scans(ptycho: Ptycho, tmp_path: Path) -> Path:
    outcome = ptycho("simulate", str(tmp_path / "scans"), "--many", "2", *SCANS, "--quiet")
    assert outcome.code == 0, outcome.err
    return tmp_path / "scans"


def refused(outcome: Any, *words: str) -> None:
    assert (outcome.code, outcome.out) == (2, "") and "Traceback" not in outcome.err
    for word in words:
        assert word in outcome.err


# -- simulate --many -----------------------------------------------------------------------------------------------


def test_many_scans_differ_in_what_varies_alone(ptycho: Ptycho, tmp_path: Path) -> None:
    out = tmp_path / "scans"
    outcome = ptycho("simulate", str(out), "--many", "3", "--vary", "photons, Phase", *SCANS, "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out) == {"folder": str(out), "scans": 3, "vary": ["photons", "phase"], "seed": 0}
    assert sorted(path.name for path in out.iterdir()) == [f"scan-000{number}.npz" for number in range(3)]
    facts = [load_scan(path).metadata for path in sorted(out.iterdir())]
    assert len({row["photons"] for row in facts}) == len({str(row["phase_range"]) for row in facts}) == 3
    assert {row["object"] for row in facts} == {"lines"} and len({row["seed"] for row in facts}) == 3


def test_what_a_flag_states_does_not_vary(ptycho: Ptycho, scans: Path, tmp_path: Path) -> None:
    assert {load_scan(path).metadata["step_px"] for path in scans.iterdir()} == {4.0}
    vary = ("--many", "2", "--vary", "photons", "--photons", "1e4")
    refused(ptycho("simulate", str(tmp_path / "more"), *vary, *SCANS), "--vary", "photons in both")
    refused(
        ptycho("simulate", str(tmp_path / "more"), "--many", "2", "--vary", "sky", *SCANS),
        "flag --vary: vary must be some of object, probe, photons,",
        "got sky",
    )
    refused(ptycho("simulate", str(tmp_path / "one.npz"), "--vary", "photons", *SCANS), "--many beside it")
    assert not (tmp_path / "more").exists()


def test_many_scans_do_not_replace_others_unasked(ptycho: Ptycho, scans: Path) -> None:
    before = (scans / "scan-0000.npz").read_bytes()
    again = ("simulate", str(scans), "--many", "2", *SCANS, "--seed", "5")
    refused(ptycho(*again), "scan-0000.npz, scan-0001.npz of an earlier run", "--overwrite")
    assert (scans / "scan-0000.npz").read_bytes() == before
    assert ptycho(*again, "--overwrite", "--quiet").code == 0
    assert (scans / "scan-0000.npz").read_bytes() != before


# -- train-prior ---------------------------------------------------------------------------------------------------


def test_a_prior_that_was_learned_is_used_by_a_solve(ptycho: Ptycho, scans: Path, tmp_path: Path) -> None:
    outcome = ptycho("train-prior", str(scans), "--out", str(tmp_path / "prior"), *SHORT, "--json")
    assert outcome.code == 0, outcome.err
    summary = json.loads(outcome.out)
    assert (summary["scans"], summary["epochs"]) == (2, 4) and summary["loss"] > 0
    assert load_prior(tmp_path / "prior").channels == (2, 3)
    solve = ("solve", str(scans / "scan-0000.npz"), "--refine", "none", "--modes", "1", "--batches", "4", "--quiet")
    outcome = ptycho(*solve, "--prior", str(tmp_path / "prior"), "--out", str(tmp_path / "out"))
    assert outcome.code == 0, outcome.err
    result = load_reconstruction(tmp_path / "out")
    assert result.choices["prior"] == str(tmp_path / "prior")
    assert (result.object_without_prior is None) is (result.choices["prior_not_used"] is not None)


def test_a_run_goes_on_with_the_settings_that_it_began_with(ptycho: Ptycho, scans: Path, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "prior"))
    assert ptycho("train-prior", str(scans), *out, *SHORT).code == 0
    before = load_prior(tmp_path / "prior")
    refused(ptycho("train-prior", str(scans), *out, *SHORT), "prior.h5.zip, teaching.h5.zip of an earlier run")
    assert ptycho("train-prior", "--resume", *out, "--quiet").code == 0
    after = load_prior(tmp_path / "prior")
    assert all(np.array_equal(before.weights[name], after.weights[name]) for name in before.weights)
    refused(ptycho("train-prior", "--resume", *out, "--steps", "3"), "steps must be 1, as the run began; got 3")
    refused(ptycho("train-prior", "--resume", "--out", str(tmp_path / "none")), "expected the configuration of a run")


def test_a_scan_without_truth_is_refused_before_any_work(ptycho: Ptycho, scans: Path, tmp_path: Path) -> None:
    with np.load(scans / "scan-0001.npz") as file:
        members = {name: file[name] for name in file.files if name != "objectGuess"}
    np.savez(scans / "scan-0001.npz", **members)
    outcome = ptycho("train-prior", str(scans), "--out", str(tmp_path / "prior"), *SHORT)
    refused(outcome, "scan-0001.npz", "expected ground truth; received none", "--from-scans")
    assert not (tmp_path / "prior").exists()
    outcome = ptycho("train-prior", str(scans), "--out", str(tmp_path / "prior"), *SHORT, "--from-scans")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("scans_dir must be a folder of scans; got none",)),
        (("gone",), ("no such folder: gone",)),
        (("scans", "--crop-px", "18"), ("crop_px", "a multiple of 4")),
        (("scans", "--widths", "24"), ("widths", "two to five whole numbers")),
        (("scans", "--rounds", "3", "--from-scans"), ("rounds has no effect",)),
    ],
)
def test_what_cannot_be_learned_from_is_refused(
    ptycho: Ptycho,
    scans: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    words: tuple[str, ...],
) -> None:
    monkeypatch.chdir(scans.parent)
    refused(ptycho("train-prior", *arguments, "--out", "prior", "--quiet"), *words)


def test_the_configuration_is_shown_without_work(ptycho: Ptycho, scans: Path, tmp_path: Path) -> None:
    outcome = ptycho("train-prior", str(scans), "--out", str(tmp_path / "prior"), "--show-config", "--steps", "7")
    assert outcome.code == 0 and "steps = 7" in outcome.out and "[prior]" in outcome.out
    assert not (tmp_path / "prior").exists()
