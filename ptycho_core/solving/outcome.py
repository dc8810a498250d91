"""The image that a state holds."""

from __future__ import annotations

import numpy as np

from ptycho_core.engine.protocol import EngineInfo
from ptycho_core.physics.canvas import summed_weight
from ptycho_core.quality.trust import lit_pixels
from ptycho_core.reconstruction.result import SOLVER, Reconstruction
from ptycho_core.solving.modes import orthogonal
from ptycho_core.solving.problem import Task
from ptycho_core.solving.run import State


def image(task: Task, state: State, engine: EngineInfo, seconds: dict[str, float]) -> Reconstruction:
    """The object of a state, 0 where no light fell, without evidence."""
    known = lit_pixels(task.light(state.probe, state.positions_px))
    ones = np.ones((task.N, task.N))
    overlap = summed_weight(np.floor(state.positions_px), ones, origin_px=task.origin_px, shape=task.shape)
    return Reconstruction(
        object_field=np.where(known, state.canvas, np.complex64(0)),
        origin_px=task.origin_px,
        overlap_count=np.rint(overlap).astype(np.int32),
        probe=orthogonal(state.probe),
        positions_px=state.positions_px,
        patterns=len(task),
        seconds=seconds,
        engine=engine,
        known=known,
        given_positions_px=task.scan.positions_px,
        intensities=state.intensity,
        method=SOLVER,
    )
