"""A process of several that an engine's launcher starts: does each work, and keeps what it comes to.

`python -m tests.contract.pair BACKEND FOLDER WORK:PRECISION …`
"""

from __future__ import annotations

import sys
from pathlib import Path

import attrs
import numpy as np

from ptycho_core.engine.launched import place_of
from ptycho_core.engine.registry import load_engine
from ptycho_core.settings.execution import ExecutionConfig
from tests.contract.process_cases import WORKS, found


def main(backend: str, folder: str, *works: str) -> None:
    execution = ExecutionConfig(accelerator="cpu", devices=2)
    place = place_of(execution)
    assert place is not None
    engine = load_engine(backend)
    processes = engine.join(place, attrs.evolve(execution))  # type: ignore[attr-defined]
    for each in works:
        work, _, precision = each.partition(":")
        with found(engine):
            made = WORKS[work](engine, precision, processes)
        np.savez(Path(folder) / f"{work}-{precision}-{processes.rank}.npz", **made)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])
