"""Programs written from a network predict as the engine that would run it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from ptycho_core.engine.protocol import Engine
from ptycho_core.models.export import export_model
from ptycho_core.models.model import Model
from ptycho_core.models.signature import IMAGINARY, REAL, signature_of
from ptycho_core.networks.registry import build_table
from ptycho_core.vocabulary import PROBE
from tests.contract.cases import Case, assert_field_close, build, named_case

NETWORKS = ("one_frame", "merged", "frames_alone", "cbam", "eca", "spatial", "canvas")
WRITTEN = ("merged", "frames_alone", "cbam", "canvas", "ffno")
"""Fewer, because tracing takes seconds."""
RTOL = 1e-4


def model_of(engine: Engine, case: Case) -> Model:
    info = engine.describe()
    weights = {**case.illumination.arrays(), **case.weights}
    return Model(config=case.training, weights=weights, history=[], engine=info, best_epoch=0)


def case_of(name: str) -> Case:
    """A canvas is lit by the probe that it is given, and no wider than it must be."""
    case = named_case(name)
    if not build_table(case.model).canvas:
        return case
    batches = [
        attrs.evolve(each, held_out=None, canvas_padding_px=int(np.ceil(np.abs(each.relative_offsets_px).max())))
        for each in case.batches
    ]
    weights = {**case.weights, PROBE: case.illumination.pairs}
    return attrs.evolve(case, batches=tuple(batches), weights=weights)


def inputs_of(case: Case) -> dict[str, Any]:
    """Of a program, by name, for the case's batch."""
    batch, light = case.batch, case.illumination
    given = {
        "diffraction_amplitude": batch.diffraction_amplitude,
        "relative_offsets_px": batch.relative_offsets_px,
        "probe": light.pairs,
        "bad_pixels": batch.bad_pixels,
        "mean_intensity": np.asarray(light.mean_intensity, np.float32),
        "counts_per_intensity": np.asarray(light.counts_per_intensity, np.float32),
    }
    return {value.name: given[value.name].astype(value.dtype) for value in signature_of(case.model).inputs}


def assert_program_predicts(engine: Engine, case: Case, run: Any) -> None:
    """For the batch, and for one three times as large."""
    patches = build(engine, case, "32-true").predict(case.batch)
    for times in (1, 3):
        inputs = inputs_of(case)
        for name in {"diffraction_amplitude", "relative_offsets_px"} & set(inputs):
            inputs[name] = np.tile(inputs[name], (times, 1, 1, 1))
        real, imaginary = run(inputs)
        assert real.dtype == imaginary.dtype == np.float32
        assert_field_close(real + 1j * imaginary, np.tile(patches, (times, 1, 1, 1)), RTOL, "patches")


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_predicts_as_the_engine(engine: Engine, tmp_path: Path, name: str) -> None:
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    case = case_of(name)
    path = export_model(model_of(engine, case), tmp_path / "network.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert_program_predicts(engine, case, lambda inputs: session.run([REAL, IMAGINARY], inputs))


@pytest.mark.parametrize("name", WRITTEN)
def test_the_engine_s_own_program_predicts_as_the_engine(engine: Engine, tmp_path: Path, name: str) -> None:
    for form in getattr(engine, "exports", ()):
        if form not in RUNNERS:
            continue
        case = case_of(name)
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
    return lambda inputs: [part.detach().numpy() for part in program(*map(torch.as_tensor, inputs.values()))]


def run_saved_model(path: Path) -> Any:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    signature = loaded.signatures["serving_default"]
    assert '"gridsize"' in (path / "assets.extra" / "ptycho_core.json").read_text(encoding="utf-8")

    def run(inputs: Any, loaded: Any = loaded) -> Any:  # what is loaded lives as long as what runs it
        outputs = signature(**{name: tf.constant(array) for name, array in inputs.items()})
        return [outputs[name].numpy() for name in (REAL, IMAGINARY)]

    return run


RUNNERS = {"torch-export": run_torch_program, "savedmodel": run_saved_model}
"""Form → what opens a program and gives the function that it is."""
