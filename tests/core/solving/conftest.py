"""A tiny scan with a known truth, and the reference engine in the place of all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ptycho_core_reference import ReferenceEngine

from ptycho_core.physics.canvas import summed_weight
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.solving import SolveConfig
from ptycho_core.simulation import simulate

SMALL: dict[str, Any] = {"batches": 4, "sweeps": 3, "refine": "none", "modes": 1, "prior": "none"}
"""Settings of a run that is over soon and in which nothing is left to be found out."""


def small(**changes: Any) -> SolveConfig:
    return SolveConfig(**{**SMALL, **changes})


@pytest.fixture(scope="session")
def solved_scan() -> Scan:
    """40 patterns of 16 x 16 pixels."""
    return simulate(N=16, positions=40, step_px=3, object="lines", photons=1e5, seed=3)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The reference engine under every name; the names that were asked for."""
    asked: list[str] = []

    def load_engine(backend: str = "auto") -> ReferenceEngine:
        asked.append(backend)
        return ReferenceEngine()

    monkeypatch.setattr("ptycho_core.solving.loop.load_engine", load_engine)
    return asked


@pytest.fixture
def likeness() -> Callable[[Any, Scan], float]:
    """|correlation| of a reconstruction with the truth, both without their means, over the well-lit pixels."""

    def correlation(result: Any, scan: Scan) -> float:
        assert scan.object_field is not None
        truth = np.zeros(result.object_field.shape, np.complex128)
        inside = np.zeros(truth.shape, bool)
        x, y = (round(-origin) for origin in result.origin_px)
        height, width = scan.object_field.shape
        rows, columns = slice(max(0, y), y + height), slice(max(0, x), x + width)
        part = scan.object_field[rows.start - y :, columns.start - x :]
        part = part[: truth.shape[0] - rows.start, : truth.shape[1] - columns.start]
        window = slice(rows.start, rows.start + part.shape[0]), slice(columns.start, columns.start + part.shape[1])
        truth[window], inside[window] = part, True
        light = summed_weight(
            result.positions_px,
            np.square(np.abs(result.probe)).sum(axis=0),
            origin_px=result.origin_px,
            shape=truth.shape,
        )
        inside &= light > 0.5 * np.median(light[result.known])
        a, b = (field[inside] - field[inside].mean() for field in (result.object_field, truth))
        return float(abs(np.vdot(a, b)) / np.linalg.norm(a) / np.linalg.norm(b))

    return correlation
