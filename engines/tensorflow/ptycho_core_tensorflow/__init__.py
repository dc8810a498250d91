"""The TensorFlow engine: `backend = "tensorflow"`."""

from ptycho_core_tensorflow.starting import without_chatter

with without_chatter():
    from ptycho_core_tensorflow.engine import TensorFlowEngine

__all__ = ["TensorFlowEngine"]
