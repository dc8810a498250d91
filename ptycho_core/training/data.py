"""A scan as a training uses it: checked, its groups drawn, its batches gathered (specs/engine.md, Training)."""

from __future__ import annotations

import functools
from collections.abc import Generator

import attrs
import numpy as np
from numpy.typing import NDArray

from ptycho_core.batches.batch import Batch
from ptycho_core.batches.groups import Groups, draw_groups
from ptycho_core.batches.neighbours import largest_reach_px
from ptycho_core.batches.prefetch import gathered
from ptycho_core.batches.sampling import subsample
from ptycho_core.engine.objective import Objective
from ptycho_core.errors import DataError
from ptycho_core.physics.illumination import Illumination
from ptycho_core.physics.suitability import check_size
from ptycho_core.scans.fingerprint import Fingerprint, check_same_scan, fingerprint
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.training import TrainingConfig

LARGEST_REACH = 4  # specs/data.md, Groups


class TrainingData:
    """A scan, or with `n_subsample` a part of it, at the positions that the configuration trains at.

    whole: it is not trained on but tested with. on_canvas: the network works on a
    canvas. Raises DataError where scan and configuration do not fit.
    """

    def __init__(self, scan: Scan, config: TrainingConfig, *, whole: bool = False, on_canvas: bool = False) -> None:
        scan.check_probe()
        check_size(scan, config.model.N)
        self._on_canvas = on_canvas
        self._with_truth = Objective.of(config).compares("truth")
        if self._with_truth and scan.object_field is None:
            remedy = "Give a scan with objectGuess, or use model_type = 'pinn' with realspace_mae_weight = 0."
            expected = "ground truth for supervised training or realspace_mae_weight"
            raise DataError(scan.source, "objectGuess", expected=expected, received="none", remedy=remedy)
        if not config.positions_provided:
            scan = attrs.evolve(scan, positions_px=np.asarray(scan.nominal_positions_px))
        self.scan, self._config = scan if whole else subsample(scan, config), config

    def draw(self, rng: np.random.Generator, n_groups: int | None = None) -> Groups:
        """Groups of the scan: `config.n_groups` of them unless another number is asked for.

        Unset, it is no more than there are positions.
        """
        config, model = self._config, self._config.model
        if n_groups is None:
            usual = config.n_groups == attrs.fields(TrainingConfig).n_groups.default and not config.enable_oversampling
            n_groups = min(config.n_groups, len(self.scan)) if usual else config.n_groups
        groups = draw_groups(
            self.scan.positions_px,
            rng,
            gridsize=model.gridsize,
            group_size=model.channels if self._on_canvas else None,
            n_groups=n_groups,
            neighbor_count=config.neighbor_count,
            enable_oversampling=config.enable_oversampling,
            neighbor_pool_size=config.neighbor_pool_size,
            sequential=config.sequential_sampling,
        )
        return groups.holding_out(config.frames_held_out, rng) if self._on_canvas else groups

    def batches(
        self,
        groups: Groups,
        *,
        illumination: Illumination,
        canvas_padding_px: int,
        workers: int,
        order: NDArray[np.int64] | None = None,
    ) -> Generator[Batch]:
        """Batches of the groups, gathered ahead, with the truth where a loss compares with it."""
        return gathered(
            groups,
            self.scan,
            self._config.batch_size,
            illumination=illumination,
            canvas_padding_px=canvas_padding_px,
            order=order,
            with_truth=self._with_truth,
            workers=workers,
        )

    @functools.cached_property
    def fingerprint(self) -> Fingerprint:
        return fingerprint(self.scan, with_truth=self._with_truth)

    def check_same(self, begun: Fingerprint) -> None:
        """DataError unless this is the scan that a run began with."""
        check_same_scan(self.scan, self.fingerprint, begun)

    def canvas_padding_px(self) -> int:
        """Large enough for every group that can be drawn. DataError where a group would not fit on a canvas."""
        scan, config = self.scan, self._config
        pool = max(config.neighbor_pool_size or config.neighbor_count, config.model.channels - 1)
        reach = largest_reach_px(scan.positions_px, channels=config.model.channels, neighbor_count=pool)
        if reach > LARGEST_REACH * scan.N:
            expected = f"neighbours within {LARGEST_REACH} patches of each other, so that a group fits on a canvas"
            received, remedy = f"a reach of {reach} px at N = {scan.N}", "Drop stray positions, or use gridsize 1."
            raise DataError(scan.source, "xcoords, ycoords", expected=expected, received=received, remedy=remedy)
        return reach
