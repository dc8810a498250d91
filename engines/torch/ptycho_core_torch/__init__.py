"""The PyTorch engine: `backend = "torch"`."""

from ptycho_core_torch.engine import TorchEngine

__all__ = ["TorchEngine"]
