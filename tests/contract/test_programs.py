"""Programs written from a network predict as the engine that would run it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho_core.engine.protocol import Engine
from ptycho_core.models.export import NAMES, export_model
from ptycho_core.models.model import Model
from tests.contract.cases import Case, assert_field_close, build, named_case

NETWORKS = ("one_frame", "merged", "frames_alone", "cbam", "eca", "spatial")
WRITTEN = ("merged", "frames_alone", "cbam")
"""Fewer, because tracing takes seconds."""
RTOL = 1e-4


def model_of(engine: Engine, case: Case) -> Model:
    info = engine.describe()
    weights = {**case.illumination.arrays(), **case.weights}
    return Model(config=case.training, weights=weights, history=[], engine=info, best_epoch=0)


def assert_program_predicts(engine: Engine, case: Case, run: Any) -> None:
    """For the batch, and for one three times as large."""
    patches = build(engine, case, "32-true").predict(case.batch)
    for times in (1, 3):
        amplitude = np.tile(case.batch.diffraction_amplitude, (times, 1, 1, 1))
        real, imaginary = run(amplitude)
        assert real.dtype == imaginary.dtype == np.float32
        assert_field_close(real + 1j * imaginary, np.tile(patches, (times, 1, 1, 1)), RTOL, "patches")


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_predicts_as_the_engine(engine: Engine, tmp_path: Path, name: str) -> None:
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    case = named_case(name)
    path = export_model(model_of(engine, case), tmp_path / "network.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert_program_predicts(engine, case, lambda amplitude: session.run(list(NAMES[1:]), {NAMES[0]: amplitude}))


@pytest.mark.parametrize("name", WRITTEN)
def test_the_engine_s_own_program_predicts_as_the_engine(engine: Engine, tmp_path: Path, name: str) -> None:
    for form in getattr(engine, "exports", ()):
        if form not in RUNNERS:
            continue
        case = named_case(name)
        path = export_model(model_of(engine, case), tmp_path / "program", form=form, backend=engine.name)
        assert_program_predicts(engine, case, RUNNERS[form](path))
        assert not any(str(Path(__file__).parents[2]).encode() in part for part in contents(path))


def contents(path: Path) -> list[bytes]:
    """The bytes of a file, or of all files in a folder."""
    return [file.read_bytes() for file in [path, *path.rglob("*")] if file.is_file()]


def run_torch_program(path: Path) -> Any:
    import torch

    facts = {"ptycho_core.json": ""}
    program = torch.export.load(path, extra_files=facts).module()
    assert '"gridsize"' in facts["ptycho_core.json"]
    return lambda amplitude: [part.detach().numpy() for part in program(torch.from_numpy(amplitude))]


def run_saved_model(path: Path) -> Any:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    signature = loaded.signatures["serving_default"]
    assert '"gridsize"' in (path / "assets.extra" / "ptycho_core.json").read_text(encoding="utf-8")

    def run(amplitude: Any, loaded: Any = loaded) -> Any:  # what is loaded lives as long as what runs it
        outputs = signature(**{NAMES[0]: tf.constant(amplitude)})
        return [outputs[name].numpy() for name in NAMES[1:]]

    return run


RUNNERS = {"torch-export": run_torch_program, "savedmodel": run_saved_model}
"""Form → what opens a program and gives the function that it is."""
