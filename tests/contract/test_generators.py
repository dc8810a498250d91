"""Generators of other publications predict and learn on every engine, and predict as ONNX, what the reference does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho_core.engine.protocol import Engine
from ptycho_core.models.export import export_model
from ptycho_core.models.model import Model
from ptycho_core.models.signature import AMPLITUDE, IMAGINARY, REAL
from ptycho_core.networks.registry import build_table
from ptycho_core.settings.model import GENERATORS
from tests.contract.cases import (
    GRADIENT_RTOL,
    Case,
    assert_arrays_close,
    assert_field_close,
    build,
    build_reference,
    make_case,
)

SMALLEST: dict[str, dict[str, Any]] = {
    "fno": {"spectral_blocks": 2},
    "ffno": {"spectral_blocks": 2, "object_big": False},
    "uno": {},
    "hybrid_resnet": {"spectral_blocks": 1},
}


def case_of(name: str) -> Case:
    return make_case(architecture=name, N=16, groups=1, spectral_modes=2, **SMALLEST[name])


def without_effect(case: Case) -> set[str]:
    """Biases that nothing but a norm reads, which takes a mean away again."""
    layers = build_table(case.model).layers
    normed = {layer.inputs[0] for layer in layers if layer.op == "instance_norm"}
    return {layer.uses["bias"] for layer in layers if layer.name in normed}


def test_all_of_them_are_tested() -> None:
    assert set(SMALLEST) == set(GENERATORS)


@pytest.mark.parametrize("name", SMALLEST)
def test_patches_are_those_of_the_reference_and_of_the_program(engine: Engine, tmp_path: Path, name: str) -> None:
    case = case_of(name)
    patches = build(engine, case).predict(case.batch)
    assert_field_close(patches, build_reference(case).predict(case.batch), 1.2e-7, "patches")
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    weights = {**case.illumination.arrays(), **case.weights}
    model = Model(config=case.training, weights=weights, history=[], engine=engine.describe(), best_epoch=0)
    path = export_model(model, tmp_path / "network.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    twice = np.concatenate([case.batch.diffraction_amplitude] * 2)
    real, imaginary = session.run([REAL, IMAGINARY], {AMPLITUDE: twice})
    assert_field_close(real + 1j * imaginary, np.concatenate([patches] * 2), 1e-5, "patches of the program")


@pytest.mark.parametrize("name", SMALLEST)
def test_gradients_are_those_of_the_reference(engine: Engine, name: str) -> None:
    """By every array: a training takes the same way on every engine, but for rounding."""
    case = case_of(name)
    actual, reference = build(engine, case).gradients(case.batch), build_reference(case).gradients(case.batch)
    for none in without_effect(case):
        assert max(np.abs(actual.pop(none)).max(), np.abs(reference.pop(none)).max()) < 1e-12
    assert all(np.any(gradient) for gradient in reference.values())
    assert_arrays_close(actual, reference, GRADIENT_RTOL["64-true"], "gradients")
