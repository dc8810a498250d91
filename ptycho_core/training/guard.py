"""What judges a network of a canvas: held-out pixels, predicted as it will be used (specs/engine.md, Training)."""

from __future__ import annotations

import attrs
import numpy as np

from ptycho_core.batches.held_out import PATTERNS, held_out_patterns
from ptycho_core.engine.protocol import Engine
from ptycho_core.models.canvas import WholeScan
from ptycho_core.physics.illumination import Illumination
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.vocabulary import Weights

HELD_OUT = "held_out"
"""The term's name in reports."""
PART = 0.03  # specs/engine.md, Training: of the pixels
MOST_FRAMES = 256  # specs/engine.md, Training: that are predicted after every epoch


class Guard:
    """Predicts a scan, or its middle, on one canvas without the pixels that are held out, and measures it by them."""

    def __init__(self, engine: Engine, execution: ExecutionConfig, config: TrainingConfig, scan: Scan) -> None:
        self._engine, self._execution, self._config = engine, execution, config
        positions = scan.positions_px
        middle = (positions.min(axis=0) + positions.max(axis=0)) / 2
        nearest = np.argsort(np.linalg.norm(positions - middle, axis=1), kind="stable")[:MOST_FRAMES]
        self._scan = scan.subset(np.sort(nearest))
        rng = np.random.default_rng([config.seed, 0])
        self._held_out = held_out_patterns(scan.N, PART, rng)
        self._pattern = rng.permutation(np.arange(len(self._scan)) % PATTERNS)

    def __call__(self, weights: Weights) -> float:
        """The deviance of a held-out pixel with the weights of a model, its probe among them."""
        whole = WholeScan(
            self._engine,
            attrs.evolve(self._execution, precision="32-true"),
            self._config.model,
            self._scan,
            Illumination.from_arrays(weights),
            self._held_out,
            self._pattern,
        )
        facts = whole.measure(whole.predicted(weights))
        return float(facts.held_deviance.sum() / facts.held_pixels.sum())
