"""RawData and its groups as arrays, for callers of the published implementations (specs/data.md, Groups).

Training and reconstruction gather batches from the lazy `batches.groups.Groups`; these arrays hold a copy of
every pattern of every group.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from einops import rearrange
from numpy.typing import ArrayLike, NDArray

from ptycho_core.batches.groups import centres_and_offsets, draw_groups
from ptycho_core.errors import ConfigurationError, DataError
from ptycho_core.formats.convert import save_scan
from ptycho_core.formats.npz import amplitude_of, positions_of
from ptycho_core.io import load_scan
from ptycho_core.layouts import BCXY_TO_OFFSETS
from ptycho_core.physics.illumination import Illumination
from ptycho_core.scans.scan import Scan
from ptycho_core.vocabulary import Measurement

DEFAULT_SEED = 0
"""The seed of groups where none is given."""
CHUNK = 256
"""Groups gathered at a time; truth patches take several times their size on the way."""


@attrs.frozen(eq=False)
class RawData:
    """A scan under the names that the published implementations give its arrays; a view, nothing is copied."""

    scan: Scan

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, measurement: Measurement | None = None) -> RawData:
        """The scan in a file; measurement as in `ptycho_core.load_scan`. Raises DataError."""
        return cls(load_scan(path, measurement=measurement))

    @classmethod
    def from_coords_without_pc(
        cls,
        xcoords: ArrayLike,
        ycoords: ArrayLike,
        diff3d: ArrayLike,
        probeGuess: ArrayLike,
        scan_index: ArrayLike | None,
        objectGuess: ArrayLike | None = None,
        *,
        measurement: Measurement | None = None,
    ) -> RawData:
        """A scan from arrays, its nominal positions the same as its positions. Raises DataError.

        xcoords, ycoords: real (M,), px. diff3d: (M, N, N), what `measurement` says; unstated, intensity in counts where
        integers, amplitude where real numbers, as in specs/data.md, NPZ. probeGuess: complex (N, N) or (modes, N, N).
        scan_index: integers (M,), or None. objectGuess: complex (H, W), or None.
        """
        source = Path("RawData")
        amplitude, dose_known = amplitude_of(source, "diff3d", np.asarray(diff3d), measurement)
        return cls(
            Scan(
                diffraction_amplitude=amplitude,
                positions_px=positions_of(source, np.asarray(xcoords), np.asarray(ycoords)),
                probe=np.asarray(probeGuess),
                object_field=None if objectGuess is None else np.asarray(objectGuess),
                scan_index=None if scan_index is None else np.asarray(scan_index),
                dose_known=dose_known,
                source=str(source),
            )
        )

    def to_file(self, path: str | os.PathLike[str]) -> None:
        """Write the NPZ contract, whole or not at all."""
        save_scan(path, self.scan)

    def __len__(self) -> int:
        return len(self.scan)

    @property
    def xcoords(self) -> NDArray[np.float64]:
        """Columns of the patch centres, float64 (M,), px."""
        return self.scan.positions_px[:, 0]

    @property
    def ycoords(self) -> NDArray[np.float64]:
        """Rows of the patch centres, float64 (M,), px."""
        return self.scan.positions_px[:, 1]

    @property
    def xcoords_start(self) -> NDArray[np.float64]:
        """Nominal columns, float64 (M,), px; xcoords where only one kind is known."""
        return _nominal(self.scan)[:, 0]

    @property
    def ycoords_start(self) -> NDArray[np.float64]:
        """Nominal rows, float64 (M,), px; ycoords where only one kind is known."""
        return _nominal(self.scan)[:, 1]

    @property
    def diff3d(self) -> NDArray[np.float32]:
        """Amplitudes, float32 (M, N, N), whatever the file held; all of them in memory."""
        return np.asarray(self.scan.diffraction_amplitude)

    @property
    def probeGuess(self) -> NDArray[np.complex64]:
        """complex64 (N, N) where there is one mode, else (modes, N, N); in the unit of diff3d."""
        return self.scan.probe[0] if len(self.scan.probe) == 1 else self.scan.probe

    @property
    def scan_index(self) -> NDArray[np.int64]:
        """int64 (M,)."""
        assert self.scan.scan_index is not None
        return self.scan.scan_index

    @property
    def objectGuess(self) -> NDArray[np.complex64] | None:
        """complex64 (H, W), or None."""
        return self.scan.object_field

    def generate_grouped_data(
        self,
        N: int,
        K: int = 4,
        nsamples: int = 1,
        gridsize: int = 1,
        seed: int | None = None,
        sequential_sampling: bool = False,
        enable_oversampling: bool = False,
        neighbor_pool_size: int | None = None,
    ) -> dict[str, NDArray[Any]]:
        """`generate_grouped_data` of this scan."""
        return generate_grouped_data(
            self.scan,
            N,
            K=K,
            nsamples=nsamples,
            gridsize=gridsize,
            seed=seed,
            sequential_sampling=sequential_sampling,
            enable_oversampling=enable_oversampling,
            neighbor_pool_size=neighbor_pool_size,
        )


def generate_grouped_data(
    scan: Scan,
    N: int,
    K: int = 4,
    nsamples: int = 1,
    gridsize: int = 1,
    seed: int | None = None,
    sequential_sampling: bool = False,
    enable_oversampling: bool = False,
    neighbor_pool_size: int | None = None,
) -> dict[str, NDArray[Any]]:
    """Groups of C = gridsize² patterns of a scan, every one copied into arrays.

    N: side of the patterns; the scan's own. K: neighbours that a group is chosen from. nsamples: the number of groups,
    B; with gridsize 1 at most one for every position. seed: DEFAULT_SEED where None; no global generator is used.
    The rest as in `ptycho_core.batches.groups.draw_groups`. Raises DataError or ConfigurationError.

    | key | dtype, shape | |
    | --- | --- | --- |
    | `diffraction` | float32 (B, N, N, C) | amplitude in the scan's unit, bad pixels 0 |
    | `X_full` | float32 (B, N, N, C) | k times that, k of the whole scan: specs/physics.md, Scale |
    | `Y` | complex64 (B, N, N, C) | patches of the object; only where the scan has one |
    | `coords_offsets` | float64 (B, 1, 2, 1) | centres of the groups, px, [x, y] on axis 2 |
    | `coords_relative` | float32 (B, 1, 2, C) | -(position - centre), px |
    | `coords_nn` | float64 (B, 1, 2, C) | positions, px |
    | `coords_start_offsets`, `coords_start_relative`, `coords_start_nn` | | the same of the nominal positions |
    | `nn_indices` | int64 (B, C) | frames |
    | `objectGuess` | complex64 (H, W) | only where the scan has an object |
    """
    if N != scan.N:
        remedy = f"Give N = {scan.N}, or crop or pad the patterns."
        raise DataError(scan.source, "N", expected=f"{scan.N}, the side of the patterns", received=N, remedy=remedy)
    for name, value in (("gridsize", gridsize), ("nsamples", nsamples)):
        if value < 1:
            remedy = f"Set {name} to 1 or more."
            raise ConfigurationError(
                "grouped data", name, expected="a whole number >= 1", received=value, remedy=remedy
            )
    groups = draw_groups(
        scan.positions_px,
        np.random.default_rng(DEFAULT_SEED if seed is None else seed),
        gridsize=gridsize,
        n_groups=nsamples,
        neighbor_count=K,
        enable_oversampling=enable_oversampling,
        neighbor_pool_size=neighbor_pool_size,
        sequential=sequential_sampling,
    )
    positions, nominal = scan.positions_px[groups.indices], _nominal(scan)[groups.indices]
    nominal_centres, nominal_offsets = centres_and_offsets(nominal)

    shape = (len(groups), N, N, gridsize**2)
    diffraction = np.empty(shape, np.float32)
    grouped = {
        "diffraction": diffraction,
        "coords_offsets": groups.centres_px,
        "coords_relative": groups.relative_offsets_px,
        "coords_nn": rearrange(positions, BCXY_TO_OFFSETS),
        "coords_start_offsets": nominal_centres,
        "coords_start_relative": nominal_offsets,
        "coords_start_nn": rearrange(nominal, BCXY_TO_OFFSETS),
        "nn_indices": groups.indices,
    }
    if scan.object_field is not None:
        grouped |= {"Y": np.empty(shape, np.complex64), "objectGuess": scan.object_field}
    illumination = Illumination.of(scan, nphotons=1.0)  # no number of photons changes its input scale
    batches = groups.batches(scan, CHUNK, illumination=illumination, canvas_padding_px=0, with_truth="Y" in grouped)
    for start, batch in zip(range(0, len(groups), CHUNK), batches, strict=True):
        diffraction[start : start + CHUNK] = batch.diffraction_amplitude
        if batch.object_patches is not None:
            grouped["Y"][start : start + CHUNK] = batch.object_patches
    return {**grouped, "X_full": diffraction * np.float32(illumination.input_scale)}


def _nominal(scan: Scan) -> NDArray[np.float64]:
    assert scan.nominal_positions_px is not None
    return scan.nominal_positions_px
