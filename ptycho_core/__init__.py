"""Ptychographic images from physics-informed networks: one core, interchangeable engines.

scan = load_scan("scan.npz")
model = train(scan, TrainingConfig(model=ModelConfig(N=64), backend="torch"))
reconstruction = reconstruct(scan, model)
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "ExecutionConfig": "config",
    "InferenceConfig": "config",
    "ModelConfig": "config",
    "TrainingConfig": "config",
    "Batch": "contracts",
    "Scan": "contracts",
    "Engine": "engine",
    "Network": "engine",
    "registered_engines": "engine",
    "PtychoError": "errors",
    "Model": "archive",
    "load_model": "archive",
    "load_scan": "io",
    "save_scan": "io",
    "evaluate": "evaluation",
    "register_architecture": "architecture",
    "Reconstruction": "reconstruction",
    "load_reconstruction": "reconstruction",
    "reconstruct": "reconstruction",
    "simulate": "simulation",
    "EpochReport": "training",
    "fit": "training",
    "train": "training",
}
__all__ = sorted([*_PUBLIC, "__version__"])


def __getattr__(name: str) -> Any:
    """Public names are imported when first used, so that `import ptycho_core` stays fast."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return __all__
