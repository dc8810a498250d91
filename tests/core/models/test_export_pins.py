"""The versions of an exported program: a runtime of another age cannot read it."""

from __future__ import annotations

from ptycho_core.models.onnx import IR_VERSION, OPSET


def test_the_versions_of_onnx_are_pinned() -> None:
    assert (OPSET, IR_VERSION) == (18, 8)
