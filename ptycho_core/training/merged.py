"""What judges a network of patches: the object that they make, through the forward model (specs/engine.md, Training).

The loss of single groups hides an object that is wrong where patches overlap: they may differ, and each fits its own
pattern.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import attrs
import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from ptycho_core.batches.groups import Groups, draw_groups
from ptycho_core.batches.prefetch import Share, gathered
from ptycho_core.engine.processes import ALONE, Processes
from ptycho_core.engine.protocol import Network
from ptycho_core.layouts import BHWC_TO_PATCHES
from ptycho_core.physics.canvas import ObjectCanvas
from ptycho_core.physics.illumination import Illumination
from ptycho_core.physics.patches import extract_patches
from ptycho_core.physics.weights import probe_mask, reassembly_weight
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.execution import ExecutionConfig
from ptycho_core.settings.training import TrainingConfig
from ptycho_core.simulation import expected_intensity
from ptycho_core.training.guard import middle_of
from ptycho_core.training.several import Lit
from ptycho_core.vocabulary import LossTerms, Weights, of_scan

MISFIT = "R"
"""The term's name in reports."""
MOST_FRAMES = 128  # specs/engine.md, Training: that are predicted after every epoch


@attrs.frozen(eq=False)
class _Part:
    """The middle of a scan, one group for each of its frames."""

    scan: Scan
    illumination: Illumination
    groups: Groups

    @classmethod
    def of(cls, lit: Lit, config: TrainingConfig) -> _Part:
        channels = config.model.channels
        scan = middle_of(lit.scan, max(MOST_FRAMES, channels))
        groups = draw_groups(
            scan.positions_px,
            np.random.default_rng([config.seed, 0]),
            gridsize=config.model.gridsize,
            group_size=config.model.group_size,
            n_groups=None,
            neighbor_count=max(config.neighbor_count, channels - 1),
        )
        return cls(scan, lit.illumination, groups.in_scan_order())


class Merged:
    """Predicts patches of each scan, merges them to one object, and compares that with the patterns."""

    term = MISFIT
    untrained = False

    def __init__(
        self,
        network: Network,
        execution: ExecutionConfig,
        config: TrainingConfig,
        scans: Sequence[Lit],
        processes: Processes = ALONE,
    ) -> None:
        self._network, self._execution, self._config, self._processes = network, execution, config, processes
        self._parts = [_Part.of(each, config) for each in scans]

    def __call__(self, weights: Weights) -> LossTerms:
        """R with the weights that the network has: of several scans the mean of theirs, and each.

        weights: those of a model, the same ones; a refined probe is among them.
        """
        values = [self._misfit(part, weights) for part in self._parts]
        if len(values) == 1:
            return {MISFIT: values[0]}
        each = {of_scan(number, MISFIT): value for number, value in enumerate(values, start=1)}
        return {MISFIT: float(np.mean(values)), **each}

    def _misfit(self, part: _Part, weights: Weights) -> float:
        model, scan, groups = self._config.model, part.scan, part.groups
        illumination = Illumination.from_arrays({**part.illumination.arrays(), **weights})
        canvas = ObjectCanvas(scan.positions_px, reassembly_weight(illumination.intensity, model, "probe"))
        order = np.arange(len(groups))[self._processes.part.of(len(groups))]
        share = Share(groups=groups, scan=scan, illumination=part.illumination, canvas_padding_px=0, order=order)
        done = 0
        size, workers = self._execution.inference_batch_size, self._execution.num_workers
        with contextlib.closing(gathered([share], size, workers=workers)) as batches:
            for batch in batches:
                frames = groups.indices[order[done : done + len(batch)]].ravel()
                canvas.add(rearrange(self._network.predict(batch), BHWC_TO_PATCHES), scan.positions_px[frames])
                done += len(batch)
        canvas.sum_over(self._processes.sum)
        probe = illumination.probe * (probe_mask(scan.N) if model.probe_mask else 1)
        return misfit(canvas.object_field(), canvas.origin_px, np.asarray(probe, np.complex64), scan, self._processes)


def misfit(
    field: NDArray[np.complex64],
    origin_px: tuple[float, float],
    probe: NDArray[np.complex64],
    scan: Scan,
    processes: Processes = ALONE,
) -> float:
    """R = Σ (√(f I) − A)² / Σ A² over the good pixels of all frames, f one factor, the median of theirs.

    field: (H, W), pixel [0, 0] at origin_px. probe: (modes, N, N). I: the intensity that they give at each position.
    processes: each models its share of the frames.
    """
    good, own = ~np.asarray(scan.bad_pixels), np.arange(len(scan))[processes.part.of(len(scan))]
    patches = extract_patches(field, scan.positions_px[own], scan.N, origin_px)
    modelled = np.sqrt(expected_intensity(probe, patches)) * good
    measured = np.asarray(scan.diffraction_amplitude[own], np.float32) * good
    sums = np.zeros((2, len(scan)))
    sums[0, own] = np.square(modelled, dtype=np.float64).sum(axis=(1, 2))
    sums[1, own] = np.square(measured, dtype=np.float64).sum(axis=(1, 2))
    light, counts = processes.sum(sums)
    factor = float(np.median(counts[light > 0] / light[light > 0])) if (light > 0).any() else 0.0
    error = np.square(np.sqrt(factor) * modelled - measured, dtype=np.float64).sum()
    return float(processes.sum(np.array([error]))[0] / counts.sum())
