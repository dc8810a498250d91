"""What the contract tests give to a solver: small, seeded, symmetric in nothing."""

from __future__ import annotations

import functools
from typing import Any

import attrs
import numpy as np
from ptycho_core_reference import ReferenceEngine

from ptycho_core.engine.problem import FrameFacts, Frames, Problem
from ptycho_core.engine.protocol import Engine, Solver
from ptycho_core.physics.constants import AMPLITUDE_FLOOR
from ptycho_core.settings.execution import ExecutionConfig
from tests.contract.cases import assert_field_close, make_probe

CASES: dict[str, dict[str, Any]] = {
    "one_mode": {},
    "three_modes": {"modes": 3},
    "amplitude": {"modes": 3, "loss": "amplitude"},
    "amplitude_floor": {"modes": 3, "loss": "amplitude", "counts_per_intensity": 37.0, "amplitude_floor": 0.4},
    "unknown_dose": {"modes": 3, "counts_per_intensity": 37.0},
    "unknown_dose_amplitude": {"modes": 3, "loss": "amplitude", "counts_per_intensity": 37.0},
    "whole_pixels": {"whole": True},
    "half_is_odd": {"N": 22},
    "nothing_held_out": {"held_out": 0.0, "bad": 0.0},
    "several_pieces": {"N": 64, "modes": 8, "frames": 11},
}
"""Arguments of `make_case`. In "several_pieces" a batch is more than an engine takes at a time."""


@attrs.frozen(eq=False)
class SolverCase:
    """A problem and two batches of frames, the second one smaller."""

    problem: Problem
    batches: tuple[Frames, Frames]

    @property
    def frames(self) -> Frames:
        return self.batches[0]


@functools.cache
def solver_case(name: str) -> SolverCase:
    return make_case(**CASES[name])


def make_case(
    *,
    N: int = 32,
    modes: int = 1,
    frames: int = 7,
    loss: str = "poisson",
    counts_per_intensity: float = 1.0,
    held_out: float = 0.1,
    bad: float = 0.05,
    whole: bool = False,
    amplitude_floor: float = AMPLITUDE_FLOOR,
) -> SolverCase:
    """An object not yet found, on a canvas that is wider than high; many pixels count nothing.

    The first two corners lie on whole pixels, and a hair's breadth below one; the last one at the canvas's far corner.
    """
    rng = np.random.default_rng(17)
    height, width = N + 25, N + 41
    canvas = 1 + 0.3 * (rng.normal(size=(height, width)) + 1j * rng.normal(size=(height, width)))
    probe = make_probe(N, modes)
    probe = probe * np.sqrt(2 * N**2 / counts_per_intensity / np.sum(np.abs(probe) ** 2))
    corners = rng.uniform(0, 1, (frames, 2)) * (width - N - 1.01, height - N - 1.01)
    corners[:3] = (3, 5), (7 - 1e-9, 4 + 1 - 1e-8), (width - N - 1e-6, height - N - 1e-6)
    counts = rng.poisson(4 * rng.random((frames, N, N)))
    everything = Frames(
        diffraction_amplitude=np.sqrt(counts / counts_per_intensity).astype(np.float32),
        corners_px=np.floor(corners) if whole else corners,
        intensity=rng.uniform(0.5, 1.5, frames).astype(np.float32),
        held_out=rng.integers(0, 3, frames),
    )
    problem = Problem(
        canvas=canvas.astype(np.complex64),
        probe=probe.astype(np.complex64),
        bad_pixels=rng.random((N, N)) < bad,
        held_out=rng.random((3, N, N)) < held_out,
        loss=loss,  # type: ignore[arg-type]
        counts_per_intensity=counts_per_intensity,
        amplitude_floor=amplitude_floor,
    )
    return SolverCase(problem, (everything, part(everything, slice(2))))


def part(frames: Frames, which: slice) -> Frames:
    return Frames(**{field.name: getattr(frames, field.name)[which] for field in attrs.fields(Frames)})


def start(engine: Engine, case: SolverCase, precision: str = "64-true") -> Solver:
    return engine.start_solver(case.problem, ExecutionConfig(accelerator="cpu", precision=precision))  # type: ignore[arg-type]


def start_reference(case: SolverCase) -> Solver:
    return start(ReferenceEngine(), case)


def assert_facts_close(actual: FrameFacts, reference: FrameFacts, peak_rtol: float) -> None:
    """Every fact close by its own peak, float64, and unknown where the reference's is."""
    for field in attrs.fields(FrameFacts):
        fact, expected = getattr(actual, field.name), getattr(reference, field.name)
        assert fact.dtype == np.float64, field.name
        if np.isnan(expected).all():
            assert np.isnan(fact).all(), field.name
        else:
            assert_field_close(fact, expected, peak_rtol, field.name)
