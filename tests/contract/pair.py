"""Two processes of an engine: each does all the works, and keeps what they come to in a folder.

`python -m tests.contract.pair BACKEND FOLDER WORK:PRECISION …`

A framework is imported once, before its two processes fork, and takes little trouble to compile what is small here: one
process and two are compiled alike, and what is compared is how they share the work. With all its trouble, 2 and 4 of
them differ from one as little (1e-15 to 1e-14 in float64, 1e-6 to 5e-6 in float32, of the worst array). The engine's
launcher starts two commands that import nothing: each hands its environment to one of the two, and ends as it does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_core.engine.launched import place_of
from ptycho_core.engine.processes import ALONE
from ptycho_core.engine.registry import load_engine
from ptycho_core.errors import ProcessError
from ptycho_core.settings.execution import ExecutionConfig
from tests.contract.process_cases import DIES, WORKS, found

EXECUTION = ExecutionConfig(accelerator="cpu", devices=2)
PATIENCE_S = 60
STAND_IN = """
import json, os, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
told = os.environ.get("RANK") or str(json.loads(os.environ["TF_CONFIG"])["task"]["index"])
folder.joinpath("told").with_suffix("." + told).write_text(json.dumps(dict(os.environ)))
folder.joinpath("told." + told).rename(folder / ("environment." + told))
ended = folder / ("ended." + told)
while not ended.exists():
    time.sleep(0.02)
sys.exit(int(ended.read_text()))
"""


def when_there(file: Path) -> str:
    until = time.monotonic() + PATIENCE_S
    while not file.exists():
        if time.monotonic() > until:
            raise TimeoutError(f"no {file.name}")
        time.sleep(0.02)
    return file.read_text()


def work(engine: Any, folder: Path, rank: int, works: dict[str, str]) -> int:
    """All works together; then the second process dies, and the first one does them alone. The exit code."""
    os.environ |= json.loads(when_there(folder / f"environment.{rank}"))
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    place = place_of(EXECUTION)
    assert place is not None
    processes = engine.join(place, EXECUTION)
    with found(engine):
        for who, those in ((rank, processes), ("alone", ALONE))[: 1 + processes.first]:
            for name, precision in works.items():
                np.savez(folder / f"{name}-{who}.npz", **WORKS[name](engine, precision, those))  # type: ignore[arg-type]
    if not processes.first:
        return DIES
    try:
        processes.barrier()
    except ProcessError as error:
        (folder / "error").write_text(str(error))
    return 0


def main(backend: str, folder: str, *works: str) -> None:
    os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    for name in ("matplotlib", "pandas", "sklearn"):
        sys.modules[name] = None  # type: ignore[assignment]  # which a framework imports where they are installed
    engine, where = load_engine(backend), Path(folder)
    for rank in range(EXECUTION.devices):
        if os.fork() == 0:
            code = 1
            try:
                code = work(engine, where, rank, dict(each.split(":") for each in works))
            finally:
                where.joinpath("code").with_suffix(f".{rank}").write_text(str(code))
                where.joinpath(f"code.{rank}").rename(where / f"ended.{rank}")
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
    code = engine.launch([sys.executable, "-I", "-S", "-c", STAND_IN, folder], EXECUTION)  # type: ignore[attr-defined]
    for _ in range(EXECUTION.devices):
        os.wait()
    sys.exit(code)


if __name__ == "__main__":
    main(*sys.argv[1:])
