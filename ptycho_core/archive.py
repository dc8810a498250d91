"""stub"""
from __future__ import annotations
import attrs
from ptycho_core.architecture import Weights
from ptycho_core.config import TrainingConfig
from ptycho_core.engine import EngineInfo

@attrs.frozen(eq=False, kw_only=True)
class Model:
    config: TrainingConfig
    weights: Weights
    history: list
    engine: EngineInfo
    best_epoch: int
