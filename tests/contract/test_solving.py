"""A solver's gradients, facts, steps and state: specs/solving.md."""

from __future__ import annotations

import attrs
import numpy as np
import pytest

from ptycho_core.engine.problem import FrameFacts, Frames, Rates
from ptycho_core.engine.protocol import Engine, Solver
from ptycho_core.errors import ArchiveError, BackendError, ConfigurationError, DataError
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.vocabulary import OBJECT, PROBE
from tests.contract.cases import FORWARD_RTOL, GRADIENT_RTOL, PRECISIONS, assert_arrays_close, assert_field_close
from tests.contract.solver_cases import (
    CASES,
    SolverCase,
    assert_facts_close,
    part,
    solver_case,
    start,
    start_reference,
)

RATES = Rates(object=0.05, probe=0.03)
FACTS_RTOL = {"64-true": 1e-12, "32-true": 2e-6}
STEP_RTOL = 1e-10


def both(engine: Engine, case: SolverCase) -> tuple[Solver, Solver]:
    return start(engine, case), start_reference(case)


# -- against the reference -------------------------------------------------------------------------------------------

PRECISE = [(name, "64-true") for name in CASES]
"""In single precision only rounding is new: of modes, of pieces that add up, and, in gradients, of the other loss."""


def test_a_solver_has_the_protocols_methods(engine: Engine) -> None:
    assert isinstance(start(engine, solver_case("one_mode")), Solver)


@pytest.mark.parametrize(
    ("name", "precision"), [*PRECISE, *((name, "32-true") for name in ("three_modes", "several_pieces", "amplitude"))]
)
def test_gradients_are_the_references(engine: Engine, name: str, precision: str) -> None:
    case = solver_case(name)
    solver, reference = start(engine, case, precision), start_reference(case)
    for frames in case.batches:
        expected = reference.gradients(frames)
        assert set(expected) == {OBJECT, PROBE, "positions"}
        assert_arrays_close(solver.gradients(frames), expected, GRADIENT_RTOL[precision])


@pytest.mark.parametrize("name", ["amplitude_floor", "several_pieces"])
def test_the_gradient_by_the_object_alone_is_the_same(engine: Engine, name: str) -> None:
    """Also of frames after others, and after a step."""
    case = solver_case(name)
    solver, reference = both(engine, case)
    for frames in case.batches:
        by_object = {OBJECT: reference.gradients(frames)[OBJECT]}
        assert_arrays_close(solver.gradients(frames, object_only=True), by_object, GRADIENT_RTOL["64-true"])
        for each in (solver, reference):
            each.step(frames, RATES)


@pytest.mark.parametrize(
    ("name", "precision"), [*PRECISE, *((name, "32-true") for name in ("three_modes", "several_pieces"))]
)
def test_facts_are_the_references(engine: Engine, name: str, precision: str) -> None:
    case = solver_case(name)
    solver, reference = start(engine, case, precision), start_reference(case)
    for frames in case.batches:
        assert_facts_close(solver.measure(frames), reference.measure(frames), FACTS_RTOL[precision])


@pytest.mark.parametrize("name", CASES)
def test_steps_are_the_references(engine: Engine, name: str) -> None:
    """With shifts, except in the first case. The second batch is smaller, and a third step has another rate."""
    case, shifts = solver_case(name), name != "one_mode"
    cover = np.random.default_rng(3).random(case.problem.canvas.shape).astype(np.float32)
    solver, reference = both(engine, case)
    for each in (solver, reference):
        each.set_cover(cover)
    for frames, rates in (*((frames, RATES) for frames in case.batches), (case.frames, Rates(0.01, 0.2))):
        facts, expected = (each.step(frames, rates, shifts=shifts) for each in (solver, reference))
        assert np.isnan(facts.deviance).all()
        assert np.isfinite(expected.shift_px).all() == shifts
        assert_facts_close(facts, expected, STEP_RTOL)
        assert_arrays_close(solver.weights(), reference.weights(), STEP_RTOL)
        assert_arrays_close(solver.optimizer_state(), reference.optimizer_state(), STEP_RTOL, "optimiser")


