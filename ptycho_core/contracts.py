"""What crosses module boundaries: a scan, the batches that an engine sees, grouped data (specs/data.md)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho_core.errors import DataError, explain
from ptycho_core.frames import Frames, Statistics, measure

NPZ_KEYS = {
    "diffraction_amplitude": "diff3d",
    "positions_px": "xcoords, ycoords",
    "nominal_positions_px": "xcoords_start, ycoords_start",
    "probe": "probeGuess",
    "object_field": "objectGuess",
}
"""Under which keys an NPZ file holds a field; messages name both."""


@attrs.frozen(eq=False, kw_only=True)
class Scan:
    """One ptychographic scan, checked on construction.

    diffraction_amplitude: float32 (M, N, N), square root of the measured intensity, DC at pixel [N/2, N/2]; an array,
        or `Frames` that read it from a file when it is asked for. Both give arrays when indexed.
    positions_px: float64 (M, 2), [x, y] = [column, row] of each patch CENTRE, pixels of the object grid.
    probe: complex64 (modes, N, N); (N, N) is accepted as one mode.
    bad_pixels: bool (N, N), True = excluded from every loss and set to zero in the input.
    object_field: complex64 (H, W) or None: ground truth or reference; its pixel [0, 0] is at coordinate (0, 0).
    nominal_positions_px: float64 (M, 2): the positions that were asked for; the same as positions_px when unknown.
    scan_index: int64 (M,).
    dose_known: True when diffraction_amplitude² is in photon counts, not in an arbitrary unit.
    source: what to call this scan in messages, usually its file.
    statistics: of the amplitudes, from the pass over them that checks them.
    """

    diffraction_amplitude: NDArray[np.float32] | Frames
    positions_px: NDArray[np.float64]
    probe: NDArray[np.complex64]
    bad_pixels: NDArray[np.bool_] | None = None
    object_field: NDArray[np.complex64] | None = None
    nominal_positions_px: NDArray[np.float64] | None = None
    scan_index: NDArray[np.int64] | None = None
    dose_known: bool = False
    source: str = "scan"
    metadata: Mapping[str, Any] = attrs.field(factory=dict)
    statistics: Statistics = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        amplitude = self.diffraction_amplitude
        if not isinstance(amplitude, Frames):
            amplitude = _array(self, "diffraction_amplitude", np.float32, "(M, N, N) real numbers", ndim=3)
        count, height, width = amplitude.shape
        if height != width:
            self._refuse("diffraction_amplitude", "square patterns (M, N, N)", amplitude.shape, "Crop or pad them.")
        if amplitude.size == 0:
            self._refuse("diffraction_amplitude", "at least one pattern", amplitude.shape, "Give a scan with data.")
        positions = _array(self, "positions_px", np.float64, "(M, 2) real numbers", ndim=2)
        if positions.shape != (count, 2):
            remedy = "Give one [x, y] position for every pattern."
            self._refuse("positions_px", f"shape ({count}, 2)", f"shape {positions.shape}", remedy)
        if not np.isfinite(positions).all():
            self._refuse("positions_px", "finite coordinates", "NaN or infinity", "Drop the frames without a position.")

        probe = np.asarray(self.probe)
        object.__setattr__(self, "probe", probe[None] if probe.ndim == 2 else probe)
        probe = _array(self, "probe", np.complex64, "(modes, N, N) complex numbers", ndim=3)
        if probe.shape[1:] != (height, width) or probe.shape[0] == 0:
            remedy = f"Resample the probe to {height} x {width} pixels, the size of the patterns."
            self._refuse("probe", f"shape (modes, {height}, {width})", f"shape {probe.shape}", remedy)
        if not np.isfinite(probe).all() or not probe.any():
            self._refuse("probe", "finite values, not all zero", "NaN, infinity or zeros only", "Give another probe.")

        if self.bad_pixels is None:
            object.__setattr__(self, "bad_pixels", np.zeros((height, width), bool))
        mask = _array(self, "bad_pixels", np.bool_, "(N, N) booleans, True = bad", ndim=2)
        if mask.shape != (height, width) or mask.all():
            expected = f"shape ({height}, {width}) with at least one good pixel"
            self._refuse("bad_pixels", expected, f"shape {mask.shape}, {mask.sum()} bad", "Check the mask's sense.")
        if isinstance(amplitude, Frames) and (unmeasured := amplitude.bad_pixels & ~mask).any():
            mask = mask | unmeasured
            object.__setattr__(self, "bad_pixels", mask)

        if self.object_field is not None:
            field = _array(self, "object_field", np.complex64, "(H, W) complex numbers", ndim=2)
            if not np.isfinite(field).all():
                self._refuse("object_field", "finite values", "NaN or infinity", "Drop it: it is optional.")
        if self.nominal_positions_px is None:
            object.__setattr__(self, "nominal_positions_px", positions)
        nominal = _array(self, "nominal_positions_px", np.float64, "(M, 2) real numbers", ndim=2)
        if self.scan_index is None:
            object.__setattr__(self, "scan_index", np.arange(count))
        index = _array(self, "scan_index", np.int64, "(M,) integers", ndim=1)
        if nominal.shape[1] != 2:
            self._refuse("nominal_positions_px", f"shape ({count}, 2)", f"shape {nominal.shape}", "Drop it.")
        for name, length in (("nominal_positions_px", len(nominal)), ("scan_index", len(index))):
            if length != count:
                self._refuse(name, f"{count} entries, one a pattern", length, "Drop it: it is optional.")
        self._check_amplitude(amplitude, mask)  # last, because many patterns take a while

    def _check_amplitude(self, amplitude: NDArray[np.float32] | Frames, mask: NDArray[np.bool_]) -> None:
        if isinstance(amplitude, Frames):
            statistics = amplitude.measure(mask)
        else:
            statistics = measure([amplitude], amplitude.shape, mask)
        if not (np.isfinite(statistics.lowest) and np.isfinite(statistics.largest)):
            remedy = "Set those pixels to 0 and mark them in bad_pixels."
            self._refuse("diffraction_amplitude", "finite values", "NaN or infinity", remedy)
        if statistics.lowest < 0:
            received = f"a minimum of {statistics.lowest:g}"
            self._refuse("diffraction_amplitude", "values >= 0", received, "Subtract no background.")
        if not statistics.frame_intensity.any():
            remedy = "Check which data set was read, and the mask's sense."
            self._refuse("diffraction_amplitude", "some counts in good pixels", "zeros only", remedy)
        object.__setattr__(self, "statistics", statistics)

    def _refuse(self, key: str, expected: object, received: object, remedy: str) -> None:
        key = f"{key} ({NPZ_KEYS[key]})" if key in NPZ_KEYS else key
        raise DataError(explain(self.source, key, expected=expected, received=received, remedy=remedy))

    def __len__(self) -> int:
        return len(self.diffraction_amplitude)

    @property
    def N(self) -> int:
        """Side of a pattern and of an object patch, pixels."""
        return int(self.diffraction_amplitude.shape[-1])

    def mean_pattern(self) -> NDArray[np.float64]:
        """(N, N), mean of A² over the patterns, bad pixels too. A part of a scan that is read from a file is read."""
        mean = self.statistics.mean_pattern
        if mean is None:
            assert isinstance(self.diffraction_amplitude, Frames) and self.bad_pixels is not None
            frames = self.diffraction_amplitude
            mean = measure(frames.blocks(), frames.shape, self.bad_pixels).mean_pattern
            assert mean is not None
        return mean

    def subset(self, index: NDArray[Any] | slice) -> Scan:
        """The frames chosen by `index` (integers, booleans or a slice), in that order."""
        assert self.nominal_positions_px is not None and self.scan_index is not None
        amplitude = self.diffraction_amplitude
        return attrs.evolve(
            self,
            diffraction_amplitude=amplitude.select(index) if isinstance(amplitude, Frames) else amplitude[index],
            positions_px=self.positions_px[index],
            nominal_positions_px=self.nominal_positions_px[index],
            scan_index=self.scan_index[index],
        )


def _array(scan: Scan, key: str, dtype: type[np.generic], expected: str, *, ndim: int) -> NDArray[Any]:
    """The field as an array of `dtype` and `ndim`, stored back; complex data are never cut to their real part."""
    received = np.asarray(getattr(scan, key))
    kinds = {np.complex64: "biufc", np.bool_: "biu", np.int64: "biu"}.get(dtype, "biuf")
    if received.dtype.kind not in kinds or (dtype is np.bool_ and not np.isin(received, (0, 1)).all()):
        scan._refuse(key, expected, f"dtype {received.dtype}", "Convert the array.")
    if received.ndim != ndim:
        scan._refuse(key, expected, f"shape {received.shape}", "Reshape the array.")
    array = np.ascontiguousarray(received, dtype=dtype)
    object.__setattr__(scan, key, array)
    return array


@attrs.frozen(eq=False, kw_only=True)
class Batch:
    """What an engine is given: numpy arrays only, channels last; B groups of C overlapping frames.

    diffraction_amplitude: float32 (B, N, N, C), square root of the intensity, bad pixels zero.
    relative_offsets_px: float32 (B, 1, 2, C), [x, y] on axis 2, -(position - group centre).
    canvas_padding_px: border of the merge canvas on each side; at least max |relative offset|, one for a whole run.
    bad_pixels: bool (N, N).
    object_patches: complex64 (B, N, N, C) ground truth at the same positions, or None.
    """

    diffraction_amplitude: NDArray[np.float32]
    relative_offsets_px: NDArray[np.float32]
    canvas_padding_px: int
    bad_pixels: NDArray[np.bool_]
    object_patches: NDArray[np.complex64] | None = None

    def __len__(self) -> int:
        return len(self.diffraction_amplitude)

    def parts(self, size: int) -> Iterator[Batch]:
        """Views of at most `size` groups each, in order."""
        for start in range(0, len(self), size):
            groups = slice(start, start + size)
            yield Batch(
                diffraction_amplitude=self.diffraction_amplitude[groups],
                relative_offsets_px=self.relative_offsets_px[groups],
                canvas_padding_px=self.canvas_padding_px,
                bad_pixels=self.bad_pixels,
                object_patches=None if self.object_patches is None else self.object_patches[groups],
            )


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
            self._refuse("X", "shape (B, N, N, C)", f"shape {shape}", "Give the X_full of grouped data.")
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
                self._refuse("YY_full", "shape (H, W)", f"shape {np.shape(self.YY_full)}", "Drop it: it is optional.")
            self._take("YY_full", np.complex64, np.shape(self.YY_full))

    def _take(self, key: str, dtype: type[np.generic], shape: tuple[int, ...], remedy: str = "Convert it.") -> None:
        """Store the field back as an array of `dtype`; another kind of numbers or another shape is refused."""
        received = np.asarray(getattr(self, key))
        expected = f"{np.dtype(dtype)} of shape {shape}"
        if received.dtype.kind not in {np.complex64: "c", np.int64: "iu"}.get(dtype, "iuf"):
            self._refuse(key, expected, f"dtype {received.dtype}", remedy)
        if received.shape != shape:
            self._refuse(key, expected, f"shape {received.shape}", "Give one entry for every entry of X.")
        object.__setattr__(self, key, np.ascontiguousarray(received, dtype=dtype))

    @staticmethod
    def _refuse(key: str, expected: object, received: object, remedy: str) -> None:
        raise DataError(explain("PtychoDataContainer", key, expected=expected, received=received, remedy=remedy))

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
                raise DataError(
                    explain("grouped data", key, expected="an array", received="no such key", remedy=remedy)
                )
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
