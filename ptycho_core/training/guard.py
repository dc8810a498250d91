"""What judges a network of a canvas: held-out pixels, predicted as it will be used (specs/engine.md, Training)."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.batches.held_out import PATTERNS, held_out_patterns
from ptycho_core.engine.checks import network_weights
from ptycho_core.engine.processes import ALONE, Processes
from ptycho_core.engine.protocol import Engine
from ptycho_core.models.canvas import WholeScan
from ptycho_core.networks.registry import build_table
from ptycho_core.physics.illumination import Illumination
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.training.several import Lit
from ptycho_core.vocabulary import LossTerms, Weights, of_scan

HELD_OUT = "held_out"
"""The term's name in reports."""
PART = 0.03  # specs/engine.md, Training: of the pixels
MOST_FRAMES = 256  # specs/engine.md, Training: that are predicted after every epoch


def middle_of(scan: Scan, most: int) -> Scan:
    """The frames nearest to the middle of the scan, in its order."""
    positions = scan.positions_px
    middle = (positions.min(axis=0) + positions.max(axis=0)) / 2
    nearest = np.argsort(np.linalg.norm(positions - middle, axis=1), kind="stable")[:most]
    return scan.subset(np.sort(nearest))


@attrs.frozen(eq=False)
class _Judged:
    """A scan, or its middle, and which of its pixels are held out: pattern is that of every frame."""

    scan: Scan
    illumination: Illumination
    held_out: NDArray[np.bool_]
    pattern: NDArray[np.int64]

    @classmethod
    def of(cls, lit: Lit, seed: int) -> _Judged:
        scan = middle_of(lit.scan, MOST_FRAMES)
        rng = np.random.default_rng([seed, 0])
        held_out = held_out_patterns(scan.N, PART, rng)
        return cls(scan, lit.illumination, held_out, rng.permutation(np.arange(len(scan)) % PATTERNS))


class Guard:
    """Predicts each scan on one canvas without the pixels that are held out, and measures it by them."""

    term = HELD_OUT
    untrained = True
    """Whether the untrained network is judged as well."""

    def __init__(
        self,
        engine: Engine,
        execution: ExecutionConfig,
        config: TrainingConfig,
        scans: Sequence[Lit],
        processes: Processes = ALONE,
    ) -> None:
        self._engine, self._config, self._processes = engine, config, processes
        self._execution = attrs.evolve(execution, precision="32-true")
        self._judged = [_Judged.of(each, config.seed) for each in scans]

    def __call__(self, weights: Weights) -> LossTerms:
        """The deviance of a held-out pixel with the weights of a model: of several scans the geometric mean of theirs,
        so that one of many photons weighs as much as one of few, and each.
        """
        known = network_weights(build_table(self._config.model), self._config, weights)
        values = [self._deviance(each, known) for each in self._judged]
        if len(values) == 1:
            return {HELD_OUT: values[0]}
        each = {of_scan(number, HELD_OUT): value for number, value in enumerate(values, start=1)}
        return {HELD_OUT: float(np.exp(np.mean(np.log(values)))), **each}

    def _deviance(self, judged: _Judged, weights: Weights) -> float:
        """weights: the network's, with the probe that it refines."""
        whole = WholeScan(
            self._engine,
            self._execution,
            self._config.model,
            judged.scan,
            Illumination.from_arrays({**judged.illumination.arrays(), **weights}),
            judged.held_out,
            judged.pattern,
            processes=self._processes,
        )
        facts = whole.measure(whole.predicted(weights))
        return float(facts.held_deviance.sum() / facts.held_pixels.sum())
