"""The reference's solver is held by finite differences, adjoint identities and steps whose outcome is known."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
from numpy.typing import NDArray
from ptycho_core_reference.solving import ReferenceSolver, divergence, forward_differences, total_variation

from ptycho_core.engine.problem import Frames, Problem, Rates
from ptycho_core.errors import DataError
from ptycho_core.physics.constants import POISSON_CHANCE, POISSON_FACTOR, POISSON_FLOOR
from ptycho_core.physics.patches import extract_patches
from ptycho_core.vocabulary import OBJECT, PROBE
from tests.contract.solver_cases import CASES, SolverCase, solver_case

STEP = 1e-6
FRACTION = (0.4, 0.5)


def loss(solver: ReferenceSolver, frames: Frames) -> float:
    """What `step` descends, written out: specs/solving.md, Residual and gradients."""
    per_count = 1 / solver.problem.counts_per_intensity
    measured = frames.diffraction_amplitude.astype(float) ** 2
    intensity = solver.forward(frames).intensity
    used = ~solver.problem.bad_pixels & ~solver.problem.held_out[frames.held_out]
    if solver.problem.loss == "amplitude":
        return float(
            np.sum(
                (np.sqrt(intensity + solver.problem.amplitude_floor * per_count) - np.sqrt(measured)) ** 2 / 2,
                where=used,
            )
        )
    floored = intensity + POISSON_FLOOR * per_count
    chance = POISSON_CHANCE * per_count
    edge = np.maximum(floored, (measured - chance) / POISSON_FACTOR)  # below it the limit is reached
    h = edge - measured + measured * np.log(np.where(measured > 0, measured, edge) / edge)
    beyond = (1 - POISSON_FACTOR) * (floored - edge) - chance * np.log(floored / edge)
    return float(np.sum(h + beyond, where=used) / 4)


def moved(case: SolverCase, changes: dict[str, NDArray[np.float64]], sign: float) -> float:
    """The loss a small step along `changes` away."""
    solver = ReferenceSolver(case.problem)
    weights = solver.weights()
    solver.load_weights({name: weights[name] + sign * STEP * changes.get(name, 0) for name in weights})
    corners = case.frames.corners_px + sign * STEP * changes.get("positions", 0)
    return loss(solver, attrs.evolve(case.frames, corners_px=corners))


def slope(case: SolverCase, changes: dict[str, NDArray[np.float64]]) -> float:
    return (moved(case, changes, 1) - moved(case, changes, -1)) / (2 * STEP)


@pytest.mark.parametrize("name", [name for name in CASES if name != "whole_pixels"])
def test_gradients_are_the_slopes_of_the_loss(name: str) -> None:
    """Along a random direction and along the gradient. Not on a whole pixel, where the cut has a kink."""
    case = solver_case(name)
    frames = attrs.evolve(case.frames, corners_px=np.clip(case.frames.corners_px, 0.1, None) * 0.98 + 0.123)
    case = attrs.evolve(case, batches=(frames, frames))
    gradients = ReferenceSolver(case.problem).gradients(frames)
    rng = np.random.default_rng(5)
    for key, gradient in gradients.items():
        for direction in (rng.normal(size=gradient.shape), gradient):
            direction = direction / np.linalg.norm(direction)
            expected, size = float(np.sum(gradient * direction)), float(np.linalg.norm(gradient))
            assert slope(case, {key: direction}) == pytest.approx(expected, abs=2e-6 * size), key


def test_the_poisson_limit_is_reached_somewhere() -> None:
    """Else the test above says nothing about it."""
    case = solver_case("one_mode")
    intensity = ReferenceSolver(case.problem).forward(case.frames).intensity
    floored = intensity + POISSON_FLOOR
    assert (case.frames.diffraction_amplitude**2 > POISSON_FACTOR * floored + POISSON_CHANCE).any()


def test_the_cut_is_that_of_patches_elsewhere() -> None:
    case = solver_case("one_mode")
    solver, N = ReferenceSolver(case.problem), case.problem.N
    expected = extract_patches(case.problem.canvas, case.frames.corners_px + N / 2, N)
    assert np.abs(solver.cut(case.frames.corners_px) - expected).max() < 1e-6


@pytest.mark.parametrize("name", ["one_mode", "whole_pixels", "half_is_odd"])
def test_placing_is_the_adjoint_of_cutting(name: str) -> None:
    case = solver_case(name)
    solver, rng = ReferenceSolver(case.problem), np.random.default_rng(2)
    canvas, patches = (
        rng.normal(size=(*shape, 2)).view(np.complex128)[..., 0]
        for shape in (case.problem.canvas.shape, case.frames.diffraction_amplitude.shape)
    )
    solver.fields[OBJECT] = canvas
    cut, placed = solver.cut(case.frames.corners_px), solver.place(patches, case.frames.corners_px)
    assert np.vdot(patches, cut) == pytest.approx(np.vdot(placed, canvas), rel=1e-12)


def test_slopes_are_those_of_the_cut() -> None:
    case = solver_case("one_mode")
    solver = ReferenceSolver(case.problem)
    frames = attrs.evolve(case.frames, corners_px=np.floor(case.frames.corners_px) + np.array([0.3, 0.6]))
    for axis, slopes in enumerate(solver.slopes(frames)):
        nudge = np.eye(2)[axis] * 0.1
        change = solver.cut(frames.corners_px + nudge) - solver.cut(frames.corners_px - nudge)
        assert np.abs(change / 0.2 - slopes).max() < 1e-12


def smooth_case(shift: tuple[float, float]) -> tuple[ReferenceSolver, Frames]:
    """A smooth object, its patterns without noise, and frames that are said to be `shift` before where they were."""
    base = solver_case("one_mode")
    height, width = base.problem.canvas.shape
    y, x = np.mgrid[:height, :width]
    canvas = np.exp(1j * np.sin(x / 2 + y / 9)) * (1 + 0.3 * np.cos(y / 2 - x / 11))
    problem: Problem = attrs.evolve(base.problem, canvas=canvas.astype(np.complex64), loss="amplitude")
    solver = ReferenceSolver(problem)
    corners = np.floor(np.clip(base.frames.corners_px, 1, None)) + np.array(FRACTION)
    there = attrs.evolve(base.frames, corners_px=corners)
    amplitude = np.sqrt(solver.forward(there).intensity).astype(np.float32)
    return solver, attrs.evolve(there, diffraction_amplitude=amplitude, corners_px=corners - shift)


@pytest.mark.parametrize("shift", [(0.1, 0.0), (0.0, -0.1), (-0.08, 0.06)])
def test_shifts_are_to_be_added_to_the_position(shift: tuple[float, float]) -> None:
    """Every step goes the right way, and steps repeated arrive."""
    solver, frames = smooth_case(shift)
    first = solver.step(frames, Rates(0.0), shifts=True).shift_px
    assert (np.linalg.norm(first - shift, axis=1) < 0.99 * np.linalg.norm(shift)).all()
    for _ in range(200):
        step = solver.step(frames, Rates(0.0), shifts=True).shift_px
        frames = attrs.evolve(frames, corners_px=frames.corners_px + step)
    assert np.abs(frames.corners_px - np.floor(frames.corners_px) - FRACTION).max() < 5e-3


def test_the_intensity_ratio_finds_the_intensity() -> None:
    solver, frames = smooth_case((0.0, 0.0))
    dimmer = attrs.evolve(frames, intensity=frames.intensity * np.float32(0.25))
    assert solver.measure(dimmer).intensity_ratio == pytest.approx(np.full(len(frames), 4.0), rel=1e-6)
    assert solver.measure(frames).error.max() < 1e-9 * solver.measure(frames).power.min()


def test_total_variation_falls_and_the_mean_stays() -> None:
    rng = np.random.default_rng(4)
    noisy = 1 + 0.5j + (rng.normal(size=(40, 50)) + 1j * rng.normal(size=(40, 50))) / 4

    def variation(field: Any) -> float:
        return float(np.sum(np.sqrt(np.sum(np.abs(forward_differences(field)) ** 2, axis=0))))

    def energy(field: Any) -> float:
        return float(np.sum(np.abs(field - noisy) ** 2) / 2 + 0.2 * variation(field))

    smooth = total_variation(noisy, weight=0.2, iterations=200)
    assert smooth.mean() == pytest.approx(noisy.mean(), rel=1e-12)
    assert variation(smooth) < 0.2 * variation(noisy)
    assert variation(total_variation(noisy, weight=0.05, iterations=200)) < variation(noisy)
    for _ in range(5):  # a minimum: no other field is better
        nudge = rng.normal(size=(40, 50)) + 1j * rng.normal(size=(40, 50))
        assert energy(smooth) < energy(smooth + 0.02 * nudge)
    assert energy(smooth) < energy(0.9 * smooth + 0.1 * noisy)
    assert energy(smooth) < energy(0.9 * smooth + 0.1 * noisy.mean())


def test_divergence_is_minus_the_adjoint_of_the_differences() -> None:
    rng = np.random.default_rng(6)
    field, dual = (rng.normal(size=(*shape, 2)).view(np.complex128)[..., 0] for shape in ((7, 9), (2, 7, 9)))
    dual[0, -1], dual[1, :, -1] = 0, 0
    assert np.vdot(dual, forward_differences(field)) == pytest.approx(-np.vdot(divergence(dual), field), rel=1e-12)


def test_a_probe_is_measured_by_its_modes_together() -> None:
    """The first step of Adam is the rate itself, wherever there is a gradient: of the probe, times its brightness."""
    case = solver_case("three_modes")
    solver = ReferenceSolver(case.problem)
    before = solver.weights()
    solver.step(case.frames, Rates(object=0.02, probe=0.03))
    brightness = np.sqrt(np.sum(before[PROBE] ** 2) / case.problem.N**2)
    for name, expected in ((OBJECT, 0.02), (PROBE, 0.03 * brightness)):
        change = np.abs(solver.weights()[name] - before[name])
        assert np.median(change[change > 0]) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("probe", np.ones((1, 31, 31), np.complex64)),
        ("probe", np.ones((32, 32), np.complex64)),
        ("probe", np.zeros((1, 32, 32), np.complex64)),
        ("canvas", np.ones((32, 80), np.complex64)),
        ("canvas", np.full((57, 73), np.nan, np.complex64)),
        ("bad_pixels", np.zeros((3, 32, 32), bool)),
        ("held_out", np.zeros((32, 32), bool)),
        ("held_out", np.zeros((1, 32, 32))),
        ("loss", "gaussian"),
        ("counts_per_intensity", 0.0),
    ],
)
def test_a_problem_that_does_not_fit_is_refused(name: str, array: Any) -> None:
    with pytest.raises(DataError, match=f"solver: {name}: expected"):
        attrs.evolve(solver_case("one_mode").problem, **{name: array})
