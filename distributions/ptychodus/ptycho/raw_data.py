"""Scans as Ptychodus gives them, and the patterns of one on their way through a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import ArrayLike

from ptycho import window
from ptycho_core.formats.npz import stated_measurement
from ptycho_core.io import load_scan
from ptycho_core.legacy import RawData as LegacyRawData
from ptycho_core.scans.geometry import beyond_middle_px
from ptycho_core.scans.scan import Scan
from ptycho_core.scans.splitting import split

TRAIN_FILE, TEST_FILE = "train_data.npz", "test_data.npz"


@attrs.frozen(eq=False)
class Patterns:
    """What the network shall see: nothing is gathered before it is predicted, so that memory holds one batch.

    n_groups: None is one group for every frame. neighbor_count: neighbours that a group is chosen from.
    """

    scan: Scan
    gridsize: int
    n_groups: int | None
    neighbor_count: int

    def __mul__(self, factor: Any) -> Patterns:
        """The same: the network's input is scaled by the factor of its training set, which its archive holds."""
        return self


class RawData(LegacyRawData):
    """A scan of Ptychodus: its patterns are photon counts whatever their type, and its bad pixels are filled in."""

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> RawData:  # type: ignore[override]
        """The scan in an exported training file, of counts unless it says amplitude. Raises DataError.

        Ptychodus asks for test_data.npz and train_data.npz. Where the first is missing, a fifth of the other stands for
        it, the frames on one side of the scan, and the other is what is left. The mask of bad pixels is dropped: when
        it reconstructs, Ptychodus gives patterns with filled pixels and no mask, and a network shall be trained on what
        it will see.
        """
        file = Path(path)
        part = {TEST_FILE: "test", TRAIN_FILE: "train"}.get(file.name)
        with window.refusals():
            if part is None or file.with_name(TEST_FILE).exists() or not file.with_name(TRAIN_FILE).exists():
                return cls(_exported(file))
            parts = split(_exported(file.with_name(TRAIN_FILE)))
        if part == "train":
            text = "%s is missing: %d of the %d patterns of %s, those on one side, choose the best epoch of the others"
            window.log.info(text, TEST_FILE, len(parts.test), len(parts.test) + len(parts.train), TRAIN_FILE)
        return cls(parts.test if part == "test" else parts.train)

    @classmethod
    def from_coords_without_pc(  # type: ignore[override]
        cls,
        xcoords: ArrayLike,
        ycoords: ArrayLike,
        diff3d: ArrayLike,
        probeGuess: ArrayLike,
        scan_index: ArrayLike | None,
        objectGuess: ArrayLike | None = None,
    ) -> RawData:
        """A scan from arrays, as `ptycho_core.legacy.RawData` takes them; diff3d in counts. Raises DataError."""
        made = super().from_coords_without_pc(
            xcoords, ycoords, diff3d, probeGuess, scan_index, objectGuess, measurement="intensity"
        )
        return cls(_named_by_pixel(made.scan))

    @property
    def diff3d(self) -> Any:
        """Amplitudes, float32 (M, N, N); those of a large file stay there: Ptychodus asks for the shape alone."""
        return self.scan.diffraction_amplitude

    def generate_grouped_data(  # type: ignore[override]
        self, N: int, K: int = 4, nsamples: int = 1, gridsize: int = 1
    ) -> Patterns:
        """nsamples: groups, at most one for every frame; 1, the default of Ptychodus, stands for all of them.

        N: the side of the patterns, which they know themselves. K: nearest neighbours.
        """
        n_groups = None if nsamples == 1 else min(nsamples, len(self))
        return Patterns(self.scan, gridsize, n_groups, max(K, 1))


def _exported(path: Path) -> Scan:
    scan = _named_by_pixel(load_scan(path, measurement=stated_measurement(path) or "intensity"))
    return attrs.evolve(scan, bad_pixels=None) if np.any(scan.bad_pixels) else scan


def _named_by_pixel(scan: Scan) -> Scan:
    """The scan with positions of pixel [N/2, N/2] of a patch, as ours are; those of Ptychodus name its middle."""
    assert scan.nominal_positions_px is not None
    beyond = beyond_middle_px(scan.N)
    return attrs.evolve(
        scan,
        positions_px=scan.positions_px + beyond,
        nominal_positions_px=scan.nominal_positions_px + beyond,
    )