def test_shifts_and_moments_in_single_precision(engine: Engine) -> None:
    if "32-true" not in engine.describe().precisions:
        pytest.skip(f"{engine.name} has no float32")
    case = solver_case("three_modes")
    solver, reference = start(engine, case, "32-true"), start_reference(case)
    facts, expected = (each.step(case.frames, RATES, shifts=True) for each in (solver, reference))
    assert_field_close(facts.shift_px, expected.shift_px, GRADIENT_RTOL["32-true"], "shift_px")
    state = solver.optimizer_state()
    assert_arrays_close(state, reference.optimizer_state(), GRADIENT_RTOL["32-true"], "optimiser")
    assert {array.dtype for name, array in state.items() if not name.startswith("step")} == {np.dtype(np.float32)}
    assert {array.dtype for array in solver.weights().values()} == {np.dtype(np.float32)}


def test_rescaling_is_the_references(engine: Engine) -> None:
    case = solver_case("three_modes")
    solver, reference = both(engine, case)
    for each in (solver, reference):
        each.step(case.frames, RATES)
        each.rescale(123.0)
    weights = solver.weights()
    assert np.sum(weights[PROBE] ** 2) == pytest.approx(123.0, rel=1e-12)
    assert_arrays_close(weights, reference.weights(), STEP_RTOL)
    assert_arrays_close(solver.optimizer_state(), reference.optimizer_state(), STEP_RTOL, "optimiser")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("weight", "iterations"), [(0.05, 30), (0.4, 7), (0.0, 30)])
def test_denoising_is_the_references(engine: Engine, weight: float, iterations: int, precision: str) -> None:
    case = solver_case("one_mode")
    solver, reference = start(engine, case, precision), start_reference(case)
    for each in (solver, reference):
        each.denoise(weight, iterations)
    assert_arrays_close(solver.weights(), reference.weights(), FORWARD_RTOL[precision])
    before = case.problem.canvas
    assert np.array_equal(solver.weights()[OBJECT][..., 0], before.real) == (weight == 0)
    assert_field_close(solver.weights()[PROBE][..., 1], case.problem.probe.imag, FORWARD_RTOL[precision])


def test_denoising_is_a_registered_step(engine: Engine) -> None:
    case = solver_case("one_mode")
    one, other = start(engine, case), start(engine, case)
    one.denoise(0.1, 5)
    other.apply("tv", weight=0.1, iterations=5)
    assert_arrays_close(one.weights(), other.weights(), 0.0)
    with pytest.raises(ConfigurationError, match=r"received 'smooth'\. Registered: .*tv"):
        one.apply("smooth")


# -- what a step leaves alone ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["bad_pixels", "held_out"])
def test_pixels_that_are_not_used_change_no_step(engine: Engine, what: str) -> None:
    case = solver_case("three_modes")
    where = case.problem.bad_pixels if what == "bad_pixels" else case.problem.held_out[case.frames.held_out]
    amplitude = np.where(where, 3 * case.frames.diffraction_amplitude + 1, case.frames.diffraction_amplitude)
    other = attrs.evolve(case.frames, diffraction_amplitude=amplitude.astype(np.float32))
    solver, changed = start(engine, case), start(engine, case)
    facts, of_changed = solver.step(case.frames, RATES, shifts=True), changed.step(other, RATES, shifts=True)
    assert_arrays_close(changed.weights(), solver.weights(), 0.0)
    for name in ("error", "power", "pixels", "intensity_ratio", "shift_px"):
        assert_field_close(getattr(of_changed, name), getattr(facts, name), 0.0, name)
    seen = not np.array_equal(of_changed.held_error, facts.held_error)
    assert seen == (what == "held_out")


@pytest.mark.parametrize(("rates", "fixed"), [(Rates(0.05, 0.0), PROBE), (Rates(0.0, 0.05), OBJECT)])
def test_a_rate_of_0_leaves_an_array_and_its_moments(engine: Engine, rates: Rates, fixed: str) -> None:
    case = solver_case("one_mode")
    solver, reference = both(engine, case)
    before, state = solver.weights(), solver.optimizer_state()
    for each in (solver, reference):
        each.step(case.frames, rates)
    after, stepped = solver.weights(), solver.optimizer_state()
    for name in (OBJECT, PROBE):
        assert np.array_equal(after[name], before[name]) == (name == fixed)
        assert stepped[f"step/{name}"] == (name != fixed)
        assert np.array_equal(stepped[f"first_moment/{name}"], state[f"first_moment/{name}"]) == (name == fixed)
    for each in (solver, reference):
        each.step(case.frames, RATES)
    assert_arrays_close(solver.weights(), reference.weights(), STEP_RTOL)


