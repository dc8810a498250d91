"""PyTorch's solver takes the same steps compiled as it does without Numba."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_core.engine.problem import Rates
from tests.contract.cases import GRADIENT_RTOL, PRECISIONS, assert_arrays_close
from tests.contract.solver_cases import CASES, assert_facts_close, solver_case

torch = pytest.importorskip("torch")
pytest.importorskip("numba", reason="steps are compiled only where Numba is installed")

from ptycho_core_torch import solving  # noqa: E402


def started(name: str, precision: str, *, compiled: bool) -> solving.TorchSolver:
    problem = solver_case(name).problem
    return solving.TorchSolver(problem, device=torch.device("cpu"), precision=precision, compiled=compiled)


@pytest.mark.parametrize("name", CASES)
def test_compiled_steps_are_the_plain_ones(name: str) -> None:
    case = solver_case(name)
    cover = np.random.default_rng(3).random(case.problem.canvas.shape).astype(np.float32)
    plain, compiled = (started(name, "64-true", compiled=compiled) for compiled in (False, True))
    for each in (plain, compiled):
        each.set_cover(cover)
    for number, rates in enumerate((Rates(0.05, 0.03), Rates(0.05, 0.03), Rates(0.0, 0.05), Rates(0.05, 0.0))):
        frames = case.batches[number % 2]
        facts, expected = (each.step(frames, rates, shifts=number != 1) for each in (compiled, plain))
        assert_facts_close(facts, expected, 1e-10)
        assert_arrays_close(compiled.weights(), plain.weights(), 1e-10)
        assert_arrays_close(compiled.optimizer_state(), plain.optimizer_state(), 1e-10, "optimiser")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["three_modes", "amplitude"])
def test_a_compiled_step_in_every_precision(name: str, precision: str) -> None:
    frames = solver_case(name).frames
    plain, compiled = (started(name, precision, compiled=compiled) for compiled in (False, True))
    facts, expected = (each.step(frames, Rates(0.05, 0.03), shifts=True) for each in (compiled, plain))
    assert_facts_close(facts, expected, GRADIENT_RTOL[precision])
    assert_arrays_close(compiled.optimizer_state(), plain.optimizer_state(), GRADIENT_RTOL[precision], "optimiser")
    by_object, expected = (each.gradients(frames, object_only=True) for each in (compiled, plain))
    assert_arrays_close(by_object, expected, GRADIENT_RTOL[precision])


@pytest.mark.parametrize(("weight", "iterations"), [(0.3, 30), (0.02, 7), (0.3, 0), (0.0, 30)])
def test_compiled_proximal_steps_are_the_plain_ones(weight: float, iterations: int) -> None:
    plain, compiled = (started("three_modes", "64-true", compiled=compiled) for compiled in (False, True))
    for each in (plain, compiled):
        each.step(solver_case("three_modes").frames, Rates(0.05, 0.03))
        before = each.weights()
        each.apply("tv", weight=weight, iterations=iterations)
    assert_arrays_close(compiled.weights(), plain.weights(), 1e-12)
    changed = np.abs(compiled.weights()["object/field"] - before["object/field"]).max()
    assert (changed > 1e-3) == (weight > 0 and iterations > 0)


def test_a_processor_compiles_and_another_device_does_not() -> None:
    problem = solver_case("one_mode").problem
    solver = solving.TorchSolver(problem, device=torch.device("cpu"), precision="32-true")
    assert solver.compiled is not None
    assert not solving.can_compile(torch.device("meta"))


def test_without_numba_steps_are_plain_and_that_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(solving.importlib.util, "find_spec", lambda name: None)
    with caplog.at_level("INFO", logger=solving.__name__):
        solver = solving.TorchSolver(solver_case("one_mode").problem, device=torch.device("cpu"), precision="32-true")
    assert solver.compiled is None
    assert "pip install 'ptycho-core[fast]'" in caplog.text


def test_a_compiled_step_takes_one_thread_and_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, transform = [], torch.fft.fft2

    def watched(*arguments: object, **more: object) -> object:
        threads.append(torch.get_num_threads())
        return transform(*arguments, **more)

    monkeypatch.setattr(torch.fft, "fft2", watched)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        started("one_mode", "32-true", compiled=True).step(solver_case("one_mode").frames, Rates(0.05, 0.03))
        assert (set(threads), torch.get_num_threads()) == ({1}, 2)
    finally:
        torch.set_num_threads(before)
