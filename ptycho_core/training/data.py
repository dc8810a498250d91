"""A scan as a training uses it: checked, its groups drawn, its batches gathered (specs/engine.md, Training)."""

from __future__ import annotations

import functools
from typing import Any

import attrs
import numpy as np

from ptycho_core.batches.groups import Groups, draw_groups
from ptycho_core.batches.neighbours import largest_reach_px, neighbours_within
from ptycho_core.batches.prefetch import Share
from ptycho_core.batches.sampling import subsample
from ptycho_core.engine.objective import Objective
from ptycho_core.errors import DataError
from ptycho_core.physics.illumination import Illumination
from ptycho_core.physics.suitability import check_size
from ptycho_core.physics.weights import rms_radius_px
from ptycho_core.scans.fingerprint import Fingerprint, check_same_scan, fingerprint
from ptycho_core.scans.scan import Scan
from ptycho_core.settings.fields import default_of
from ptycho_core.settings.training import TrainingConfig

LARGEST_REACH = 4  # specs/data.md, Groups
LOOKED_AT = 1024  # groups, and positions, that are looked at before the first epoch


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

    @functools.cached_property
    def _neighbours(self) -> int:
        """K as configured; unset, for a network of a canvas, as many as span the probe."""
        config, channels = self._config, self._config.model.channels
        usual = config.neighbor_count == default_of(config, attrs.fields(TrainingConfig).neighbor_count)
        if not (self._on_canvas and usual):
            return config.neighbor_count
        looked_at = np.linspace(0, len(self.scan) - 1, min(LOOKED_AT, len(self.scan))).astype(np.int64)
        radius = rms_radius_px(np.square(np.abs(np.asarray(self.scan.probe))).sum(axis=0))
        return max(channels - 1, neighbours_within(self.scan.positions_px, looked_at, radius))

    def draw(self, rng: np.random.Generator, n_groups: int | None = None) -> Groups:
        """Groups of the scan: `config.n_groups` of them unless another number is asked for.

        Unset, it is no more than there are positions.
        """
        config, model = self._config, self._config.model
        if n_groups is None:
            usual = config.n_groups == default_of(config, attrs.fields(TrainingConfig).n_groups)
            usual = usual and not config.enable_oversampling
            n_groups = min(config.n_groups, len(self.scan)) if usual else config.n_groups
        groups = draw_groups(
            self.scan.positions_px,
            rng,
            gridsize=model.gridsize,
            group_size=model.channels if self._on_canvas else None,
            n_groups=n_groups,
            neighbor_count=self._neighbours,
            enable_oversampling=config.enable_oversampling,
            neighbor_pool_size=config.neighbor_pool_size,
            sequential=config.sequential_sampling,
        )
        return groups.holding_out(config.frames_held_out, rng) if self._on_canvas else groups

    def share(self, groups: Groups, illumination: Illumination, canvas_padding_px: int, **more: Any) -> Share:
        """The groups as part of what is gathered, with the truth where a loss compares with it."""
        return Share(
            groups=groups,
            scan=self.scan,
            illumination=illumination,
            canvas_padding_px=canvas_padding_px,
            with_truth=self._with_truth,
            **more,
        )

    def check_overlap(self, groups: Groups) -> None:
        """DataError where a group on a canvas has no two patterns that overlap: one says nothing of the other."""
        members = groups.indices.shape[1]
        positions = self.scan.positions_px[groups.indices[:LOOKED_AT]]
        apart = np.abs(positions[:, :, None] - positions[:, None]).max(axis=3)
        apart[:, np.arange(members), np.arange(members)] = np.inf
        nearest = apart.min(axis=(1, 2))
        if self._on_canvas and members > 1 and nearest.max() >= self.scan.N:
            expected = f"patterns that overlap, less than N = {self.scan.N} px from the next one"
            received = f"a group of {members} of which the nearest two are {nearest.max():.4g} px apart"
            remedy = "Check the unit of the positions; patterns without overlap cannot be trained on."
            raise DataError(self.scan.source, "xcoords, ycoords", expected=expected, received=received, remedy=remedy)

    @functools.cached_property
    def fingerprint(self) -> Fingerprint:
        return fingerprint(self.scan, with_truth=self._with_truth)

    def check_same(self, begun: Fingerprint) -> None:
        """DataError unless this is the scan that a run began with."""
        check_same_scan(self.scan, self.fingerprint, begun)

    def canvas_padding_px(self) -> int:
        """Large enough for every group that can be drawn. DataError where a group would not fit on a canvas."""
        scan, config = self.scan, self._config
        pool = max(config.neighbor_pool_size or self._neighbours, config.model.channels - 1)
        reach = largest_reach_px(scan.positions_px, channels=config.model.channels, neighbor_count=pool)
        if reach > LARGEST_REACH * scan.N:
            expected = f"neighbours within {LARGEST_REACH} patches of each other, so that a group fits on a canvas"
            received = f"a reach of {reach} px at N = {scan.N}"
            remedy = "Check the unit of the positions, drop stray ones, or train on single patterns"
            state = ("position_unit", "drop_frames=stray", "architecture=cnn" if self._on_canvas else "gridsize=1")
            raise DataError(
                scan.source, "xcoords, ycoords", expected=expected, received=received, remedy=remedy, state=state
            )
        return reach
