"""The TensorFlow engine: `backend = "tensorflow"`."""

from ptycho_core_tensorflow.starting import without_chatter, without_keras

with without_chatter(), without_keras():
    from ptycho_core_tensorflow.engine import TensorFlowEngine

__all__ = ["TensorFlowEngine"]