def test_pixels_without_cover_stay(engine: Engine) -> None:
    case = solver_case("one_mode")
    solver = start(engine, case)
    cover = np.zeros(case.problem.canvas.shape, np.float32)
    cover[20:, 30:] = 1
    solver.set_cover(cover)
    solver.step(case.frames, RATES)
    changed = (solver.weights()[OBJECT] != start(engine, case).weights()[OBJECT]).any(axis=-1)
    assert changed[20:, 30:].any()
    assert not changed[cover == 0].any()


def test_measuring_and_gradients_change_nothing(engine: Engine) -> None:
    case = solver_case("three_modes")
    solver, untouched = start(engine, case), start(engine, case)
    for each in (solver, untouched):
        each.step(case.frames, RATES)
    solver.measure(case.frames)
    solver.gradients(case.frames)
    for each in (solver, untouched):
        each.step(case.batches[1], RATES)
    assert_arrays_close(solver.weights(), untouched.weights(), 1e-12)


# -- frames ------------------------------------------------------------------------------------------------------------


def test_deviances_only_where_asked_for(engine: Engine) -> None:
    case = solver_case("three_modes")
    solver = start(engine, case)
    with_them, without = solver.measure(case.frames), solver.measure(case.frames, deviance=False)
    for field in attrs.fields(FrameFacts):
        known, other = getattr(with_them, field.name), getattr(without, field.name)
        if "deviance" in field.name:
            assert np.isfinite(known).all()
            assert np.isnan(other).all()
        elif field.name == "shift_px":
            assert known.shape == other.shape == (len(case.frames), 2)
            assert np.isnan(known).all()
            assert np.isnan(other).all()
        else:
            assert_field_close(other, known, 1e-12, field.name)


def test_frames_are_measured_whatever_others_are_with_them(engine: Engine) -> None:
    """In the order that they are given in."""
    case = solver_case("several_pieces")
    solver = start(engine, case)
    whole = solver.measure(case.frames)
    parts = [solver.measure(part(case.frames, slice(start, start + 3))) for start in range(0, len(case.frames), 3)]
    assert_facts_close(FrameFacts.join(parts), whole, 1e-12)


def test_a_corner_is_continuous_through_a_whole_pixel(engine: Engine) -> None:
    case = solver_case("three_modes")
    solver = start(engine, case, "32-true")
    on, below, above = (
        solver.measure(attrs.evolve(case.frames, corners_px=np.full((len(case.frames), 2), 9 + nudge))).error
        for nudge in (0.0, -1e-9, 1e-9)
    )
    assert_field_close(below, on, 1e-5)
    assert_field_close(above, on, 1e-5)


@pytest.mark.parametrize("past", [(-1e-9, 3), (3, -1e-9), (41, 3), (3, 25), (np.nan, 3)])
def test_frames_outside_the_canvas_are_refused(engine: Engine, past: tuple[float, float]) -> None:
    case = solver_case("one_mode")
    solver = start(engine, case)
    corners = case.frames.corners_px.copy()
    corners[-1] = past
    outside = attrs.evolve(case.frames, corners_px=corners)
    for work in (lambda f: solver.step(f, RATES), solver.measure, solver.gradients):
        with pytest.raises(DataError, match="corners_px: expected x from 0 to below 41, y from 0 to below 25"):
            work(outside)


def test_arrays_that_do_not_fit_are_refused(engine: Engine) -> None:
    case = solver_case("one_mode")
    solver = start(engine, case)
    for name, array in (
        ("diffraction_amplitude", case.frames.diffraction_amplitude[:, :-2]),
        ("intensity", case.frames.intensity[:-1]),
        ("held_out", case.frames.held_out + 3),
    ):
        with pytest.raises(DataError, match=f"solver: {name}: expected"):
            solver.step(attrs.evolve(case.frames, **{name: array}), RATES)
    for cover in (np.ones((5, 5), np.float32), np.full(case.problem.canvas.shape, 2, np.float32)):
        with pytest.raises(DataError, match="cover"):
            solver.set_cover(cover)


