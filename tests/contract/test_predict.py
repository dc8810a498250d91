"""Predicted patches are the reference's."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest

from ptycho_core.engine.protocol import Engine
from tests.contract.cases import (
    ATTENTION,
    CASES,
    FORWARD_RTOL,
    IN_PRECISION,
    Case,
    assert_field_close,
    build,
    build_reference,
    expected,
    make_case,
    named_case,
)

LOSS_ONLY = {"merge_weights", "canvas_margin_px", "probe_mask", "gaussian_smoothing_sigma", "training", "bad_pixels"}
NETWORKS = [name for name, settings in CASES.items() if name.startswith("cnn") or not LOSS_ONLY & set(settings)]
"""The cases whose networks differ."""

SIZES: dict[str, dict[str, Any]] = {
    "N32": {"N": 32, "gridsize": 2},
    "N32_attention": {"N": 32, "gridsize": 1, **ATTENTION},
    "N64": {"N": 64, "gridsize": 1},
    "N64_swish_frames_alone": {"N": 64, "gridsize": 2, "object_big": False, "amp_activation": "swish"},
    "N64_not_padded": {"N": 64, "gridsize": 1, "pad_object": False, "amp_activation": "relu"},
    "N64_wider": {"N": 64, "gridsize": 1, "n_filters_scale": 2, "amp_activation": "softplus"},
    "N96_nine_frames": {"N": 96, "gridsize": 3},
    "N128_centre_only": {"N": 128, "gridsize": 2, "probe_big": False},
    "N256": {"N": 256, "gridsize": 1},
}
SINGLE_SIZES = ("N64_wider", "N96_nine_frames")
"""Of these also in single precision, where only rounding is new."""


def assert_predicts(engine: Engine, case: Case, precision: str, patches: Any) -> None:
    actual = build(engine, case, precision).predict(case.batch)
    if precision == "64-true":  # beyond complex64, in which patches are handed out, only the last bit may differ
        assert_field_close(actual, patches, 1.2e-7, "patches")
        assert np.mean(actual == patches) > 0.999, "the patches were not computed in float64"
    else:
        assert_field_close(actual, patches, FORWARD_RTOL[precision], "patches")


@pytest.mark.parametrize(("name", "precision"), [each for each in IN_PRECISION if each[0] in NETWORKS])
def test_predict_equals_the_reference(engine: Engine, precision: str, name: str) -> None:
    assert_predicts(engine, named_case(name), precision, expected(name).patches)


@pytest.mark.parametrize("name", SIZES)
def test_cnn_of_every_size_predicts_as_the_reference(engine: Engine, name: str) -> None:
    case = make_case(architecture="cnn", groups=1, **SIZES[name])
    patches = build_reference(case).predict(case.batch)
    for precision in FORWARD_RTOL if name in SINGLE_SIZES else ("64-true",):
        assert_predicts(engine, case, precision, patches)


def test_frames_alone_are_predicted_alone(engine: Engine) -> None:
    """Without `object_big` a patch depends on its own frame only, in the channel of that frame."""
    case = named_case("frames_alone")
    network = build(engine, case)
    amplitude = case.batch.diffraction_amplitude.copy()
    amplitude[:, :, :, 1] *= 1.5
    before, after = network.predict(case.batch), network.predict(with_amplitude(case, amplitude))
    changed = np.abs(after - before).max(axis=(0, 1, 2))
    assert changed[1] > 0
    assert changed[[0, 2, 3]].max() == 0, f"largest change in each channel: {changed}"


def with_amplitude(case: Case, amplitude: Any) -> Any:
    return attrs.evolve(case.batch, diffraction_amplitude=amplitude)


def test_an_input_of_zeros_is_predicted(engine: Engine) -> None:
    case = named_case("merged")
    batch = with_amplitude(case, np.zeros_like(case.batch.diffraction_amplitude))
    actual = build(engine, case).predict(batch)
    assert_field_close(actual, build_reference(case).predict(batch), 1.2e-7, "patches")


def test_bf16_mixed_predicts_the_same_to_its_own_precision(engine: Engine) -> None:
    if "bf16-mixed" not in engine.describe().precisions:
        pytest.skip(f"{engine.name} has no bf16-mixed")
    case, reference = named_case("merged"), expected("merged").patches
    patches = build(engine, case, "bf16-mixed").predict(case.batch)
    assert_field_close(patches, reference, 0.03, "patches")
    error = np.abs(patches - reference).max() / np.abs(reference).max()
    assert error > 1e-4, f"the layers ran in float32, not in bfloat16: {error}"
