"""The TensorFlow engine: `backend = "tensorflow"`."""

from ptycho_core_tensorflow.engine import TensorFlowEngine

__all__ = ["TensorFlowEngine"]
