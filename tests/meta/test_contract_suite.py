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
from tests.meta.faults import NOTICED_BY

ROOT = Path(__file__).parents[2]


def run_suite(*arguments: str, file: str = "", **environment: str) -> tuple[int, str]:
    """Exit status and output of the contract tests, all or those of one file, in a fresh interpreter."""
    clean = {name: value for name, value in os.environ.items() if name not in (REQUIRE, "PYTEST_ADDOPTS")}
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", f"tests/contract/{file}", "-q", "-p", "no:cacheprovider", *arguments]
    run = subprocess.run(
        command, cwd=ROOT, env=clean | threads | environment, capture_output=True, text=True, check=False
    )
    return run.returncode, run.stdout + run.stderr


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The messages of the tests that fail, or cannot run, on a sound engine and on one for each fault, by its name."""
    report, engines = tmp_path_factory.mktemp("meta") / "report.xml", ("sound", *NOTICED_BY)
    arguments = [argument for name in engines for argument in ("--engine", f"tests.meta.faults:{name}")]
    status, output = run_suite(*arguments, "-p", "tests.meta.first_failures", f"--junitxml={report}")
    assert status == pytest.ExitCode.TESTS_FAILED, output
    found: dict[str, list[str]] = {}
    for test in ElementTree.parse(report).iterfind(".//testcase"):
        for name in set(engines) & set(re.split(r"[\[\]-]", test.get("name", ""))):
            of_engine = found.setdefault(name, [])
            of_engine += [end.get("message", "") for kind in ("failure", "error") for end in test.iterfind(kind)]
    assert set(found) == set(engines), "each was tried"
    return found


@pytest.mark.parametrize("fault", NOTICED_BY)
def test_a_planted_fault_is_noticed(fault: str, failures: dict[str, list[str]]) -> None:
    (message,) = failures[fault]
    assert message.startswith("AssertionError: ")


def test_a_sound_engine_passes_everything(failures: dict[str, list[str]]) -> None:
    assert failures["sound"] == []


def test_an_absent_engine_is_skipped_visibly() -> None:
    arguments = ("-k", "test_describe and torch", "-p", "tests.meta.without_torch")
    status, output = run_suite(*arguments, file="test_protocol.py")
    assert status == pytest.ExitCode.OK, output
    assert re.search(r"SKIPPED .*'torch' package is not installed", output), output


@pytest.mark.parametrize(
    ("name", "reason"), [("torch", "'torch' package is not installed"), ("abacus", "Unknown backend 'abacus'")]
)
def test_an_absent_engine_that_is_required_is_an_error(name: str, reason: str) -> None:
    arguments = ("-k", f"test_describe and {name}", "-p", "tests.meta.without_torch")
    status, output = run_suite(*arguments, file="test_protocol.py", **{REQUIRE: name})
    assert status == pytest.ExitCode.TESTS_FAILED, output
    assert f"{REQUIRE} names {name!r}: " in output
    assert reason in output


@pytest.mark.parametrize("workers", [[], ["-n", "2", "--dist", "loadfile"]], ids=["one process", "workers"])
def test_a_test_skipped_on_one_required_engine_fails_the_run(workers: list[str]) -> None:
    """The reference has no float32, so one test is skipped on it; a second engine that runs it makes the difference."""
    engines = ("tests.meta.faults:sound", "tests.meta.faults:claims_float32")
    options = [argument for engine in engines for argument in ("--engine", engine)]
    status, output = run_suite(
        *options, *workers, "-k", "test_weights_leave", file="test_protocol.py", **{REQUIRE: ",".join(engines)}
    )
    assert status == pytest.ExitCode.TESTS_FAILED, output
    assert "test_weights_leave_in_the_precision_they_are_kept_in[32-true]: not on tests.meta.faults:sound" in output


def test_required_engines_must_pass_the_same_tests() -> None:
    assert differing_tests({"a": {"x", "y"}, "b": {"x", "y"}}) == []
    assert differing_tests({"a": {"x", "y"}, "b": {"x"}, "c": set()}) == ["x: not on c", "y: not on b, c"]
