"""Grouped data under the names of the published implementations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho_core.errors import DataError


@attrs.frozen(eq=False, kw_only=True)
class PtychoDataContainer:
    """Grouped data under the names that the published implementations give them: B groups of C patterns, copied.

    X: float32 (B, N, N, C), the network's input, k · amplitude (specs/physics.md, Scale).
    Y: complex64 (B, N, N, C), ground-truth patches, or None. A real-valued Y is refused.
    coords_true: float32 (B, 1, 2, C), -(position - group centre) of the true positions, px, [x, y] on axis 2.
    coords_nominal: float32 (B, 1, 2, C), the same of the nominal positions and their own centres.
    probe: complex64 (N, N) or (modes, N, N), as given, in the unit of the amplitude.
    nn_indices: int64 (B, C), the frames of each group.
    global_offsets: float64 (B, 1, 2, 1), centres of the groups by the true positions, px.
    norm_Y_I: X · norm_Y_I is the measured amplitude, so it is 1 / k. Where that is in √photons it is the
        `intensity_scale` of flat parameters, which readers take it for. nan where every pattern is dark.
    YY_full: complex64 (H, W), the whole object that Y was cut from, or None.

    Y_I, Y_phi, coords and local_offsets are derived.
    """

    X: NDArray[np.float32]
    Y: NDArray[np.complex64] | None = None
    coords_nominal: NDArray[np.float32]
    coords_true: NDArray[np.float32]
    probe: NDArray[np.complex64]
    nn_indices: NDArray[np.int64]
    global_offsets: NDArray[np.float64]
    norm_Y_I: float
    YY_full: NDArray[np.complex64] | None = None

    def __attrs_post_init__(self) -> None:
        shape = np.shape(self.X)
        if len(shape) != 4 or shape[1] != shape[2]:
            expected, remedy = "shape (B, N, N, C)", "Give the X_full of grouped data."
            raise DataError("PtychoDataContainer", "X", expected=expected, received=f"shape {shape}", remedy=remedy)
        groups, side, _, channels = shape
        self._take("X", np.float32, shape)
        self._take("coords_nominal", np.float32, (groups, 1, 2, channels))
        self._take("coords_true", np.float32, (groups, 1, 2, channels))
        self._take("probe", np.complex64, (*np.shape(self.probe)[:-2][:1], side, side))
        self._take("nn_indices", np.int64, (groups, channels))
        self._take("global_offsets", np.float64, (groups, 1, 2, 1))
        if self.Y is not None:
            remedy = "Make it (amplitude * numpy.exp(1j * phase)).astype(numpy.complex64)."
            self._take("Y", np.complex64, shape, remedy)
        if self.YY_full is not None:
            if np.ndim(self.YY_full) != 2:
                received, remedy = f"shape {np.shape(self.YY_full)}", "Drop it: it is optional."
                expected = "shape (H, W)"
                raise DataError("PtychoDataContainer", "YY_full", expected=expected, received=received, remedy=remedy)
            self._take("YY_full", np.complex64, np.shape(self.YY_full))

    def _take(self, key: str, dtype: type[np.generic], shape: tuple[int, ...], remedy: str = "Convert it.") -> None:
        """Store the field back as an array of `dtype`; another kind of numbers or another shape is refused."""
        received = np.asarray(getattr(self, key))
        expected = f"{np.dtype(dtype)} of shape {shape}"
        if received.dtype.kind not in {np.complex64: "c", np.int64: "iu"}.get(dtype, "iuf"):
            raise DataError(
                "PtychoDataContainer", key, expected=expected, received=f"dtype {received.dtype}", remedy=remedy
            )
        if received.shape != shape:
            raise DataError(
                "PtychoDataContainer",
                key,
                expected=expected,
                received=f"shape {received.shape}",
                remedy="Give one entry for every entry of X.",
            )
        object.__setattr__(self, key, np.ascontiguousarray(received, dtype=dtype))

    @classmethod
    def from_grouped(cls, grouped: Mapping[str, Any], probe: ArrayLike) -> PtychoDataContainer:
        """The container of what `generate_grouped_data` returns; Y and objectGuess may be missing or None.

        grouped: arrays under the keys of `ptycho_core.legacy.generate_grouped_data`. probe: complex (N, N) or
        (modes, N, N). Raises DataError.
        """
        needed = ("X_full", "diffraction", "coords_relative", "coords_start_relative", "coords_offsets", "nn_indices")
        for key in needed:
            if grouped.get(key) is None:
                remedy = f"The grouped data hold: {', '.join(sorted(grouped)) or 'nothing'}."
                raise DataError("grouped data", key, expected="an array", received="no such key", remedy=remedy)
        x_sum, amplitude_sum = (float(np.sum(grouped[key], dtype=np.float64)) for key in ("X_full", "diffraction"))
        return cls(
            X=grouped["X_full"],
            Y=grouped.get("Y"),
            coords_nominal=grouped["coords_start_relative"],
            coords_true=grouped["coords_relative"],
            probe=np.asarray(probe),
            nn_indices=grouped["nn_indices"],
            global_offsets=grouped["coords_offsets"],
            norm_Y_I=amplitude_sum / x_sum if x_sum else math.nan,
            YY_full=grouped.get("objectGuess"),
        )

    def __len__(self) -> int:
        return len(self.X)

    @property
    def Y_I(self) -> NDArray[np.float32] | None:
        """Amplitude of Y, float32 (B, N, N, C), or None."""
        return None if self.Y is None else np.abs(self.Y)

    @property
    def Y_phi(self) -> NDArray[np.float32] | None:
        """Phase of Y, float32 (B, N, N, C), rad, or None."""
        return None if self.Y is None else np.angle(self.Y)

    @property
    def coords(self) -> NDArray[np.float32]:
        """What the network is given: coords_true."""
        return self.coords_true

    @property
    def local_offsets(self) -> NDArray[np.float32]:
        """coords_true."""
        return self.coords_true
