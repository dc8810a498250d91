"""The PyTorch engine: `backend = "torch"`."""

from engines.torch.engine import TorchEngine

__all__ = ["TorchEngine"]
