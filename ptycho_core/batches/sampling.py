"""Frames drawn from a scan."""

from __future__ import annotations

import numpy as np

from ptycho_core.errors import ConfigurationError
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.inference import InferenceConfig
from ptycho_core.settings.training import TrainingConfig


def subsample(scan: Scan, config: TrainingConfig | InferenceConfig) -> Scan:
    """`n_subsample` frames of the scan, drawn by `subsample_seed`, in their order; all of them where that is unset."""
    if config.n_subsample is None:
        return scan
    if config.n_subsample > len(scan):
        owner = type(config).__name__
        expected, remedy = f"at most {len(scan)}, the frames of {scan.source}", "Lower n_subsample or leave it unset."
        raise ConfigurationError(owner, "n_subsample", expected=expected, received=config.n_subsample, remedy=remedy)
    seed = config.seed if config.subsample_seed is None else config.subsample_seed
    chosen = np.random.default_rng(seed).choice(len(scan), config.n_subsample, replace=False)
    return scan.subset(np.sort(chosen))