# -- state -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to_reference", [True, False], ids=["to the reference", "from the reference"])
def test_a_solve_goes_on_in_another_engine(engine: Engine, to_reference: bool) -> None:
    case = solver_case("three_modes")
    solver, reference = both(engine, case)
    begun, other = (solver, reference) if to_reference else (reference, solver)
    for frames in case.batches:
        begun.step(frames, RATES)
    other.load_weights(begun.weights())
    other.load_optimizer_state(begun.optimizer_state())
    facts, expected = (each.step(case.frames, RATES, shifts=True) for each in (other, begun))
    assert_facts_close(facts, expected, STEP_RTOL)
    assert_arrays_close(other.weights(), begun.weights(), STEP_RTOL)
    assert_arrays_close(other.optimizer_state(), begun.optimizer_state(), STEP_RTOL, "optimiser")


def test_state_starts_at_the_problem(engine: Engine) -> None:
    case = solver_case("three_modes")
    solver = start(engine, case)
    for name, field in ((OBJECT, case.problem.canvas), (PROBE, case.problem.probe)):
        assert_field_close(solver.weights()[name], np.stack([field.real, field.imag], axis=-1), 0.0, name)
    solver.step(case.frames, RATES)
    solver.load_weights(start_reference(case).weights())
    assert_arrays_close(solver.weights(), start_reference(case).weights(), 0.0)
    assert not any(np.any(array) for array in solver.optimizer_state().values())


def test_state_is_a_copy(engine: Engine) -> None:
    case = solver_case("one_mode")
    solver, untouched = start(engine, case), start(engine, case)
    for each in (solver, untouched):
        each.step(case.frames, RATES)
    for arrays in (solver.weights(), solver.optimizer_state()):
        for array in arrays.values():
            array[...] = np.nan
    for each in (solver, untouched):
        each.step(case.frames, RATES)
    assert_arrays_close(solver.weights(), untouched.weights(), 0.0)


def test_state_that_does_not_fit_is_refused_and_changes_nothing(engine: Engine) -> None:
    case = solver_case("one_mode")
    solver, other = start(engine, case), start(engine, solver_case("three_modes"))
    solver.step(case.frames, RATES)
    weights, state = solver.weights(), solver.optimizer_state()
    with pytest.raises(ArchiveError, match=r"probe/field: expected shape \(1, 32, 32, 2\); received \(3, 32, 32, 2\)"):
        solver.load_weights(other.weights())
    with pytest.raises(ArchiveError, match=r"missing \['object/field'\]"):
        solver.load_weights({PROBE: weights[PROBE]})
    with pytest.raises(ArchiveError, match="first_moment/probe/field"):
        solver.load_optimizer_state(other.optimizer_state())
    assert_arrays_close(solver.weights(), weights, 0.0)
    assert_arrays_close(solver.optimizer_state(), state, 0.0)


def test_an_accelerator_that_is_not_there_is_refused(engine: Engine) -> None:
    absent = [name for name in ("cuda", "mps") if name not in engine.describe().devices]
    assert absent, "no machine has both"
    for name in absent:
        execution = ExecutionConfig(accelerator=name)  # type: ignore[arg-type]
        with pytest.raises(BackendError, match=name):
            engine.start_solver(solver_case("one_mode").problem, execution)


def test_it_solves(engine: Engine) -> None:
    """Noise-free patterns of a known object: the error falls by far more than one step's luck."""
    case = solver_case("one_mode")
    truth = start_reference(case)
    nothing_measured = attrs.evolve(case.frames, intensity=np.ones(len(case.frames), np.float32))
    pattern = truth.forward(nothing_measured).intensity  # type: ignore[attr-defined]
    frames: Frames = attrs.evolve(nothing_measured, diffraction_amplitude=np.sqrt(pattern).astype(np.float32))
    blank = attrs.evolve(case.problem, canvas=np.ones_like(case.problem.canvas))
    solver = engine.start_solver(blank, ExecutionConfig(accelerator="cpu", precision="64-true"))
    errors = [solver.step(frames, Rates(0.05)).error.sum() for _ in range(40)]
    assert errors[-1] < errors[0] / 20
