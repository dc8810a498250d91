"""The contract tests notice a fault, pass a sound engine, and do not overlook one that is absent."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.contract.backends import REQUIRE, differing_tests

ROOT = Path(__file__).parents[2]

FAULTS = {
    "axes_swapped": "test_gradients",
    "no_fftshift": "test_gradients",
    "channels_transposed": "test_gradients",
    "conjugated_gradient": "test_gradients",
    "half_pixel_shift": "test_gradients",
    "amplitude_for_intensity": "test_gradients",
    "patches_transposed": "test_predict",
    "gradients_add_up": "test_gradients",
    "decays_everything": "test_optimizer",
    "steps_at_every_batch": "test_optimizer",
    "never_begins_its_losses_again": "test_training_step",
    "forgets_the_physics_weight": "test_optimizer",
    "solver_axes_swapped": "test_solving",
    "solver_conjugated_gradient": "test_solving",
    "solver_sees_held_out": "test_solving",
    "solver_without_centre": "test_solving",
    "solver_shifts_backwards": "test_solving",
    "solver_forgets_cover": "test_solving",
    "solver_shares_its_steps": "test_solving",
}
"""Each fault of `tests.meta.faults` and the file of the suite that is there to notice it."""


def run_suite(*arguments: str, file: str = "", **environment: str) -> tuple[int, str]:
    """Exit status and output of the contract tests, all or those of one file, in a fresh interpreter."""
    clean = {name: value for name, value in os.environ.items() if name not in (REQUIRE, "PYTEST_ADDOPTS")}
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", f"tests/contract/{file}", "-q", "-p", "no:cacheprovider", *arguments]
    run = subprocess.run(
        command, cwd=ROOT, env=clean | threads | environment, capture_output=True, text=True, check=False
    )
    return run.returncode, run.stdout + run.stderr


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_noticed(fault: str, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    arguments = ("--engine", f"tests.meta.faults:{fault}", "-x", f"--junitxml={report}")
    status, output = run_suite(*arguments, file=f"{FAULTS[fault]}.py")
    assert status == pytest.ExitCode.TESTS_FAILED, output
    (failed,) = ElementTree.parse(report).iterfind(".//testcase[failure]")
    assert failed.find("failure").get("message").startswith("AssertionError: "), output


def test_a_sound_engine_passes_everything() -> None:
    status, output = run_suite("--engine", "tests.meta.faults:sound")
    assert status == pytest.ExitCode.OK, output
    assert "failed" not in output.splitlines()[-1]


def test_an_absent_engine_is_skipped_visibly() -> None:
    status, output = run_suite("-k", "test_describe and torch", "-p", "tests.meta.without_torch")
    assert status == pytest.ExitCode.OK, output
    assert re.search(r"SKIPPED .*'torch' package is not installed", output), output


@pytest.mark.parametrize(
    ("name", "reason"), [("torch", "'torch' package is not installed"), ("abacus", "Unknown backend 'abacus'")]
)
def test_an_absent_engine_that_is_required_is_an_error(name: str, reason: str) -> None:
    arguments = ("-k", f"test_describe and {name}", "-p", "tests.meta.without_torch")
    status, output = run_suite(*arguments, **{REQUIRE: name})
    assert status == pytest.ExitCode.TESTS_FAILED, output
    assert f"{REQUIRE} names {name!r}: " in output
    assert reason in output


@pytest.mark.parametrize("workers", [[], ["-n", "2", "--dist", "loadfile"]], ids=["one process", "workers"])
def test_a_test_skipped_on_one_required_engine_fails_the_run(workers: list[str]) -> None:
    """The reference has no float32, so one test is skipped on it; a second engine that runs it makes the difference."""
    engines = ("tests.meta.faults:sound", "tests.meta.faults:claims_float32")
    options = [argument for engine in engines for argument in ("--engine", engine)]
    status, output = run_suite(*options, *workers, "-k", "test_weights_leave", **{REQUIRE: ",".join(engines)})
    assert status == pytest.ExitCode.TESTS_FAILED, output
    assert "test_weights_leave_in_the_precision_they_are_kept_in[32-true]: not on tests.meta.faults:sound" in output


def test_required_engines_must_pass_the_same_tests() -> None:
    assert differing_tests({"a": {"x", "y"}, "b": {"x", "y"}}) == []
    assert differing_tests({"a": {"x", "y"}, "b": {"x"}, "c": set()}) == ["x: not on c", "y: not on b, c"]
