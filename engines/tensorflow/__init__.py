"""The TensorFlow engine: `backend = "tensorflow"`."""

from engines.tensorflow.engine import TensorFlowEngine

__all__ = ["TensorFlowEngine"]
